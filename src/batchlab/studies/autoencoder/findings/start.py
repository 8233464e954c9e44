"""What the start says about the end, and what a later full batch does to it."""

from __future__ import annotations

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers, pictures
from batchlab.studies.autoencoder.findings.shared import finding
from batchlab.studies.autoencoder.pictures import BATCH
from batchlab.studies.claim import Claim, Parameters


def findings(p: Parameters) -> tuple[Claim, ...]:
    """The start, and a switch, finding by finding.

    Args:
        p: Parameters.
    """
    return (
        _winner_gain(p),
        _switch_to_full_batch(p),
    )


def _winner_gain(p: Parameters) -> Claim:
    return finding(
        "winner-gain",
        int(p["seeds"]),
        Text(
            "How much better than chance does w_i(0)²/|w(0)|² predict the winner?",
            "w_i(0)²/|w(0)|²は、残る座標を偶然よりどれだけよく予測するか。",
        ),
        Text(
            "log(n w_i(0)²/|w(0)|²) of the winner, mean over b < n, the largest n; 0 is chance",
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
    )


def _switch_to_full_batch(p: Parameters) -> Claim:
    return finding(
        "switch-to-full-batch",
        int(p["few_seeds"]),
        Text(
            "A neuron trained with b = n/2 until sparse and then on all data: what becomes "
            "of its sparse feature?",
            "b = n/2で疎になるまで学習し、その後全データに切り替えると、疎な特徴はどうなるか。",
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
    )
