"""What may be planted: each fault makes the claims that rest on it come out *not reproduced*."""

from __future__ import annotations

FAULTS = {
    "none": "nothing",
    "fresh for re-used": "what is called multi-pass takes a fresh batch at every step",
    "re-used for fresh": "what is called single-pass takes the same batch at every step",
    "easy target": "targets that are said to be hard are replaced by one that is not",
    "specialised": "each neuron takes one of two alike directions, as none does",
    "no stairs": "the staircase lacks its second step",
    "rate falls": "the learning rate falls with the dimension",
    "theory of fresh": "the theory is that of fresh batches",
    "no look-ahead": "extra-gradient takes a plain step",
    "looks ahead": "plain steps look ahead",
}
"""Parameter ``fault`` → what is wrong."""


def reuse(way: str, updates: int, fault: str) -> int:
    """Updates on a batch of a way of training, unless a fault turns it round.

    Args:
        way: ``multi`` or ``single``.
        updates: T.
        fault: A name in :data:`FAULTS`.

    Example:
        >>> reuse("multi", 6, "none"), reuse("multi", 6, "fresh for re-used")
        (6, 1)
    """
    again = way == "multi" and fault != "fresh for re-used"
    return updates if again or (way == "single" and fault == "re-used for fresh") else 1
