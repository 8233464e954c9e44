"""What an import loads, and what is said when an optional dependency is absent."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import batchlab

HEAVY = {"altair", "jinja2", "loky", "polars", "scipy", "sklearn", "vl_convert"}

# Makes the optional dependencies as absent as on a machine that never had them.
BLOCK = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def loaded_by(code):
    """Top-level modules that a line loads in a fresh interpreter."""
    tops = "sorted({name.partition('.')[0] for name in sys.modules})"
    done = run(f"import json, sys\n{code}\nprint(json.dumps({tops}))")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


PARTS = [
    *("batchlab.optim", "batchlab.data", "batchlab.watch"),
    *("batchlab.accumulation", "batchlab.finding"),
]


def test_the_parts_for_the_users_loop_load_nothing_heavy():
    assert loaded_by(f"import {', '.join(['batchlab', *PARTS])}") & HEAVY == set()


def test_the_parts_for_the_users_loop_work_with_the_core_install():
    done = run(f"{BLOCK}\nimport {', '.join(['batchlab', *PARTS])}\nbatchlab.RunConfig")
    assert done.returncode == 0, done.stderr


def test_watching_works_with_the_core_install():
    done = run(
        # torch itself asks whether one of them is there, which must be answered.
        f"import sys\nsys.modules.update(dict.fromkeys({HEAVY!r}))\n"
        "import tempfile, torch\nfrom batchlab.watch import Watch\n"
        "model = torch.nn.Linear(2, 1)\n"
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "with Watch(tempfile.mkdtemp(), model, optimizer) as watching:\n"
        "    for batch in watching.data(torch.ones(30, 4, 2).unbind()):\n"
        "        model(batch).sum().backward(); optimizer.step(); optimizer.zero_grad()\n"
    )
    assert done.returncode == 0, done.stderr
    assert "screened" in done.stderr


def test_sharpness_is_measured_with_the_core_install():
    done = run(
        f"{BLOCK}\nimport batchlab, torch\nx = torch.randn(40, 3)\n"
        "loss = torch.nn.CrossEntropyLoss(reduction='none')\n"
        "print(batchlab.sharpness(torch.nn.Linear(3, 2), loss, (x, torch.arange(40) % 2)))\n"
    )
    assert done.returncode == 0, done.stderr
    assert "largest eigenvalue" in done.stdout


def test_a_planted_heavy_import_is_seen():
    assert "jinja2" in loaded_by("import batchlab, jinja2")


@pytest.mark.parametrize("module", ["batchlab", "batchlab.errors", "batchlab.cli"])
def test_help_and_version_need_no_torch(module):
    assert "torch" not in loaded_by(f"import {module}")


@pytest.mark.parametrize("name", ["advise", "Trace"])
def test_an_absent_extra_is_named_with_the_line_that_installs_it(name):
    done = run(f"{BLOCK}\nimport batchlab\nbatchlab.{name}")
    assert "batchlab.errors.MissingDependencyError" in done.stderr
    assert "install batchlab[advise]" in done.stderr


def test_types_are_checked_while_the_tests_run():
    with pytest.raises(TypeError, match="Type-check error"):
        batchlab.schedules.batch_schedule(None)


@pytest.mark.wrong_type
def test_a_test_marked_wrong_type_sees_what_users_see():
    with pytest.raises(batchlab.errors.InvalidTypeError, match="`batch_size` must be a whole"):
        batchlab.schedules.batch_schedule(None)


def test_another_absent_module_is_not_mistaken_for_an_extra():
    block = BLOCK.replace(repr(HEAVY), "{'torch'}")
    done = run(f"{block}\nimport batchlab\nbatchlab.RunConfig")
    assert "MissingDependencyError" not in done.stderr
    assert "No module named 'torch'" in done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'batchlab' has no attribute 'advice'"):
        _ = batchlab.advice


@pytest.mark.parametrize("name", batchlab.__all__)
def test_every_public_name_resolves(name):
    assert getattr(batchlab, name) is not None


def test_type_checkers_and_users_see_the_same_names():
    tree = ast.parse(Path(batchlab.__file__).read_text("utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        node.module: tuple(alias.name for alias in node.names)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == batchlab._HOMES
    assert sorted([*(n for names in seen.values() for n in names), "__version__"]) == dir(batchlab)
    assert dir(batchlab) == batchlab.__all__
