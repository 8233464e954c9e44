"""The command line: help without torch, one sentence a mistake, the commands end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import batchlab
from batchlab import cli
from batchlab.app.advise import ways
from batchlab.engine.choice import EXECUTORS, Choice, Choices
from batchlab.errors import TaskError

COMMANDS = list(cli.COMMANDS)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

TASK_FILE = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab import RunConfig, Task


def data(examples=60):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, 3, generator=draw)
    return inputs, (inputs.sum(1) > 0).long()


def loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def made(**changes):
    given = {"train": data(), "loss": loss, "metric": "accuracy", "name": "tiny"}
    baseline = RunConfig(rule="sgd", batch_size=4, learning_rate=0.1, samples="2ep")
    return Task(lambda: nn.Linear(3, 2), **(given | {"baseline": baseline} | changes))


def task():
    return made()


def scalar_loss():
    return made(loss=lambda outputs, batch: cross_entropy(outputs, batch[1]))


def nan_data():
    inputs, labels = data()
    inputs[3] = float("nan")
    return made(train=(inputs, labels))


def empty():
    return made(train=data(0))


def three_rows():
    return made(train=data(3))


def labels_out_of_range():
    inputs, labels = data()
    return made(train=(inputs, labels + 5))


def raises():
    raise RuntimeError("the disk is gone")


def no_task():
    return 3


def needs_more(argument):
    return made()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a task file, as the working directory."""
    (tmp_path / "tiny_task.py").write_text(TASK_FILE, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def ran(capsys, *arguments):
    """(exit code, stdout, stderr) of a command in this process."""
    capsys.readouterr()
    try:
        cli.main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err


def apart(*arguments):
    """(exit code, stdout, stderr, whether torch was loaded) of a command in its own process."""
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('TORCH', 'torch' in sys.modules, file=sys.stderr))\n"
        "from batchlab import cli\n"
        f"cli.main({list(arguments)!r})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    said, _, loaded = done.stderr.rpartition("TORCH ")
    return done.returncode, done.stdout, said, loaded.strip() == "True"


# ------------------------------------------------------------------ help, version, wrong arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        (),
        ("--version",),
        ("advise", "--help"),
        ("compare", "--help"),
        ("advise",),
        ("nonsense",),
        ("fit", "digits", "--max-val", "many"),
        ("advise", "digits", "--objective", "fame"),
    ],
)
def test_help_version_and_wrong_arguments_load_no_torch(arguments):
    code, _, err, loaded = apart(*arguments)
    assert not loaded
    assert "Traceback" not in err
    assert code == (0 if "--help" in arguments or arguments in ((), ("--version",)) else 2)


def test_a_command_that_loads_torch_is_seen():
    assert apart("doctor")[3]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    code, out, _ = ran(capsys, command, "--help")
    assert code == 0
    assert f"usage: batchlab {command}" in out
    assert "None" not in out
    assert "--no-" not in out.replace("--no-growing", "")


@pytest.mark.parametrize("command", ["advise", "critical", "compare"])
def test_a_task_is_a_positional_argument(command, capsys):
    assert ran(capsys, command, "--help")[1].splitlines()[0].endswith("TASK")


def test_batchlab_alone_prints_its_help(capsys):
    code, out, _ = ran(capsys)
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_version_is_printed(flag, capsys):
    assert ran(capsys, flag) == (0, f"batchlab {batchlab.__version__}\n", "")


def test_python_m_batchlab_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "batchlab", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("batchlab ")


def test_a_missing_argument_is_named_and_ends_with_2(capsys):
    code, _, err = ran(capsys, "compare", "digits")
    assert code == 2
    assert "--batch-sizes" in err


# ------------------------------------------------------------------ mistakes


