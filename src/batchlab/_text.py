"""A sentence in both languages, with the little markup a sentence needs."""

from __future__ import annotations

import html
import locale
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from markupsafe import Markup

Language: TypeAlias = Literal["en", "ja"]
LANGUAGES: tuple[Language, Language] = ("en", "ja")

# Markup characters of a user's own words are parked here while markup is read.
_PARKED = {"*": "\ue000", "`": "\ue001", "[": "\ue002", "_": "\ue003"}


class Text(NamedTuple):
    """The same thing said in English and in Japanese.

    Markup: ``**strong**``, `` `code` `` and ``[words](#place)``, the place being inside the page.
    """

    en: str
    ja: str

    def of(self, language: Language) -> str:
        """The words in one language, markup included."""
        return self.ja if language == "ja" else self.en


EMPTY = Text("", "")


def usual_language() -> Language:
    """Japanese where the locale is, else English."""
    name = locale.getlocale()[0] or ""
    return "ja" if name.lower().startswith(("ja", "japanese")) else "en"


def say(en: str, ja: str, **parts: Text | str | int) -> Text:
    """Fill both languages' templates; a :class:`Text` enters each in its own language.

    Args:
        en: English, with ``{name}`` for the parts.
        ja: Japanese, likewise.
        parts: What to fill in.

    Returns:
        The sentence.

    Example:
        >>> say("in {t}", "{t}で", t=Text("2 min", "2分"))
        Text(en='in 2 min', ja='2分で')
    """
    return Text(_fill(en, parts, "en"), _fill(ja, parts, "ja"))


def same(words: str | int) -> Text:
    """What is written alike in both languages.

    Example:
        >>> same(64)
        Text(en='64', ja='64')
    """
    return Text(str(words), str(words))


def join(
    parts: Iterable[Text], between: str = " ", between_ja: str = "", last: str | None = None
) -> Text:
    """String sentences together, leaving out empty ones.

    Args:
        parts: The sentences.
        between: What stands between them in English.
        between_ja: In Japanese.
        last: What stands before the last one in English; ``between`` if None.

    Example:
        >>> join([same("a"), EMPTY, same("b")], ", ", "、", last=" and ")
        Text(en='a and b', ja='a、b')
    """
    kept = [part for part in parts if part.en]
    if last is None or len(kept) < 2:
        english = between.join(part.en for part in kept)
    else:
        english = between.join(part.en for part in kept[:-1]) + last + kept[-1].en
    return Text(english, between_ja.join(part.ja for part in kept))


def verbatim(words: str) -> str:
    """A user's own words, kept from being read as markup.

    Example:
        >>> plain(verbatim("a*b")), str(marked_up(verbatim("**<b>")))
        ('a*b', '**&lt;b&gt;')
    """
    for mark, parked in _PARKED.items():
        words = words.replace(mark, parked)
    return words


def plain(words: str) -> str:
    """Words without markup.

    Example:
        >>> plain("**1.9**× [see](#apply) `lr`")
        '1.9× see lr'
    """
    words = re.sub(r"\[([^\]]*)\]\(#[a-z0-9-]+\)", r"\1", words.replace("**", "").replace("`", ""))
    return _unpark(words)


def marked_up(words: str) -> Markup:
    """Words as HTML, everything else escaped.

    Example:
        >>> str(marked_up("**a** & [b](#c)"))
        '<strong>a</strong> &amp; <a href="#c">b</a>'
    """
    safe = html.escape(words)
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    safe = re.sub(r"`(.+?)`", r"<code>\1</code>", safe)
    safe = re.sub(r"\[([^\]]*)\]\((#[a-z0-9-]+)\)", r'<a href="\2">\1</a>', safe)
    return Markup(_unpark(safe))  # escaped above


def markdown(words: str) -> str:
    """Words as Markdown, links inside the page taken out.

    Example:
        >>> markdown("**a** [b](#c)")
        '**a** b'
    """
    return _unpark(re.sub(r"\[([^\]]*)\]\(#[a-z0-9-]+\)", r"\1", words))


def _fill(template: str, parts: dict[str, Text | str | int], language: Language) -> str:
    filled = {k: v.of(language) if isinstance(v, Text) else v for k, v in parts.items()}
    return template.format(**filled)


def _unpark(words: str) -> str:
    for mark, parked in _PARKED.items():
        words = words.replace(parked, mark)
    return words
