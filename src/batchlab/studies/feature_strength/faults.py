"""What may be planted: each fault makes the claims that rest on it come out *not reproduced*."""

from __future__ import annotations

from dataclasses import replace

from batchlab.studies.feature_strength.nets import Setting

FAULTS = {
    "none": "nothing",
    "not centred": "the output at the start is not subtracted",
    "readout over root N": "the readout is divided by √N, not by N",
    "rate not times N": "the learning rate is η, not Nη",
    "not divided": "the output is not divided by γ",
    "same budget": "a short budget is as long as the longer one it is compared with",
    "shallow": "what is said to be of depth 3 has two layers",
    "one seed": "nets that are compared start alike and see the same examples",
    "deeper": "what is said to be of depth 2 has three layers",
    "squared for cross-entropy": "squared error is trained where cross-entropy is asked for",
    "any finite run": "a run counts as trained if its loss was finite throughout",
}
"""Parameter ``fault`` → what is wrong."""


def altered(setting: Setting, fault: str) -> Setting:
    """A setting with a fault.

    Args:
        setting: Without.
        fault: A name in :data:`FAULTS`.

    Example:
        >>> altered(Setting(depth=2, updates=1), "not centred").centred
        False
    """
    if fault == "same budget":
        return replace(setting, updates=max(setting.updates, 200))
    if fault == "shallow":
        return replace(setting, depth=2)
    if fault == "deeper":
        return replace(setting, depth=max(setting.depth, 3))
    if fault == "squared for cross-entropy":
        return replace(setting, loss="squared")
    if fault == "not centred":
        return replace(setting, centred=False)
    if fault == "readout over root N":
        return replace(setting, readout=0.5)
    return replace(setting, rate=0.0) if fault == "rate not times N" else setting


def divisor(gamma: float, fault: str) -> float:
    """What the output is divided by.

    Example:
        >>> divisor(10.0, "none"), divisor(10.0, "not divided")
        (10.0, 1.0)
    """
    return 1.0 if fault == "not divided" else gamma
