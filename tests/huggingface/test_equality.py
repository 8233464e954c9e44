"""Ten updates of the Task equal ten of the Trainer itself, on the same batches.

Tolerances: the distance of all parameters together, in multiples of how far
they moved, is at most 1e-5 in float32, 1e-6 in float64 (the Trainer adds 1e-6 to the norm it clips
by, and takes some losses in float32), and 2e-3 in bfloat16, whose numbers have 8 bits.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import Trainer

from batchlab.huggingface import task
from tests.huggingface import tiny

SINGLE, DOUBLE, HALF = 1e-5, 1e-6, 2e-3
MAKERS = [tiny.classifier, tiny.writer]


def double(make):
    return lambda: make().double()


def distance(tmp_path, make, kind=Trainer, altered=None, **changes):
    """Between the Task of one Trainer, perhaps altered, and the training of another like it."""
    before, after = tiny.trainer_updates(make(tmp_path, tiny.in_order(kind), **changes))
    made = task(make(tmp_path, kind, **changes))
    return tiny.apart(tiny.engine_updates(made, **(altered or {})), before, after)


@pytest.mark.parametrize("make", MAKERS)
def test_ten_updates_equal_those_of_the_trainer(tmp_path, make):
    assert distance(tmp_path, make) < SINGLE


@pytest.mark.parametrize(
    ("make", "model"), [(tiny.classifier, tiny.bert), (tiny.writer, tiny.gpt)]
)
def test_they_do_in_double_precision(tmp_path, make, model):
    assert distance(tmp_path, make, model=double(model)) < DOUBLE


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The Task of a Trainer, and the parameters before and after another like it has trained."""
    folder = tmp_path_factory.mktemp("written")
    seen = tiny.trainer_updates(tiny.writer(folder, tiny.in_order(Trainer)))
    return task(tiny.writer(folder, Trainer)), *seen


@pytest.mark.parametrize(
    "altered",
    [
        {"clip_norm": None},
        {"warmup": 0.0},
        {"weight_decay": 0.0},
        {"learning_rate": 3.03e-3},
        {"lr_schedule": "constant"},
        {"momentum": 0.89},
        {"beta2": 0.99},
        {"batch_size": 10},
        {"seed": 1},
    ],
)
def test_another_recipe_is_told_apart(written, altered):
    own, before, after = written
    assert tiny.apart(tiny.engine_updates(own, **altered), before, after) > 100 * SINGLE


@pytest.mark.parametrize("decayed", [True, False])
def test_another_grouping_is_told_apart(tmp_path, decayed):
    """What the Trainer decays and what not: all of it, and none. In double precision: steps this
    large carry round-off from update to update, more on some processors than on others.
    """
    make = {"learning_rate": 3e-2, "weight_decay": 0.5, "model": double(tiny.gpt)}
    before, after = tiny.trainer_updates(tiny.writer(tmp_path, tiny.in_order(), **make))
    own = task(tiny.writer(tmp_path, **make))
    names = [name for name, _ in own.model().named_parameters()]
    undecayed = {name: own.groups[names[2]] for name in names}
    other = replace(own, groups={} if decayed else undecayed)
    assert tiny.apart(tiny.engine_updates(own), before, after) < 10 * DOUBLE
    assert tiny.apart(tiny.engine_updates(other), before, after) > 1e-3


def test_bfloat16_is_that_of_the_trainer(tmp_path):
    one = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 8, "bf16": True}
    assert distance(tmp_path, tiny.classifier, **one) < HALF
    assert distance(tmp_path, tiny.classifier, altered={"precision": "float32"}, **one) > 2 * HALF


# Optimizers and schedules


CHANGES = [
    (tiny.classifier, {"optim": "adamw_torch"}),
    (tiny.classifier, {"optim": "sgd", "learning_rate": 0.1}),
    (tiny.writer, {"optim": "rmsprop", "learning_rate": 1e-3}),
    (tiny.classifier, {"lr_scheduler_type": "cosine"}),
    (tiny.classifier, {"max_grad_norm": 0.0}),
    (tiny.writer, {"adam_beta1": 0.8, "adam_beta2": 0.99, "adam_epsilon": 1e-4}),
]
MORE_CHANGES = [
    (tiny.writer, {"optim": "sgd", "learning_rate": 0.1}),
    (tiny.writer, {"lr_scheduler_type": "constant_with_warmup"}),
    (tiny.writer, {"lr_scheduler_type": "polynomial"}),
    (tiny.writer, {"lr_scheduler_type": "inverse_sqrt"}),
]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CHANGES]


