"""The calculator against a walk through the stream, torch's DataLoader and the guide's example."""

import math
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from batchlab import _tree, rules
from batchlab.app.plan import Last, plan
from batchlab.errors import InvalidTypeError, InvalidValueError

module = sys.modules["batchlab.app.plan"]
LASTS = list(Last.__args__)


def walk(examples, steps, budget, last):
    """(updates of each step, samples, short batches), batch by batch, as the words say."""
    updates, samples, short, place = [0] * len(steps), 0, 0, 0
    while place < budget:
        phase = max(i for i, (start, _) in enumerate(steps) if start <= place)
        size = steps[phase][1]
        end = budget if last == "run-on" else min((place // examples + 1) * examples, budget)
        if place + size > end and last != "short":
            place = end
            continue
        updates[phase] += 1
        short += place + size > end
        samples += min(size, end - place)
        place = min(place + size, end)
    return updates, samples, short


@st.composite
def trainings(draw):
    examples = draw(st.integers(5, 40))
    starts = sorted(draw(st.sets(st.integers(1, 150), max_size=3)))
    steps = [(start, draw(st.integers(1, 9))) for start in [0, *starts]]
    steps = [(start, min(size, examples)) for start, size in steps]
    epochs = draw(st.integers(1, 60)) / 10
    return examples, steps, epochs, draw(st.sampled_from(LASTS))


def planned(examples, steps, epochs, last):
    text = " ".join(f"{start}:{size}" for start, size in steps)
    found = plan(examples=examples, batch_size=text, epochs=epochs, last=last)
    return [phase.updates for phase in found.phases], found.samples, found.short_batches


def walked(examples, steps, epochs, last):
    budget = math.ceil(Fraction(repr(epochs)) * examples)
    updates, samples, short = walk(examples, steps, budget, last)
    used = sum(start < budget for start, _ in steps)
    return updates[:used], samples, short


@given(trainings())
def test_the_count_equals_a_walk_through_the_stream(training):
    assert planned(*training) == walked(*training)


def test_a_planted_slip_at_the_end_of_a_pass_is_seen(monkeypatch):
    training = 10, [(0, 4), (18, 3)], 2.0, "drop"
    assert planned(*training) == walked(*training)
    monkeypatch.setattr(module, "_last_start", lambda schedule, start, end: start)
    assert planned(*training) != walked(*training)


@pytest.mark.parametrize("size", [1, 7, 32, 100])
@pytest.mark.parametrize(("last", "drop"), [("short", False), ("drop", True)])
def test_passes_that_end_have_as_many_updates_as_a_data_loader(size, last, drop):
    loader = DataLoader(torch.arange(100), batch_size=size, drop_last=drop)
    found = plan(examples=100, batch_size=size, epochs=3, last=last)
    assert found.updates == 3 * len(loader)
    assert found.phases[0].updates_per_epoch == len(loader)


def test_the_guides_example():
    found = plan(examples=10_000, batch_size=100)
    assert found.updates == found.phases[0].updates_per_epoch == 100
    assert found.samples == 10_000
    assert found.otherwise == {"short": 100, "drop": 100}
    assert "100 updates an epoch" in str(found)


def test_the_last_short_batch_is_named():
    found = plan(examples=100, batch_size=32, last="short", epochs=2)
    assert (found.phases[0].last_batch, found.short_batches, found.updates) == (4, 2, 8)
    assert found.otherwise == {"run-on": 6, "drop": 6}
    assert "the last one of 4" in str(found)


def test_what_is_dropped_or_left_is_counted():
    dropped = plan(examples=100, batch_size=32, last="drop", epochs=2)
    assert (dropped.phases[0].dropped, dropped.left_out, dropped.samples) == (4, 8, 192)
    assert plan(examples=100, batch_size=32, epochs=2).left_out == 8


def test_a_million_epochs_are_counted_at_once():
    found = plan(examples=1000, batch_size="0:8 20ep:16", epochs=1_000_000, last="short")
    assert found.updates == 20 * 125 + (1_000_000 - 20) * 63


def test_time_and_cost_follow_the_updates():
    found = plan(examples=1000, batch_size=10, epochs=36, seconds_per_update=2, price_per_hour=3)
    assert (found.seconds, found.cost) == (7200.0, 6.0)
    assert "2 h (7,200 s)" in str(found)
    assert "6 USD" in str(found)


def test_shb_and_nshb_are_converted_exactly():
    to, back = (plan(examples=1, batch_size=1, rule=r, learning_rate=x).conversion
                for r, x in (("shb", 0.05), ("nshb", 0.5)))  # fmt: skip
    assert (to.shb, to.nshb) == (back.shb, back.nshb) == (0.05, 0.5)


def test_converted_rates_take_the_same_steps():
    found = plan(examples=1, batch_size=1, rule="shb", learning_rate=0.3, momentum=0.8).conversion
    steps = {}
    for name, rate in (("shb", found.shb), ("nshb", found.nshb)):
        params = {"w": torch.tensor([1.0, -2.0], dtype=torch.float64)}
        rule = rules.RULES[name]
        state = rule.init(params)
        fields = dict.fromkeys(rules.Numbers._fields, torch.tensor(0.0, dtype=torch.float64))
        fields |= {"learning_rate": torch.tensor(rate), "momentum": torch.tensor(0.8)}
        for _ in range(5):
            delta, state = rule.update(params, state, params, rules.Numbers(**fields))
            params = _tree.add(params, delta)
        steps[name] = params["w"]
    torch.testing.assert_close(steps["shb"], steps["nshb"], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"examples": 0}, "examples"),
        ({"epochs": 0.0}, "epochs"),
        ({"epochs": math.inf}, "epochs"),
        ({"last": "cut"}, "last"),
        ({"batch_size": "0:8 5ep"}, "batch_size"),
        ({"batch_size": 11, "last": "drop"}, "batch_size"),
        ({"batch_size": "0:2 3upd:4", "last": "short"}, "batch_size"),
        ({"seconds_per_update": 0.0}, "seconds_per_update"),
        ({"price_per_hour": 1.0}, "price_per_hour"),
        ({"price_per_hour": -1.0, "seconds_per_update": 1.0}, "price_per_hour"),
        ({"learning_rate": 0.1}, "rule"),
        ({"rule": "shb"}, "learning_rate"),
        ({"rule": "shb", "learning_rate": 0.1, "momentum": 1.0}, "momentum"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given, name):
    with pytest.raises(InvalidValueError, match=f"^`{name}` must be"):
        plan(**({"examples": 10, "batch_size": 2} | given))


@pytest.mark.wrong_type
def test_half_an_example_is_refused():
    with pytest.raises(InvalidTypeError, match="`examples` must be a whole number"):
        plan(examples=1.5)


def test_a_batch_larger_than_the_training_is_said_to_train_nothing():
    assert "none: not one whole batch" in str(plan(examples=100, batch_size=1000))
