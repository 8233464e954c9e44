"""What may be planted: each fault makes the claims that rest on it come out *not reproduced*."""

from __future__ import annotations

FAULTS = {
    "none": "nothing",
    "batch ignored": "every batch has the smallest size",
    "rate ignored": "every learning rate is the largest",
    "no noise": "every batch is all data",
    "batch counted twice": "the bounds are divided by the square of the batch size",
    "same rate": "SHB runs at the rate of NSHB",
    "evaluation mode": "what is called training mode is evaluation mode",
}
"""Parameter ``fault`` → what is wrong."""