@pytest.mark.parametrize(("make", "changes"), CHANGES + SLOW)
def test_optimizers_and_schedules_are_those_of_the_trainer(tmp_path, make, changes):
    assert distance(tmp_path, make, **changes) < SINGLE


class OwnOptimizer(Trainer):
    """A rate for each layer, and stairs."""

    def create_optimizer(self, model=None):
        named = list(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for n, p in named if "0" in n], "lr": 1e-3, "weight_decay": 0.0},
                {"params": [p for n, p in named if "0" not in n], "lr": 4e-3},
            ],
            weight_decay=0.2,
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps, optimizer=None):
        own = torch.optim.lr_scheduler.StepLR(self.optimizer, 4, 0.5)
        self.lr_scheduler, self._created_lr_scheduler = own, True
        return own


@pytest.mark.parametrize("make", MAKERS)
def test_an_overridden_optimizer_and_schedule_are_kept(tmp_path, make):
    assert distance(tmp_path, make, OwnOptimizer) < SINGLE


def given(model):
    """An optimizer and a schedule of the user's own; the position embeddings are left out."""
    named = [(n, p) for n, p in model.named_parameters() if "position" not in n and "wpe" not in n]
    early = [p for n, p in named if "0" in n]
    late = [p for n, p in named if "0" not in n]
    optimizer = torch.optim.AdamW([{"params": early, "lr": 1e-3}, {"params": late}], lr=4e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.9**k)
    return {"model": model, "optimizers": (optimizer, schedule)}


def test_an_optimizer_and_a_schedule_that_were_handed_in_are_kept(tmp_path):
    trainer = tiny.classifier(tmp_path, tiny.in_order(), given=given(tiny.bert()))
    before, after = tiny.trainer_updates(trainer)
    own = task(tiny.classifier(tmp_path, given=given(tiny.bert())))
    assert tiny.apart(tiny.engine_updates(own), before, after) < SINGLE
    name = "bert.embeddings.position_embeddings.weight"
    assert torch.equal(before[name], after[name])
    assert f"not trained, as the optimizer does not hold them: {name}" in own.notes


# Losses


class Weighed(Trainer):
    """A loss of the user's own: labels count differently."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        counts = torch.tensor([1.0, 2.0, 0.5])
        each = nn.functional.cross_entropy(outputs.logits, labels, counts, reduction="none")
        loss = each.sum() / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


class Averaging(Trainer):
    """A mean of the micro-batch, and the Trainer is told so."""

    loss_is_scaled_for_ga = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (2 * outputs.loss, outputs) if return_outputs else 2 * outputs.loss


def of_tokens(outputs, labels, num_items_in_batch=None):
    """``compute_loss_func``: the sum over tokens, divided by their number in the update."""
    logits, after = outputs["logits"][:, :-1], labels[:, 1:]
    entropy = nn.functional.cross_entropy(
        logits.flatten(0, 1), after.flatten(), ignore_index=-100, reduction="sum"
    )
    return entropy / num_items_in_batch


@pytest.mark.parametrize(
    ("make", "kind", "changes"),
    [
        (tiny.classifier, Weighed, {}),
        (tiny.classifier, Averaging, {}),
        (tiny.classifier, Trainer, {"label_smoothing_factor": 0.2}),
        (tiny.writer, Trainer, {"label_smoothing_factor": 0.2}),
        (tiny.writer, Trainer, {"given": {"compute_loss_func": of_tokens}}),
    ],
)
def test_a_loss_of_ones_own_is_the_same(tmp_path, make, kind, changes):
    assert distance(tmp_path, make, kind, **changes) < SINGLE


def test_label_smoothing_in_bfloat16_is_computed_outside_of_it(tmp_path):
    one = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 8, "bf16": True}
    assert distance(tmp_path, tiny.classifier, label_smoothing_factor=0.2, **one) < HALF


# Frozen parameters


def half_frozen():
    model = tiny.bert()
    model.bert.requires_grad_(False)
    model.bert.pooler.requires_grad_(True)
    return model


def test_frozen_parameters_stay_and_the_others_train_as_in_the_trainer(tmp_path):
    before, after = tiny.trainer_updates(tiny.classifier(tmp_path, tiny.in_order(), half_frozen))
    own = task(tiny.classifier(tmp_path, model=half_frozen))
    found = tiny.engine_updates(own)
    assert tiny.apart(found, before, after) < SINGLE
    for name, value in before.items():
        still = not name.startswith(("classifier", "bert.pooler"))
        assert torch.equal(found[name], value) is still
