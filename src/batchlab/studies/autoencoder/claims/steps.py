"""The largest stable step size."""

from __future__ import annotations

import functools

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers, pictures
from batchlab.studies.autoencoder.claims.shared import DERIVED
from batchlab.studies.claim import Claim, Parameters


def claims(p: Parameters) -> tuple[Claim, ...]:
    """Stability, claim by claim.

    Args:
        p: Parameters.
    """
    return (
        _whole(p),
        _one(p),
        _between(p),
    )


def _whole(p: Parameters) -> Claim:
    return _stability(
        p,
        "whole",
        Text(
            "With the full batch, training is stable up to the step size n/2.",
            "全データの場合、ステップ幅n/2まで安定です。",
        ),
        Text("b = n", "b = n"),
    )


def _one(p: Parameters) -> Claim:
    return _stability(
        p,
        "one",
        Text(
            "With one example per batch, training is stable up to the step size 1/2.",
            "バッチサイズ1の場合、ステップ幅1/2まで安定です。",
        ),
        Text("b = 1", "b = 1"),
    )


def _between(p: Parameters) -> Claim:
    return _stability(
        p,
        "between",
        Text(
            "Between them the limit is b/2: it grows in proportion to the batch size.",
            "その間の上限はb/2で、バッチサイズに比例します。",
        ),
        Text(
            "of b = n/2 and n − 1 the one farthest from 1",
            "b = n/2とn − 1のうち1から遠いほう",
        ),
    )


def _stability(p: Parameters, which: str, sentence: Text, size: Text) -> Claim:
    return Claim(
        id=f"stability-{which}",
        sentence=sentence,
        source=DERIVED + ": N − 1 is multiplied by 1 − 4η/b, autoencoder.largest_step",
        measured=Text(
            f"largest step size that arrives at a minimum / (b/2), by bisection, {size.en}",
            f"最小値に到達する最大のステップ幅÷(b/2)（二分法、{size.ja}）",
        ),
        low=0.98,
        high=1.02,
        expected=1.0,
        spread=0.002,
        n=int(p["few_seeds"]),
        values=functools.partial(numbers.limits, which=which),
        picture=pictures.limits,
        meaning=Text(
            "A larger batch allows a larger step here, in proportion and without an end.",
            "ここではバッチを大きくすると、それに比例してステップ幅も上限なく大きくできます。",
        ),
        twin={"fault": "double-step"},
    )
