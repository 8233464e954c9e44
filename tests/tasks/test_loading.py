import dataclasses
import importlib
import os
import pickle
import subprocess
import sys
import textwrap

import cloudpickle
import pytest

from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, MissingDependencyError, TaskError
from batchlab.tasks import load
from batchlab.tasks.loading import import_origin

GOOD = """
import torch
from batchlab import Task

class Model(torch.nn.Linear):
    pass

def loss(outputs, batch):
    return (outputs - batch[1]).square().mean(1)

def make():
    data = torch.randn(50, 3), torch.randn(50, 2)
    return Task(lambda: Model(3, 2), data, loss=loss)

def named():
    return Task(lambda: Model(3, 2), (torch.zeros(50, 3),), loss=loss, name="mine")

ready = make()
number = 3
_hidden = make

def needs(argument):
    return make()

def returns_none():
    return None

def raises():
    raise RuntimeError("disk full\\nsecond line")

def leaves():
    raise SystemExit(1)

def wrong():
    return Task(lambda: Model(3, 2), (torch.zeros(50, 3),), loss=loss, metric="speed")
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """What loading puts into the search path and the modules is taken back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("loaded_"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    def write(text, name="loaded_task.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def test_a_built_in_task_knows_its_name():
    assert load("digits").origin == "digits"


def test_a_function_in_a_file_is_called(write):
    path = write(GOOD)
    task = load(f"{path}:make")
    assert task.name == "make"
    assert task.origin == f"{path}:make"
    assert load(f"{path}:named").name == "mine"
    assert load(f"{path}:ready").train is not None


def test_a_task_named_task_takes_the_name_of_its_file(write):
    path = write(GOOD + "\ntask = make\n")
    assert load(f"{path}:task").name == "loaded_task"


@pytest.mark.parametrize("folder", ["a b", "日本語", "x@y"])
def test_odd_folders_work(write, folder):
    path = write(GOOD, f"{folder}/loaded_odd.py")
    assert load(f"{path}:make").origin == f"{path}:make"


def test_a_relative_path_is_remembered_as_absolute(write, monkeypatch):
    path = write(GOOD)
    monkeypatch.chdir(path.parent)
    assert load("loaded_task.py:make").origin == f"{path}:make"


def test_neighbours_of_the_file_can_be_imported(write):
    write("SIZE = 3", "loaded_neighbour.py")
    path = write("from loaded_neighbour import SIZE\n" + GOOD, "loaded_user.py")
    assert load(f"{path}:make").name == "make"


def test_a_module_by_dotted_name_is_found_from_the_working_folder(write, monkeypatch):
    path = write(GOOD, "loaded_package/inner.py")
    monkeypatch.chdir(path.parent.parent)
    assert load("loaded_package.inner:make").origin == "loaded_package.inner:make"


def test_two_files_of_one_name_in_two_folders_can_both_be_loaded(write):
    first, second = write(GOOD, "a/loaded_twin.py"), write(GOOD, "b/loaded_twin.py")
    assert load(f"{first}:make").origin != load(f"{second}:make").origin
    assert load(f"{first}:make").origin == f"{first}:make"


def test_a_worker_finds_classes_pickled_by_name(write):
    task = load(f"{write(GOOD)}:make")
    content = pickle.dumps(task.model())
    del sys.modules["loaded_task"]
    import_origin(task.origin)
    assert type(pickle.loads(content)).__name__ == "Model"


@pytest.mark.parametrize("changes", [{}, {"name": "mine"}, {"baseline": RunConfig()}])
def test_what_is_made_of_a_loaded_task_is_not_found_where_it_was(changes):
    task = load("digits")
    assert pickle.loads(cloudpickle.dumps(task)).origin == "digits"
    assert dataclasses.replace(task, **changes).origin is None
    assert task.origin == "digits"


@pytest.mark.parametrize("origin", [None, "digits", "mnist@/some/where"])
def test_nothing_is_imported_for_a_built_in_origin(origin):
    before = set(sys.modules)
    import_origin(origin)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digit", "`task` must be a built-in name, file.py:function or .*; got 'digit'"),
        ("", "`task` must be a built-in name"),
        ("nothing.py:task", "There is no file `nothing.py`"),
        (r"C:\nothing.py:task", "There is no file"),
        ("no_such_module:task", "The module `no_such_module` cannot be imported"),
        ("no.such.module:task", "The module `no.such.module` cannot be imported"),
    ],
)
def test_a_wrong_name_is_refused(name, said):
    with pytest.raises(TaskError, match=said):
        load(name)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            "mak",
            "must be a function in `loaded_task`; got 'mak'. It has: loss, make, named, needs",
        ),
        ("", "must be a function in `loaded_task`; got ''"),
        ("number", "must be a function that returns a Task; got 'number, a int'"),
        ("needs", r"raised TypeError: needs\(\) missing 1 required positional argument"),
        ("returns_none", "a function that returns a batchlab.Task; got 'NoneType from"),
        ("raises", r"raised RuntimeError: disk full \(.*loaded_task.py, line \d+, in raises\)\.$"),
        ("leaves", r"raised SystemExit: 1 \(.*, in leaves\)\.$"),
        ("wrong", "^`metric` must be one of"),
    ],
)
def test_a_function_that_fails_is_one_sentence(write, function, said):
    with pytest.raises((TaskError, InvalidValueError), match=said) as caught:
        load(f"{write(GOOD)}:{function}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError: "),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys; sys.exit('usage: me')", "SystemExit: usage: me"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence(write, text, said):
    path = write(text)
    with pytest.raises(TaskError, match=f"Importing `.*loaded_task.py` raised {said}") as caught:
        load(f"{path}:task")
    assert "\n" not in str(caught.value)
    assert "loaded_task" not in sys.modules


@pytest.mark.parametrize("name", ["json.py", "random.py", "torch.py", "batchlab.py"])
def test_a_file_that_would_hide_a_module_is_refused(write, name):
    there = sys.modules[name[:-3]]
    with pytest.raises(TaskError, match=f"a file with a name of its own; got '{name}'. Rename"):
        load(f"{write(GOOD, name)}:make")
    assert sys.modules[name[:-3]] is there


@pytest.mark.parametrize("name", ["digits", "some.py:task"])
def test_a_data_folder_for_a_task_that_has_none_is_refused(name, tmp_path):
    with pytest.raises(InvalidValueError, match="`data` must be left out"):
        load(name, tmp_path)


def test_an_absent_dependency_is_answered_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.delitem(sys.modules, "batchlab.tasks.digits", raising=False)
    with pytest.raises(MissingDependencyError, match=r"install batchlab\[advise\]"):
        load("digits")


def test_loading_a_name_does_not_import_the_other_built_in_tasks():
    code = "import sys, batchlab.tasks; print('PIL' in sys.modules, 'sklearn' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert ran.stdout.split() == ["False", "False"]


def test_a_file_that_the_user_has_imported_is_that_module(tmp_path, monkeypatch):
    (tmp_path / "imported_before.py").write_text(
        "from batchlab.tasks.digits import task\n", "utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("imported_before")
    load(f"{tmp_path / 'imported_before.py'}:task")
    assert sys.modules["imported_before"] is module
