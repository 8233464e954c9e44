"""Sources as lists of claims, each measured: reproduced, not reproduced, or inconclusive.

Example:
    >>> from batchlab.studies import Axis
    >>> Axis(Text("loss", "損失")).log
    False
"""

from batchlab._text import Text
from batchlab.studies.claim import (
    Axis,
    Bench,
    Cell,
    Claim,
    Picture,
    Statistic,
    Study,
)
from batchlab.studies.drawing import points

__all__ = [
    "Axis",
    "Bench",
    "Cell",
    "Claim",
    "Picture",
    "Statistic",
    "Study",
    "Text",
    "points",
]
