"""Arithmetic on parameters, and batches of every shape."""

import math

import pytest
import torch

from batchlab import _tree
from batchlab.errors import InvalidTypeError

X = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}
Y = {"b": torch.tensor([[10.0]]), "a": torch.tensor([20.0, 30.0])}
BATCH = {"x": torch.arange(6).reshape(3, 2), "more": (torch.arange(3), [torch.ones(3)])}


def flat(params):
    return [value for name in sorted(params) for value in params[name].flatten().tolist()]


def test_add_matches_by_name_not_by_place():
    assert flat(_tree.add(X, Y)) == [21.0, 32.0, 13.0]


def test_axpy_multiplies_the_first():
    assert flat(_tree.axpy(2.0, X, Y)) == [22.0, 34.0, 16.0]


def test_scale_and_zeros():
    assert flat(_tree.scale(-2.0, X)) == [-2.0, -4.0, -6.0]
    assert flat(_tree.zeros_like(X)) == [0.0, 0.0, 0.0]


def test_the_norm_is_over_all_names():
    assert float(_tree.norm(X)) == pytest.approx(math.sqrt(14.0))


@pytest.mark.parametrize(
    ("value", "finite"),
    [(1.0, True), (-3e38, True), (math.inf, False), (-math.inf, False), (math.nan, False)],
)
def test_one_number_that_is_not_finite_is_found(value, finite):
    params = X | {"c": torch.tensor([0.0, value]), "empty": torch.zeros(0)}
    assert bool(_tree.is_finite(params)) is finite


def test_opposite_infinities_do_not_cancel():
    assert not _tree.is_finite({"a": torch.tensor([math.inf, -math.inf])})


def test_stack_and_pick_undo_each_other():
    stacked = _tree.stack([X, Y])
    assert flat(_tree.pick(stacked, 1)) == flat(Y)
    assert _tree.pick(stacked, torch.tensor([1]))["a"].shape == (1, 2)


def test_a_batch_is_any_tree_of_tensors():
    assert [leaf.shape[0] for leaf in _tree.leaves(BATCH)] == [3, 3, 3]
    assert _tree.size(BATCH) == 3


@pytest.mark.parametrize("leaf", [None, 3, "text"])
def test_a_leaf_that_is_no_tensor_is_refused(leaf):
    with pytest.raises(InvalidTypeError, match="`batch` must be made of tensors"):
        _tree.leaves((torch.ones(2), leaf))


def test_take_gathers_and_an_index_of_runs_keeps_their_axis():
    assert _tree.take(BATCH, torch.tensor([2, 0]))["more"][0].tolist() == [2, 0]
    assert _tree.take(BATCH, torch.tensor([[2, 0], [1, 1]]))["x"].shape == (2, 2, 2)


def test_halves_joined_are_the_whole():
    joined = _tree.concatenate([_tree.narrow(BATCH, 0, 2), _tree.narrow(BATCH, 2, 3)])
    for a, b in zip(_tree.leaves(joined), _tree.leaves(BATCH), strict=True):
        assert torch.equal(a, b)


def test_moving_changes_the_type_of_floats_only():
    moved = _tree.to(BATCH, "cpu", torch.float64)
    assert moved["x"].dtype == torch.int64
    assert moved["more"][1][0].dtype == torch.float64
