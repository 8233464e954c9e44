"""Beyond the source: numbers without a prediction, each with its interval."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import polars as pl

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers, pictures
from batchlab.studies.autoencoder.cells import DATA_EXAMPLES
from batchlab.studies.autoencoder.pictures import (
    BATCH,
    BREADTH,
    Drawing,
    by_amount,
    drawn,
    line,
)
from batchlab.studies.claim import Axis, Claim, Parameters, Sample, Tables

BEYOND = "beyond ghosh2023"
JUMP = Text(
    "share of the change from one coordinate to w(0)'s participation ratio (logarithmic) that "
    "lies between the densest b < n and b = n: 1 is a dichotomy, 0 is none",
    "座標一つから初期値の参加率までの（対数での）変化のうち、b < nで最も密な場合とb = nの間で"
    "起きる割合。1なら二分、0なら差なし",
)
NET_PHASES = {
    "before": Text("small batch, half of the updates", "小さいバッチ（更新の半分）"),
    "small": Text("small batch throughout", "最後まで小さいバッチ"),
    "switched": Text("then the full batch", "途中から全データ"),
    "full": Text("full batch throughout", "最後まで全データ"),
}
RESPONSES = Axis(
    Text("examples a neuron responds to (effective)", "一つのニューロンが反応するデータの実効数"),
    log=True,
)


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
        low=-math.inf,
        high=math.inf,
        expected=0.0,
        n=n,
        values=values,
        picture=picture,
        meaning=meaning,
        finding=True,
    )


def findings(p: Parameters) -> tuple[Claim, ...]:
    """Every finding of the study.

    Args:
        p: Parameters.
    """
    return (*_data(p), *_start(p), *_nets(p))


def _data(p: Parameters) -> tuple[Claim, ...]:
    n = int(p["data_seeds"])
    return (
        finding(
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
                    "応答⟨w, x_i⟩の参加率。線形、更新回数は固定、η/bは安定限界に"
                    "対して一定の割合。",
                ),
            ),
            Text(
                "Real data overlap. Near 0, there is no special place for the full batch on "
                "them, and b = n − 1 is as dense as b = n.",
                "現実のデータには重なりがあります。0に近ければ、そこでは全データは特別ではなく、"
                "b = n − 1もb = nと同じくらい密です。",
            ),
        ),
        finding(
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
        ),
        finding(
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
                "1に近ければ、ηを(1−モメンタム)倍したうえで、モメンタムなしの結果が当ては"
                "まります。",
            ),
        ),
        finding(
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
        ),
        finding(
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
        ),
        finding(
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
                    Axis(
                        Text("log(participation ratio, end / half)", "log（参加率、終了時÷半分）")
                    ),
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
        ),
    )


def _start(p: Parameters) -> tuple[Claim, ...]:
    return (
        finding(
            "winner-gain",
            int(p["seeds"]),
            Text(
                "How much better than chance does w_i(0)²/|w(0)|² predict the winner?",
                "w_i(0)²/|w(0)|²は、残る座標を偶然よりどれだけよく予測するか。",
            ),
            Text(
                "log(n w_i(0)²/|w(0)|²) of the winner, mean over b < n, the largest n; 0 is "
                "chance",
                "残った座標のlog(n w_i(0)²/|w(0)|²)（b < nの平均、最大のn）。0なら偶然と同じ",
            ),
            numbers.gain,
            pictures.winners,
            Text(
                "Above 0, the start says something about which feature is learned; a perfect "
                "prediction would be log n at most.",
                "0より大きければ、初期値は学習される特徴についての情報を含みます。完全に予測で"
                "きる場合でもlog n以下です。",
            ),
        ),
        finding(
            "switch-to-full-batch",
            int(p["seeds"]),
            Text(
                "A neuron trained with b = n/2 until sparse and then on all data: what becomes "
                "of its sparse feature?",
                "b = n/2で疎になるまで学習し、その後全データに切り替えると、疎な特徴は"
                "どうなるか。",
            ),
            Text(
                "log(participation ratio after 2,000 full-batch updates / before); 0 is kept",
                "log（全データで2,000回更新した後の参加率÷前の参加率）。0なら保たれた",
            ),
            lambda tables: numbers.ratio(tables["switch"], "after", "before"),
            pictures.switching(
                lambda tables: tables["switch"],
                Text("Before and after the switch.", "切り替えの前と後。"),
                ("batch_size", BATCH),
                {
                    "before": Text("b = n/2 until sparse", "b = n/2で疎になるまで"),
                    "after": Text("then b = n", "その後b = n"),
                    "throughout": Text("b = n throughout", "最初からb = n"),
                },
                Text(
                    "ReLU; on all data the module, by automatic differentiation.",
                    "ReLU。全データでの学習はモジュールの自動微分による。",
                ),
            ),
            Text(
                "At 0, features that a small batch has learned stay when the batch is enlarged "
                "later, as the equation says: on all data, active coordinates share one factor.",
                "0であれば、小さいバッチで学習した特徴は、後でバッチを大きくしても残ります。"
                "式によれば、全データでは活性な座標がすべて同じ倍率で変わるためです。",
            ),
        ),
    )


def _nets(p: Parameters) -> tuple[Claim, ...]:
    n = int(p["net_seeds"])
    neurons = pictures.switching(
        lambda tables: tables["neurons"],
        Text("Several neurons on orthogonal data.", "直交データでの複数のニューロン。"),
        ("neurons", Axis(Text("neurons", "ニューロン数"))),
        NET_PHASES,
        Text(
            "ReLU, 32 examples, small batch 16, η/b fixed. Mean over the neurons that respond.",
            "ReLU、データ32件、小さいバッチは16、η/bは固定。反応するニューロンの平均。",
        ),
        RESPONSES,
    )
    kept = Text(
        "log(after switching to the full batch / before)", "log（全データに切り替えた後÷前）"
    )
    wider = Text(
        "log(effective examples per neuron, full batch / small batch), equal updates",
        "log（ニューロン当たりのデータの実効数、全データ÷小さいバッチ）、更新回数は同じ",
    )
    nets = [
        finding(
            "several-neurons",
            n,
            Text(
                "With 2 to 16 neurons: how much broader are full-batch features?",
                "2〜16個のニューロンでは、全データの特徴はどれだけ広いか。",
            ),
            wider,
            lambda tables: numbers.ratio(tables["neurons"], "full", "small"),
            neurons,
            Text(
                "0 means no difference between the batch sizes, 1 that full-batch features are "
                "2.7 times as broad.",
                "0ならバッチサイズによる差はなく、1なら全データの特徴は2.7倍の広さです。",
            ),
        ),
        finding(
            "several-neurons-switched",
            n,
            Text(
                "A net of 2 to 16 neurons trained small, then on all data: are its features kept?",
                "2〜16個のニューロンを小さいバッチで学習し、全データに切り替えると、特徴は"
                "保たれるか。",
            ),
            kept,
            lambda tables: numbers.ratio(tables["neurons"], "switched", "before"),
            neurons,
            Text(
                "0 means kept. Compare with the net that saw all data throughout.",
                "0なら保たれています。最初から全データで学習した場合と比べてください。",
            ),
        ),
    ]
    for name, words in (
        (
            "tied",
            Text(
                "tied autoencoder of 16 ReLU neurons",
                "16個のReLUニューロンの重み共有オートエンコーダー",
            ),
        ),
        ("three-layer", Text("three-layer autoencoder", "3層オートエンコーダー")),
    ):
        nets += _on_digits(name, words, n, wider, kept)
    return tuple(nets)


def _net(tables: Tables, name: str) -> pl.DataFrame:
    return tables["digit_nets"].filter(pl.col("net") == name)


def _on_digits(name: str, words: Text, n: int, wider: Text, kept: Text) -> list[Claim]:
    table = functools.partial(_net, name=name)
    picture = pictures.switching(
        table,
        Text(f"Digits, {words.en}.", f"手書き数字、{words.ja}。"),
        ("net", Axis(Text("net", "ネットワーク"))),
        NET_PHASES,
        Text(
            "256 pictures, small batch 8, one step size for both, trained by the engine.",
            "画像256枚、小さいバッチは8、ステップ幅は共通、エンジンで学習。",
        ),
        RESPONSES,
    )
    return [
        finding(
            f"digits-{name}",
            n,
            Text(
                f"On digits, a {words.en}: how much broader are full-batch features?",
                f"手書き数字の{words.ja}では、全データの特徴はどれだけ広いか。",
            ),
            wider,
            lambda tables: numbers.ratio(table(tables), "full", "small"),
            picture,
            Text(
                "0 means that the dichotomy of one neuron on orthogonal data does not carry "
                "over to this net.",
                "0なら、直交データ上の一つのニューロンでの二分は、このネットワークには当ては"
                "まりません。",
            ),
        ),
        finding(
            f"digits-{name}-switched",
            n,
            Text(
                f"On digits, a {words.en} trained small, then on all data: are its features kept?",
                f"手書き数字の{words.ja}を小さいバッチで学習し、全データに切り替えると、特徴は保たれるか。",
            ),
            kept,
            lambda tables: numbers.ratio(table(tables), "switched", "before"),
            picture,
            Text(
                "Compare with the same net trained small throughout before blaming the switch.",
                "切り替えの影響と判断する前に、最後まで小さいバッチで"
                "学習した場合と比べてください。",
            ),
        ),
    ]
