"""The source's table on a small scale: growing against constant 128, at one rate for all arms."""

from __future__ import annotations

import functools
import math

import numpy as np
import polars as pl

from batchlab._text import Text
from batchlab.config import RunConfig
from batchlab.engine import Job, RunResult
from batchlab.schedules import batch_schedule
from batchlab.studies.claim import (
    Axis,
    Bench,
    Cell,
    Claim,
    Parameters,
    Picture,
    Row,
    Sample,
    Tables,
)
from batchlab.studies.drawing import points
from batchlab.studies.growing_batch.nets import LAST, PAPER_RATES, Norms, budget, planned, prepared
from batchlab.studies.guide.training import Trainer, study_seed
from batchlab.tasks import Prepared
from batchlab.types import Status

TABLE = "table"
ARMS = ("middle", "double")
NETS = ("plain", "normed")
SHARED = ("pictures", "examples", "passes", "fault")


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """Every rule on the first net, SGD on the others."""
    shared = {name: parameters[name] for name in (*SHARED, "table_seeds")}
    updates = 0.05 * int(parameters["examples"]) * float(parameters["passes"])
    seconds = 2 + 4e-4 * updates * int(parameters["table_seeds"])
    return tuple(
        Cell(TABLE, {"net": net, "rule": rule, **shared}, seconds)
        for i, net in enumerate(nets(parameters))
        for rule in (PAPER_RATES if i == 0 else ("sgd",))
    )


def nets(parameters: Parameters) -> tuple[str, ...]:
    """The nets of a mode."""
    return tuple(str(parameters["nets"]).split(","))


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a seed and arm: where the training ends."""
    asked, rows = cell.settings, []
    rule, net = str(asked["rule"]), str(asked["net"])
    ready = prepared(net, asked, bench.data, bench.device)
    seeds = [study_seed(bench, i) for i in range(int(asked["table_seeds"]))]
    with Trainer(ready, bench, len(ARMS)) as trainer:
        for arm in ARMS:
            run = planned(arm, rule, asked).replace(learning_rate=PAPER_RATES[rule])
            job = job_of(ready, run, budget(asked), str(asked["fault"]))
            runs, _ = trainer.train([run.replace(seed=seed) for seed in seeds], job)
            rows += [{"repetition": i, "arm": arm, **ended(one)} for i, one in enumerate(runs)]
    return rows


def job_of(ready: Prepared, run: RunConfig, end: int, fault: str) -> Job:
    """Evaluate at twentieths of the budget; measure the gradient near the end."""
    assert run.batch_size is not None
    probe = Norms(ready, batch_schedule(run.batch_size), fault)
    return Job(tuple(i * end // 20 for i in range(21)), probe, (end - LAST,))


def ended(run: RunResult) -> Row:
    """Where a run ends; NaN if it diverged, which leaves claims open."""
    failed = run.status is Status.DIVERGED
    names = ("loss", "metric", *(f"norm.{n}" for n in ("loss", "evaluation", "training")))
    told = {name: run.final(name) for name in (*names, "norm.small", "norm.large")}
    return {"updates": run.updates, **{k: math.nan if failed else v for k, v in told.items()}}


# ------------------------------------------------------------------ numbers


def of_net(tables: Tables, place: int) -> pl.DataFrame:
    """The rows of the first net, on which every rule is trained, or of the last."""
    table = tables[TABLE]
    return table.filter(pl.col("net") == table["net"][place])


def pairs(tables: Tables, place: int, rule: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """A quantity at the end of both arms, constant and growing, one each a repetition."""
    table = of_net(tables, place).filter(pl.col("rule") == rule)
    wide = table.pivot("arm", index="repetition", values=column).sort("repetition")
    constant, growing = (wide[arm].to_numpy() for arm in ARMS)
    return constant, growing


def norm_falls(tables: Tables, rule: str, sign: float = 1.0) -> Sample:
    """By what power of 2 ‖∇f‖ is larger constant than growing, or the other way round."""
    constant, growing = pairs(tables, 0, rule, "norm.evaluation")
    return sign * np.log2(constant / growing)


def accuracy_rises(tables: Tables, rule: str, sign: float = 1.0) -> Sample:
    """Accuracy growing − constant, in points, or the other way round."""
    constant, growing = pairs(tables, 0, rule, "metric")
    return sign * 100 * (growing - constant)


def artefact(tables: Tables) -> Sample:
    """By what power of 2 ‖∇f‖ in training mode is larger at 8 than at 512, at the same weights."""
    small, large = (pairs(tables, -1, "sgd", f"norm.{way}")[0] for way in ("small", "large"))
    return np.log2(small / large)


def exaggeration(tables: Tables) -> Sample:
    """By how much more log₂ ‖∇f‖ falls from constant to growing in the source's way."""
    falls = []
    for way in ("training", "evaluation"):
        constant, growing = pairs(tables, -1, "sgd", f"norm.{way}")
        falls.append(np.log2(constant / growing))
    return falls[0] - falls[1]


