"""The parts of batchlab import downhill only, and a few house rules that a parser can check."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "batchlab"

# A part imports parts of earlier lines only; inside one package everything may be imported.
LAYERS = [
    line.split()
    for line in """
    types errors
    _tree _html _curves _text _random _platform _processes _snapshot
    _memory _finder _team citations
    schedules stats models _meter
    rules samplers theory
    optim data accumulation
    finding
    config
    tasks
    engine
    measure progress cluster
    watch
    studies advisor
    patching
    report
    app
    optuna
    lightning huggingface
    testing
    cli
""".strip().splitlines()
]
HEIGHT = {part: height for height, parts in enumerate(LAYERS) for part in parts}

# The public table and `python -m batchlab` stand above everything; they load what is asked for.
ABOVE = ("__init__", "__main__")
# These may import inside a function: the first three so that `--help` answers at once.
LATE = ("__init__", "__main__", "cli", "_platform")


def imports(tree, known):
    """(imported module, whether at the top) of every batchlab import in a file."""
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [target(node.module or "", alias.name, known) for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "batchlab":
                yield name, id(node) in top


def target(module, name, known):
    """`from module import name` takes a submodule if there is one, else a name in the module."""
    return f"{module}.{name}" if f"{module}.{name}" in known else module


@functools.cache
def modules(src):
    """Dotted name → parsed file."""
    return {
        dotted(path, src): ast.parse(path.read_text("utf-8"), str(path))
        for path in src.rglob("*.py")
    }


def dotted(path, src):
    parts = ("batchlab", *path.relative_to(src).with_suffix("").parts)
    is_top = parts == ("batchlab", "__init__")
    return ".".join(parts[:-1] if parts[-1] == "__init__" and not is_top else parts)


def part(module):
    return [*module.split("."), "__init__"][1]


def uphill(src):
    """Every import that does not go downhill, as a sentence."""
    found = modules(src)
    for module, tree in found.items():
        here = part(module)
        if here in ABOVE:
            continue
        for name, _ in imports(tree, set(found)):
            there = part(name)
            if here == "cli" and name == "batchlab":
                continue  # the public table, which loads what is asked for
            if there != here and HEIGHT.get(there, len(LAYERS)) >= HEIGHT.get(here, -1):
                yield f"{module} imports {name}"


def late(src):
    found = modules(src)
    for module, tree in found.items():
        if part(module) not in LATE:
            yield from (
                f"{module} imports {name} inside a block"
                for name, at_top in imports(tree, set(found))
                if not at_top
            )


def cycle(src):
    """The first import cycle between files, or nothing."""
    found = modules(src)
    graph = {
        module: {name for name, at_top in imports(tree, set(found)) if at_top}
        for module, tree in found.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


@pytest.fixture
def plant(tmp_path):
    """Writes a small source tree, path → text, and returns its folder."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        return tmp_path

    return write


def test_every_part_has_a_layer():
    assert {part(module) for module in modules(SRC)} - set(HEIGHT) <= set(ABOVE)


def test_imports_go_downhill():
    assert list(uphill(SRC)) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("rules.py", "from batchlab import engine"),
        ("rules.py", "import batchlab.engine.trace"),
        ("rules.py", "def f():\n    from batchlab.engine import Trace"),
        ("rules.py", "if True:\n    from batchlab import cli as tool"),
        ("rules.py", "from batchlab import samplers"),
        ("rules.py", "from batchlab import Task"),
        ("rules.py", "import batchlab"),
        ("rules.py", "from batchlab import unlisted"),
        ("unlisted.py", "from batchlab import errors"),
        ("engine/step.py", "from batchlab.measure.fit import fit"),
    ],
)
def test_a_planted_import_uphill_is_found(plant, file, line):
    others = dict.fromkeys(("errors.py", "samplers.py", "unlisted.py", "engine/trace.py"), "")
    assert len(list(uphill(plant(others | {file: line})))) == 1


def test_imports_downhill_are_allowed(plant):
    src = plant(
        {
            "types.py": "import torch",
            "_tree.py": "from batchlab.types import Params",
            "rules.py": "from batchlab import _tree\nfrom batchlab.types import Params",
            "engine/__init__.py": "",
            "engine/trace.py": "from batchlab import rules",
            "engine/step.py": "from batchlab.engine import trace",
            "cli.py": "def main():\n    from batchlab import engine",
        }
    )
    assert list(uphill(src)) == []
    assert list(late(src)) == []
    assert cycle(src) is None


def test_imports_stand_at_the_top():
    assert list(late(SRC)) == []


def test_a_planted_late_import_is_found(plant):
    src = plant({"types.py": "", "rules.py": "def f():\n    from batchlab.types import Params"})
    assert list(late(src)) == ["batchlab.rules imports batchlab.types inside a block"]


def test_files_do_not_import_in_circles():
    assert cycle(SRC) is None


def test_a_planted_circle_is_found(plant):
    a, b = "from batchlab.engine.b import f", "from batchlab.engine import a"
    assert cycle(plant({"engine/a.py": a, "engine/b.py": b})) is not None


def test_no_relative_import_no_global_statement_no_drawer():
    for module, tree in modules(SRC).items():
        assert module.split(".")[-1] not in ("utils", "helpers", "common", "misc"), module
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ImportFrom) and node.level), module
            assert not isinstance(node, ast.Global), f"{module}, line {node.lineno}"
