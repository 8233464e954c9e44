"""The words for what a record names by code: metrics, fields of a setting, reasons, devices."""

from __future__ import annotations

import re

from batchlab._text import Text, join, same, say, verbatim
from batchlab.advisor.record import Advice, Change, MetricInfo, Reason, Setting
from batchlab.report import formats
from batchlab.schedules import batch_schedule
from batchlab.types import Evidence, Status

METRICS = {
    "accuracy": Text("accuracy", "正解率"),
    "loss": Text("loss", "損失"),
    "mse": Text("mean squared error", "平均二乗誤差"),
    "rmse": Text("root mean squared error", "平均平方根誤差"),
    "mae": Text("mean absolute error", "平均絶対誤差"),
    "r2": Text("share of variation explained (R²)", "決定係数（R²）"),
    "error": Text("error rate", "誤り率"),
    "error rate": Text("error rate", "誤り率"),
    "escapes": Text("escape rate", "見逃し率"),
    "false alarms": Text("false-alarm rate", "過検出率"),
    "perplexity": Text("perplexity", "パープレキシティ"),
    "precision": Text("precision", "適合率"),
    "recall": Text("recall", "再現率"),
    "f1": Text("F1 score", "F1スコア"),
    "auc": Text("AUC", "AUC"),
}
FIELDS = {
    "rule": Text("optimiser", "最適化手法"),
    "batch_size": Text("batch size", "バッチサイズ"),
    "micro_batch_size": Text("micro-batch size", "マイクロバッチサイズ"),
    "accum_steps": Text("accumulation steps", "勾配累積の回数"),
    "world_size": Text("processes", "プロセス数"),
    "learning_rate": Text("learning rate", "学習率"),
    "momentum": Text("momentum", "モメンタム"),
    "weight_decay": Text("weight decay", "重み減衰"),
    "lr_schedule": Text("learning-rate schedule", "学習率スケジュール"),
    "rate_growth": Text("growth of the learning rate", "学習率の増加"),
    "reuse": Text("updates on each fetched batch", "読み込んだバッチ1個あたりの更新回数"),
    "gamma": Text("feature-learning strength γ", "特徴学習の強さγ"),
    "warmup": Text("warm-up", "ウォームアップ"),
    "clip_norm": Text("gradient clipping", "勾配クリッピング"),
    "precision": Text("number format", "数値形式"),
    "samples": Text("training length", "学習の長さ"),
    "nu": Text("nu (QHM)", "ν（QHM）"),
    "beta2": Text("beta2", "β₂"),
    "eps": Text("eps", "ε"),
}
PROVENANCE = {
    "command": Text("command", "コマンド"),
    "version": Text("version", "バージョン"),
    "created": Text("measured", "測定日時"),
    "wall_seconds": Text("time the measurement took, s", "測定にかかった時間（秒）"),
    "budget_seconds": Text("budget, s", "予算の時間（秒）"),
    "objective": Text("objective", "目的"),
    "worth": Text("smallest gain worth a change, ×", "変更に値する最小の効果（倍）"),
    "system": Text("system", "OS"),
    "device": Text("device", "計算装置"),
    "seed": Text("seed", "乱数シード"),
    "processor": Text("processor", "プロセッサー"),
    "threads": Text("threads", "スレッド数"),
    "cluster": Text("cluster", "クラスター"),
    "equal": Text("numbers", "数値の一致"),
}
REASONS = {
    Reason.BASELINE: Text("today's setting", "現在の設定"),
    Reason.FIRST: Text("the first size of today's schedule", "現在のスケジュールの最初のサイズ"),
    Reason.LARGEST: Text("largest that fits in memory", "メモリに収まる最大"),
    Reason.QUARTER: Text("a quarter of the training data", "学習データの4分の1"),
    Reason.NOISE_SCALE: Text("near the measured noise scale", "測定したノイズスケールの付近"),
    Reason.WHOLE_RANGE: Text(
        "whole range, since the noise scale could not be measured",
        "全範囲から（ノイズスケールを測定できなかったため）",
    ),
    Reason.REQUESTED: Text("asked for", "指定による"),
    Reason.WATCHED: Text("trained by you", "実施済みの学習"),
    Reason.GROWING: Text("the batch grows", "バッチを途中で増やす"),
    Reason.REUSED: Text("each batch is used again", "同じバッチを繰り返し使う"),
    Reason.STRENGTHENED: Text("the model has a γ", "モデルにγを使う"),
    Reason.TUNED: Text("found by the search", "探索で見つけた設定"),
}
STATUSES = {
    Status.OK: Text("trained", "学習できた"),
    Status.DIVERGED: Text("failed: diverged (values became infinite)", "失敗：発散した"),
    Status.DID_NOT_LEARN: Text("failed: did not learn", "失敗：学習が進まなかった"),
}
EVIDENCE = {
    Evidence.SCREENED: Text("screened", "下調べのみ"),
    Evidence.PROJECTED: Text("projected", "短い試行からの予測"),
    Evidence.CONFIRMED: Text("confirmed", "実測で確認済み"),
}
UNTESTED = {
    "models": Text("other models", "別のモデル"),
    "data": Text("more or other data", "より多いデータや別のデータ"),
    "rules": Text("other optimisers", "別の最適化手法"),
    "machines": Text(
        "other computers (times are this computer's)", "別の計算機（時間はこの計算機での値です）"
    ),
    "longer": Text("longer training", "より長い学習"),
    "momentum": Text("other values of momentum", "別のモメンタム値"),
    "schedule": Text("other learning-rate schedules", "別の学習率スケジュール"),
}
PICTURES = ("digits", "mnist", "cifar10")


