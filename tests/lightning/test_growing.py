"""A batch size that grows in real Lightning trainings."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from batchlab.data import GrowingBatchSampler, ReusingBatchSampler, ReusingLoader
from batchlab.errors import InvalidValueError, ResultError
from batchlab.lightning import GrowingBatch
from batchlab.optim import NSHB, InSamples
from batchlab.schedules import batch_schedule
from tests.lightning import made
from tests.together import together

lightning = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("ignore")
EXAMPLES, EPOCHS, REUSE = 40, 4, 3
SCHEDULES = {
    "grows inside epochs": ("0:4 50:8 100:12", None),
    "lengths differ by one": ("12", None),
    "above memory at an epoch": ("0:4 60:8 2ep:16 3ep:24", 8),
}


class Seen(lightning.Callback):
    """Which examples each update was made of, and what ran when."""

    def __init__(self):
        self.updates, self.window, self.validated, self.rates, self.steps = [], [], [], [], None

    def on_train_start(self, trainer, pl_module):
        self.steps = trainer.global_step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.window += batch[2].tolist()
        if trainer.global_step > self.steps:
            self.steps = trainer.global_step
            self.updates.append(self.window)
            self.window = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append(trainer.current_epoch)


def points():
    inputs, labels = made.points(EXAMPLES).tensors
    return TensorDataset(inputs.double(), labels, torch.arange(EXAMPLES))


def step(self, batch, batch_idx):
    loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
    self.log("loss", loss)
    return loss


def validation(self, batch, batch_idx):
    self.log("val_loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))


def shb(module):
    return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)


def loading(sampler, workers=0):
    return DataLoader(points(), batch_sampler=sampler, num_workers=workers)


def followed(sampler, wrap, workers):
    """What the callback is given, and the loader."""
    if wrap == "sampler":
        sampler = ReusingBatchSampler(sampler, REUSE)
    loader = loading(sampler, workers)
    if wrap == "loader":
        loader = sampler = ReusingLoader(loader, REUSE, augmented)
    return sampler, loader


def augmented(batch):
    inputs, labels, names = batch
    return inputs + 0.1 * torch.rand(inputs.shape), labels, names


def fit(
    folder,
    schedule,
    max_micro=None,
    ckpt_path=None,
    configure=shb,
    workers=0,
    wrap="nothing",
    **options,
):
    seen = Seen()
    fresh = GrowingBatchSampler(EXAMPLES, schedule, 3, max_micro=max_micro)
    sampler, loader = followed(fresh, wrap, workers)
    given = {"max_epochs": EPOCHS, "enable_checkpointing": True, "default_root_dir": folder}
    callbacks = [GrowingBatch(sampler), seen, *options.pop("callbacks", [])]
    trainer = made.trainer(callbacks=callbacks, **(given | options))
    module = made.module(
        training_step=step, validation_step=validation, configure_optimizers=configure
    ).double()
    trainer.fit(module, loader, DataLoader(points(), batch_size=20), ckpt_path=ckpt_path)
    return trainer, module, seen


def plain(schedule, epochs=EPOCHS):
    """The same updates in a plain loop over whole batches."""
    data, module = points(), made.module(configure_optimizers=shb).double()
    sampler = GrowingBatchSampler(data, schedule, 3)
    optimizer, batches = shb(module), []
    for _ in range(epochs):
        for batch in sampler:
            inputs, labels, _ = data[batch]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(inputs), labels).backward()
            optimizer.step()
            batches.append(batch)
    return module, batches


def far(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x - y).abs().max()) for x, y in pairs)


@pytest.mark.parametrize("name", SCHEDULES)
def test_lightning_trains_on_the_batches_of_the_schedule(tmp_path, name):
    schedule, max_micro = SCHEDULES[name]
    trainer, module, seen = fit(tmp_path, schedule, max_micro)
    wanted, batches = plain(schedule)
    assert seen.updates == batches
    assert trainer.global_step == len(batches)
    assert far(module, wanted) < 1e-12


@pytest.mark.parametrize("wrap", ["sampler", "loader"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_each_batch_is_used_so_often_and_a_resume_goes_on_with_the_uses_left(tmp_path, name, wrap):
    schedule, max_micro = SCHEDULES[name]
    keep = checkpoints(tmp_path / "kept", 10)  # after the first use, and the second, and the third
    numbers = {"wrap": wrap, "workers": 1 if "inside" in name else 0}
    trainer, whole, seen = fit(tmp_path, schedule, max_micro, callbacks=[keep], **numbers)
    assert seen.updates == [batch for batch in plain(schedule)[1] for _ in range(REUSE)]
    assert trainer.global_step == len(seen.updates)
    for done in (10, 20, 30):
        path = tmp_path / "kept" / f"step={done}.ckpt"
        _, resumed, rest = fit(tmp_path, schedule, max_micro, ckpt_path=path, **numbers)
        assert rest.updates == seen.updates[done:]
        assert far(resumed, whole) == 0.0


def test_a_reusing_loader_trains_as_it_is_and_max_steps_counts_updates(tmp_path):
    def run(max_steps, ckpt_path=None):
        seen = Seen()
        loader = ReusingLoader(loading(GrowingBatchSampler(EXAMPLES, 8, 3)), REUSE, augmented)
        options = {"max_steps": max_steps, "default_root_dir": tmp_path}
        trainer = made.trainer(callbacks=[seen, *kept], enable_checkpointing=True, **options)
        module = made.module(training_step=step, configure_optimizers=shb).double()
        trainer.fit(module, loader, ckpt_path=ckpt_path)
        return trainer, module, seen

    kept = [checkpoints(tmp_path / "kept", 10)]
    trainer, whole, seen = run(25)
    assert trainer.global_step == len(seen.updates) == 25
    assert seen.updates == [batch for batch in plain("8")[1] for _ in range(REUSE)][:25]
    kept = []
    _, resumed, rest = run(25, tmp_path / "kept" / "step=10.ckpt")
    assert rest.updates == seen.updates[10:]
    assert far(resumed, whole) == 0.0


@pytest.mark.parametrize("name", SCHEDULES)
def test_validation_comes_after_every_epoch(tmp_path, name):
    _, _, seen = fit(tmp_path, *SCHEDULES[name])
    assert seen.validated == list(range(EPOCHS))


def checkpoints(folder, every):
    return lightning.callbacks.ModelCheckpoint(
        folder, filename="{step}", save_top_k=-1, every_n_train_steps=every
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(tmp_path, name):
    """Resumed from every checkpoint: inside epochs and at their ends."""
    schedule, max_micro = SCHEDULES[name]
    keep = checkpoints(tmp_path / "kept", 1)
    _, whole, seen = fit(tmp_path, schedule, max_micro, callbacks=[keep])
    saved = sorted((tmp_path / "kept").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(saved) == len(seen.updates)
    for path in saved[:-1]:
        done = int(path.stem.partition("=")[2])
        _, resumed, rest = fit(tmp_path, schedule, max_micro, ckpt_path=path)
        assert rest.updates == seen.updates[done:], path.stem
        assert far(resumed, whole) == 0.0


@pytest.mark.parametrize("name", ["lengths differ by one", "above memory at an epoch"])
def test_training_goes_on_from_the_end_of_an_epoch(tmp_path, name):
    schedule, max_micro = SCHEDULES[name]
    keep = lightning.callbacks.ModelCheckpoint(tmp_path / "kept", "{epoch}", save_top_k=-1)
    _, whole, seen = fit(tmp_path, schedule, max_micro, callbacks=[keep])
    saved = sorted((tmp_path / "kept").glob("*.ckpt"))
    assert len(saved) == EPOCHS
    for path in saved[:-1]:
        _, resumed, rest = fit(tmp_path, schedule, max_micro, ckpt_path=path)
        assert rest.updates == seen.updates[-len(rest.updates) :]
        assert far(resumed, whole) == 0.0


class Saving(lightning.Callback):
    """Saves a checkpoint before or after certain micro-batches."""

    def __init__(self, folder, when, places):
        self.folder, self.when, self.places = folder, when, places

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.save("before", trainer, batch_idx)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.save("after", trainer, batch_idx)

    def save(self, when, trainer, batch_idx):
        place = trainer.current_epoch, batch_idx
        if when == self.when and place in self.places:
            trainer.save_checkpoint(self.folder / "{}-{}.ckpt".format(*place))


@pytest.mark.parametrize("when", ["before", "after"])
def test_training_goes_on_from_inside_an_accumulation_window(tmp_path, when):
    """Windows of 2 in the third epoch, of 3 in the fourth; also the first window of each."""
    schedule, max_micro = SCHEDULES["above memory at an epoch"]
    first = {"before": 1, "after": 0}[when]
    places = [(2, first), (2, first + 2), (3, first), (3, 4)]
    keep = Saving(tmp_path, when, places)
    trainer, whole, seen = fit(tmp_path, schedule, max_micro, callbacks=[keep])
    for place in places:
        path = tmp_path / "{}-{}.ckpt".format(*place)
        done = torch.load(path, weights_only=False)["global_step"]
        again, resumed, rest = fit(tmp_path, schedule, max_micro, ckpt_path=path)
        assert rest.updates == seen.updates[done:], place
        assert far(resumed, whole) == 0.0, place
        assert again.global_step == trainer.global_step
        assert again.fit_loop.epoch_loop._batches_that_stepped == again.global_step


def test_a_resume_says_nothing_of_the_loader_and_leaves_the_filters_of_warnings(tmp_path):
    keep = checkpoints(tmp_path / "kept", 3)
    fit(tmp_path, "8", callbacks=[keep])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        fit(tmp_path, "8", ckpt_path=tmp_path / "kept" / "step=3.ckpt")
        assert warnings.filters == before
    assert not [one for one in told if "not resumable" in str(one.message)]


def test_an_error_in_a_resume_leaves_the_filters_of_warnings(tmp_path):
    class Fails(lightning.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            raise RuntimeError("stop here")

    keep = checkpoints(tmp_path / "kept", 3)
    fit(tmp_path, "8", callbacks=[keep])
    before = list(warnings.filters)
    sampler = GrowingBatchSampler(EXAMPLES, 8, 3)
    callbacks = [Fails(), GrowingBatch(sampler)]
    trainer = made.trainer(callbacks=callbacks, max_epochs=EPOCHS, default_root_dir=tmp_path)
    module = made.module(training_step=step, configure_optimizers=shb).double()
    with pytest.raises(RuntimeError, match="stop here"):
        trainer.fit(module, loading(sampler), ckpt_path=tmp_path / "kept" / "step=3.ckpt")
    assert warnings.filters == before


def test_training_goes_on_inside_an_epoch_with_workers(tmp_path):
    schedule, max_micro = SCHEDULES["above memory at an epoch"]
    keep = checkpoints(tmp_path / "kept", 7)
    _, whole, seen = fit(tmp_path, schedule, max_micro, callbacks=[keep], workers=2)
    path = tmp_path / "kept" / "step=14.ckpt"
    _, resumed, rest = fit(tmp_path, schedule, max_micro, ckpt_path=path, workers=2)
    assert rest.updates == seen.updates[14:]
    assert far(resumed, whole) == 0.0


def test_another_accumulation_inside_an_epoch_is_refused(tmp_path):
    keep = checkpoints(tmp_path / "kept", 3)
    fit(tmp_path, "8", 4, callbacks=[keep])  # 5 updates an epoch
    with pytest.raises(ResultError, match=r"must be 2, as in the checkpoint, .*; got 4"):
        fit(tmp_path, "8", 2, ckpt_path=tmp_path / "kept" / "step=3.ckpt")
    _, _, rest = fit(tmp_path, "8", 2, ckpt_path=tmp_path / "kept" / "step=15.ckpt")
    assert rest.updates == plain("8")[1][15:]


def test_the_batches_of_an_epoch_would_be_cut_off_without_the_callback(tmp_path):
    """Lightning holds the first epoch's length for all: 3 batches of 16 of 40, then 2 and 3."""
    data, seen = points(), Seen()
    sampler = GrowingBatchSampler(data, "0:16 3ep:4", 3)
    trainer = made.trainer(callbacks=[seen], max_epochs=EPOCHS)
    trainer.fit(made.module(training_step=step).double(), DataLoader(data, batch_sampler=sampler))
    assert len(seen.updates) < len(plain("0:16 3ep:4")[1])


