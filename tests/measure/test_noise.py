"""The noise scale: formulas by enumeration, gradients by naive twins, coverage by known truth."""

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab import _random, engine
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError
from batchlab.measure import _moments, noise
from batchlab.measure._per_example import Unsupported, by_batch, by_layers, by_vmap
from batchlab.models.cnn import FourLayerCNN, SmallCNN
from batchlab.models.resnet import ResNet
from batchlab.tasks import Objective, Task, prepare
from tests.benchmarks import load

benchmark = load("noise")

GRADIENTS = torch.tensor([[1.0, 0.5], [-0.5, 2.0], [0.25, -1.0], [3.0, 0.0], [0.5, 0.75]]).double()
SIGNAL, NOISE = benchmark.truth_of(GRADIENTS)
N = len(GRADIENTS)
FOUR = GRADIENTS[:4]


def mean_square(batches):
    """E‖g_B‖² over all batches."""
    return np.mean([float(GRADIENTS[list(b)].mean(0).square().sum()) for b in batches])


# -- formulas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("small", "big"), [(1, 2), (1, 4), (2, 3)])
def test_signal_and_noise_are_unbiased_over_all_batches_with_replacement(small, big):
    squares = [mean_square(itertools.product(range(N), repeat=b)) for b in (small, big)]
    assert noise.noise_scale(*squares, small, big) == pytest.approx((SIGNAL, NOISE))


@pytest.mark.parametrize(("small", "big"), [(1, 2), (1, 4), (2, 3), (1, 5), (4, 5)])
def test_signal_and_noise_are_unbiased_over_all_batches_without_replacement(small, big):
    squares = [mean_square(itertools.combinations(range(N), b)) for b in (small, big)]
    found = noise.noise_scale(*squares, small, big, population=N)
    assert found == pytest.approx((SIGNAL, NOISE))


@pytest.mark.parametrize(("small", "big"), [(1, 2), (2, 5)])
def test_ignoring_the_population_biases_both_and_the_correction_mends_both(small, big):
    squares = [mean_square(itertools.combinations(range(N), b)) for b in (small, big)]
    signal, inflated = noise.noise_scale(*squares, small, big)
    assert inflated == pytest.approx(NOISE * N / (N - 1))
    assert signal == pytest.approx(SIGNAL - NOISE / (N - 1))
    assert noise.finite_population(signal, inflated, N) == pytest.approx((SIGNAL, NOISE))


def test_the_whole_population_has_no_noise():
    assert noise.variance_factor(N, N) == 0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (partial(noise.noise_scale, 1.0, 1.0, 4, 4), "`big` must be greater than small"),
        (partial(noise.noise_scale, 1.0, 1.0, 0, 4), "at least 1"),
        (partial(noise.noise_scale, 1.0, 1.0, 2, 6, 5), "at most the 5 examples"),
        (partial(noise.variance_factor, 0), "`batch_size` must be at least 1"),
        (partial(noise.finite_population, 1.0, 1.0, 1), "`population` must be at least 2"),
    ],
)
def test_impossible_sizes_are_refused(call, match):
    with pytest.raises(InvalidValueError, match=match):
        call()


def moments_of(gradients, block, design, single):
    parts = gradients.unflatten(0, (-1, block))
    means = parts.mean(1)
    gram = means @ means.T
    small = parts.square().sum(2).mean(1) if single else gram.diagonal()
    return _moments.moments(gram, small, design)


def all_moments(way):
    """Moments of every possible draw of 4 blocks, and the population they are drawn from."""
    if way in ("singles", "blocks of 1"):
        draws = [GRADIENTS[list(i)] for i in itertools.product(range(N), repeat=4)]
        design, block, single = _moments.independent(1, 1, 4), 1, way == "singles"
    elif way in ("blocks of 2", "singles in blocks of 2"):
        single, block = way != "blocks of 2", 2
        draws = [GRADIENTS[list(i)] for i in itertools.product(range(2), repeat=8)]
        design = _moments.independent(1 if single else 2, 2, 4)
        return [moments_of(d, 2, design, single) for d in draws], GRADIENTS[:2]
    elif way == "without replacement":
        draws = [GRADIENTS[list(i)] for i in itertools.permutations(range(N), 4)]
        design, block, single = _moments.without_replacement(1, 1, 4, N), 1, True
    else:
        pairs = list(itertools.combinations(range(4), 2))
        draws = [FOUR[list(sum(p, ()))] for p in itertools.product(pairs, repeat=4)]
        design = _moments.separate_batches(2, 4, 4)
        return [moments_of(d, 2, design, single=False) for d in draws], FOUR
    return [moments_of(d, block, design, single) for d in draws], GRADIENTS


