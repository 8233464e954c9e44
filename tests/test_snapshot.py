"""What is kept is put back bit for bit, and in place."""

import pytest
import torch
from torch import nn

from batchlab._snapshot import Snapshot, copies, put_values_back


def model_and_optimizer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def step(model, optimizer):
    model(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()


def test_values_are_put_back_in_place():
    tensor = torch.ones(2, requires_grad=True)
    kept = copies([tensor, tensor])
    with torch.no_grad():
        tensor.zero_()
    put_values_back(kept)
    assert len(kept) == 1
    assert tensor.tolist() == [1, 1]


def test_an_optimizers_state_is_put_back_into_the_same_tensors():
    model, optimizer = model_and_optimizer()
    step(model, optimizer)
    moments = [entry["exp_avg"] for entry in optimizer.state.values()]
    values = [moment.clone() for moment in moments]
    before = Snapshot(model, optimizer)
    for _ in range(2):
        step(model, optimizer)
        before.put_back()
    now = [entry["exp_avg"] for entry in optimizer.state.values()]
    assert all(a is b for a, b in zip(now, moments, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(now, values, strict=True))


def test_state_made_since_is_gone():
    model, optimizer = model_and_optimizer()
    before = Snapshot(model, optimizer)
    step(model, optimizer)
    before.put_back()
    assert len(optimizer.state) == 0
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("value", [2, "text", [1]])
def test_attributes_of_modules_are_put_back(value):
    model, optimizer = model_and_optimizer()
    model.counter = value
    before = Snapshot(model, optimizer)
    model.counter, model.new = None, 1
    model[1].eval()
    before.put_back()
    assert model.counter == value
    assert not hasattr(model, "new")
    assert model[1].training


def test_parameters_that_only_the_optimizer_knows_are_put_back():
    model = nn.Linear(1, 1)
    temperature = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([*model.parameters(), temperature], lr=1.0)
    before = Snapshot(model, optimizer)
    temperature.grad = torch.ones(())
    optimizer.step()
    assert temperature.item() == 0
    before.put_back()
    assert temperature.item() == 1
    assert temperature.grad is None


def test_numbers_of_a_group_are_put_back_even_as_tensors():
    model = nn.Linear(1, 1)
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    before = Snapshot(model, optimizer)
    optimizer.param_groups[0]["lr"].mul_(2)
    optimizer.param_groups[0]["added"] = 1
    before.put_back()
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.1)
    assert "added" not in optimizer.param_groups[0]
