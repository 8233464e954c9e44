"""A small language of functions, parsed into tensor operations; nothing is run as code."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from batchlab.errors import InvalidValueError, must

Value: TypeAlias = Tensor | float
Function: TypeAlias = Callable[[Mapping[str, Tensor]], Value]
"""From the values of the variables to the value of the expression."""

MAX_LENGTH, MAX_DEPTH, MAX_DEGREE = 500, 40, 30
CONSTANTS = {"pi": math.pi, "e": math.e}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(torch, name)
    for name in ("tanh", "erf", "relu", "sign", "abs", "exp", "log", "sqrt", "sin", "cos")
}
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
LANGUAGE = (
    "Numbers, pi, e, + - * / **, He0 … He30 and " + ", ".join(FUNCTIONS) + " are understood."
)


def hermite(degree: int, z: Tensor) -> Tensor:
    """He_j(z), the probabilists' Hermite polynomial: He_{j+1} = z He_j − j He_{j−1}.

    Args:
        degree: j, 0 or more.
        z: Any shape.

    Returns:
        The shape of ``z``.

    Example:
        >>> hermite(3, torch.tensor([2.0]))
        tensor([2.])
    """
    before, now = torch.zeros_like(z), torch.ones_like(z)
    for j in range(degree):
        before, now = now, z * now - j * before
    return now


def parse(text: str, name: str) -> tuple[Function, frozenset[str]]:
    """Read an expression.

    Args:
        text: Such as ``"tanh(He1(z1) + He3(z2))"``.
        name: What the caller calls it, for the error.

    Returns:
        The function, and the variables that it reads.

    Raises:
        InvalidValueError: If it is not understood; the sentence names the part.

    Example:
        >>> function, variables = parse("z1**2 - 1", "target")
        >>> function({"z1": torch.tensor(3.0)}), sorted(variables)
        (tensor(8.), ['z1'])
    """
    if len(text) > MAX_LENGTH:
        words = f"an expression of at most {MAX_LENGTH} characters"
        raise InvalidValueError(must(name, words, f"{text[:20]}… ({len(text)})"))
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InvalidValueError(must(name, "an expression", text, LANGUAGE)) from None
    variables: set[str] = set()
    return _Reader(text, name, variables).function(tree, 0), frozenset(variables)


class _Reader:
    """Turns a syntax tree into one closure per node."""

    def __init__(self, text: str, name: str, variables: set[str]) -> None:
        self.text, self.name, self.variables = text, name, variables

    def function(self, node: ast.expr, depth: int) -> Function:
        if depth > MAX_DEPTH:
            raise self.refusal(f"nested at most {MAX_DEPTH} deep", node)
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.constant(value, node)
            case ast.Name(id=word) if word in CONSTANTS:
                return self.constant(CONSTANTS[word], node)
            case ast.Name(id=word):
                self.variables.add(word)
                return lambda values: values[word]
            case ast.UnaryOp(op=kind, operand=inner) if type(kind) in OPERATORS:
                return _one(OPERATORS[type(kind)], self.function(inner, depth + 1))
            case ast.BinOp(left=left, op=kind, right=right) if type(kind) in OPERATORS:
                sides = (self.function(side, depth + 1) for side in (left, right))
                return _two(OPERATORS[type(kind)], *sides)
            case ast.Call(func=ast.Name(id=word), args=[inner], keywords=[]):
                return _one(self.named(word, node), self.function(inner, depth + 1))
        raise self.refusal("made of what is understood", node)

    def constant(self, value: float, node: ast.expr) -> Function:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.refusal("made of finite numbers", node)
        return lambda values: number

    def named(self, word: str, node: ast.expr) -> Callable[[Value], Value]:
        degree = re.fullmatch(r"He(\d{1,2})", word)
        if degree and int(degree[1]) <= MAX_DEGREE:
            return lambda value: hermite(int(degree[1]), _tensor(value))
        if word not in FUNCTIONS:
            raise self.refusal("made of known functions", node)
        return lambda value: FUNCTIONS[word](_tensor(value))

    def refusal(self, words: str, node: ast.expr) -> InvalidValueError:
        part = ast.get_source_segment(self.text.strip(), node) or self.text
        return InvalidValueError(must(self.name, words, part, LANGUAGE))


def _tensor(value: Value) -> Tensor:
    return torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64)


def _one(function: Callable[..., Value], inner: Function) -> Function:
    return lambda values: function(inner(values))


def _two(function: Callable[..., Value], left: Function, right: Function) -> Function:
    def both(values: Mapping[str, Tensor]) -> Value:
        try:
            return function(left(values), right(values))
        except (ZeroDivisionError, OverflowError):
            return math.nan  # two constants, such as 1/0

    return both