WAYS = [
    "singles",
    "blocks of 1",
    "blocks of 2",
    "singles in blocks of 2",
    "without replacement",
    "separate batches",
]


@pytest.mark.parametrize("way", WAYS)
def test_the_estimates_are_unbiased_over_all_draws(way):
    found, population = all_moments(way)
    signal, spread = benchmark.truth_of(population)
    assert np.mean([m.signal for m in found]) == pytest.approx(signal)
    assert np.mean([m.noise for m in found]) == pytest.approx(spread)


@pytest.mark.parametrize("way", ["singles", "blocks of 2", "separate batches"])
def test_the_variance_without_signal_is_unbiased_over_all_draws(way):
    found, population = all_moments(way)
    centred = population - population.mean(0)
    covariance = centred.T @ centred / len(population)
    expected = 2 * found[0].mean_factor ** 2 * float(covariance.square().sum())
    assert np.mean([m.floor for m in found]) == pytest.approx(expected)


# Planted bugs: each must be seen by the enumeration above.


def without_the_number_of_blocks(m):
    return replace(m, noise=m.noise * 3 / 4)


def norm_of_the_mean(m):
    return replace(m, signal=m.signal + m.mean_factor * m.noise)


def clipped(m):
    return replace(m, signal=max(m.signal, 0.0))


@pytest.mark.parametrize("bug", [without_the_number_of_blocks, norm_of_the_mean, clipped])
def test_a_planted_bug_is_biased_over_all_draws(bug):
    found = [bug(m) for m in all_moments("singles")[0]]
    errors = np.mean([m.signal for m in found]) - SIGNAL, np.mean([m.noise for m in found]) - NOISE
    assert max(map(abs, errors)) > 0.05


def test_too_few_blocks_are_refused():
    with pytest.raises(InvalidValueError, match="`blocks` must be at least 4"):
        _moments.moments(
            torch.ones(3, 3).double(), torch.ones(3).double(), _moments.Design(1, 0, 1)
        )


@pytest.mark.parametrize("dof", [7, 15, 31, 300])
def test_the_t_quantile_is_that_of_scipy(dof):
    special = pytest.importorskip("scipy.special")
    assert _moments.t_quantile(0.95, dof) == pytest.approx(special.stdtrit(dof, 0.95), rel=1e-3)


# -- the interval ---------------------------------------------------------------------------------


COVERED = [p for p in benchmark.problems(1) if "1/i" in p.name or "regression" in p.name]


@pytest.mark.slow
@pytest.mark.parametrize("problem", benchmark.problems(1), ids=lambda p: p.name)
def test_the_interval_covers_and_the_estimates_are_unbiased(problem):
    assert benchmark.score(problem, 400).missed == ""


@pytest.mark.parametrize("problem", [COVERED[2], COVERED[9]], ids=lambda p: p.name)
def test_the_interval_covers_on_few_problems(problem):
    # 400 repetitions see a coverage off by 6 points with |z| = 4.
    assert benchmark.score(problem, 400).missed == ""


def score_with(bug, problem):
    def use(gradients, single, design):
        return bug(benchmark.summarise(gradients, single, design))

    return benchmark.score(problem, 400, use).missed


def no_floor(m):
    return replace(m, floor=m.floor / 100, slope=m.slope / 100)


def half_the_variance(m):
    return replace(m, floor=m.floor / 2, slope=m.slope / 2, noise_var=m.noise_var / 2)


def block_means_not_corrected(m):
    return replace(m, noise=m.noise * 31 / 32)


@pytest.mark.parametrize(
    ("bug", "place"),
    [
        (no_floor, 2),
        (half_the_variance, 2),
        (norm_of_the_mean, 2),
        (block_means_not_corrected, 1),
        (clipped, 4),
    ],
)
def test_a_planted_bug_misses_the_criteria(bug, place):
    assert score_with(bug, COVERED[place]) != ""


