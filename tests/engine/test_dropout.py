"""Masks that depend on (seed, update, place) only, whoever asks."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from batchlab import _random
from batchlab.engine.dropout import NamedDropout
from tests.engine import tiny

KEY = torch.tensor(_random.key(0, "test") >> 2)


def served(function, key=KEY):
    with NamedDropout(key):
        return function()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.dropout(x, 0.5, True),
        lambda x: functional.dropout(x, p=0.5, training=True, inplace=True),
        lambda x: torch.dropout(x, 0.5, True),
        lambda x: nn.Dropout(0.5)(x),
        lambda x: nn.Dropout1d(0.5)(x),
        lambda x: nn.Dropout2d(0.5)(x[..., None]),
        lambda x: nn.Dropout3d(0.5)(x[..., None, None]),
    ],
)
def test_every_kind_is_served_without_the_global_generator(function):
    x = torch.ones(4, 6, 5)
    before = _random.global_state()[1:]
    first, second = (served(lambda: function(x)) for _ in range(2))
    assert _random.global_state()[1:] == before
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 2.0}


def test_whole_channels_are_dropped_by_the_spatial_kinds():
    found = served(lambda: nn.Dropout2d(0.5)(torch.ones(8, 6, 3, 3)))
    each = found.flatten(2)
    assert bool((each == each[..., :1]).all())
    assert set(each[..., 0].unique().tolist()) == {0.0, 2.0}


def test_evaluation_mode_and_a_rate_of_zero_drop_nothing():
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(served(lambda: nn.Dropout(0.5).eval()(x)), x)
    assert torch.equal(served(lambda: functional.dropout(x, 0.0)), x)


def test_a_rate_of_one_drops_everything():
    assert torch.equal(served(lambda: functional.dropout(torch.ones(4), 1.0)), torch.zeros(4))


def test_masks_differ_between_places_updates_and_runs():
    x = torch.ones(64)
    both = served(lambda: (functional.dropout(x), functional.dropout(x)))
    later = served(lambda: functional.dropout(x), KEY + 1)
    other = served(lambda: functional.dropout(x), torch.tensor(_random.key(1, "test") >> 2))
    masks = {tuple(mask.tolist()) for mask in (*both, later, other)}
    assert len(masks) == 4


def test_a_run_has_the_same_masks_alone_and_under_vmap():
    keys = torch.stack([KEY, KEY + 1, KEY + 99])
    x = torch.ones(7, 3)

    def masks(key):
        return served(lambda: (functional.dropout(x, 0.3), functional.dropout(x, 0.6)), key)

    together = torch.vmap(masks)(keys)
    for r, key in enumerate(keys):
        for one, all_ in zip(masks(key), together, strict=True):
            assert torch.equal(one, all_[r])


def share_z(keep, count, p):
    """Standard scores of the share kept, mask by mask over 16 keys, together as one number."""
    u = torch.stack([_random.uniform(KEY + i, 0, count) for i in range(16)])
    kept = int(keep(u, p).sum())
    n = u.numel()
    return (kept - n * (1 - p)) / math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_kept_is_one_minus_p(p):
    # 16 masks of 10,000; 4 standard errors are at most 0.005 of share.
    assert abs(share_z(lambda u, p: u >= p, 10_000, p)) <= 4


def test_the_share_test_fails_when_the_mask_is_turned_round():
    assert abs(share_z(lambda u, p: u < p, 10_000, 0.1)) > 4


def correlation_z(uniform):
    """Largest |z| of the correlation of masks that differ in update, place or by one element."""
    n = 20_000
    base = uniform(KEY, 0, n)
    others = [uniform(KEY + 1, 0, n), uniform(KEY + 2**32, 0, n), uniform(KEY, 1, n), base.roll(1)]
    return max(
        abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) * math.sqrt(n)
        for other in others
    )


def test_masks_are_not_correlated():
    # Correlations above 4/√20,000 = 0.028 would show.
    assert correlation_z(_random.uniform) <= 4


def test_the_correlation_test_fails_when_the_place_is_left_out():
    assert correlation_z(lambda key, site, count: _random.uniform(key, 0, count)) > 4


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_dropout_acts_in_training(executor):
    one = tiny.trained(tiny.ready(tiny.with_dropout), [tiny.run(samples=160)], executor)[0]

    def without():
        model = tiny.with_dropout()
        model[2].p = 0.0
        return model

    other = tiny.trained(tiny.ready(without), [tiny.run(samples=160)], executor)[0]
    assert tiny.apart(one, other) > 1e-3
