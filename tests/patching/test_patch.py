"""The change as a patch: it applies, it is whole or not there, and it changes what it should."""

import ast
import dataclasses
import itertools
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from batchlab import cli
from batchlab.advisor.record import Part
from batchlab.app.advice import Advice
from batchlab.errors import InvalidValueError, ResultError
from batchlab.patching import make
from batchlab.patching.division import Division, divided
from batchlab.types import Evidence
from tests.report import sample

PLAIN = """\
import torch
from torch.utils.data import DataLoader, TensorDataset

BATCH_SIZE = 32
x = torch.arange(640.0).reshape(160, 4)
data = TensorDataset(x, x[:, 0].long() % 2)
train_loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True)
val_loader = DataLoader(data, batch_size=32)
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
rate, sizes = optimizer.param_groups[0]["lr"], {len(batch[0]) for batch in train_loader}
"""

LIGHTNING = """\
import lightning as L
import torch
from torch.utils.data import DataLoader


class Data(L.LightningDataModule):
    def __init__(self, size=32):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        return DataLoader(list(range(160)), self.hparams.size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(list(range(160)), batch_size=32)


class Net(L.LightningModule):
    def __init__(self, lr=1e-3):
        super().__init__()
        self.lr = lr
        self.net = torch.nn.Linear(1, 1)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


trainer = L.Trainer(max_epochs=1, logger=False)
net = Net(lr=0.05)
rate = net.configure_optimizers().param_groups[0]["lr"]
sizes = {len(batch) for batch in Data().train_dataloader()}
accumulation = trainer.accumulate_grad_batches
"""

TRAINER = """\
import tempfile

from transformers import TrainingArguments

args = TrainingArguments(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=16,
    gradient_accumulation_steps=2,
    learning_rate=5e-2,
    use_cpu=True,
)
rate, sizes = args.learning_rate, {args.per_device_train_batch_size}
accumulation = args.gradient_accumulation_steps
"""
SCRIPTS = {"pytorch": PLAIN, "lightning": LIGHTNING, "huggingface": TRAINER}


@pytest.fixture
def advice():
    """32 → 64 and 0.05 → 0.2, of which 1,221 fit."""
    return Advice.of(sample.change())


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Writes a script into the current folder, and names it."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="train.py"):
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


# ------------------------------------------------------------------ how a batch is cut


