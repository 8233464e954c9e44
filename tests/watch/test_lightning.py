"""The watch in a real Lightning training."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from batchlab.errors import ResultError
from batchlab.watch import Ending, Kind, loop, read
from tests.watch.models import features, loss_of

lightning = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore")


class Module(lightning.LightningModule):
    """A small model; logs a metric of validation."""

    def __init__(self, rate=0.1, broken_at=None):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        self.rate, self.broken_at, self.seen = rate, broken_at, 0

    def forward(self, x):
        return self.body(x)

    def training_step(self, batch, batch_idx):
        self.seen += len(batch[0])
        loss = loss_of(self, batch)
        return loss * math.inf if batch_idx == self.broken_at else loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", loss_of(self, batch))
        self.log("other", torch.tensor(1.0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def loader(count=22):
    return DataLoader(TensorDataset(*features(count)), batch_size=4)


def callback(folder, **options):
    from batchlab.watch._lightning import Watch

    return Watch(folder, quiet=True, **options)


def fit(folder, *, model=None, ckpt_path=None, watch=None, **options):
    """Train two epochs; validate after each, and check sanity before."""
    model = model or Module()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    what = {"max_epochs": 2, "enable_checkpointing": False, "default_root_dir": folder}
    trainer = lightning.Trainer(
        accelerator="cpu", callbacks=[watch or callback(folder)], **(quiet | what | options)
    )
    trainer.fit(model, loader(), loader(40), ckpt_path=ckpt_path)
    return trainer, model


@pytest.mark.parametrize(("accumulation", "updates"), [(1, 12), (2, 6), (4, 4)])
def test_counts_are_those_of_training_alone(tmp_path, accumulation, updates):
    _, model = fit(tmp_path, accumulate_grad_batches=accumulation)
    found = read(tmp_path)
    assert found.last.samples == model.seen == 44
    assert found.last.updates == updates
    assert found.end.ending is Ending.FINISHED


def test_the_batch_is_written_as_its_identity(tmp_path):
    fit(tmp_path, accumulate_grad_batches=2)
    assert str(read(tmp_path).batch) == "8 = 4 × 2 × 1"


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_is_that_of_the_micro_batches(tmp_path, clock, accumulation):
    fit(tmp_path, model=Module(rate=0.0), accumulate_grad_batches=accumulation, max_epochs=1)
    moments = read(tmp_path).moments
    counts = [
        m.samples - before for m, before in zip(moments, [0, moments[0].samples], strict=True)
    ]
    mean = sum(m.loss * count for m, count in zip(moments, counts, strict=True)) / 22
    expected = float(loss_of(Module(), features(22)))
    assert mean == pytest.approx(expected, rel=1e-5)


def test_metrics_of_validation_are_recorded_where_they_belong(tmp_path):
    fit(tmp_path)
    metrics = read(tmp_path).metrics
    assert [(m.name, m.samples, m.maximise) for m in metrics] == [
        ("val_loss", 22, None),
        ("val_loss", 44, None),
    ]


def test_named_metrics_carry_their_direction(tmp_path):
    fit(tmp_path, watch=callback(tmp_path, metrics={"other": True}), max_epochs=1)
    (point,) = read(tmp_path).metrics
    assert (point.name, point.value, point.maximise) == ("other", 1.0, True)


def test_validation_is_no_waiting(tmp_path, clock):
    class Slow(Module):
        def validation_step(self, batch, batch_idx):
            clock.pass_(100.0)

        def training_step(self, batch, batch_idx):
            clock.pass_(1.0)
            return super().training_step(batch, batch_idx)

    fit(tmp_path, model=Slow())
    last = read(tmp_path).moments[-1]
    assert last.waiting == 0.0
    assert last.working == pytest.approx(12.0)


def test_the_noise_scale_is_measured(tmp_path, at_once):
    fit(tmp_path, watch=callback(tmp_path, share=math.inf), max_epochs=6)
    found = read(tmp_path)
    assert {block.method for block in found.noise} == {"per example"}
    assert {block.population for block in found.noise} == {22}
    assert found.notes == ()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_is_bit_for_bit_what_it_is_without(tmp_path, at_once, accumulation):
    def weights(**options):
        torch.manual_seed(1)
        _, model = fit(tmp_path, accumulate_grad_batches=accumulation, **options)
        return [*model.state_dict().values(), torch.random.get_rng_state()]

    class Nothing(lightning.Callback):
        pass

    before = weights(watch=Nothing())
    after = weights(watch=callback(tmp_path, share=math.inf))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_loss_that_is_not_finite_is_the_conclusion(tmp_path):
    watch = callback(tmp_path)
    fit(tmp_path, model=Module(broken_at=3), watch=watch, max_epochs=1)
    assert watch.watching.verdict.kind is Kind.DIVERGED
    assert watch.watching.verdict.diverged == 4


@pytest.mark.parametrize("where", ["the same directory", "another"])
def test_a_training_that_goes_on_from_a_checkpoint_goes_on_counting(tmp_path, where):
    first = tmp_path / "first"
    trainer, _ = fit(first, accumulate_grad_batches=2, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    folder = first if where == "the same directory" else tmp_path / "second"
    fit(folder, ckpt_path=tmp_path / "saved.ckpt", accumulate_grad_batches=2, max_epochs=3)
    found = read(folder)
    assert (found.last.samples, found.last.updates) == (66, 9)
    assert found.starts[-1].samples == 22
    samples = [moment.samples for moment in found.moments]
    assert samples == sorted(samples)


def test_a_directory_with_a_finished_training_is_refused(tmp_path):
    fit(tmp_path)
    with pytest.raises(ResultError, match="holds a watched training: pass resume=True"):
        fit(tmp_path)


def test_a_training_that_raises_gives_the_directory_free(tmp_path):
    class Broken(Module):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise ZeroDivisionError("broken")
            return super().training_step(batch, batch_idx)

    with pytest.raises(ZeroDivisionError, match="broken"):
        fit(tmp_path, model=Broken())
    assert read(tmp_path).end.ending is Ending.STOPPED
    fit(tmp_path, watch=callback(tmp_path, resume=True))


def test_options_are_those_of_the_loop():
    assert set(loop.Options.__annotations__) | {"directory", "model", "optimizer", "scaler"} == {
        *loop.Watch.__init__.__annotations__
    } - {"return"}
