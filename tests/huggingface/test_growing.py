"""A batch size that grows in real trainings by the Trainer."""

import pytest
import torch
from transformers import Trainer, TrainerCallback

from batchlab.data import GrowingBatchSampler
from batchlab.errors import InvalidValueError, ResultError
from batchlab.huggingface import GrowingTrainer
from tests.huggingface import tiny
from tests.together import together

EPOCHS = 4
SCHEDULES = {
    "grows inside epochs": ("0:4 60:8 100:12", 12),
    "lengths differ by one": ("20", 20),
    "above memory at an epoch": ("0:4 70:8 2ep:16 3ep:24", 8),
}
OTHERS = {"small first": ("0:4 8:8", 8)}


class Seen(TrainerCallback):
    """Learning rate of each update, and where evaluations came."""

    def __init__(self):
        self.rates, self.evaluated, self.steps = [], [], None

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluated.append(state.global_step)

    def on_train_begin(self, args, state, control, **kwargs):
        self.steps = state.max_steps


def fit(folder, name, resume=None, dropout=0.0, reuse=1, **changes):
    schedule, fits = (SCHEDULES | OTHERS)[name]
    seen = Seen()
    trainer = tiny.classifier(
        folder,
        kind=GrowingTrainer,
        model=lambda: tiny.bert(dropout),
        given={"schedule": schedule, "callbacks": [seen], "reuse": reuse},
        **{
            **{"per_device_train_batch_size": fits, "gradient_accumulation_steps": 1},
            **{"max_steps": -1, "num_train_epochs": EPOCHS, "eval_strategy": "epoch", "seed": 2},
            **changes,
        },
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer, seen


def plan(name, epochs=EPOCHS):
    schedule, _ = (SCHEDULES | OTHERS)[name]
    sampler = GrowingBatchSampler(tiny.EXAMPLES, schedule, 2)
    return [list(sampler) for _ in range(epochs)]


def plain(name, rates, reuse=1, epochs=EPOCHS):
    """The same updates of whole batches in a plain loop, at these learning rates."""
    model, data = tiny.bert().train(), tiny.rows()
    trainer = tiny.classifier("unused", model=lambda: model, max_steps=1)
    optimizer = trainer.create_optimizer()
    batches = [batch for epoch in plan(name, epochs) for batch in epoch for _ in range(reuse)]
    for batch, rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        model(**tiny.pad([data[i] for i in batch])).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return model


# An evaluation at the end of an epoch draws from the generator after the last step's checkpoint,
# with any Trainer; so none here, where dropout draws from it too.
SAVING = {"save_strategy": "steps", "save_steps": 1, "dropout": 0.1, "eval_strategy": "no"}


def far(a, b):
    a, b = tiny.weights(a), tiny.weights(b)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_trainer_makes_the_updates_of_the_schedule(tmp_path, name):
    trainer, seen = fit(tmp_path, name)
    lengths = [len(epoch) for epoch in plan(name)]
    assert seen.steps == trainer.state.global_step == sum(lengths)
    assert seen.evaluated == [sum(lengths[: k + 1]) for k in range(EPOCHS)]
    assert trainer.state.epoch == EPOCHS
    # Padded to other lengths and added up in another order, in float32, through Adam.
    assert far(trainer.model, plain(name, seen.rates)) < 2e-5


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_falls_by_samples(tmp_path, name):
    """Linear, after 3 warm-up steps of the first batch size."""
    _, seen = fit(tmp_path, name)
    sizes = [len(batch) for epoch in plan(name) for batch in epoch]
    total = -(-EPOCHS * tiny.EXAMPLES // sizes[0])
    places = [sum(sizes[:k]) // sizes[0] for k in range(len(sizes))]
    wanted = [3e-3 * (k / 3 if k < 3 else max(0, (total - k) / (total - 3))) for k in places]
    assert seen.rates == pytest.approx(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(tmp_path, name):
    """Resumed from every checkpoint: inside epochs and at their ends."""
    whole, seen = fit(tmp_path / "whole", name, **SAVING)
    for step in range(1, len(seen.rates)):
        path = str(tmp_path / "whole" / f"checkpoint-{step}")
        resumed, rest = fit(tmp_path / "resumed", name, resume=path, **SAVING)
        assert rest.rates == seen.rates[step:], step
        assert far(resumed.model, whole.model) == 0.0, step


@pytest.mark.parametrize("step", [5, 21, 24])
def test_training_goes_on_inside_and_between_epochs(tmp_path, step):
    name = "above memory at an epoch"
    whole, seen = fit(tmp_path / "whole", name, **SAVING)
    path = str(tmp_path / "whole" / f"checkpoint-{step}")
    resumed, rest = fit(tmp_path / "resumed", name, resume=path, **SAVING)
    assert rest.rates == seen.rates[step:]
    assert far(resumed.model, whole.model) == 0.0


def test_a_checkpoint_of_another_schedule_is_refused_and_another_future_is_not(tmp_path):
    saving = {**SAVING, "num_train_epochs": 2, "save_steps": 13}
    fit(tmp_path / "whole", "grows inside epochs", **saving)  # sample 60 is update 15
    path = str(tmp_path / "whole" / "checkpoint-13")
    with pytest.raises(
        ResultError, match="`schedule` must be as in the checkpoint up to sample 52"
    ):
        fit(tmp_path / "other", "small first", path, **saving)
    trainer, _ = fit(tmp_path / "future", "above memory at an epoch", path, **saving)
    assert trainer.state.global_step == 21


def test_half_an_epoch_is_half_of_its_updates(tmp_path):
    trainer, _ = fit(tmp_path, "above memory at an epoch", num_train_epochs=2.5)
    lengths = [len(epoch) for epoch in plan("above memory at an epoch")]
    assert trainer.state.global_step == lengths[0] + lengths[1] + -(-lengths[2] // 2)


def test_columns_and_workers_are_the_trainers(tmp_path):
    def names(examples):
        return {"columns": sorted(examples[0])}

    options = {
        **{"dataloader_num_workers": 2, "dataloader_prefetch_factor": 3},
        **{"dataloader_persistent_workers": True, "gradient_accumulation_steps": 1},
        **{"max_steps": -1, "per_device_train_batch_size": 12},
    }
    growing, usual = (
        tiny.classifier(
            tmp_path, kind, given={"data_collator": names, **given}, **options
        ).get_train_dataloader()
        for kind, given in ((GrowingTrainer, {"schedule": "0:4 60:8"}), (Trainer, {}))
    )
    assert growing.collate_fn(tiny.rows()) == {"columns": ["input_ids", "label"]}
    for name in ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory"):
        assert getattr(growing, name) == getattr(usual, name), name
    assert (growing.num_workers, growing.prefetch_factor) == (2, 3)
    assert growing.worker_init_fn.func is usual.worker_init_fn.func
    assert [len(batch) for batch in growing.batch_sampler][:2] == [4, 4]


@pytest.mark.parametrize(
    "option",
    [
        {"gradient_accumulation_steps": 2},
        {"max_steps": 10},
        {"dataloader_drop_last": True},
        {"train_sampling_strategy": "group_by_length"},
    ],
)
def test_arguments_that_say_it_otherwise_are_refused(tmp_path, option):
    (name,) = option
    with pytest.raises(InvalidValueError, match=f"`{name}` must be left at"):
        fit(tmp_path, "grows inside epochs", **option)


def test_growth_above_memory_inside_an_epoch_is_refused_with_that_sentence(tmp_path):
    words = r"only where an epoch starts; got .* fixed within an epoch"
    with pytest.raises(InvalidValueError, match=words):
        fit(tmp_path, "grows inside epochs", per_device_train_batch_size=4)


# ------------------------------------------------------------------ each batch used several times


@pytest.mark.parametrize(("name", "reuse"), [("lengths differ by one", 3), ("small first", 2)])
def test_each_fetched_batch_serves_for_k_updates_as_in_a_plain_loop(tmp_path, name, reuse):
    trainer, seen = fit(tmp_path, name, reuse=reuse, num_train_epochs=2)
    batches = sum(map(len, plan(name, 2)))
    assert trainer.state.global_step == seen.steps == reuse * batches
    assert trainer.state.epoch == 2
    assert far(trainer.model, plain(name, seen.rates, reuse, 2)) < 2e-5
    assert far(trainer.model, plain(name, seen.rates[::reuse], 1, 2)) > 1e-3


def test_accumulated_batches_are_used_again_as_a_whole(tmp_path):
    """Micro-batches of 4 at first, of 16 and 24 in windows of 2 and 3."""
    name = "above memory at an epoch"
    trainer, seen = fit(tmp_path, name, reuse=2)
    assert trainer.state.global_step == 2 * sum(map(len, plan(name)))
    assert far(trainer.model, plain(name, seen.rates, 2)) < 2e-5


def test_a_batch_is_fetched_once_however_often_it_is_used(tmp_path):
    asked = []

    class Counting(list):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    trainer = tiny.classifier(
        tmp_path,
        kind=GrowingTrainer,
        given={"schedule": 8, "reuse": 3, "train_dataset": Counting(tiny.rows())},
        **{"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1},
        **{"max_steps": -1, "num_train_epochs": 1},
    )
    trainer.train()
    assert trainer.state.global_step == 18
    assert len(asked) == tiny.EXAMPLES


def test_the_rate_goes_by_fresh_samples_and_max_steps_by_updates(tmp_path):
    _, once = fit(tmp_path / "once", "lengths differ by one")
    _, again = fit(tmp_path / "again", "lengths differ by one", reuse=3)
    assert again.steps == 3 * once.steps
    assert again.rates == [rate for rate in once.rates for _ in range(3)]


@pytest.mark.parametrize("step", [7, 8, 9])
def test_training_goes_on_between_and_inside_the_uses_of_a_batch(tmp_path, step):
    """3 updates on each of 2 or 3 batches an epoch: 9 is an epoch's end, 7 and 8 are inside."""
    name, given = "lengths differ by one", {**SAVING, "reuse": 3, "num_train_epochs": 2}
    whole, seen = fit(tmp_path / "whole", name, **given)
    path = str(tmp_path / "whole" / f"checkpoint-{step}")
    resumed, rest = fit(tmp_path / "resumed", name, resume=path, **given)
    assert rest.rates == seen.rates[step:]
    assert far(resumed.model, whole.model) == 0.0


@pytest.mark.slow
def test_resumed_from_anywhere_is_uninterrupted_with_windows_too(tmp_path):
    name, given = "above memory at an epoch", {**SAVING, "reuse": 2}
    whole, seen = fit(tmp_path / "whole", name, **given)
    for step in range(1, len(seen.rates)):
        path = str(tmp_path / "whole" / f"checkpoint-{step}")
        resumed, rest = fit(tmp_path / "resumed", name, resume=path, **given)
        assert rest.rates == seen.rates[step:], step
        assert far(resumed.model, whole.model) == 0.0, step


def test_a_checkpoint_of_another_reuse_is_refused(tmp_path):
    given = {**SAVING, "num_train_epochs": 2, "save_steps": 8}
    fit(tmp_path / "whole", "lengths differ by one", reuse=2, **given)
    path = str(tmp_path / "whole" / "checkpoint-8")
    with pytest.raises(ResultError, match="`reuse` may not"):
        fit(tmp_path / "other", "lengths differ by one", path, reuse=3, **given)


def test_a_batch_that_is_written_to_is_refused_at_its_next_use(tmp_path):
    class Writing(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trainer._window[0][0]["input_ids"].add_(0)

    trainer = tiny.classifier(
        tmp_path,
        kind=GrowingTrainer,
        given={"schedule": 8, "reuse": 2, "callbacks": [Writing()]},
        **{"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1},
        **{"max_steps": -1, "num_train_epochs": 1},
    )
    with pytest.raises(
        InvalidValueError, match="`batch` must be left as it is until its last use"
    ):
        trainer.train()


@pytest.mark.wrong_type
@pytest.mark.parametrize("reuse", [0, 1.5, True])
def test_what_is_no_number_of_uses_is_refused(tmp_path, reuse):
    with pytest.raises(InvalidValueError, match="`reuse` must be a whole number, at least 1"):
        fit(tmp_path, "lengths differ by one", reuse=reuse)


IN_TWO = """
os.environ |= {"RANK": str(RANK), "LOCAL_RANK": str(RANK), "WORLD_SIZE": "2",
               "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
import tempfile
from torch import nn
from transformers import TrainingArguments
from batchlab.data import GrowingBatchSampler
from batchlab.huggingface import GrowingTrainer

draw = torch.Generator().manual_seed(0)
x, y = (torch.randn(40, n, generator=draw) for n in (3, 1))
rows = [{"x": a, "labels": b} for a, b in zip(x, y)]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)
    def forward(self, x, labels):
        return {"loss": nn.functional.mse_loss(self.layer(x), labels)}

SCHEDULE = "0:4 60:8 2ep:16"
args = TrainingArguments(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=4,
    num_train_epochs=4, learning_rate=0.1, lr_scheduler_type="constant", optim="sgd", seed=3,
    max_grad_norm=0.0, save_strategy="no", logging_strategy="no", report_to=[],
    disable_tqdm=True, use_cpu=True, ddp_backend="gloo", remove_unused_columns=False)
net = Net()
trainer = GrowingTrainer(net, args, train_dataset=rows, schedule=SCHEDULE)
trainer.train()

wanted = Net()
optimizer = torch.optim.SGD(wanted.parameters(), lr=0.1)
alone = GrowingBatchSampler(40, SCHEDULE, 3, rank=0, world_size=1)
updates = 0
for epoch in range(4):
    for batch in alone:
        optimizer.zero_grad()
        wanted(x[batch], y[batch])["loss"].backward()
        optimizer.step()
        updates += 1
pairs = zip(net.parameters(), wanted.parameters())
FACTS = {"apart": max(float((a - b).detach().abs().max()) for a, b in pairs),
         "updates": [trainer.state.global_step, updates], "shared": args.world_size}
"""


@pytest.mark.slow
def test_two_real_processes_train_as_one(tmp_path):
    for fact in together(IN_TWO, tmp_path):
        assert fact["shared"] == 2
        assert fact["updates"][0] == fact["updates"][1]
        assert fact["apart"] < 1e-5
