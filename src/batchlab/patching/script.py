"""A user's script: what it calls, by full name, and where each thing stands in its bytes."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from batchlab.errors import InvalidValueError, cannot_read, must
from batchlab.patching.kinds import CALLS

BOM = b"\xef\xbb\xbf"
Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, eq=False)
class Script:
    """A file of Python.

    Attributes:
        path: Where it lies.
        content: What it holds, byte for byte.
        tree: The same, parsed.
    """

    path: Path
    content: bytes
    tree: ast.Module

    @property
    def name(self) -> str:
        """How it is called in sentences and diffs: from here where it lies below."""
        shown = os.path.relpath(self.path)
        return self.path.name if shown.startswith("..") else Path(shown).as_posix()

    @property
    def newline(self) -> str:
        """How its lines end."""
        return "\r\n" if b"\r\n" in self.content else "\n"

    @cached_property
    def parents(self) -> Mapping[ast.AST, ast.AST]:
        """Node → the node that holds it."""
        return {
            child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)
        }

    @cached_property
    def imported(self) -> Mapping[str, str]:
        """Name in the script → full name, for what is imported."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        return found

    def full_name(self, node: ast.expr) -> str:
        """The full name of what is called; empty where it is not a plain, imported name."""
        if isinstance(node, ast.Attribute):
            before = self.full_name(node.value)
            return f"{before}.{node.attr}" if before else ""
        return self.imported.get(node.id, "") if isinstance(node, ast.Name) else ""

    def calls(self, kind: str) -> Iterator[ast.Call]:
        """The known calls of a kind, in order of the file."""
        for node in self.every(ast.Call):
            assert isinstance(node, ast.Call)
            if CALLS[kind].fullmatch(self.full_name(node.func)):
                yield node

    def every(self, kind: type[ast.AST] | tuple[type[ast.AST], ...]) -> list[ast.AST]:
        """All nodes of a type, in order of the file."""
        found = [node for node in ast.walk(self.tree) if isinstance(node, kind)]
        return sorted(found, key=lambda node: (line(node), getattr(node, "col_offset", 0)))

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """What holds a node, from the inside out."""
        while (above := self.parents.get(node)) is not None:
            yield above
            node = above

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        """Where each line begins."""
        at = len(BOM) if self.content.startswith(BOM) else 0
        starts = [at]
        for text in self.content[at:].splitlines(keepends=True):
            at += len(text)
            starts.append(at)
        return tuple(starts)

    def span(self, node: ast.expr) -> tuple[int, int]:
        """First byte of an expression, and the first after it."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def indentation(self, node: ast.expr) -> str:
        """The white space at the beginning of an expression's line."""
        text = self.content[self._starts[node.lineno - 1] : self.span(node)[0]]
        return re.match(r"\s*", text.decode())[0]  # pyright: ignore[reportOptionalSubscript]


def read(path: str | Path) -> Script:
    """Read a script.

    Args:
        path: A file of Python in UTF-8.

    Raises:
        InvalidValueError: If it is not one.
        ResultError: If it cannot be read.
    """
    file = Path(path).expanduser()
    if file.suffix != ".py":
        hint = "Of a notebook, change the cells by hand: leave `file` out for the lines."
        raise InvalidValueError(must("file", "a Python file", str(path), hint))
    try:
        content = file.read_bytes()
    except OSError as error:
        raise cannot_read(file, error.strerror or "it is not there") from None
    try:
        content.decode("utf-8")
        tree = ast.parse(content, str(file))
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise cannot_read(file, f"it is not Python in UTF-8{where}") from None
    return Script(file, content, tree)


def line(node: ast.AST) -> int:
    """The line on which a node begins, from 1."""
    return getattr(node, "lineno", 0)
