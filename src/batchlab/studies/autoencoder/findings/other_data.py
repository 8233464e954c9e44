"""On other data, or with momentum: does the dichotomy survive?"""

from __future__ import annotations

import functools

import polars as pl

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers, pictures
from batchlab.studies.autoencoder.cells import DATA_EXAMPLES
from batchlab.studies.autoencoder.findings.shared import finding
from batchlab.studies.autoencoder.pictures import BATCH, BREADTH, by_amount, drawn, line
from batchlab.studies.claim import Axis, Claim, Parameters

JUMP = Text(
    "share of the change from one coordinate to w(0)'s participation ratio (logarithmic) that "
    "lies between the densest b < n and b = n: 1 is a dichotomy, 0 is none",
    "座標一つから初期値の参加率までの（対数での）変化のうち、b < nで最も密な場合とb = nの間で"
    "起きる割合。1なら二分、0なら差なし",
)


def findings(p: Parameters) -> tuple[Claim, ...]:
    """Other data and momentum, finding by finding.

    Args:
        p: Parameters.
    """
    return (
        _non_orthogonal(p),
        _unequal_norms(p),
        _momentum(p),
        _more_dimensions(p),
        _digits_one_neuron(p),
        _other_data_moving(p),
    )


def _non_orthogonal(p: Parameters) -> Claim:
    n = int(p["data_seeds"])
    return finding(
        "non-orthogonal",
        n,
        Text(
            "Does the dichotomy survive if every two examples have the cosine 0.01?",
            "どの二つのデータの余弦も0.01のとき、二分は残るか。",
        ),
        JUMP,
        functools.partial(numbers.jump_on, kind="correlated"),
        by_amount(
            "correlated",
            Text(
                "Density against the overlap between examples, by batch size.",
                "データの重なりと解の密度（バッチサイズ別）。",
            ),
            Axis(Text("cosine between examples", "データどうしの余弦")),
            Text(
                "Participation ratio of the responses ⟨w, x_i⟩, linear, after a fixed "
                "number of updates; η/b is the same share of its stable limit.",
                "応答⟨w, x_i⟩の参加率。線形、更新回数は固定、η/bは安定限界に対して一定の割合。",
            ),
        ),
        Text(
            "Real data overlap. Near 0, there is no special place for the full batch on "
            "them, and b = n − 1 is as dense as b = n.",
            "現実のデータには重なりがあります。0に近ければ、そこでは全データは特別ではなく、"
            "b = n − 1もb = nと同じくらい密です。",
        ),
    )


def _unequal_norms(p: Parameters) -> Claim:
    n = int(p["data_seeds"])
    return finding(
        "unequal-norms",
        n,
        Text(
            "And if examples differ in length by up to 10 %?",
            "データの長さに最大10%の差があるとき、二分は残るか。",
        ),
        JUMP,
        functools.partial(numbers.jump_on, kind="unequal"),
        by_amount(
            "unequal",
            Text(
                "Density against the spread of lengths, by batch size.",
                "長さの幅と解の密度（バッチサイズ別）。",
            ),
            Axis(Text("spread of lengths (longest − shortest)", "長さの幅（最長−最短）")),
            Text("Linear, a fixed number of updates.", "線形、更新回数は固定。"),
        ),
        Text(
            "The full batch's limit is then the longest example. Near 0, it is there "
            "already, and all batch sizes are sparse.",
            "この場合、全データの行き先は最も長いデータです。0に近ければすでにそこに"
            "達しており、どのバッチサイズでも疎です。",
        ),
    )


def _momentum(p: Parameters) -> Claim:
    n = int(p["data_seeds"])
    return finding(
        "momentum",
        n,
        Text("And with momentum 0.9?", "モメンタム0.9を使うと、二分は残るか。"),
        JUMP,
        functools.partial(numbers.jump_on, kind="momentum"),
        by_amount(
            "momentum",
            Text(
                "Density against momentum, by batch size.",
                "モメンタムと解の密度（バッチサイズ別）。",
            ),
            Axis(Text("momentum", "モメンタム")),
            Text(
                "Linear; the step size times 1 − momentum; a fixed number of updates.",
                "線形、ステップ幅は(1−モメンタム)倍、更新回数は固定。",
            ),
        ),
        Text(
            "Near 1, what was measured without momentum carries over when η is scaled by 1 "
            "− momentum.",
            "1に近ければ、ηを(1−モメンタム)倍したうえで、モメンタムなしの結果が当てはまります。",
        ),
    )


