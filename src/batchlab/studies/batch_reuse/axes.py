"""What else decides: uses of each batch, its size, and inputs that are not Gaussian.

The experiment of :mod:`batchlab.studies.batch_reuse.early` (He₃, one tanh neuron, α = 4, η = 0.3),
with one thing changed at a time. Nothing is predicted.
"""

from __future__ import annotations

import functools

import polars as pl

from batchlab._text import Text
from batchlab.studies.batch_reuse import early
from batchlab.studies.batch_reuse.simulate import simulate
from batchlab.studies.batch_reuse.words import (
    COSINE,
    STEPS,
    captioned,
    finding,
    sample,
    seeds,
)
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
from batchlab.tasks.inputs import PIXELS

USES, SIZES, KINDS = "uses", "batch sizes", "kinds of inputs"
UPDATES = early.UPDATES
NUMBERS_OF_USES = (1, 2, 3, 6)
SHARES = (1, 4, 20, 100, 1000)
"""Examples over the batch size, with 1,000 examples of 250 features."""
SMALL = 250
OTHERS = {
    "rademacher": Text("±1", "±1"),
    "uniform": Text("uniform", "一様分布"),
    "correlated": Text("Gaussian, neighbours correlated by ½", "隣どうしの相関が½の正規分布"),
    "images": Text("pixels of digits", "数字画像の画素"),
}


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One a number of uses, a batch size, or a kind of inputs and a way of training."""
    n = int(parameters["axis_seeds"])
    shared = {"seeds": n, "fault": parameters["fault"]}
    kinds = [(kind, way) for kind in ("gaussian", *OTHERS) for way in ("multi", "single")]
    return (
        *(Cell(USES, {"uses": k, **shared}, 0.01 * n) for k in NUMBERS_OF_USES),
        *(Cell(SIZES, {"share": s, **shared}, 2 + 0.02 * s + 0.05 * n) for s in SHARES),
        *(
            Cell(
                KINDS, {"kind": k, "way": way, **shared}, (0.002 if k == "gaussian" else 0.03) * n
            )
            for k, way in kinds
        ),
    )


def _rows(cell: Cell, bench: Bench, **changes: object) -> list[Row]:
    """Cosines of the experiment with something changed; a row a repetition and record."""
    settings: dict[str, object] = {"inputs": SMALL, "reuse": UPDATES}
    asked = early.setting(**(settings | changes))  # pyright: ignore[reportArgumentType]
    paths = simulate(asked, seeds(int(cell.settings["seeds"]), bench))
    cosines = paths.cosines[..., 0, 0]
    return [
        {"repetition": i, "t": t, "cosine": float(cosines[i, t])}
        for i in range(len(cosines))
        for t in range(cosines.shape[1])
    ]


def uses(cell: Cell, bench: Bench) -> list[Row]:
    """Six updates, each batch used 1, 2, 3 or 6 times."""
    return _rows(cell, bench, inputs=1000, reuse=int(cell.settings["uses"]))


def sizes(cell: Cell, bench: Bench) -> list[Row]:
    """Six passes over the same examples in smaller batches; t counts passes."""
    share, n = int(cell.settings["share"]), early.ALPHA * SMALL
    changes = {"examples": n, "batch_size": n // share, "updates": UPDATES * share}
    return _rows(cell, bench, **changes, reuse=1, every=share)


def kinds(cell: Cell, bench: Bench) -> list[Row]:
    """Both ways of training on inputs of a kind; fresh batches of pictures overlap a little."""
    kind, reuse = str(cell.settings["kind"]), UPDATES if cell.settings["way"] == "multi" else 1
    changes = {"inputs": PIXELS if kind == "images" else SMALL, "kind": kind, "reuse": reuse}
    return _rows(cell, bench, **changes)


# ------------------------------------------------------------------ numbers


def by_uses(tables: Tables) -> Sample:
    """Cosine at the end with every batch used twice, less that with one batch six times."""
    return sample(tables[USES], "cosine", uses=2, t=UPDATES) - sample(
        tables[USES], "cosine", uses=UPDATES, t=UPDATES
    )


def by_size(tables: Tables) -> Sample:
    """Cosine after two passes in batches of one, less that in batches of all."""
    one, whole = (
        sample(tables[SIZES], "cosine", share=share, t=2) for share in (SHARES[-1], SHARES[0])
    )
    return one - whole


def by_kind(tables: Tables, kind: str) -> Sample:
    """Cosine after two updates on inputs of a kind, same batch less fresh batches."""
    same, fresh = (
        sample(tables[KINDS], "cosine", kind=kind, way=way, t=2) for way in ("multi", "single")
    )
    return same - fresh


# ------------------------------------------------------------------ pictures


def _picture(
    table: pl.DataFrame, column: str, series: dict[str, Text], title: Text, x: Axis, told: Text
) -> Picture:
    named = table.with_columns(pl.col(column).cast(pl.String))
    shown = points(named, x="t", y="cosine", series=column)
    caption = captioned(shown, told.en, told.ja)
    return Picture(title=title, x=x, y=COSINE, points=shown, series=series, caption=caption)


def picture_of_uses(tables: Tables) -> Picture:
    """Cosine against updates by uses of each batch."""
    names = {str(k): Text(f"{k} updates a batch", f"1バッチ{k}回") for k in NUMBERS_OF_USES}
    title = Text("How often each batch is used.", "1つのバッチを使う回数による違い。")
    told = Text("d = 1000, He₃; the same number of updates.", "d＝1000、He₃、更新回数は同じ。")
    return _picture(tables[USES], "uses", names, title, STEPS, told)


def picture_of_sizes(tables: Tables) -> Picture:
    """Cosine against passes by batch size."""
    n = early.ALPHA * SMALL
    names = {str(s): Text(f"batches of {n // s}", f"バッチサイズ{n // s}") for s in SHARES}
    title = Text("Passes in smaller batches.", "バッチを小さくして何周もするとき。")
    told = Text(
        "d = 250, n = 1000, He₃; every example is used once a pass.",
        "d＝250、n＝1000、He₃。1周で各データを1回ずつ使います。",
    )
    axis = Axis(Text("passes over the examples", "データを何周したか"))
    return _picture(tables[SIZES], "share", names, title, axis, told)


def picture_of_kinds(tables: Tables) -> Picture:
    """Cosine on the same batch against updates by the kind of inputs."""
    names = {"gaussian": Text("Gaussian", "正規分布"), **OTHERS}
    title = Text("Inputs that are not Gaussian.", "正規分布ではない入力の場合。")
    told = Text(
        "Same batch; d = 250 (61 pixels), n = 4d, He₃.",
        "同じバッチ、d＝250（画素は61）、n＝4d、He₃。",
    )
    part = tables[KINDS].filter(pl.col("way") == "multi")
    return _picture(part, "kind", names, title, STEPS, told)


# ------------------------------------------------------------------ findings


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """None."""
    return ()


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """Uses of each batch, its size, kinds of inputs."""
    n = int(parameters["axis_seeds"])
    return (_uses(n), _sizes(n), *(_kind(n, kind) for kind in OTHERS))


def _uses(n: int) -> Claim:
    return finding(
        n,
        id="uses-of-a-batch",
        sentence=Text(
            "What becomes of six updates if every batch is used twice rather than one six times.",
            "同じ6回の更新で、1つのバッチを6回ではなく、各バッチを2回ずつ使うとどうなるか。",
        ),
        measured=Text(
            "cosine after six updates, two uses a batch less six (negative: twice is better)",
            "6回の更新後の余弦の差（2回ずつ−6回。負なら2回ずつのほうがよい）",
        ),
        values=by_uses,
        picture=picture_of_uses,
        meaning=Text(
            "Count both: two uses need three times the examples of six, for as many updates.",
            "2回ずつでは、同じ更新回数に6回の場合の3倍のデータが必要です。両方の費用を比べてください。",
        ),
    )


def _sizes(n: int) -> Claim:
    return finding(
        n,
        id="passes-in-small-batches",
        sentence=Text(
            "What becomes of two passes over the examples in batches of one rather than of all.",
            "全データをまとめたバッチではなく、1件ずつのバッチで2周するとどうなるか。",
        ),
        measured=Text(
            "cosine after two passes, batches of one less batches of all, at the same rate of the "
            "sum (negative: batches of one are better)",
            "2周した後の余弦の差（1件ずつ−全データ、和に対する学習率は同じ。負なら1件ずつのほうがよい）",
        ),
        values=by_size,
        picture=picture_of_sizes,
        meaning=Text(
            "Whether re-use across passes works as re-use of one batch does.",
            "周回をまたぐ再利用が、1つのバッチの再利用と同じように効くかどうかを示します。",
        ),
    )


def _kind(n: int, kind: str) -> Claim:
    name = OTHERS[kind]
    return finding(
        n,
        id=f"inputs-{kind}",
        sentence=Text(
            f"What re-use adds after two updates on other inputs: {name.en}.",
            f"別の入力で、再利用が2回の更新後にもたらす差：{name.ja}。",
        ),
        measured=Text(
            "cosine after two updates, same batch less fresh batches",
            "2回の更新後の余弦の差（同じバッチ−新しいバッチ）",
        ),
        values=functools.partial(by_kind, kind=kind),
        picture=picture_of_kinds,
        meaning=Text(
            "Theory is for Gaussian inputs. He₃ of another projection may show in linear "
            "statistics of the labels already.",
            "理論は正規分布の入力についてのものです。別の分布では、He₃がラベルとの線形な相関に"
            "すでに現れることがあります。",
        ),
    )
