import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from batchlab import optim
from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError
from batchlab.measure.plain import make_optimizer
from batchlab.rules import RULES, Scales
from batchlab.schedules import batch_schedule, rate_schedule
from batchlab.tasks import Objective, Task, recipe


def weights():
    return [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]


def objective():
    task = Task(lambda: nn.Linear(2, 1), torch.ones(20, 2), loss=torch.sub)
    return Objective(task, task.model())


# --- optimizers ---


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: torch.optim.SGD(p, 0.1), {"rule": "sgd", "momentum": 0.0}),
        (lambda p: torch.optim.SGD(p, 0.1, 0.8), {"rule": "shb", "momentum": 0.8}),
        (
            lambda p: torch.optim.SGD(p, 0.1, 0.8, nesterov=True, weight_decay=0.01),
            {"rule": "nesterov", "momentum": 0.8, "weight_decay": 0.01},
        ),
        (
            lambda p: torch.optim.Adam(p, 0.1, (0.8, 0.99), 1e-6),
            {"rule": "adam", "momentum": 0.8, "beta2": 0.99, "eps": 1e-6},
        ),
        (
            lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.99), foreach=False),
            {"rule": "adamw", "momentum": 0.8, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01},
        ),
        (
            lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1, decoupled_weight_decay=True),
            {"rule": "adamw", "momentum": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1},
        ),
        (
            lambda p: torch.optim.RMSprop(p, 0.1, 0.95, 1e-7, momentum=0.5),
            {"rule": "rmsprop", "momentum": 0.5, "beta2": 0.95, "eps": 1e-7},
        ),
        (lambda p: optim.SHB(p, 0.1, 0.8), {"rule": "shb", "momentum": 0.8}),
        (lambda p: optim.NSHB(p, 0.1, 0.8), {"rule": "nshb", "momentum": 0.8}),
        (lambda p: optim.QHM(p, 0.1, 0.8, nu=0.3), {"rule": "qhm", "momentum": 0.8, "nu": 0.3}),
    ],
)
def test_an_optimizer_is_read_as_its_rule_and_numbers(make, expected):
    fields = recipe.optimizer_fields(make(weights()))
    assert fields == {"weight_decay": 0.0, "learning_rate": 0.1, **expected}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_what_is_read_is_what_the_optimizer_of_a_recipe_was_made_from(rule):
    numbers = {"learning_rate": 0.02, "weight_decay": 0.003, "beta2": 0.9, "eps": 1e-5, "nu": 0.4}
    momentum = None if rule == "sgd" else 0.7
    config = RunConfig(rule=rule, momentum=momentum, **numbers).resolved(1)
    read = recipe.optimizer_fields(make_optimizer(objective(), config))
    if rule == "nshb":  # made as PyTorch's momentum at the same steps
        assert (read.pop("rule"), read.pop("learning_rate")) == ("shb", pytest.approx(0.006))
    assert read == {name: getattr(config, name) for name in read}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: torch.optim.SGD(p, 0.1, 0.9, dampening=0.5), r"dampening; got 'SGD\(damp"),
        (lambda p: torch.optim.SGD(p, 0.1, maximize=True), "without maximize"),
        (lambda p: torch.optim.AdamW(p, 0.1, amsgrad=True), "without amsgrad"),
        (lambda p: torch.optim.RMSprop(p, 0.1, centered=True), "without centered"),
    ],
)
def test_an_option_that_changes_the_steps_is_refused_by_name(make, said):
    with pytest.raises(InvalidValueError, match=said):
        recipe.optimizer_fields(make(weights()))


def test_dampening_without_momentum_changes_nothing():
    assert recipe.optimizer_fields(torch.optim.SGD(weights(), 0.1, dampening=0.5))["rule"] == "sgd"


def test_an_unknown_optimizer_is_refused_by_name():
    with pytest.raises(InvalidTypeError, match=r"one of SGD, Adam, AdamW.*; got 'Adagrad'"):
        recipe.optimizer_fields(torch.optim.Adagrad(weights()))


def test_a_subclass_is_refused_since_it_may_step_differently():
    class Mine(torch.optim.SGD):
        pass

    with pytest.raises(InvalidTypeError, match="got 'Mine'"):
        recipe.optimizer_fields(Mine(weights(), 0.1))


@pytest.mark.parametrize("hook", ["register_step_pre_hook", "register_step_post_hook"])
def test_a_step_hook_is_refused(hook):
    optimizer = torch.optim.SGD(weights(), 0.1)
    getattr(optimizer, hook)(lambda *_: None)
    with pytest.raises(InvalidValueError, match="without step hooks"):
        recipe.optimizer_fields(optimizer)


def groups(**second):
    first, other = weights()
    return torch.optim.AdamW([{"params": [first]}, {"params": [other], **second}], lr=0.1)


@pytest.mark.parametrize(("name", "value"), [("lr", 0.01), ("weight_decay", 0.0), ("eps", 1e-3)])
def test_groups_that_differ_are_refused_naming_the_number(name, value):
    with pytest.raises(InvalidValueError, match=f"groups that differ in {name}"):
        recipe.optimizer_fields(groups(**{name: value}))


