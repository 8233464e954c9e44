import math
import statistics

import pytest
import torch

from batchlab import RunConfig
from batchlab.errors import InvalidValueError, ValidityWarning
from batchlab.measure import smoothness
from batchlab.measure.smoothness import Constants, measure_constants, rank_schedules
from batchlab.schedules import batch_schedule
from batchlab.tasks import Task, prepare
from batchlab.theory import growing as theory
from batchlab.types import Estimate

torch.manual_seed(0)
X = torch.randn(300, 4)
Y = X @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + 0.5 * torch.randn(300, 1)


def squares(outputs, batch):
    return (outputs - batch[1]).square().mean(-1)


def task(**changes):
    baseline = RunConfig(rule="sgd", batch_size=10, learning_rate=0.01, samples="4ep")
    return Task(
        lambda: torch.nn.Linear(4, 1, bias=False),
        train=(X, Y),
        validation=(X[:50], Y[:50]),
        loss=squares,
        baseline=baseline.replace(**changes),
        name="least squares",
    )


@pytest.fixture(scope="module")
def found():
    return measure_constants(prepare(task(), device="cpu"), points=3, examples=300)


def known(wide=0.5, **changes):
    """Constants at which noise and start weigh about the same, L and σ² known to e^±wide."""

    def around(value):
        return Estimate(value, value * math.exp(-wide), value * math.exp(wide), 4)

    given = {
        "smoothness": around(1.0),
        "noise": around(4.0),
        "gap": Estimate(2.0, 1.0, 2.0, 4),
        "start": Estimate(9.0, 8.0, 10.0, 4),
        "moments": (0,),
    }
    return Constants(**(given | changes))


def test_smoothness_is_the_largest_eigenvalue_of_the_hessian(found):
    hessian = 2 * X.T @ X / len(X)
    assert found.smoothness.value == pytest.approx(
        float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-3
    )
    assert found.smoothness.low <= found.smoothness.value <= found.smoothness.high


def test_noise_is_the_largest_variance_of_one_gradient_met(found):
    weights = prepare(task(), device="cpu").objective(0).module.weight.detach()
    gradients = 2 * (X @ weights.T - Y) * X  # at the start, where the loss is largest
    exact = float((gradients - gradients.mean(0)).square().sum(1).mean())
    assert found.noise.low <= exact <= found.noise.high
    assert found.noise.high / found.noise.low < 2
    assert found.start.low <= float(gradients.mean(0).square().sum()) <= found.start.high


def test_the_gap_begins_at_the_start_and_ends_between_the_least_loss_met_and_possible(found):
    objective = prepare(task(), device="cpu").objective(0)
    start = objective((X, Y))[0].mean().item()
    assert found.gap.value == found.gap.high == pytest.approx(start, rel=1e-5)
    assert 0 < found.gap.low < found.gap.value


def test_a_least_loss_above_what_is_met_is_refused():
    with pytest.raises(InvalidValueError, match="`least_loss` must be at most"):
        measure_constants(prepare(task(), device="cpu"), samples=100, points=2, least_loss=99.0)


def test_a_pilot_that_diverges_is_refused():
    with pytest.raises(InvalidValueError, match="a recipe that does not diverge"):
        measure_constants(prepare(task(learning_rate=1e20), device="cpu"), points=2)


def test_the_bounds_are_those_of_the_theory():
    ranking = rank_schedules(task(), [10, "0:10 2ep:40"], constants=known(), draws=50)
    problem = theory.Problem(1.0, 4.0, 2.0)
    for place in ranking.places:
        batches = batch_schedule(place.name).resolve(300)
        plan = theory.Plan(theory.Step.of("sgd", 0.01), batches)
        expected = theory.bound(problem, plan, 1200)
        assert (place.bound.value, place.updates) == (expected.value, expected.updates)


def shares(wide):
    ranking = rank_schedules(
        task(learning_rate=0.25), [1, 10, 100], constants=known(wide), draws=200, samples=1200
    )
    assert [p.bound.value for p in ranking.places] == sorted(p.bound.value for p in ranking.places)
    return [place.first.value for place in ranking.places]


@pytest.mark.filterwarnings("ignore:Outside the proved range")
def test_uncertain_constants_leave_the_first_place_open():
    found = shares(2.0)
    assert sum(found) == pytest.approx(1.0)
    assert 0.1 < max(found) < 0.95


def test_constants_that_are_known_leave_nothing_open():
    certain = known(1e-9, gap=Estimate(2.0, 2.0, 2.0, 4))
    found = rank_schedules(task(learning_rate=0.25), [1, 10, 100], constants=certain, draws=50)
    assert [place.first.value for place in found.places] == [1.0, 0.0, 0.0]
    assert found.places[0].bound.low == pytest.approx(found.places[0].bound.high)


