"""How to take the recommendation over into one's own script, as lines of code."""

from __future__ import annotations

from batchlab.advisor.record import Advice, Setting
from batchlab.report import formats
from batchlab.report.text import EMPTY, Text, say

_TORCH = {
    "sgd": ("torch.optim.SGD", ("weight_decay",)),
    "shb": ("torch.optim.SGD", ("momentum", "weight_decay")),
    "nesterov": ("torch.optim.SGD", ("momentum", "nesterov", "weight_decay")),
    "adam": ("torch.optim.Adam", ("betas", "eps", "weight_decay")),
    "adamw": ("torch.optim.AdamW", ("betas", "eps", "weight_decay")),
    "rmsprop": ("torch.optim.RMSprop", ("alpha", "eps", "weight_decay")),
    "nshb": ("batchlab.optim.NSHB", ("momentum", "weight_decay")),
    "qhm": ("batchlab.optim.QHM", ("momentum", "nu", "weight_decay")),
}
_LETTERS = {"learning_rate": "lr"}


def patch(advice: Advice) -> tuple[str, ...]:
    """The lines that change, as a patch: a line that goes begins with −, one that comes with +.

    Args:
        advice: The record.

    Returns:
        Lines; none where nothing changes.
    """
    lines = []
    for change in advice.changes:
        name = _LETTERS.get(change.name, change.name)
        lines += [f"-{name} = {written(change.today)}", f"+{name} = {written(change.recommended)}"]
    return tuple(lines)


def code(one: Setting) -> tuple[str, ...]:
    """The two lines of a PyTorch script that hold the settings.

    Args:
        one: The setting.

    Returns:
        Lines of Python.
    """
    size = one.micro_batch_size if one.accum_steps * one.world_size > 1 else one.batch_size
    lines = [f"loader = DataLoader(train_set, batch_size={written(size)}, shuffle=True)"]
    if one.accum_steps * one.world_size > 1:
        lines.append(
            f"# {one.batch_size} = {one.micro_batch_size} (micro-batch) × {one.accum_steps} "
            f"(accumulation steps) × {one.world_size} (processes)"
        )
    return (*lines, optimizer(one))


def optimizer(one: Setting) -> str:
    """The line that makes the optimiser.

    Args:
        one: The setting.
    """
    maker, wanted = _TORCH.get(one.rule, (one.rule, ()))
    values = {
        "momentum": written(one.momentum),
        "nesterov": "True",
        "betas": f"({written(one.momentum)}, {written(one.beta2)})",
        "alpha": written(one.beta2),
        "eps": written(one.eps),
        "nu": written(one.nu),
        "weight_decay": written(one.weight_decay),
    }
    given = "".join(f", {name}={values[name]}" for name in wanted)
    return f"optimizer = {maker}(model.parameters(), lr={written(one.learning_rate)}{given})"


def written(value: object) -> str:
    """A value as Python writes it, floats without noise.

    Example:
        >>> written(0.1 + 0.2), written(64), written("0:8 20ep:16")
        ('0.3', '64', "'0:8 20ep:16'")
    """
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def conversion(one: Setting) -> Text:
    """The same rule in the other convention for momentum, or nothing.

    Args:
        one: The setting.
    """
    if one.rule not in ("shb", "nshb") or not one.momentum:
        return EMPTY
    if one.rule == "shb":
        return say(
            "Where momentum is written as an average (v ← βv + (1−β)g, NSHB), the same learning "
            "rate is "
            "lr/(1−β) = {r}.",
            "モメンタムを平均で書く流儀（v ← βv + (1−β)g、NSHB）では、同じ学習率は lr/(1−β) = {r} "
            "です。",
            r=formats.rate(one.learning_rate / (1 - one.momentum)),
        )
    return say(
        "Where momentum is written as a sum (v ← βv + g, torch.optim.SGD), the same learning rate "
        "is "
        "lr·(1−β) = {r}.",
        "モメンタムを和で書く流儀（v ← βv + g、torch.optim.SGD）では、同じ学習率は lr·(1−β) = {r} "
        "です。",
        r=formats.rate(one.learning_rate * (1 - one.momentum)),
    )


def title(advice: Advice) -> Text:
    """What there is to apply.

    Args:
        advice: The record.
    """
    if not advice.changes:
        return Text("There is nothing to change in your script.", "スクリプトの変更は不要です。")
    return say(
        "To apply it, change {n} line{s} of your script.",
        "スクリプトの{n}行を変更すると適用できます。",
        n=len(advice.changes),
        s="" if len(advice.changes) == 1 else "s",
    )


def note(advice: Advice) -> Text:
    """What to keep in mind when applying it.

    Args:
        advice: The record.
    """
    if not advice.changes:
        return Text("The settings as they are:", "現在の設定は次のとおりです。")
    return Text(
        "Change these together; everything else stays as it is (schedule, warm-up, length in "
        "examples). "
        "The time is saved by stopping when the goal is reached (`STOP_AFTER`). A runnable script "
        "lies beside this page: `apply.py`.",
        "これらは必ず一緒に変更し、それ以外（スケジュール、ウォームアップ、学習の長さ）は今のまま"
        "にしてください。"
        "時間の節約は、目標に達した時点で学習を止めること（`STOP_AFTER`）で得られます。"
        "実行できるスクリプト`apply.py`が、このページと同じフォルダーにあります。",
    )
