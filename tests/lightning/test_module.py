"""The module as a factory and a training step that need no trainer."""

import copy

import cloudpickle
import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab import _random
from batchlab.engine import Engine, Job
from batchlab.engine.capability import probe_capability
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError
from batchlab.lightning import task
from batchlab.tasks import prepare
from tests.lightning import made


def read(module=None, trainer=None, **changes):
    """A task of these, quietly."""
    module = made.module() if module is None else module
    return task(module, made.loaders(), made.trainer() if trainer is None else trainer, **changes)


def ready(*given, **changes):
    return prepare(read(*given, **changes), device="cpu")


def loss_of(prepared, examples=8):
    """The training step on the first examples."""
    batch = prepared.train.batch(torch.arange(examples))
    return prepared.objective(0)(batch)[0].item()


def step_of(function):
    """A module whose training step is this."""
    return made.module(training_step=function)


# --- weights ---


def weights(prepared, seed):
    return torch.cat([p.flatten() for p in prepared.objective(seed).parameters()]).detach()


def test_a_module_gives_every_seed_its_present_weights():
    module = made.module()
    prepared = ready(module)
    expected = torch.cat([p.flatten() for p in module.parameters()]).detach()
    assert torch.equal(weights(prepared, 0), expected)
    assert torch.equal(weights(prepared, 1), expected)
    assert "every seed starts from the module's present weights" in prepared.assumptions[0]


def test_later_changes_of_the_module_do_not_reach_the_task():
    module = made.module()
    prepared = ready(module)
    before = weights(prepared, 0)
    with torch.no_grad():
        module.layers[0].weight.zero_()
    assert torch.equal(weights(prepared, 0), before)


@pytest.mark.parametrize("package", list(made.PACKAGES))
def test_a_function_gives_every_seed_its_own_weights(package):
    prepared = ready(made.kind(package), made.trainer(package))
    assert torch.equal(weights(prepared, 3), weights(prepared, 3))
    assert not torch.equal(weights(prepared, 3), weights(prepared, 4))
    assert not [said for said in prepared.assumptions if "present weights" in said]


def test_reading_leaves_module_trainer_and_random_numbers_as_they_were():
    module, trainer = made.module(), made.trainer()
    trainer.fit(module, made.loaders()[0])
    weights_before = copy.deepcopy(module.state_dict())
    facts = module.trainer, trainer.global_step, trainer.current_epoch
    state = _random.global_state()[1:]  # the type checker of the tests draws from Python's
    read(module, trainer)
    assert _random.global_state()[1:] == state
    assert (module.trainer, trainer.global_step, trainer.current_epoch) == facts
    for name, value in module.state_dict().items():
        assert torch.equal(value, weights_before[name])


# --- what a training step may do ---


@pytest.mark.parametrize(
    "returned", [lambda loss: loss, lambda loss: {"loss": loss, "x": 1}, lambda loss: loss[None]]
)
def test_a_step_returns_a_loss_or_a_dictionary_with_one(returned):
    def step(self, batch, batch_idx):
        return returned(cross_entropy(self(batch[0]), batch[1]))

    assert loss_of(ready(step_of(step))) == pytest.approx(loss_of(ready()))


def test_a_step_without_a_batch_index_is_called_without_one():
    def step(self, batch):
        return cross_entropy(self(batch[0]), batch[1])

    assert loss_of(ready(step_of(step))) == pytest.approx(loss_of(ready()))


@pytest.mark.parametrize("package", list(made.PACKAGES))
def test_what_a_step_logs_goes_nowhere(package, recwarn, capsys):
    def step(self, batch, batch_idx):
        loss = cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss, on_step=True)
        self.log_dict({"a": loss, "b": 1.0})
        self.print("printed")
        self.logger.experiment.add_scalar("loss", loss)
        assert not self.loggers
        assert self.trainer.is_global_zero
        return loss

    module = made.module(package, training_step=step)
    prepared = ready(module, made.trainer(package))
    loss_of(prepared)
    assert capsys.readouterr().out == ""
    assert not [w for w in recwarn if "self.log" in str(w.message)]
    assert probe_capability(prepared, prepared.baseline).stackable


