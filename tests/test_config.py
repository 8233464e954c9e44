"""What a run may be, and what is filled in when it is left open."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError
from batchlab.rules import RULES
from batchlab.types import from_plain, to_plain


@pytest.mark.parametrize(
    ("rule", "momentum", "rate", "expected"),
    [
        (None, None, None, ("shb", 0.9, 0.01)),
        ("sgd", None, None, ("sgd", 0.0, 0.1)),
        ("shb", 0.0, None, ("shb", 0.0, 0.1)),
        ("adam", None, None, ("adam", 0.9, 0.001)),
        ("rmsprop", None, None, ("rmsprop", 0.0, 0.001)),
        ("nshb", 0.5, 2, ("nshb", 0.5, 2.0)),
    ],
)
def test_open_fields_are_filled_in(rule, momentum, rate, expected):
    run = RunConfig(rule=rule, momentum=momentum, learning_rate=rate).resolved(100)
    assert (run.rule, run.momentum, run.learning_rate) == expected
    assert (run.batch_size, run.samples) == (32, 1000)


def test_every_assumption_is_said_once():
    said = RunConfig().assumptions()
    assert [s.split()[4].rstrip(":") for s in said] == [
        "rule",
        "batch_size",
        "learning_rate",
        "samples",
    ]


def test_a_complete_recipe_assumes_nothing():
    full = RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="1ep")
    assert full.assumptions() == ()


def test_resolving_twice_changes_nothing():
    once = RunConfig(samples="2.5ep").resolved(101)
    assert once.resolved(7) == once
    assert once.samples == 253


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("learning_rate", -0.1, "0 or more; got -0.1"),
        ("learning_rate", math.nan, "0 or more; got nan"),
        ("learning_rate", math.inf, "0 or more; got inf"),
        ("learning_rate", True, "0 or more; got True"),
        ("momentum", 1.0, "in \\[0, 1\\); got 1.0"),
        ("beta2", -0.1, "in \\[0, 1\\)"),
        ("warmup", 1.0, "in \\[0, 1\\)"),
        ("nu", 1.1, "in \\[0, 1\\]"),
        ("weight_decay", -1.0, "0 or more"),
        ("eps", math.nan, "0 or more"),
        ("clip_norm", 0.0, "above 0, or None"),
        ("reuse", 0, "a whole number, 1 or more"),
        ("reuse", 1.5, "a whole number"),
        ("seed", -1, "a whole number, 0 or more"),
        ("rule", "lion", "one of sgd, shb"),
        ("precision", "float16", "one of float32, bfloat16, float64"),
        ("batch_size", 0, "1 or more"),
        ("batch_size", "8 then 16", "pairs such as"),
        ("samples", 0, "at least 1 sample"),
        ("samples", "3 laps", "a number of samples"),
        ("lr_schedule", "zigzag", "one of constant"),
    ],
)
@pytest.mark.wrong_type
def test_nonsense_is_refused_by_name(field, value, words):
    with pytest.raises(InvalidValueError, match=f"`{field}` must be .*{words}"):
        RunConfig(**{field: value})


@pytest.mark.wrong_type
def test_a_schedule_that_is_no_text_is_refused():
    with pytest.raises(InvalidTypeError, match="`lr_schedule` must be text"):
        RunConfig(lr_schedule=0.5)


def test_sgd_with_momentum_is_refused_and_told_its_name_here():
    with pytest.raises(InvalidValueError, match=r"`momentum` must be 0 .* rule='shb'"):
        RunConfig(rule="sgd", momentum=0.9)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(RunConfig)])
def test_every_field_is_part_of_the_fingerprint(field):
    changed = {
        "rule": "adam",
        "batch_size": 7,
        "learning_rate": 0.3,
        "samples": 99,
        "momentum": 0.3,
        "lr_schedule": "cosine",
        "clip_norm": 1.0,
        "precision": "float64",
        "reuse": 2,
        "micro_batch_size": 4,
        "seed": 5,
    }
    value = changed.get(field, 0.123)
    assert RunConfig(**{field: value}).fingerprint() != RunConfig().fingerprint()


FIELDS = st.fixed_dictionaries(
    {
        "rule": st.sampled_from([None, *sorted(set(RULES) - {"sgd"})]),
        "batch_size": st.sampled_from([None, 1, 64, "0:8 20ep:16"]),
        "learning_rate": st.none() | st.floats(0, 1e6),
        "samples": st.sampled_from([None, 10, "20ep", "1.5M"]),
        "momentum": st.none() | st.floats(0, 0.999),
        "warmup": st.floats(0, 0.9),
        "clip_norm": st.none() | st.floats(1e-6, 1e6),
        "seed": st.integers(0, 2**40),
    }
)


@given(FIELDS)
def test_a_config_survives_json(fields):
    config = RunConfig(**fields)
    back = from_plain(RunConfig, json.loads(json.dumps(to_plain(config))))
    assert back == config
    assert back.fingerprint() == config.fingerprint()