# ------------------------------------------------------------------ pictures

NAMES = {"middle": Text("constant 128", "128で一定"), "double": Text("8 doubled", "8から2倍ずつ")}
RULE = Axis(Text("update rule", "更新則"))
PLAIN = Text(
    "The first net at the source's rates, equal examples; ‖∇f‖ on all training "
    "examples in evaluation mode.",
    "最初のネット、出典の学習率、データ数は同じ。‖∇f‖は評価モードで全学習データについて測定。",
)


def picture(tables: Tables, column: str) -> Picture:
    """Both arms, rule by rule."""
    table = of_net(tables, 0)
    shown = points(table, x="rule", y=column, series="arm")
    norm = column != "metric"
    return Picture(
        title=Text(
            "Constant 128 and growing, rule by rule.",
            "128で一定の場合と拡大した場合（更新則ごと）。",
        ),
        x=RULE,
        y=Axis(Text("‖∇f‖", "‖∇f‖") if norm else Text("accuracy", "正解率"), log=norm),
        points=shown,
        series=NAMES,
        caption=Text(
            f"{PLAIN.en} Mean of n = {shown[0]['n']} seeds, 99 % range.",
            f"{PLAIN.ja}点は平均（n＝{shown[0]['n']}）、線は99%の範囲。",
        ),
    )


WAYS = {
    "evaluation": Text("evaluation mode, all data", "評価モード・全データ"),
    "training": Text("training mode, current size", "学習モード・現在のサイズ"),
    "small": Text("training mode, 8", "学習モード・8"),
    "large": Text("training mode, 512", "学習モード・512"),
}


def ways(tables: Tables) -> Picture:
    """The norm at the same weights, measured in four ways."""
    table = of_net(tables, -1).filter(pl.col("rule") == "sgd")
    named = {f"norm.{way}": way for way in WAYS}
    long = table.rename(named).unpivot(
        list(WAYS), index="arm", variable_name="way", value_name="norm"
    )
    long = long.with_columns(pl.col("arm").replace({arm: NAMES[arm].en for arm in ARMS}))
    shown = points(long, x="arm", y="norm", series="way")
    return Picture(
        title=Text(
            "With batch norm, the norm depends on how it is measured.",
            "バッチ正規化があると、勾配の大きさは測り方で変わる。",
        ),
        x=Axis(Text("training", "学習方法")),
        y=Axis(Text("‖∇f‖ at the end", "終わりでの‖∇f‖"), log=True),
        points=shown,
        series=WAYS,
        caption=Text(
            f"SGD, n = {shown[0]['n']} seeds, mean with its 99 % range; all at the same weights.",
            f"SGD、n＝{shown[0]['n']}、平均と99%の範囲。4通りとも同じ重みで測定。",
        ),
    )


# ------------------------------------------------------------------ claims

NORMS = {
    "sgd": (2.5, 0.15),
    "shb": (3.0, 0.9),
    "nshb": (2.5, 0.15),
    "adam": (1.0, 0.1),
    "adamw": (1.0, 0.1),
    "rmsprop": (1.0, 1.0),
}
ACCURACIES = {
    "sgd": (10.0, 3.0),
    "shb": (0.5, 0.45),
    "nshb": (17.0, 6.0),
    "adam": (7.5, 3.0),
    "adamw": (7.5, 3.0),
    "rmsprop": (2.0, 4.0),
}
"""Mean and standard deviation of a repetition in a pilot under another seed; where that saw the
opposite, or nothing, half a point, two points, or a factor of 2 would matter."""

TITLES = {
    "sgd": "SGD",
    "shb": "SHB",
    "nshb": "NSHB",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
}
SOURCE = "kamo2025, figures on CIFAR-100 at epoch 200"
UPDATES = Text(
    "The growing arm also takes more updates here, as in the source; see the arms at equal "
    "updates.",
    "拡大する側は更新回数も多くなります（出典も同じ）。更新回数をそろえた比較も見てください。",
)


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """The source's table, and what its way of measuring adds."""
    n = int(parameters["table_seeds"])
    return (
        *(_norm(n, rule) for rule in PAPER_RATES),
        *(_accuracy(n, rule) for rule in PAPER_RATES),
        _artefact(n),
    )