def test_the_repeated_mean_of_ratios_is_far_off_where_the_pooled_ratio_is_not():
    problem = next(p for p in benchmark.problems(2) if "1000 equal" in p.name and "≫" in p.name)
    design = problem.design(0)
    single = [benchmark.summarise(problem.draw(i), problem.single, design) for i in range(60)]
    results = [noise.result(m, samples=0, examples=256, method="per example") for m in single]
    truth = problem.truth[1] / problem.truth[0]
    pooled = noise.pool(results).scale
    assert pooled is not None
    assert pooled.low <= truth <= pooled.high
    assert pooled.high / pooled.low < 1.3
    ratios = np.mean([m.noise / m.signal for m in single])
    assert not pooled.low <= ratios <= pooled.high


def test_a_signal_that_is_not_resolved_gives_a_bound_and_no_value():
    found = noise.result(example_moments(0.001), samples=5, examples=64, method="per example")
    assert found.scale is None
    assert found.at_least is not None
    assert found.signal == 0.001


def test_a_negative_signal_is_kept_and_says_nothing_when_far_below_zero():
    found = noise.result(example_moments(-0.1), samples=5, examples=64, method="per example")
    assert (found.signal, found.scale, found.at_least) == (-0.1, None, None)


def example_moments(signal):
    return _moments.Moments(signal, 10.0, 1 / 64, 0.0004, 0.01, 0.01, 0.0, 31.0)


def test_pooling_narrows_the_interval():
    one = noise.result(example_moments(0.2), samples=10, examples=64, method="per example")
    both = noise.pool([one, replace(one, samples=30)])
    assert one.scale is not None
    assert both.scale is not None
    assert both.scale.value == pytest.approx(one.scale.value)
    assert one.scale.low < both.scale.low < both.scale.high < one.scale.high
    assert (both.samples, both.examples) == (20, 128)


def test_results_of_two_methods_are_not_pooled():
    one = noise.result(example_moments(0.2), samples=0, examples=64, method="per example")
    with pytest.raises(InvalidValueError, match="by one method"):
        noise.pool([one, replace(one, method="micro-batches")])


# -- per-example gradients ------------------------------------------------------------------------


def label_loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 2, 8, 8, generator=generator)
    return images, torch.randint(0, 3, (count,), generator=generator)


def words(count):
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(0, 7, (count, 5), generator=generator)
    return text, torch.randint(0, 3, (count,), generator=generator)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.gru(x[:, 0])[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.first(x).mean(1))[:, :3]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.out(self.inner(self.inner(x[:, 0].flatten(1)).tanh()))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def half_frozen():
    net = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.Tanh(), nn.Linear(8, 3))
    net[1].weight.requires_grad_(False)
    return net


def same_padding():
    return nn.Sequential(nn.Conv2d(2, 3, 8, padding="same"), nn.Flatten(), nn.Linear(192, 3))


def flat_places():
    return nn.Sequential(nn.Flatten(0, 1), nn.Flatten(), nn.Linear(64, 3))


LAYERED = {
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.Tanh(), nn.Linear(8, 3)),
    "linear over places": lambda: nn.Sequential(
        nn.Flatten(2), nn.Linear(64, 5), nn.GELU(), nn.Flatten(), nn.Linear(10, 3)
    ),
    "wide linear over places": lambda: nn.Sequential(
        nn.Flatten(2), nn.Linear(64, 50, bias=False), nn.Flatten(), nn.Linear(100, 3)
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(2, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 1)),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 4, 3, groups=2, dilation=2, padding=2, bias=False),
        nn.GroupNorm(2, 4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    ),
    "few places, many channels": lambda: nn.Sequential(
        nn.Conv2d(2, 40, 7), nn.ReLU(), nn.Conv2d(40, 30, 2), nn.Flatten(), nn.Linear(30, 3)
    ),
    "one dimension": lambda: nn.Sequential(
        nn.Flatten(2), nn.Conv1d(2, 4, 5, stride=3, padding=1, dilation=2), nn.Flatten(),
        nn.LayerNorm(80), nn.Linear(80, 3),
    ),
    "half frozen": half_frozen,
    "mean-field": lambda: FourLayerCNN(2, 8, 2, 3, "mean-field"),
}  # fmt: skip
TEXT = {
    "embedding": lambda: nn.Sequential(
        nn.Embedding(7, 6, padding_idx=0), nn.LayerNorm(6), Mean(), nn.Linear(6, 3)
    ),
    "tied": Tied,
}


