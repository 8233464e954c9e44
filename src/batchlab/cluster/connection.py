"""Reaching a Ray cluster, and what its nodes offer."""

from __future__ import annotations

import importlib
import os
import re
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchlab import _platform
from batchlab.errors import ClusterError, InvalidValueError, missing, must, reason

ANSWER_SECONDS = 10.0
ADDRESS = re.compile(r"(?:ray://)?(?P<host>\[[0-9A-Fa-f:]+\]|[\w.-]+):(?P<port>\d+)")
OWN = ("CPU", "GPU", "memory", "object_store_memory")
LABEL = "ray.io/node-group"
ACCELERATOR = "accelerator_type:"


def library() -> Any:
    """Ray, which sends no usage statistics.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise missing("ray", "ray") from error


def connect(on: str, seconds: float = ANSWER_SECONDS) -> tuple[Any, bool]:
    """Join a cluster.

    Args:
        on: ``ray`` for the one that runs here, which is started if none does; else its address,
            ``ray://HOST:PORT`` or ``HOST:PORT``.
        seconds: That it may take to answer.

    Returns:
        Ray, and whether this connection is ours to end.

    Raises:
        ClusterError: If it does not answer.
    """
    address = None if on == "ray" else on
    if address is not None and ADDRESS.fullmatch(address) is None:
        raise InvalidValueError(must("on", "ray, ray://HOST:PORT or HOST:PORT", on))
    ray = library()
    if ray.is_initialized():
        return ray, False
    asked = address or os.environ.get("RAY_ADDRESS", "")
    if found := ADDRESS.fullmatch(asked):
        _knock(asked, found["host"].strip("[]"), int(found["port"]), seconds)
    try:
        _join(ray, address)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"The Ray cluster {asked or 'here'} cannot be used: {reason(error)}."
        ) from error
    return ray, True


def _knock(address: str, host: str, port: int, seconds: float) -> None:
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        raise ClusterError(
            f"The Ray cluster `{address}` does not answer ({reason(error)}). Is `ray start` "
            "running there, and the port open?"
        ) from error


def _join(ray: Any, address: str | None) -> None:
    """Connect; Ray would keep SIGTERM for itself."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    quiet = {} if address and "://" in address else {"include_dashboard": False}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **quiet)
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        kind: Its label or custom resource, else the GPU's name, else ``cpu``.
        cpus: Processors that Ray gives away.
        gpus: Likewise.
        memory: Bytes, likewise.
    """

    id: str
    kind: str
    cpus: float
    gpus: float
    memory: float

    def slots(self, gpus: int) -> int:
        """Cells that train there at a time: one a processor, or one a GPU.

        Example:
            >>> node = Node("a", "cpu", cpus=8.0, gpus=2.0, memory=2**34)
            >>> node.slots(gpus=0), node.slots(gpus=1)
            (8, 2)
        """
        return int(self.gpus if gpus else self.cpus)


def nodes(ray: Any) -> dict[str, Node]:
    """The machines that are alive, by their ids."""
    alive = (one for one in ray.nodes() if one["Alive"])
    return {one["NodeID"]: _node(one) for one in alive}


def _node(told: Mapping[str, Any]) -> Node:
    offers = told["Resources"]
    return Node(
        told["NodeID"],
        kind_of(offers, told.get("Labels") or {}),
        offers.get("CPU", 0.0),
        offers.get("GPU", 0.0),
        offers.get("memory", 0.0),
    )


def kind_of(offers: Mapping[str, float], labels: Mapping[str, str]) -> str:
    """What a node is called: by its group, a custom resource, its accelerator, or ``cpu``.

    Args:
        offers: Ray's resources of the node.
        labels: Ray's labels of the node.

    Example:
        >>> kind_of({"CPU": 8.0, "gpu-a": 1.0, "node:10.0.0.7": 1.0}, {})
        'gpu-a'
        >>> kind_of({"CPU": 8.0, "GPU": 1.0, "accelerator_type:H100": 1.0}, {})
        'H100'
        >>> kind_of({"CPU": 8.0}, {}), kind_of({"CPU": 8.0}, {"ray.io/node-group": "spot"})
        ('cpu', 'spot')
    """
    if labels.get(LABEL):
        return labels[LABEL]
    custom = [n for n in sorted(offers) if n not in OWN and not n.startswith(("node:", "bundle"))]
    named = [name for name in custom if not name.startswith(ACCELERATOR)]
    if named:
        return named[0]
    if custom:
        return custom[0].removeprefix(ACCELERATOR)
    return "gpu" if offers.get("GPU") else "cpu"


def need(found: Mapping[str, Node], gpus: int, memory: int, on: str) -> None:
    """Refuse a cluster none of whose nodes can train a single cell.

    Args:
        found: Its nodes.
        gpus: Of a cell.
        memory: Bytes of a cell.
        on: How the cluster was asked for.

    Raises:
        ClusterError: With what it offers.

    Example:
        >>> need({"a": Node("a", "cpu", 2.0, 0.0, 2**30)}, gpus=1, memory=0, on="ray")
        Traceback (most recent call last):
            ...
        batchlab.errors.ClusterError: No node of the cluster `ray` offers a GPU; they offer ...
    """
    rooms = [node for node in found.values() if node.slots(gpus) >= 1]
    largest = max((node.memory for node in rooms), default=0.0)
    if rooms and largest >= memory:
        return
    lacks = "a GPU" if gpus else "a CPU"
    if rooms:
        lacks = f"the {_platform.format_bytes(memory)} that a cell needs"
    cpus, all_gpus = (sum(getattr(n, name) for n in found.values()) for name in ("cpus", "gpus"))
    most = max((node.memory for node in found.values()), default=0.0)
    raise ClusterError(
        f"No node of the cluster `{on}` offers {lacks}; they offer {cpus:.0f} CPUs, "
        f"{all_gpus:.0f} GPUs, at most {_platform.format_bytes(most)} in one."
    )