def test_a_step_may_ask_the_trainer_for_the_length_of_training():
    def step(self, batch, batch_idx):
        trainer = self.trainer
        steps = trainer.estimated_stepping_batches, trainer.max_epochs, trainer.training
        assert steps == (12, 3, self.training)
        return cross_entropy(self(batch[0]), batch[1])

    assert loss_of(ready(step_of(step))) > 0


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda self: self.trainer.callback_metrics, "got 'self.trainer.callback_metrics'"),
        (lambda self: self.optimizers(), "got 'self.trainer.strategy'"),
        (lambda self: self.trainer.datamodule, "got 'self.trainer.datamodule'"),
        (lambda self: self.current_epoch, r"'self.current_epoch'.*ignore=\['current_epoch'\]"),
        (lambda self: self.global_step, r"'self.global_step'.*ignore=\['global_step'\]"),
    ],
)
def test_a_step_that_needs_a_trainer_is_refused_saying_what_it_needed(ask, said):
    def step(self, batch, batch_idx):
        ask(self)
        return cross_entropy(self(batch[0]), batch[1])

    with pytest.raises(TaskError, match=rf"`training_step` must be one that needs no.*{said}"):
        ready(step_of(step))


def test_a_place_that_the_user_vouches_for_is_zero():
    def step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1]) + self.current_epoch

    assert loss_of(ready(step_of(step), ignore=["current_epoch"])) < 2


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "got 'None'. A step that is skipped cannot be kept"),
        ({"x": 1}, "'None'"),
        (1, "int"),
    ],
)
def test_a_step_without_a_loss_is_refused(returned, said):
    with pytest.raises(TaskError, match=f"`training_step` must be a function that.*{said}"):
        ready(step_of(lambda self, batch, batch_idx: returned))


def test_a_step_that_is_no_mean_over_the_batch_is_refused():
    def step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1], reduction="sum")

    with pytest.raises(TaskError, match="the weighted mean of its halves"):
        ready(step_of(step))


def test_a_step_that_fetches_its_own_batches_is_refused():
    with pytest.raises(TaskError, match="got 'one of a dataloader_iter'"):
        read(step_of(lambda self, dataloader_iter: None))


def test_a_module_without_a_training_step_is_refused():
    module = made.PACKAGES["lightning"].LightningModule
    with pytest.raises(InvalidTypeError, match="`datamodule` must be given"):
        task(module)


# --- metrics, batch hooks, modes, device ---


def metric_layers():
    return nn.ModuleDict({"net": made.net(), "seen": torchmetrics.CatMetric()})


def seen_step(self, batch, batch_idx):
    outputs = self.layers["net"](batch[0])
    self.log("seen", self.layers["seen"](outputs.detach().flatten()).mean())
    return cross_entropy(outputs, batch[1])


def test_what_metrics_gather_does_not_grow():
    prepared = ready(made.module(layers=metric_layers, training_step=seen_step))
    objective, batch = prepared.objective(0), prepared.train.batch(torch.arange(8))
    for _ in range(3):
        objective(batch)
    assert objective.module.layers["seen"]._update_count == 0


def test_a_metric_does_not_change_the_training():
    plain, logged = ready(), ready(made.module(layers=metric_layers, training_step=seen_step))
    pairs = zip(ends(plain)[0].values(), ends(logged)[0].values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def ends(prepared, workers=0, seeds=(0,), executor="loop"):
    """The parameters at the end of the baseline, for each seed."""
    configs = [prepared.baseline.replace(seed=seed) for seed in seeds]
    with Engine(prepared, None, workers, executor) as engine:
        _, states = engine.train(configs, Job(evaluate_at=(0,), keep_end=True))
    return [state.progress.params for state in states]


def test_the_modules_batch_hooks_are_called():
    def before(self, batch, dataloader_idx):
        return batch[0] + 1, batch[1]

    def after(self, batch, dataloader_idx):
        return 2 * batch[0], batch[1]

    hooks = {"on_before_batch_transfer": before, "on_after_batch_transfer": after}
    prepared, module = ready(made.module(**hooks)), made.module()
    inputs, labels = prepared.train.batch(torch.arange(8))
    expected = cross_entropy(module(2 * (inputs + 1)), labels)
    assert loss_of(prepared) == pytest.approx(expected.item())


def test_predictions_are_of_the_batch_after_its_hooks():
    def after(self, batch, dataloader_idx):
        return 2 * batch[0], batch[1]

    module = made.module(on_after_batch_transfer=after)
    prepared = ready(module, metric="accuracy")
    batch = prepared.train.batch(torch.arange(8))
    assert torch.equal(prepared.objective(0).outputs(batch), module(2 * batch[0]))


def dropout_layers():
    return nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.9), nn.Linear(6, 2))