def cosine(module):
    """In updates of 4 examples, over the samples of the training."""
    optimizer = NSHB(module.parameters(), lr=0.5)
    schedule = batch_schedule(SCHEDULES["grows inside epochs"][0]).resolve(EXAMPLES)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * EXAMPLES // 4)
    scheduler = InSamples(scheduler, 4, schedule)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def test_a_scheduler_in_samples_follows_the_growth_and_a_resume(tmp_path):
    keep = checkpoints(tmp_path / "kept", 5)
    schedule, _ = SCHEDULES["grows inside epochs"]
    _, whole, seen = fit(tmp_path, schedule, configure=cosine, callbacks=[keep])
    plain_one = torch.optim.SGD([torch.nn.Parameter(torch.ones(()))], lr=0.5)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(plain_one, EPOCHS * EXAMPLES // 4)
    wanted = []
    for _ in range(EPOCHS * EXAMPLES // 4 + 1):
        wanted.append(plain_one.param_groups[0]["lr"])
        plain_one.step()
        scheduler.step()
    places = [sum(map(len, seen.updates[:k])) for k in range(len(seen.updates))]
    assert seen.rates == [wanted[place // 4] for place in places]
    path = tmp_path / "kept" / "step=15.ckpt"
    _, resumed, rest = fit(tmp_path, schedule, configure=cosine, ckpt_path=path)
    assert rest.rates == seen.rates[15:]
    assert far(resumed, whole) == 0.0


@pytest.mark.parametrize("option", [{"accumulate_grad_batches": 2}, {"limit_train_batches": 3}])
def test_a_trainer_that_counts_batches_itself_is_refused(tmp_path, option):
    (name,) = option
    with pytest.raises(InvalidValueError, match=f"`{name}` must be left out; got {option[name]}"):
        fit(tmp_path, "8", **option)


def test_a_loader_with_another_sampler_is_refused(tmp_path):
    trainer = made.trainer(callbacks=[GrowingBatch(GrowingBatchSampler(40, 8))])
    module = made.module(training_step=step).double()
    with pytest.raises(InvalidValueError, match="`batch_sampler` of the training loader; got"):
        trainer.fit(module, DataLoader(points(), batch_size=8))


def test_growth_above_memory_inside_an_epoch_is_refused_with_that_sentence():
    words = r"only where an epoch starts; got .* fixed within an epoch"
    sampler = GrowingBatchSampler(40, "0:8 1.5ep:16", max_micro=8)
    trainer = made.trainer(callbacks=[GrowingBatch(sampler)])
    with pytest.raises(InvalidValueError, match=words):
        trainer.fit(made.module(training_step=step).double(), loading(sampler))


IN_TWO = """
os.environ |= {"TORCHELASTIC_RUN_ID": "x", "RANK": str(RANK), "LOCAL_RANK": str(RANK),
               "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
               "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
import logging, warnings
import lightning as L
from torch.utils.data import DataLoader, TensorDataset
from batchlab.data import GrowingBatchSampler
from batchlab.lightning import GrowingBatch

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
draw = torch.Generator().manual_seed(0)
x, y = (torch.randn(40, n, generator=draw, dtype=torch.float64) for n in (3, 1))

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1).double()
    def training_step(self, batch, batch_idx):
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

# Both as process 0: the callback says which one this is.
sampler = GrowingBatchSampler(40, "0:4 60:8 2ep:16", rank=0, world_size=2, max_micro=4)
trainer = L.Trainer(accelerator="cpu", devices=2, strategy="ddp", use_distributed_sampler=False,
                    callbacks=[GrowingBatch(sampler)], max_epochs=4, logger=False,
                    enable_checkpointing=False, enable_progress_bar=False,
                    enable_model_summary=False)
net = Net()
trainer.fit(net, DataLoader(TensorDataset(x, y), batch_sampler=sampler))

wanted = Net()
optimizer = wanted.configure_optimizers()
alone = GrowingBatchSampler(40, "0:4 60:8 2ep:16", rank=0, world_size=1)
updates = 0
for epoch in range(4):
    for batch in alone:
        optimizer.zero_grad()
        wanted.training_step((x[batch], y[batch]), 0).backward()
        optimizer.step()
        updates += 1
pairs = zip(net.parameters(), wanted.parameters())
FACTS = {"apart": max(float((a - b).detach().abs().max()) for a, b in pairs),
         "updates": [trainer.global_step, updates], "shared": [sampler.rank, sampler.world_size]}
"""


@pytest.mark.slow
def test_two_real_processes_train_as_one(tmp_path):
    facts = together(IN_TWO, tmp_path)
    assert [fact["shared"] for fact in facts] == [[0, 2], [1, 2]]
    for fact in facts:
        assert fact["updates"][0] == fact["updates"][1]
        assert fact["apart"] < 1e-12


def test_a_trainer_may_fit_once_more_after_it_accumulated(tmp_path):
    schedule, max_micro = SCHEDULES["above memory at an epoch"]
    trainer, module, _ = fit(tmp_path, schedule, max_micro)
    assert trainer.accumulate_grad_batches == 1
    sampler = GrowingBatchSampler(points(), schedule, 3, max_micro=max_micro)
    trainer.callbacks = [GrowingBatch(sampler)]
    trainer.fit_loop.max_epochs = 2 * EPOCHS
    trainer.fit(module, DataLoader(points(), batch_sampler=sampler))
    assert trainer.current_epoch == 2 * EPOCHS
