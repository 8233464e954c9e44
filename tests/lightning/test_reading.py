"""What is read of data, trainer and hooks; what is refused by its name, and what is said."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
    random_split,
)

from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError
from batchlab.lightning import task
from batchlab.lightning.kinds import overrides
from batchlab.lightning.trainer import REFUSED_HOOKS
from batchlab.report import said
from batchlab.tasks import prepare
from tests.lightning import made

BOTH = pytest.mark.parametrize("package", list(made.PACKAGES))
lightning = made.PACKAGES["lightning"]


def read(module=None, data=None, trainer=None, **changes):
    given = made.module() if module is None else module
    return task(
        given,
        made.loaders() if data is None else data,
        made.trainer() if trainer is None else trainer,
        **changes,
    )


# --- data ---


def data_module(package="lightning", **methods):
    base = made.PACKAGES[package].LightningDataModule

    class Points(base):
        def prepare_data(self):
            self.told = ["prepare_data"]

        def setup(self, stage):
            self.told.append(stage)
            self.train, self.held = random_split(made.points(80), [0.8, 0.2])

        def train_dataloader(self):
            return DataLoader(self.train, batch_size=made.BATCH, shuffle=True)

        def val_dataloader(self):
            return DataLoader(self.held, batch_size=made.BATCH)

    for name, method in methods.items():
        setattr(Points, name, method)
    return Points()


@BOTH
def test_a_data_module_is_prepared_and_set_up_as_fit_does(package):
    data = data_module(package)
    own = read(made.module(package), data, made.trainer(package))
    assert data.told == ["prepare_data", "fit"]
    assert data.trainer is None
    assert (len(own.train), len(own.validation), own.baseline.batch_size) == (64, 16, made.BATCH)


def test_a_random_split_in_setup_is_the_same_every_time():
    one, other = (read(data=data_module()) for _ in range(2))
    assert one.train.indices == other.train.indices


def test_a_module_may_bring_its_own_loaders():
    methods = {
        "train_dataloader": lambda self: made.loaders()[0],
        "val_dataloader": lambda self: [made.loaders()[1]],
    }
    own = task(made.module(**methods), trainer=made.trainer())
    assert (len(own.train), len(own.validation)) == (made.EXAMPLES, 32)


def test_one_loader_is_training_data_alone():
    assert read(data=made.loaders()[0]).validation is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3, "`datamodule` must be a LightningDataModule, a DataLoader, or a pair.*got 'int'"),
        (([1], [2]), "`train` must be a torch DataLoader; got 'list'"),
        (lightning.LightningDataModule(), "LightningDataModule without a train_dataloader"),
    ],
)
def test_data_of_another_kind_is_refused(data, said):
    with pytest.raises(InvalidTypeError, match=said):
        read(data=data)


def test_no_data_at_all_is_refused():
    with pytest.raises(InvalidTypeError, match="`datamodule` must be given; got 'Net without"):
        task(made.module(), trainer=made.trainer())


def loader(dataset=None, **changes):
    """A training loader of 64 examples."""
    own = made.points() if dataset is None else dataset
    return DataLoader(own, **({"batch_size": made.BATCH} | changes))


class Endless(IterableDataset):
    def __iter__(self):
        yield from made.points()


class Pairs(torch.utils.data.Sampler):
    def __iter__(self):
        return iter(range(made.EXAMPLES))

    def __len__(self):
        return made.EXAMPLES


def odd(sampler):
    return lambda: loader(sampler=sampler(made.points()))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (odd(lambda d: WeightedRandomSampler([1.0] * 64, 64)), "got 'WeightedRandomSampler'"),
        (odd(lambda d: RandomSampler(d, replacement=True)), "replacement=True, num_samples=64"),
        (odd(lambda d: RandomSampler(d, num_samples=10)), "replacement=False, num_samples=10"),
        (odd(lambda d: Pairs()), "`sampler` must be.*got 'Pairs'"),
        (lambda: loader(batch_sampler=[[0, 1]], batch_size=1), "`batch_sampler` must be torch's"),
        (lambda: loader(batch_size=None), "`batch_sampler` must be torch's own; got 'NoneType'"),
    ],
)
def test_a_loader_that_draws_otherwise_is_refused_by_name(make, said):
    with pytest.raises(InvalidValueError, match=said):
        read(data=(make(), None))


def test_an_iterable_data_set_is_refused():
    with pytest.raises(InvalidTypeError, match="a map-style Dataset; got 'an IterableDataset'"):
        read(data=(DataLoader(Endless(), batch_size=4), None))


def test_a_loader_with_an_iteration_of_its_own_is_refused():
    class Mine(DataLoader):
        def __iter__(self):
            return super().__iter__()

    with pytest.raises(InvalidTypeError, match="`train` must be a torch DataLoader; got 'Mine'"):
        read(data=(Mine(made.points()), None))


@pytest.mark.parametrize("name", ["train_dataloader", "val_dataloader"])
def test_several_loaders_are_refused(name):
    several = {name: lambda self: [made.loaders()[0], made.loaders()[1]]}
    with pytest.raises(InvalidValueError, match=f"`{name}` must be one loader; got '2 loaders'"):
        read(data=data_module(**several))


def test_a_subset_sampler_is_kept_as_its_subset():
    own = read(data=(loader(sampler=SubsetRandomSampler([3, 1, 5] * 8)), None))
    assert own.train.indices == [3, 1, 5] * 8


def test_a_list_of_tensors_is_a_list_of_examples():
    items = [torch.full((made.INPUTS,), float(i)) for i in range(12)]
    own = read(data=(loader(items, batch_size=4), None))
    assert (len(own.train), own.train[3].tolist()) == (12, [3.0] * made.INPUTS)


def double(items):
    inputs, labels = default_collate(items)
    return 2 * inputs, labels


def test_the_collate_is_kept():
    pair = [DataLoader(made.points(), batch_size=8, collate_fn=double) for _ in range(2)]
    prepared = prepare(read(data=tuple(pair)), device="cpu")
    batch = prepared.train.batch(torch.arange(3))
    assert torch.equal(batch[0], 2 * made.points().tensors[0][:3])


def test_two_different_collates_are_refused():
    with pytest.raises(InvalidValueError, match="`collate_fn` must be the same for training and"):
        read(data=(loader(collate_fn=double), made.loaders()[1]))


def test_what_a_loader_does_differently_is_said():
    own = read(data=(loader(sampler=SequentialSampler(made.points()), num_workers=2), None))
    assert "your training loader does not shuffle: here every pass has a random order" in own.notes
    assert "the 2 worker processes of your training loader are not used" in own.notes
    assert not [note for note in read().notes if "shuffle" in note or "processes" in note]


# --- budget ---


@pytest.mark.parametrize(
    ("examples", "changes", "loading", "expected"),
    [
        (64, {}, {}, (16, 12)),
        (65, {}, {}, (16, 15)),
        (65, {}, {"drop_last": True}, (16, 12)),
        (90, {"accumulate_grad_batches": 4}, {}, (64, 6)),
        (90, {"max_steps": 5}, {}, (16, 5)),
        (90, {"max_epochs": -1, "max_steps": 50}, {}, (16, 50)),
        (90, {"max_epochs": None, "max_steps": 50}, {}, (16, 50)),
        (64, {"max_epochs": None}, {}, (16, 4000)),
        (90, {"limit_train_batches": 2}, {}, (16, 6)),
        (90, {"limit_train_batches": 0.5}, {}, (16, 9)),
        (90, {"devices": 2, "strategy": "ddp"}, {}, (32, 9)),
        (90, {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}, {}, (32, 18)),
    ],
)
def test_batch_size_and_updates_are_the_trainers(examples, changes, loading, expected):
    own = read(data=made.loaders(examples, **loading), trainer=made.trainer(**changes))
    size, updates = expected
    assert (own.baseline.batch_size, own.baseline.samples) == (size, size * updates)


def test_the_global_batch_size_is_said_with_its_identity():
    own = read(trainer=made.trainer(devices=2, strategy="ddp", accumulate_grad_batches=2))
    said = "the global batch size is 64 = 16 × 2 × 2 (loader × accumulation × devices)"
    assert said in own.notes


def test_running_on_across_the_ends_of_passes_is_said():
    own = read(data=made.loaders(70))
    assert (
        "an epoch of yours is 5 updates; here every update takes 16 examples, running on into the "
        "next pass: 15 updates are 3.429 passes"
    ) in own.notes
    assert not [note for note in read().notes if "pass" in note]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_epochs": -1}, "one that trains, and has an end; got 'max_epochs=-1, max_steps=-1'"),
        ({"max_epochs": 0}, "one that trains"),
        ({"fast_dev_run": True}, "`fast_dev_run` must be off"),
        ({"overfit_batches": 2}, "`overfit_batches` must be off; got 2"),
        ({"reload_dataloaders_every_n_epochs": 1}, "`reload_dataloaders_every_n_epochs` must be"),
        (
            {"gradient_clip_val": 1, "gradient_clip_algorithm": "value"},
            "must be norm; got 'value'",
        ),
        ({"precision": "bf16-true"}, "`precision` must be one of 32-true.*; got 'bf16-true'"),
    ],
)
def test_a_trainer_that_cannot_be_kept_is_refused_by_name(changes, said):
    with pytest.raises(InvalidValueError, match=said):
        read(trainer=made.trainer(**changes))


def test_another_strategy_is_refused_by_name():
    class Sharded(lightning.strategies.SingleDeviceStrategy):
        pass

    trainer = made.trainer(strategy=Sharded(torch.device("cpu")))
    with pytest.raises(InvalidValueError, match=r"`strategy` must be one of .*; got 'Sharded'"):
        read(trainer=trainer)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"gradient_clip_val": 0.5}, "clip_norm", 0.5),
        ({"gradient_clip_val": 0}, "clip_norm", None),
        ({"precision": "64-true"}, "precision", "float64"),
        ({"precision": "bf16-mixed"}, "precision", "bfloat16"),
        ({}, "precision", "float32"),
    ],
)
def test_clipping_and_precision_are_the_trainers(changes, field, value):
    assert getattr(read(trainer=made.trainer(**changes)).baseline, field) == value


def test_without_a_trainer_lightnings_defaults_are_assumed_and_said():
    own = task(made.module(), made.loaders())
    assert own.baseline.samples == 1000 * made.EXAMPLES
    assert (
        "no trainer is given: Lightning's defaults are assumed, 1000 epochs among them"
        in own.notes
    )


def test_without_a_trainer_the_epochs_may_be_said():
    own = task(made.module(), made.loaders(), max_epochs=2)
    assert own.baseline.samples == 2 * made.EXAMPLES


@pytest.mark.parametrize(
    ("trainer", "epochs", "said"),
    [
        (made.trainer(), 3, "`max_epochs` must be left out with a trainer; got 3"),
        (None, 0, "`max_epochs` must be a whole number, 1 or more; got 0"),
        (None, True, "`max_epochs` must be a whole number"),
    ],
)
def test_epochs_that_mean_nothing_are_refused(trainer, epochs, said):
    with pytest.raises(InvalidValueError, match=said):
        task(made.module(), made.loaders(), trainer, max_epochs=epochs)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"module": nn.Linear(1, 1)}, "`module` must be a LightningModule.*; got 'Linear'"),
        ({"module": lambda: nn.Linear(1, 1)}, "`module` must be a LightningModule.*got 'Linear'"),
        ({"module": 3}, "`module` must be a LightningModule, or a function.*; got 'int'"),
        ({"trainer": 3}, "`trainer` must be a Trainer, or left out; got 'int'"),
    ],
)
def test_objects_of_another_kind_are_refused(given, said):
    with pytest.raises(InvalidTypeError, match=said):
        read(**given)


def test_batch_norm_over_accumulated_batches_is_refused():
    def layers():
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    module = made.module(layers=layers)
    assert read(module).baseline.batch_size == made.BATCH
    with pytest.raises(InvalidValueError, match="`batch norm` must be one that sees the whole"):
        read(module, trainer=made.trainer(accumulate_grad_batches=2))


# --- optimizers ---


def plateau(module):
    optimizer = made.sgd(module)
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "loss"}}


def one_cycle(module):
    optimizer = made.sgd(module)
    return [optimizer], [lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9)]


def unknown_interval(module):
    optimizer = made.sgd(module)
    schedule = lr_scheduler.StepLR(optimizer, 1)
    return [optimizer], [{"scheduler": schedule, "interval": "week"}]


@BOTH
@pytest.mark.parametrize(
    ("configure", "said"),
    [
        (lambda m: None, "`configure_optimizers` must be one optimizer; got 'None'"),
        (lambda m: [made.sgd(m), made.sgd(m)], "got 'SGD, SGD'. Several cannot be kept"),
        (lambda m: ([made.sgd(m), made.sgd(m)], []), "got 'SGD, SGD'"),
        (lambda m: torch.optim.Adam(m.parameters(), amsgrad=True), "without amsgrad"),
        (plateau, "known before the training; got 'ReduceLROnPlateau'"),
        (one_cycle, "changes the learning rate alone; got 'OneCycleLR'"),
        (unknown_interval, "`interval` must be step or epoch; got 'week'"),
    ],
)
def test_an_optimizer_that_cannot_be_kept_is_refused_by_name(package, configure, said):
    with pytest.raises(InvalidValueError, match=said):
        read(made.module(package, configure=configure), trainer=made.trainer(package))


def test_an_unknown_optimizer_is_refused_by_name():
    module = made.module(configure=lambda m: torch.optim.Adagrad(m.parameters()))
    with pytest.raises(InvalidTypeError, match="got 'Adagrad'"):
        read(module)


def test_manual_optimization_is_refused():
    module = made.module()
    module.automatic_optimization = False
    with pytest.raises(InvalidValueError, match="manual optimization cannot be kept; got False"):
        read(module)


@pytest.mark.parametrize(
    "configure",
    [
        lambda m: [made.sgd(m)],
        lambda m: ([made.sgd(m)], []),
        lambda m: {"optimizer": made.sgd(m)},
        lambda m: [{"optimizer": made.sgd(m)}],
    ],
)
def test_every_form_of_configure_optimizers_is_read(configure):
    assert read(made.module(configure=configure)).baseline.rule == "shb"


def test_what_configure_optimizers_raises_becomes_one_sentence():
    with pytest.raises(TaskError, match="`configure_optimizers` raised ZeroDivisionError"):
        read(made.module(configure=lambda m: 1 / 0))


def test_parameters_that_the_optimizer_does_not_hold_are_said_and_not_trained():
    own = read(made.module(configure=lambda m: torch.optim.SGD(m.layers[2].parameters(), 0.1)))
    assert (
        "not trained, as the optimizer does not hold them: layers.0.weight, layers.0.bias"
        in own.notes
    )
    trained = [name for name, p in own.model().named_parameters() if p.requires_grad]
    assert trained == ["layers.2.weight", "layers.2.bias"]


def test_a_curve_kept_by_straight_lines_is_said():
    def power(module):
        optimizer = made.sgd(module)
        schedule = lr_scheduler.PolynomialLR(optimizer, 1000, power=3.0)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    own = read(made.module(configure=power), trainer=made.trainer(max_epochs=250))
    said = (
        "PolynomialLR is kept as straight lines, every update's rate to within 0.01 % of the peak"
    )
    assert said in own.notes


# --- hooks and callbacks ---


@BOTH
@pytest.mark.parametrize("hook", REFUSED_HOOKS)
def test_a_hook_that_may_change_training_is_refused_by_name_unless_vouched_for(package, hook):
    module = made.module(package, **{hook: lambda self, *given, **named: None})
    with pytest.raises(InvalidValueError, match=f"no hook may change; got '{hook}'"):
        read(module, trainer=made.trainer(package))
    assert read(module, trainer=made.trainer(package), ignore=[hook])


def test_every_refused_hook_is_one_of_lightnings_but_for_one_of_old():
    module = made.module()
    assert [hook for hook in REFUSED_HOOKS if not hasattr(module, hook)] == []
    assert not any(overrides(module, hook) for hook in REFUSED_HOOKS)


def test_a_hook_at_the_end_of_an_epoch_is_said_not_to_be_called():
    module = made.module(on_train_epoch_end=lambda self: None)
    said = "on_train_epoch_end is not called: what it changes in weights or data is not kept"
    assert said in read(module).notes
    assert said not in read(module, ignore=["on_train_epoch_end"]).notes


@pytest.mark.parametrize(
    "hook", ["on_validation_epoch_end", "on_test_epoch_start", "predict_step"]
)
def test_hooks_outside_training_are_let_pass(hook):
    assert len(read(made.module(**{hook: lambda self, *given: None})).notes) == len(read().notes)


class Averaging(lightning.Callback):
    def on_train_batch_end(self, *given):
        """Would change the weights."""


class Logging(lightning.Callback):
    def on_train_epoch_end(self, *given):
        """Logs."""


class Watching(lightning.Callback):
    def on_validation_end(self, *given):
        """Draws."""


callbacks = lightning.callbacks


@pytest.mark.parametrize(
    "make",
    [
        lambda: callbacks.StochasticWeightAveraging(swa_lrs=0.1),
        lambda: callbacks.GradientAccumulationScheduler({0: 1, 2: 2}),
        lambda: callbacks.WeightAveraging(),
        lambda: callbacks.EMAWeightAveraging(),
        lambda: callbacks.BatchSizeFinder(),
        lambda: callbacks.LearningRateFinder(),
        lambda: callbacks.BackboneFinetuning(),
        lambda: callbacks.ModelPruning("l1_unstructured", amount=0.5),
        lambda: callbacks.LambdaCallback(on_train_batch_end=lambda *given: None),
        Averaging,
    ],
)
def test_a_callback_that_may_change_training_is_refused_by_name(make):
    callback = make()
    trainer = made.trainer()
    trainer.callbacks.append(callback)
    name = type(callback).__name__
    with pytest.raises(InvalidValueError, match=f"`callbacks` must be without.*'{name}"):
        read(trainer=trainer)
    assert read(trainer=trainer, ignore=[name])


def test_a_callback_of_the_module_is_read_too():
    module = made.module(configure_callbacks=lambda self: Averaging())
    with pytest.raises(InvalidValueError, match=r"got 'Averaging\.on_train_batch_end'"):
        read(module)


@pytest.mark.parametrize(
    "make",
    [
        lambda: callbacks.ModelCheckpoint(),
        lambda: callbacks.TQDMProgressBar(),
        lambda: callbacks.RichProgressBar(),
        lambda: callbacks.LearningRateMonitor(),
        lambda: callbacks.DeviceStatsMonitor(),
        lambda: callbacks.ModelSummary(),
        lambda: callbacks.OnExceptionCheckpoint("x"),
        lambda: callbacks.LambdaCallback(on_validation_end=lambda *given: None),
        Watching,
    ],
)
def test_a_harmless_callback_is_let_pass(make):
    trainer = made.trainer()
    trainer.callbacks.append(make())
    assert read(trainer=trainer).notes == read().notes


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: callbacks.EarlyStopping("loss"),
            "EarlyStopping is not kept: the whole budget is",
        ),
        (lambda: callbacks.Timer("00:00:01:00"), "Timer is not kept: the whole budget is trained"),
        (Logging, "Logging.on_train_epoch_end is not called: what it changes"),
    ],
)
def test_a_callback_that_is_not_kept_is_said(make, said):
    trainer = made.trainer()
    trainer.callbacks.append(make())
    assert len([note for note in read(trainer=trainer).notes if note.startswith(said)]) == 1


def test_a_limit_on_validation_batches_is_said_not_to_be_kept():
    own = read(trainer=made.trainer(limit_val_batches=0.5))
    assert "limit_val_batches=0.5 is not kept: all validation data is read" in own.notes


def test_an_ignored_name_that_is_nowhere_is_refused():
    with pytest.raises(
        InvalidValueError, match=r"`ignore` must be names of hooks and.*got 'Averagin'"
    ):
        read(ignore=["Averagin"])


@pytest.mark.parametrize(
    "hook", ["on_before_batch_transfer", "on_after_batch_transfer", "transfer_batch_to_device"]
)
def test_a_batch_hook_of_the_data_module_is_refused_by_name(hook):
    data = data_module(**{hook: lambda self, batch, *given: batch})
    with pytest.raises(InvalidValueError, match=f"one without batch hooks; got '{hook}'"):
        read(data=data)


def test_unequal_weights_under_accumulation_are_said():
    weighted = {"weight": lambda batch: torch.ones(len(batch[0]))}
    own = read(trainer=made.trainer(accumulate_grad_batches=2), **weighted)
    said = "Lightning averages the means of the batches it accumulates"
    assert [note for note in own.notes if note.startswith(said)]
    assert not [note for note in read(**weighted).notes if note.startswith(said)]


# --- in Japanese ---


def layers_at_rest():
    return nn.Sequential(nn.Linear(5, 6), nn.Dropout().eval(), nn.Linear(6, 2))


def everything_said():
    """Every kind of note, from three trainings."""

    def power(module):
        optimizer = torch.optim.SGD(module.layers[2].parameters(), 0.1)
        schedule = lr_scheduler.PolynomialLR(optimizer, 2000, power=3.0)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    methods = {"on_train_epoch_end": print, "validation_step": print}
    trainer = made.trainer(
        accumulate_grad_batches=2,
        limit_train_batches=2,
        limit_val_batches=1,
        max_epochs=600,
        callbacks=[callbacks.EarlyStopping("loss")],
    )
    data = loader(sampler=SequentialSampler(made.points()), num_workers=2), made.loaders()[1]
    module = made.module(configure=power, layers=layers_at_rest, **methods)
    weighted = read(module, data, trainer, weight=lambda batch: torch.ones(len(batch[0])))
    alone = task(made.module(), made.loaders())
    return {
        *weighted.notes,
        *alone.notes,
        *task(made.module(), made.loaders(), max_epochs=1).notes,
    }


def test_every_note_is_said_in_japanese():
    notes = everything_said()
    assert len(notes) == 18
    assert [note for note in notes if said.both(note).ja == said.both(note).en] == []