def sentence(capsys, *arguments):
    """The one sentence on standard error of a command that fails."""
    code, out, err = ran(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("batchlab: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.py:task", "nowhere.py"),
        ("no_such_module:task", "no_such_module"),
        ("tiny_task.py:missing", "missing"),
        ("tiny_task.py", "must be a built-in name, file.py:function or module:function"),
        ("tiny_task.py:raises", "the disk is gone"),
        ("tiny_task.py:no_task", "Task"),
        ("tiny_task.py:needs_more", "argument"),
        ("tiny_task.py:scalar_loss", 'reduction="none"'),
        ("tiny_task.py:nan_data", "free of NaN"),
        ("tiny_task.py:empty", "examples"),
        ("tiny_task.py:three_rows", "3"),
        ("tiny_task.py:labels_out_of_range", "label"),
    ],
)
def test_a_mistake_in_the_task_is_one_sentence(name, said, here, capsys):
    assert said in sentence(capsys, "noise", name, "--device", "cpu", "--json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("advise", "tiny_task.py:task", "--objective", "cost"), "--price-per-hour"),
        (("advise", "tiny_task.py:task", "--at-least", "accuracy"), "METRIC=VALUE"),
        (("advise", "tiny_task.py:task", "--budget", "soon"), "90s, 2m or 1h"),
        (("advise", "tiny_task.py:task", "--worth", "0.9"), "`worth` must be"),
        (("advise", "tiny_task.py:task", "--max-spend", "1"), "`max_spend` must be left out"),
        (("advise", "tiny_task.py:task", "--price-per-hour", "a=b"), "a number, or KIND=PRICE"),
        (("advise", "tiny_task.py:task", "--price-per-hour", "a=1"), "must be one number without"),
        (
            ("advise", "digits", "--price-per-hour", "1", "--price-per-hour", "a=1"),
            "given once, or as KIND=PRICE for each kind of node",
        ),
        (("advise", "tiny_task.py:task", "--on", "mars"), "`on` must be ray, ray://HOST:PORT"),
        (("study", "batch-reuse", "--max-spend", "1"), "`max_spend` must be left out"),
        (
            ("compare", "tiny_task.py:task", "--reuse", "2", "--on", "ray"),
            "`on` must be left out with --reuse",
        ),
        (("advise", "tiny_task.py:task", "--subset", "150%"), "`subset` must be a share such as"),
        (("noise", "tiny_task.py:task", "--subset", "5%"), "`subset` must be at least 20"),
        (
            ("compare", "tiny_task.py:task", "--batch-sizes", "8", "--subset", "52"),
            "`subset` must be at most the 51 training examples",
        ),
        (("fit", "tiny_task.py:task", "--memory-limit", "much"), "`memory_limit` must be"),
        (("fit", "tiny_task.py:task", "--device", "abacus"), "`device` must be"),
        (("noise", "tiny_task.py:task", "--samples", "5upd"), "`samples` must be"),
        (("noise", "tiny_task.py:task", "--data", "."), "`data` must be left out"),
        (("compare", "tiny_task.py:task", "--batch-sizes", "0"), "`batch_sizes` must be"),
        (("critical", "tiny_task.py:task", "--at", "0%"), "`at` must be a share of the training"),
        (("critical", "tiny_task.py:task", "--factors", "1"), "`factors` must be whole numbers"),
        (("critical", "tiny_task.py:task", "--window", "3upd"), "`window` must be"),
        (("critical", "tiny_task.py:task", "--margin", "0"), "`margin` must be a share above 0"),
        (("critical", "tiny_task.py:task", "--seeds", "1"), "`seeds` must be a whole number, 2"),
        (("critical", "tiny_task.py:task", "--budget", "soon"), "90s, 2m or 1h"),
        (("critical", "tiny_task.py:task", "--margin", "0", "--dry-run"), "`margin` must be"),
        (("plan", "--examples", "10", "--price-per-hour", "1"), "--seconds-per-update"),
        (("plan", "--examples", "10", "--batch-size", "0:8 x"), "`batch_size` must be"),
        (("exponents", "exp(z**2)"), "`target` must be square integrable"),
        (("report",), "`folders` must be"),
        (("report", "nowhere"), "`nowhere` holds no result"),
        (("noise", "mnist"), "hf download"),
    ],
)
def test_a_mistake_in_the_options_is_one_sentence(arguments, said, here, capsys):
    quiet = () if arguments[0] == "report" else ("--json",)
    assert said in sentence(capsys, *arguments, *quiet)


