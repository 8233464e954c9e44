"""The result directory of an advice: plans when a stage starts, records when it ends."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from batchlab import _platform
from batchlab.engine.store import opened, stamped
from batchlab.errors import InvalidValueError, ResultError, must
from batchlab.types import from_plain, to_plain

FORMAT = 1
PLAN = "plan.json"
FOUNDATION = (PLAN, "machine.json", "screening.json")
"""What all other records of a result rest on: without it they are set aside too."""
MORE = ("budget", "robustness")
"""What may differ when a result is continued: more is measured."""
JUDGED_ANEW = (*MORE, "price", "seconds_per_sample", "worth", "at_least")
"""The same, or what has been measured is judged anew."""
Kind = TypeVar("Kind")


class Journal:
    """``plan.json`` and one file per finished stage, each with its hash. A damaged one is set
    aside, and what it held is to be made again.

    Args:
        out: Result directory; made if it is missing.
        config: What the result depends on, plain JSON; a directory made with another one is
            refused.
        resume: Whether an unfinished directory may be continued.
        say: Told of every damaged file.

    Raises:
        ResultError: If the directory holds another result, one that is unfinished or whose plan is
            damaged and that is not resumed, or one of a newer batchlab.

    Attributes:
        more_budget: Whether a result is continued with a larger budget than it was made with.
    """

    def __init__(
        self,
        out: Path,
        config: dict[str, Any],
        resume: bool,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.out, self.more_budget, self._say = out, False, say
        self._anew = False
        wanted = json.loads(json.dumps(to_plain(config)))
        known = self._read(resume)
        self._plan = {"format": FORMAT, "config": wanted, "finished": False, "stages": {}}
        if known is not None:
            self._plan = known
            self._check(wanted, resume)

    def _read(self, resume: bool) -> dict[str, Any] | None:
        """The plan as it was written down; None if there is none, or none any longer."""
        try:
            found = opened(_platform.read_whole(self.out / PLAN))
        except FileNotFoundError:
            return None
        except ValueError:
            found = {}
        made = found.get("format")
        if isinstance(made, int) and made != FORMAT:
            raise self._refusal(f"a result in format {made}; this version reads {FORMAT}", "")
        if made == FORMAT and _is_plan(found):
            return found
        if not resume:
            what = f"a result whose {PLAN} is damaged"
            raise self._refusal(what, "Add --resume to make it again from its finished cells. ")
        self._set_aside(self.out / PLAN)
        return None

    def _set_aside(self, path: Path) -> None:
        """Keep a damaged file under another name, after all records where they rest on it: whoever
        is killed on the way begins again.
        """
        self._anew = self._anew or path.name in FOUNDATION
        for other in sorted(self.out.glob("*.json")) if path.name in FOUNDATION else []:
            if other.name != PLAN and other != path and _is_record(other):
                _platform.set_aside(other)
        kept = _platform.set_aside(path).name
        self._say(
            f"`{path}` was damaged: it is kept as `{kept}`, and what it held is made anew from "
            "the finished cells"
        )

    def _check(self, wanted: dict[str, Any], resume: bool) -> None:
        """The directory belongs to this configuration, and may be continued."""
        known = self._plan["config"]
        # A word that only the result has was asked for then, and is not now.
        differing = sorted(
            k
            for k in (known | wanted).keys() - set(JUDGED_ANEW)
            if _set(known.get(k)) != _set(wanted.get(k))
        )
        if differing:
            raise self._refusal(f"a result with another {', '.join(differing)}", "")
        more = [k for k in MORE if known.get(k) != wanted.get(k)]
        if self.finished and more and not resume:
            what = f"a result with another {', '.join(more)}"
            raise self._refusal(what, "Add --resume to go on from it. ")
        if not self.finished and not resume:
            raise self._refusal("an unfinished result", "Add --resume to go on. ")
        if more:
            self._plan["finished"] = False
        had, has = known.get("budget"), wanted.get("budget")
        self.more_budget = has is not None and has > (had or 0.0)
        self._plan["config"] = wanted

    def _refusal(self, what: str, hint: str) -> ResultError:
        other = "Or use" if hint else "Use"
        return ResultError(f"`{self.out}` holds {what}. {hint}{other} another --out.")

    @property
    def finished(self) -> bool:
        """Whether the whole advice has been made."""
        return bool(self._plan["finished"])

    def finish(self) -> None:
        """Mark the advice as complete."""
        self._plan["finished"] = True
        self._write()

    def plan(self, stage: str, made: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The plan of a stage: what stands in the file, else ``made``, which is written down
        before it is used.
        """
        stages = self._plan["stages"]
        if stage not in stages and made is not None:
            stages[stage] = to_plain(made)
            self._write()
        return stages.get(stage)

    def plan_anew(self, stage: str, made: dict[str, Any] | None, untrue: Iterable[str]) -> None:
        """Another plan for a stage, or none, and what was said of the old one is taken back.

        Args:
            stage: Its letter.
            made: The plan; None: it is made when the stage starts.
            untrue: Sentences that no longer hold.
        """
        self._plan["stages"].pop(stage, None)
        gone = set(untrue)
        self._plan["said"] = [one for one in self.said if one not in gone]
        self._write()
        self.plan(stage, made)

    @property
    def spent(self) -> float:
        """Seconds that earlier processes worked on this result."""
        return float(self._plan.get("spent", 0.0))

    @property
    def prices(self) -> dict[str, float]:
        """Expected seconds of stages that were not run, by letter."""
        return dict(self._plan.get("prices", {}))

    @property
    def said(self) -> tuple[str, ...]:
        """Sentences told on the way, each once."""
        return tuple(self._plan.get("said", ()))

    @property
    def measured(self) -> str:
        """When something was last measured, ISO time; empty if never."""
        return str(self._plan.get("measured", ""))

    def note(self, seconds: float, prices: dict[str, float], said: Iterable[str]) -> None:
        """Write down what the result has taken so far, and what a later process could not know."""
        self._plan["spent"] = seconds
        self._plan["prices"] = self.prices | prices
        self._plan["said"] = list(dict.fromkeys((*self.said, *said)))
        self._plan["measured"] = datetime.now(UTC).isoformat(timespec="seconds")
        self._write()

    def _write(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(stamped(self._plan), indent=1, ensure_ascii=False)
        _platform.write_whole(self.out / PLAN, text)

    def save(self, name: str, record: Any) -> None:
        """Write the record of a finished stage."""
        text = json.dumps(stamped(to_plain(record)), ensure_ascii=False)
        _platform.write_whole(self.out / f"{name}.json", text)

    def load(self, name: str, kind: type[Kind]) -> Kind | None:
        """A finished stage's record; None if there is none, or it was damaged: the result then
        counts as unfinished.
        """
        path = self.out / f"{name}.json"
        if self._anew and path.is_file() and not _is_record(path):
            _platform.set_aside(path)  # from before there were hashes, and rests on what is gone
        try:
            return read_record(path, kind)
        except FileNotFoundError:
            return None
        except ValueError:
            self._plan["finished"] = False
            if path.name in FOUNDATION:
                self._plan["spent"] = 0.0  # on what is all made again
            self._write()
            self._set_aside(path)
            return None


def _set(value: Any) -> Any:
    """Part of a configuration without a γ that is not set: a result from before recipes could
    have one is of the same configuration.
    """
    if not isinstance(value, dict):
        return value
    return {k: _set(v) for k, v in value.items() if (k, v) != ("gamma", None)}


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """The record of a finished stage.

    Args:
        path: Its file.
        kind: A dataclass.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it has changed since it was written, or is no such record.
        ResultError: If the system cannot read it.
    """
    data = _platform.read_whole(path)
    try:
        found = opened(data)
        if not found.keys() & {field.name for field in dataclasses.fields(cast(Any, kind))}:
            raise ValueError("another record")
        return from_plain(kind, found)
    except Exception as error:  # from_plain raises whatever another structure leads it to
        raise ValueError(f"{path.name} is damaged") from error


def _is_record(path: Path) -> bool:
    """Whether a journal has written it: what others write into the directory has no such hash."""
    try:
        return stamped(opened(data := _platform.read_whole(path))) == json.loads(data)
    except ValueError:
        return False


def _is_plan(found: dict[str, Any]) -> bool:
    """Whether a plan has what it must have; older ones have no hash that says so."""
    kinds = {"config": dict, "finished": bool, "stages": dict}
    whole = all(isinstance(found.get(name), kind) for name, kind in kinds.items())
    return whole and all(isinstance(made, dict) for made in found["stages"].values())


def parse_seconds(text: str | float) -> float:
    """``90s``, ``2m``, ``1.5h`` or a number of seconds.

    Args:
        text: What was typed.

    Returns:
        Seconds, above 0.

    Raises:
        InvalidValueError: If it is no time.

    Example:
        >>> parse_seconds("2m")
        120.0
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    word = str(text).strip().lower()
    number, unit = (word[:-1], units[word[-1]]) if word[-1:] in units else (word, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InvalidValueError(must("budget", "a time such as 90s, 2m or 1h", text))
    return seconds
