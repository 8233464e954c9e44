"""Measure the cells of a study: beside one another, kept on disk, never twice."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
import loky
import numpy as np
import polars as pl

from batchlab import _platform, _random
from batchlab.cluster.attempt import Post
from batchlab.cluster.dispatch import Call
from batchlab.cluster.node import workplace
from batchlab.cluster.parcel import Parcel
from batchlab.cluster.place import Cluster, lit
from batchlab.engine.cell import one_thread
from batchlab.engine.store import seal, sealed
from batchlab.engine.trace import to_parquet
from batchlab.engine.workers import begin
from batchlab.errors import TaskError, UserError, reason
from batchlab.progress import Quiet
from batchlab.studies.claim import Bench, Cell, Row, Study, Tables
from batchlab.tasks.loading import module_of

FORMAT = 1
ROWS = "rows.parquet"
HEARD_SECONDS = 5.0
"""So often whoever listens hears how far the cells are, finished or not."""
Result = TypeVar("Result")


def measure(
    study: Study,
    cells: Sequence[Cell],
    bench: Bench,
    *,
    workers: int | None = None,
    origin: str | None = None,
    version: str | None = None,
    on: Cluster | None = None,
) -> Tables:
    """Measure every cell; one that is finished on disk is read.

    Cells run beside one another, a process and a torch thread each, longest first; then, one by
    one and in this process, those that need the machine ``alone``.

    Args:
        study: Whose cells they are.
        cells: What to measure.
        bench: Seed, result directory, device, and who hears progress.
        workers: Processes; one a core if left out, 0 for none.
        origin: File or module that the study comes from, if it is not built in.
        version: Of batchlab, whose cells on disk are read; this one's if left out.
        on: A cluster for the cells that need no machine ``alone``.

    Returns:
        Table → rows in the order of the cells, their settings as further columns.

    Raises:
        TaskError: If measuring a cell raises, or ends its process.
    """
    code, data = _code(origin, version), _data(bench.data)
    names = [_name(study, cell, bench, [code, *data]) for cell in cells]
    meter = _Meter(bench.hears, sum(cell.seconds for cell in cells))
    known: dict[str, pl.DataFrame] = {}
    left: list[_Due] = []
    for name, cell in zip(names, cells, strict=True):
        folder = None if bench.out is None else bench.out / "cells" / name
        found = None if folder is None else sealed(folder)
        if found is None:
            left.append(_Due(name, cell, replace(bench, out=folder, hears=Quiet())))
        else:
            known[name] = pl.read_parquet(io.BytesIO(found[ROWS]))
            meter.finish(cell)
    count = _platform.available_cores() if workers is None else workers
    for due, rows in _run(study, left, count, origin, meter, on):
        known[due.name] = _table(due.cell, rows)
        if due.bench.out is not None:
            seal(due.bench.out, {ROWS: to_parquet(known[due.name])})
        meter.finish(due.cell)
    return _joined(cells, [known[name] for name in names])


@dataclass(frozen=True)
class _Due:
    """A cell that has not been measured, and where it will be."""

    name: str
    cell: Cell
    bench: Bench


class _Meter(Quiet):
    """Turns a cell's progress into that of all of them."""

    def __init__(self, hears: Quiet, total: float) -> None:
        self._hears, self._total = hears, max(total, 1e-9)
        self._done, self._now = 0.0, 0.0

    def begin(self, cell: Cell) -> None:
        self._now = cell.seconds

    def finish(self, cell: Cell) -> None:
        self._done += cell.seconds
        self._now = 0.0
        self.progress("", 0.0)

    def say(self, sentence: str) -> None:
        self._hears.say(sentence)

    def progress(self, what: str, share: float) -> None:
        self._hears.progress("measuring", (self._done + share * self._now) / self._total)


def _run(
    study: Study,
    left: Sequence[_Due],
    workers: int,
    origin: str | None,
    meter: _Meter,
    on: Cluster | None,
) -> Iterator[tuple[_Due, list[Row]]]:
    shared = sorted((due for due in left if not due.cell.alone), key=lambda d: -d.cell.seconds)
    here = [due for due in left if due.cell.alone]
    if on is not None:
        yield from _away(study, shared, on, origin, meter)
        for sentence in on.fleet.hear():
            meter.say(sentence)
    elif workers >= 2 and len(shared) >= 2:
        yield from _beside(study, shared, workers, origin, meter)
    else:
        here = [*shared, *here]
    for due in here:
        meter.begin(due.cell)
        yield due, _measured(study.measure, due.cell, replace(due.bench, hears=meter))