@pytest.mark.parametrize("command", ["critical", "compare"])
def test_a_start_under_torchrun_is_refused(command, here, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    sizes = ("--batch-sizes", "2") if command == "compare" else ()
    told = sentence(capsys, command, "tiny_task.py:task", "--json", *sizes)
    assert "start it without torchrun" in told


def test_a_folder_that_cannot_be_written_is_one_sentence(here, capsys):
    Path("taken").write_text("", "utf-8")
    found = sentence(capsys, "noise", "tiny_task.py:task", "--out", "taken", "--json")
    assert "taken" in found


def test_our_own_bugs_keep_their_traceback(monkeypatch):
    def broken(**_given):
        raise ZeroDivisionError

    monkeypatch.setattr(cli.batchlab, "plan", broken, raising=False)
    with pytest.raises(ZeroDivisionError):
        cli.main(["plan", "--examples", "1"])


@pytest.mark.parametrize(("command", "hint"), [("plan", ""), ("advise", " Add --resume")])
def test_an_interruption_ends_with_130(command, hint, capsys, monkeypatch):
    def interrupted(*_given, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.batchlab, "plan", interrupted, raising=False)
    monkeypatch.setattr(cli, "_advice", interrupted)
    arguments = ("--examples", "1") if command == "plan" else ("digits", "--json")
    code, _, err = ran(capsys, command, *arguments)
    assert code == 130
    assert err.startswith(f"batchlab: interrupted.{hint}")


def test_advise_loads_a_task_once_and_its_budget_counts_that(here, capsys, monkeypatch):
    asked = {}

    def stop(prepared, options, folder, **given):
        asked.update(given, folder=folder)
        raise TaskError("that is enough")

    Path("counted_task.py").write_text(
        TASK_FILE + "\nimport time\n\ncalls = []\n\n"
        "def counted():\n    calls.append(time.perf_counter())\n    return task()\n",
        "utf-8",
    )
    monkeypatch.setattr("batchlab.app.advise.run_stages", stop)
    told = sentence(capsys, "advise", "counted_task.py:counted", "--budget", "30s", "--json")
    assert "that is enough" in told
    (called,) = sys.modules.pop("counted_task").calls
    assert asked["began"] <= called
    assert asked["folder"].name == "advise-tiny"


# ------------------------------------------------------------------ the commands


def test_plan_prints_a_table_or_json(capsys):
    code, out, _ = ran(capsys, "plan", "--examples", "10000", "--batch-size", "100")
    assert code == 0
    assert "100 updates an epoch" in out
    code, out, _ = ran(capsys, "plan", "--examples", "100", "--last", "short", "--json")
    assert json.loads(out)["phases"][0]["last_batch"] == 4


def test_doctor_prints_a_table_or_json(capsys):
    code, out, _ = ran(capsys, "doctor")
    assert code == 0
    assert {"system", "device", "memory", "versions"} <= {
        line.split()[0] for line in out.split("\n") if line
    }
    assert json.loads(ran(capsys, "doctor", "--json")[1])["cores"] >= 1


def test_init_writes_a_task_that_runs(here, capsys):
    code, out, _ = ran(capsys, "init", "mine.py")
    assert code == 0
    assert "batchlab advise mine.py:task" in out
    code, _, err = ran(
        capsys, "noise", "mine.py:task", "--samples", "640", "--points", "1", "--device", "cpu"
    )
    assert (code, "Traceback" in err) == (0, False)
    assert "mine.py" in sentence(capsys, "init", "mine.py")


@linux
def test_fit_prints_the_largest_size_and_where_its_page_lies(here, capsys):
    code, out, _ = ran(
        capsys, "fit", "tiny_task.py:task", "--max-val", "4", "--out", "gpu", "--device", "cpu"
    )
    assert code == 0
    assert "A micro-batch of 4 examples fits" in out
    assert out.splitlines()[-1] == f"report: {Path('gpu/fit.html')}"
    assert {path.name for path in Path("gpu").iterdir()} >= {
        "machine.json",
        "fit.json",
        "fit.html",
    }


def test_noise_prints_json_and_nothing_else(here, capsys):
    code, out, err = ran(
        capsys, "noise", "tiny_task.py:task", "--points", "2", "--device", "cpu", "--json"
    )
    assert (code, err) == (0, "")
    assert [m["samples"] for m in json.loads(out)["moments"]] == [28, 100]
    assert Path("batchlab-results/noise-tiny/noise.html").is_file()


def test_a_dry_run_on_a_part_prices_the_pair_on_all_data(here, capsys):
    asked = ("advise", "tiny_task.py:task", "--subset", "50%", "--dry-run", "--device", "cpu")
    code, out, _ = ran(capsys, *asked)
    assert code == 0
    assert "one pair on all data: about" in out
    assert "trained on 26 of 51 training examples" in out


def test_noise_on_a_part_has_as_many_passes(here, capsys):
    asked = ("noise", "tiny_task.py:task", "--points", "1", "--subset", "26", "--device", "cpu")
    code, out, _ = ran(capsys, *asked, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["train_examples"], found["samples"]) == (26, 52)


def test_critical_prices_prints_and_judges_anew(here, capsys, monkeypatch):
    monkeypatch.setattr("batchlab._platform.available_cores", lambda: 1)
    asked = ("critical", "tiny_task.py:task", "--seeds", "2", "--at", "8", "--device", "cpu")
    code, out, _ = ran(capsys, *asked, "--dry-run")
    assert code == 0
    assert "branches of 64 examples with batch sizes 4, 8, 2 seeds each" in out
    assert not Path("batchlab-results").exists()
    code, out, _ = ran(capsys, *asked, "--verbose")
    assert code == 0
    assert "executor by rule: stacked (no convolution" in out
    assert "critical batch size by branching" in out
    assert (
        out.splitlines()[-1] == f"report: {Path('batchlab-results/critical-tiny/critical.html')}"
    )
    code, out, err = ran(capsys, *asked, "--margin", "0.5", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["margin"] == 0.5
    assert "merrill2025" in ran(capsys, "cite", "batchlab-results/critical-tiny")[1]


@pytest.mark.parametrize("below", ["labels", "robustness/noise"])
def test_ways_in_folders_of_a_result_are_told_after_its_own_and_each_once(tmp_path, below):
    first, other = (Choice("loop", 0, 0, why, {}) for why in ("asked for", "a single run"))
    Choices(tmp_path / below / EXECUTORS).keep("key", other)
    Choices(tmp_path / EXECUTORS).keep("key", first)
    Choices(tmp_path / "a" / EXECUTORS).keep("key", first)
    assert ways(tmp_path) == [
        "executor by rule: loop (asked for)",
        "executor by rule: loop (a single run)",
    ]


def test_compare_prints_both_tables(here, capsys):
    asked = ("compare", "tiny_task.py:task", "--batch-sizes", "2", "8", "--seeds", "2")
    code, out, _ = ran(capsys, *asked, "--device", "cpu", "--samples", "1ep", "--verbose")
    assert code == 0
    assert "executor by rule: stacked (no convolution" in out
    assert "At equal samples" in out
    assert "At equal updates" in out
    assert Path("batchlab-results/compare-tiny/compare.json").is_file()
    assert ran(capsys, *asked, "--device", "cpu", "--samples", "1ep", "--json")[0] == 0


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["advise", "my task.py:t"], "batchlab advise 'my task.py:t'"),
        (["demo", "--resume"], "batchlab advise digits --resume --price-per-hour 1.2"),
        (["demo", "--price-per-hour", "2"], "batchlab advise digits --price-per-hour 2"),
    ],
)
def test_the_command_in_a_report_can_be_pasted(monkeypatch, typed, command):
    monkeypatch.setattr("sys.argv", ["batchlab", *typed])
    assert cli._typed() == command
