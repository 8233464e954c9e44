"""Which batch sizes and learning rates are worth a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from batchlab.advisor.record import Reason

MOST = 7
RATE_STEP = 2.0
"""Neighbouring learning rates differ by this factor: the best is missed by at most √2."""


@dataclass(frozen=True)
class Proposal:
    """A batch size and why it is on the list."""

    batch_size: int
    reason: Reason


def propose(
    baseline: int,
    *,
    examples: int,
    largest: int,
    scale: float | None,
    requested: tuple[int, ...] | None = None,
) -> tuple[Proposal, ...]:
    """The batch sizes to compare: the baseline, the largest that fits, and powers of two around
    the noise scale.

    From B_noise/16 to 16·B_noise, clipped to [1, N/4] and to what fits, at most 7 in all; powers
    of four over the whole range if the noise scale is not resolved.

    Args:
        baseline: Today's batch size, examples.
        examples: Training examples N.
        largest: Largest batch size that ran.
        scale: Gradient noise scale, examples, or None if not resolved.
        requested: What the user asked for instead.

    Returns:
        Proposals, ascending by batch size, each size once.

    Example:
        >>> [p.batch_size for p in propose(32, examples=4096, largest=1024, scale=64.0)]
        [4, 32, 64, 128, 256, 512, 1024]
    """
    if requested is not None:
        found = {size: Reason.REQUESTED for size in requested}
        return _ordered(found | {baseline: Reason.BASELINE})
    top = max(1, min(largest, examples // 4))
    if scale is None:
        sizes, reason = _powers(1, top, 4), Reason.WHOLE_RANGE
    else:
        low, high = max(1.0, scale / 16), min(float(top), 16 * scale)
        sizes, reason = _powers(low, max(low, high), 2), Reason.NOISE_SCALE
    most = Reason.LARGEST if largest <= examples // 4 else Reason.QUARTER
    found: dict[int, Reason] = {top: most} | {baseline: Reason.BASELINE}
    room = MOST - len(found)
    inner = [size for size in sizes if size not in found and size <= top]
    return _ordered({size: reason for size in _thinned(inner, room, scale or baseline)} | found)


def _powers(low: float, high: float, base: int) -> list[int]:
    """Powers of ``base`` in [low, high]."""
    first = math.ceil(round(math.log(low, base), 9))
    last = math.floor(round(math.log(high, base), 9))
    return [base**k for k in range(first, last + 1)]


def _thinned(sizes: list[int], room: int, centre: float) -> list[int]:
    """At most ``room`` of them: the nearest to the centre on a logarithmic scale, and the two
    ends.
    """
    if len(sizes) <= room:
        return sizes
    ends = [sizes[0], sizes[-1]][: max(0, room - 1)]
    # Of two that are equally near, the larger.
    rest = sorted(set(sizes) - set(ends), key=lambda b: (round(abs(math.log(b / centre)), 9), -b))
    return sorted(ends + rest[: room - len(ends)])


def _ordered(found: Mapping[int, Reason]) -> tuple[Proposal, ...]:
    return tuple(Proposal(size, found[size]) for size in sorted(found))


def scaled_rate(rate: float, today: int, batch_size: int, power: float) -> float:
    """η·(B/B₀)^power: linear scaling for power 1, square-root scaling for ½.

    Example:
        >>> scaled_rate(0.1, 32, 128, power=0.5)
        0.2
    """
    return rate * (batch_size / today) ** power


def rates_for(rate: float, today: int, batch_size: int, sgd_family: bool) -> tuple[float, ...]:
    """The learning rates with which a batch size starts: from today's rate to its scaled value,
    and one beyond each.

    Args:
        rate: Today's learning rate.
        today: Today's batch size.
        batch_size: The candidate.
        sgd_family: Linear scaling if true, square-root scaling otherwise.

    Returns:
        Rates, ascending; today's own is always among them.

    Example:
        >>> rates_for(0.1, 32, 64, sgd_family=True)
        (0.05, 0.1, 0.2, 0.4)
    """
    target = scaled_rate(rate, today, batch_size, 1.0 if sgd_family else 0.5)
    low = math.floor(math.log(min(rate, target) / rate, RATE_STEP) + 1e-9) - 1
    high = math.ceil(math.log(max(rate, target) / rate, RATE_STEP) - 1e-9) + 1
    return tuple(rate * RATE_STEP**k for k in range(low, high + 1))


def beyond(rates: Mapping[float, float]) -> tuple[float, ...]:
    """Two more rates beyond the edge, if the best of these lies on it.

    Args:
        rates: Learning rate → score, smaller is better.

    Returns:
        Rates not tried yet; empty if the best lies inside.

    Example:
        >>> beyond({0.1: 3.0, 0.2: 2.0, 0.4: 1.0})
        (0.8, 1.6)
    """
    ordered = sorted(rates)
    best = min(ordered, key=lambda rate: rates[rate])
    if best == ordered[-1]:
        return best * RATE_STEP, best * RATE_STEP**2
    if best == ordered[0]:
        return best / RATE_STEP, best / RATE_STEP**2
    return ()
