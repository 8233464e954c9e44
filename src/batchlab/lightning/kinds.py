"""Which objects are Lightning's, and which of its methods a user has overridden.

Nothing is imported: objects of ``lightning`` and of ``pytorch_lightning`` are known by the names
of the classes they are made of.
"""

from __future__ import annotations

import re
from typing import Any

_OWN = re.compile(
    r"(lightning\.pytorch|pytorch_lightning)\.(core|callbacks|trainer)\..*", re.ASCII
)


def is_a(thing: Any, name: str) -> bool:
    """Whether a class of Lightning with this name is among those an object is made of.

    Example:
        >>> is_a(object(), "LightningModule")
        False
    """
    return any(kind.__name__ == name and _is_own(kind) for kind in type(thing).__mro__)


def overrides(thing: Any, method: str) -> bool:
    """Whether a method is the user's own, rather than Lightning's or absent.

    Example:
        >>> overrides("text", "upper"), overrides("text", "training_step")
        (True, False)
    """
    if method in getattr(thing, "__dict__", {}):
        return True
    owner = next((kind for kind in type(thing).__mro__ if method in vars(kind)), None)
    return owner is not None and not _is_own(owner)


def _is_own(kind: type) -> bool:
    return _OWN.fullmatch(kind.__module__) is not None
