"""What is refused of ``compare --reuse`` before anything heavy is imported or read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchlab.errors import InvalidTypeError, InvalidValueError, must

FEWEST = {"seeds": 3, "seed": 0}


def check_reuse(
    reuse: Sequence[int], labels: Sequence[int], reading: float, seeds: int, seed: int
) -> None:
    """Refuse what no task could make possible.

    Args:
        reuse: k, updates on each batch.
        labels: Numbers of labelled examples.
        reading: Seconds to read a sample.
        seeds: Fresh repeats.
        seed: The first.

    Raises:
        InvalidValueError: If a number is out of range.
        InvalidTypeError: If ``reuse`` is no list.

    Example:
        >>> check_reuse([2, 4], (), 0.0, seeds=5, seed=0)
    """
    if isinstance(reuse, int):
        raise InvalidTypeError(must("reuse", "a list", reuse, f"Write reuse=[{reuse}]."))
    if not reuse or not all(isinstance(k, int) and k >= 2 for k in reuse):
        raise InvalidValueError(must("reuse", "whole numbers, 2 or more", list(reuse)))
    if len(set(labels)) == 1:
        hint = "One number makes no curve."
        raise InvalidValueError(must("labels", "two numbers or more", list(labels), hint))
    if not 0 <= reading < math.inf:
        raise InvalidValueError(must("seconds_per_sample", "0 seconds or more", reading))
    for name, value in (("seeds", seeds), ("seed", seed)):
        if value < FEWEST[name]:
            words = f"a whole number, {FEWEST[name]} or more"
            raise InvalidValueError(must(name, words, value))