def metric(info: MetricInfo) -> Text:
    """The metric's name, short enough for a sentence.

    Example:
        >>> metric(MetricInfo("escapes at 2 % false alarms", False, "%")).ja
        '見逃し率'
    """
    key = info.name.lower()
    if key not in METRICS and "escape" in key:
        key = "escapes"
    return METRICS.get(key, same(verbatim(info.name)))


def metric_in_full(info: MetricInfo) -> Text:
    """The metric's name with what it depends on, and a plain word where the name is not one.

    Example:
        >>> metric_in_full(MetricInfo("escapes at 2 % false alarms", False, "%")).en
        'escape rate (defects missed) at 2 % false alarms'
    """
    if "escape" not in info.name.lower():
        return metric(info)
    found = re.search(r"([\d.]+) ?%", info.name)
    if found is None:
        return Text("escape rate (defects missed)", "見逃し率（不良を見逃す割合）")
    return say(
        "escape rate (defects missed) at {p} % false alarms",
        "見逃し率（過検出率{p}%のとき）",
        p=found.group(1),
    )


def examples(advice: Advice, count: int) -> Text:
    """So many examples, as what they are where that is known.

    Args:
        advice: The record.
        count: How many.
    """
    number = formats.count(count)
    if advice.builtin and advice.task in PICTURES:
        return say("{n} pictures", "画像{n}枚", n=number)
    return say("{n} examples", "データ{n}件", n=number)


def device(advice: Advice) -> Text:
    """The computer that times and prices are of.

    Args:
        advice: The record.
    """
    if advice.elsewhere:
        name = advice.provenance.get("processor", "") or advice.device
        return say("another computer ({d})", "別の計算機（{d}）", d=verbatim(name))
    if advice.device != "cpu":
        return say("this computer ({d})", "この計算機（{d}）", d=verbatim(advice.device))
    en = "this computer (1 core)" if advice.cores == 1 else "this computer ({n} cores)"
    return say(en, "このパソコン（CPU {n}コア）", n=advice.cores)


def value(name: str, content: object) -> str:
    """One field of a setting, written.

    Example:
        >>> value("learning_rate", 0.05), value("batch_size", 1024), value("clip_norm", None)
        ('0.05', '1,024', 'none')
    """
    if content is None:
        return "none"
    if isinstance(content, bool) or not isinstance(content, int | float):
        return verbatim(str(content))
    return formats.count(content) if isinstance(content, int) else formats.rate(content)


def size(batch_size: int | str) -> str:
    """A batch size as a label; of a schedule its first and last size.

    Example:
        >>> size(1024), size("0:8 2ep:16 4ep:64")
        ('1,024', '8→64')
    """
    schedule = batch_schedule(batch_size)
    return schedule.ends if len(schedule.steps) > 1 else formats.count(schedule.sizes[0])