def test_a_division_is_the_whole_batch_in_the_fewest_equal_pieces_that_fit():
    for size, most in itertools.product(range(1, 60), [None, 1, 2, 3, 7, 40]):
        cut = divided(size, most)
        assert cut.batch_size == size
        pieces = [k for k in range(1, size + 1) if size % k == 0 and size // k <= (most or size)]
        assert cut.accum_steps == min(pieces)


def test_processes_share_a_batch_equally():
    assert divided(64, 16, world_size=2) == Division(16, 2, 2)
    with pytest.raises(InvalidValueError, match="`world_size` must be a divisor of 64; got 3"):
        divided(64, world_size=3)


# ------------------------------------------------------------------ the patch applies


APPLY = {name: name.split() for name in ("git apply", "git apply -p0 -v", "patch", "patch -p0 -s")}


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("tool", APPLY)
def test_the_printed_text_applies(kind, tool, advice, script):
    """With the sentences before it, as it comes out of a pipe."""
    patch = advice.apply(file=script(SCRIPTS[kind]))
    assert patch.kind == kind
    subprocess.run(APPLY[tool], input=str(patch).encode(), check=True, capture_output=True)
    assert Path("train.py").read_bytes() == patch.changed[0].after


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_patched_script_runs_with_the_recommended_numbers(kind, advice, script):
    advice.apply(file=script(SCRIPTS[kind])).write()
    after = runpy.run_path("train.py")
    assert after["rate"] == 0.2
    assert max(after["sizes"]) * after.get("accumulation", 1) == 64


@pytest.mark.parametrize("kind", ["lightning", "huggingface"])
def test_what_does_not_fit_is_accumulated_and_the_batch_kept(kind, advice, script):
    patch = advice.apply(file=script(SCRIPTS[kind]), micro_batch_size=24)
    assert "64 = 16 × 4 × 1 (micro-batch × accumulation × processes)" in str(patch)
    patch.write()
    after = runpy.run_path("train.py")
    assert (max(after["sizes"]), after["accumulation"]) == (16, 4)


def test_what_was_measured_to_fit_limits_the_micro_batch(script):
    small = dataclasses.replace(sample.memory(), largest=24)
    advice = Advice.of(sample.change(memory=small))
    assert "gradient_accumulation_steps=4" in advice.apply(file=script(TRAINER)).diff
    assert "    gradient_accumulation_steps=4," in advice.apply("huggingface").snippet


def test_the_loader_for_validation_stays(advice, script):
    assert "val" not in [
        line[1:4] for line in advice.apply(file=script(PLAIN)).diff.splitlines() if line[0] in "+-"
    ]


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
@pytest.mark.parametrize("prefix", ["", "\ufeff", "# 日本語のコメント\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_every_other_byte_stays(ending, prefix, last, advice, script):
    text = f'{prefix}é = "日本語"; ' + PLAIN.strip() + last
    content = text.replace("\n", ending).encode()
    advice.apply(file=script(content)).write()
    expected = content.replace(b"BATCH_SIZE = 32", b"BATCH_SIZE = 64").replace(b"0.05", b"0.2")
    assert Path("train.py").read_bytes() == expected


@pytest.mark.parametrize("tool", ["git apply -p0 -v", "patch -p0 -s"])
def test_a_script_in_a_folder_is_patched_from_here(tool, advice, script):
    Path("src").mkdir()
    patch = advice.apply(file=Path(script(PLAIN, "src/train.py")).resolve())
    subprocess.run(APPLY[tool], input=str(patch).encode(), check=True, capture_output=True)
    assert Path("src/train.py").read_bytes() == patch.changed[0].after


def test_a_file_without_a_last_line_break_is_patched(advice, script):
    text = "import torch\nopt = torch.optim.Adam([torch.ones(1)], lr=0.05)"
    only_rate = dataclasses.replace(advice, changes=advice.changes[1:])
    patch = only_rate.apply(file=script(text))
    subprocess.run(APPLY["git apply"], input=str(patch).encode(), check=True)
    assert Path("train.py").read_text() == text.replace("0.05", "0.2")


def test_several_files_are_one_patch(advice, script):
    loader, rest = PLAIN.split("model = ")
    files = [script(loader, "data.py"), script(f"import torch\nmodel = {rest}", "main.py")]
    patch = advice.apply(file=files)
    assert [one.name for one in patch.changed] == ["data.py", "main.py"]
    subprocess.run(APPLY["git apply"], input=str(patch).encode(), check=True)
    assert "= 64" in Path("data.py").read_text()
    assert "lr=0.2" in Path("main.py").read_text()


# ------------------------------------------------------------------ where a number is found

HEAD = "import torch\nimport argparse\nfrom torch.utils.data import DataLoader as Loader\n"
MODEL = "net = torch.nn.Linear(1, 1)\n"
FOUND = {
    "by its name": "torch.optim.SGD(net.parameters(), lr=0.05)",
    "by its place": "torch.optim.SGD(net.parameters(), 0.05)",
    "behind a constant": "LR = 5e-2\ntorch.optim.SGD(net.parameters(), lr=LR)",
    "behind two constants": "A = 0.05\nB = A\ntorch.optim.SGD(net.parameters(), lr=B)",
    "behind an option": (
        "p = argparse.ArgumentParser()\np.add_argument('--the-rate', default=0.05)\n"
        "a = p.parse_args([])\ntorch.optim.SGD(net.parameters(), lr=a.the_rate)"
    ),
    "behind a parameter": (
        "def made(net, lr):\n    return torch.optim.SGD(net.parameters(), lr=lr)\nmade(net, 0.05)"
    ),
    "behind a default": (
        "def made(net, lr=0.05):\n    return torch.optim.SGD(net.parameters(), lr=lr)\nmade(net)"
    ),
    "under another name": "from torch import optim as o\no.AdamW(net.parameters(), lr=0.05)",
    "in one of two branches": (
        "if net:\n    torch.optim.SGD(net.parameters(), lr=0.05)\n"
        "else:\n    torch.optim.Adam(net.parameters(), lr=0.001)"
    ),
    "beside a local of another function": (
        "LR = 0.05\ndef other():\n    LR = 0.7\ntorch.optim.SGD(net.parameters(), lr=LR)"
    ),
    "behind a parameter, of a function that has a method's name": (
        "def train(net, lr):\n    net.train()\n"
        "    return torch.optim.SGD(net.parameters(), lr=lr)\ntrain(net, 0.05)"
    ),
    "behind a parameter, of a function under another name": (
        "from train import made as built\ndef made(net, lr):\n"
        "    return torch.optim.SGD(net.parameters(), lr=lr)\nbuilt(net, 0.05)"
    ),
    "beside an average of the weights": (
        "torch.optim.SGD(net.parameters(), lr=0.05)\ntorch.optim.swa_utils.AveragedModel(net)"
    ),
    "and only multiplied later": (
        "opt = torch.optim.SGD(net.parameters(), lr=0.05)\n"
        "torch.optim.lr_scheduler.StepLR(opt, 10)\n"
        "for group in opt.param_groups:\n    group['lr'] *= 0.1"
    ),
    "and logged": (
        "log, opt = {}, torch.optim.SGD(net.parameters(), lr=0.05)\n"
        "log['lr'] = opt.param_groups[0]['lr']"
    ),
}
PARSED = (
    "a = argparse.ArgumentParser()\na.add_argument('--lr', default=0.05)\na = a.parse_args([])\n"
)
SGD = "opt = torch.optim.SGD(net.parameters(), lr=0.05)\n"
NOT_FOUND = {
    "in two places": (
        "torch.optim.SGD(net.parameters(), lr=0.05)\ntorch.optim.Adam(net.parameters(), lr=0.05)",
        "learning rate 0.05 stands in 2 places: train.py, line 5 and train.py, line 6",
    ),
    "with another value": (
        "torch.optim.SGD(net.parameters(), lr=0.1)",
        r"of today, 0.05, was not found: there is 0.1 \(train.py, line 5\)",
    ),
    "computed": (
        "torch.optim.SGD(net.parameters(), lr=0.025 * 2)",
        "`0.025 \\* 2` in train.py, line 5, is not a plain number",
    ),
    "in no known call": ("Mine(net, lr=0.05)", "no call of an optimizer of torch.optim is in"),
    "set twice": (
        "LR = 0.05\nLR = 0.05\ntorch.optim.SGD(net.parameters(), lr=LR)",
        "`LR` in train.py, line 7, is set in more than one place",
    ),
    "passed in a dictionary": (
        "torch.optim.SGD(net.parameters(), **{'momentum': 0.9})",
        "is given `lr` with others",
    ),
    "in a group": (
        "torch.optim.SGD([{'params': net.parameters(), 'lr': 0.05}], lr=0.05)",
        r"Groups of parameters have a learning rate of their own \(train.py, line 5\)",
    ),
    "from another file": (
        "def made(net, lr):\n    return torch.optim.SGD(net.parameters(), lr=lr)",
        "is what `made` is called with, in another file",
    ),
    "from a configuration": (
        "torch.optim.SGD(net.parameters(), lr=config.lr)",
        "`config.lr` in train.py, line 5, is set elsewhere",
    ),
    "set again by a schedule": (
        SGD + "torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.05, total_steps=9)",
        "The learning rate is also set in train.py, line 6",
    ),
    "set again by a cycle": (
        SGD + "from torch.optim import lr_scheduler as s\ns.CyclicLR(opt, 0.001, 0.05)",
        "The learning rate is also set in train.py, line 7",
    ),
    "set again in the groups": (
        SGD + "for g in opt.param_groups:\n    g['lr'] = 0.05",
        "The learning rate is also set in train.py, line 7",
    ),
    "set again in the first group": (
        SGD + 'opt.param_groups[0]["lr"] = 0.05',
        "The learning rate is also set in train.py, line 6",
    ),
    "an option that is scaled": (
        PARSED + "a.lr = a.lr * 2\ntorch.optim.SGD(net.parameters(), lr=a.lr)",
        "`a.lr` in train.py, line 9, is set in train.py, line 8",
    ),
    "a parameter that is scaled": (
        "def made(net, lr=0.05):\n    lr *= 2\n"
        "    return torch.optim.SGD(net.parameters(), lr=lr)\nmade(net)",
        "`lr` in train.py, line 7, is changed before it is used",
    ),
    "an attribute that is set from outside": (
        "class Net:\n    def __init__(self):\n        self.lr = 0.05\n    def made(self):\n"
        "        return torch.optim.SGD(net.parameters(), lr=self.lr)\nNet().lr = 0.1",
        "`self.lr` in train.py, line 9, is set in train.py, line 10",
    ),
    "imported, beside a local of the same name": (
        "from config import LR\ndef other():\n    LR = 0.05\n"
        "torch.optim.SGD(net.parameters(), lr=LR)",
        "`LR` in train.py, line 8, is set in another file",
    ),
    "a local of another function": (
        "from config import *\ndef other():\n    LR = 0.05\n"
        "torch.optim.SGD(net.parameters(), lr=LR)",
        "`LR` in train.py, line 8, is set in another file",
    ),
    "set again by a function": (
        "LR = 0.05\ndef other():\n    global LR\n    LR = 0.1\n"
        "torch.optim.SGD(net.parameters(), lr=LR)",
        "`LR` in train.py, line 9, is set in more than one place",
    ),
}


def rate_only(advice, text, script):
    changes = tuple(c for c in advice.changes if c.name == "learning_rate")
    return make(dataclasses.replace(advice, changes=changes), files=[script(HEAD + MODEL + text)])


@pytest.mark.parametrize("where", FOUND)
def test_a_rate_is_found(where, advice, script):
    patch = rate_only(advice, FOUND[where], script)
    before, after = ast.parse(HEAD + MODEL + FOUND[where]), ast.parse(patch.changed[0].after)
    numbers = [
        [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        for tree in (before, after)
    ]
    assert [(a, b) for a, b in zip(*numbers, strict=True) if a != b] == [(0.05, 0.2)]


@pytest.mark.parametrize("where", NOT_FOUND)
def test_a_rate_that_is_not_clear_is_said_and_nothing_is_patched(where, advice, script):
    text, said = NOT_FOUND[where]
    patch = rate_only(advice, text, script)
    assert patch.diff == ""
    assert "lr=0.2" in "".join(patch.snippet)
    with pytest.raises(ResultError, match=said):
        patch.write()


def test_a_rate_left_out_is_put_in(script):
    """Adam's own default is today's rate."""
    text = HEAD + MODEL + "torch.optim.Adam(\n    net.parameters(),\n    betas=(0.9, 0.99),\n)\n"
    advice = sample.change()
    change = dataclasses.replace(advice.changes[1], today=0.001)
    patch = make(dataclasses.replace(advice, changes=(change,)), files=[script(text)])
    assert b"    betas=(0.9, 0.99),\n    lr=0.2,\n)" in patch.changed[0].after


def test_half_of_the_change_is_never_a_patch(advice, script):
    patch = advice.apply(file=script(PLAIN.replace("lr=0.05", "lr=rate_of(model)")))
    assert patch.diff == ""
    assert patch.found == ("train.py, line 4: 32 → 64",)
    assert "`rate_of(model)` in train.py, line 10, is not a plain number" in str(patch)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_multiply_the_batch(world, advice, script):
    text = PLAIN.replace("BATCH_SIZE = 32", f"BATCH_SIZE = {32 // world}")
    assert "With several processes" in str(advice.apply(file=script(text)))
    patch = advice.apply(file=script(text), world_size=world)
    assert f"+BATCH_SIZE = {64 // world}\n" in patch.diff
    assert f"64 = {64 // world} × 1 × {world}" in str(patch)


def test_a_plain_loop_that_accumulates_is_read(advice, script):
    text = PLAIN.replace("BATCH_SIZE = 32", "BATCH_SIZE = 8\nACCUMULATION = 4")
    patch = advice.apply(file=script(text), micro_batch_size=8)
    assert "+ACCUMULATION = 8\n" in patch.diff
    assert "+BATCH" not in patch.diff


def test_a_plain_loop_that_cannot_accumulate_says_so(advice, script):
    patch = advice.apply(file=script(PLAIN), micro_batch_size=16)
    assert patch.diff == ""
    assert "4 micro-batches of 16 are needed for one update" in str(patch)


def test_a_second_trainer_for_the_test_data_is_no_second_accumulation(advice, script):
    text = LIGHTNING + "tester = L.Trainer(logger=False)\n"
    assert "+    def __init__(self, size=64):\n" in advice.apply(file=script(text)).diff
    patch = advice.apply(file=script(text), micro_batch_size=24)
    assert patch.diff == ""
    assert "4 micro-batches of 16 are needed for one update" in str(patch)


def test_counts_of_updates_are_pointed_at(advice, script):
    text = TRAINER.replace("use_cpu=True", "use_cpu=True,\n    max_steps=500")
    assert "`max_steps` (train.py, line 11)" in str(advice.apply(file=script(text)))


def test_other_uses_of_a_constant_are_pointed_at(advice, script):
    text = PLAIN + "print(len(data) // BATCH_SIZE)\n"
    assert "`BATCH_SIZE` in train.py is read on lines 7, 12" in str(
        advice.apply(file=script(text))
    )


# ------------------------------------------------------------------ the edges


@pytest.mark.parametrize("build", [sample.keep, sample.open_, sample.screened])
def test_without_a_change_there_is_nothing_to_apply(build, script):
    advice = Advice.of(build())
    patch = advice.apply(file=script(PLAIN))
    assert str(patch).endswith(f"there is nothing to apply, the verdict is “{advice.verdict}”.")
    patch.write()
    assert Path("train.py").read_text() == PLAIN


def test_a_script_that_changed_meanwhile_is_left_alone(advice, script):
    patch = advice.apply(file=script(PLAIN))
    script(PLAIN + "# mine\n")
    with pytest.raises(ResultError, match=r"`train.py` has changed meanwhile; nothing is written"):
        patch.write()
    assert Path("train.py").read_text() == PLAIN + "# mine\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.ipynb", "{}", "`file` must be a Python file; got 'a.ipynb'"),
        ("a.py", "def (:", "`a.py` cannot be read: it is not Python in UTF-8, line 1"),
        ("a.py", "x = '\u00e9'".encode("latin-1"), "it is not Python in UTF-8"),
        ("a.py", b"x = 1\0", "it is not Python in UTF-8"),
    ],
)
def test_what_is_no_script_is_refused_in_a_sentence(name, text, said, advice, script):
    with pytest.raises((InvalidValueError, ResultError), match=said):
        advice.apply(file=script(text, name))


def test_an_unknown_kind_is_refused(advice):
    with pytest.raises(InvalidValueError, match="`kind` must be auto, pytorch"):
        advice.apply("keras")


@pytest.mark.parametrize("kind", list(SCRIPTS))
def test_a_batch_that_grows_is_refused_as_a_patch_and_shown_as_a_sampler(script, kind):
    """No number in the script can hold it; what the snippet says is what the advice says."""
    advice = Advice.of(sample.grows())
    found = make(advice, files=[script(SCRIPTS[kind])])
    assert found.kind == kind
    assert not found.changed
    assert "which no number in a script can hold" in found.by_hand[0]
    code = "\n".join(found.snippet)
    assert "batchlab.data.GrowingBatchSampler(train_set, '0:8 2ep:16 4ep:64')" in code
    assert "# learning rate at batch size B: 0.1 * (B / 8) ** 0.5, schedule: constant" in code
    with pytest.raises(ResultError, match="Nothing is written"):
        found.write()


def test_the_kind_of_the_task_is_the_kind_of_the_snippet():
    advice = Advice.of(sample.change(framework="huggingface"))
    assert advice.apply().kind == "huggingface"
    assert advice.apply("pytorch").kind == "pytorch"


# ------------------------------------------------------------------ the command


@pytest.fixture
def stored(tmp_path, advice):
    (tmp_path / "advice").mkdir()
    advice.save(tmp_path / "advice" / "advice.json")
    return str(tmp_path / "advice")


def test_the_command_prints_and_leaves_the_script_alone(stored, script, capsys):
    cli.main(["apply", stored, "--file", script(PLAIN)])
    assert "+BATCH_SIZE = 64\n" in capsys.readouterr().out
    assert Path("train.py").read_text() == PLAIN


def test_the_command_writes_if_asked(stored, script, capsys):
    cli.main(["apply", stored, "--for", "pytorch", "--file", script(PLAIN), "--write"])
    assert "train.py is written." in capsys.readouterr().out
    assert Path("train.py").read_text() == PLAIN.replace("= 32", "= 64", 1).replace("0.05", "0.2")


def test_the_command_says_in_a_sentence_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["apply", str(tmp_path)])
    assert "holds no result of batchlab advise (advice.json is missing)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_pipe_into_git_works(stored, script):
    script(PLAIN)
    command = f"{sys.executable} -m batchlab apply {stored} --file train.py | git apply -p0"
    subprocess.run(command, shell=True, check=True)
    assert "BATCH_SIZE = 64" in Path("train.py").read_text()


def test_a_projection_is_applied_with_a_warning():
    careful = str(Advice.of(sample.change(evidence=Evidence.PROJECTED)).apply())
    assert "Careful: this is projected from a short trial, not confirmed." in careful
    assert "Careful" not in str(Advice.of(sample.change()).apply())


def test_a_part_of_the_data_is_named_where_all_of_it_was_not_tried():
    part = Part(0.1, 1_000, 10_000, 100_000)
    careful = str(Advice.of(sample.change(part=part)).apply())
    assert "measured on 1,000 of 10,000 training examples, and not repeated" in careful
