"""One watched training: its setting, clock, curves, and how it stands."""

import math
from dataclasses import replace

import numpy as np
import pytest

from batchlab.advisor.watched.runs import (
    Series,
    averaged,
    direction,
    knows_evaluation,
    metric_of,
    run_of,
)
from batchlab.errors import ResultError
from batchlab.types import Status
from batchlab.watch.record import Ending, Moment, gathered
from batchlab.watch.settings import NUMBERS
from tests.advisor.watched.made import STEPS, lines_of, run


def test_the_clock_is_the_time_of_training_without_evaluation():
    assert run(pace=3.0).series["accuracy"].seconds.tolist() == [
        3.0 * step for step in range(1, STEPS + 1)
    ]


def test_an_older_record_has_wall_time_only():
    watched = gathered(lines_of(training=False))
    assert not knows_evaluation(watched)
    assert run(pace=3.0, training=False).series["accuracy"].seconds[0] == 6.0


def test_the_setting_is_measured_read_and_told():
    setting = run(batch=16, rate=0.2, settings={"dropout": 0.1}).setting
    assert (setting.batch_size, setting.learning_rate, setting.rule) == (16, 0.2, "shb")
    assert setting.other == {"dropout": 0.1}


def test_a_batch_size_that_was_told_stands_for_the_measured_one():
    assert run(settings={"batch_size": "0:8 20ep:16"}).setting.batch_size == "0:8 20ep:16"


def test_an_older_file_may_hold_settings_that_nobody_can_count_with():
    odd = {name: "1e-3 cosine" for name in NUMBERS if name != "batch_size"}
    setting = run(rate=None, settings=odd).setting
    assert math.isnan(setting.learning_rate)
    assert (setting.momentum, setting.micro_batch_size) == (0.0, 32)
    assert setting.other == odd


def test_a_diverged_run_has_ended_and_its_curve_ends_in_nan():
    found = run(diverged=True, ending=None)
    assert (found.status, found.ended) == (Status.DIVERGED, True)
    assert math.isnan(found.series["accuracy"].values[-1])


@pytest.mark.parametrize(
    ("ending", "ended"), [(Ending.FINISHED, True), (Ending.STOPPED, False), (None, False)]
)
def test_only_a_run_that_finished_has_ended(ending, ended):
    assert run(ending=ending).ended is ended


def test_a_loss_that_never_falls_did_not_learn():
    flat = [replace(line, loss=1.0) if isinstance(line, Moment) else line for line in lines_of()]
    assert run_of("a", gathered(flat), without_evaluation=True).status is Status.DID_NOT_LEARN


def test_a_training_without_an_update_is_refused():
    with pytest.raises(ResultError, match="has not recorded an update yet"):
        run(steps=0)


def test_averaging_keeps_the_mean_over_all_examples():
    samples = np.array([3.0, 5.0, 11.0, 12.0, 20.0, 21.0])
    values = np.array([1.0, 4.0, 2.0, 8.0, 5.0, 7.0])
    weights = np.diff(samples, prepend=0.0)
    for parts in (1, 2, 3):
        found = averaged(Series(samples, samples, samples, values), parts)
        parts_of_it = np.diff(found.samples, prepend=0.0)
        assert found.values @ parts_of_it == pytest.approx(values @ weights)
        assert found.samples[-1] == samples[-1]


@pytest.mark.parametrize(
    ("name", "said", "up"),
    [
        ("accuracy", None, True),
        ("val_loss", None, False),
        ("val_loss", True, True),
        ("mape", None, False),
        ("something", None, None),
    ],
)
def test_what_was_said_comes_before_what_the_name_tells(name, said, up):
    assert direction(name, said) is up


def test_an_accuracy_in_percent_points_is_not_taken_for_a_share():
    assert metric_of("accuracy", None, [0.5, 0.9]).unit == "%"
    assert metric_of("accuracy", None, [50.0, 90.0]).unit == ""
