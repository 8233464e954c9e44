"""Which numbers of a script to change: one place for each, or a sentence why not."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from batchlab.advisor.record import Change, Setting
from batchlab.patching import values
from batchlab.patching.division import Division
from batchlab.patching.kinds import (
    ARGUMENTS,
    COUNTS_UPDATES,
    LOADER,
    OPTIMIZER,
    SCHEDULE,
    SLOTS,
    TRAINER,
    Kind,
    Slot,
)
from batchlab.patching.script import FUNCTIONS, Script, line
from batchlab.patching.snippets import written
from batchlab.patching.values import Found, Place, Unknown

LABELS = {
    "batch_size": "batch size",
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
    "clip_norm": "gradient clipping",
    "reuse": "updates on each fetched batch",
    "gamma": "the feature-learning strength",
}
WHAT = {
    LOADER: "torch.utils.data.DataLoader",
    OPTIMIZER: "an optimizer of torch.optim",
    TRAINER: "Lightning's Trainer",
    ARGUMENTS: "TrainingArguments",
}
HELD_OUT = {"val", "valid", "validation", "eval", "evaluation", "test", "dev", "predict", "held"}
"""Words in the name of a loader, or of what it loads, that is not for training."""


@dataclass(frozen=True)
class Edit:
    """A number that changes."""

    place: Place
    new: float

    def __str__(self) -> str:
        old = "nothing" if self.place.keyword else written(self.place.value)
        return f"{self.place.where}: {old} → {written(self.new)}"


@dataclass(frozen=True)
class Sought:
    """What was found for one change, or for all.

    Attributes:
        edits: Numbers to change.
        by_hand: What was not found or is ambiguous, a sentence each.
        notes: What to know, a sentence each.
    """

    edits: tuple[Edit, ...] = ()
    by_hand: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __add__(self, other: Sought) -> Sought:
        return Sought(
            self.edits + other.edits,
            self.by_hand + other.by_hand,
            self.notes + other.notes,
        )


def find(
    scripts: Sequence[Script],
    kind: Kind,
    changes: Sequence[Change],
    today: Setting,
    cut: Callable[[Division], Division],
    world_size: int | None,
) -> Sought:
    """Every number that the changes are about.

    Args:
        scripts: The user's scripts, together.
        kind: Their kind.
        changes: What changes.
        today: Today's setting.
        cut: Today's batch, as the scripts divide it → how the new one is divided.
        world_size: Processes; None: what the scripts say.
    """
    found = Sought()
    for one in changes:
        if one.name == "batch_size":
            found += _batch(scripts, kind, today, cut, world_size)
        else:
            found += _number(scripts, SLOTS[kind].get(one.name), one)
    return found


# ------------------------------------------------------------------ one number


def _number(scripts: Sequence[Script], slot: Slot | None, change: Change) -> Sought:
    """A setting that is one number in one place."""
    label = LABELS.get(change.name, change.name)
    if slot is None or not isinstance(change.recommended, int | float):
        return Sought(by_hand=(f"The {label} has no place that is known in such a script.",))
    if slot.call == OPTIMIZER and (group := _own_rates(scripts, slot.keyword)):
        return Sought(by_hand=(f"Groups of parameters have a {label} of their own ({group}).",))
    if change.name == "learning_rate" and (where := next(_rates_set(scripts), "")):
        return Sought(by_hand=(f"The learning rate is also set in {where}.",))
    found = _places(scripts, slot)
    if not found:
        return Sought(by_hand=(f"The {label} was not found: {_no_call(scripts, slot)}",))
    matching = [p for p in _distinct(found) if _same(p.value, change.today)]
    if len(matching) == 1 and not _unknown(found):
        return _edited(matching[0], change.recommended)
    return Sought(by_hand=(_unclear(label, change.today, found, matching),))


def _places(
    scripts: Sequence[Script],
    slot: Slot,
    keep: Callable[[Script, ast.Call], bool] = lambda script, call: True,
) -> Found:
    """Where the known calls have their number from."""
    return [
        place
        for script in scripts
        for call in script.calls(slot.call)
        if keep(script, call)
        for place in values.of_call(scripts, script, call, slot)
    ]


def _distinct(found: Found) -> list[Place]:
    return list({one.key: one for one in found if isinstance(one, Place)}.values())


def _unknown(found: Found) -> list[Unknown]:
    return [one for one in found if isinstance(one, Unknown)]


def _same(value: float, other: object) -> bool:
    return isinstance(other, int | float) and math.isclose(value, other, rel_tol=1e-9)


def _edited(place: Place, new: float) -> Sought:
    """The edit, with what else the same constant is used for."""
    notes = [place.note] if place.note else []
    if uses := _other_uses(place):
        notes.append(uses)
    return Sought((Edit(place, new),), notes=tuple(notes))


def _other_uses(place: Place) -> str:
    """Where else a constant is read, if it is one."""
    above = place.script.parents.get(place.node)
    targets = above.targets if isinstance(above, ast.Assign) else []
    name = targets[0].id if targets and isinstance(targets[0], ast.Name) else ""
    lines = sorted(
        {
            line(node)
            for node in ast.walk(place.script.tree)
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load)
        }
    )
    if not name or len(lines) < 2:
        return ""
    listed = ", ".join(map(str, lines))
    return f"`{name}` in {place.script.name} is read on lines {listed}: all of them change."


def _unclear(label: str, today: object, found: Found, matching: Sequence[Place]) -> str:
    """Why there is not one place, in a sentence."""
    if unknown := _unknown(found):
        return f"The {label} is not clear: {unknown[0]}."
    if len(matching) > 1:
        places = " and ".join(place.where for place in matching)
        return f"The {label} {written(today)} stands in {len(matching)} places: {places}."
    seen = ", ".join(f"{written(p.value)} ({p.where})" for p in _distinct(found))
    return f"The {label} of today, {written(today)}, was not found: there is {seen}."


def _no_call(scripts: Sequence[Script], slot: Slot) -> str:
    return f"no call of {WHAT[slot.call]} is in {', '.join(s.name for s in scripts)}."


def _own_rates(scripts: Sequence[Script], keyword: str) -> str:
    """Where a group of parameters in an optimizer's call has the setting too."""
    for script in scripts:
        for call in script.calls(OPTIMIZER):
            for node in ast.walk(call):
                keys = node.keys if isinstance(node, ast.Dict) else []
                if any(isinstance(k, ast.Constant) and k.value == keyword for k in keys):
                    return f"{script.name}, line {line(node)}"
    return ""


