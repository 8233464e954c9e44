"""The nodes of a Ray cluster: which there are, what runs on them, what they cost and tell."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from batchlab.cluster.attempt import Answer, Facts, facts
from batchlab.cluster.connection import Node, connect, nodes
from batchlab.cluster.hub import Hub, News
from batchlab.cluster.purse import Purse

LOOK_SECONDS = 2.0
"""So often the list of nodes is read anew."""
LEAST_REPORT_SECONDS, REPORTS_A_SECOND = 0.25, 4000.0
"""A cell reports so often; all of them together, at most so many times a second."""


class Fleet:
    """The nodes of a cluster, held until :meth:`close`.

    Args:
        on: As for :func:`batchlab.cluster.connection.connect`.
        purse: What its nodes cost.
        told: Hears a short line of what all of it does.

    Attributes:
        on: How it was asked for.
        purse: What it costs.
        ray: The library, connected.
        since: When it was joined.
    """

    def __init__(
        self,
        on: str = "ray",
        purse: Purse | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.on, self.purse = on, purse or Purse()
        self.ray, self._mine = connect(on)
        self.since = datetime.now(UTC).isoformat(timespec="microseconds")
        self._told = told
        self._said: list[str] = []
        self._sent: dict[Callable[..., Any], Any] = {}
        self._nodes: dict[str, Node] = {}
        self._looked = -LOOK_SECONDS
        self._facts: dict[tuple[str, Facts], int] = {}
        self._retried = 0

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the cluster go; one that was started for this ends."""
        if "hub" in self.__dict__:
            self.ray.kill(self.__dict__.pop("hub"))
        if self._mine:
            self.ray.shutdown()
            self._mine = False

    def slots(self, device: str) -> int:
        """Cells that train at the same time.

        Args:
            device: Where they train.
        """
        return max(1, sum(node.slots(gpus_of(device)) for node in self.nodes().values()))

    def memory(self, device: str) -> int:
        """Bytes for one cell on the node with the least; 0 on GPUs, which do not tell.

        Args:
            device: Where cells train.
        """
        shares = [n.memory / n.slots(0) for n in self.nodes().values() if n.slots(0)]
        return 0 if gpus_of(device) else int(min(shares, default=0))

    def nodes(self) -> dict[str, Node]:
        """The nodes that are alive."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._nodes, self._looked = nodes(self.ray), time.monotonic()
        return self._nodes

    def kinds(self) -> list[str]:
        """The kinds of its nodes that offer a processor."""
        return sorted({node.kind for node in self.nodes().values() if node.cpus >= 1})

    def elsewhere(self, tried: list[str], device: str, busy: list[str]) -> str | None:
        """A node on which a cell has not failed yet, the least busy; None: the cluster decides.

        Args:
            tried: Where it failed.
            device: Where cells train.
            busy: Where the others run.
        """
        if not tried:
            return None
        loads = Counter(busy)
        found = [
            n for n in self.nodes().values() if n.slots(gpus_of(device)) and n.id not in tried
        ]
        idle = min(found, key=lambda n: loads[n.id] / n.slots(gpus_of(device)), default=None)
        return None if idle is None else idle.id

    def remote(
        self, function: Callable[..., Any], device: str, memory: int, node: str | None
    ) -> Any:
        """A function as a task of the cluster, which is not tried again behind our back.

        Args:
            function: What is called.
            device: Where it computes.
            memory: Bytes that are kept free for it.
            node: Where, or None for anywhere.
        """
        where = {}
        if node is not None:
            affinity = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
            where = {"scheduling_strategy": affinity(node, soft=True)}
        if function not in self._sent:
            self._sent[function] = self.ray.remote(function)
        return self._sent[function].options(
            num_cpus=1, num_gpus=gpus_of(device), memory=memory or None, max_retries=0, **where
        )

    @cached_property
    def hub(self) -> Any:
        """The process that hears the nodes, beside this one: no lost node takes it away."""
        affinity = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        here = affinity(self.ray.get_runtime_context().get_node_id(), soft=False)
        return self.ray.remote(Hub).options(num_cpus=0, scheduling_strategy=here).remote()

    def report_seconds(self, device: str) -> float:
        """Between two reports of a cell."""
        return max(LEAST_REPORT_SECONDS, self.slots(device) / REPORTS_A_SECOND)

    def news(self) -> News:
        """What the nodes have told since this was asked last."""
        return self.ray.get(self.hub.news.remote())

    def is_lost(self, node: str) -> bool:
        """Whether a node is gone; it is paid no longer then.

        Args:
            node: Its id; empty: not known.
        """
        self._looked = -LOOK_SECONDS
        lost = bool(node) and node not in self.nodes()
        if lost:
            self.purse.lose(node, time.monotonic())
        return lost

    def used(self, node: str, since: float) -> None:
        """A cell began on a node."""
        if node in self.nodes():
            self.purse.use(node, self.nodes()[node].kind, since)

    def next_price(self) -> float:
        """Of an hour of the dearest node that is not paid yet."""
        idle = [n for n in self.nodes().values() if not self.purse.holds(n.id)]
        return max((self.purse.price(n.kind) for n in idle), default=0.0)

    # What is said

    def note(self, answer: Answer, attempts: int) -> None:
        """A cell has ended.

        Args:
            answer: What it gave.
            attempts: It took.
        """
        node = self.nodes().get(answer.node)
        key = "a node that has left" if node is None else node.kind, answer.facts
        self._facts[key] = self._facts.get(key, 0) + 1
        self._retried += attempts > 1

    def say(self, sentence: str) -> None:
        """Something went otherwise than planned."""
        self._said.append(sentence)

    def hear(self) -> list[str]:
        """What went otherwise than planned since this was asked last."""
        said, self._said = self._said, []
        return said

    def tell(self, line: str) -> None:
        """What all of it does now, for the line of progress."""
        if self._told is not None:
            spent = f", {self.purse.spent(time.monotonic()):.2f} {self.purse.currency} so far"
            self._told(line + (spent if self.purse.counts else ""))

    def provenance(self) -> dict[str, str]:
        """Where cells were trained, and whether the numbers are those of this machine, bit for
        bit.
        """
        if not self._facts:
            return {}
        told = [
            f"{cells} cells on {kind} ({_words(one)})"
            for (kind, one), cells in self._facts.items()
        ]
        tries = [f"{self._retried} went on elsewhere"] if self._retried else []
        spent = self.purse.spent(time.monotonic())
        money = [f"{spent:.2f} {self.purse.currency}"] if self.purse.counts else []
        return {"cluster": "; ".join(["Ray", *told, *tries, *money]), "equal": self.equality()}

    def equality(self) -> str:
        """How far results are those that this machine would have found."""
        here = [facts("cuda" if one.accelerator else "cpu") for _, one in self._facts]
        same = all(a == one for a, (_, one) in zip(here, self._facts, strict=True))
        return (
            "bit for bit as on this machine" if same else "equal within round-off to this machine"
        )


def gpus_of(device: str) -> int:
    """Of one cell.

    Args:
        device: Where it trains.
    """
    return int(device.startswith("cuda"))


def _words(one: Facts) -> str:
    accelerator = f"{one.accelerator}, " if one.accelerator else ""
    return f"{accelerator}{one.processor}, torch {one.torch}, {one.threads} thread(s)"
