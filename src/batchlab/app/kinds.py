"""The same advice on each kind of node of a cluster: time, money, and what fits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchlab import _platform
from batchlab.advisor.session import Stopwatch, machine_of
from batchlab.advisor.stages import Machine
from batchlab.app.advice import Advice
from batchlab.cluster.place import Cluster
from batchlab.measure import fit as finder
from batchlab.tasks import Prepared
from batchlab.types import Estimate, to_plain

BLOCKS, BLOCK_SECONDS = 5, 0.1


@dataclass(frozen=True)
class Kind:
    """What an advice comes to on one kind of node.

    Attributes:
        name: The kind's.
        machine: Its processor or accelerator.
        setting: The recommendation there.
        batch_size: Its batch size.
        largest: Largest batch that fits, if it was found.
        seconds_per_update: There.
        seconds: To the target, if that was projected.
        cost: The same in money, if the kind has a price.
        currency: Its currency.
    """

    name: str
    machine: str
    setting: str
    batch_size: int | str
    largest: int | None
    seconds_per_update: Estimate | None
    seconds: Estimate | None
    cost: Estimate | None
    currency: str

    def __str__(self) -> str:
        """One sentence."""
        told = [f"batch size {self.batch_size}", f"{self.seconds_per_update} an update"]
        told += [f"{self.seconds} to the target"] if self.seconds is not None else []
        told += [str(self.cost)] if self.cost is not None else []
        if self.largest is not None:
            told.append(f"at most {self.largest} examples fit")
        return f"on {self.name} ({self.machine}): {', '.join(told)}"


def timed_there(prepared: Prepared, sizes: Sequence[int]) -> Machine:
    """On a node: seconds per update of some batch sizes, in rounds, and what fits.

    Args:
        prepared: The task.
        sizes: Batch sizes.
    """
    fits = finder.fit(prepared)
    possible = [size for size in sizes if size <= fits.largest]
    stopwatch = Stopwatch(prepared, 1)
    for _ in range(BLOCKS):
        stopwatch.visit(possible, BLOCK_SECONDS)
    return machine_of(prepared, stopwatch, fits)


def compared(
    cluster: Cluster,
    prepared: Prepared,
    sizes: Sequence[int],
    folder: Path,
    judge: Callable[[Path, float], Advice],
) -> list[Kind]:
    """Judge an advice for every kind of node, by timings made there.

    Args:
        cluster: The cluster.
        prepared: The task.
        sizes: Batch sizes that were timed here.
        folder: The advice's result directory; a machine's record goes into ``kinds/<kind>``.
        judge: (folder of a machine's record, price of an hour) → the advice there.

    Returns:
        One a kind, in their order; also in ``kinds.json``.
    """
    found = []
    for name, machine in cluster.crew(prepared).on_kinds(timed_there, sizes).items():
        place = folder / "kinds" / name
        place.mkdir(parents=True, exist_ok=True)
        _write(place / "machine.json", machine)
        price = cluster.fleet.purse.price(name)
        currency = cluster.fleet.purse.currency
        found.append(_kind(name, machine, judge(place, price), price, currency))
    _write(folder / "kinds.json", found)
    return found


def _write(path: Path, record: Any) -> None:
    _platform.write_whole(path, json.dumps(to_plain(record), ensure_ascii=False))


def _kind(name: str, machine: Machine, advice: Advice, price: float, currency: str) -> Kind:
    used = next(c for c in advice.candidates if c.setting.id == advice.recommended.id)
    return Kind(
        name,
        machine.name,
        used.setting.id,
        used.setting.batch_size,
        None if machine.fit is None else machine.fit.largest,
        used.seconds_per_update,
        used.seconds_to_target,
        used.cost_to_target if price else None,
        currency,
    )


def verdict(kinds: Sequence[Kind]) -> list[str]:
    """The kinds as sentences, and which is fastest and which costs least.

    Args:
        kinds: At least one.
    """
    told = [str(kind) for kind in kinds]
    timed = [kind for kind in kinds if kind.seconds is not None]
    paid = [kind for kind in timed if kind.cost is not None]
    if len(timed) > 1:
        told.append(f"the target is reached soonest on {_least(timed, lambda k: k.seconds)}")
    if len(paid) > 1:
        told.append(f"the target costs least on {_least(paid, lambda k: k.cost)}")
    return told


def _least(kinds: Sequence[Kind], of: Callable[[Kind], Estimate | None]) -> str:
    """The kind with the least value; "or" the others whose intervals overlap with its own."""
    values = {kind.name: value for kind in kinds if (value := of(kind)) is not None}
    best = min(values, key=lambda name: values[name].value)
    like = [n for n, v in values.items() if n != best and not v.low > values[best].high]
    return " or ".join([best, *like])
