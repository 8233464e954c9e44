"""What cannot be kept is refused by its name; what is kept in another way is said."""

import re

import pytest
import torch
from torch.utils.data import IterableDataset, WeightedRandomSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.optimization import Adafactor

from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError
from batchlab.huggingface import task
from batchlab.report import said as sentences
from tests.huggingface import tiny


def refused(said, trainer, kind=InvalidValueError):
    with pytest.raises(kind, match=said) as caught:
        task(trainer)
    assert "\n" not in str(caught.value)


# Arguments


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fp16", True),
        ("deepspeed", {"zero": 1}),
        ("fsdp", "full_shard"),
        ("use_liger_kernel", True),
        ("neftune_noise_alpha", 5.0),
        ("activation_checkpointing", True),
        ("gradient_checkpointing", True),
    ],
)
def test_an_argument_that_changes_training_is_refused_by_its_name(tmp_path, name, value):
    trainer = tiny.classifier(tmp_path)
    setattr(trainer.args, name, value)
    refused(f"`{name}` must be off; got {re.escape(repr(value))}", trainer)


def test_several_processes_are_refused(tmp_path, monkeypatch):
    trainer = tiny.classifier(tmp_path)
    monkeypatch.setattr(type(trainer.args), "world_size", 4)
    refused("`world_size` must be 1; got 4. Start it without torchrun", trainer)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim": "adafactor"}, "`optimizer` must be one of SGD, Adam, .*; got 'Adafactor'"),
        ({"optim": "adagrad"}, "`optimizer` must be one of SGD, Adam, .*; got 'Adagrad'"),
    ],
)
def test_an_optimizer_without_a_rule_is_refused_by_its_name(tmp_path, changes, said):
    refused(said, tiny.classifier(tmp_path, **changes), InvalidTypeError)


def test_an_optimizer_that_was_handed_in_without_a_rule_is_refused(tmp_path):
    model = tiny.bert()
    own = Adafactor(model.parameters(), lr=1e-3, relative_step=False, scale_parameter=False)
    given = {"model": model, "optimizers": (own, None)}
    refused("got 'Adafactor'", tiny.classifier(tmp_path, given=given), InvalidTypeError)


