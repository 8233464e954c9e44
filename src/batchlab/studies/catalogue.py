"""The studies by name, a user's own from a file, and parameters as they are typed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.studies.claim import MODES, Claim, Parameters, Study, Value
from batchlab.tasks.loading import module_of

BUILTIN = ("autoencoder", "batch-reuse", "feature-strength", "growing-batch", "guide")
"""Each is a module of this package with a ``STUDY``; it is imported when asked for."""
ATTRIBUTE = "STUDY"


def load(name: str) -> tuple[Study, str | None]:
    """A study, and where it comes from if it is not built in.

    Args:
        name: A built-in name, ``file.py``, ``file.py:NAME`` or ``module:NAME``; NAME is ``STUDY``
            if left out.

    Raises:
        TaskError: With one sentence about what could not be found.

    Example:
        >>> load("autoencoder")[0].name
        'autoencoder'
    """
    if name in BUILTIN:
        module = importlib.import_module(f"batchlab.studies.{name.replace('-', '_')}")
        return getattr(module, ATTRIBUTE), None
    place, _, attribute = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    if not place:
        hint = f"There are: {', '.join(BUILTIN)}. Your own: path/to/file.py."
        raise TaskError(must("study", "a known name or a file", name, hint))
    found_module, origin = module_of(place)
    found = getattr(found_module, attribute or ATTRIBUTE, None)
    if not isinstance(found, Study):
        hint = "`batchlab study new FILE` writes one that runs."
        got = f"a {type(found).__name__}"
        raise TaskError(must(attribute or ATTRIBUTE, f"a Study in `{place}`", got, hint))
    _check(found)
    return found, origin


def unique(claims: Sequence[Claim]) -> tuple[Claim, ...]:
    """Claims whose short names differ.

    Args:
        claims: Of a study.

    Raises:
        InvalidValueError: If two have the same.
    """
    names = [claim.id for claim in claims]
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise InvalidValueError(must("id", "another for each claim", again))
    return tuple(claims)


def every() -> tuple[Study, ...]:
    """The built-in studies."""
    return tuple(load(name)[0] for name in BUILTIN)


def _check(study: Study) -> None:
    """A user's own study has the same parameters in every mode."""
    names = {mode: sorted(study.parameters.get(mode, {})) for mode in MODES}
    if len({tuple(found) for found in names.values()}) > 1:
        words = "for quick, full and paper, with the same names in each"
        raise InvalidValueError(must("parameters", words, names))


def overridden(parameters: Parameters, given: Sequence[str]) -> tuple[Parameters, tuple[str, ...]]:
    """Parameters with what ``--set`` says.

    Args:
        parameters: Name → value.
        given: ``key=value`` each.

    Returns:
        The parameters, and those that differ now, as ``key=value``.

    Raises:
        InvalidValueError: If a name is not known or a value is of another kind.

    Example:
        >>> overridden({"n": 20, "rate": 0.25}, ["n=10", "rate=0.25"])
        ({'n': 10, 'rate': 0.25}, ('n=10',))
    """
    made = dict(parameters)
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in parameters:
            words = f"key=value with a key among {', '.join(parameters)}"
            raise InvalidValueError(must("set", words, text))
        made[name] = _read(name, value, parameters[name])
        if name.endswith("seeds") and int(made[name]) < 1:
            raise InvalidValueError(must(name, "a whole number, 1 or more", value))
    return made, tuple(f"{k}={v}" for k, v in made.items() if v != parameters[k])


def _read(name: str, text: str, like: Value) -> Value:
    """A value of the kind that the parameter has."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number"}
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(like)(text)
    except (KeyError, ValueError):
        raise InvalidValueError(must(name, kinds[type(like)], text)) from None
