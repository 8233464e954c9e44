"""What a sweep has cost, and whether there is enough for one more cell."""

from __future__ import annotations

import math
from collections.abc import Mapping

from batchlab.errors import InvalidValueError, must

HOUR = 3600.0


class Purse:
    """Money = Σ over nodes of price · seconds / 3600.

    A node is paid from the moment at which the first cell begins there until the sweep ends or the
    node is lost, whether all of it is busy or not: that is what it is held for.

    Args:
        price: Of an hour of a node; or kind of node → price. None: nothing is counted.
        limit: Most that may be spent, or None.
        currency: Its name.

    Example:
        >>> purse = Purse({"gpu-a": 3.6, "cpu": 0.36})
        >>> purse.use("node 1", "gpu-a", now=0.0)
        >>> purse.use("node 2", "cpu", now=50.0)
        >>> round(purse.spent(now=100.0), 9)
        0.105
    """

    def __init__(
        self,
        price: float | Mapping[str, float] | None = None,
        limit: float | None = None,
        currency: str = "USD",
    ) -> None:
        self._price, self.limit, self.currency = price, limit, currency
        self._closed = 0.0
        self._open: dict[str, tuple[float, float]] = {}
        prices = price.values() if isinstance(price, Mapping) else [price or 0.0]
        for one in prices:
            if not 0 <= one < math.inf:
                raise InvalidValueError(must("price_per_hour", "0 or more", one))
        if limit is not None and not 0 < limit < math.inf:
            raise InvalidValueError(must("max_spend", "above 0", limit))
        if limit is not None and not price:
            hint = "Add --price-per-hour: what an hour of a node costs."
            raise InvalidValueError(must("max_spend", "given with a price", limit, hint))

    @property
    def counts(self) -> bool:
        """Whether there are prices."""
        return bool(self._price)

    def price(self, kind: str) -> float:
        """Of an hour of a node.

        Args:
            kind: Its kind.

        Raises:
            InvalidValueError: If there are prices by kind and none for this one.
        """
        if not isinstance(self._price, Mapping):
            return self._price or 0.0
        if kind not in self._price:
            hint = f"Add --price-per-hour {kind}=PRICE."
            given = ", ".join(self._price)
            raise InvalidValueError(must("price_per_hour", "given for every kind", given, hint))
        return self._price[kind]

    def use(self, node: str, kind: str, now: float) -> None:
        """A cell begins on a node."""
        self._open.setdefault(node, (self.price(kind), now))

    def lose(self, node: str, now: float) -> None:
        """A node is gone, and paid no longer."""
        price, since = self._open.pop(node, (0.0, now))
        self._closed += price * (now - since) / HOUR

    def rest(self, now: float) -> None:
        """No node is held any longer."""
        for node in list(self._open):
            self.lose(node, now)

    def spent(self, now: float) -> float:
        """Money so far.

        Args:
            now: Seconds, by the clock of :meth:`use`.
        """
        return self._closed + sum(p * (now - since) for p, since in self._open.values()) / HOUR

    def after(self, now: float, seconds: float, more: float = 0.0) -> float:
        """Money that will have been spent if the nodes are held on.

        Args:
            now: Seconds.
            seconds: How long.
            more: Price of an hour of nodes that come in besides.

        Example:
            >>> purse = Purse(3.6)
            >>> purse.use("node", "cpu", now=0.0)
            >>> round(purse.after(now=10.0, seconds=20.0), 9)
            0.03
        """
        rate = more + sum(price for price, _ in self._open.values())
        return self.spent(now) + rate * seconds / HOUR

    def holds(self, node: str) -> bool:
        """Whether a node is paid already."""
        return node in self._open

    def pays(self, money: float) -> bool:
        """Whether so much may be spent."""
        return self.limit is None or money <= self.limit

    def __str__(self) -> str:
        """Limit and currency, in words."""
        return f"{self.limit:g} {self.currency}" if self.limit is not None else ""
