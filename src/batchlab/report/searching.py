"""What a search over all settings at once has found, and which settings mattered, in words."""

from __future__ import annotations

import math

from batchlab._text import EMPTY, Text, join, say, verbatim
from batchlab.advisor.record import Advice, Searched, Setting
from batchlab.report import formats, names

FIELDS = {"schedule": "lr_schedule"}
"""Names of the search that are called otherwise in a setting."""
LITTLE = 0.05
"""Share of the differences below which a setting is said to matter little."""


def title(advice: Advice) -> Text:
    """What was tuned, and which settings mattered.

    Args:
        advice: The record of a search.
    """
    found = advice.searched
    if found is None:
        return EMPTY
    told = say(
        "{n} settings of {l} were tried together.",
        "{l}を同時に変えながら、{n}通りの設定を試しました。",
        n=formats.count(found.tried),
        l=_listed(found.names),
    )
    return join((told, _mattered(found)))


def notes(advice: Advice) -> tuple[Text, ...]:
    """The best of the search, how it was searched, and how much each setting explains.

    Args:
        advice: The record of a search.
    """
    found = advice.searched
    if found is None:
        return ()
    return tuple(text for text in (_best(advice, found), _how(found), _shares(found)) if text.en)


def _field(name: str) -> Text:
    return names.field(FIELDS.get(name, name))


def _listed(tuned: tuple[str, ...]) -> Text:
    return join((_field(name) for name in tuned), ", ", "、", last=" and ")


def _mattered(found: Searched) -> Text:
    """The settings that explain most, or that it is not known."""
    most = tuple(name for name, share in found.importance.items() if share >= LITTLE)
    if not most:
        return Text(
            "Too few were tried to tell which of them matter.",
            "試した数が少なく、どれが効くかは分かりません。",
        )
    rest = tuple(name for name in found.names if name not in most)
    told = say("What mattered: {l}.", "効いたのは{l}です。", l=_listed(most))
    little = say("{l} mattered little.", "{l}の影響は小さめでした。", l=_listed(rest))
    little = Text(little.en[:1].upper() + little.en[1:], little.ja)
    return join((told, little)) if rest else told


def _best(advice: Advice, found: Searched) -> Text:
    if found.best is None or math.isnan(found.gain):
        return Text(
            "None that was trained to the end learnt as today's settings do.",
            "最後まで学習させた設定の中に、現在の設定ほど学習が進んだものはありませんでした。",
        )
    if advice.objective == "accuracy":
        gain = say("{g}", "{g}", g=formats.metric_signed(found.gain, advice.metric))
    else:
        gain = say("{r}×", "{r}倍", r=formats.ratio(found.gain))
    return say(
        "The best of the search: {s} ({g} against today's settings on the one seed of the search, "
        "which flatters it; what counts is the comparison on fresh seeds above).",
        "探索で最も良かった設定：{s}（現在の設定に対して{g}。探索に使ったシード1個での値で、実際より良く"
        "見えます。判断は上の新しいシードでの比較によります）。",
        s=_setting(found.best, found.names),
        g=gain,
    )


def _setting(one: Setting, tuned: tuple[str, ...]) -> Text:
    """The tuned fields of a setting."""
    fields = [FIELDS.get(name, name) for name in tuned]
    each = (
        say("{n} {v}", "{n} {v}", n=names.field(f), v=names.value(f, getattr(one, f)))
        for f in fields
    )
    return join(each, ", ", "、")


def _how(found: Searched) -> Text:
    """Proposals and halving."""
    told = say(
        "They were proposed in groups by Optuna's tree-structured Parzen estimator, beginning "
        "with today's settings and the learning rates of the ordinary advice, and trained side by "
        "side on one seed; of each group the best third of all so far went on from where it was. "
        "{e} ran to the end, {d} diverged and count as worst.",
        "現在の設定と通常の助言が用いる学習率から始め、OptunaのTPEが数個ずつ提案した設定を、1つのシードで"
        "同時に学習させました。各段階で、それまでの上位3分の1だけを続きから学習させています。最後まで"
        "学習したのは{e}通り、発散（最下位として扱う）は{d}通りです。",
        e=formats.count(found.ended),
        d=formats.count(found.diverged),
    )
    stopped = Text(
        "The search was interrupted: `--resume` goes on with it.",
        "探索は途中で中断されました（`--resume`で再開できます）。",
    )
    return join((told, stopped)) if found.unfinished else told


def _shares(found: Searched) -> Text:
    """Share of the differences that each explains."""
    if not found.importance:
        return EMPTY
    each = (
        say("{n} {p} %", "{n} {p}%", n=_field(name), p=verbatim(f"{100 * share:.0f}"))
        for name, share in found.importance.items()
    )
    return say(
        "Share of the differences between settings that each explains, settings that train badly "
        "counted alike (functional analysis of variance): {l}.",
        "設定間の差のうち各項目で説明される割合（学習の進まない設定は同等に扱った、関数型分散分析）："
        "{l}。",
        l=join(each, ", ", "、"),
    )
