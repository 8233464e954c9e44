"""Disagreement of seeds: counted, and with an interval that covers although pairs share seeds."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from batchlab.measure.repeatability import (
    TOLERANCE,
    Reading,
    answers,
    disagreements,
    named,
    predictions,
    pseudo_values,
    reading_of,
    repeatability,
    repeatability_difference,
)
from batchlab.tasks import Task, prepare
from tests import reference
from tests.engine import tiny

TWO = Reading(True)


def _said(runs=5, examples=40, seed=0):
    return list(np.random.default_rng(seed).integers(0, 3, (runs, examples)))


def test_disagreement_and_its_variance_are_those_of_the_naive_twin():
    for runs in (3, 4, 7):
        said = _said(runs)
        shares = disagreements(said)
        found = pseudo_values(shares)
        assert found.mean() == pytest.approx(reference.disagreement(said), rel=1e-12)
        variance = found.var(ddof=1) / runs
        assert variance == pytest.approx(reference.jackknife_variance(said), rel=1e-9)
        assert repeatability(shares).value == pytest.approx(reference.disagreement(said))


def test_trainings_that_say_the_same_never_disagree():
    said = [_said(1)[0]] * 4
    assert not disagreements(said).any()
    assert repeatability(disagreements(said)).high == 0.0


def test_two_settings_that_are_the_same_do_not_differ():
    shares = disagreements(_said())
    gap = repeatability_difference(shares, shares).estimate
    assert (gap.value, gap.low, gap.high, gap.n) == (0, 0, 0, 5)


def test_the_order_of_the_seeds_does_not_matter():
    said = _said()
    assert repeatability(disagreements(said)).value == pytest.approx(
        repeatability(disagreements(said[::-1])).value
    )


def test_two_trainings_give_a_share_without_a_range():
    found = repeatability(disagreements([np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0])]))
    assert found.value == 0.25
    assert np.isnan([found.low, found.high]).all()


def test_numbers_disagree_beyond_half_a_standard_deviation():
    base = np.zeros((4, 1))
    other = np.array([[0.49], [0.51], [-0.51], [0.0]])
    assert TOLERANCE == 0.5
    assert disagreements([base, other])[0, 1] == 0.5
    # Of several outputs the root mean square counts.
    wide = np.array([[0.6, 0.0], [0.8, 0.0]])
    assert disagreements([np.zeros((2, 2)), wide])[0, 1] == 0.5


# The interval: trainings flip each of many examples with a probability of their own, so that good
# and bad trainings are in every pair they are part of.

RUNS, TRIES = 8, 1500
LEAST, MOST = 0.02, 0.2


def _draw(random):
    """Expected disagreements of pairs, qᵢ + qⱼ − 2qᵢqⱼ, on infinitely many examples."""
    q = random.uniform(LEAST, MOST, size=RUNS)
    shares = q[:, None] + q - 2 * np.outer(q, q)
    np.fill_diagonal(shares, 0)
    return shares


def _truth():
    mean = (LEAST + MOST) / 2
    return 2 * mean - 2 * mean**2


def _pairs_as_independent(shares):
    """The twin: R(R−1)/2 pairs taken for so many independent values."""
    pairs = shares[np.triu_indices(RUNS, 1)]
    half = 1.703 * pairs.std(ddof=1) / len(pairs) ** 0.5
    return pairs.mean() - half, pairs.mean() + half


def _coverage(interval):
    """n = 1,500: the standard error is below 1.3 %."""
    random, truth = np.random.default_rng(0), _truth()
    ends = (interval(_draw(random)) for _ in range(TRIES))
    return sum(low <= truth <= high for low, high in ends) / TRIES


def _by_seeds(shares):
    found = repeatability(shares)
    return found.low, found.high


def test_the_interval_covers_although_pairs_share_trainings():
    assert 0.87 <= _coverage(_by_seeds) <= 0.95


def test_pairs_taken_as_independent_would_cover_far_too_little():
    assert _coverage(_pairs_as_independent) < 0.72


# How predictions are read.


@pytest.mark.parametrize(
    ("outputs", "target", "wanted"),
    [
        ([[0.1, 0.9], [3.0, 1.0]], [1, 1], [1, 0]),
        ([[[0.0, 1.0], [2.0, 1.0]]], [[1, 1]], [1, 0]),
        ([[[0.0, 1.0, 5.0], [2.0, 1.5, 1.0]]], [[1, 1, -100]], [1, 1]),
    ],
    ids=["classes", "tokens", "channels second, padded"],
)
def test_the_class_is_read_from_the_scores(outputs, target, wanted):
    said = answers(torch.tensor(outputs), torch.tensor(target), Reading(True))
    assert said.tolist() == wanted


@pytest.mark.parametrize(
    ("runs", "wanted"),
    [
        ([[0.1, 0.9], [0.6, 0.4]], [[0, 1], [1, 0]]),
        ([[0.1, 0.9], [-0.6, 0.4]], [[1, 1], [0, 1]]),
    ],
    ids=["probabilities", "logits"],
)
def test_one_score_an_example_is_read_as_what_all_runs_make_of_it(runs, wanted):
    said = [answers(torch.tensor(run)[:, None], torch.tensor([0, 1]), TWO) for run in runs]
    assert [one.tolist() for one in named([one.numpy() for one in said])] == wanted


def test_no_example_is_lost_where_labels_are_minus_one_and_one():
    said = answers(torch.tensor([-2.0, 3.0, 1.0]), torch.tensor([-1.0, 1.0, -1.0]), TWO)
    assert said.tolist() == [-2.0, 3.0, 1.0]


def test_several_labels_of_one_example_are_not_read_as_numbers():
    targets = (torch.arange(180).reshape(60, 3) % 7 > 3).float()
    assert reading_of(_numbers(lambda x: targets)) is None


def test_numbers_are_read_in_standard_deviations_of_their_targets():
    said = answers(torch.tensor([[1.0, 9.0]]), torch.zeros(1, 2), Reading(False, (2.0, 3.0)))
    assert said.tolist() == [[0.5, 3.0]]
    constant = answers(torch.tensor([1.0]), torch.zeros(1), Reading(False, (0.0,)))
    assert constant.tolist() == [[1.0]]


def test_a_mapping_with_logits_is_read():
    outputs = {"logits": torch.tensor([[0.0, 1.0]]), "hidden": torch.zeros(1)}
    assert answers(outputs, torch.tensor([0]), Reading(True)).tolist() == [1]


@pytest.mark.parametrize("outputs", [torch.zeros(2, 3, 4), (torch.zeros(2),), {}])
def test_outputs_that_do_not_fit_are_not_read(outputs):
    assert answers(outputs, torch.tensor([0, 1]), Reading(True)) is None


def _numbers(targets):
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    return prepare(
        Task(
            lambda: nn.Linear(3, 1),
            (x, targets(x)),
            validation=(x, targets(x)),
            loss=lambda out, batch: (out - batch[1]).square().mean(1),
        ),
        device="cpu",
    )


def test_numbers_two_values_and_labels_are_told_apart():
    found = reading_of(_numbers(lambda x: x[:, :1]))
    assert not found.classes
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    assert found.sd == pytest.approx([float(x[:, 0].double().std(correction=0))])
    assert reading_of(_numbers(lambda x: (x[:, :1] > 0).float())) == Reading(True)
    assert reading_of(tiny.ready()) == Reading(True)


def test_without_a_target_or_outputs_there_is_no_reading():
    step = dataclasses.replace(
        tiny.task(),
        loss=None,
        training_step=lambda model, batch: tiny.cross(model(batch[0]), batch).mean(),
    )
    assert reading_of(prepare(step, device="cpu")) is None


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_predictions_are_those_the_accuracy_was_computed_from(executor):
    prepared = tiny.ready(tiny.batch_norm, metric="accuracy")
    configs = [tiny.run(seed=seed) for seed in (0, 1, 2)]
    trace, states = tiny.trained(prepared, configs, executor)
    said = predictions(prepared, configs[0], states, reading_of(prepared))
    labels = prepared.validation.tree[1].numpy()
    right = [float(np.mean(row == labels)) for row in said]
    assert right == pytest.approx([run.series["metric"].values[-1] for run in trace.runs])
    for a, b in itertools.combinations(range(3), 2):
        wanted = np.mean([x != y for x, y in zip(said[a], said[b], strict=True)])
        assert disagreements(said)[a, b] == wanted
