"""What the nodes tell while they work, kept by one process beside the one that asked."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class News:
    """What was told since somebody asked last; by (cell, number of the attempt).

    Attributes:
        began: Attempt → the node on which it began.
        shares: Attempt → share of the cell that is done.
        kept: Cell → (share, what it has written); None where that lies on a shared path.
    """

    began: dict[tuple[str, int], str] = field(default_factory=dict)
    shares: dict[tuple[str, int], float] = field(default_factory=dict)
    kept: dict[str, tuple[float, bytes | None]] = field(default_factory=dict)


class Hub:
    """An actor: hears the nodes, and hands what it heard to whoever started the sweep.

    It runs where the sweep was started, so that no lost node takes it away.

    Example:
        >>> hub = Hub()
        >>> hub.begin("a", 1, "node 7")
        >>> hub.share("a", 1, 0.5)
        >>> hub.news().shares, hub.news().shares
        ({('a', 1): 0.5}, {})
    """

    def __init__(self) -> None:
        self._news = News()

    def begin(self, name: str, attempt: int, node: str) -> None:
        """A cell begins on a node."""
        self._news.began[name, attempt] = node

    def share(self, name: str, attempt: int, share: float) -> None:
        """A cell has come this far."""
        self._news.shares[name, attempt] = share

    def keep(self, name: str, share: float, state: bytes | None) -> None:
        """A cell has written something for its next attempt."""
        self._news.kept[name] = (share, state)

    def news(self) -> News:
        """What was told since this was asked last."""
        told, self._news = self._news, News()
        return told