def objective_of(model, data, **task):
    made = Task(model, data, loss=label_loss, **task)
    torch.manual_seed(0)
    return Objective(made, made.model()).double()


CASES = [pytest.param(model, pictures, id=name) for name, model in LAYERED.items()]
CASES.append(pytest.param(TEXT["embedding"], words, id="embedding"))


def moved(data):
    return data[0].double() if data[0].is_floating_point() else data[0], data[1]


def one_by_one(objective, batch):
    """The naive twin: plain autograd, example by example."""
    ones = [tuple(leaf[i : i + 1] for leaf in batch) for i in range(len(batch[0]))]
    return torch.cat([by_batch(objective, one)[0] for one in ones])


@pytest.mark.parametrize("form", [by_layers, by_vmap])
@pytest.mark.parametrize(("model", "data"), CASES)
def test_per_example_norms_and_block_sums_are_those_of_examples_one_by_one(form, model, data):
    batch = moved(data(6))
    objective = objective_of(model, data(6), weight=lambda batch: batch[1] + 1)
    alone = one_by_one(objective, batch)
    found = form(objective, batch, 3)
    torch.testing.assert_close(found.squares, alone.square().sum(1))
    torch.testing.assert_close(found.blocks, alone.unflatten(0, (3, 2)).sum(1))
    torch.testing.assert_close(found.weights, batch[1].double() + 1)


def test_shared_parameters_are_right_by_vmap():
    batch = words(4)
    objective = objective_of(Tied, batch)
    alone = one_by_one(objective, batch)
    torch.testing.assert_close(by_vmap(objective, batch, 4).blocks, alone)


@pytest.mark.parametrize(
    ("model", "data", "match"),
    [
        (Gru, pictures, "GRU at module.gru"),
        (Tied, words, "shared"),
        (Twice, pictures, "other than once"),
        (lambda: nn.Sequential(nn.Flatten(), Doubled(128, 3)), pictures, "Doubled"),
        (same_padding, pictures, "option of Conv2d"),
        (flat_places, pictures, "first axis"),
    ],
)
def test_layers_that_are_not_known_are_left_to_other_forms(model, data, match):
    batch = moved(data(4))
    objective = objective_of(model, data(4))
    objective.task = replace(objective.task, loss=lambda out, batch: out.reshape(4, -1).sum(1))
    with pytest.raises(Unsupported, match=match):
        by_layers(objective, batch, 2)