def _rates_set(scripts: Sequence[Script]) -> Iterator[str]:
    """Where a schedule, or the script itself, sets the rate of an optimizer that exists."""
    for script in scripts:
        groups = [node for node in script.every(ast.Subscript) if _sets_rate(script, node)]
        for node in [*script.calls(SCHEDULE), *groups]:
            yield f"{script.name}, line {line(node)}"


def _sets_rate(script: Script, node: ast.AST) -> bool:
    """Whether this is ``group["lr"]`` of an optimizer, given a value that is no multiple of it."""
    assert isinstance(node, ast.Subscript)
    if not (isinstance(node.ctx, ast.Store) and ast.unparse(node.slice) == "'lr'"):
        return False
    loops = [above.iter for above in script.around(node) if isinstance(above, ast.For)]
    of_optimizer = any("param_groups" in ast.unparse(one) for one in (node.value, *loops))
    return of_optimizer and not isinstance(script.parents[node], ast.AugAssign)


# ------------------------------------------------------------------ the batch


def _batch(
    scripts: Sequence[Script],
    kind: Kind,
    today: Setting,
    cut: Callable[[Division], Division],
    world_size: int | None,
) -> Sought:
    """Micro-batch and accumulation, whose product with the processes is the batch."""
    slot = SLOTS[kind]["micro_batch_size"]
    found = _places(scripts, slot, _for_training(scripts) if slot.call == LOADER else _always)
    steps, why = _accumulation(scripts, kind)
    if not found or _unknown(found) or why:
        fault = why or (
            _unclear("batch size", today.batch_size, found, [])
            if found
            else f"The batch size was not found: {_no_call(scripts, slot)}"
        )
        return Sought(by_hand=(fault,))
    world = world_size or _devices(scripts) or today.world_size
    each = 1 if steps is None else int(steps.value)
    matching = [p for p in _distinct(found) if p.value * each * world == today.batch_size]
    if len(matching) != 1:
        fault = _unclear("batch size", today.batch_size, found, matching)
        hint = " With several processes, say how many." if not matching and world == 1 else ""
        return Sought(by_hand=(fault + hint,))
    old = Division(int(matching[0].value), each, world)
    return _divided(matching[0], steps, old, cut(old), kind) + Sought(notes=_counts(scripts))


