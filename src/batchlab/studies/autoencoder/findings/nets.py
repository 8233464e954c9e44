"""Several neurons and real nets."""

from __future__ import annotations

import functools

import polars as pl

from batchlab._text import Text, say
from batchlab.studies.autoencoder import numbers, pictures
from batchlab.studies.autoencoder.cells import FULL
from batchlab.studies.autoencoder.findings.shared import finding
from batchlab.studies.claim import Axis, Claim, Parameters, Tables

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


KEPT = Text("log(after switching to the full batch / before)", "log（全データに切り替えた後÷前）")
WIDER = Text(
    "log(effective examples per neuron, full batch / small batch), equal updates",
    "log（ニューロン当たりのデータの実効数、全データ÷小さいバッチ）、更新回数は同じ",
)
NEURONS = pictures.switching(
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


def findings(p: Parameters) -> tuple[Claim, ...]:
    """Nets, finding by finding.

    Args:
        p: Parameters.
    """
    return (
        _several_neurons(p),
        _several_neurons_switched(p),
        *_on_digits(
            "tied",
            Text(
                "tied autoencoder of 16 ReLU neurons",
                "16個のReLUニューロンの重み共有オートエンコーダー",
            ),
            int(p["net_seeds"]),
        ),
        *_on_digits(
            "three-layer",
            Text("three-layer autoencoder", "3層オートエンコーダー"),
            int(p["net_seeds"]),
        ),
    )


def _of_nets(measured: Text, n: int) -> Text:
    """What is measured, and that there are fewer nets than runs of one neuron."""
    few = Text(
        f"{n} nets (--full takes {FULL['net_seeds']} a point, and of one neuron 100 runs or more)",
        f"ネットワークは{n}個（--fullでは1点につき{FULL['net_seeds']}個、一つのニューロンでは100回以上）",
    )
    return say("{measured}; {few}", "{measured}。{few}", measured=measured, few=few)


def _several_neurons(p: Parameters) -> Claim:
    n = int(p["net_seeds"])
    return finding(
        "several-neurons",
        n,
        Text(
            "With 2 to 16 neurons: how much broader are full-batch features?",
            "2〜16個のニューロンでは、全データの特徴はどれだけ広いか。",
        ),
        _of_nets(WIDER, n),
        lambda tables: numbers.ratio(tables["neurons"], "full", "small"),
        NEURONS,
        Text(
            "0 means no difference between the batch sizes, 1 that full-batch features are "
            "2.7 times as broad.",
            "0ならバッチサイズによる差はなく、1なら全データの特徴は2.7倍の広さです。",
        ),
    )


def _several_neurons_switched(p: Parameters) -> Claim:
    n = int(p["net_seeds"])
    return finding(
        "several-neurons-switched",
        n,
        Text(
            "A net of 2 to 16 neurons trained small, then on all data: are its features kept?",
            "2〜16個のニューロンを小さいバッチで学習し、全データに切り替えると、特徴は"
            "保たれるか。",
        ),
        _of_nets(KEPT, n),
        lambda tables: numbers.ratio(tables["neurons"], "switched", "before"),
        NEURONS,
        Text(
            "0 means kept. Compare with the net that saw all data throughout.",
            "0なら保たれています。最初から全データで学習した場合と比べてください。",
        ),
    )


def _net(tables: Tables, name: str) -> pl.DataFrame:
    return tables["digit_nets"].filter(pl.col("net") == name)


def _on_digits(name: str, words: Text, n: int) -> list[Claim]:
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
            _of_nets(WIDER, n),
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
            _of_nets(KEPT, n),
            lambda tables: numbers.ratio(table(tables), "switched", "before"),
            picture,
            Text(
                "Compare with the same net trained small throughout before blaming the switch.",
                "切り替えの影響と判断する前に、最後まで小さいバッチで"
                "学習した場合と比べてください。",
            ),
        ),
    ]
