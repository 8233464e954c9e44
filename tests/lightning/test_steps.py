"""Ten steps of the task are ten steps of the trainer, on the same batches."""

import pytest
import torch
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from batchlab import schedules
from batchlab.engine import Engine, Job
from batchlab.lightning import task
from batchlab.lightning import trainer as reading
from batchlab.samplers import Stream
from batchlab.tasks import prepare
from tests.lightning import made

STEPS = 10


class Following:
    """A batch sampler that goes on along the task's stream from epoch to epoch."""

    def __init__(self, batch_size, batches):
        self.batch_size, self.batches, self.stream = batch_size, batches, Stream(made.EXAMPLES, 0)
        self.epoch = 0

    def __len__(self):
        return self.batches

    def __iter__(self):
        first = self.epoch * self.batches * self.batch_size
        self.epoch += 1
        for batch in range(self.batches):
            start = first + batch * self.batch_size
            yield self.stream.take(start, self.batch_size)[0].tolist()


def by_lightning(module, trainer, batch_size):
    """The parameters after the trainer's own fit."""
    sampler = Following(batch_size, made.EXAMPLES // batch_size)
    trainer.fit(module, DataLoader(made.points(), batch_sampler=sampler))
    assert trainer.global_step == STEPS
    return {name: p.detach().double() for name, p in module.named_parameters()}


def by_batchlab(own):
    """The parameters after the baseline of a task."""
    prepared = prepare(own, device="cpu")
    job = Job(evaluate_at=(0,), keep_end=True)
    with Engine(prepared, None, 0, "loop") as engine:
        trace, states = engine.train([prepared.baseline], job)
    assert trace.runs[0].updates == STEPS
    params = states[0].progress.params
    return {name.removeprefix("module."): p.double() for name, p in params.items()}


def apart(module, trainer, batch_size):
    """Largest difference between the two, over the distance that was moved."""
    own = task(module, made.loaders(batch_size=batch_size), trainer)
    return difference(by_batchlab(own), module, trainer, batch_size)


def difference(ours, module, trainer, batch_size):
    """Between these parameters and the trainer's; what is not in ``ours`` must not move."""
    before = {n: p.detach().double().clone() for n, p in module.named_parameters()}
    theirs = by_lightning(module, trainer, batch_size)
    moved = {n: float((theirs[n] - before[n]).abs().max()) for n in theirs}
    assert {n for n in moved if moved[n] > 0} == ours.keys()
    return max(float((ours[n] - theirs[n]).abs().max()) for n in ours) / max(moved.values())


def momentum_and_cosine_by_epoch(module):
    optimizer = torch.optim.SGD(module.parameters(), 0.3, momentum=0.9, weight_decay=0.01)
    return [optimizer], [lr_scheduler.CosineAnnealingLR(optimizer, 3)]


def two_groups(module):
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim == 1]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.1},
            {"params": others, "weight_decay": 0.0, "lr": 0.02},
        ],
        lr=0.05,
        betas=(0.8, 0.99),
    )


def nesterov_and_one_cycle_by_step(module):
    optimizer = torch.optim.SGD(module.parameters(), 0.3, momentum=0.8, nesterov=True)
    total = module.trainer.estimated_stepping_batches
    schedule = lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=total, cycle_momentum=False)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rmsprop_on_the_last_layer(module):
    return torch.optim.RMSprop(module.layers[2].parameters(), 0.01, momentum=0.5)


@pytest.mark.parametrize("package", list(made.PACKAGES))
@pytest.mark.parametrize(
    ("configure", "batch_size", "changes"),
    [
        (momentum_and_cosine_by_epoch, 16, {}),
        (two_groups, 8, {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2}),
        (nesterov_and_one_cycle_by_step, 16, {"gradient_clip_val": 0.2}),
        (rmsprop_on_the_last_layer, 16, {}),
    ],
)
def test_ten_steps_in_double_precision_are_the_trainers(package, configure, batch_size, changes):
    module = made.module(package, configure=configure)
    trainer = made.trainer(package, max_steps=STEPS, precision="64-true", **changes)
    assert apart(module, trainer, batch_size) < 1e-10


