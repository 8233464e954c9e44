"""The change as a patch: whole, or not at all."""

from __future__ import annotations

import ast
import difflib
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchlab import _platform
from batchlab.advisor.record import Advice
from batchlab.errors import ResultError, cannot_read
from batchlab.patching.division import Division, divided
from batchlab.patching.find import LABELS, Edit, Sought, find
from batchlab.patching.kinds import ARGUMENTS, TRAINER, Kind, known_kind
from batchlab.patching.script import Script, read
from batchlab.patching.snippets import snippet, written
from batchlab.types import Evidence


@dataclass(frozen=True)
class Changed:
    """A script before and after."""

    path: Path
    name: str
    before: bytes
    after: bytes

    @property
    def diff(self) -> str:
        """As `git apply -p0` and `patch -p0` read it."""
        old, new = (_lines(text) for text in (self.before, self.after))
        lines = difflib.unified_diff(old, new, self.name, self.name)
        return "".join(
            one if one.endswith("\n") else f"{one}\n\\ No newline at end of file\n"
            for one in lines
        )


@dataclass(frozen=True, repr=False)
class Patch:
    """What to change, and where. Its text is the whole of it; ``print`` shows it.

    Attributes:
        kind: ``pytorch``, ``lightning`` or ``huggingface``.
        title: What changes, or that nothing does.
        notes: What to know, a sentence each.
        by_hand: What was not found in the scripts or is ambiguous, a sentence each.
        found: Places of what was found, where not all was.
        snippet: The lines that hold the settings, to write by hand; none where nothing changes.
        changed: The scripts, where everything was found.
    """

    kind: Kind
    title: str
    notes: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    snippet: tuple[str, ...] = ()
    changed: tuple[Changed, ...] = ()

    @property
    def diff(self) -> str:
        """The patch alone; empty where there is none."""
        return "".join(one.diff for one in self.changed)

    def write(self) -> None:
        """Change the scripts themselves, each whole or not at all; nothing where nothing changes.

        Raises:
            ResultError: If there is no patch, or a script is another than the one that was read.
        """
        if self.snippet and not self.changed:
            why = " ".join(self.by_hand) or "Say which `file` it is."
            raise ResultError(f"Nothing is written. {why}")
        for one in self.changed:
            if not one.path.is_file() or one.path.read_bytes() != one.before:
                raise ResultError(f"`{one.name}` has changed meanwhile; nothing is written.")
        for one in self.changed:
            _platform.write_whole(one.path, one.after)

    def __str__(self) -> str:
        lines = [self.title, *self.notes, *self.by_hand]
        lines += [f"found: {place}" for place in self.found]
        if self.changed:
            return "\n".join([*lines, "", self.diff])
        code = [f"    {one}" for one in self.snippet]
        return "\n".join([*lines, *(["By hand:", "", *code] if code else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"


def make(
    advice: Advice,
    kind: str = "auto",
    files: Iterable[str | Path] = (),
    *,
    world_size: int | None = None,
    micro_batch_size: int | None = None,
) -> Patch:
    """The change that an advice recommends, as a patch for the user's own scripts.

    Args:
        advice: The record.
        kind: ``pytorch``, ``lightning``, ``huggingface``; ``auto``: what the scripts call, and
            without scripts, how the task was made.
        files: The scripts; without them there is only the snippet.
        world_size: Processes that train together; what the scripts say if left out.
        micro_batch_size: Largest micro-batch that fits where they train; what was measured if left
            out.

    Returns:
        The patch, whole; or, where a number was not found, what is to be changed by hand.
    """
    scripts = [read(file) for file in dict.fromkeys(map(Path, files))]
    which = _detected(scripts, advice.framework) if kind == "auto" else known_kind(kind)
    if not advice.changes:
        return Patch(which, nothing(advice))
    title = f"{advice.task}: change {_and(_named(advice))}{', together' * _several(advice)}."
    most = largest(advice) if micro_batch_size is None else micro_batch_size
    code, careful = (
        snippet(which, advice.recommended, cut(advice, most, world_size or 1)),
        cautions(advice),
    )
    if not scripts:
        return Patch(which, title, careful, snippet=code)

    def again(old: Division) -> Division:
        limit = most or (old.micro_batch_size if old.accum_steps > 1 else None)
        return divided(int(advice.recommended.batch_size), limit, old.world_size)

    if not isinstance(advice.recommended.batch_size, int):
        by_hand = (
            "The batch size is a schedule, which no number in a script can hold: a sampler draws "
            "the batches, and apply.py beside the report trains with it.",
        )
        return Patch(which, title, careful, by_hand, snippet=code)
    if any(change.name == "reuse" for change in advice.changes):
        by_hand = (
            "Each fetched batch serves for several updates, which no number in a script can say: "
            "wrap the loader, and count the scheduler's steps in updates.",
        )
        return Patch(which, title, careful, by_hand, snippet=code)
    if any(change.name == "gamma" for change in advice.changes):
        by_hand = (
            "The model is centred at its start and divided by γ, which no number in a script can "
            "say: wrap it before the optimizer is made, and apply.py beside the report trains "
            "with it.",
        )
        return Patch(which, title, careful, by_hand, snippet=code)
    sought = find(scripts, which, advice.changes, advice.today, again, world_size)
    notes = careful + sought.notes
    if sought.by_hand:
        places = tuple(map(str, sought.edits))
        return Patch(which, title, notes, sought.by_hand, places, code)
    return Patch(which, title, notes, snippet=code, changed=_changed(scripts, sought))


def cautions(advice: Advice) -> tuple[str, ...]:
    """What has not been shown of a change, a sentence each.

    Args:
        advice: The record.
    """
    told = []
    if advice.evidence is not Evidence.CONFIRMED:
        told.append(f"Careful: this is {advice.evidence} from a short trial, not confirmed.")
    part = advice.part
    if part is not None and part.repeat is None:
        share = f"{part.examples:,} of {part.whole:,} training examples"
        told.append(f"Careful: measured on {share}, and not repeated on all of them.")
    if told and advice.next_stage is not None:
        told.append(f"What would tell: {advice.next_stage.command}")
    return tuple(told)


def cut(advice: Advice, most: int | None, world_size: int = 1) -> Division | None:
    """How the recommended batch is cut, or None where it is a schedule.

    Args:
        advice: The record.
        most: Largest micro-batch that fits, or None.
        world_size: Processes.
    """
    size = advice.recommended.batch_size
    return divided(size, most, world_size) if isinstance(size, int) else None


def largest(advice: Advice) -> int | None:
    """The largest micro-batch that ran, or None where that was not measured."""
    return advice.memory.largest or None if advice.memory is not None else None


def nothing(advice: Advice) -> str:
    """That there is nothing to apply, and why."""
    return f"{advice.task}: there is nothing to apply, the verdict is “{advice.verdict}”."


def _named(advice: Advice) -> list[str]:
    return [
        f"{LABELS.get(c.name, c.name)} {written(c.today)} → {written(c.recommended)}"
        for c in advice.changes
    ]


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _several(advice: Advice) -> bool:
    return len(advice.changes) > 1


def _detected(scripts: Sequence[Script], framework: str) -> Kind:
    """The kind that the calls of the scripts show; without scripts, how the task was made."""
    if not scripts:
        return known_kind(framework)
    if any(True for script in scripts for _ in script.calls(ARGUMENTS)):
        return "huggingface"
    names = {name.partition(".")[0] for script in scripts for name in script.imported.values()}
    trained = any(True for script in scripts for _ in script.calls(TRAINER))
    return "lightning" if trained or names & {"lightning", "pytorch_lightning"} else "pytorch"


def _changed(scripts: Sequence[Script], sought: Sought) -> tuple[Changed, ...]:
    """The scripts that differ, each with all of its edits."""
    found = []
    for script in scripts:
        mine = [edit for edit in sought.edits if edit.place.script is script]
        if mine:
            found.append(Changed(script.path, script.name, script.content, _edited(script, mine)))
    return tuple(found)


def _edited(script: Script, edits: Sequence[Edit]) -> bytes:
    """The script with other numbers in it, the last one first."""
    pieces = sorted((_piece(edit) for edit in edits), reverse=True)
    text = script.content
    for start, end, new in pieces:
        text = text[:start] + new.encode() + text[end:]
    try:
        ast.parse(text)
    except SyntaxError:
        raise cannot_read(script.path, "a number in it stands in an unusual place") from None
    return text


def _piece(edit: Edit) -> tuple[int, int, str]:
    """First byte, the byte after the last, and what comes there."""
    place, new = edit.place, written(edit.new)
    start, end = place.script.span(place.node)
    if not place.keyword:
        return start, end, new
    call = place.node
    assert isinstance(call, ast.Call)
    given = [*call.args, *(one.value for one in call.keywords)]
    if not given:
        return end - 1, end - 1, f"{place.keyword}={new}"
    last = max(given, key=lambda one: place.script.span(one)[1])
    between = ", "
    if last.lineno != call.lineno:
        between = f",{place.script.newline}{place.script.indentation(last)}"
    after = place.script.span(last)[1]
    return after, after, f"{between}{place.keyword}={new}"


def _lines(text: bytes) -> list[str]:
    return [one.decode("utf-8") for one in text.splitlines(keepends=True)]
