"""Whether the fast simulation is the training of the module."""

from __future__ import annotations

import math

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers
from batchlab.studies.autoencoder.cells import ENGINE_EXAMPLES
from batchlab.studies.autoencoder.pictures import BATCH, drawn, line
from batchlab.studies.claim import Axis, Claim, Parameters


def claims(p: Parameters) -> tuple[Claim, ...]:
    """The simulation itself, claim by claim.

    Args:
        p: Parameters.
    """
    return (_engine_agrees(p),)


def _engine_agrees(p: Parameters) -> Claim:
    return Claim(
        id="engine-agrees",
        sentence=Text(
            "The module trained by the engine and the fast simulation have the same weights, "
            "to round-off, with both executors.",
            "エンジンで学習したモジュールと高速なシミュレーションは、両方の実行方式で、"
            "丸め誤差の範囲で同じ重みになります。",
        ),
        source="this package",
        measured=Text(
            "log₁₀ of the largest difference of a weight, over b = 1, 7, 20 of 20 examples and "
            "activations; stacked at b = 1, after 1.5 predicted times to sparsity",
            "重みの差の最大値の常用対数（20件のうちb = 1, 7, 20、両方の活性化関数について。"
            "stackedのb = 1では疎になる予測時間の1.5倍の更新後）",
        ),
        low=-math.inf,
        high=-10.0,
        expected=-15.0,
        spread=0.5,
        n=int(p["engine_seeds"]),
        values=numbers.engine,
        picture=drawn(
            Text(
                "Fast simulation and engine agree.",
                "高速なシミュレーションとエンジンの結果は一致する。",
            ),
            lambda tables: tables["engine"],
            ("batch_size", BATCH),
            ("difference", Axis(Text("largest difference", "差の最大値"))),
            {
                "loop": Text("loop", "loop"),
                "stacked": Text("stacked", "stacked"),
                "theory": Text("no difference", "差なし"),
            },
            by="executor",
            theory=lambda tables: line([1, ENGINE_EXAMPLES], [0, 0]),
        ),
        meaning=Text(
            "The fast simulation on this page is the training of a real PyTorch module, given "
            "the batches; here both take those of the engine's stream.",
            "同じバッチを与えれば、このページの高速なシミュレーションは実際のPyTorchモジュールの"
            "学習と同じものです。ここでは両方ともエンジンのストリームのバッチを使います。",
        ),
        twin={"fault": "double-step"},
    )
