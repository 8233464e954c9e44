"""Randomness is a function of names, and leaves the global generators as they were."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchlab import _random

SEEDS = st.integers(0, 2**40)


@given(SEEDS, st.text(max_size=8), st.lists(st.integers(0, 2**40), max_size=3))
def test_a_key_is_a_63_bit_number_and_repeats(seed, purpose, counters):
    key = _random.key(seed, purpose, *counters)
    assert 0 <= key < 2**63
    assert key == _random.key(seed, purpose, *counters)


def test_keys_differ_in_seed_purpose_and_every_counter():
    names = [
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", 0),
        (0, "a", 1),
        (0, "a", 0, 1),
        (0, "a", 1, 0),
    ]
    assert len({_random.key(*name) for name in names}) == len(names)


@given(st.integers(1, 50), SEEDS, st.integers(0, 1000))
def test_a_permutation_holds_every_example_once(examples, seed, pass_):
    assert sorted(_random.permutation(examples, seed, pass_).tolist()) == list(range(examples))


def test_permutations_differ_between_passes_and_seeds():
    orders = {tuple(_random.permutation(30, *name).tolist()) for name in [(0, 0), (0, 1), (1, 0)]}
    assert len(orders) == 3


def draws():
    return random.random(), np.random.random(), float(torch.rand(()))


def test_seeded_names_what_all_three_generators_draw():
    with _random.seeded(3, "x", 1):
        one = draws()
    with _random.seeded(3, "x", 1):
        again = draws()
    with _random.seeded(3, "x", 2):
        other = draws()
    assert one == again
    assert all(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.wrong_type
def test_seeded_leaves_the_generators_bit_for_bit_as_they_were():
    np.random.standard_normal()  # leaves half of a pair behind
    before = _random.global_state()
    with _random.seeded(3, "x"), _random.seeded(4, "y"):
        draws()
        torch.randn(7)
        np.random.standard_normal()
    assert _random.global_state() == before


def draw_and_fail():
    with _random.seeded(0, "x"):
        draws()
        raise ZeroDivisionError("on purpose")


@pytest.mark.wrong_type
def test_seeded_restores_after_an_error():
    before = _random.global_state()
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        draw_and_fail()
    assert _random.global_state() == before


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: torch.rand(1)])
def test_the_global_state_shows_a_draw_from_any_generator(draw):
    with _random.seeded(0, "x"):
        before = _random.global_state()
        draw()
        assert _random.global_state() != before


def mix(x):
    """Lowbias32 as its author wrote it."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def uniform_twin(key, site, position):
    low, high = key % 2**32, key >> 32
    start = mix(low ^ mix(high ^ 0x9E3779B9 * (site + 1) % 2**32))
    return (mix(mix(start ^ position) ^ start >> 7) >> 8) / 2**24


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_uniform_equals_whole_number_arithmetic(key, site):
    found = _random.uniform(torch.tensor(key), site, 5)
    assert found.tolist() == [uniform_twin(key, site, i) for i in range(5)]
