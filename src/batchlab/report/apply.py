"""How to take the recommendation over into one's own script, as lines of code."""

from __future__ import annotations

from typing import NamedTuple

from batchlab._text import EMPTY, Text, say
from batchlab.advisor.record import Advice, Setting
from batchlab.patching import patch
from batchlab.patching.division import Division
from batchlab.patching.kinds import KINDS, Kind
from batchlab.patching.snippets import snippet, written
from batchlab.report import formats

_LETTERS = {"learning_rate": "lr"}
NAMES: dict[Kind, Text] = {
    "pytorch": Text("Plain PyTorch", "PyTorchのみ"),
    "lightning": Text("Lightning", "Lightning"),
    "huggingface": Text("Hugging Face Trainer", "Hugging Face Trainer"),
}
COMMAND = Text(
    "`batchlab apply FOLDER --file your_script.py`, with the folder of this page, prints it as a "
    "patch for your script.",
    "`batchlab apply FOLDER --file your_script.py`（FOLDERはこのページのあるフォルダー）で、自分の"
    "スクリプト用のパッチとして表示できます。",
)


def changed(advice: Advice) -> tuple[str, ...]:
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


class Code(NamedTuple):
    """The settings in one kind of script.

    Attributes:
        title: The kind.
        lines: Lines of Python.
        own: Whether the user's script is of this kind.
    """

    title: Text
    lines: tuple[str, ...]
    own: bool


def code(advice: Advice) -> tuple[Code, ...]:
    """The lines that hold the settings, for each kind of script; the user's own kind first.

    Args:
        advice: The record.
    """
    one, cut = advice.recommended, _division(advice)
    ordered = sorted(KINDS, key=lambda kind: kind != advice.framework)
    return tuple(
        Code(NAMES[kind], snippet(kind, one, cut), kind == advice.framework) for kind in ordered
    )


def _division(advice: Advice) -> Division | None:
    """How the recommended batch is cut: as it was watched, else by what fits."""
    one = advice.recommended
    watched = Division(one.micro_batch_size, one.accum_steps, one.world_size)
    if advice.watched and watched.batch_size == one.batch_size:
        return watched
    return patch.cut(advice, patch.largest(advice))


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


SCRIPT = Text(
    "A runnable script that does so (`STOP_AFTER`) lies beside this page: `apply.py`.",
    "そのとおりに学習するスクリプト`apply.py`（`STOP_AFTER`）が、このページと同じフォルダーにあります。",
)
NO_SCRIPT = Text(
    "For a runnable script (`apply.py`), name the task as `file.py:function`.",
    "実行できるスクリプト（`apply.py`）は、タスクを`file.py:function`の形で指定すると作られます。",
)
"""A task that was made in Python has no name by which a script finds it."""


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
    if advice.watched:
        return Text(
            "Change these together; everything else stays as it is (schedule, warm-up, length in "
            "examples). The time is saved by stopping when the goal is reached.",
            "これらは必ず一緒に変更し、それ以外（スケジュール、ウォームアップ、学習の長さ）は今のまま"
            "にしてください。時間の節約は、目標に達した時点で学習を止めることで得られます。",
        )
    changes = "lr_schedule" in {change.name for change in advice.changes}
    return say(
        "Change these together; everything else stays as it is ({s}warm-up, length in "
        "examples). "
        "The time is saved by stopping when the goal is reached. {script}",
        "これらは必ず一緒に変更し、それ以外（{s}ウォームアップ、学習の長さ）は今のまま"
        "にしてください。"
        "時間の節約は、目標に達した時点で学習を止めることで得られます。{script}",
        s=EMPTY if changes else Text("schedule, ", "スケジュール、"),
        script=SCRIPT if advice.has_script else NO_SCRIPT,
    )
