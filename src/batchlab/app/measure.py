"""``fit`` and ``noise``: measure one thing, write it down, draw it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batchlab import _platform, schedules
from batchlab._team import Team, gathered
from batchlab.advisor.options import Options
from batchlab.advisor.screen import noise_along
from batchlab.advisor.session import Listener, Stopwatch, machine_of
from batchlab.advisor.stages import Machine
from batchlab.advisor.strength import why_not
from batchlab.app.advise import default_out, found, provenance
from batchlab.app.processes import Beating, check_same
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, evaluation_grid
from batchlab.engine.job import updates_of
from batchlab.errors import InvalidValueError, ResultError, must
from batchlab.measure import fit as finder
from batchlab.measure.noise import NoiseResult, noise_probe, pool
from batchlab.measure.throughput import seconds_per_update
from batchlab.measure.together import Gain, divisions, gains
from batchlab.progress import listening
from batchlab.report import measured
from batchlab.report.findings import FitReport, NoiseReport, Origin, setting_of
from batchlab.tasks import Prepared, Task, prepare
from batchlab.tasks.subset import subset_of
from batchlab.types import to_plain

BLOCKS, BLOCK_SECONDS = 3, 0.2
LONGEST_ROUND = 60.0
"""Seconds of one round of timing after which two rounds have to do."""
EXAMPLES = 1024
"""Examples a moment of ``noise``: its interval is its only product."""


def fit(
    task: Task | str,
    *,
    max_val: int | None = None,
    init_val: int | None = None,
    margin: str | int | None = None,
    memory_limit: str | int | None = None,
    with_gamma: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    listener: Listener | None = None,
) -> FitReport:
    """Find the largest micro-batch that runs, and memory and speed per batch size.

    Every size runs in a child process before it is called fitting. Then one run alone is timed at
    powers of two, at the recipe's batch size and at the largest, in blocks spread over the
    measurement. Nothing is trained that is kept.

    Args:
        task: A :class:`Task`, a built-in name, ``file.py:function`` or ``module:function``.
        max_val: Largest size of interest; the training set if left out.
        init_val: First size tried; the recipe's if left out.
        margin: Bytes to keep free, such as ``"500MiB"``; a twentieth of the limit if left out.
        memory_limit: Such as ``"2GiB"``; what the machine has if left out.
        with_gamma: Whether the model is timed with a feature-learning strength γ, too; every size
            is then tried with the frozen copy that this takes. Of no effect where the recipe has
            a γ.
        out: Folder for ``machine.json``, ``fit.json`` and ``fit.html``; by default
            ``batchlab-results/fit-<task>``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data: Folder with the data of a built-in task.
        listener: Hears progress.

    Returns:
        A record whose ``str`` is a table.

    Raises:
        UserError: With one sentence about what is wrong.
    """
    for name, value in (("max_val", max_val), ("init_val", init_val)):
        if value is not None and value < 1:
            raise InvalidValueError(must(name, "a whole number, 1 or more", value))
    search = {
        "memory_limit": memory_limit,
        "margin": margin,
        "max_size": max_val,
        "start": init_val,
    }
    began = time.perf_counter()
    with gathered() as team:
        prepared, folder = _ready("fit", task, out, device, data, team)
        if with_gamma and prepared.baseline.gamma is None:
            search["config"] = team.own(lambda: _strong(prepared))
        return team.lead(prepared, lambda: _fit(team, search, folder, began, listener))


def _strong(prepared: Prepared) -> RunConfig:
    """The recipe with a γ, if the model can have one."""
    if why := why_not(prepared):
        hint = f"The model cannot be trained as (f − its start)/γ: {why}."
        raise InvalidValueError(must("with_gamma", "left out for this task", True, hint))
    return prepared.baseline.replace(gamma=1.0)


def _fit(
    team: Team, search: dict[str, Any], folder: Path, began: float, listener: Listener | None
) -> FitReport:
    """Search, time, and write it all down."""
    prepared: Prepared = team.context
    with listening(listener) as told, _platform.DirectoryLock(folder):
        hears = Beating(told, team)
        hears.progress("finding the largest batch that fits", 0.0)
        fits = team.ask(_searched, search)[0]
        machine = _timed(prepared, fits, "config" in search, hears)
        today = setting_of(prepared.baseline, "today", _today(prepared), _rate(prepared))
        report = FitReport(
            prepared.task.name,
            prepared.task.unit,
            today,
            prepared.examples,
            machine,
            origin(prepared, "fit", folder, time.perf_counter() - began),
            _gains(team, fits.largest, hears),
        )
        write(folder / "machine.json", machine)
        write(folder / "fit.json", report)
        _platform.write_whole(folder / "fit.html", measured.fit_page(report))
    return report


def _searched(team: Team, search: dict[str, Any]) -> finder.FitResult:
    """Every process searches, and all come to the same."""
    return finder.fit(team.context, team=team, **search)


def _gains(team: Team, largest: int, hears: Listener) -> tuple[Gain, ...]:
    """Today's batch size, and as many times it as there are processes, on 1, 2, … of them."""
    prepared: Prepared = team.context
    size = max(_sizes(prepared))
    sizes = sorted({size, min(size * team.size, prepared.examples)})
    wanted = divisions(sizes, team.size, largest) if team.size > 1 and largest else ()
    if wanted:
        hears.progress("timing the processes together", 0.0)
    return gains(team, prepared.baseline, wanted, BLOCK_SECONDS, BLOCKS)


