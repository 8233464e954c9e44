import subprocess
import sys

import pytest
import torch

from batchlab.errors import InvalidValueError
from batchlab.tasks import load, prepare
from batchlab.tasks.template import write_template


@pytest.mark.parametrize("name", ["my_task.py", "my task.py", "課題.py", 'quo"ted.py'])
def test_the_template_loads_and_prepares_as_it_stands(tmp_path, name):
    path = write_template(tmp_path / name)
    prepared = prepare(load(f"{path}:task"), device="cpu")
    assert prepared.examples == 2550
    assert prepared.task.name == path.stem
    assert prepared.baseline.samples == 10 * prepared.examples


def test_the_template_learns(tmp_path):
    prepared = prepare(load(f"{write_template(tmp_path / 'learns.py')}:task"), device="cpu")
    objective = prepared.objective(0)
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.01, momentum=0.9)
    whole = prepared.validation.batch(torch.arange(prepared.validation.examples))
    before = objective(whole)[0].mean()
    for index in torch.arange(960).view(30, 32):
        optimizer.zero_grad()
        objective(prepared.train.batch(index))[0].mean().backward()
        optimizer.step()
    assert objective(whole)[0].mean() < 0.7 * before


def test_the_template_says_how_to_run_itself(tmp_path):
    text = write_template(tmp_path / "mine.py").read_text(encoding="utf-8")
    assert "batchlab advise mine.py:task" in text
    assert "{" not in text


def test_the_template_is_tidy(tmp_path):
    write_template(tmp_path / "mine.py")
    chosen = ["--isolated", "--select", "E,F,B,UP", "--line-length", "99"]
    command = [sys.executable, "-m", "ruff", "check", *chosen, "mine.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("precious")
    with pytest.raises(InvalidValueError, match=r"`file` must be a new file.*Nothing was over"):
        write_template(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "said"),
    [("mine", "ends in .py"), ("mine.txt", "ends in .py"), ("no/mine.py", "folder that exists")],
)
def test_an_impossible_place_is_refused(tmp_path, name, said):
    with pytest.raises(InvalidValueError, match=said):
        write_template(tmp_path / name)