def _more_dimensions(p: Parameters) -> Claim:
    return finding(
        "more-dimensions",
        int(p["seeds"]),
        Text(
            "And with four times as many dimensions as examples?",
            "次元がデータ数の4倍あるとき、二分は残るか。",
        ),
        JUMP,
        lambda tables: numbers.of(numbers.jumps(tables["wide"]), pl.col("jump").min()),
        drawn(
            Text("Density by batch size, d = 4n.", "バッチサイズと解の密度（d = 4n）。"),
            lambda tables: tables["wide"],
            ("batch_size", BATCH),
            ("breadth", BREADTH),
            {"measured": pictures.MEASURED},
            caption=Text("Linear, d = 4n.", "線形、d = 4n。"),
        ),
        Text(
            "Dimensions without data decay at every batch size and are left out of w(0) "
            "here. At "
            "1 they change nothing.",
            "データのない次元はどのバッチサイズでも減衰するため、ここでは"
            "初期値から除きました。1なら"
            "余分な次元は影響しません。",
        ),
    )


def _digits_one_neuron(p: Parameters) -> Claim:
    n = int(p["data_seeds"])
    return finding(
        "digits-one-neuron",
        n,
        Text(
            "And on real pictures of digits, their mean taken off?",
            "平均を引いた実際の手書き数字の画像では、二分は残るか。",
        ),
        JUMP,
        functools.partial(numbers.jump_on, kind="digits"),
        by_amount(
            "digits",
            Text(
                "Density on digits, by batch size.",
                "手書き数字での解の密度（バッチサイズ別）。",
            ),
            Axis(
                Text(
                    "0: pixels as they are, 1: mean taken off",
                    "0：元の画素、1：平均を引いた画素",
                )
            ),
            Text(
                "32 pictures of length 1; participation ratio of the responses, linear.",
                "長さ1の画像32枚。応答の参加率、線形。",
            ),
        ),
        Text(
            "Near 0, the data decide what is found, as one direction explains most, and the "
            "batch size does not.",
            "0に近ければ、行き先を決めるのは（大部分を説明する方向が一つある）データであり、"
            "バッチサイズではありません。",
        ),
    )


def _other_data_moving(p: Parameters) -> Claim:
    n = int(p["data_seeds"])
    return finding(
        "other-data-moving",
        n,
        Text(
            "Had these runs come to rest, or were they still on their way?",
            "これらの学習は止まっていたか、それともまだ途中だったか。",
        ),
        Text(
            "log(participation ratio at the end / after half of the updates) that is "
            "farthest from 0, over batch sizes and the settings above (cosine 0.01, lengths, "
            "momentum, digits); 0 is at rest",
            "log（終了時の参加率÷更新の半分での参加率）のうち0から最も離れた値（上の余弦・長さ・"
            "モメンタム・手書き数字の設定とバッチサイズについて）。0なら止まっている",
        ),
        numbers.moved,
        drawn(
            Text(
                "What changed in the second half of the updates.",
                "更新の後半での変化。",
            ),
            lambda tables: numbers.movement(numbers.judged(tables)),
            ("batch_size", BATCH),
            (
                "moved",
                Axis(Text("log(participation ratio, end / half)", "log（参加率、終了時÷半分）")),
            ),
            {
                "correlated": Text("cosine 0.01", "余弦0.01"),
                "unequal": Text("lengths ± 5 %", "長さ±5%"),
                "momentum": Text("momentum 0.9", "モメンタム0.9"),
                "digits": Text("digits", "手書き数字"),
                "theory": Text("at rest", "静止"),
            },
            by="kind",
            theory=lambda tables: line([1, DATA_EXAMPLES], [0, 0]),
        ),
        Text(
            "Away from 0, a finding above tells where runs were, not where they end: η is "
            "divided by the largest eigenvalue, so that noise selects more slowly.",
            "0から離れていれば、上の測定値は行き先ではなく途中の状態を表します。ηを最大固有値で"
            "割っているため、ノイズによる選択が遅くなるからです。",
        ),
    )
