"""Successive halving: how far each setting is trained, and which go on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

KEPT = 3
"""One in so many goes on to the next rung."""
SHARES = (1 / 9, 1 / 3, 1.0)
EVALUATIONS = 8
"""Of each rung."""


def rungs_of(samples: int, least: int) -> tuple[int, ...]:
    """Samples at which each rung ends: a ninth, a third and all of a training, as far as they are
    long enough to tell anything.

    Args:
        samples: Length of a training.
        least: Shortest useful length, samples.

    Returns:
        Ends, ascending; the last is ``samples``.

    Source:
        li2020, algorithm 2, with η = 3.

    Example:
        >>> rungs_of(900, least=50), rungs_of(900, least=200)
        ((100, 300, 900), (300, 900))
    """
    ends = [round(share * samples) for share in SHARES]
    return (*(end for end in ends[:-1] if least <= end < samples), samples)


def moments(rungs: Sequence[int]) -> tuple[int, ...]:
    """Samples at which validation data are read: eight times in each rung, and at the start.

    Example:
        >>> moments((80, 240))[:4], moments((80, 240))[-2:]
        ((0, 10, 20, 30), (220, 240))
    """
    starts = (0, *rungs[:-1])
    found = {0}
    for start, end in zip(starts, rungs, strict=True):
        found |= {
            start + round(i * (end - start) / EVALUATIONS) for i in range(1, EVALUATIONS + 1)
        }
    return tuple(sorted(found))


def promoted(here: Mapping[int, float], earlier: Sequence[float]) -> list[int]:
    """Which settings of a generation go on: those among the best third of all that have come to
    this rung, also in earlier generations; of the first always one.

    Args:
        here: Number → value at this rung, less is better, infinite for one that did not learn.
        earlier: Values at this rung in earlier generations.

    Returns:
        Numbers, best first.

    Source:
        li2020, algorithm 2: promotion out of the best 1/η of a rung.

    Example:
        >>> promoted({0: 0.5, 1: -0.3, 2: 0.1}, earlier=[])
        [1]
        >>> promoted({0: 0.5, 1: -0.3, 2: 0.1}, earlier=[-0.9, -0.5, -0.4])
        []
    """
    everything = sorted((*here.values(), *earlier))
    limit = everything[max(1, len(everything) // KEPT) - 1] if everything else math.inf
    chosen = [n for n, value in here.items() if value <= limit and math.isfinite(value)]
    return sorted(chosen, key=lambda n: (here[n], n))


def effort(rungs: Sequence[int]) -> float:
    """Samples that a setting takes on the average: one in three goes on at each rung.

    Example:
        >>> effort((90, 270, 810))
        210.0
    """
    steps = [end - start for start, end in zip((0, *rungs[:-1]), rungs, strict=True)]
    return sum(step / KEPT**i for i, step in enumerate(steps))
