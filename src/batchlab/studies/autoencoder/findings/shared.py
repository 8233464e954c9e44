"""A finding: a number that nothing was predicted of."""

from __future__ import annotations

from collections.abc import Callable

from batchlab._text import Text
from batchlab.studies.autoencoder.pictures import Drawing
from batchlab.studies.claim import Claim, Sample, Tables

BEYOND = "beyond ghosh2023"


def finding(
    name: str,
    n: int,
    sentence: Text,
    measured: Text,
    values: Callable[[Tables], Sample],
    picture: Drawing,
    meaning: Text,
) -> Claim:
    """A number that nothing was predicted of."""
    return Claim(
        id=name,
        sentence=sentence,
        source=BEYOND,
        measured=measured,
        n=n,
        values=values,
        picture=picture,
        meaning=meaning,
        finding=True,
    )
