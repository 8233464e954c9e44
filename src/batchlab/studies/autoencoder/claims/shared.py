"""What several groups of claims say alike."""

from __future__ import annotations

from typing import Any

from batchlab._text import Text
from batchlab.studies.claim import Axis, Claim, Statistic

ABSTRACT = "ghosh2023, abstract"
DERIVED = "derived from the update of ghosh2023, autoencoder.step"
COSINE = Axis(Text("|cos(w, w(0))|", "|cos(w, w(0))|"))
LARGEST = Text("Lines at b = n are of the largest n.", "b = nの線は最大のnのものです。")


def share(n: int, **given: Any) -> Claim:
    """A claim on every run: all successes put the lower end above 0.9 from 52 repetitions on."""
    return Claim(low=0.9, high=1.0, expected=1.0, n=n, statistic=Statistic.SHARE, unit="", **given)