def field(name: str) -> Text:
    """What a field of a setting is called.

    Example:
        >>> field("batch_size").ja
        'バッチサイズ'
    """
    return FIELDS.get(name, same(verbatim(name)))


def change(one: Change) -> Text:
    """A field, from what to what.

    Example:
        >>> change(Change("batch_size", 32, 64))
        Text(en='batch size 32 → 64', ja='バッチサイズを32から64へ')
    """
    return say(
        "{name} {old} → {new}",
        "{name}を{old}から{new}へ",
        name=field(one.name),
        old=_content(one.name, one.today),
        new=_content(one.name, one.recommended),
    )


def _content(name: str, content: object) -> Text:
    """One field of a setting, in words where the number alone says little."""
    if name == "batch_size" and isinstance(content, str):
        sizes = batch_schedule(content).sizes
        if len(sizes) > 1:
            ends = {"a": formats.count(sizes[0]), "b": formats.count(sizes[-1])}
            grows = list(sizes) == sorted(sizes)
            en, ja = ("growing", "段階的な拡大") if grows else ("changing", "段階的な変更")
            return say(f"{en} from {{a}} to {{b}}", f"{ja}（{{a}}→{{b}}）", **ends)
    if name == "rate_growth" and content in GROWTHS:
        return GROWTHS[content]  # pyright: ignore[reportArgumentType]
    return Text("none", "なし") if content is None else same(value(name, content))


GROWTHS = {
    0.0: Text("none", "なし"),
    0.5: Text("with the root of the batch", "バッチの平方根に比例"),
    1.0: Text("with the batch", "バッチに比例"),
}
"""Power with which the learning rate follows the batch size, in words."""


def setting(one: Setting) -> Text:
    """A setting in a few words.

    Args:
        one: The setting.
    """
    usual = say(
        "batch size {b}, learning rate {r}",
        "バッチサイズ{b}、学習率{r}",
        b=value("batch_size", one.batch_size),
        r=formats.rate(one.learning_rate),
    )
    own = (
        say("{n} {v}", "{n} {v}", n=field(name), v=_content(name, content))
        for name, content in one.other.items()
    )
    return join((usual, *_grown(one), *_again(one), *_strength(one), *own), ", ", "、")


def _again(one: Setting) -> tuple[Text, ...]:
    """How often each batch is used, if more than once."""
    if one.reuse == 1:
        return ()
    return (say("{k} updates on each batch", "バッチ1個につき更新{k}回", k=one.reuse),)


def _strength(one: Setting) -> tuple[Text, ...]:
    """γ, if the model has one."""
    return () if one.gamma is None else (same(f"γ = {formats.rate(one.gamma)}"),)


def _grown(one: Setting) -> tuple[Text, ...]:
    """How the learning rate follows a schedule of batch sizes, if it does."""
    if not (isinstance(one.batch_size, str) and one.rate_growth):
        return ()
    power = f"{one.rate_growth:g}"
    return (say("growing as B^{p}", "バッチの{p}乗で増加", p=power),)


def bound(advice: Advice) -> Text:
    """What the largest batch size was limited by.

    Args:
        advice: The record.
    """
    words = {
        "memory": Text("the next larger one did not fit in memory", "これより大きいとメモリ不足"),
        "data set": Text("the whole training set", "学習データ全件")
        if advice.part is None
        else Text("the whole part of the training data", "使った学習データ全件"),
        "max_val": Text("the largest one tried", "試した中の最大"),
        "crash": Text("the next larger one crashed", "これより大きいと異常終了"),
        "time": Text("the time allowed ran out there", "制限時間内に試せた最大"),
        "nothing fits": Text("not even one example fits", "1件でもメモリ不足"),
    }
    by = advice.memory.bound_by if advice.memory else ""
    return words.get(by, same(verbatim(by)))


def provenance(name: str) -> Text:
    """What a number depends on, by its key in the record.

    Args:
        name: Such as ``seed``; one that is not known stays as it is.
    """
    return PROVENANCE.get(name) or FIELDS.get(name) or same(verbatim(name))
