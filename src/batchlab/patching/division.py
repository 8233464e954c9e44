"""How a batch is cut: micro-batch × accumulation × processes."""

from __future__ import annotations

from dataclasses import dataclass

from batchlab.accumulation import identity
from batchlab.errors import InvalidValueError, must


@dataclass(frozen=True)
class Division:
    """A batch, and how it comes about.

    Attributes:
        micro_batch_size: Examples of one forward pass.
        accum_steps: Micro-batches of one update and process.
        world_size: Processes.
    """

    micro_batch_size: int
    accum_steps: int
    world_size: int

    @property
    def batch_size(self) -> int:
        """Examples of one update, all processes together."""
        return self.micro_batch_size * self.accum_steps * self.world_size

    def __str__(self) -> str:
        return identity(self.batch_size, self.micro_batch_size, self.world_size)


def divided(batch_size: int, most: int | None = None, world_size: int = 1) -> Division:
    """Cut a batch into the fewest equal micro-batches that fit.

    Args:
        batch_size: Examples of one update, all processes together.
        most: Largest micro-batch that fits; None: the whole share of a process.
        world_size: Processes.

    Returns:
        A division whose product is ``batch_size``, exactly.

    Raises:
        InvalidValueError: If the processes cannot share the batch equally.

    Example:
        >>> print(divided(64, most=24))
        64 = 16 × 4 × 1 (micro-batch × accumulation × processes)
    """
    for name, value in (("micro_batch_size", most), ("world_size", world_size)):
        if value is not None and value < 1:
            raise InvalidValueError(must(name, "a whole number, 1 or more", value))
    share, left = divmod(batch_size, world_size)
    if left or not share:
        hint = f"They cannot share a batch of {batch_size} equally."
        raise InvalidValueError(must("world_size", f"a divisor of {batch_size}", world_size, hint))
    fewest = -(-share // min(most or share, share))
    steps = next(k for k in range(fewest, share + 1) if share % k == 0)
    return Division(share // steps, steps, world_size)