def _divided(size: Place, steps: Place | None, old: Division, new: Division, kind: Kind) -> Sought:
    """The edits that turn one division into another."""
    found = Sought(notes=(f"Batch today: {old}; then: {new}.",))
    if old.micro_batch_size != new.micro_batch_size:
        found += _edited(size, new.micro_batch_size)
    if old.accum_steps == new.accum_steps:
        return found
    if steps is not None:
        return found + _edited(steps, new.accum_steps)
    calls = {"pytorch": "batchlab.Accumulator does it", "lightning": "accumulate_grad_batches="}
    how = calls.get(kind, "gradient_accumulation_steps=")
    return found + Sought(
        by_hand=(
            f"The loop has no accumulation that is known, and {new.accum_steps} micro-batches of "
            f"{new.micro_batch_size} are needed for one update ({how}).",
        )
    )


def _accumulation(scripts: Sequence[Script], kind: Kind) -> tuple[Place | None, str]:
    """Where the number of accumulated micro-batches is written, or why that is not clear."""
    slot = SLOTS[kind].get("accum_steps")
    found: Found = []
    found += _named_accumulation(scripts) if slot is None else _places(scripts, slot)
    places = _distinct(found)
    if len(places) > 1 and all(one.keyword and one.value == 1 for one in places):
        places = []  # no call accumulates, so none of them is the one
    if _unknown(found) or len(places) > 1:
        return None, _unclear("accumulation", 1, found, places)
    return (places[0] if places else None), ""


def _named_accumulation(scripts: Sequence[Script]) -> Iterator[Place]:
    """Constants of a plain loop whose name says that they count accumulated batches."""
    for script in scripts:
        for node in script.every(ast.Assign):
            assert isinstance(node, ast.Assign)
            name, value = ast.unparse(node.targets[0]), node.value
            whole = isinstance(value, ast.Constant) and type(value.value) is int
            if whole and re.fullmatch(r"\w*accum\w*", name, re.IGNORECASE):
                assert isinstance(value, ast.Constant)
                assert isinstance(value.value, int)
                yield Place(script, value, value.value)


def _devices(scripts: Sequence[Script]) -> int | None:
    """Processes that Lightning's Trainer is told to use, if that is a plain number."""
    for script in scripts:
        for call in script.calls(TRAINER):
            given = {k.arg: k.value for k in call.keywords if k.arg in ("devices", "num_nodes")}
            plain = [n.value for n in given.values() if isinstance(n, ast.Constant)]
            if given and len(plain) == len(given) and all(type(n) is int and n > 0 for n in plain):
                return math.prod(n for n in plain if isinstance(n, int))
    return None


def _always(script: Script, call: ast.Call) -> bool:
    return True


def _for_training(scripts: Sequence[Script]) -> Callable[[Script, ast.Call], bool]:
    """Whether a loader is for training; where no name tells, every loader may be."""
    training = {
        call for script in scripts for call in script.calls(LOADER) if not _held_out(script, call)
    }
    return lambda script, call: not training or call in training


def _held_out(script: Script, call: ast.Call) -> bool:
    """Whether the names around a loader say that it is not for training."""
    shuffled = any(
        k.arg == "shuffle" and isinstance(k.value, ast.Constant) and k.value.value is True
        for k in call.keywords
    )
    named = [ast.unparse(one) for one in call.args[:1]]
    named += [ast.unparse(k.value) for k in call.keywords if k.arg == "dataset"]
    for node in script.around(call):
        if isinstance(node, ast.Assign):
            named += [ast.unparse(target) for target in node.targets]
        if isinstance(node, FUNCTIONS):
            named.append(node.name)
            break
    words = {word.lower() for text in named for word in re.split(r"[\W_]+", text)}
    return not shuffled and bool(words & HELD_OUT) and "train" not in words


def _counts(scripts: Sequence[Script]) -> tuple[str, ...]:
    """Numbers that count updates, which are not changed."""
    there = [
        f"`{k.arg}` ({script.name}, line {line(k.value)})"
        for script in scripts
        for call in script.every(ast.Call)
        if isinstance(call, ast.Call)
        for k in call.keywords
        if k.arg in COUNTS_UPDATES
        and isinstance(k.value, ast.Constant)
        and type(k.value.value) is int
        and k.value.value > 1
    ]
    if not there:
        return ()
    return (f"What counts updates stays as it is, look at it: {', '.join(there)}.",)
