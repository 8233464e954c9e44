"""A Ray cluster as a place where cells are trained."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from batchlab import _platform
from batchlab.cluster.connection import need
from batchlab.cluster.dispatch import Call, Dispatch
from batchlab.cluster.fleet import Fleet, gpus_of
from batchlab.cluster.node import Beacon, call, train_cell
from batchlab.cluster.parcel import Parcel
from batchlab.engine.cell import Results, Work
from batchlab.engine.checkpoint import NAME
from batchlab.engine.workers import packed
from batchlab.tasks import Prepared


class Cluster:
    """A place where cells are trained, held until :meth:`close`.

    Args:
        fleet: Its nodes.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._stored: dict[str, Any] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the cluster go; one that was started for this ends."""
        self.fleet.close()

    def slots(self, device: str) -> int:
        """Cells that train at the same time.

        Args:
            device: Where they train.
        """
        return self.fleet.slots(device)

    def memory(self, device: str) -> int:
        """Bytes for one cell on the node with the least; 0 on GPUs, which do not tell.

        Args:
            device: Where cells train.
        """
        return self.fleet.memory(device)

    def crew(self, prepared: Prepared) -> Crew:
        """Those that train one task.

        Args:
            prepared: The task.
        """
        return Crew(self, prepared)

    def run(
        self,
        shared: bytes,
        calls: Mapping[str, Call],
        partly: Callable[[str, float], None],
        at_once: int = 0,
        device: str = "cpu",
    ) -> Iterator[tuple[str, Any]]:
        """Do something for every cell.

        Args:
            shared: What all of them share; sent once.
            calls: Cell → what is done.
            partly: Told a cell's name and the share of it that is done.
            at_once: Cells at a time; 0: as many as there are slots.
            device: Where they train.

        Returns:
            (cell, result) as they end; see :meth:`batchlab.cluster.dispatch.Dispatch.results`.
        """
        largest = max((one.memory for one in calls.values()), default=0)
        found = self.fleet.nodes()
        need(found, gpus_of(device), largest, self.fleet.on)
        for node in found.values():
            self.fleet.purse.price(node.kind)
        reference = self._put(shared)
        yield from Dispatch(self.fleet, reference, calls, partly, at_once, device).results()

    def _put(self, data: bytes) -> Any:
        """Bytes in the object store, kept while this lives; nodes read them in place."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._stored:
            self._stored.clear()
            self._stored[digest] = self.fleet.ray.put(np.frombuffer(data, dtype=np.uint8))
        return self._stored[digest]


class Crew:
    """Trains cells of one task on a cluster.

    Args:
        cluster: The cluster.
        prepared: The task.
    """

    def __init__(self, cluster: Cluster, prepared: Prepared) -> None:
        self._cluster, self._device = cluster, prepared.device
        self._prepared = prepared

    @cached_property
    def _packed(self) -> tuple[bytes, str]:
        data = packed(self._prepared)
        return data, hashlib.sha256(data).hexdigest()

    def run(
        self, works: Mapping[str, Work], partly: Callable[[str, float], None], at_once: int = 0
    ) -> Iterator[tuple[str, Results]]:
        """As :meth:`batchlab.engine.workers.Workers.run`, on the nodes.

        Args:
            works: What to train, by the cell's name.
            partly: Told a cell's name and the share of it that is done.
            at_once: Cells at a time; 0: one a slot.
        """
        data, digest = self._packed
        folder = next((w.folder.parent for w in works.values() if w.folder is not None), None)
        with lit(folder) as beacon:
            calls = {
                name: Call(
                    train_cell,
                    (digest, cloudpickle.dumps((work, beacon))),
                    work.memory,
                    None if work.folder is None else Parcel(work.folder / NAME),
                )
                for name, work in works.items()
            }
            yield from self._cluster.run(data, calls, partly, at_once, self._device)

    def everywhere(self, function: Callable[..., Any], *given: Any) -> list[Any]:
        """Call a function of the task on every slot of one node of each kind, at the same time.

        Args:
            function: ``(prepared, *given) → result``.
            given: Its other arguments.
        """
        data, digest = self._packed
        gpus = gpus_of(self._device)
        found = [node for node in self._cluster.fleet.nodes().values() if node.slots(gpus)]
        kinds = {node.kind: node for node in found}
        asked = digest, cloudpickle.dumps((function, given))
        calls = {
            f"timing {node.kind} {slot}": Call(call, asked, node=node.id)
            for node in kinds.values()
            for slot in range(node.slots(gpus))
        }
        done = self._cluster.run(data, calls, lambda name, share: None, len(calls), self._device)
        return [result for _, result in done]

    def on_kinds(self, function: Callable[..., Any], *given: Any) -> dict[str, Any]:
        """Call a function of the task on one node of each kind, with the node's slot to itself.

        Args:
            function: ``(prepared, *given) → result``.
            given: Its other arguments.

        Returns:
            Kind → result, in the order of the kinds.
        """
        data, digest = self._packed
        gpus = gpus_of(self._device)
        found = [node for node in self._cluster.fleet.nodes().values() if node.slots(gpus)]
        asked = digest, cloudpickle.dumps((function, given))
        calls = {node.kind: Call(call, asked, node=node.id) for node in found}
        done = dict(self._cluster.run(data, calls, lambda name, share: None, 0, self._device))
        return {name: done[name] for name in sorted(done)}

    def hear(self) -> list[str]:
        """What went otherwise than planned since this was asked last."""
        return self._cluster.fleet.hear()

    def close(self) -> None:
        """Nothing: the cluster is held by whoever has connected to it."""


@contextmanager
def lit(folder: Path | None) -> Iterator[Beacon | None]:
    """For a while, a file in a folder by which a node sees that it shares it.

    Args:
        folder: The folder, or None.
    """
    if folder is None:
        yield None
        return
    token = secrets.token_hex(16)
    beacon = Beacon(folder.resolve() / f".shared-{token[:8]}", token)
    folder.mkdir(parents=True, exist_ok=True)
    _platform.write_whole(beacon.path, token)
    try:
        yield beacon
    finally:
        beacon.path.unlink(missing_ok=True)