@pytest.mark.parametrize("kind", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_that_looks_at_the_metric_is_refused(tmp_path, kind):
    evaluated = {"eval_strategy": "steps", "eval_steps": 5, "metric_for_best_model": "loss"}
    trainer = tiny.classifier(tmp_path, lr_scheduler_type=kind, **evaluated)
    refused(f"`lr_scheduler_type` must be a function of time; got '{kind}'", trainer)


# Models


def test_a_model_in_bfloat16_is_refused(tmp_path):
    trainer = tiny.classifier(tmp_path, model=lambda: tiny.bert().bfloat16())
    said = "`trainer.model` must be in float32; got 'bfloat16'. Load it with dtype=torch.float32"
    refused(said, trainer, InvalidTypeError)


def test_a_model_that_repeats_its_forward_pass_is_refused(tmp_path):
    trainer = tiny.classifier(tmp_path)
    trainer.model.activation_checkpointing_enable()
    refused("`trainer.model` must be without activation checkpointing", trainer)


def test_a_quantized_model_is_refused(tmp_path):
    trainer = tiny.classifier(tmp_path)
    trainer.model.quantization_method = "bitsandbytes"
    refused("`trainer.model` must be one that is neither quantized", trainer)


class WithBatchNorm(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.norm = tiny.bert(), torch.nn.BatchNorm1d(3)

    def forward(self, input_ids, attention_mask, labels):
        logits = self.norm(self.inner(input_ids, attention_mask=attention_mask).logits)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_batch_norm_over_micro_batches_is_refused(tmp_path):
    said = "`gradient_accumulation_steps` must be 1 with batch norm, .*; got 2"
    refused(said, tiny.classifier(tmp_path, model=WithBatchNorm))
    task(tiny.classifier(tmp_path, model=WithBatchNorm, gradient_accumulation_steps=1))


# Loops


def overriding(name):
    def own(self, *given, **named):
        return getattr(Trainer, name)(self, *given, **named)

    return type("OwnLoop", (Trainer,), {name: own})


@pytest.mark.parametrize("name", ["training_step", "_inner_training_loop", "_clip_grad_norm"])
def test_a_loop_of_ones_own_is_refused(tmp_path, name):
    trainer = tiny.classifier(tmp_path, overriding(name))
    refused(f"`trainer` must be one with the Trainer's own loop; got 'OwnLoop.{name}'", trainer)


def test_a_step_set_on_the_object_is_refused(tmp_path):
    trainer = tiny.classifier(tmp_path)
    trainer.training_step = lambda *given: torch.zeros(())
    refused("got 'Trainer.training_step'", trainer)


class Acting(TrainerCallback):
    def on_step_end(self, args, state, control, **given):
        control.should_training_stop = state.global_step >= 3


class Reporting(TrainerCallback):
    def on_log(self, args, state, control, **given):
        pass


def test_a_callback_that_acts_while_it_trains_is_refused_by_its_name(tmp_path):
    trainer = tiny.classifier(tmp_path, given={"callbacks": [Acting()]})
    refused(r"got 'Acting.on_step_end'\. If .*: task\(trainer, ignore=\['Acting'\]\)", trainer)
    assert "the callback Acting is not called" in task(trainer, ignore=["Acting"]).notes
    said = "`ignore` must be names of callbacks that are there; got 'Actor'. There are: "
    with pytest.raises(InvalidValueError, match=said):
        task(trainer, ignore=["Actor"])


def test_callbacks_that_are_not_called_are_said(tmp_path):
    early = {"eval_strategy": "steps", "eval_steps": 5, "metric_for_best_model": "loss"}
    own = {"callbacks": [Reporting(), EarlyStoppingCallback(2)]}
    notes = task(tiny.classifier(tmp_path, given=own, **early)).notes
    assert "the callback Reporting is not called" in notes
    assert "EarlyStoppingCallback is not called: runs have their full length" in notes
    plain = task(tiny.classifier(tmp_path)).notes
    assert not any("not called" in note for note in plain)


# Data


class Stream(IterableDataset):
    def __iter__(self):
        return iter(tiny.rows())


def test_examples_that_cannot_be_asked_for_by_number_are_refused(tmp_path):
    trainer = tiny.classifier(tmp_path, given={"train_dataset": Stream()})
    said = "`trainer.train_dataset` must be a map-style data set; got 'Stream'"
    refused(said, trainer, InvalidTypeError)


def test_a_trainer_without_training_data_is_refused(tmp_path):
    trainer = tiny.classifier(tmp_path, given={"train_dataset": None})
    refused("`trainer.train_dataset` must be given; got None", trainer, InvalidTypeError)


@pytest.mark.parametrize(
    ("strategy", "name"),
    [("group_by_length", "LengthGroupedSampler"), ("sequential", "SequentialSampler")],
)
def test_another_order_of_examples_is_refused_by_its_name(tmp_path, strategy, name):
    trainer = tiny.classifier(tmp_path, train_sampling_strategy=strategy)
    refused(f"must be one that draws every example once a pass, at random; got '{name}'", trainer)


class Weighing(Trainer):
    def _get_train_sampler(self, train_dataset=None):
        return WeightedRandomSampler([1.0] * tiny.EXAMPLES, tiny.EXAMPLES)


class Bigger(Trainer):
    def get_train_dataloader(self):
        self._train_batch_size = 6
        loader = super().get_train_dataloader()
        self._train_batch_size = 4
        return loader


def test_samplers_and_loaders_of_ones_own_are_refused(tmp_path):
    refused("got 'WeightedRandomSampler'", tiny.classifier(tmp_path, Weighing))
    said = "`batches` must be of the Trainer's own, with batches of 4; got 'BatchSampler of 6'"
    refused(said, tiny.classifier(tmp_path, Bigger))


class Otherwise(Trainer):
    def get_eval_dataloader(self, eval_dataset=None):
        self.data_collator = tiny.pad_texts
        return super().get_eval_dataloader(eval_dataset)


def test_another_collator_for_evaluation_is_refused(tmp_path):
    refused("`collate_fn` must be one for training and", tiny.classifier(tmp_path, Otherwise))


def test_a_collator_that_gives_no_dictionary_is_refused(tmp_path):
    trainer = tiny.classifier(tmp_path, given={"data_collator": lambda rows: [1, 2]})
    refused("`data_collator` must be a function that returns a dict", trainer, TaskError)


# Notes


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("torch_compile", True, "the model is trained and timed without torch.compile"),
        ("tf32", True, "tf32=True is not set here"),
        ("auto_find_batch_size", True, "auto_find_batch_size is off here"),
        ("dataloader_num_workers", 2, r"\(dataloader_num_workers=2 is not kept\)"),
        ("bf16_full_eval", True, "evaluation runs in the precision of training"),
    ],
)
def test_what_is_kept_in_another_way_is_said(tmp_path, name, value, said):
    trainer = tiny.classifier(tmp_path)
    assert not any(re.search(said, note) for note in task(trainer).notes)
    setattr(trainer.args, name, value)
    assert any(re.search(said, note) for note in task(trainer).notes)


@pytest.mark.parametrize(
    ("rows", "changes", "said"),
    [
        (48, {}, None),
        (50, {}, "last update of a pass uses 2 examples; here batches of 8 run on"),
        (50, {"dataloader_drop_last": True}, "drops the last 2 examples of a pass"),
        (52, {"dataloader_drop_last": True}, "last update of a pass uses 4 examples"),
    ],
)
def test_the_end_of_a_pass_is_said(tmp_path, rows, changes, said):
    given = {"train_dataset": tiny.rows(rows)}
    notes = task(tiny.classifier(tmp_path, given=given, **changes)).notes
    found = [note for note in notes if "of a pass" in note]
    assert len(found) == (said is not None)
    assert all(said in note for note in found)


def test_every_note_is_known_in_japanese(tmp_path):
    given = {"train_dataset": tiny.rows(50), "callbacks": [Reporting()]}
    trainer = tiny.classifier(tmp_path, given=given, label_smoothing_factor=0.1)
    trainer.args.torch_compile, trainer.args.dataloader_num_workers = True, 2
    notes = task(trainer).notes + task(tiny.writer(tmp_path)).notes
    assert len(set(notes)) > 8
    assert all(sentences.both(note).ja != sentences.both(note).en for note in notes)
