"""Every file in examples/ loads, prepares, learns, and is advised on from the command line."""

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from batchlab import _random, _tree
from batchlab.tasks import load, prepare

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
NEEDS = {"lightning_task": "lightning", "huggingface_task": "transformers"}
READY = [name for name in NAMES if importlib.util.find_spec(NEEDS.get(name, "torch"))]
CALLED = {"lightning_task": "Digits", "huggingface_task": "BertForSequenceClassification"}
BUDGETS = dict.fromkeys(NEEDS, "45s")  # their processes import a large library first
OPTIMIZERS = {
    "shb": lambda p, run: torch.optim.SGD(p, run.learning_rate, momentum=run.momentum),
    "adam": lambda p, run: torch.optim.Adam(p, run.learning_rate),
    "adamw": lambda p, run: torch.optim.AdamW(p, run.learning_rate),
}


def source(name):
    """What the file defines; it finds its neighbours, as when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.fixture(scope="module")
def prepared():
    """name → prepared task, made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = prepare(load(f"{FOLDER / name}.py:task"), device="cpu")
        return made[name]

    return get


def test_the_examples_are_there_and_listed():
    listed = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(NAMES) == 10
    for name in NAMES:
        assert f"[{name}.py]({name}.py)" in listed
        assert f"batchlab advise examples/{name}.py:task" in (FOLDER / f"{name}.py").read_text()


@pytest.mark.parametrize("name", READY)
def test_an_example_prepares_with_its_recipe_complete(prepared, name):
    task = prepared(name)
    named = [said for said in task.assumptions if "names no" in said and "momentum" not in said]
    assert task.task.name == CALLED.get(name, name)
    assert not named
    assert task.baseline.samples >= 3 * task.examples


def validation_loss(task, objective):
    batch = task.validation.batch(torch.arange(min(500, task.validation.examples)))
    objective.eval()
    with torch.no_grad():
        losses, weights = objective(_tree.to(batch, "cpu", torch.float32))
    objective.train()
    return float((losses * weights).sum() / weights.sum())


def train(task, updates):
    """Losses before and after a plain loop with the rule, rate and batch of the recipe."""
    run = task.baseline
    with _random.seeded(0, "test"):
        objective = task.objective(0)
        optimizer = OPTIMIZERS[run.rule](objective.parameters(), run)
        before = validation_loss(task, objective)
        order = torch.cat([_random.permutation(task.examples, 0, p) for p in range(3)])
        for index in order[: updates * run.batch_size].view(updates, -1):
            losses, weights = objective(_tree.to(task.train.batch(index), "cpu", torch.float32))
            optimizer.zero_grad()
            ((losses * weights).sum() / weights.sum()).backward()
            optimizer.step()
        return before, validation_loss(task, objective)


