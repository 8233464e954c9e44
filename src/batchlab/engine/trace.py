"""What a sweep leaves behind: metrics over time, a status per run, and how it was run."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from batchlab import _curves, _html
from batchlab.config import RunConfig
from batchlab.types import Status, from_plain, to_plain

MANY = 12
"""Runs from which on a notebook shows the table after a click."""


@dataclass(frozen=True)
class Series:
    """One recorded quantity of one run.

    Attributes:
        updates: Optimiser updates before each record, shape ``[T]``.
        samples: Fresh examples drawn before each, shape ``[T]``.
        values: The quantity, shape ``[T]``.
    """

    updates: Int[np.ndarray, " T"]
    samples: Int[np.ndarray, " T"]
    values: Float[np.ndarray, " T"]


@dataclass(frozen=True)
class RunResult:
    """One run of a sweep.

    Attributes:
        config: What was trained.
        status: How it ended.
        sentence: The same in words, empty if all went well.
        updates: Updates done; of a diverged run, the one that was not finite.
        samples: Fresh examples drawn; of a diverged run, before the batch of that update.
        processed: Examples × re-uses.
        seconds: Wall time in its executor; of a stacked run, the time of the whole stack. Never
            the time of one run alone.
        executor: ``stacked`` or ``loop``.
        together: Runs that trained at a time when it ended; fewer than planned where memory ran
            out, and then equal to the plan's within round-off.
        series: Recorded quantities by name: ``loss`` and ``metric`` on validation data,
            ``train_loss``, probes.
    """

    config: RunConfig
    status: Status
    sentence: str
    updates: int
    samples: int
    processed: int
    seconds: float
    executor: str
    together: int
    series: dict[str, Series]

    def final(self, name: str) -> float:
        """Last recorded value; NaN if there is none or the run diverged."""
        there = self.series.get(name)
        if there is None or not len(there.values) or self.status is Status.DIVERGED:
            return float("nan")
        return float(there.values[-1])


@dataclass(frozen=True)
class Trace:
    """The finished runs of a sweep, in the order they were asked for.

    Example:
        >>> Trace(()).runs
        ()
    """

    runs: tuple[RunResult, ...]

    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The same as two tidy tables: one row per run; one row per run, time and name."""
        rows = [
            {"run": i, "config": json.dumps(to_plain(r.config))}
            | {f.name: to_plain(getattr(r, f.name)) for f in dataclasses.fields(r)[1:-1]}
            for i, r in enumerate(self.runs)
        ]
        parts = [
            pl.DataFrame({"updates": s.updates, "samples": s.samples, "value": s.values}).select(
                pl.lit(i, pl.Int64).alias("run"),
                "updates",
                "samples",
                pl.lit(name).alias("name"),
                "value",
            )
            for i, r in enumerate(self.runs)
            for name, s in r.series.items()
        ]
        return pl.DataFrame(rows), pl.concat(parts) if parts else pl.DataFrame()

    def _repr_html_(self) -> str:
        """For notebooks: the loss along every run, and the runs in a table."""
        strong = any(r.config.gamma is not None for r in self.runs)
        head = ("batch size", "learning rate", *("γ",) * strong)
        head += ("seed", "ended", "updates", "samples", "loss")
        rows = [
            (
                str(r.config.batch_size),
                f"{r.config.learning_rate:.4g}",
                *(("–" if r.config.gamma is None else f"{r.config.gamma:.4g}"),) * strong,
                str(r.config.seed),
                str(r.status),
                f"{r.updates:,}",
                f"{r.samples:,}",
                f"{r.final('loss'):.4g}",
            )
            for r in self.runs
        ]
        table = _html.table(head, rows)
        if len(rows) > MANY:
            table = _html.folded(f"{len(rows)} runs", table)
        return _curves.losses([_curve(r) for r in self.runs if "loss" in r.series]) + table

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, str]:
        """For IPython, which would write every number beside the picture."""
        return _html.bundle(self._repr_html_(), f"Trace of {len(self.runs)} runs")

    @staticmethod
    def from_tables(runs: pl.DataFrame, metrics: pl.DataFrame) -> Trace:
        """Undo :meth:`tables`."""
        series: dict[int, dict[str, Series]] = {}
        if len(metrics):
            for (run, name), part in metrics.group_by("run", "name", maintain_order=True):
                found = (part[c].to_numpy() for c in ("updates", "samples", "value"))
                series.setdefault(int(str(run)), {})[str(name)] = Series(*found)
        made = [
            from_plain(RunResult, row | {"config": json.loads(row["config"]), "series": {}})
            for row in runs.iter_rows(named=True)
        ]
        with_series = (
            dataclasses.replace(r, series=series.get(i, {})) for i, r in enumerate(made)
        )
        return Trace(tuple(with_series))


def _curve(run: RunResult) -> _curves.Curve:
    """The validation loss of a run, named by its setting."""
    series = run.series["loss"]
    label = f"batch size {run.config.batch_size}, learning rate {run.config.learning_rate:.4g}"
    label += "" if run.config.gamma is None else f", γ {run.config.gamma:.4g}"
    diverged = run.status is Status.DIVERGED
    return _curves.Curve(label, series.samples, series.values, broken=diverged)


def to_parquet(table: pl.DataFrame) -> bytes:
    """A table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


class Recorder:
    """Collects what one run records.

    Attributes:
        rows: Name → (updates, samples, value) of each record.
    """

    def __init__(self, rows: Mapping[str, Sequence[Sequence[float]]] | None = None) -> None:
        self.rows = {name: [tuple(row) for row in kept] for name, kept in (rows or {}).items()}

    def add(self, updates: int, samples: int, values: dict[str, float]) -> None:
        """Record some quantities at one moment."""
        for name, value in values.items():
            self.rows.setdefault(name, []).append((updates, samples, value))

    def series(self) -> dict[str, Series]:
        """All that was recorded."""
        made = {}
        for name, rows in self.rows.items():
            updates, samples, values = zip(*rows, strict=True)
            made[name] = Series(
                np.array(updates), np.array(samples), np.array(values, dtype=float)
            )
        return made