@pytest.mark.parametrize(("precision", "limit"), [("32-true", 1e-5), ("bf16-mixed", 1e-3)])
def test_ten_steps_in_the_trainers_precision_are_the_trainers(precision, limit):
    module = made.module(configure=momentum_and_cosine_by_epoch)
    trainer = made.trainer(max_steps=STEPS, precision=precision)
    assert apart(module, trainer, 16) < limit


def test_bfloat16_is_not_float32(monkeypatch):
    """The planted fault that the tolerance in bfloat16 must see."""
    monkeypatch.setitem(reading.PRECISIONS, "bf16-mixed", "float32")
    module = made.module(configure=momentum_and_cosine_by_epoch)
    trainer = made.trainer(max_steps=STEPS, precision="bf16-mixed")
    assert apart(module, trainer, 16) > 1e-3


@pytest.mark.parametrize(
    "fault",
    [
        {"gradient_clip_val": None},
        {"accumulate_grad_batches": 1},
        {"gradient_clip_val": 0.101},
        {"precision": "32-true"},
    ],
)
def test_a_fault_in_what_is_read_is_seen_within_ten_steps(fault):
    given = {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2, "precision": "64-true"}
    right, wrong = (made.trainer(max_steps=STEPS, **(given | changes)) for changes in ({}, fault))
    module = made.module(configure=momentum_and_cosine_by_epoch)
    ours = by_batchlab(task(module, made.loaders(batch_size=8), wrong))
    assert difference(ours, module, right, 8) > 1e-8


class Rates(made.PACKAGES["lightning"].Callback):
    """The learning rate of every update."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


def halving(interval, frequency):
    def configure(module):
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        schedule = {
            "scheduler": lr_scheduler.ExponentialLR(optimizer, 0.5),
            **{"interval": interval, "frequency": frequency},
        }
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    return configure


def both(module):
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    by_step = {"scheduler": lr_scheduler.ExponentialLR(optimizer, 0.99), "interval": "step"}
    return [optimizer], [by_step, lr_scheduler.StepLR(optimizer, 2, 0.1)]


@pytest.mark.parametrize(
    ("configure", "examples", "loader", "changes"),
    [
        (halving("epoch", 1), 50, {}, {}),
        (halving("epoch", 2), 50, {}, {"max_epochs": 5}),
        (halving("step", 1), 50, {"drop_last": True}, {}),
        (halving("step", 2), 90, {}, {"accumulate_grad_batches": 2}),
        (halving("step", 3), 90, {}, {"accumulate_grad_batches": 2}),
        (halving("epoch", 1), 90, {}, {"accumulate_grad_batches": 4, "max_steps": 5}),
        (halving("epoch", 1), 90, {}, {"limit_train_batches": 3}),
        (halving("step", 1), 90, {}, {"limit_train_batches": 0.5, "max_epochs": 4}),
        (both, 50, {}, {"max_epochs": 5}),
        (made.sgd, 50, {}, {"max_epochs": -1, "max_steps": 7}),
    ],
)
def test_every_update_has_the_learning_rate_of_the_trainer(configure, examples, loader, changes):
    module, given = made.module(configure=configure), made.loaders(examples, **loader)
    told = Rates()
    recipe = task(module, given, made.trainer(**changes)).baseline
    made.trainer(callbacks=[told], **changes).fit(module, given[0])
    rate = schedules.rate_schedule(recipe.lr_schedule, warmup=recipe.warmup)
    plan = schedules.batch_schedule(recipe.batch_size).updates(0, recipe.samples)
    ours = [recipe.learning_rate * rate(first / recipe.samples) for first, _ in plan]
    assert ours == pytest.approx(told.rates, abs=1e-6 * 0.1)
