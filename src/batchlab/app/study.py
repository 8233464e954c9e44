"""``study``: a source as claims, each measured; written down, drawn, and judged."""

from __future__ import annotations

import json
import math
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from batchlab import _platform
from batchlab._text import plain
from batchlab.advisor.journal import Journal
from batchlab.app import elsewhere
from batchlab.app.advise import RESULTS
from batchlab.app.measure import write
from batchlab.errors import InvalidValueError, ResultError, TaskError, must
from batchlab.progress import Quiet, listening
from batchlab.report import figures, formats, studying
from batchlab.studies import catalogue
from batchlab.studies.claim import MODES, Bench, Cell, Claim, Mode, Parameters, Study
from batchlab.studies.record import Concluded, StudyReport
from batchlab.studies.running import called, measure
from batchlab.studies.verdict import LEVEL, judge, needed, needs_full
from batchlab.tasks.prepare import resolve_device
from batchlab.types import from_plain, to_plain

FORMAT = 1
PACE_SECONDS = 2.0
"""A cell of about so long, of the quick study, says how fast this machine is."""


def study(
    name: str,
    *,
    mode: Mode = "quick",
    set: Sequence[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    data: str | Path | None = None,
    workers: int | None = None,
    on: str | None = None,
    price_per_hour: float | Mapping[str, float] | None = None,
    max_spend: float | None = None,
    command: str = "",
    listener: Quiet | None = None,
) -> StudyReport:
    """Measure every claim of a source and say which are reproduced.

    Claims, predicted ranges and numbers of repetitions go into ``plan.json`` before the first run.
    A claim is *reproduced* if the 99 % interval of what is measured lies inside the predicted
    range, *not reproduced* if it is disjoint from it, else *inconclusive*.

    Args:
        name: A built-in study, ``file.py`` or ``file.py:NAME``.
        mode: ``quick``, ``full``, or ``paper`` for the source's own scale.
        set: ``key=value`` for parameters of the study; verdicts are then marked *variant*.
        seed: Names all randomness.
        out: Result directory; by default ``batchlab-results/study-<name>-<mode>``.
        resume: Go on with an unfinished directory; no finished cell is measured twice.
        device: ``cpu``, ``cuda``, ``mps`` or ``auto``.
        data: Folder with the data of ``mnist`` and ``cifar10``, for studies that use them.
        workers: Processes beside one another; one a core if left out.
        on: A Ray cluster that measures: ``ray`` for the one here, which is started if none runs,
            or ``ray://HOST:PORT``; needs ``batchlab[ray]``. Cells that need a machine alone are
            measured here.
        price_per_hour: Of a node of the cluster, or kind of node → price.
        max_spend: Measuring stops before the nodes cost more.
        command: What was typed, for the record.
        listener: Hears progress.

    Returns:
        A record whose ``str`` is a table; ``verdicts.json``, ``study.json``, ``report.html``,
        ``charts/`` and ``data/`` are written.

    Raises:
        UserError: With one sentence about what is wrong.
    """
    began = time.perf_counter()
    where = elsewhere.Asked(on, price_per_hour, max_spend)
    asked = plan(name, mode=mode, set=set, seed=seed, out=out, device=device, data=data)
    lacking = asked.study.lacks(asked.parameters, asked.bench)
    if lacking:
        raise TaskError(lacking)
    with listening(listener) as hears, _platform.DirectoryLock(asked.folder):
        journal = Journal(asked.folder, asked.identity(), resume, hears.say)
        planned = to_plain(asked.planned())
        # The plan as it was written down, not as this version would write it.
        if journal.plan("study", planned) != planned:
            raise ResultError(
                f"`{asked.folder}` was planned with other claims. Use another --out."
            )
        bench = Bench(seed, asked.folder, asked.bench.device, asked.bench.data, hears)
        known = journal.plan("provenance")
        try:
            with elsewhere.place(where, hears, asked.folder) as cluster:
                tables = measure(
                    asked.study,
                    asked.cells,
                    bench,
                    workers=workers,
                    origin=asked.origin,
                    version=known["batchlab"] if known else None,
                    on=cluster,
                )
        finally:
            if not journal.finished:
                journal.note(journal.spent + time.perf_counter() - began, {}, ())
        provenance = journal.plan("provenance", _provenance(asked.bench.device))
        assert provenance is not None
        full = {claim.id: claim for claim in asked.full}
        concluded = tuple(
            _conclude(claim, tables, asked.variant, full.get(claim.id)) for claim in asked.claims
        )
        report = StudyReport(
            asked.study.name,
            asked.study.title,
            mode,
            dict(asked.parameters),
            asked.variant,
            seed,
            concluded,
            asked.study.citations,
            command or f"batchlab study {name} --{mode}",
            journal.measured or _now(),
            journal.spent,
            provenance | elsewhere.told(None, asked.folder),
            str(asked.folder),
        )
        hears.progress("writing the report", 0.0)
        for sentence in _write(report, tables):
            hears.say(sentence)
        journal.finish()
    return report


@dataclass(frozen=True)
class Asked:
    """A study as it will be run.

    Attributes:
        study: What is measured.
        origin: Where it comes from, if it is not built in.
        mode: How large.
        parameters: Every parameter with its value.
        variant: Those that were set by hand.
        cells: What is measured.
        claims: What is predicted.
        full: The same as ``--full`` would plan them.
        bench: Where.
        folder: Result directory.
    """

    study: Study
    origin: str | None
    mode: Mode
    parameters: Parameters
    variant: tuple[str, ...]
    cells: tuple[Cell, ...]
    claims: tuple[Claim, ...]
    full: tuple[Claim, ...]
    bench: Bench
    folder: Path

    def seconds(self, cores: int) -> float:
        """What all cells take by the study's own estimate."""
        shared = sum(cell.seconds for cell in self.cells if not cell.alone)
        return shared / cores + sum(cell.seconds for cell in self.cells if cell.alone)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a result to be continued."""
        return {
            "command": "study",
            "study": self.study.name,
            "mode": self.mode,
            "parameters": dict(self.parameters),
            "seed": self.bench.seed,
            "device": self.bench.device,
        }

    def planned(self) -> dict[str, Any]:
        """The claims and cells, for ``plan.json``."""
        full = {claim.id: claim for claim in self.full}
        return {
            "level": LEVEL,
            "claims": [_planned(claim, full.get(claim.id)) for claim in self.claims],
            "cells": [{"table": cell.table, **cell.settings} for cell in self.cells],
        }


def plan(
    name: str,
    *,
    mode: Mode = "quick",
    set: Sequence[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    device: str = "cpu",
    data: str | Path | None = None,
) -> Asked:
    """What :func:`study` would measure; nothing is run or written.

    Args:
        name: As for :func:`study`.
        mode: As for :func:`study`.
        set: As for :func:`study`.
        seed: As for :func:`study`.
        out: As for :func:`study`.
        device: As for :func:`study`.
        data: As for :func:`study`.
    """
    if mode not in MODES:
        raise InvalidValueError(must("mode", f"one of {', '.join(MODES)}", mode))
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InvalidValueError(must("seed", "a whole number, 0 or more", seed))
    found, origin = catalogue.load(name)
    parameters, variant = catalogue.overridden(found.parameters[mode], set)
    named = found.name if origin is None else origin.removesuffix(".py")
    folder = Path(out) if out is not None else Path(RESULTS) / f"study-{_last(named)}-{mode}"
    place = None if data is None else Path(data)
    bench = Bench(seed, folder, resolve_device(device), place)
    whose = f"of `{found.name}` with {', '.join(variant)}" if variant else f"of `{found.name}`"
    cells = called(f"The cells {whose}", found.cells, parameters)
    claims = catalogue.unique(called(f"The claims {whose}", found.claims, parameters))
    whole, _ = catalogue.overridden(found.parameters["full"], set)
    full = called(f"The claims {whose}", found.claims, whole)
    return Asked(found, origin, mode, parameters, variant, cells, claims, full, bench, folder)


def _last(name: str) -> str:
    """The last part of a path or of a module's name: what a study of the user's own is called."""
    return re.split(r"[/\\.]", name)[-1]


def pace(asked: Asked) -> float:
    """How much longer than its study says a cell takes on this machine; measured on one.

    Args:
        asked: The study; a cell of its quick form is run.
    """
    cells = asked.study.cells(asked.study.parameters["quick"])
    cell = min(cells, key=lambda one: abs(math.log(max(one.seconds, 1e-3) / PACE_SECONDS)))
    began = time.perf_counter()
    bench = Bench(asked.bench.seed, None, asked.bench.device, asked.bench.data)
    measure(asked.study, (cell,), bench, workers=0, origin=asked.origin)
    return (time.perf_counter() - began) / max(cell.seconds, 1e-3)


def price(asked: Asked, slower: float) -> str:
    """What a study would take: a sentence, then its parameters, a line each.

    Args:
        asked: The study.
        slower: From :func:`pace`.
    """
    seconds = asked.seconds(_platform.available_cores()) * slower
    told = "".join(f"\n  {name} = {value}" for name, value in asked.parameters.items())
    if asked.mode == "paper" and asked.study.parameters["paper"] == asked.study.parameters["full"]:
        told += "\nThis study has no larger scale: --paper adds nothing to --full."
    return (
        f"{asked.study.name} --{asked.mode}: {plain(asked.study.title.en)}; "
        f"{len(asked.cells)} cells, {len(asked.claims)} claims; "
        f"about {plain(formats.duration(seconds).en)} on this machine.{told}"
    )


def one_mode(chosen: Sequence[Mode]) -> Mode:
    """The mode that was asked for, ``quick`` if none was.

    Args:
        chosen: What was asked for.

    Raises:
        InvalidValueError: If it was more than one.
    """
    if len(chosen) > 1:
        raise InvalidValueError(must("mode", "one of quick, full and paper", " and ".join(chosen)))
    return chosen[0] if chosen else "quick"


def listed() -> str:
    """The built-in studies, a line each: what it takes, and its source."""
    lines = []
    for found in catalogue.every():
        times = ", ".join(f"--{mode} {minutes:g} min" for mode, minutes in found.minutes.items())
        sources = ", ".join(found.citations)
        lines.append(f"{found.name:16} {plain(found.title.en)} ({sources}; {times})")
    return "\n".join(lines)


def load(folder: Path) -> StudyReport:
    """A finished study from its directory.

    Args:
        folder: Its result directory.

    Raises:
        ResultError: If there is none.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise ResultError(f"`{folder}` holds no finished study.")
    return from_plain(StudyReport, json.loads(path.read_text(encoding="utf-8")))


def _planned(claim: Claim, full: Claim | None) -> dict[str, Any]:
    return {
        "id": claim.id,
        "sentence": claim.sentence.en,
        "source": claim.source,
        "measured": claim.measured.en,
        "statistic": str(claim.statistic),
        "unit": claim.unit,
        "low": claim.low,
        "high": claim.high,
        "n": claim.n,
        "needed": needed(claim),
        "needs_full": needs_full(claim, full),
        "finding": claim.finding,
    }


def _conclude(
    claim: Claim, tables: Any, variant: tuple[str, ...], full: Claim | None
) -> Concluded:
    values = called(f"Reading the values of `{claim.id}`", claim.values, tables)
    judged = judge(claim, values, variant, full=full)
    return Concluded.of(claim, judged, called(f"Drawing `{claim.id}`", claim.picture, tables))


def _write(report: StudyReport, tables: Any) -> tuple[str, ...]:
    """Everything a reader may want, into the result directory; what could not be written."""
    folder = Path(report.folder)
    write(folder / "verdicts.json", report.verdicts)
    write(folder / "study.json", report)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        _platform.write_whole(folder / "data" / f"{name}.csv", table.write_csv())
    drawn = studying.pictures(report)
    _platform.write_whole(folder / "report.html", studying.render(report, drawn))
    missing = figures.write(drawn, folder / "charts")
    return tuple(sentence.en for sentence in missing)


def _provenance(device: str) -> dict[str, str]:
    return {
        "batchlab": _platform.version(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _platform.processor_name(),
        "device": device,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