def test_groups_may_differ_where_that_is_allowed_and_the_largest_is_read():
    fields = recipe.optimizer_fields(groups(lr=0.2, weight_decay=0.0), {"lr", "weight_decay"})
    assert (fields["learning_rate"], fields["weight_decay"]) == (0.2, 0.01)


def test_each_parameter_has_its_own_multiples_of_the_largest_numbers():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(
        [
            {"params": [net[0].weight, net[1].weight], "lr": 0.1, "weight_decay": 0.2},
            {"params": [net[0].bias], "lr": 0.1, "weight_decay": 0.0},
            {"params": [net[1].bias], "lr": 0.05, "weight_decay": 0.1},
        ]
    )
    assert recipe.group_scales(net, optimizer) == {
        "0.bias": Scales(1.0, 0.0),
        "1.bias": Scales(0.5, 0.5),
    }


def test_groups_without_weight_decay_have_nothing_of_their_own():
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([{"params": [net.weight]}, {"params": [net.bias]}], 0.1)
    assert recipe.group_scales(net, optimizer) == {}


def test_groups_with_the_same_numbers_are_one():
    assert recipe.optimizer_fields(groups(foreach=True))["rule"] == "adamw"


def test_the_rate_is_the_one_before_a_scheduler_touched_it():
    optimizer = torch.optim.SGD(weights(), 0.1)
    lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    assert optimizer.param_groups[0]["lr"] == 0
    assert recipe.optimizer_fields(optimizer)["learning_rate"] == 0.1


def test_parameters_that_the_optimizer_does_not_hold_are_named():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).requires_grad_(True)
    net[0].bias.requires_grad_(False)
    held = torch.optim.SGD(net[1].parameters(), 0.1)
    assert recipe.left_out(net, held) == ("0.weight",)


# --- learning rates ---


def run(make, updates, lr=0.1, optimizer=None):
    """The rates of every update under a scheduler."""
    optimizer = torch.optim.SGD(weights(), lr) if optimizer is None else optimizer
    scheduler = make(optimizer)
    name = type(scheduler).__name__
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The epoch parameter")
        return recipe.learning_rates(
            optimizer, lambda update: scheduler.step(), updates, scheduler=name
        )


def read(fields, updates):
    """The rates that a training of so many updates takes from the fields."""
    config = RunConfig(samples=updates * 7, batch_size=7, **fields)
    rate = rate_schedule(config.lr_schedule, warmup=config.warmup)
    plan = batch_schedule(7).updates(0, config.samples)
    return [config.learning_rate * rate(first / config.samples) for first, _ in plan]


def hf_linear(warmup, total):
    return lambda k: k / max(1, warmup) if k < warmup else (total - k) / max(1, total - warmup)


def hf_cosine(warmup, total, floor=0.0):
    def rate(k):
        if k < warmup:
            return k / max(1, warmup)
        p = (k - warmup) / max(1, total - warmup)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * p))

    return rate


@pytest.mark.parametrize("updates", [7, 100, 1237])
@pytest.mark.parametrize(
    ("make", "text", "warmup"),
    [
        (lambda n: lambda k: 1.0, "constant", 0),
        (lambda n: lambda k: min(1.0, k / 5), "constant", 5),
        (lambda n: hf_linear(0, n), "linear", 0),
        (lambda n: hf_linear(3, n), "linear", 3),
        (lambda n: lambda k: 1 - 0.8 * k / n, "linear(0.2)", 0),
        (lambda n: hf_cosine(0, n), "cosine", 0),
        (lambda n: hf_cosine(3, n), "cosine", 3),
        (lambda n: hf_cosine(3, n, 0.1), "cosine(0.1)", 3),
        (lambda n: lambda k: 0.01 ** (k / n), "geometric", 0),
        (lambda n: lambda k: 0.2 ** (k / n), "geometric(0.2)", 0),
        (lambda n: lambda k: 1 / math.sqrt(1 + k / (0.3 * n)), "inverse_sqrt(0.3)", 0),
    ],
)
def test_a_known_curve_is_recognised(make, text, warmup, updates):
    rates = run(lambda o: lr_scheduler.LambdaLR(o, make(updates)), updates)
    fields = recipe.rate_fields(rates, scheduler="LambdaLR")
    assert (fields["lr_schedule"], fields["warmup"]) == (text, warmup / updates)
    assert read(fields, updates) == pytest.approx(rates, abs=1e-6 * 0.1)


def test_torchs_cosine_is_recognised():
    rates = run(lambda o: lr_scheduler.CosineAnnealingLR(o, 50, eta_min=0.001), 50)
    fields = recipe.rate_fields(rates, scheduler="CosineAnnealingLR")
    assert fields["lr_schedule"] == "cosine(0.01)"


def test_a_training_that_ends_within_its_warmup_is_kept():
    rates = run(lambda o: lr_scheduler.LambdaLR(o, lambda k: k / 100), 20)
    assert read(recipe.rate_fields(rates, scheduler="x"), 20) == pytest.approx(rates)


