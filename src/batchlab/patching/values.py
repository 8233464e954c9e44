"""Where the number behind an argument is written: there, in a constant, or as a default."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from batchlab.patching.kinds import Slot, default_of
from batchlab.patching.script import FUNCTIONS, Function, Script, line

DEEPEST = 6
"""Names that are followed from an argument to its number, at most."""


@dataclass(frozen=True)
class Place:
    """A number in a script.

    Attributes:
        script: The script.
        node: The number itself; for one that is left out, the call that would take it.
        value: What it is today.
        keyword: The argument's name where it is left out, else empty.
        note: What to know about changing it there, a sentence, or empty.
    """

    script: Script
    node: ast.expr
    value: float
    keyword: str = ""
    note: str = ""

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.script.name}, line {line(self.node)}"

    @property
    def key(self) -> tuple[str, tuple[int, int], str]:
        """The same for the same number, whichever way it was found."""
        return str(self.script.path), self.script.span(self.node), self.keyword


@dataclass(frozen=True)
class Unknown:
    """An argument whose number was not found.

    Attributes:
        script: The script.
        node: What stands there.
        why: Why that is no number, continuing "… is".
    """

    script: Script
    node: ast.expr
    why: str

    def __str__(self) -> str:
        text = ast.unparse(self.node)
        return f"`{text}` in {self.script.name}, line {line(self.node)}, {self.why}"


Found = list[Place | Unknown]


def of_call(scripts: Sequence[Script], script: Script, call: ast.Call, slot: Slot) -> Found:
    """Where the number of an argument is written.

    Args:
        scripts: Every script that is known.
        script: The one with the call.
        call: The call.
        slot: The argument.

    Returns:
        Each place that its number may come from; several where a function is called several times.
    """
    given = _argument(call, slot.keyword, slot.position)
    if given is not None:
        return _Search(scripts).follow(script, given)
    if _starred(call) or _doubly_starred(call):
        return [Unknown(script, call.func, f"is given `{slot.keyword}` with others, by `*`")]
    default = default_of(slot, script.full_name(call.func))
    if default is None:
        return [Unknown(script, call.func, f"is given no `{slot.keyword}`")]
    return [Place(script, call, default, slot.keyword)]


@dataclass(frozen=True)
class _Search:
    """Follows names to numbers.

    Attributes:
        scripts: Every script that is known.
        left: Names that may still be followed.
    """

    scripts: Sequence[Script]
    left: int = DEEPEST

    def follow(self, script: Script, node: ast.expr) -> Found:
        """The numbers that an expression stands for."""
        if _is_number(node):
            assert isinstance(node, ast.Constant)
            assert isinstance(node.value, int | float)
            return [Place(script, node, node.value)]
        if self.left and isinstance(node, ast.Name):
            return self._deeper()._name(script, node)
        if self.left and isinstance(node, ast.Attribute):
            return self._deeper()._attribute(script, node)
        return [Unknown(script, node, "is not a plain number")]

    def _deeper(self) -> _Search:
        return replace(self, left=self.left - 1)

    def _name(self, script: Script, node: ast.Name) -> Found:
        """A parameter of a function around it, or a constant of the file."""
        for above in script.around(node):
            if isinstance(above, FUNCTIONS) and node.id in _parameters(above):
                return self._parameter(script, above, node.id, node)
            if isinstance(above, ast.Lambda) and node.id in [one.arg for one in above.args.args]:
                return [Unknown(script, node, "is what a lambda is called with")]
        bound = [] if node.id in script.imported else list(_visible(script, node))
        if len(bound) == 1 and bound[0] is not None:
            return self.follow(script, bound[0])
        why = "is set in more than one place" if bound else "is set in another file"
        return [Unknown(script, node, why)]

    def _attribute(self, script: Script, node: ast.Attribute) -> Found:
        """``self.name``, ``self.hparams.name``, or an option of the command line."""
        owner = ast.unparse(node.value)
        if where := next(_stores(self.scripts, node.attr), ""):
            return [Unknown(script, node, f"is set in {where}")]
        within = next((n for n in script.around(node) if isinstance(n, ast.ClassDef)), None)
        if owner == "self" and within is not None:
            bound = [v for _, v in _bindings(script, f"self.{node.attr}", within)]
            bound += [v for v in _fields(within, node.attr)] if not bound else []
            if len(bound) == 1 and bound[0] is not None:
                return self.follow(script, bound[0])
        if owner == "self.hparams" and within is not None:
            maker = _method(within, "__init__")
            if maker is not None and node.attr in _parameters(maker):
                return self._parameter(script, maker, node.attr, node)
        options = [one for s in self.scripts for one in _options(s, node.attr)]
        if not owner.startswith("self") and len(options) == 1:
            there, default, flag = options[0]
            note = f"`{flag}` on the command line goes before it."
            return [_noted(one, note) for one in self.follow(there, default)]
        return [Unknown(script, node, "is set elsewhere")]

    def _parameter(self, script: Script, function: Function, name: str, node: ast.expr) -> Found:
        """What the calls of a function pass for a parameter, or its default."""
        if any(_bindings(script, name, function)):
            return [Unknown(script, node, "is changed before it is used")]
        above, maker = script.parents[function], function.name
        method = isinstance(above, ast.ClassDef)
        if maker == "__init__" and isinstance(above, ast.ClassDef):
            maker, method = above.name, False
        default = _default(function, name)
        calls = [(s, c) for s in self.scripts for c in _calls_of(s, maker, method)]
        if calls:
            passed = [self._passed(s, c, script, function, name, default) for s, c in calls]
            return [one for found in passed for one in found]
        if default is None:
            return [Unknown(script, node, f"is what `{maker}` is called with, in another file")]
        note = f"It is the default of `{maker}`; what passes another `{name}` goes before it."
        return [_noted(one, note) for one in self.follow(script, default)]

    def _passed(
        self,
        there: Script,
        call: ast.Call,
        script: Script,
        function: Function,
        name: str,
        default: ast.expr | None,
    ) -> Found:
        """What one call passes for a parameter."""
        given = _argument(call, name, _position(function, name))
        if given is not None:
            return self.follow(there, given)
        if default is None or _starred(call) or _doubly_starred(call):
            return [Unknown(there, call.func, f"is given `{name}` in another way")]
        return self.follow(script, default)


def _noted(one: Place | Unknown, note: str) -> Place | Unknown:
    return replace(one, note=note) if isinstance(one, Place) else one


def _is_number(node: ast.expr) -> bool:
    value = node.value if isinstance(node, ast.Constant) else None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _argument(call: ast.Call, keyword: str, position: int | None) -> ast.expr | None:
    """An argument by its name, or by its place."""
    for one in call.keywords:
        if one.arg == keyword:
            return one.value
    if position is None or position >= len(call.args) or _starred(call):
        return None
    return call.args[position]


def _starred(call: ast.Call) -> bool:
    return any(isinstance(one, ast.Starred) for one in call.args)


def _doubly_starred(call: ast.Call) -> bool:
    return any(one.arg is None for one in call.keywords)


def _parameters(function: Function) -> list[str]:
    args = function.args
    return [one.arg for one in (*args.posonlyargs, *args.args, *args.kwonlyargs)]


def _position(function: Function, name: str) -> int | None:
    """A parameter's place among a call's arguments, ``self`` left out."""
    args = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    args = args[1:] if args[:1] in (["self"], ["cls"]) else args
    return args.index(name) if name in args else None


def _default(function: Function, name: str) -> ast.expr | None:
    args = function.args
    placed = [*args.posonlyargs, *args.args]
    pairs = list(zip(reversed(placed), reversed(args.defaults), strict=False))
    pairs += [(a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d]
    return next((default for one, default in pairs if one.arg == name), None)


def _bindings(
    script: Script, name: str, within: ast.AST | None = None
) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """Where a name or ``self.name`` is bound, and to what; None for no plain assignment."""
    for node in ast.walk(within or script.tree):
        if not (isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)):
            continue
        if ast.unparse(node) == name:
            above = script.parents[node]
            value = above.value if isinstance(above, ast.Assign | ast.AnnAssign) else None
            yield node, None if len(getattr(above, "targets", ())) > 1 else value


def _visible(script: Script, name: ast.Name) -> Iterator[ast.expr | None]:
    """What a name is bound to where it is read: in the file itself, or in a function around it."""
    scopes = {None, *(one for one in script.around(name) if isinstance(one, FUNCTIONS))}
    shared = any(isinstance(n, ast.Global) and name.id in n.names for n in ast.walk(script.tree))
    for target, value in _bindings(script, name.id):
        inside = (n for n in script.around(target) if isinstance(n, (*FUNCTIONS, ast.ClassDef)))
        if shared or next(inside, None) in scopes:
            yield value


def _stores(scripts: Sequence[Script], name: str) -> Iterator[str]:
    """Where an attribute of that name is set, but for what an object sets of its own."""
    for script in scripts:
        for node in script.every(ast.Attribute):
            assert isinstance(node, ast.Attribute)
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            if node.attr == name and isinstance(node.ctx, ast.Store) and not own:
                yield f"{script.name}, line {line(node)}"


def _fields(owner: ast.ClassDef, name: str) -> Iterator[ast.expr | None]:
    """What a class sets in its own body."""
    for node in owner.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign):
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                yield node.value


def _method(owner: ast.ClassDef, name: str) -> Function | None:
    return next((n for n in owner.body if isinstance(n, FUNCTIONS) and n.name == name), None)


def _calls_of(script: Script, name: str, method: bool) -> Iterator[ast.Call]:
    """Calls of a method by its last name; of a function or class, also as what is imported."""
    for node in script.every(ast.Call):
        assert isinstance(node, ast.Call)
        plain = method or isinstance(node.func, ast.Name)
        called = script.full_name(node.func) or (ast.unparse(node.func) if plain else "")
        if called.rpartition(".")[2] == name:
            yield node


def _options(script: Script, name: str) -> Iterator[tuple[Script, ast.expr, str]]:
    """Options of an argument parser that set an attribute, with their defaults."""
    for call in _calls_of(script, "add_argument", True):
        flags = [a.value for a in call.args if isinstance(a, ast.Constant)]
        long = [f for f in flags if isinstance(f, str) and f.startswith("--")]
        dest = _argument(call, "dest", None)
        names = (
            [dest.value]
            if isinstance(dest, ast.Constant)
            else [f[2:].replace("-", "_") for f in long[:1]]
        )
        default = _argument(call, "default", None)
        if name in names and default is not None:
            yield script, default, long[0] if long else name