def _beside(
    study: Study, shared: Sequence[_Due], workers: int, origin: str | None, meter: _Meter
) -> Iterator[tuple[_Due, list[Row]]]:
    pool = loky.ProcessPoolExecutor(
        max_workers=workers, initializer=_begin, initargs=(os.getpid(), list(sys.path), origin)
    )
    try:
        called: dict[Any, _Due] = {
            pool.submit(_measured, study.measure, d.cell, d.bench): d for d in shared
        }
        left = set(called)
        while left:
            done, left = wait(left, timeout=HEARD_SECONDS, return_when=FIRST_COMPLETED)
            meter.progress("", 0.0)
            for future in done:
                yield called[future], future.result()
    except BrokenProcessPool as error:
        raise TaskError(
            f"A worker process died while measuring the study `{study.name}`: its code ended the "
            "process, or the system did, for lack of memory."
        ) from error
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _away(
    study: Study, shared: Sequence[_Due], on: Cluster, origin: str | None, meter: _Meter
) -> Iterator[tuple[_Due, list[Row]]]:
    """The cells on the nodes of a cluster."""
    dues = {due.name: due for due in shared}
    out = next((due.bench.out for due in shared if due.bench.out is not None), None)
    with lit(None if out is None else out.parent) as beacon:
        calls = {
            name: Call(
                _measured_there,
                cloudpickle.dumps((study.measure, due.cell, due.bench, beacon)),
                kept=None if due.bench.out is None else Parcel(due.bench.out, whole=True),
            )
            for name, due in dues.items()
        }
        code = cloudpickle.dumps((list(sys.path), origin))
        device = "cuda" if any(due.bench.device.startswith("cuda") for due in shared) else "cpu"
        for name, rows in on.run(code, calls, lambda name, share: None, device=device):
            meter.progress("", 0.0)
            yield dues[name], rows


def _measured_there(
    shared: np.ndarray, given: bytes, state: bytes | None, post: Post
) -> list[Row]:
    """Measure a cell on a node, in the result directory if that is shared, else in a folder that
    is sent back from time to time; what an attempt before has left there is not measured again.
    """
    search_path, origin = cloudpickle.loads(shared.data)
    _find(search_path, origin)
    measure, cell, bench, beacon = cloudpickle.loads(given)
    with workplace(bench.out, beacon, state, post, whole=True) as folder:
        here = replace(bench, out=bench.out and folder, hears=_Posting(post))
        return _measured(measure, cell, here)


class _Posting(Quiet):
    """Tells whoever asked how far a cell is."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def progress(self, what: str, share: float) -> None:
        """Told to the hub, which asks for no words."""
        self._post.tick(share)


def _begin(parent: int, search_path: list[str], origin: str | None) -> None:
    """A worker, in which what the study pickles by name can be found."""
    begin(parent)
    _find(search_path, origin)


def _find(search_path: list[str], origin: str | None) -> None:
    """Have this process find what the study pickles by name."""
    sys.path[:] = search_path + [p for p in sys.path if p not in search_path]
    if origin is not None:
        module_of(origin)


def _measured(measure: Callable[[Cell, Bench], list[Row]], cell: Cell, bench: Bench) -> list[Row]:
    with one_thread(bench.device), _random.seeded(bench.seed, "study"):
        rows = called(f"Measuring {_words(cell)}", measure, cell, bench)
    if not rows:
        raise TaskError(f"Measuring {_words(cell)} gave no rows.")
    return rows


def called(what: str, function: Callable[..., Result], *given: Any) -> Result:
    """What code of a study returns, which may be the user's own and raise anything.

    Args:
        what: What is done, the beginning of a sentence.
        function: The code.
        given: Its arguments.

    Raises:
        TaskError: If it raises, with one sentence.
    """
    try:
        return function(*given)
    except UserError:
        raise
    except Exception as error:
        raise TaskError(f"{what} raised {reason(error)}{_place(error)}.") from error


def _place(error: BaseException) -> str:
    """Where an error was raised, for whoever wrote the code there."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _words(cell: Cell) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in cell.settings.items())
    return f"`{cell.table}` ({settings})"


def _code(origin: str | None, version: str | None) -> str:
    """What stands for the code of a study: batchlab's version, or the text of the user's file;
    what that file imports is not looked at.
    """
    if origin is None:
        return version or _platform.version()
    file = origin if origin.endswith(".py") else getattr(module_of(origin)[0], "__file__", None)
    return origin if file is None else hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _data(folder: Path | None) -> list[Any]:
    """What stands for the data of a task: each file's name, size and time."""
    if folder is None:
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [path.stat() for path in files]
    return [[str(p), s.st_size, s.st_mtime_ns] for p, s in zip(files, stats, strict=True)]


def _name(study: Study, cell: Cell, bench: Bench, code: Sequence[Any]) -> str:
    """Hash of all that a cell's rows depend on."""
    asked = [FORMAT, study.name, *code, bench.seed, bench.device, cell.table, dict(cell.settings)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]


def _table(cell: Cell, rows: Sequence[Row]) -> pl.DataFrame:
    told = [{**cell.settings, **row} for row in rows]
    return pl.DataFrame(told, infer_schema_length=None)


def _joined(cells: Sequence[Cell], found: Sequence[pl.DataFrame]) -> Tables:
    tables: dict[str, list[pl.DataFrame]] = {}
    for cell, table in zip(cells, found, strict=True):
        tables.setdefault(cell.table, []).append(table)
    return {name: pl.concat(parts, how="diagonal_relaxed") for name, parts in tables.items()}