@settings(max_examples=100)
@given(st.integers(1, 1000), st.data())
def test_every_level_changes_at_its_very_update(updates, data):
    """Levels are far apart, so a change one update early or late would be a wrong rate."""
    places = data.draw(st.sets(st.integers(1, updates), max_size=8))
    rates = [0.5 ** sum(place <= k for place in places) for k in range(updates)]
    fields = recipe.rate_fields(rates, scheduler="MultiStepLR")
    assert read(fields, updates) == pytest.approx(rates, rel=1e-9)


@settings(max_examples=100)
@given(st.integers(1, 20), st.integers(1, 40), st.sampled_from(["step", "exponential", "cosine"]))
def test_a_scheduler_by_epoch_is_kept_at_every_update(per_epoch, epochs, kind):
    make = {
        "step": lambda o: lr_scheduler.StepLR(o, 3, 0.3),
        "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
        "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, epochs),
    }[kind]
    optimizer = torch.optim.SGD(weights(), 0.3)
    scheduler = make(optimizer)

    def advance(update):
        if (update + 1) % per_epoch == 0:
            scheduler.step()

    rates = recipe.learning_rates(optimizer, advance, epochs * per_epoch, scheduler=kind)
    fields = recipe.rate_fields(rates, scheduler=kind)
    assert read(fields, len(rates)) == pytest.approx(rates, abs=1e-6 * 0.3)


@pytest.mark.parametrize("updates", [50, 1000, 6000])
@pytest.mark.parametrize(
    "make",
    [
        lambda o, n: lr_scheduler.OneCycleLR(o, 0.1, total_steps=n, cycle_momentum=False),
        lambda o, n: lr_scheduler.SequentialLR(
            o,
            [
                lr_scheduler.LinearLR(o, 1 / 3, total_iters=n // 10),
                lr_scheduler.CosineAnnealingLR(o, n - n // 10),
            ],
            [n // 10],
        ),
        lambda o, n: lr_scheduler.CosineAnnealingWarmRestarts(o, n // 3),
        lambda o, n: lr_scheduler.PolynomialLR(o, n, power=2.0),
    ],
)
def test_any_smooth_curve_is_kept_by_lines_to_a_ten_thousandth_of_the_peak(make, updates):
    rates = run(lambda o: make(o, updates), updates)
    fields = recipe.rate_fields(rates, scheduler="curve")
    assert len(fields["lr_schedule"].split()) <= recipe.MOST_POINTS
    assert read(fields, updates) == pytest.approx(rates, abs=1e-4 * max(rates))


def test_straight_pieces_are_kept_as_few_lines():
    def rate(k):  # up, level, down
        return min(1.0, 0.1 + 0.9 * k / 50, (400 - k) / 200)

    rates = run(lambda o: lr_scheduler.LambdaLR(o, rate), 400)
    fields = recipe.rate_fields(rates, scheduler="LambdaLR")
    assert fields["lr_schedule"] == "0:0.1 ~12.5%:1.0 50%:1.0 ~99.75%:0.005"
    assert read(fields, 400) == pytest.approx(rates, abs=1e-7)


def test_rates_without_any_pattern_are_refused_by_the_schedulers_name():
    draw = torch.Generator().manual_seed(0)
    rates = torch.rand(2000, generator=draw).tolist()
    with pytest.raises(InvalidValueError, match="500 levels or straight lines; got 'Noisy'"):
        recipe.rate_fields(rates, scheduler="Noisy")


@pytest.mark.parametrize("rates", [[0.1, -0.1], [0.1, math.nan], [math.inf, 0.1], [0.0, 0.0]])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(InvalidValueError, match="rates are finite, 0 or more, and not all 0"):
        recipe.rate_fields(rates, scheduler="LambdaLR")


def test_the_peak_may_lie_above_the_optimizers_rate():
    rates = run(lambda o: lr_scheduler.LambdaLR(o, lambda k: 3.0), 5)
    assert recipe.rate_fields(rates, scheduler="x")["learning_rate"] == pytest.approx(0.3)


def test_cycled_momentum_is_refused():
    optimizer = torch.optim.SGD(weights(), 0.1, momentum=0.9)
    with pytest.raises(InvalidValueError, match="changes the learning rate alone; got 'OneCycl"):
        run(lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9), 9, optimizer=optimizer)


def test_groups_whose_rates_move_alike_give_the_rates_of_the_largest():
    rates = run(
        lambda o: lr_scheduler.LambdaLR(o, lambda k: (k + 1) / 2), 2, optimizer=groups(lr=0.4)
    )
    assert rates == pytest.approx((0.2, 0.4))


def test_groups_whose_rates_move_apart_are_refused():
    with pytest.raises(InvalidValueError, match="all parameter groups alike; got 'LambdaLR'"):
        run(
            lambda o: lr_scheduler.LambdaLR(o, [lambda k: 1.0, lambda k: 0.5**k]),
            3,
            optimizer=groups(lr=0.4),
        )
