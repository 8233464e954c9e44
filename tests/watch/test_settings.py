"""What a watched training tells of itself, so that it can be compared."""

import math

import pytest
import torch
from torch import nn

from batchlab.errors import InvalidTypeError, InvalidValueError
from batchlab.watch import Watch, read
from batchlab.watch.settings import NUMBERS, largest_rate, told


def trained(folder, optimizer_of=None, schedule=None, evaluate=None, **options):
    model = nn.Linear(4, 1)
    make = optimizer_of or (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    optimizer = make(model.parameters())
    scheduler = schedule(optimizer) if schedule else None
    loader = torch.utils.data.DataLoader(torch.ones(24, 4), batch_size=4)
    with Watch(folder, model, optimizer, quiet=True, **options) as watching:
        for _ in range(2):
            for batch in watching.data(loader):
                loss = model(batch).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                watching.loss(loss)
            if evaluate is not None:
                evaluate()
            watching.metric("accuracy", 0.5)
    return read(folder)


def test_seed_and_settings_are_written(tmp_path):
    start = trained(tmp_path, seed=7, settings={"dropout": 0.1}).starts[0]
    assert start.seed == 7
    assert start.settings == {
        "rule": "shb", "momentum": 0.9, "learning_rate": 0.1, "weight_decay": 0.0, "dropout": 0.1
    }  # fmt: skip


def test_what_is_told_stands_for_what_is_read(tmp_path):
    watched = trained(tmp_path, settings={"learning_rate": 0.5})
    assert watched.starts[0].settings["learning_rate"] == 0.5
    assert watched.moments[-1].learning_rate is None


def test_the_learning_rate_is_the_largest_that_was_used(tmp_path):
    def warm_up(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=20)

    watched = trained(tmp_path, schedule=warm_up)
    assert 0.1 < watched.moments[-1].learning_rate <= 0.4


def test_the_data_set_is_known_without_a_noise_scale(tmp_path):
    assert trained(tmp_path, noise="off").moments[-1].population == 24


def test_evaluation_is_no_time_of_training(tmp_path, clock):
    watched = trained(tmp_path, evaluate=lambda: clock.pass_(100.0))
    assert watched.last.seconds == pytest.approx(200.0)
    assert watched.moments[-1].training == pytest.approx(0.0)
    assert watched.metrics[-1].training == pytest.approx(0.0)


def test_the_time_of_training_goes_on_after_a_resume(tmp_path, clock):
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for resume in (False, True):
        with Watch(tmp_path, model, optimizer, quiet=True, resume=resume) as watching:
            for batch in watching.data(torch.ones(3, 2, 4).unbind()):
                clock.pass_(1.0)
                model(batch).sum().backward()
                optimizer.step()
    assert read(tmp_path).moments[-1].training == pytest.approx(6.0)


def test_an_unknown_optimizer_has_a_name_and_a_rate():
    optimizer = torch.optim.Adagrad([nn.Parameter(torch.ones(1))], lr=0.1)
    assert told({}, optimizer) == {"rule": "Adagrad", "learning_rate": 0.1}


def test_the_largest_rate_is_over_groups_and_time():
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups = [{"params": [weights[0]], "lr": 0.1}, {"params": [weights[1]], "lr": 0.3}]
    optimizer = torch.optim.SGD(groups)
    assert largest_rate(optimizer, 0.0) == 0.3
    assert largest_rate(optimizer, 0.5) == 0.5
    assert largest_rate(optimizer, None) is None


def test_rates_of_every_kind_are_read_together():
    """Also one that changes in place, as that of a compiled training does."""
    rate = torch.tensor(0.25)
    weights = [nn.Parameter(torch.ones(1)) for _ in range(3)]
    optimizer = torch.optim.SGD(
        [{"params": [w], "lr": lr} for w, lr in zip(weights, (0.1, rate, 1), strict=True)]
    )
    optimizer.param_groups[2]["lr"] = 0
    assert largest_rate(optimizer, 0.0) == 0.25
    rate.fill_(0.5)
    assert largest_rate(optimizer, 0.25) == 0.5


@pytest.mark.parametrize("value", [[1], {"a": 1}, math.nan, math.inf, object()])
def test_a_setting_that_is_no_plain_value_is_refused(value):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(InvalidValueError, match=r"settings\['a'\]"):
        told({"a": value}, optimizer)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["1e-3 cosine", None, True])
def test_a_number_that_is_told_as_something_else_is_refused(name, value):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    if (name, value) in [("clip_norm", None), ("batch_size", "1e-3 cosine")]:
        assert told({name: value}, optimizer)[name] == value
        return
    with pytest.raises(InvalidValueError, match=rf"settings\['{name}'\]` must be a (whole )?num"):
        told({name: value}, optimizer)


@pytest.mark.parametrize("value", [1, 0.5])
def test_numbers_are_taken_as_they_are_told(value):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    names = [name for name in NUMBERS if isinstance(value, int) or "whole" not in NUMBERS[name]]
    assert {n: told({n: value}, optimizer)[n] for n in names} == dict.fromkeys(names, value)


@pytest.mark.wrong_type
def test_a_setting_without_a_name_is_refused():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(InvalidTypeError, match="named by texts"):
        told({1: 2}, optimizer)
