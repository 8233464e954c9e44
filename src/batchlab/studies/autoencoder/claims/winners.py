"""Which coordinate is left."""

from __future__ import annotations

import math

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers, pictures
from batchlab.studies.autoencoder.claims.shared import DERIVED
from batchlab.studies.claim import Claim, Parameters


def claims(p: Parameters) -> tuple[Claim, ...]:
    """The coordinate that is left, claim by claim.

    Args:
        p: Parameters.
    """
    return (
        _winner_by_start(p),
        _chance_is_an_angle(p),
        _chance_is_straight(p),
    )


def _winner_by_start(p: Parameters) -> Claim:
    return Claim(
        id="winner-by-start",
        sentence=Text(
            "The larger w_i(0)², the likelier coordinate i is the one that is left.",
            "w_i(0)²が大きい座標ほど、最後に残る確率が高くなります。",
        ),
        source="ghosh2023; direction derived from the drift of log w_i² in autoencoder.step",
        measured=Text(
            "rank of the winner's w_i(0)², from −½ to ½; mean over b < n, the largest n",
            "残った座標のw_i(0)²の順位（−½〜½）。b < nについての平均、最大のn",
        ),
        low=0.0,
        high=math.inf,
        expected=0.25,
        spread=0.1,
        n=int(p["seeds"]),
        values=numbers.rank,
        picture=pictures.winners,
        meaning=Text(
            "Which feature is learned is decided by the initialisation and by chance: other "
            "seeds, other features.",
            "どの特徴が学習されるかは初期値と偶然で決まります。乱数の種が"
            "変われば特徴も変わります。",
        ),
        twin={"fault": "inverted-start"},
    )


def _chance_is_an_angle(p: Parameters) -> Claim:
    return Claim(
        id="chance-is-an-angle",
        sentence=Text(
            "Of two coordinates, the chance that the first wins rises in proportion to the "
            "angle, as (2/π) arctan|w₁(0)/w₂(0)|.",
            "座標が二つのとき、1番目が残る確率は角度に比例し、(2/π)arctan|w₁(0)/w₂(0)|の傾きで"
            "増えます。",
        ),
        source=DERIVED + " in the limit of small steps, autoencoder.chance_of_two",
        measured=Text(
            "slope of winning on that probability (n = 2, b = 1, step 0.1)",
            "その確率に対する「残ったかどうか」の傾き（n = 2、b = 1、ステップ幅0.1）",
        ),
        low=0.88,
        high=1.12,
        expected=1.0,
        spread=1.42,
        n=int(p["pairs"]),
        values=numbers.two,
        picture=pictures.angles,
        meaning=Text(
            "A head start counts, but less than in proportion to its square (slope 1.22).",
            "初期値の差は効きますが、その二乗に比例するほど（傾き1.22）ではありません。",
        ),
        twin={"fault": "inverted-start"},
    )


def _chance_is_straight(p: Parameters) -> Claim:
    return Claim(
        id="chance-is-straight",
        sentence=Text(
            "Against that angle the chance is a straight line, not an S.",
            "その角度に対する確率は直線で、S字にはなりません。",
        ),
        source=DERIVED + " in the limit of small steps, autoencoder.chance_of_two",
        measured=Text(
            "third Legendre coefficient of winning against the predicted chance; 0 of a line, "
            "−0.22 if chances were as w_i(0)² (n = 2, b = 1, step 0.1)",
            "予測確率に対する「残ったかどうか」の3次のルジャンドル係数。直線なら0、確率がw_i(0)²"
            "に比例するなら−0.22（n = 2、b = 1、ステップ幅0.1）",
        ),
        low=-0.12,
        high=0.12,
        expected=0.0,
        spread=math.sqrt(7),
        n=int(p["pairs"]),
        values=numbers.straight,
        picture=pictures.angles,
        meaning=Text(
            "A small head start counts as much as the same step further ahead.",
            "わずかな差も、差が大きいときの同じだけの差と、同じように効きます。",
        ),
        twin={"fault": "squares-for-angle"},
    )
