"""A trace becomes two tidy tables and comes back."""

import io
import math

import numpy as np
import polars as pl
import pytest

from batchlab.config import RunConfig
from batchlab.engine import RunResult, Series, Trace
from batchlab.engine.trace import Recorder, to_parquet
from batchlab.types import Status
from tests.engine import tiny


def series(*values):
    places = np.arange(len(values))
    return Series(places, 8 * places, np.array(values, dtype=float))


def result(status=Status.OK, **recorded):
    config = RunConfig(batch_size="0:8 20ep:16", clip_norm=None, seed=3)
    return RunResult(config, status, "", 5, 40, 80, 0.25, "loop", 1, recorded)


TRACE = Trace(
    (
        result(loss=series(1.0, math.nan, math.inf), metric=series(0.5)),
        result(Status.DIVERGED),
        result(Status.DID_NOT_LEARN, loss=series(2.0)),
    )
)


def again(trace):
    tables = (pl.read_parquet(io.BytesIO(to_parquet(table))) for table in trace.tables())
    return Trace.from_tables(*tables)


def test_a_trace_survives_parquet():
    back = again(TRACE)
    assert tiny.facts(back) == tiny.facts(TRACE)
    assert [r.seconds for r in back.runs] == [0.25] * 3


def test_the_tables_are_flat():
    runs, metrics = TRACE.tables()
    assert metrics.columns == ["run", "updates", "samples", "name", "value"]
    assert len(metrics) == 5
    assert not any(kind.is_nested() for kind in [*runs.dtypes, *metrics.dtypes])


def test_a_trace_in_which_nothing_was_recorded_survives():
    assert again(Trace((result(),))).runs[0].series == {}


@pytest.mark.parametrize(
    ("made", "name", "value"),
    [
        (result(loss=series(2.0, 1.0)), "loss", 1.0),
        (result(loss=series(2.0, 1.0)), "metric", math.nan),
        (result(Status.DIVERGED, loss=series(2.0, 1.0)), "loss", math.nan),
        (result(loss=series()), "loss", math.nan),
    ],
)
def test_the_final_value_is_the_last_of_a_run_that_ended_well(made, name, value):
    assert made.final(name) == pytest.approx(value, nan_ok=True)


def test_a_recorder_keeps_names_apart():
    recorder = Recorder()
    recorder.add(0, 0, {"loss": 2.0})
    recorder.add(1, 8, {"loss": 1.0, "probe": 7.0})
    found = recorder.series()
    assert found["loss"].samples.tolist() == [0, 8]
    assert found["probe"].updates.tolist() == [1]
