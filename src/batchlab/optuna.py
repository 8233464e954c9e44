"""The runs of ``batchlab.compare`` as trials of Optuna, to go on from what has been trained.

The other way needs nothing from here: ``study.enqueue_trial(advice.params)``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import optuna
import polars as pl
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from batchlab.app.compare import at
from batchlab.engine import RunResult, Trace
from batchlab.errors import InvalidValueError, ResultError, cannot_read, must
from batchlab.report.findings import Compared, CompareReport
from batchlab.types import Status, from_plain

__all__ = ["optuna_trials"]

KINDS = ("samples", "updates")


def optuna_trials(
    comparison: CompareReport | str | Path,
    *,
    equal: Literal["samples", "updates"] = "samples",
    distributions: Mapping[str, BaseDistribution] | None = None,
) -> list[FrozenTrial]:
    """The runs of a comparison as finished trials, one a run.

    ``params`` are ``batch_size`` and ``learning_rate``; the value is the metric on validation data
    as ``compare`` reads it, at equal samples or updates; intermediate values stand at samples. A
    run that diverged is PRUNED with what it reached, so that a sampler keeps away from it. The
    study's direction must be the metric's: ``minimize`` for a loss.

    Args:
        comparison: What ``batchlab.compare`` returned, or its result directory.
        equal: Which of its two comparisons.
        distributions: Of ``batch_size`` and ``learning_rate``, as your objective suggests them;
            left out, the range of the grid, both on a logarithmic scale.

    Returns:
        Trials for ``study.add_trials``; each knows its seed, samples, updates, setting and status
        as ``user_attrs``.

    Raises:
        ResultError: If the runs are not where the comparison left them.
        InvalidValueError: If a run lies outside ``distributions``.
    """
    if equal not in KINDS:
        raise InvalidValueError(must("equal", " or ".join(KINDS), equal))
    folder, report = _read(comparison)
    searched = _spaces(report) | dict(distributions or {})
    runs = _runs(folder)
    return [
        _trial(run, one, report, moment, searched)
        for one, moment in _settings(report, equal)
        for run in runs
        if _belongs(run, one, report, moment)
    ]


def _read(comparison: CompareReport | str | Path) -> tuple[Path, CompareReport]:
    """The result directory, and the record in it."""
    if isinstance(comparison, CompareReport):
        return Path(comparison.origin.folder), comparison
    file = Path(comparison) / "compare.json"
    if not file.is_file():
        said = f"`{comparison}` holds no result of batchlab compare (compare.json is missing)."
        raise ResultError(said)
    try:
        return file.parent, from_plain(CompareReport, json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise cannot_read(file, str(error).splitlines()[0]) from error


def _runs(folder: Path) -> tuple[RunResult, ...]:
    """Every run of the directory. A run's number counts in its cell."""
    try:
        tables = [pl.read_parquet(folder / f"{name}.parquet") for name in ("runs", "metrics")]
    except (OSError, pl.exceptions.PolarsError) as error:
        raise cannot_read(folder / "runs.parquet", str(error).splitlines()[0]) from error
    cells = tables[0]["cell"].unique(maintain_order=True)
    parts = [[table.filter(cell=cell).drop("cell") for table in tables] for cell in cells]
    return tuple(run for part in parts for run in Trace.from_tables(*part).runs)


def _spaces(report: CompareReport) -> dict[str, BaseDistribution]:
    """The range of the grid."""
    sizes = [one.setting.batch_size for one in report.settings]
    grown = [size for size in sizes if isinstance(size, str)]
    if grown:
        hint = "Optuna's batch_size is a number."
        raise InvalidValueError(must("comparison", "one of constant batch sizes", grown[0], hint))
    rates = [one.setting.learning_rate for one in report.settings]
    return {
        "batch_size": IntDistribution(min(map(int, sizes)), max(map(int, sizes)), log=True),
        "learning_rate": FloatDistribution(min(rates), max(rates), log=True),
    }


def _settings(report: CompareReport, equal: str) -> Iterator[tuple[Compared, int]]:
    """Each setting that is in the comparison, with the samples at which it is judged."""
    today = report.today.batch_size
    for one in report.settings:
        size = one.setting.batch_size
        if equal == "samples" or size == today:
            yield one, report.samples
        elif one.at_updates is not None:
            yield one, report.updates * int(size)


def _belongs(run: RunResult, one: Compared, report: CompareReport, moment: int) -> bool:
    """Whether a run is of this setting, and of a training that is judged at this moment."""
    config, setting = run.config, one.setting
    same = (config.batch_size, config.learning_rate) == (setting.batch_size, setting.learning_rate)
    # Under a schedule each length is a training of its own; else the longer holds the shorter.
    constant = config.lr_schedule == "constant" and not config.warmup
    assert isinstance(config.samples, int)
    reaches = config.samples >= moment if constant else config.samples == moment
    return same and reaches and config.seed in report.seeds


def _trial(
    run: RunResult,
    one: Compared,
    report: CompareReport,
    moment: int,
    searched: Mapping[str, BaseDistribution],
) -> FrozenTrial:
    """One run."""
    read = at(run, moment)
    lost = math.isnan(read.value)
    curve = run.series["metric"]
    values = {
        int(samples): float(value)
        for samples, value in zip(curve.samples, curve.values, strict=True)
        if samples <= max(moment, read.samples) and math.isfinite(value)
    }
    params = {"batch_size": run.config.batch_size, "learning_rate": run.config.learning_rate}
    status = run.status if lost or run.status is not Status.DIVERGED else Status.OK
    try:
        return optuna.trial.create_trial(
            state=TrialState.PRUNED if lost else TrialState.COMPLETE,
            value=None if lost else read.value,
            params=params,
            distributions={name: searched[name] for name in params},
            user_attrs={
                "seed": run.config.seed,
                "samples": read.samples,
                "updates": read.updates,
                "setting": one.setting.id,
                "status": str(status),
                "metric": report.metric.name,
            },
            intermediate_values=values,
        )
    except ValueError as error:
        hint = f"Optuna says: {str(error).splitlines()[0]}"
        raise InvalidValueError(
            must("distributions", f"such that they hold {params}", dict(searched), hint)
        ) from error