def test_parts_in_evaluation_mode_stay_so():
    module = made.module(layers=dropout_layers)
    module.layers[1].eval()
    prepared = ready(module)
    assert "in evaluation mode throughout, as in your trainer: layers.1" in prepared.assumptions
    objective, batch = prepared.objective(0).train(), prepared.train.batch(torch.arange(8))
    assert torch.equal(objective(batch)[0], objective(batch)[0])
    awake = ready(made.module(layers=dropout_layers)).objective(0).train()
    assert not torch.equal(awake(batch)[0], awake(batch)[0])


def test_the_module_knows_its_number_format():
    def step(self, batch, batch_idx):
        assert self.dtype == self.layers[0].weight.dtype
        return cross_entropy(self(batch[0].to(self.device, self.dtype)), batch[1])

    prepared = ready(step_of(step))
    objective = prepared.objective(0, torch.float64)
    assert objective(prepared.train.batch(torch.arange(4)))[0].dtype == torch.float64


@pytest.mark.gpu
def test_the_module_knows_its_device():
    def step(self, batch, batch_idx):
        noise = torch.zeros(2, device=self.device)
        return cross_entropy(self(batch[0]) + noise, batch[1])

    prepared = prepare(read(step_of(step)), device="cuda")
    assert ends(prepared)[0]["module.layers.0.bias"].isfinite().all()


def test_setup_and_configure_model_are_called_for_every_model():
    def configure_model(self):
        self.extra = nn.Linear(2, 2)

    def step(self, batch, batch_idx):
        assert self.is_set_up == "fit"
        return cross_entropy(self.extra(self(batch[0])), batch[1])

    def setup(self, stage):
        self.is_set_up = stage

    methods = {"configure_model": configure_model, "setup": setup, "training_step": step}
    for given in (made.module(**methods), made.kind(**methods)):
        assert "module.extra.weight" in dict(ready(given).objective(0).named_parameters())


# --- the loss of each example ---


def losses(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def test_a_loss_of_each_example_replaces_the_step():
    own = read(loss=losses)
    assert own.training_step is None
    assert loss_of_examples(own) == pytest.approx(loss_of(ready()))
    assert not [note for note in own.notes if "micro-batches" in note]


def loss_of_examples(own):
    prepared = prepare(own, device="cpu")
    return prepared.objective(0)(prepared.train.batch(torch.arange(8)))[0].mean().item()


def test_a_loss_that_is_not_the_steps_is_refused():
    with pytest.raises(TaskError, match="`loss` must be what training_step averages; got"):
        read(loss=lambda outputs, batch: 2 * losses(outputs, batch))


def test_a_loss_beside_batch_hooks_is_refused():
    module = made.module(on_after_batch_transfer=lambda self, batch, index: batch)
    with pytest.raises(InvalidValueError, match="`loss` must be left out where the module"):
        read(module, loss=losses)


def test_without_one_what_is_not_available_is_said():
    assert [
        note for note in read().notes if "the noise scale is measured from micro-batches" in note
    ]


def test_the_metric_of_validation_step_is_said_not_to_be_read():
    module = made.module(validation_step=lambda self, batch, batch_idx: None)
    said = "validation_step is not read: the validation loss is training's, in evaluation mode"
    assert said in read(module).notes
    assert said not in read(module, metric="accuracy").notes


# --- in other processes ---


def test_a_task_travels_without_the_trainer():
    module, trainer = made.module(), made.trainer()
    trainer.fit(module, made.loaders()[0])
    packed = cloudpickle.dumps(ready(module, trainer))
    assert b"fit_loop" not in packed
    assert b"_accelerator_connector" not in packed


@pytest.mark.parametrize("given", [made.module, pytest.param(made.kind, marks=pytest.mark.slow)])
def test_two_workers_train_what_this_process_trains(given):
    prepared = ready(given())
    alone, apart = (ends(prepared, workers, seeds=(0, 1)) for workers in (0, 2))
    for one, other in zip(alone, apart, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_stacked_runs_are_the_runs_alone():
    prepared = ready(made.kind())
    alone, stacked = (ends(prepared, seeds=(0, 1), executor=e) for e in ("loop", "stacked"))
    for one, other in zip(alone, stacked, strict=True):
        for name in one:
            assert torch.allclose(one[name], other[name], atol=1e-5)
