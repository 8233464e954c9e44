"""The two-layer student is its equation and starts at right angles to its teacher."""

import math

import pytest
import torch

from batchlab.errors import InvalidValueError
from batchlab.models.student import TwoLayerStudent, orthogonal

DOUBLE = torch.float64


def test_the_student_is_its_equation():
    model, x = TwoLayerStudent(7, 3, torch.tanh), torch.randn(5, 7)
    expected = [
        sum(
            sign / math.sqrt(3) * math.tanh(float(w @ row) / math.sqrt(7))
            for sign, w in zip((1, -1, 1), model.weight.detach(), strict=True)
        )
        for row in x
    ]
    assert model(x).tolist() == pytest.approx(expected, abs=1e-6)


def test_pictures_are_flattened():
    model, x = TwoLayerStudent(6, 2), torch.randn(4, 1, 2, 3)
    assert torch.equal(model(x), model(x.flatten(1)))


def test_the_start_is_at_right_angles_to_what_it_avoids():
    teacher = orthogonal(torch.randn(2, 9, dtype=DOUBLE))
    rows = torch.cat((teacher, TwoLayerStudent(9, 3, avoid=teacher).weight.detach().double()))
    assert torch.allclose(rows @ rows.T / 9, torch.eye(5, dtype=DOUBLE), atol=1e-6)


def test_rows_lie_on_the_side_they_came_from():
    rows = torch.randn(2, 9, dtype=DOUBLE)
    assert (orthogonal(rows) * rows).sum(-1).min() > 0


@pytest.mark.parametrize(("train_second", "trained"), [(False, 1), (True, 2)])
def test_the_second_layer_is_trained_only_when_asked(train_second, trained):
    assert len(list(TwoLayerStudent(5, 2, train_second=train_second).parameters())) == trained


def test_more_directions_than_inputs_are_refused():
    with pytest.raises(InvalidValueError, match="`inputs` must be at least 4, the directions of"):
        TwoLayerStudent(3, 2, avoid=torch.eye(3)[:2])
