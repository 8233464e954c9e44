"""``--on``: the cluster on which a command trains, what it may cost, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchlab import _platform
from batchlab.advisor.session import Listener
from batchlab.cluster.fleet import Fleet
from batchlab.cluster.place import Cluster
from batchlab.cluster.purse import Purse
from batchlab.errors import InvalidValueError, must
from batchlab.progress import Quiet

TOLD = "cluster.json"
"""Where a result directory keeps what clusters have done for it."""


@dataclass(frozen=True)
class Asked:
    """Where to train, and for how much.

    Attributes:
        on: ``ray``, ``ray://HOST:PORT``, ``HOST:PORT``; None: on this machine.
        price_per_hour: Of a node, or kind of node → price.
        max_spend: Most that may be spent, or None.
        currency: Its currency.

    Example:
        >>> Asked(None, max_spend=2.0)
        Traceback (most recent call last):
            ...
        batchlab.errors.InvalidValueError: `max_spend` must be left out without `on`; got 2.0.
    """

    on: str | None = None
    price_per_hour: float | Mapping[str, float] | None = None
    max_spend: float | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        if self.on is None and self.max_spend is not None:
            raise InvalidValueError(must("max_spend", "left out without `on`", self.max_spend))
        if self.on is None and isinstance(self.price_per_hour, Mapping):
            kinds = dict(self.price_per_hour)
            raise InvalidValueError(must("price_per_hour", "one number without `on`", kinds))
        self.purse()

    def purse(self) -> Purse:
        """An empty account.

        Raises:
            InvalidValueError: If a price or the limit is impossible.
        """
        return Purse(self.price_per_hour, self.max_spend, self.currency)


@contextmanager
def place(asked: Asked, hears: Listener, folder: Path) -> Iterator[Cluster | None]:
    """The cluster for a while; None where none is asked for.

    Args:
        asked: Where to train.
        hears: Hears what the cluster does.
        folder: Result directory, in which ``cluster.json`` says what it did.
    """
    if asked.on is None:
        yield None
        return
    beside = hears.beside if isinstance(hears, Quiet) else None
    with Cluster(Fleet(asked.on, asked.purse(), beside)) as cluster:
        try:
            yield cluster
        finally:
            told(cluster, folder)


def told(cluster: Cluster | None, folder: Path) -> dict[str, str]:
    """What clusters have done for a result, this time and before: for its provenance.

    Args:
        cluster: The one that is held, or None.
        folder: Result directory.

    Returns:
        ``cluster`` and ``equal``; nothing if all was trained on this machine.
    """
    path = folder / TOLD
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    done = {} if cluster is None else cluster.fleet.provenance()
    if cluster is not None and done:
        known[cluster.fleet.since] = done
        _platform.write_whole(path, json.dumps(known, indent=1))
    names = sorted({name for one in known.values() for name in one})
    return {name: "; ".join(dict.fromkeys(one[name] for one in known.values())) for name in names}
