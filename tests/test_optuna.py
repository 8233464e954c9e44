"""The runs of a comparison as Optuna's trials, and an advice as one to try first."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from batchlab.advisor.assemble import _params
from batchlab.app.advice import Advice
from batchlab.app.compare import compare
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, ResultError
from batchlab.optuna import optuna_trials
from batchlab.progress import Quiet
from tests.engine import tiny
from tests.report import sample

optuna.logging.set_verbosity(optuna.logging.WARNING)
SEEDS = 2


@pytest.fixture(scope="module", autouse=True)
def short_blocks():
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules["batchlab.app.compare"]
        patch.setattr(module, "BLOCK_SECONDS", 0.002)
        patch.setattr(module.measured, "compare_page", lambda report: "")
        yield


def made(folder, **changes):
    recipe = RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="2ep")
    return compare(
        tiny.task(name="tiny", metric="accuracy", baseline=recipe.replace(**changes)),
        batch_sizes=[8, 32],
        learning_rates=[0.2],
        seeds=SEEDS,
        out=folder,
        listener=Quiet(),
    )


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return made(tmp_path_factory.mktemp("constant") / "grid")


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory):
    """Where equal updates are trainings of their own."""
    return made(tmp_path_factory.mktemp("scheduled") / "grid", lr_schedule="cosine")


def value(trial) -> float:
    assert trial.value is not None
    return trial.value


@pytest.mark.parametrize("equal", ["samples", "updates"])
@pytest.mark.parametrize("which", ["comparison", "scheduled"])
def test_the_means_of_the_trials_are_the_numbers_of_the_comparison(which, equal, request):
    report = request.getfixturevalue(which)
    trials = optuna_trials(report, equal=equal)
    assert len(trials) == SEEDS * len(report.settings)
    for one in report.settings:
        mine = [t for t in trials if t.user_attrs["setting"] == one.setting.id]
        assert {t.user_attrs["seed"] for t in mine} == set(report.seeds)
        assert {t.params["batch_size"] for t in mine} == {one.setting.batch_size}
        reading = one.reading(equal)
        assert np.mean([value(t) for t in mine]) == pytest.approx(reading.metric.value, rel=1e-12)
        assert max(t.user_attrs["samples"] for t in mine) == reading.samples
        assert max(t.user_attrs["updates"] for t in mine) == reading.updates


def test_a_stored_directory_gives_the_same_trials(comparison):
    read = optuna_trials(comparison.origin.folder)
    told = [(t.params, t.value, t.user_attrs, t.intermediate_values) for t in read]
    assert told == [
        (t.params, t.value, t.user_attrs, t.intermediate_values) for t in optuna_trials(comparison)
    ]


def test_intermediate_values_stand_at_samples(comparison):
    trial = optuna_trials(comparison)[0]
    steps = list(trial.intermediate_values)
    assert steps[0] == 0
    assert steps[-1] == trial.user_attrs["samples"] == comparison.samples
    assert len(steps) > 10


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.RandomSampler])
def test_a_study_goes_on_from_the_trials(comparison, sampler):
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=0))
    study.add_trials(optuna_trials(comparison))
    best = max(optuna_trials(comparison), key=value)
    assert study.best_value == best.value

    def objective(trial):
        trial.suggest_int("batch_size", 4, 64, log=True)
        return trial.suggest_float("learning_rate", 0.01, 1, log=True)

    study.optimize(objective, n_trials=2)
    assert len(study.trials) == SEEDS * len(comparison.settings) + 2


def test_own_distributions_are_kept(comparison):
    sizes = CategoricalDistribution([8, 32])
    trials = optuna_trials(comparison, distributions={"batch_size": sizes})
    assert {trial.distributions["batch_size"] for trial in trials} == {sizes}


def test_distributions_that_leave_a_run_out_are_refused(comparison):
    with pytest.raises(InvalidValueError, match="`distributions` must be such that they hold"):
        optuna_trials(comparison, distributions={"batch_size": CategoricalDistribution([8])})


@pytest.mark.wrong_type
def test_another_kind_of_equality_is_refused(comparison):
    with pytest.raises(InvalidValueError, match="`equal` must be samples or updates"):
        optuna_trials(comparison.origin.folder, equal="seconds")  # pyright: ignore


def test_a_diverged_run_is_pruned_and_repels(tmp_path):
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) * 10
    task = tiny.task(
        lambda: torch.nn.Linear(2, 1),
        train=(data, data.sum(1, keepdim=True)),
        validation=(data[:16], data[:16].sum(1, keepdim=True)),
        loss=lambda out, batch: (out - batch[1]).square().mean(-1),
        baseline=RunConfig(rule="sgd", batch_size=8, learning_rate=1e-3, samples="20ep"),
        name="wild",
    )
    found = compare(
        task, batch_sizes=[8], learning_rates=[1.0], seeds=2, out=tmp_path, listener=Quiet()
    )
    states = {(t.params["learning_rate"], t.state) for t in optuna_trials(found)}
    assert states == {(1e-3, TrialState.COMPLETE), (1.0, TrialState.PRUNED)}
    lost = [t for t in optuna_trials(found) if t.state is TrialState.PRUNED]
    assert all(math.isfinite(v) for t in lost for v in t.intermediate_values.values())
    assert {t.user_attrs["status"] for t in lost} == {"diverged"}


def test_a_folder_without_a_comparison_is_refused(tmp_path, comparison):
    with pytest.raises(ResultError, match="holds no result of batchlab compare"):
        optuna_trials(tmp_path)
    moved = dataclasses.replace(comparison.origin, folder=str(tmp_path))
    with pytest.raises(ResultError, match=r"runs\.parquet` cannot be read"):
        optuna_trials(dataclasses.replace(comparison, origin=moved))


def test_an_advice_is_tried_first(tmp_path):
    """After it has been written and read, with names that the objective does not ask for."""
    advice = sample.change()
    advice = dataclasses.replace(advice, params=_params(advice.recommended))
    advice.save(tmp_path / "advice.json")
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")
    study.enqueue_trial(Advice.load(tmp_path).params)

    def objective(trial):
        size = trial.suggest_categorical("batch_size", [16, 32, 64])
        return size * trial.suggest_float("learning_rate", 1e-3, 1, log=True)

    study.optimize(objective, n_trials=1)
    assert study.trials[0].params == {"batch_size": 64, "learning_rate": 0.2}


def test_without_optuna_the_extra_is_named():
    code = "import sys\nsys.modules['optuna'] = None\nimport batchlab\nbatchlab.optuna_trials"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "`optuna` is not installed: install batchlab[optuna]." in done.stderr