class TimeFirst(nn.Module):
    """Treats the first axis of size T = B as time: looks like a batch and is none."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.inner(x[:, 0].transpose(0, 1)).mean(0))


def test_a_layer_whose_axes_only_look_right_is_found_out_by_measuring():
    objective = objective_of(TimeFirst, pictures(8))
    batch = moved(pictures(8))
    by_layers(objective, batch, 2)
    assert noise._form(objective, batch) == "vmap"


@pytest.mark.parametrize(
    ("model", "form"),
    [(LAYERED["convolutions"], "layers"), (Twice, "vmap"), (Gru, "batch")],
)
def test_the_cheapest_right_form_is_chosen(model, form):
    assert noise._form(objective_of(model, pictures(8)), moved(pictures(8))) == form


# -- measuring ------------------------------------------------------------------------------------


def mean_step(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def dropout_net():
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 3))


def norm_net():
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(128), nn.Dropout(0.1), nn.Linear(128, 3))


def ready(model, count=200, data=pictures, batch_size=16, **task):
    task = {"loss": label_loss} | task
    whole = data(count)
    baseline = RunConfig(rule="sgd", batch_size=batch_size, learning_rate=0.1, samples="4ep")
    made = Task(model, whole, validation=data(20), baseline=baseline, **task)
    return prepare(made, device="cpu")


def measured(prepared, examples=96, samples=0, objective=None, **config):
    objective = objective or prepared.objective(0).train()
    run = prepared.baseline.replace(**config)
    return noise.measure_noise(
        objective, prepared, run, samples=samples, seed=0, examples=examples
    )


@pytest.mark.parametrize(
    ("model", "task", "expected"),
    [
        (LAYERED["linear"], {}, False),
        (LAYERED["convolutions"], {}, False),
        (dropout_net, {}, False),
        (norm_net, {}, True),
        (LAYERED["linear"], {"loss": None, "training_step": mean_step}, False),
        (dropout_net, {"loss": None, "training_step": mean_step}, False),
        (norm_net, {"loss": None, "training_step": mean_step}, True),
    ],
)
def test_batch_norm_couples_examples_and_dropout_does_not(model, task, expected):
    prepared = ready(model, **task)
    objective = prepared.objective(0).train()
    assert noise.coupled(objective, prepared.train.batch(torch.arange(8))) is expected
    assert not noise.coupled(objective.eval(), prepared.train.batch(torch.arange(8)))


@pytest.mark.parametrize(
    ("model", "task", "method"),
    [
        (LAYERED["convolutions"], {}, "per example"),
        (dropout_net, {}, "per example"),
        (Gru, {}, "micro-batches"),
        (LAYERED["linear"], {"loss": None, "training_step": mean_step}, "micro-batches"),
        (LAYERED["linear"], {"weight": lambda batch: batch[1] + 1}, "micro-batches"),
        (norm_net, {}, "training micro-batches"),
    ],
)
def test_the_method_follows_the_model(model, task, method):
    assert measured(ready(model, **task)).method == method


def weights_of(batch):
    return batch[1] + 1.0


@pytest.mark.parametrize(
    ("task", "method"),
    [
        ({}, "per example"),
        ({"weight": weights_of}, "micro-batches"),
        ({"loss": None, "training_step": mean_step}, "micro-batches"),
    ],
)
def test_all_examples_give_the_exact_answer(task, method):
    prepared = ready(LAYERED["linear"], count=40, **task)
    objective = prepared.objective(0).train()
    rows, weights = zip(
        *(by_batch(objective, prepared.train.batch(torch.tensor([i]))) for i in range(40)),
        strict=True,
    )
    weight = torch.stack(weights)
    share = (weight / weight.mean()).double()[:, None]
    each = torch.cat(rows).double() / weight[:, None]
    whole = (share * each).mean(0)
    spread = (share * (each - whole)).square().sum(1).mean()
    found = measured(prepared, objective=objective)
    assert (found.method, found.examples) == (method, 40)
    assert found.signal == pytest.approx(float(whole.square().sum()), rel=1e-5)
    assert found.noise == pytest.approx(float(spread), rel=1e-5)
    assert found.scale is not None
    assert found.scale.low == found.scale.value == pytest.approx(found.noise / found.signal)


@pytest.mark.parametrize(("batch_size", "examples"), [(16, 128), (24, 192), (4, 96)])
def test_under_batch_norm_the_small_batch_is_that_of_training(batch_size, examples):
    assert measured(ready(norm_net), batch_size=batch_size).examples == examples


def test_under_batch_norm_a_growing_schedule_is_read_at_the_moment():
    prepared = ready(norm_net)
    assert measured(prepared, batch_size="0:4 1ep:32", samples=200).examples == 8 * 32


def test_under_batch_norm_noise_is_that_of_training_batches():
    prepared = ready(norm_net, count=400)
    objective = prepared.objective(0).train()
    rows = []
    for i in range(800):
        torch.manual_seed(i)
        rows.append(by_batch(objective, prepared.train.batch(torch.randperm(400)[:16]))[0] / 16)
    _, spread = benchmark.truth_of(torch.cat(rows).double())
    expected = spread / noise.variance_factor(16, 400)
    found = measured(prepared, examples=512, objective=objective)
    assert found.moments is not None
    deviation = math.sqrt(found.moments.noise_var + (expected / 25) ** 2)
    assert abs(found.noise - expected) <= 4 * deviation
    assert deviation < 0.2 * expected


def test_a_batch_of_the_whole_data_set_under_batch_norm_has_no_noise_to_measure():
    found = measured(ready(norm_net), batch_size=200)
    assert (found.scale, found.at_least, found.moments) == (None, None, None)


@pytest.mark.parametrize("batch_size", [3, 16, 200])
def test_the_answer_does_not_depend_on_the_batch_size_where_examples_do_not_affect_each_other(
    batch_size,
):
    prepared = ready(LAYERED["convolutions"])
    found, other = measured(prepared, batch_size=batch_size), measured(prepared, batch_size=64)
    assert (found.signal, found.noise) == pytest.approx((other.signal, other.noise), rel=1e-4)


@pytest.mark.parametrize("model", [Gru, Twice])
def test_forms_agree_on_signal_and_noise(model, monkeypatch):
    prepared = ready(model)
    found = measured(prepared, examples=200)
    monkeypatch.setattr(noise, "_form", lambda objective, batch: "batch")
    other = measured(prepared, examples=200)
    assert other.signal == pytest.approx(found.signal, rel=1e-3)
    assert other.noise == pytest.approx(found.noise, rel=0.25)


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 0.05), ("float64", 1e-4)])
def test_the_precision_of_the_recipe_changes_the_answer_by_its_rounding(precision, tolerance):
    prepared = ready(SmallCNNOnTwo)
    dtype = torch.float64 if precision == "float64" else torch.float32
    objective = prepared.objective(0, dtype).train()
    found = measured(prepared, objective=objective, precision=precision)
    expected = measured(prepared)
    assert (found.signal, found.noise) == pytest.approx(
        (expected.signal, expected.noise), rel=tolerance
    )


class SmallCNNOnTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = SmallCNN(channels=(4, 4), classes=3)

    def forward(self, x):
        return self.net(x[:, :1])


def test_the_draw_is_named_by_seed_and_samples():
    prepared = ready(LAYERED["linear"])
    torch.manual_seed(1)
    one = measured(prepared)
    torch.manual_seed(2)
    assert measured(prepared) == one
    assert measured(prepared, samples=16).noise != one.noise


def test_too_few_examples_are_refused():
    prepared = ready(LAYERED["linear"])
    with pytest.raises(InvalidValueError, match="`examples` must be at least 32"):
        measured(prepared, examples=31)
    with pytest.raises(InvalidValueError, match="`examples` must be at least 32"):
        noise.noise_probe(prepared, prepared.baseline, examples=8)


def test_weights_that_are_not_finite_give_no_answer():
    prepared = ready(LAYERED["linear"])
    objective = prepared.objective(0).train()
    with torch.no_grad():
        next(objective.parameters()).fill_(math.nan)
    found = measured(prepared, objective=objective)
    assert (found.scale, found.at_least, found.moments) == (None, None, None)


# -- no trace -------------------------------------------------------------------------------------

MODELS = {
    "convolutions": LAYERED["convolutions"],
    "dropout": dropout_net,
    "batch norm and dropout": norm_net,
    "residual": lambda: ResNet(in_channels=2, width=4, classes=3),
    "recurrent": Gru,
}


def step(objective, optimizer, batch):
    optimizer.zero_grad(set_to_none=False)
    losses, weights = objective(batch)
    ((losses * weights).sum() / weights.sum()).backward()
    optimizer.step()


def train_100(prepared, probe):
    """Weights after 100 updates with global random numbers, probed after 3."""
    torch.manual_seed(0)
    objective = prepared.objective(0).train()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.05, momentum=0.9)
    for i in range(103):
        if i == 3:
            probe(objective)
        step(objective, optimizer, prepared.train.batch(torch.randint(200, (16,))))
    return objective.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_the_next_100_steps_are_those_of_a_run_that_never_probed(model):
    prepared = ready(model)
    probed = train_100(prepared, lambda objective: measured(prepared, objective=objective))
    assert same(probed, train_100(prepared, lambda objective: None))


def leaves_gradients(prepared, objective):
    objective(prepared.train.batch(torch.arange(8)))[0].mean().backward()
    next(objective.parameters()).data.add_(next(objective.parameters()).grad, alpha=1e-7)


def draws_a_number(prepared, objective):
    torch.rand(1)


def moves_buffers(prepared, objective):
    with torch.no_grad():
        objective(prepared.train.batch(torch.arange(8)))


@pytest.mark.parametrize("bug", [leaves_gradients, draws_a_number, moves_buffers])
def test_a_probe_that_leaves_a_trace_is_seen_by_the_next_100_steps(bug):
    prepared = ready(norm_net)
    probed = train_100(prepared, partial(bug, prepared))
    assert not same(probed, train_100(prepared, lambda objective: None))


# The type checks of a test run draw from Python's generator themselves, so they are off here.
@pytest.mark.wrong_type
@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_objective_or_the_random_state_changes(model, training):
    prepared = ready(model)
    objective = prepared.objective(0).train(training)
    objective.module.eval()
    for parameter in objective.parameters():
        parameter.grad = torch.randn_like(parameter)
    before = {n: t.clone() for n, t in objective.state_dict().items()}
    grads = [(p.grad, p.grad.clone()) for p in objective.parameters() if p.grad is not None]
    modes = [m.training for m in objective.modules()]
    hooks = [len(m._forward_hooks) for m in objective.modules()]
    state = _random.global_state()
    measured(prepared, objective=objective)
    assert same(before, objective.state_dict())
    for parameter, (grad, value) in zip(objective.parameters(), grads, strict=True):
        assert parameter.grad is grad
        assert torch.equal(grad, value)
    assert modes == [m.training for m in objective.modules()]
    assert hooks == [len(m._forward_hooks) for m in objective.modules()]
    assert _random.global_state() == state


def test_the_task_and_its_data_are_not_copied(monkeypatch):
    prepared = ready(LAYERED["linear"])
    seen, measure = [], noise._Measurement.measure

    def watched(self, examples):
        seen.append(self.objective)
        return measure(self, examples)

    monkeypatch.setattr(noise._Measurement, "measure", watched)
    objective = prepared.objective(0)
    measured(prepared, objective=objective)
    assert seen[0].task is objective.task
    assert seen[0].module is not objective.module


# -- in the engine --------------------------------------------------------------------------------


def test_named_floats_of_a_trace_give_back_the_result():
    prepared = ready(LAYERED["convolutions"])
    probe = noise.noise_probe(prepared, prepared.baseline, examples=96)
    values = probe(prepared.objective(0).train(), 16)
    assert all(isinstance(value, float) for value in values.values())
    found = noise.from_trace_values(values | {"loss": 1.0}, 16)
    assert found == measured(prepared, samples=16)


def test_what_is_not_resolved_is_not_a_number_in_a_trace():
    found = noise.result(example_moments(0.001), samples=5, examples=64, method="per example")
    values = found.values()
    assert math.isnan(values["noise.scale"])
    assert math.isnan(values["noise.high"])
    assert values["noise.low"] == found.at_least
    assert noise.from_trace_values(values, 5) == found


def test_a_measurement_that_failed_comes_back_from_a_trace():
    found = measured(ready(norm_net), batch_size=200)
    back = noise.from_trace_values(found.values(), 0)
    assert (back.scale, back.at_least, back.moments) == (None, None, None)


def test_values_without_a_noise_probe_are_refused():
    with pytest.raises(InvalidValueError, match="those of a noise probe"):
        noise.from_trace_values({"loss": 1.0}, 0)


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_the_engine_records_the_noise_and_trains_as_without(executor):
    prepared = ready(LAYERED["linear"])
    plan = noise.noise_plan(800, share=0.5)
    probe = noise.noise_probe(prepared, prepared.baseline, examples=plan.examples)
    jobs = engine.Job((0, 800), probe, plan.at), engine.Job((0, 800))
    probed, plain = (
        engine.train(prepared, [prepared.baseline], job, workers=1, executor=executor).runs[0]
        for job in jobs
    )
    assert len(probed.series["noise.signal"].values) == len(plan.at)
    assert probed.series["loss"].values.tolist() == plain.series["loss"].values.tolist()


# -- the plan -------------------------------------------------------------------------------------


@given(
    samples=st.integers(1, 10**9),
    reuse=st.integers(1, 8),
    least=st.integers(32, 10_000),
    cost=st.floats(0.5, 20),
    share=st.floats(0.001, 1),
)
def test_a_plan_never_costs_more_than_its_share(samples, reuse, least, cost, share):
    plan = noise.noise_plan(samples, reuse=reuse, least=least, cost=cost, share=share)
    assert len(plan.at) * plan.examples * cost <= share * samples * reuse
    assert plan.examples >= least
    assert list(plan.at) == sorted(plan.at)
    assert all(0 <= at < samples for at in plan.at)


@pytest.mark.parametrize(
    ("samples", "count", "examples"),
    [(1_000, 0, 32), (24_420, 1, 407), (200_000, 12, 277), (10**7, 40, 4096)],
)
def test_longer_runs_are_measured_more_often_and_then_more_closely(samples, count, examples):
    plan = noise.noise_plan(samples)
    assert (len(plan.at), plan.examples) == (count, examples)


@pytest.mark.parametrize("name", ["samples", "reuse", "cost", "share"])
def test_a_plan_from_nothing_is_refused(name):
    with pytest.raises(InvalidValueError, match=f"`{name}` must be above 0"):
        noise.noise_plan(**({"samples": 100} | {name: 0}))
