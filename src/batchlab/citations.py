"""The sources that formulas and studies rest on, as BibTeX."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib import resources

from batchlab.errors import InvalidValueError, must

OWN = "batchlab"


@functools.lru_cache(maxsize=1)
def entries() -> dict[str, str]:
    """Key → BibTeX entry, in the order of the file.

    Example:
        >>> entries()["mccandlish2018"].startswith("@misc{mccandlish2018,")
        True
    """
    text = (resources.files("batchlab") / "citations.bib").read_text(encoding="utf-8")
    found = re.findall(r"^@\w+\{([^,]+),.*?^\}$", text, re.MULTILINE | re.DOTALL)
    starts = [match.start() for match in re.finditer(r"^@", text, re.MULTILINE)]
    ends = [*starts[1:], len(text)]
    return {
        key: text[start:end].strip() for key, start, end in zip(found, starts, ends, strict=True)
    }


def bibtex(keys: Iterable[str]) -> str:
    """The entries of some keys, each once.

    Args:
        keys: Known keys.

    Raises:
        InvalidValueError: If a key is not known.

    Example:
        >>> bibtex(["kamo2025"]).splitlines()[0]
        '@inproceedings{kamo2025,'
    """
    known = entries()
    wanted = list(dict.fromkeys(keys))
    for key in wanted:
        if key not in known:
            raise InvalidValueError(must("key", f"one of {', '.join(known)}", key))
    return "\n\n".join(known[key] for key in wanted)
