"""What is read of a Trainer, that it stays as it was, and that the Task can be carried about."""

import copy
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer

from batchlab import _random
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidTypeError, InvalidValueError, MissingDependencyError, TaskError
from batchlab.huggingface import task
from batchlab.measure.noise import measure_noise
from batchlab.tasks import prepare
from tests.huggingface import tiny


def ready(trainer, **asked):
    return prepare(task(trainer, **asked), device="cpu")


def both(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# The Trainer stays as it was


def facts(trainer):
    """All of a Trainer by identity, and its model by value."""
    model = trainer.model
    return (
        {name: id(value) for name, value in vars(trainer).items()},
        {name: id(value) for name, value in vars(trainer.args).items()},
        [p.grad for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [module.training for module in model.modules()],
        copy.deepcopy(model.config.to_dict()),
        sorted(vars(model)),
        len(trainer.accelerator._dataloaders),
        _random.global_state(),
    )


@pytest.mark.wrong_type  # the type checker itself draws from Python's generator
@pytest.mark.parametrize("make", [tiny.classifier, tiny.writer])
@pytest.mark.parametrize("bf16", [False, True])
def test_the_trainer_is_left_bit_for_bit_as_it_was(tmp_path, make, bf16):
    trainer = make(tmp_path, bf16=bf16)
    before, weights = facts(trainer), tiny.weights(trainer.model)
    tiny.engine_updates(task(trainer))
    assert facts(trainer) == before
    assert both(tiny.weights(trainer.model), weights)
    assert trainer.optimizer is None
    assert trainer.lr_scheduler is None


def test_an_optimizer_that_was_handed_in_is_left_as_it_was(tmp_path):
    model = tiny.bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    trainer = tiny.classifier(
        tmp_path, given={"model": model, "optimizers": (optimizer, schedule)}
    )
    before = copy.deepcopy([optimizer.state_dict(), schedule.state_dict()])
    task(trainer)
    assert [optimizer.state_dict(), schedule.state_dict()] == before
    assert trainer.optimizer is optimizer


def test_the_trainer_trains_as_if_no_task_had_been_made_of_it(tmp_path):
    ends = []
    for read in (False, True):
        trainer = tiny.classifier(tmp_path, model=lambda: tiny.bert(dropout=0.2))
        if read:
            task(trainer)
        trainer.train()
        ends.append(tiny.weights(trainer.model))
    assert both(*ends)


def test_a_trainer_that_has_trained_can_be_read(tmp_path):
    trainer = tiny.classifier(tmp_path, bf16=True)
    trainer.train()
    made = task(trainer)
    assert made.baseline == task(tiny.classifier(tmp_path, bf16=True)).baseline
    assert both(tiny.weights(made.model()), tiny.weights(trainer.model))
    assert type(made.model()).forward == made.model().forward.__func__
    assert any("has trained before" in note for note in made.notes)


# Models


def test_without_model_init_every_seed_has_the_present_weights_and_that_is_said(tmp_path):
    trainer = tiny.classifier(tmp_path)
    prepared = ready(trainer)
    for seed in (0, 1):
        assert both(tiny.weights(prepared.objective(seed).module), tiny.weights(trainer.model))
    assert any("every seed starts from the trainer's" in said for said in prepared.assumptions)


def test_later_training_of_the_model_does_not_reach_the_task(tmp_path):
    trainer = tiny.classifier(tmp_path)
    before, made = tiny.weights(trainer.model), task(trainer)
    trainer.train()
    assert both(tiny.weights(made.model()), before)


def random_bert():
    return type(tiny.bert())(tiny.bert().config)


def of_a_trial(trial):
    assert trial is None
    return random_bert()


@pytest.mark.parametrize("make", [random_bert, of_a_trial])
def test_with_model_init_every_seed_has_weights_of_its_own(tmp_path, make):
    prepared = ready(tiny.classifier(tmp_path, given={"model_init": make}))
    a, again, b = (tiny.weights(prepared.objective(seed).module) for seed in (3, 3, 4))
    assert both(a, again)
    assert not both(a, b)
    assert not any("every seed starts" in said for said in prepared.assumptions)


# Data


def test_batches_are_padded_each_to_its_longest_and_hold_what_the_model_reads(tmp_path):
    prepared = ready(tiny.classifier(tmp_path))
    rows = tiny.rows()
    for index in ([0, 1], [2, 3, 4]):
        batch = prepared.train.batch(torch.tensor(index))
        longest = max(len(rows[i]["input_ids"]) for i in index)
        assert type(batch) is dict
        assert batch["input_ids"].shape == (len(index), longest)
        assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    assert prepared.validation.examples == 24


class Encoded(dict):
    """Stands for a tokenizer's BatchEncoding: a mapping that is no plain dictionary."""


class Tokens(Dataset):
    def __len__(self):
        return tiny.EXAMPLES

    def __getitem__(self, index):
        words = torch.arange(index, index + 6) % tiny.WORDS
        return Encoded(input_ids=words, labels=index % 3, comment="not read")


def test_a_data_set_of_tensors_and_the_default_collator_are_read(tmp_path):
    given = {"train_dataset": Tokens(), "data_collator": None, "eval_dataset": None}
    prepared = ready(tiny.classifier(tmp_path, given=given))
    batch = prepared.train.batch(torch.tensor([0, 1]))
    assert batch.keys() == {"input_ids", "labels"}
    assert batch["input_ids"].shape == (2, 6)
    assert prepared.examples + prepared.validation.examples == tiny.EXAMPLES
    assert any("no validation data" in said for said in prepared.assumptions)


def test_columns_the_model_does_not_read_reach_the_collator_only_if_they_are_to(tmp_path):
    seen = []

    def collate(rows):
        seen.append(set(rows[0]))
        return tiny.pad(rows)

    for kept in (True, False):
        given = {"data_collator": collate}
        task(tiny.classifier(tmp_path, given=given, remove_unused_columns=not kept))
        assert ("comment" in seen[-1]) is kept


def test_the_longest_examples_are_known_to_what_looks_for_what_fits(tmp_path):
    lengths = [len(row["input_ids"]) for row in tiny.rows()]
    elements = ready(tiny.classifier(tmp_path)).train.elements()
    assert elements.argmax() == int(np.argmax(lengths))


def test_a_collator_that_draws_gives_the_same_batch_at_the_same_place(tmp_path):
    def masking(rows):
        batch = tiny.pad(rows)
        gone = torch.rand(batch["input_ids"].shape) < 0.3
        return {**batch, "input_ids": batch["input_ids"].masked_fill(gone, 2)}

    made = task(tiny.classifier(tmp_path, given={"data_collator": masking}))
    assert both(tiny.engine_updates(made), tiny.engine_updates(made))


def test_one_of_several_evaluation_sets_is_named(tmp_path):
    held = {"easy": tiny.rows(21, seed=2), "hard": tiny.rows(22, seed=3)}
    trainer = tiny.classifier(tmp_path, given={"eval_dataset": held})
    assert ready(trainer, validation="hard").validation.examples == 22
    with pytest.raises(
        InvalidValueError, match="`validation` must be one of easy, hard; got None"
    ):
        task(trainer)
    with pytest.raises(
        InvalidValueError, match="`validation` must be left out where there is one"
    ):
        task(tiny.classifier(tmp_path), validation="hard")
    one = tiny.classifier(tmp_path, given={"eval_dataset": {"all": tiny.rows(23)}})
    assert ready(one).validation.examples == 23


def test_test_data_is_read_like_evaluation_data(tmp_path):
    prepared = ready(tiny.classifier(tmp_path), test=tiny.rows(25, seed=4))
    assert prepared.test.examples == 25
    assert prepared.test.batch(torch.arange(2)).keys() == {"input_ids", "attention_mask", "labels"}


# Losses


def test_a_known_loss_is_given_for_each_example(tmp_path):
    for make in (tiny.classifier, tiny.writer):
        trainer = make(tmp_path)
        made = task(trainer)
        batch = made.collate([made.train[i] for i in range(5)])
        model = made.model().eval()
        losses, weights = made.loss(made.forward(model, batch), batch), made.weight(batch)
        assert losses.shape == weights.shape == (5,)
        items = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
        assert float(weights.sum()) == float(items)
        whole = trainer.model.eval()(**batch, num_items_in_batch=items).loss
        torch.testing.assert_close((losses * weights).sum() / weights.sum(), whole)


def test_a_shifted_loss_is_counted_as_the_trainer_counts_it(tmp_path):
    """A model whose loss the Trainer knows to look ahead: the first label is not counted."""

    def declared():
        model = tiny.gpt()
        model.loss_type = "ForCausalLM"
        return model

    trainer = tiny.writer(tmp_path, model=declared)
    assert trainer._loss_shifts_labels
    made = task(trainer)
    batch = made.collate([made.train[i] for i in range(5)])
    expected = sum(len(row["input_ids"]) - 1 for row in tiny.texts()[:5])
    assert float(made.weight(batch).sum()) == expected
    before, after = tiny.trainer_updates(tiny.writer(tmp_path, tiny.in_order(), model=declared))
    assert tiny.apart(tiny.engine_updates(made), before, after) < 1e-5


class Regressor(nn.Module):
    """A model of one's own, of a scalar loss that ends in no logits; the same weights always."""

    def __init__(self):
        super().__init__()
        with _random.seeded(0, "test"):
            self.table, self.out = nn.Embedding(tiny.WORDS, 4), nn.Linear(4, 1)

    def forward(self, input_ids, attention_mask, labels):
        words = self.table(input_ids) * attention_mask[..., None]
        value = self.out(words.sum(1) / attention_mask.sum(1, keepdim=True))[:, 0]
        return {"loss": (value - labels).square().mean(), "value": value}


def test_a_model_of_ones_own_is_read_and_what_is_not_available_is_said(tmp_path):
    def model():
        return Regressor().double()

    made = task(tiny.classifier(tmp_path, model=model))
    assert made.training_step is not None
    assert any("gradients of single examples are not available" in note for note in made.notes)
    before, after = tiny.trainer_updates(tiny.classifier(tmp_path, tiny.in_order(), model))
    assert tiny.apart(tiny.engine_updates(made), before, after) < 1e-6


def test_a_known_loss_says_nothing_of_single_examples(tmp_path):
    notes = task(tiny.classifier(tmp_path)).notes
    assert not any("single examples" in note for note in notes)


class PerToken(nn.Module):
    """A loss per token, averaged in the model, which knows nothing of ``num_items_in_batch``."""

    def __init__(self):
        super().__init__()
        self.inner = tiny.gpt()

    def forward(self, input_ids, attention_mask, labels):
        logits = self.inner(input_ids, attention_mask=attention_mask).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        return {"loss": loss, "logits": logits}


def test_a_mean_over_tokens_is_weighed_by_them(tmp_path):
    """Each micro-batch is divided by its own tokens; with one micro-batch that is the same."""
    one = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 8}
    made = task(tiny.writer(tmp_path, model=PerToken, **one))
    batch = made.collate([made.train[i] for i in range(3)])
    lengths = [len(row["input_ids"]) - 1 for row in tiny.texts()[:3]]
    assert made.weight(batch).tolist() == lengths
    trainer = tiny.writer(tmp_path, tiny.in_order(), PerToken, **one)
    before, after = tiny.trainer_updates(trainer)
    assert tiny.apart(tiny.engine_updates(made), before, after) < 1e-5
    assert not any("averages the means" in note for note in made.notes)
    two = task(tiny.writer(tmp_path, model=PerToken)).notes
    assert any("averages the means of its micro-batches" in note for note in two)


def test_gradients_that_the_trainer_adds_are_averaged_with_numbers_to_match_and_that_is_said(
    tmp_path,
):
    summed, plain = (
        task(tiny.classifier(tmp_path, gradient_accumulation_steps=n)) for n in (4, 1)
    )
    assert summed.baseline.clip_norm == plain.baseline.clip_norm / 4
    assert summed.baseline.eps == plain.baseline.eps / 4
    assert summed.baseline.learning_rate == plain.baseline.learning_rate
    assert any("adds the gradients of its 4 micro-batches" in note for note in summed.notes)
    assert not any("adds the gradients" in note for note in plain.notes)


class HalfDivided(Trainer):
    """Only a part of the loss is divided by the number of items."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = outputs.loss + 1.0 / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


def test_accumulation_that_depends_on_how_a_batch_is_cut_is_refused(tmp_path):
    said = "`gradient_accumulation_steps` must be 1 with this loss; got 2. Only a part of this"
    with pytest.raises(InvalidValueError, match=said):
        task(tiny.classifier(tmp_path, HalfDivided))


class Counting(Trainer):
    """Asks how far training is."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs).loss * (1 + self.state.global_step)


def test_a_loss_that_depends_on_the_update_is_refused(tmp_path):
    said = "raised AttributeError: 'NoneType' object has no attribute 'global_step'"
    with pytest.raises(TaskError, match=said):
        task(tiny.classifier(tmp_path, Counting))


class Remembering(Trainer):
    """Writes to itself, and asks its own model."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.calls = getattr(self, "calls", 0) + 1
        assert self.calls == 1
        assert self.model is model
        return model(**inputs).loss / self.model.config.num_labels


def test_what_a_loss_writes_to_its_trainer_is_forgotten(tmp_path):
    tiny.engine_updates(task(tiny.classifier(tmp_path, Remembering)))


def test_several_gpus_leave_the_loss_as_it_is(tmp_path):
    trainer, plain = tiny.writer(tmp_path), task(tiny.writer(tmp_path))
    trainer.args._n_gpu = 2
    trainer._train_batch_size = trainer.args.train_batch_size
    made = task(trainer)
    assert made.baseline.batch_size == 16
    assert "global batch size 16 = 4 (micro-batch) × 2 (accumulation steps) × 2 (devices)" in (
        made.notes
    )
    objectives = [prepare(t, device="cpu").objective(0) for t in (made, plain)]
    batch = made.collate([made.train[i] for i in range(4)])
    losses = [objective.eval()(batch)[0] for objective in objectives]
    assert torch.equal(*losses)


# Carried about


def test_the_task_is_small_and_trains_the_same_after_a_journey(tmp_path):
    own = task(tiny.classifier(tmp_path, label_smoothing_factor=0.1))
    packed = cloudpickle.dumps(own)
    assert len(packed) < 3 * sum(p.numel() * 4 for p in own.model().parameters())
    assert both(tiny.engine_updates(cloudpickle.loads(packed)), tiny.engine_updates(own))


def test_two_workers_train_it_as_one_process_does(tmp_path):
    class Local(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return 2 * model(**inputs).loss

    prepared = ready(tiny.classifier(tmp_path, Local))
    configs = [prepared.baseline.replace(seed=seed) for seed in (0, 1)]
    found = []
    for workers in (0, 2):
        with Engine(prepared, None, workers) as engine:
            trace, _ = engine.train(configs, Job((0, 80)))
        found.append([run.series["loss"].values for run in trace.runs])
    assert np.allclose(*found, rtol=1e-6)


def test_why_it_is_not_stacked_is_one_line(tmp_path):
    with Engine(ready(tiny.classifier(tmp_path)), None, 0) as engine:
        found = engine.capability(engine.prepared.baseline)
    assert not found.stackable
    assert found.reason == "its batches are made by reading or by the task's collate"


def test_the_noise_scale_is_measured(tmp_path):
    for make in (tiny.classifier, tiny.writer):
        prepared = ready(make(tmp_path))
        objective = prepared.objective(0)
        found = measure_noise(objective, prepared, prepared.baseline, samples=0, seed=0)
        assert found.noise > 0
        assert found.examples >= 32


def test_dropout_is_the_same_for_the_same_seed(tmp_path):
    made = task(tiny.writer(tmp_path, model=lambda: tiny.gpt(dropout=0.3)))
    a, again, b = (tiny.engine_updates(made, seed=seed) for seed in (0, 0, 1))
    assert both(a, again)
    assert not both(a, b)


# What it is not


def test_something_else_is_refused():
    with pytest.raises(
        InvalidTypeError, match=r"`trainer` must be a transformers\.Trainer; got 'int'"
    ):
        task(3)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"install batchlab\[transformers\]"):
        task(3)


def test_import_loads_neither_transformers_nor_the_advise_extra():
    heavy = ["transformers", "accelerate", "polars", "altair", "sklearn", "scipy", "loky"]
    code = f"import sys, batchlab.huggingface; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
