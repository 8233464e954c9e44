import torch

from batchlab.models.rnn import GRUClassifier


def gru(model, signals):
    """Cho and others' equations, step by step, in the gate order of torch."""
    cell, state = model.gru, torch.zeros(len(signals), model.gru.hidden_size)
    for x in signals.unbind(1):
        gates_x = (x @ cell.weight_ih_l0.T + cell.bias_ih_l0).chunk(3, -1)
        gates_h = (state @ cell.weight_hh_l0.T + cell.bias_hh_l0).chunk(3, -1)
        reset, update = (torch.sigmoid(a + b) for a, b in zip(gates_x, gates_h[:2], strict=False))
        candidate = torch.tanh(gates_x[2] + reset * gates_h[2])
        state = (1 - update) * candidate + update * state
    return state @ model.head.weight.T + model.head.bias


def test_gru_classifier_equals_the_equations():
    model, signals = GRUClassifier(inputs=3, hidden=5, classes=2), torch.randn(4, 7, 3)
    assert torch.allclose(model(signals), gru(model, signals), atol=1e-6)
