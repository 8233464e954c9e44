"""Names by content: what a user's own function or object is told from others by."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterable
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from batchlab.errors import InvalidTypeError, must, reason


def name_of(given: Any) -> str:
    """The ``name`` of a function or object; where it has none, where it is defined and a hash of
    what it holds: the code of a function, what it closes over, the state of an object.

    The same in every process; what stands in a module beside a function is not part of it.

    Args:
        given: Such as a probe.

    Raises:
        InvalidTypeError: If it has no name and holds what has no content, such as an open file.

    Example:
        >>> from functools import partial
        >>> name_of(partial(max, 1)) == name_of(partial(max, 1))
        True
        >>> name_of(partial(max, 1)) == name_of(partial(max, 2))
        False
    """
    if hasattr(given, "name"):
        return given.name
    kind = given if hasattr(given, "__qualname__") else type(given)
    written = io.BytesIO()
    try:
        _Content(written).dump(given)
    except Exception as error:  # whatever the user's object holds
        hint = f"Give it a `name`: {reason(error)}."
        raise InvalidTypeError(must("probe", "told by its content", given, hint)) from error
    digest = hashlib.sha256(written.getbuffer()).hexdigest()[:16]
    return f"{kind.__module__}.{kind.__qualname__} {digest}"


def hash_of(tensors: Iterable[torch.Tensor]) -> str:
    """Short hash of the bytes of tensors, one after the other."""
    digest = hashlib.sha256()
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()[:16]


class _Content(pickle.Pickler):
    """Writes equal bytes for equal content, where pickle would write addresses or refuse."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.fast = True  # no memo: two equal strings are written as one that is met twice

    def persistent_id(self, obj: Any) -> Any:
        """What stands for an object; None for one that pickle writes by its content."""
        match obj:
            case torch.Tensor():
                return "tensor", str(obj.dtype), tuple(obj.shape), hash_of([obj])
            case FunctionType():
                held = [cell.cell_contents for cell in obj.__closure__ or ()]
                held += [obj.__defaults__, obj.__kwdefaults__]
                return obj.__module__, obj.__qualname__, obj.__code__, held
            case CodeType():
                return "code", obj.co_code, obj.co_consts, obj.co_names
            case set() | frozenset():
                return "set", sorted(map(repr, obj))
            case type():
                return obj.__module__, obj.__qualname__
            case ModuleType():
                return "module", obj.__name__
            case _:
                return None