def _norm(n: int, rule: str) -> Claim:
    falls, name = rule != "rmsprop", TITLES[rule]
    how = ("smaller", "小さく") if falls else ("larger", "大きく")
    over = (
        ("constant over growing", "一定÷拡大") if falls else ("growing over constant", "拡大÷一定")
    )
    return Claim(
        id=f"norm-{rule}",
        sentence=Text(
            f"With {name}, doubling the batch from 8 on ends with a {how[0]} full gradient than "
            "constant 128.",
            f"{name}では、8から2倍ずつ拡大すると、128で一定の場合より全データの勾配が{how[1]}なって"
            "終わります。",
        ),
        source=SOURCE,
        measured=Text(
            f"log₂ of ‖∇f‖ at the end, {over[0]}", f"終わりでの‖∇f‖の比（{over[1]}）のlog₂"
        ),
        low=0.0,
        high=math.inf,
        expected=NORMS[rule][0],
        spread=NORMS[rule][1],
        n=n,
        values=functools.partial(norm_falls, rule=rule, sign=1.0 if falls else -1.0),
        picture=functools.partial(picture, column="norm.evaluation"),
        meaning=Text(
            "A smaller gradient says that the training has calmed, not that the model is better.",
            "勾配が小さいことは学習が落ち着いたことを示すだけで、モデルが良いことは意味しません。",
        ),
        depends=UPDATES,
        twin={"fault": "batch ignored"},
    )


def _accuracy(n: int, rule: str) -> Claim:
    rises, name = rule != "shb", TITLES[rule]
    how = ("higher", "高い") if rises else ("lower", "低い")
    order = ("growing − constant", "拡大−一定") if rises else ("constant − growing", "一定−拡大")
    return Claim(
        id=f"accuracy-{rule}",
        sentence=Text(
            f"With {name}, doubling the batch from 8 on ends with a {how[0]} accuracy than "
            "constant 128.",
            f"{name}では、8から2倍ずつ拡大すると、128で一定の場合より{how[1]}正解率で終わります。",
        ),
        source=SOURCE,
        measured=Text(
            f"accuracy on held-out pictures, {order[0]}", f"検証データでの正解率の差（{order[1]}）"
        ),
        low=0.0,
        high=math.inf,
        expected=ACCURACIES[rule][0],
        spread=ACCURACIES[rule][1],
        unit="points",
        bounds=(-100.0, 100.0),
        n=n,
        values=functools.partial(accuracy_rises, rule=rule, sign=1.0 if rises else -1.0),
        picture=functools.partial(picture, column="metric"),
        meaning=Text(
            "Whether growing helps is decided by rule and rate together: measure with yours.",
            "拡大が役立つかどうかは更新則と学習率の組み合わせで決まります。ご自身の条件で測ってください。",
        ),
        popular=Text(
            "“A growing batch keeps or improves accuracy” is false for SHB in the source's own "
            "table: 69.1 % falls to 67.7 %.",
            "「バッチを大きくしても精度は保たれるか上がる」は、出典の表でもSHBでは誤りです（69.1%から"
            "67.7%に低下）。",
        ),
        depends=UPDATES,
        twin={"fault": "batch ignored"},
    )


def _artefact(n: int) -> Claim:
    return Claim(
        id="norm-artefact",
        sentence=Text(
            "With batch norm, the “full gradient” in training mode is larger in batches of 8 than "
            "in batches of 512, at the same weights.",
            "バッチ正規化があると、学習モードで測る「全勾配」は、同じ重みでもバッチ8のほうが512より大きく"
            "なります。",
        ),
        source="derived; confound of kamo2025, measured in training mode at the current size",
        measured=Text(
            "log₂ of ‖∇f‖ in training mode, in batches of 8 over batches of 512; more than 5 % is "
            "predicted",
            "学習モードでの‖∇f‖の比（バッチ8÷512）のlog₂（予測は5%超）",
        ),
        low=math.log2(1.05),
        high=math.inf,
        expected=0.8,
        spread=0.1,
        n=n,
        values=artefact,
        picture=ways,
        meaning=Text(
            "Measure a gradient on fixed data in evaluation mode: otherwise part of its fall is "
            "the measurement.",
            "勾配は、固定したデータについて評価モードで測ってください。そうしないと、減少の一部は測り方に"
            "よるものになります。",
        ),
        twin={"fault": "evaluation mode"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """How much of the fall is the measurement."""
    return (
        Claim(
            id="norm-exaggeration",
            sentence=Text(
                "How much more the gradient seems to fall when it is measured in training mode at "
                "the current size.",
                "現在のサイズ・学習モードで測ると、勾配の減り方がどれだけ大きく見えるか。",
            ),
            source="measured here",
            measured=Text(
                "log₂ ‖∇f‖, constant 128 − growing: training mode − evaluation mode (SGD)",
                "log₂ ‖∇f‖の差（128で一定−拡大）：学習モード−評価モード（SGD）",
            ),
            n=int(parameters["table_seeds"]),
            values=exaggeration,
            picture=ways,
            meaning=Text(
                "Read a published fall of the gradient with its way of measuring.",
                "論文にある勾配の減少は、測り方とあわせて読む必要があります。",
            ),
            finding=True,
        ),
    )
