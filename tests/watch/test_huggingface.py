"""The watch in a real training by the Hugging Face Trainer."""

import math

import pytest
import torch
from torch import nn

from batchlab.watch import About, Ending, Kind, read
from tests.watch.models import features, loss_of

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")


class Model(nn.Module):
    """A small model as the Trainer wants it; counts what it is trained on."""

    def __init__(self, clock=None):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        self.seen, self.clock = 0, clock

    def forward(self, x, labels):
        if self.clock is not None:
            self.clock.pass_(1.0 if self.training else 100.0)
        self.seen += len(x) * self.training
        return {"loss": loss_of(self.body, (x, labels)), "logits": self.body(x)}


class Breaks(Model):
    """Its gradient is not finite from the fourth batch on."""

    def forward(self, x, labels):
        out = super().forward(x, labels)
        return out | {"loss": out["loss"] * (math.inf if self.seen > 12 else 1.0)}


def examples(count):
    x, y = features(count)
    return [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]


def callback(folder, **options):
    from batchlab.watch._huggingface import Watch

    return Watch(folder, quiet=True, **options)


def train(folder, *, model=None, watch=None, checkpoint=None, **options):
    """Two epochs of 22 examples in batches of 4."""
    what = {
        "per_device_train_batch_size": 4, "num_train_epochs": 2, "save_strategy": "no",
        "logging_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True,
        "optim": "adamw_torch",
    }  # fmt: skip
    arguments = transformers.TrainingArguments(str(folder / "out"), **(what | options))
    watch, model = watch or callback(folder), model or Model()
    trainer = transformers.Trainer(
        model, arguments, train_dataset=examples(22), eval_dataset=examples(40), callbacks=[watch]
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    return watch, model


@pytest.mark.parametrize(("accumulation", "updates"), [(1, 12), (2, 6), (4, 4)])
def test_counts_are_those_of_training_alone(tmp_path, accumulation, updates):
    options = {"gradient_accumulation_steps": accumulation, "eval_strategy": "epoch"}
    _, model = train(tmp_path, **options)
    found = read(tmp_path)
    assert found.last.samples == model.seen == 44
    assert found.last.updates == updates
    assert found.end.ending is Ending.FINISHED


def test_the_batch_is_written_as_its_identity(tmp_path):
    train(tmp_path, gradient_accumulation_steps=2)
    assert str(read(tmp_path).batch) == "8 = 4 × 2 × 1"


def test_the_logged_loss_is_recorded_with_its_update(tmp_path):
    train(tmp_path, logging_strategy="steps", logging_steps=3)
    told = [(m.updates, m.loss) for m in read(tmp_path).moments if m.loss is not None]
    assert [updates for updates, _ in told] == [3, 6, 9, 12]
    assert all(0.5 < loss < 2 for _, loss in told)


def test_evaluated_metrics_are_recorded_where_they_belong(tmp_path):
    train(tmp_path, eval_strategy="epoch")
    metrics = read(tmp_path).metrics
    assert [(m.name, m.samples) for m in metrics] == [("eval_loss", 22), ("eval_loss", 44)]


def test_named_metrics_carry_their_direction(tmp_path):
    watch = callback(tmp_path, metrics={"eval_loss": False})
    train(tmp_path, watch=watch, eval_strategy="epoch", num_train_epochs=1)
    (point,) = read(tmp_path).metrics
    assert point.maximise is False


def test_evaluation_and_saving_are_no_waiting(tmp_path, clock):
    options = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    train(tmp_path, model=Model(clock), **options)
    last = read(tmp_path).moments[-1]
    assert last.waiting == 0.0
    assert last.working == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("accumulation", "share_covered"), [(1, 1.0), (2, 1.0)], ids=["plain", "accumulated"]
)
def test_the_noise_scale_is_measured(tmp_path, at_once, accumulation, share_covered):
    watch = callback(tmp_path, share=math.inf)
    options = {"gradient_accumulation_steps": accumulation, "num_train_epochs": 8}
    train(tmp_path, watch=watch, model=Single(), **options)
    found = read(tmp_path)
    assert {block.method for block in found.noise} == {"per example"}
    assert {block.covered for block in found.noise} == {share_covered}
    assert {block.population for block in found.noise} == {22}


class Single(Model):
    """Calls its layers once, as most models do."""

    def forward(self, x, labels):
        logits = self.body(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_is_bit_for_bit_what_it_is_without(tmp_path, at_once, accumulation):
    def weights(watch):
        options = {"gradient_accumulation_steps": accumulation}
        _, model = train(tmp_path, watch=watch, model=Single(), **options)
        return [*model.state_dict().values(), torch.random.get_rng_state()]

    before = weights(transformers.TrainerCallback())
    after = weights(callback(tmp_path, share=math.inf))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_gradient_that_is_not_finite_is_the_conclusion(tmp_path):
    options = {"logging_strategy": "steps", "logging_steps": 1, "num_train_epochs": 1}
    watch, _ = train(tmp_path, model=Breaks(), **options)
    assert watch.watching.verdict.kind is Kind.DIVERGED
    assert watch.watching.verdict.diverged == 4


def test_a_training_that_goes_on_from_a_checkpoint_goes_on_counting(tmp_path):
    options = {"gradient_accumulation_steps": 2, "save_strategy": "epoch"}
    train(tmp_path, **options)
    checkpoint = str(tmp_path / "out" / "checkpoint-3")
    train(tmp_path, checkpoint=checkpoint, **(options | {"num_train_epochs": 3}))
    found = read(tmp_path)
    assert (found.last.samples, found.last.updates) == (66, 9)
    assert (found.starts[-1].samples, found.starts[-1].updates) == (22, 3)
    assert [c.step for c in found.checkpoints] == [3, 6, 9]
    assert not found.notes


def test_in_another_directory_counts_before_the_checkpoint_are_assumed_and_it_is_said(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    options = {"gradient_accumulation_steps": 2, "save_strategy": "epoch"}
    train(first, **options)
    train(second, checkpoint=str(first / "out" / "checkpoint-3"), **options)
    found = read(second)
    assert found.starts[-1].updates == 3
    assert found.starts[-1].samples == 24
    assert [note.about for note in found.notes] == [About.COUNTS]


def test_a_trainer_that_begins_anew_counts_anew(tmp_path):
    watch = callback(tmp_path)
    train(tmp_path, watch=watch, num_train_epochs=1)
    watch.watching = watch.watching.__class__(
        tmp_path, Model(), torch.optim.SGD(Model().parameters(), lr=0.1), resume=True, quiet=True
    ).open()
    train(tmp_path, watch=watch)
    assert (read(tmp_path).last.samples, read(tmp_path).last.updates) == (44, 12)


def test_a_training_that_raised_can_be_closed(tmp_path):
    class Broken(Model):
        def forward(self, x, labels):
            if self.seen >= 8:
                raise ZeroDivisionError("broken")
            return super().forward(x, labels)

    watch = callback(tmp_path)
    with pytest.raises(ZeroDivisionError, match="broken"):
        train(tmp_path, model=Broken(), watch=watch)
    watch.close()
    found = read(tmp_path)
    assert (found.end.ending, found.last.updates) == (Ending.STOPPED, 2)


def test_no_hook_is_left_on_the_model(tmp_path):
    _, model = train(tmp_path)
    assert not model._forward_pre_hooks