def test_without_noise_every_draw_has_none():
    still = known(0.7, noise=Estimate(0.0, 0.0, 0.0, 4))
    assert {problem.noise for problem in still.drawn(50)} == {0.0}


def test_the_largest_of_several_places_has_a_wider_interval_than_that_of_one():
    """Three places of equal value: the interval of each at 1 − 0.1/3, in logarithms."""
    one = smoothness._largest([(1.0, math.exp(-0.5), math.exp(0.5))], "")
    three = smoothness._largest([(1.0, math.exp(-0.5), math.exp(0.5))] * 3, "")
    wider = statistics.NormalDist().inv_cdf(1 - 0.05 / 3) / statistics.NormalDist().inv_cdf(0.95)
    assert (one.low, one.high) == pytest.approx((math.exp(-0.5), math.exp(0.5)))
    assert (three.low, three.high) == pytest.approx(
        (math.exp(-0.5 * wider), math.exp(0.5 * wider))
    )


def test_draws_have_the_interval_of_the_constants():
    drawn = known(0.7).drawn(4_000)
    inside = sum(math.exp(-0.7) <= p.smoothness <= math.exp(0.7) for p in drawn) / 4_000
    assert abs(inside - 0.9) < 4 * math.sqrt(0.09 / 4_000)
    assert all(1.0 <= p.gap <= 2.0 for p in drawn)


def test_equal_schedules_under_two_names_are_both_first():
    recipes = [RunConfig(rule="sgd", batch_size=b, learning_rate=0.01) for b in ("10", "0:10")]
    found = rank_schedules(task(), recipes, constants=known(), draws=20)
    assert [place.first.value for place in found.places] == [1.0, 1.0]


def test_a_decaying_rate_and_a_growing_batch_can_be_compared():
    decaying = task().baseline.replace(lr_schedule="cosine")
    found = rank_schedules(task(), [decaying, "0:10 2ep:40"], constants=known(), draws=20)
    assert {place.name for place in found.places} == {"10 at 0.01, cosine", "0:10 2ep:40"}
    assert "first in" in str(found)


def test_a_rate_outside_the_proof_is_said():
    with pytest.warns(ValidityWarning, match="larger than the proof allows for 10"):
        found = rank_schedules(task(learning_rate=3.0), [10], constants=known(), draws=20)
    assert found.places[0].proved == 0.0
    assert "Outside the proved range of rates: 10" in str(found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule": "adam", "learning_rate": 0.1}, "`rule` must be one of sgd, shb, nshb, qhm"),
        ({"reuse": 2}, "without re-use and clipping"),
        ({"clip_norm": 1.0}, "without re-use and clipping"),
    ],
)
@pytest.mark.wrong_type
def test_what_the_theory_does_not_cover_is_refused(changes, words):
    with pytest.raises(InvalidValueError, match=words):
        rank_schedules(task(**changes), [10], constants=known())


def test_nothing_to_rank_is_refused():
    with pytest.raises(InvalidValueError, match="`schedules` must be at least one"):
        rank_schedules(task(), [], constants=known())


def test_a_pilot_without_a_whole_batch_is_refused():
    with pytest.raises(InvalidValueError, match="`samples` must be at least one batch"):
        measure_constants(prepare(task(), device="cpu"), samples=9)


def test_too_few_moments_are_refused():
    with pytest.raises(InvalidValueError, match="`points` must be"):
        measure_constants(prepare(task(), device="cpu"), points=1)


def test_a_rate_that_grows_has_its_own_place_and_bound():
    run = RunConfig(rule="sgd", batch_size="0:10 2ep:40", learning_rate=0.01)
    asked = [run, run.replace(rate_growth=1.0)]
    ranking = rank_schedules(task(), asked, constants=known(), draws=20)
    values = {place.name: place.bound.value for place in ranking.places}
    assert len(set(values.values())) == 2
    assert any("rate × growth^1" in name for name in values)


def test_recipes_that_differ_in_numbers_only_are_told_apart():
    run = RunConfig(rule="sgd", batch_size=10, learning_rate=0.01)
    asked = [run, run.replace(learning_rate=0.02), run.replace(rule="shb", momentum=0.5)]
    ranking = rank_schedules(task(), asked, constants=known(), draws=20)
    assert len({place.name for place in ranking.places}) == 3


def test_one_recipe_twice_is_refused():
    run = RunConfig(rule="sgd", batch_size=10, learning_rate=0.01)
    with pytest.raises(InvalidValueError, match="`schedules` must be different recipes"):
        rank_schedules(task(), [run, run], constants=known(), draws=20)