def noise(
    task: Task | str,
    *,
    samples: int | str | None = None,
    points: int = 6,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    data: str | Path | None = None,
    subset: str | float | None = None,
    listener: Listener | None = None,
) -> NoiseReport:
    """Measure the gradient noise scale along a run of today's settings.

    Args:
        task: As in :func:`fit`.
        samples: How far to train, such as ``"2ep"``; the recipe's length if left out. A shorter
            training is the beginning of the recipe, its learning rate not compressed.
        points: Moments at which to measure, denser early, where the noise scale changes fastest.
        out: Folder for ``noise.json`` and ``noise.html``; by default
            ``batchlab-results/noise-<task>``.
        seed: Names every random draw.
        device: As in :func:`fit`.
        data: As in :func:`fit`.
        subset: Part of the training data, such as ``"10%"``; all of it if left out.
        listener: Hears progress.

    Returns:
        A record whose ``str`` is a table.

    Raises:
        UserError: With one sentence about what is wrong.
    """
    if points < 1:
        raise InvalidValueError(must("points", "a whole number, 1 or more", points))
    began = time.perf_counter()

    def measured_and_written() -> NoiseReport:
        with listening(listener) as hears, _platform.DirectoryLock(folder):
            report = _noise(team, samples, points, seed, folder, began, Beating(hears, team))
            write(folder / "noise.json", report)
            _platform.write_whole(folder / "noise.html", measured.noise_page(report))
        return report

    with gathered() as team:
        prepared, folder = _ready("noise", task, out, device, data, team)
        prepared = team.own(lambda: subset_of(prepared, subset, seed))
        return team.lead(prepared, measured_and_written)


def _noise(
    team: Team,
    samples: int | str | None,
    points: int,
    seed: int,
    folder: Path,
    began: float,
    hears: Listener,
) -> NoiseReport:
    """Train, measure on the way, and join it all."""
    prepared: Prepared = team.context
    config = prepared.baseline.replace(seed=seed)
    end = length(prepared, samples)
    assert isinstance(config.samples, int)
    config = config.replace(samples=max(end, config.samples))
    sizes = schedules.batch_schedule(config.batch_size or 1).sizes
    job = Job(
        evaluation_grid(prepared.examples, end),
        noise_probe(prepared, config, examples=EXAMPLES, team=team),
        moments(_trained(updates_of(config, prepared.examples, 0, end), sizes), points),
        until=end,
    )
    what = "training today's settings, measuring noise"
    with Engine(prepared, None, workers=0) as engine:
        trace, _ = engine.train([config], job, progress=lambda share: hears.progress(what, share))
    run = trace.runs[0]
    along = noise_along(run.series)
    return NoiseReport(
        prepared.task.name,
        prepared.task.unit,
        setting_of(prepared.baseline, "today", _today(prepared), _rate(prepared)),
        sizes,
        prepared.examples,
        run.samples,
        along,
        together(along),
        run.status,
        origin(prepared, "noise", folder, time.perf_counter() - began, seed),
    )


def moments(samples: int, points: int) -> tuple[int, ...]:
    """Sample counts at squares of evenly spaced shares of a run: dense early, the last at its end.

    Args:
        samples: Examples of the run.
        points: How many, at least 1.

    Example:
        >>> moments(900, 3)
        (100, 400, 900)
    """
    shares = ((i + 1) / points for i in range(points))
    return tuple(sorted({max(1, round(samples * share**2)) for share in shares}))


def together(along: Sequence[NoiseResult]) -> NoiseResult | None:
    """All moments as one measurement, or None where none has what that needs."""
    usable = [one for one in along if one.moments is not None]
    return pool(usable) if usable else None


