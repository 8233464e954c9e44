"""The recipe in the Trainer's arguments, against what the Trainer itself makes of them."""

import pytest
import torch
from transformers import TrainerCallback

from batchlab.config import RunConfig
from batchlab.huggingface import task
from batchlab.huggingface.recipe import length, of_mean
from batchlab.rules import RULES, Numbers, Scales
from tests.huggingface import tiny


class Watching(TrainerCallback):
    """Counts updates and the examples in them."""

    def __init__(self):
        self.examples = self.updates = 0

    def on_step_end(self, args, state, control, **given):
        self.updates += 1


def trained(tmp_path, rows, **changes):
    """(updates, examples) of the Trainer's own training, by counting."""
    watch = Watching()

    def counted(batch):
        watch.examples += len(batch)
        return tiny.pad(batch)

    given = {"train_dataset": tiny.rows(rows), "data_collator": counted, "callbacks": [watch]}
    tiny.classifier(tmp_path, given=given, eval_strategy="no", **changes).train()
    return watch.updates, watch.examples


LENGTHS = ({"max_steps": 7}, {"num_train_epochs": 2.0}, {"num_train_epochs": 1.4})
CASES = [(length, drop, k) for length in LENGTHS for drop in (False, True) for k in (1, 3)]
FAST = (CASES[0], CASES[7], CASES[9], CASES[10])


@pytest.mark.parametrize(
    ("changes", "drop", "accumulation"),
    [pytest.param(*one, marks=[] if one in FAST else pytest.mark.slow) for one in CASES],
)
def test_updates_and_examples_are_those_of_the_trainer(tmp_path, accumulation, drop, changes):
    asked = {
        "max_steps": -1,
        "gradient_accumulation_steps": accumulation,
        "dataloader_drop_last": drop,
        **changes,
    }
    for rows in (24, 26):
        given = {"train_dataset": tiny.rows(rows)}
        found = length(tiny.classifier(tmp_path, given=given, **asked), rows)
        updates, examples = trained(tmp_path, rows, **asked)
        assert found[0] == updates
        # The loader reads ahead: what it has read and not trained on is less than an update.
        assert found[1] <= examples < found[1] + 4 * accumulation + 4


def test_the_recipe_is_the_one_in_the_arguments(tmp_path):
    changes = {"gradient_accumulation_steps": 1, "adam_beta1": 0.8, "adam_beta2": 0.95}
    made = task(tiny.classifier(tmp_path, adam_epsilon=1e-6, bf16=True, **changes))
    assert made.baseline == RunConfig(
        rule="adamw",
        batch_size=4,
        learning_rate=3e-3,
        samples=40,
        momentum=0.8,
        beta2=0.95,
        eps=1e-6,
        weight_decay=0.1,
        lr_schedule="linear",
        warmup=0.3,
        clip_norm=0.5,
        precision="bfloat16",
    )


def test_what_the_trainer_does_not_decay_has_a_scale_of_zero(tmp_path):
    trainer = tiny.classifier(tmp_path)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    groups = task(trainer).groups
    names = {name for name, _ in trainer.model.named_parameters()}
    assert groups == {name: Scales(weight_decay=0.0) for name in names - decayed}


def test_without_weight_decay_there_are_no_groups(tmp_path):
    assert task(tiny.classifier(tmp_path, weight_decay=0.0)).groups == {}


def test_no_clipping_and_double_precision_are_read(tmp_path):
    made = task(tiny.classifier(tmp_path, model=lambda: tiny.bert().double(), max_grad_norm=0))
    assert made.baseline.clip_norm is None
    assert made.baseline.precision == "float64"


@pytest.mark.parametrize("clip_norm", [None, 0.7])
@pytest.mark.parametrize("rule", list(RULES))
def test_updates_of_a_mean_equal_those_of_the_sum(rule, clip_norm):
    """20 updates on gradients that are 3 times as large, by the numbers for the sum; in float64,
    to the 1e-12 that the conversion's own round-off leaves.
    """
    config = RunConfig(
        rule=rule, learning_rate=0.1, weight_decay=0.3, eps=1e-2, clip_norm=clip_norm
    ).resolved(10)
    ends = []
    for count, run in ((3, config), (1, of_mean(config, 3))):
        values = {name: float(getattr(run, name)) for name in Numbers._fields}
        numbers = Numbers.of(**values, dtype=torch.float64)
        theta = {"w": torch.linspace(-1, 1, 5, dtype=torch.float64)}
        state = RULES[rule].init(theta)
        for step in range(20):
            g = count * (theta["w"].sin() + step / 20)
            if run.clip_norm is not None:
                g = g * min(1.0, run.clip_norm / float(g.norm()))
            delta, state = RULES[rule].update({"w": g}, state, theta, numbers)
            theta = {"w": theta["w"] + delta["w"]}
        ends.append(theta["w"])
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-12)
