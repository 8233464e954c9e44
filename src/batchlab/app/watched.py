"""Reports of trainings that were watched: of one, or of several compared."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from batchlab import _platform, report
from batchlab._platform import version
from batchlab.advisor.record import NoisePoint, Price
from batchlab.advisor.watched import Asked as Question
from batchlab.advisor.watched import compare, run_of
from batchlab.advisor.watched.runs import knows_evaluation
from batchlab.errors import InvalidValueError, ResultError, cannot_read, must
from batchlab.report.watching import WatchReport, page, summary
from batchlab.watch import judge, read
from batchlab.watch.journal import NAME
from batchlab.watch.noise import along
from batchlab.watch.record import Watched

TOGETHER = "times include evaluation: an older record does not tell it apart"


@dataclass(frozen=True)
class Asked:
    """What is asked of watched trainings.

    Attributes:
        price: Another price than the recorded one, or None; its parts may be None, too.
        worth: Smallest ratio worth a change, above 1.
        metric: By which to judge, or None to choose.
        target: Value that counts as trained, or None for what today's trainings reach.
        command: What was typed.
    """

    price: tuple[float | None, str | None, float | None] = (None, None, None)
    worth: float = 1.2
    metric: str | None = None
    target: float | None = None
    command: str = ""

    def __post_init__(self) -> None:
        if not 1 < self.worth < math.inf:
            raise InvalidValueError(must("worth", "a ratio above 1, such as 1.2", self.worth))
        if self.target is not None and not math.isfinite(self.target):
            raise InvalidValueError(must("target", "a finite metric value", self.target))


@dataclass(frozen=True)
class Reported:
    """What was written, and what to say.

    Attributes:
        page: The HTML file.
        words: For the terminal.
        alone: Whether it is of one training.
        record: The numbers.
    """

    page: Path
    words: RenderableType
    alone: bool
    record: Any


def among(folders: Sequence[str | Path], machine: str | Path | None = None) -> bool:
    """Whether these are directories of watched trainings.

    Args:
        folders: Result directories.
        machine: A machine to judge for, which only an advice knows.

    Raises:
        ResultError: If some of them are and some are not, or a machine is named.
    """
    own = [folder for folder in folders if (Path(folder) / NAME).is_file()]
    others = [folder for folder in folders if folder not in own]
    if own and others:
        raise ResultError(
            f"`{own[0]}` holds a watched training, `{others[0]}` does not: give either watched "
            "trainings or results of batchlab advise."
        )
    if own and machine is not None:
        raise ResultError(
            f"`{own[0]}` holds a watched training: its times are those of the machine it ran on; "
            "leave out --machine."
        )
    return bool(own)


def only_asked_of_watched(
    folders: Sequence[str | Path], worth: float, metric: str | None, target: float | None
) -> None:
    """Refuse what only watched trainings can be asked; an advice was made with its own.

    Args:
        folders: Result directories of ``advise``.
        worth: As in :class:`Asked`, as the rest.
        metric: None if not asked.
        target: None if not asked.

    Raises:
        ResultError: If anything is asked.
    """
    asked = {"--worth": worth, "--metric": metric, "--target": target}
    plain = {"--worth": Asked.worth, "--metric": Asked.metric, "--target": Asked.target}
    names = [name for name, value in asked.items() if value != plain[name]]
    if folders and names:
        raise ResultError(
            f"`{folders[0]}` holds no watched training, and only those are asked for "
            f"{', '.join(names)}: leave {'it' if len(names) == 1 else 'them'} out."
        )


def priced(
    per_hour: float | None, currency: str | None, per_sample: float | None
) -> tuple[float | None, str | None, float | None]:
    """The parts of another price, checked.

    Raises:
        InvalidValueError: If one is impossible.

    Example:
        >>> priced(2.5, None, None)
        (2.5, None, None)
    """
    for name, value in (("price_per_hour", per_hour), ("price_per_sample", per_sample)):
        if value is not None and not 0 <= value < math.inf:
            raise InvalidValueError(must(name, "0 or more", value))
    return per_hour, currency, per_sample


def report_on(
    folders: Sequence[str | Path], asked: Asked, *, out: str | Path | None = None
) -> Reported:
    """Report on watched trainings: one by itself, several compared.

    Args:
        folders: Their directories; the settings of the first are today's.
        asked: What is asked.
        out: The page; by default ``report.html`` in the only folder, or ``comparison.html`` in the
            first.

    Returns:
        Where the page is, and what to say.

    Raises:
        ResultError: If a directory cannot be read, or trainings cannot be compared.
    """
    trainings = [(str(folder), _at(read(folder), asked)) for folder in _distinct(folders)]
    alone = len(trainings) == 1
    name = "report.html" if alone else "comparison.html"
    path = Path(out) if out is not None else Path(folders[0]) / name
    return (_one if alone else _several)(trainings, asked, path)


def _distinct(folders: Sequence[str | Path]) -> list[Path]:
    seen: dict[Path, Path] = {}
    for folder in map(Path, folders):
        if folder.resolve() in seen:
            raise InvalidValueError(must("DIR", "named once", str(folder)))
        seen[folder.resolve()] = folder
    return list(seen.values())


def _one(trainings: Sequence[tuple[str, Watched]], asked: Asked, path: Path) -> Reported:
    (name, watched), *_ = trainings
    price = _price(watched, asked)
    found = WatchReport(
        name, watched, judge(watched), price, _provenance(Path(name)), asked.command
    )
    _platform.write_whole(path, page(found))
    return Reported(path, summary(found), True, found.verdict)


def _several(trainings: Sequence[tuple[str, Watched]], asked: Asked, path: Path) -> Reported:
    apart = all(knows_evaluation(watched) for _, watched in trainings)
    runs = [run_of(name, watched, without_evaluation=apart) for name, watched in trainings]
    first_name, first = trainings[0]
    start = first.starts[-1]
    question = Question(
        task=_called([name for name, _ in trainings]),
        command=asked.command,
        version=version(),
        created=max(watched.starts[0].at for _, watched in trainings),
        price=_price(first, asked),
        worth=asked.worth,
        metric=asked.metric,
        target=asked.target,
        noise=tuple(NoisePoint(r.samples, r.scale, r.at_least) for r in along(first.noise)),
        sgd=start.sgd,
        provenance=_provenance(Path(first_name)),
        said=() if apart else (TOGETHER,),
    )
    advice = compare(runs, question)
    report.write(advice, path)
    return Reported(path, report.terminal(advice), False, advice)


def _called(names: Sequence[str]) -> str:
    """What trainings are called together: the folder that they share, else the first one's."""
    parents = {Path(name).resolve().parent for name in names}
    return parents.pop().name if len(parents) == 1 else Path(names[0]).name


def _at(watched: Watched, asked: Asked) -> Watched:
    """A training at the price that is asked about, so that all who count its money agree."""
    *before, start = watched.starts
    per_hour, currency, _ = asked.price
    hourly = start.price_per_hour if per_hour is None else per_hour
    now = replace(start, price_per_hour=hourly, currency=currency or start.currency)
    return replace(watched, starts=(*before, now))


def _price(watched: Watched, asked: Asked) -> Price | None:
    """What an hour and an example cost; None where neither costs anything."""
    start, (*_, per_sample) = watched.starts[-1], asked.price
    if not (start.price_per_hour or per_sample):
        return None
    return Price(start.price_per_hour or 0.0, start.currency, per_sample or 0.0)


def _provenance(folder: Path) -> dict[str, str]:
    path = folder / "provenance.json"
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text("utf-8"))
        return {name: str(value) for name, value in facts.items() if name != "command"}
    except (ValueError, AttributeError) as error:
        raise cannot_read(path, str(error).splitlines()[0]) from error