def length(prepared: Prepared, samples: int | str | None) -> int:
    """The length of a run in samples: what was asked for, else the recipe's; one batch or more."""
    if samples is None:
        assert isinstance(prepared.baseline.samples, int)
        return prepared.baseline.samples
    text = int(samples) if isinstance(samples, str) and samples.isdecimal() else samples
    asked = schedules.amount(text, examples=prepared.examples, name="samples")
    first = schedules.batch_schedule(prepared.baseline.batch_size or 1).sizes[0]
    if asked < first:
        raise InvalidValueError(must("samples", f"at least one batch of {first}", samples))
    return asked


def origin(
    prepared: Prepared, command: str, folder: Path, seconds: float, seed: int = 0
) -> Origin:
    """Where numbers come from.

    Args:
        prepared: The task.
        command: Which command made them.
        folder: Result directory.
        seconds: Time the measurement took.
        seed: What named the random draws.
    """
    return Origin(
        f"batchlab {command} {prepared.task.origin or prepared.task.name}",
        datetime.now(UTC).isoformat(timespec="seconds"),
        seconds,
        prepared.device,
        _platform.available_cores(),
        prepared.assumptions,
        provenance(prepared, Options(seed=seed)),
        str(folder),
    )


def write(path: Path, record: Any) -> None:
    """A record as JSON, whole or not at all."""
    _platform.write_whole(path, json.dumps(to_plain(record), ensure_ascii=False))


def _ready(
    command: str,
    task: Task | str,
    out: str | Path | None,
    device: str,
    data: str | Path | None,
    team: Team,
) -> tuple[Prepared, Path]:
    """The task, checked and the same in every process, and the folder for its result."""

    def ready() -> tuple[Prepared, Path]:
        loaded, _ = found(task, data)
        folder = Path(out) if out is not None else default_out(command, loaded)
        if (folder / "plan.json").exists():
            raise ResultError(
                f"`{folder}` holds the result of another command. Use another --out."
            )
        return prepare(loaded, device=team.device(device)), folder

    prepared, folder = team.own(ready)
    check_same(team, prepared)
    return prepared, folder


def _timed(prepared: Prepared, fits: finder.FitResult, strong: bool, hears: Listener) -> Machine:
    """One run alone at every size worth a point, in rounds, and with a γ where that is asked for;
    joined to what fits.
    """
    stopwatch = Stopwatch(prepared, 1)
    sizes = sizes_to_time(fits.largest, _sizes(prepared))
    began = time.perf_counter()
    for done in range(BLOCKS if sizes else 0):
        if done >= 2 and time.perf_counter() - began > done * LONGEST_ROUND:
            break
        for i, size in enumerate(sizes):
            share = (done + i / len(sizes)) / BLOCKS
            hears.progress("timing one run alone", share)
            for wrapped in (False, True)[: 1 + strong]:
                stopwatch.visit([size], BLOCK_SECONDS, wrapped=wrapped)
    timings = {s: seconds_per_update(stopwatch.blocks[str(s)]) for s in sizes}
    today = timings.get(max(_sizes(prepared)))
    whole = finder.with_timings(fits, timings.values(), today.loader_share if today else None)
    return machine_of(prepared, stopwatch, whole)


def sizes_to_time(largest: int, today: Sequence[int]) -> tuple[int, ...]:
    """Powers of two up to the largest that fits, with today's sizes and the largest itself.

    Example:
        >>> sizes_to_time(11, [6, 64])
        (1, 2, 4, 6, 8, 11)
    """
    powers = {2**k for k in range(largest.bit_length())}
    return tuple(sorted(size for size in powers | {*today, largest} if 1 <= size <= largest))


def _sizes(prepared: Prepared) -> tuple[int, ...]:
    return schedules.batch_schedule(prepared.baseline.batch_size or 1).sizes


def _today(prepared: Prepared) -> int | str:
    """Today's batch size as a number where it is one."""
    sizes = set(_sizes(prepared))
    return sizes.pop() if len(sizes) == 1 else str(prepared.baseline.batch_size)


def _rate(prepared: Prepared) -> float:
    assert prepared.baseline.learning_rate is not None
    return prepared.baseline.learning_rate


def _trained(updates: Sequence[tuple[int, int]], sizes: Sequence[int]) -> int:
    """Samples after the last update."""
    if not updates:
        raise InvalidValueError(must("samples", f"at least one batch of {sizes[0]}", 0))
    first, size = updates[-1]
    return first + size
