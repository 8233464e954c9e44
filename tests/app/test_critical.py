"""``critical``: a problem whose critical batch size is known, the trunk and its branches, going
on, and budgets.
"""

import functools
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from batchlab.advisor.session import Silent
from batchlab.app.critical import critical, price
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidValueError, ResultError, TaskError
from batchlab.tasks import prepare
from tests.engine import tiny

module = sys.modules["batchlab.app.critical"]


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Short timings, no page, and no workers: their start would take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchlab.advisor.session.BLOCK_SECONDS", 0.002)
        patch.setattr("batchlab.engine.choice.TURN_SECONDS", 0.001)
        patch.setattr(module, "Engine", functools.partial(Engine, workers=0))
        patch.setattr(module.measured, "critical_page", lambda found: found.task)
        yield


# ------------------------------------------------------------------ a known answer

CURVATURE = torch.cat([torch.ones(32), torch.full((32,), 0.05)])
START, RATE, BATCH, PLACE, WINDOW, FACTORS = 5.0, 0.2, 4, 512, 1024, (2, 4, 8)
KNOWN_MARGIN = 0.05


class Point(nn.Module):
    """θ, all 5 at first; its output is θ − x."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.full((len(CURVATURE),), START))

    def forward(self, inputs):
        return self.place - inputs


def targets(examples, seed):
    """Points whose mean is exactly 0 and whose second moment is exactly 1 in every direction."""
    draw = torch.Generator().manual_seed(seed)
    half = torch.randn(examples // 2, len(CURVATURE), generator=draw)
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])[torch.randperm(examples, generator=draw)]


def quadratic(**changes):
    """Σ h(θ − x)²/2 with random x: SGD's mean and variance are known at every update."""
    run = {"rule": "sgd", "batch_size": BATCH, "learning_rate": RATE, "samples": 2048}
    return tiny.task(
        Point,
        train=(targets(4096, 0),),
        validation=(targets(256, 1),),
        loss=lambda out, batch: (CURVATURE * out.square()).sum(-1) / 2,
        baseline=RunConfig(**(run | changes)),
        name="quadratic",
    )


def moved(mean, variance, rate, batch, updates):
    """Mean and variance of every direction of θ after so many updates of SGD.

    θ ← θ − ηh(θ − x̄) with Var x̄ = 1/B: m ← (1 − ηh)m, v ← (1 − ηh)²v + (ηh)²/B.
    """
    step = rate * CURVATURE.double().numpy()
    kept = np.abs(1 - step) ** updates  # only squares of it are used
    fresh = step**2 / batch * (1 - kept**2) / (1 - (1 - step) ** 2)
    return kept * mean, kept**2 * variance + fresh