@pytest.mark.parametrize("name", READY)
def test_an_example_learns_within_its_first_updates(prepared, name):
    before, after = train(prepared(name), updates=100)
    assert after < 0.95 * before


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("batchlab.cli") is None, reason="there is no command line"
)
@pytest.mark.parametrize("name", READY)
def test_advise_works_on_an_example_within_a_small_budget(tmp_path, name):
    command = [
        "advise",
        f"examples/{name}.py:task",
        "--budget",
        BUDGETS.get(name, "10s"),
        "--out",
        str(tmp_path / "o"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
    ran = subprocess.run(
        [sys.executable, "-m", "batchlab", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert json.loads((tmp_path / "o" / "advice.json").read_text(encoding="utf-8"))
    for file in ("report.html", "apply.py", "summary.md"):
        assert (tmp_path / "o" / file).stat().st_size > 0


# --- what each example is there to show ---


def test_batch_norm_makes_examples_depend_on_each_other(prepared):
    task = prepared("cnn_batch_norm")
    objective, batch = task.objective(0), task.train.batch(torch.arange(8))
    together = objective(batch)[0][:4]
    assert not torch.allclose(together, objective(_tree.narrow(batch, 0, 4))[0], atol=1e-3)


def test_not_stackable_cannot_be_mapped_over_runs(prepared):
    task = prepared("not_stackable")
    objective, batch = task.objective(0), task.train.batch(torch.arange(4))
    params = {n: torch.stack([p, p]) for n, p in objective.named_parameters()}
    with pytest.raises(RuntimeError, match=r"\.item\(\)"):
        torch.func.vmap(lambda p: torch.func.functional_call(objective, p, (batch,))[0])(params)


def test_a_row_of_text_has_the_same_loss_whatever_it_is_padded_with(prepared):
    task = prepared("text_transformer")
    objective = task.objective(0).eval()
    losses, weights = objective(task.train.batch(torch.arange(16)))
    assert len(weights.unique()) > 4
    for i in range(16):
        loss, weight = objective(task.train.batch(torch.tensor([i])))
        assert torch.allclose(loss, losses[i], atol=1e-5)
        assert weight == weights[i]


def test_the_text_loss_is_the_mean_over_real_tokens(prepared):
    task = prepared("text_transformer")
    objective, batch = task.objective(0).eval(), task.train.batch(torch.arange(16))
    losses, weights = objective(batch)
    outputs = objective.outputs(batch)
    real = batch["real"][:, 1:].bool()
    expected = cross_entropy(outputs[real], batch["tokens"][:, 1:][real])
    assert torch.allclose((losses * weights).sum() / weights.sum(), expected, atol=1e-5)


def test_text_rows_are_of_many_lengths_and_cover_the_alphabet():
    text = source("text_transformer")
    lengths = {len(row["tokens"]) for row in text["rows"]()}
    assert max(lengths) == text["LONGEST"]
    assert len(lengths) > 30
    assert len(set(text["ALPHABET"])) == len(text["ALPHABET"])


@pytest.mark.parametrize(
    ("name", "function"),
    [("defects", "parts"), ("vibration_gru", "signals"), ("tabular_regression", "readings")],
)
def test_generated_data_depends_on_its_seed_only(name, function):
    make = source(name)[function]
    first, again, other = make(300, 5), make(300, 5), make(300, 6)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.fixture(scope="module")
def defects():
    return source("defects")


def test_three_parts_in_a_hundred_are_defective_one_of_each_kind(defects):
    _, kinds = defects["parts"](3000, 0)
    assert torch.bincount(kinds).tolist() == [2910, 30, 30, 30]


def naive_escapes(outputs, kinds):
    """Raise the alarm until at most 2 in 100 good parts are stopped; count what slips through."""
    good = sorted(o for o, k in zip(outputs, kinds, strict=True) if k == 0)
    alarm = next(a for a in good if sum(o > a for o in good) <= 0.02 * len(good))
    defective = [o for o, k in zip(outputs, kinds, strict=True) if k > 0]
    return sum(o <= alarm for o in defective) / len(defective)


@pytest.mark.parametrize("seed", range(5))
def test_escapes_equal_the_naive_count(defects, seed):
    torch.manual_seed(seed)
    kinds = torch.arange(1001) % 20 % 4 * (torch.arange(1001) % 20 < 4)
    outputs = torch.randn(1001) + 1.5 * (kinds > 0)
    # The quantile lies between two good parts; no defective part is drawn just there.
    assert defects["escapes"](outputs, (0, kinds)) == naive_escapes(
        outputs.tolist(), kinds.tolist()
    )


def test_escapes_at_the_ends(defects):
    kinds = torch.tensor([0] * 97 + [1, 2, 3])
    ranks = torch.arange(100.0)
    assert defects["escapes"](ranks, (0, kinds)) == 0
    assert defects["escapes"](-ranks, (0, kinds)) == 1
    assert defects["escapes"](torch.zeros(100), (0, kinds)) == 1


def test_the_table_per_kind_adds_up_to_the_escapes(defects):
    torch.manual_seed(0)
    kinds = torch.randint(4, (2000,))
    outputs = torch.randn(2000) + kinds / 2
    table = defects["per_class_table"](outputs, (0, kinds))
    assert [row[0] for row in table] == list(defects["KINDS"])
    assert [row[1] for row in table] == torch.bincount(kinds).tolist()
    assert table[0][2] == pytest.approx(0.02, abs=0.002)
    slipped = sum(count * (1 - share) for _, count, share in table[1:])
    defective = sum(count for _, count, _ in table[1:])
    assert slipped / defective == pytest.approx(defects["escapes"](outputs, (0, kinds)))


@pytest.fixture(scope="module")
def anomaly():
    return source("anomaly_autoencoder")


def test_the_autoencoder_sees_good_parts_only_and_is_judged_on_defects_too(prepared):
    task = prepared("anomaly_autoencoder")
    kinds = [
        source.batch(torch.arange(source.examples))[1] for source in (task.train, task.validation)
    ]
    assert (task.examples, int(kinds[0].max())) == (6000, 0)
    assert torch.bincount(kinds[1]).tolist() == [3880, 40, 40, 40]


def test_a_defective_part_does_not_count_in_the_loss(anomaly):
    kinds = torch.tensor([0, 1, 0, 3])
    assert anomaly["weight"]((torch.zeros(4), kinds)).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order(anomaly, seed):
    torch.manual_seed(seed)
    kinds = (torch.arange(120) % 5 == 0).long()
    # Few values, so that there are ties.
    errors = (
        torch.randint(4, (120, 1, 1, 1)).float().expand(-1, 1, 8, 8) + kinds[:, None, None, None]
    )
    found = anomaly["scores"](errors).tolist()
    pairs = [
        (bad > good) + (bad == good) / 2
        for bad, k in zip(found, kinds.tolist(), strict=True)
        if k
        for good, other in zip(found, kinds.tolist(), strict=True)
        if not other
    ]
    assert anomaly["auroc"](errors, (0, kinds)) == pytest.approx(sum(pairs) / len(pairs))
    assert 0.5 < sum(pairs) / len(pairs) < 1


def test_a_small_defect_counts_though_the_rest_of_the_part_is_perfect(anomaly):
    errors = torch.zeros(2, 1, 32, 32)
    errors[0] = 0.1
    errors[1, 0, 10:15, 10:15] = 0.5
    assert errors[1].square().mean() < errors[0].square().mean()
    scores = anomaly["scores"](errors)
    assert scores[1] > scores[0]