def exact_loss(factor, power=1.0, window=WINDOW):
    """Expected validation loss of a branch, its mean over the moments of the second half."""
    start = moved(START, 0.0, RATE, BATCH, PLACE // BATCH)
    after = [window * i / 16 for i in range(9, 17)]
    losses = []
    for samples in after:
        updates = samples / (factor * BATCH)
        mean, var = moved(*start, RATE * factor**power, factor * BATCH, updates)
        losses.append((CURVATURE.double().numpy() * (mean**2 + var + 1)).sum() / 2)
    return float(np.mean(losses))


def exact_excess(factor, **changes):
    return exact_loss(factor, **changes) / exact_loss(1) - 1


def exact_critical():
    """By brute force over k."""
    return BATCH * max(k for k in np.arange(1, 9, 0.05) if exact_excess(k) <= KNOWN_MARGIN)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    given = {"at": [PLACE], "window": WINDOW, "factors": FACTORS, "margin": KNOWN_MARGIN}
    folder = tmp_path_factory.mktemp("known")
    return critical(quadratic(), **given, out=folder, device="cpu")


def half(branch):
    """Half-width of a 90 % range of five seeds; 4 standard errors are 1.88 times it."""
    return (branch.excess.high - branch.excess.low) / 2


def test_the_excess_of_every_size_is_that_of_the_closed_form(known):
    for branch in known.points[0].branches:
        off = abs(branch.excess.value - exact_excess(branch.factor))
        assert off <= 1.88 * half(branch)
        assert half(branch) < 0.02


def test_a_rate_that_is_not_scaled_would_be_seen(known):
    last = known.points[0].branches[-1]
    assert abs(last.excess.value - exact_excess(8, power=0.0)) > 4 * half(last)
    assert abs(last.excess.value - exact_excess(8, power=0.5)) > 4 * half(last)


def test_branches_of_equal_updates_instead_of_samples_would_be_seen(known):
    """Twice the batch sees twice the examples there; the slow directions tell."""
    first = known.points[0].branches[0]
    wrong = exact_loss(2, window=2 * WINDOW) / exact_loss(1) - 1
    assert abs(first.excess.value - wrong) > 4 * half(first)


def test_the_range_holds_the_known_critical_batch_size(known):
    found, exact = known.points[0].critical, exact_critical()
    assert found.low <= exact <= found.high
    assert (found.low, found.high) == (16.0, 32.0)
    # The twin keeps the rate: its answer is another one.
    other = max(k for k in np.arange(1, 9, 0.05) if exact_excess(k, power=0.0) <= KNOWN_MARGIN)
    assert not found.low <= BATCH * other <= found.high


def test_the_schedule_that_follows_is_the_one_that_was_shown(known):
    assert known.schedule == f"0:{BATCH} {PLACE}:16"
    assert "rate_growth=1" in str(known)


def test_another_margin_judges_anew_without_training(known, monkeypatch):
    def refuse(*_given):
        raise AssertionError("trained again")

    monkeypatch.setattr("batchlab.engine.sweep.run_cell", refuse)
    given = {"at": [PLACE], "window": WINDOW, "factors": FACTORS, "margin": 0.5}
    again = critical(quadratic(), **given, out=known.origin.folder, device="cpu")
    assert again.points[0].branches == known.points[0].branches
    assert again.origin.created == known.origin.created
    assert math.isinf(again.points[0].critical.high)
    assert again.points[0].critical.low == 32


# ------------------------------------------------------------------ trunk and branches

BASELINE = RunConfig(rule="shb", batch_size=8, learning_rate=0.02, samples="10ep")
ASKED = {"at": ["10%", "50%"], "factors": (2, 4), "seeds": 3, "device": "cpu"}


def task(model=tiny.mlp, **changes):
    given = {"precision": "float64"} | changes
    return tiny.task(model, name="tiny", baseline=BASELINE.replace(**given))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(the report, its folder)."""
    folder = tmp_path_factory.mktemp("critical")
    return critical(task(), **ASKED, out=folder), folder


def series(folder):
    """(batch size, seed, first sample) → losses of a branch."""
    runs = pl.read_parquet(folder / "runs.parquet")
    metrics = pl.read_parquet(folder / "metrics.parquet").filter(pl.col("name") == "loss")
    found = {}
    for row in runs.iter_rows(named=True):
        config = json.loads(row["config"])
        mine = metrics.filter((pl.col("cell") == row["cell"]) & (pl.col("run") == row["run"]))
        if len(mine) > 1:  # a trunk is evaluated at its end alone
            key = config["batch_size"], config["seed"], mine["samples"][0]
            found[key] = mine["samples"].to_list(), mine["value"].to_numpy()
    return found


def test_the_branch_with_k_1_equals_the_trunk_that_was_never_cut(whole):
    report, folder = whole
    found = series(folder)
    prepared = prepare(task(), device="cpu")
    moments = sorted({m for (_, _, _), (samples, _) in found.items() for m in samples})
    with Engine(prepared, None, 0, "loop") as engine:
        configs = [prepared.baseline.replace(seed=seed) for seed in range(3)]
        trace, _ = engine.train(configs, Job(tuple(moments)))
    for run in trace.runs:
        kept = run.series["loss"]
        losses = dict(zip(kept.samples.tolist(), kept.values, strict=True))
        for place in report.places:
            samples, values = found[8, run.config.seed, place]
            assert values == pytest.approx([losses[m] for m in samples], rel=1e-12)


def test_all_branches_of_a_place_begin_with_the_same_weights_and_see_as_many_examples(whole):
    report, folder = whole
    found = series(folder)
    for place in report.places:
        for seed in range(3):
            branches = [found[size, seed, place] for size in (8, 16, 32)]
            assert len({values[0] for _, values in branches}) == 1
            assert {samples[-1] for samples, _ in branches} == {place + report.window}
            # Else they would be one branch three times.
            assert len({values[-1] for _, values in branches}) == 3


def test_a_batch_size_has_its_scaled_rate(whole):
    assert [b.learning_rate for b in whole[0].points[0].branches] == [0.04, 0.08]


def test_everything_is_written(whole):
    _, folder = whole
    assert {path.name for path in folder.iterdir()} >= {
        "plan.json", "machine.json", "critical.json", "critical.html", "runs.parquet",
        "metrics.parquet", "noise-64.json",
    }  # fmt: skip


def test_the_noise_scale_is_that_of_the_trunks_weights(whole):
    """With all examples measured it has no error: the mean over seeds of noise over signal."""
    report, _ = whole
    prepared = prepare(task(), device="cpu")
    with Engine(prepared, None, 0) as engine:
        configs = [prepared.baseline.replace(seed=seed) for seed in range(3)]
        _, states = engine.train(configs, Job((), keep_end=True, until=report.places[1]))
    signals, noises = [], []
    for state in states:
        objective = prepared.objective(0, torch.float64)
        with torch.no_grad():
            for name, value in objective.named_parameters():
                value.copy_(state.progress.params[name])
        losses, _ = objective(prepared.train.batch(torch.arange(prepared.examples)))
        params = list(objective.parameters())
        each = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(x, params, retain_graph=True)])
                for x in losses
            ]
        )
        signals.append(float(each.mean(0).square().sum()))
        noises.append(float(each.var(0, correction=0).sum()))
    scale = report.points[1].noise.scale.value
    assert scale == pytest.approx(sum(noises) / sum(signals), rel=1e-6)
    # The twin takes the mean of ratios.
    ratios = [n / s for n, s in zip(noises, signals, strict=True)]
    assert scale != pytest.approx(float(np.mean(ratios)), rel=1e-4)


# ------------------------------------------------------------------ going on


class Stopper:
    """Interrupts when a step begins."""

    def __init__(self, step):
        self.step = step

    def say(self, sentence):
        pass

    def progress(self, what, share):
        if what == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("place 1 of 2: branches", marks=pytest.mark.slow),
        pytest.param("place 2 of 2: trunk", marks=pytest.mark.slow),
        "place 2 of 2: noise scale",
    ],
)
def test_an_interrupted_measurement_goes_on_with_the_same_result(step, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        critical(task(), **ASKED, out=tmp_path, listener=Stopper(step))
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("cells/*/done.json")}
    assert done
    with pytest.raises(ResultError, match="holds an unfinished result"):
        critical(task(), **ASKED, out=tmp_path)
    report = critical(task(), **ASKED, out=tmp_path, resume=True)
    assert report.points == whole[0].points
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())


KILLED = """
import sys
sys.path.insert(0, {root!r})
from batchlab import _platform
_platform.available_cores = lambda: 1
from tests.app.test_critical import ASKED, task
from batchlab.app.critical import critical
critical(task(), **ASKED, out={out!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("cells", [1, 2, 5])
def test_killed_at_any_moment_it_goes_on_with_the_same_result(cells, whole, tmp_path):
    """SIGKILL as soon as so many cells are finished."""
    root = str(Path(__file__).resolve().parents[2])
    script = KILLED.format(root=root, out=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while process.poll() is None and len([*tmp_path.glob("cells/*/done.json")]) < cells:
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    report = critical(task(), **ASKED, out=tmp_path, resume=True)
    assert report.points == whole[0].points


def test_a_budget_leaves_out_late_places_and_a_larger_one_goes_on(whole, tmp_path, monkeypatch):
    expected = {64: 1.0, 320: 1e6}
    monkeypatch.setattr(module.Prices, "of", lambda self, i: expected[self.plan.places[i]])
    monkeypatch.setattr(module.Prices, "branches", lambda _, place: expected[place])
    report = critical(task(), **ASKED, out=tmp_path, budget="5m")
    assert report.points == whole[0].points[:1]
    assert report.missing == (320,)
    assert "The budget ended before 50 % of the training" in str(report)
    report = critical(task(), **ASKED, out=tmp_path, budget=1e7, resume=True)
    assert report.points == whole[0].points


def test_a_budget_that_does_not_pay_for_the_first_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module.Prices, "of", lambda *_: 1e6)
    with pytest.raises(InvalidValueError, match="`budget` must be at least about 10000"):
        critical(task(), **ASKED, out=tmp_path, budget="90s")


def test_a_price_names_every_place_and_trains_nothing(monkeypatch):
    def refuse(*_given):
        raise AssertionError("trained")

    monkeypatch.setattr("batchlab.engine.sweep.run_cell", refuse)
    found = price(task(), **ASKED, budget="1h")
    assert [len(found.seconds), found.plan.window] == [2, 256]
    assert "batch sizes 8, 16, 32, 3 seeds each" in str(found)
    assert "pays for the first 2 of 2 places" in str(found)
    assert all(0 < seconds < math.inf for seconds in found.seconds)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stacked", [(), ("1", "2", "4")])
def test_a_price_counts_a_stack_of_seeds_as_one_piece_of_work(stacked, workers):
    """Of 3 seeds; two workers, each with 85 % of a core, take the longest piece at least."""
    given = {name: ASKED[name] for name in ("at", "factors")}
    asked = module._asked(task(), given, 0.01, 3, 0, "cpu", None, None)
    with Engine(asked.prepared, None, workers=workers) as engine:
        session = module._session(asked, engine, Silent(), None)
        session.visit([8])
        pace = module.Pace(1.0, {"1": 2.0, "2": 1.0, "4": 1.0}, stacked)
        found = module.Prices(session, asked.plan, pace).of(0)
        noise = module.COST * session.run_seconds(8, 3 * module.EXAMPLES)
    trunk, evaluations = 8 * 2.0 + 1, len(asked.plan.moments(64))
    branches = [32 * 2.0 + evaluations, 16 + evaluations, 8 + evaluations]
    if not workers:
        wanted = 3 * trunk + 3 * sum(branches)
    elif stacked:
        wanted = 4.0 + 3 * trunk + max(3 * branches[0], 3 * sum(branches) / 1.7)
    else:
        wanted = 4.0 + 3 * trunk / 1.7 + max(branches[0], 3 * sum(branches) / 1.7)
    assert found == pytest.approx(wanted + noise)


def test_today_s_settings_that_diverge_late_end_the_measurement_with_a_sentence(tmp_path):
    """Every seed crosses 4 between the branches from 10 % (24 updates) and 50 % (40 updates)."""

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.zeros(1))

        def forward(self, inputs):
            return torch.where(self.place > 4, torch.inf, self.place) - inputs

    draws = torch.randn(80, 1, generator=torch.Generator().manual_seed(0)) / 10 - 9
    late = tiny.task(
        Late,
        train=(-draws[:64],),
        validation=(-draws[64:],),
        loss=lambda out, batch: out.square().mean(-1),
        baseline=RunConfig(rule="sgd", batch_size=8, learning_rate=0.0091, samples="10ep"),
        name="late",
    )
    asked = ASKED | {"factors": (2,)}
    found = critical(late, **asked, out=tmp_path)
    assert [one.samples for one in found.points] == [64]
    assert (found.missing, found.ended) == ((320,), "diverged")
    assert "From 50 % of the training on there is nothing to compare with" in str(found)
    assert "budget" not in str(found)
    again = critical(late, **asked, out=tmp_path, resume=True)
    assert (again.points, again.ended) == (found.points, "diverged")


# ------------------------------------------------------------------ what is refused


def test_a_seed_that_diverges_is_left_out_and_said(tmp_path):
    class Heard(Stopper):
        def __init__(self):
            super().__init__("")
            self.said = []

        def say(self, sentence):
            self.said.append(sentence)

    class Fragile(nn.Module):
        """Starts where only some seeds survive."""

        def __init__(self):
            super().__init__()
            self.place = nn.Parameter(torch.randn(1))

        def forward(self, inputs):
            grown = self.place if float(self.place.detach()) < 0 else self.place * math.inf
            return grown - inputs

    fragile = tiny.task(
        Fragile,
        train=(torch.randn(64, 1, generator=torch.Generator().manual_seed(0)) - 9,),
        validation=(torch.randn(16, 1, generator=torch.Generator().manual_seed(1)) - 9,),
        loss=lambda out, batch: out.square().mean(-1),
        baseline=RunConfig(rule="sgd", batch_size=8, learning_rate=0.01, samples="10ep"),
        name="fragile",
    )
    heard = Heard()
    asked = ASKED | {"seeds": 6, "at": ["10%"], "factors": (2,)}
    report = critical(fragile, **asked, out=tmp_path, listener=heard)
    lost = sum("diverged with seed" in sentence for sentence in heard.said)
    assert 0 < lost <= 4
    assert report.points[0].critical.n == 6 - lost


def test_settings_that_diverge_with_every_seed_are_refused(tmp_path):
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) * 10
    wild = tiny.task(
        lambda: nn.Linear(2, 1),
        train=(data, data.sum(1, keepdim=True)),
        validation=(data[:16], data[:16].sum(1, keepdim=True)),
        loss=lambda out, batch: (out - batch[1]).square().mean(-1),
        baseline=BASELINE.replace(learning_rate=1e6),
        name="wild",
    )
    with pytest.raises(TaskError, match="diverged before sample 64 in all trainings but 0"):
        critical(wild, **ASKED, out=tmp_path)


def test_a_batch_schedule_as_baseline_is_refused(tmp_path):
    with pytest.raises(TaskError, match="one number in the baseline"):
        critical(task(batch_size="0:4 64:8"), **ASKED, out=tmp_path)


def test_a_folder_of_other_branches_is_refused(whole):
    with pytest.raises(ResultError, match="holds a result with another factors"):
        critical(task(), **(ASKED | {"factors": (4,)}), out=whole[1])
