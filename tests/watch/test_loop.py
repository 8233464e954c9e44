"""A plain loop, watched: what is counted, and that nothing else changes."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from batchlab.data import GrowingBatchSampler
from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError
from batchlab.models.mlp import MLP
from batchlab.watch import Ending, Kind, Watch, loop, read
from batchlab.watch.gradients import PerExample
from batchlab.watch.loop import bare, examples_in, population
from batchlab.watch.losses import Losses
from tests.watch.models import MODELS, Positions, features, gru, loss_of, signals, words


def model_and_optimizer(make=lambda: MLP(6, (5,), 3), rate=0.1):
    torch.manual_seed(0)
    model = make()
    return model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def loader_of(count=22, size=4, data=features, **options):
    return DataLoader(TensorDataset(*data(count)), batch_size=size, **options)


def train(watching, model, optimizer, loader, *, epochs=1, accumulation=1):
    """A plain loop; what an epoch leaves of a window is stepped on, as usual."""
    for _ in range(epochs):
        for i, batch in enumerate(watching.data(loader), 1):
            loss = loss_of(model, batch)
            (loss / accumulation).backward()
            if i % accumulation == 0 or i == len(loader):
                optimizer.step()
                optimizer.zero_grad()
            watching.loss(loss)


def run(folder, loader=None, *, epochs=1, accumulation=1, make=None, **options):
    """Train a small model, watched, and read what is left."""
    model, optimizer = model_and_optimizer(make) if make else model_and_optimizer()
    loader = loader_of() if loader is None else loader
    with Watch(folder, model, optimizer, quiet=True, **options) as watching:
        train(watching, model, optimizer, loader, epochs=epochs, accumulation=accumulation)
    return read(folder)


# -- counting -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accumulation", "updates"), [(1, 3 * 6), (2, 3 * 3), (4, 3 * 2)], ids=["one", "two", "four"]
)
def test_samples_and_updates_are_what_was_trained(tmp_path, accumulation, updates):
    found = run(tmp_path, epochs=3, accumulation=accumulation)
    assert (found.last.samples, found.last.updates) == (3 * 22, updates)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_global_batch_is_written_as_its_identity(tmp_path, accumulation):
    found = run(tmp_path, loader_of(24), epochs=2, accumulation=accumulation)
    assert str(found.batch) == f"{4 * accumulation} = 4 × {accumulation} × 1"


def test_a_loop_that_breaks_off_counts_what_it_trained(tmp_path):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True) as watching:
        for i, batch in enumerate(watching.data(loader_of())):
            loss_of(model, batch).backward()
            optimizer.step()
            if i == 2:
                break
    assert (watching.samples, watching.updates) == (12, 3)


def test_a_batch_without_an_update_counts_as_samples_alone(tmp_path):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True) as watching:
        for _ in watching.data(loader_of()):
            pass
    assert (watching.samples, watching.updates) == (22, 0)
    assert watching.verdict.kind is Kind.NOTHING


def test_evaluation_between_epochs_is_not_counted(tmp_path):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True) as watching:
        train(watching, model, optimizer, loader_of())
        with torch.no_grad():
            for batch in loader_of(100):
                model(batch[0])
    assert watching.samples == 22


@pytest.mark.parametrize(
    ("batch", "batch_size", "count"),
    [
        (torch.zeros(3, 2), None, 3),
        (("a", {"x": [torch.zeros(2)]}), None, 2),
        ({"step": torch.tensor(1.0), "x": torch.zeros(4)}, None, 4),
        ("abc", 7, 7),
        ("abc", len, 3),
    ],
)
def test_examples_in_a_batch(batch, batch_size, count):
    assert examples_in(batch, batch_size) == count


def test_a_batch_without_tensors_needs_a_size():
    with pytest.raises(InvalidTypeError, match="`batch_size` must be given where batches hold no"):
        examples_in(["a", "b"])


@pytest.mark.parametrize(
    ("loader", "count"),
    [
        (loader_of(22, shuffle=True), 22),
        (DataLoader(features(9)[0], batch_sampler=GrowingBatchSampler(9, 3)), 9),
        (loader_of(22, sampler=RandomSampler(range(22), replacement=True)), None),
        (iter([torch.ones(2)]), None),
    ],
)
def test_what_is_drawn_from_without_replacement(loader, count):
    assert population(loader) == count


def test_the_loader_keeps_its_length(tmp_path):
    model, optimizer = model_and_optimizer()
    assert len(Watch(tmp_path, model, optimizer).data(loader_of())) == 6


# -- nothing changes ------------------------------------------------------------------------------


class Drops(nn.Module):
    """Dropout and batch norm: random numbers and buffers."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        return self.body(x)


class DropsAlone(nn.Module):
    """Dropout after an in-place activation, without batch norm."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.body(x)


def frozen():
    model = MLP(6, (5,), 3)
    next(model.parameters()).requires_grad_(False)
    return model


def trajectory(make, data, watch, *, amp=False, scale=False, clip=False, accumulation=1):
    """Everything that a training determines: gradients on the way, and how it all ends."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    model = make()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scale)
    loader = loader_of(22, data=data, shuffle=True)
    seen = []
    with watch(model, optimizer) as watching:
        for _ in range(3):
            for i, batch in enumerate(watching.data(loader), 1):
                seen.append(batch[1].clone())
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
                    loss = loss_of(model, batch)
                scaler.scale(loss / accumulation).backward()
                if i % accumulation == 0:
                    scaler.unscale_(optimizer)
                    if clip:
                        nn.utils.clip_grad_norm_(trained, 0.1)
                    seen += [p.grad.clone() for p in trained]
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
                watching.loss(loss)
    state = torch.random.get_rng_state(), torch.tensor(np.random.random())
    moments = [s for one in optimizer.state.values() for s in one.values()]
    return [*seen, *model.state_dict().values(), *moments, *state, torch.tensor(random.random())]


class Unwatched:
    """The same loop without a watch."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def data(self, loader):
        return loader

    def loss(self, value):
        pass


# The type checks of the test run draw from Python's generator to look into lists.
@pytest.mark.wrong_type
@pytest.mark.parametrize(
    ("make", "data", "options"),
    [
        *(pytest.param(*case, {}, id=name) for name, case in MODELS.items()),
        pytest.param(Drops, features, {}, id="batch norm"),
        pytest.param(DropsAlone, features, {}, id="dropout"),
        pytest.param(DropsAlone, features, {"amp": True}, id="bfloat16"),
        pytest.param(DropsAlone, features, {"scale": True, "clip": True}, id="scaled and clipped"),
        pytest.param(DropsAlone, features, {"accumulation": 2}, id="accumulated"),
        pytest.param(frozen, features, {}, id="frozen"),
        pytest.param(gru, signals, {"accumulation": 2}, id="micro-batches"),
    ],
)
def test_training_is_bit_for_bit_what_it_is_without(tmp_path, at_once, make, data, options):
    def watched(model, optimizer):
        return Watch(tmp_path, model, optimizer, quiet=True, share=math.inf)

    before = trajectory(make, data, Unwatched, **options)
    after = trajectory(make, data, watched, **options)
    assert len(before) == len(after)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    if make is not Drops:
        assert read(tmp_path).noise


def test_a_watch_that_drew_a_random_number_would_be_seen(tmp_path, at_once):
    class Draws(Watch):
        def begin(self, examples=None):
            torch.rand(1)
            super().begin(examples)

    def planted(model, optimizer):
        return Draws(tmp_path, model, optimizer, quiet=True)

    before = trajectory(DropsAlone, features, Unwatched)
    after = trajectory(DropsAlone, features, planted)
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# -- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "data", "accumulation", "method"),
    [
        (MODELS["mlp"][0], features, 1, "per example"),
        (MODELS["mlp"][0], features, 2, "per example"),
        (gru, signals, 2, "micro-batches"),
        (Drops, features, 2, "micro-batches"),
    ],
)
def test_the_better_method_is_chosen(tmp_path, at_once, make, data, accumulation, method):
    loader = loader_of(24, data=data, shuffle=True)
    found = run(tmp_path, loader, make=make, epochs=4, accumulation=accumulation, share=math.inf)
    assert {block.method for block in found.noise} == {method}
    assert all(block.covered == 1.0 and block.population == 24 for block in found.noise)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("make", "data", "match"),
    [
        (gru, signals, "no formula for GRU; gradients are not accumulated over micro-batches"),
        (Drops, features, "batch normalisation makes examples depend on each other"),
    ],
)
def test_where_there_is_no_way_the_reason_is_said_once(tmp_path, at_once, make, data, match):
    found = run(tmp_path, loader_of(data=data), make=make, epochs=3, share=math.inf)
    (note,) = found.notes
    assert match in note.text
    assert found.noise == ()


def test_noise_switched_off_is_not_measured(tmp_path, at_once):
    found = run(tmp_path, epochs=3, share=math.inf, noise="off")
    assert (found.noise, found.notes) == ((), ())


def test_a_part_that_is_not_covered_is_said_with_its_share(tmp_path, at_once):
    found = run(
        tmp_path, loader_of(40, data=words, shuffle=True), make=Positions, epochs=4, share=math.inf
    )
    (note,) = found.notes
    assert note.text == "no formula for Embedding whose first axis is not the batch"
    assert {round(block.covered, 3) for block in found.noise} == {round(585 / 595, 3)}


def test_measuring_waits_until_it_is_paid_for(tmp_path, at_once, clock, monkeypatch):
    """With a share of 1 in 100, an update that took 1 s to measure is paid for by 100 s more."""
    starts = []
    start = loop.Sampling._start

    def slow(self):
        starts.append(self._working)
        start(self)
        self._collector.spent += 1.0

    monkeypatch.setattr(loop.Sampling, "_start", slow)
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True, share=0.01) as watching:
        for _ in range(10):
            for batch in watching.data(loader_of(24)):
                clock.pass_(5.0)
                loss_of(model, batch).backward()
                optimizer.step()
                optimizer.zero_grad()
    assert starts == [5.0, 105.0, 205.0]


@pytest.mark.parametrize("passed", [True, False])
def test_the_factor_of_a_grad_scaler_is_taken_out_where_it_is_given(
    tmp_path, at_once, clock, passed
):
    blocks = []
    for factor in (1.0, 2.0**12):
        model, optimizer = model_and_optimizer(rate=0.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=factor)
        folder = tmp_path / str(factor)
        given = {"scaler": scaler} if passed else {}
        with Watch(folder, model, optimizer, quiet=True, share=math.inf, **given) as watching:
            for _ in range(4):
                for batch in watching.data(loader_of(24)):
                    scaler.scale(loss_of(model, batch)).backward()
                    scaler.step(optimizer)
                    scaler.update(factor)
                    optimizer.zero_grad()
        blocks.append(read(folder).noise[-1])
    plain, scaled = blocks
    squared = 1.0 if passed else 2.0**24
    assert scaled.noise == pytest.approx(plain.noise * squared, rel=1e-4)
    assert scaled.noise / scaled.signal == pytest.approx(plain.noise / plain.signal, rel=1e-3)


def test_a_step_that_a_grad_scaler_skips_is_no_update(tmp_path):
    model, optimizer = model_and_optimizer()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    with Watch(tmp_path, model, optimizer, quiet=True) as watching:
        for i, batch in enumerate(watching.data(loader_of(24))):
            loss = loss_of(model, batch)
            scaler.scale(loss * math.inf if i == 2 else loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert (watching.samples, watching.updates) == (24, 5)


def test_a_closure_given_to_the_optimizer_is_one_update(tmp_path):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True) as watching:
        for batch in watching.data(loader_of(24)):

            def closure(batch=batch):
                optimizer.zero_grad()
                loss = loss_of(model, batch)
                loss.backward()
                return loss

            watching.loss(optimizer.step(closure))
    assert (watching.samples, watching.updates) == (24, 6)


# -- time, money, loss, memory --------------------------------------------------------------------


class SlowLoader:
    """A loader that takes its time."""

    def __init__(self, clock, seconds, count=40):
        self.clock, self.seconds, self.count = clock, seconds, count

    def __iter__(self):
        for i in range(self.count):
            self.clock.pass_(self.seconds)
            yield features(4, seed=i)


def slow_training(folder, clock, *, waits=3.0, works=1.0, aside=0.0, **options):
    model, optimizer = model_and_optimizer()
    with Watch(folder, model, optimizer, quiet=True, noise="off", **options) as watching:
        for batch in watching.data(SlowLoader(clock, waits)):
            clock.pass_(works)
            loss_of(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
        clock.pass_(aside)
    return watching, read(folder)


def test_waiting_for_data_is_told_from_working(tmp_path, clock):
    _, found = slow_training(tmp_path, clock)
    assert found.moments[-1].waiting == pytest.approx(120.0)
    assert found.moments[-1].working == pytest.approx(40.0)


def test_a_loader_that_takes_most_of_the_time_is_the_conclusion(tmp_path, clock):
    watching, _ = slow_training(tmp_path, clock, price_per_hour=90.0)
    assert watching.verdict.kind is Kind.LOADER
    assert watching.verdict.waiting.value == pytest.approx(0.75)
    assert watching.verdict.speed.value == pytest.approx(4.0)
    assert watching.verdict.saved == pytest.approx(3.0)


def test_seconds_and_money_hold_what_happens_beside_the_loop_too(tmp_path, clock):
    _, found = slow_training(tmp_path, clock, aside=40.0, price_per_hour=36.0)
    assert found.end.seconds == pytest.approx(200.0)
    assert found.end.money == pytest.approx(2.0)


def test_without_a_price_there_is_no_money(tmp_path, clock):
    _, found = slow_training(tmp_path, clock)
    assert found.end.money is None


def test_lines_grow_rarer(tmp_path, clock):
    """One per cent of the time so far lies between them, a minute at most."""
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True, noise="off") as watching:
        for batch in watching.data(SlowLoader(clock, 0.0, count=2000)):
            clock.pass_(10.0)
            loss_of(model, batch).backward()
            optimizer.step()
    gaps = np.diff([moment.seconds for moment in read(tmp_path).moments])
    assert gaps[:10].max() < 20
    assert gaps.max() == pytest.approx(60.0)


def test_the_loss_of_a_line_is_the_mean_over_its_examples(tmp_path, clock):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True, noise="off") as watching:
        for batch in watching.data(loader_of(6)):
            loss_of(model, batch).backward()
            optimizer.step()
            watching.loss(torch.tensor(3.0) if len(batch[0]) == 4 else 6.0)
    assert [moment.loss for moment in read(tmp_path).moments] == [3.0, 6.0]


def test_a_loss_that_is_not_finite_is_found_with_its_update(tmp_path, clock):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True, noise="off") as watching:
        for i, batch in enumerate(watching.data(loader_of(24))):
            loss_of(model, batch).backward()
            optimizer.step()
            watching.loss(torch.tensor(math.nan if i >= 3 else 1.0))
    assert watching.verdict.kind is Kind.DIVERGED
    assert watching.verdict.diverged == 4


def test_a_loss_told_before_the_step_belongs_to_its_update(tmp_path, clock):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True, noise="off") as watching:
        for i, batch in enumerate(watching.data(loader_of(24))):
            loss_of(model, batch).backward()
            watching.loss(math.inf if i == 3 else 1.0)
            optimizer.step()
    assert watching.verdict.diverged == 4


def test_a_loss_of_several_numbers_is_refused(tmp_path):
    model, optimizer = model_and_optimizer()
    with (
        Watch(tmp_path, model, optimizer, quiet=True) as watching,
        pytest.raises(InvalidValueError, match=r"`loss` must be one number; got \(3,\)"),
    ):
        watching.loss(torch.ones(3))


def test_a_metric_stands_with_the_counts_at_its_time(tmp_path):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True) as watching:
        train(watching, model, optimizer, loader_of())
        watching.metric("accuracy", torch.tensor(0.5), maximise=True)
    (point,) = read(tmp_path).metrics
    assert (point.name, point.value, point.maximise) == ("accuracy", 0.5, True)
    assert (point.samples, point.updates) == (22, 6)


def test_memory_stays_below_its_limit(tmp_path):
    found = run(tmp_path)
    assert 0 < found.moments[-1].memory < found.starts[0].memory_limit


# -- beginning and end ----------------------------------------------------------------------------


def test_the_sentence_is_said_at_the_end(tmp_path, capsys):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer) as watching:
        train(watching, model, optimizer, loader_of())
    assert "screened" in capsys.readouterr().err


def fails_after_a_batch(watching, model):
    for batch in watching.data(loader_of()):
        loss_of(model, batch).backward()
        _ = 1 / 0


def test_an_exception_goes_on_and_the_end_says_stopped(tmp_path):
    model, optimizer = model_and_optimizer()
    watching = Watch(tmp_path, model, optimizer, quiet=True)
    with pytest.raises(ZeroDivisionError, match="division by zero"), watching:
        fails_after_a_batch(watching, model)
    assert read(tmp_path).end.ending is Ending.STOPPED


def test_no_hook_is_left_after_an_exception_in_a_measured_update(tmp_path, at_once):
    model, optimizer = model_and_optimizer()
    watching = Watch(tmp_path, model, optimizer, quiet=True, share=math.inf)
    with pytest.raises(ZeroDivisionError, match="division by zero"), watching:
        fails_after_a_batch(watching, model)
    assert not any(module._forward_hooks for module in model.modules())
    assert not optimizer._optimizer_step_post_hooks


def test_a_second_watch_of_a_directory_is_refused(tmp_path):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True):
        match = "in use by another run: wait for it to end, or choose another directory"
        with pytest.raises(ResultError, match=match):
            Watch(tmp_path, model, optimizer, quiet=True).open()


def test_a_finished_directory_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ResultError, match="holds a watched training: pass resume=True"):
        run(tmp_path)


def test_the_result_of_another_command_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("{}", "utf-8")
    with pytest.raises(ResultError, match="holds the result of another command"):
        run(tmp_path, resume=True)


def test_a_refused_directory_is_free_again(tmp_path):
    run(tmp_path)
    with pytest.raises(ResultError, match="holds a watched training"):
        run(tmp_path)
    assert run(tmp_path, resume=True).last.samples == 44


# -- resume ---------------------------------------------------------------------------------------


def test_a_resume_goes_on_counting(tmp_path, clock):
    _, first = slow_training(tmp_path, clock, price_per_hour=36.0)
    _, both = slow_training(tmp_path, clock, price_per_hour=36.0, resume=True)
    assert (first.last.samples, both.last.samples) == (160, 320)
    assert (first.last.updates, both.last.updates) == (40, 80)
    assert both.last.seconds == pytest.approx(2 * first.last.seconds)
    assert both.last.money == pytest.approx(2 * first.last.money)
    assert both.moments[-1].waiting == pytest.approx(2 * first.moments[-1].waiting)
    assert len(both.starts) == 2


@pytest.mark.parametrize("loaded", ["before", "inside"])
def test_a_resume_from_a_checkpoint_takes_back_what_lay_beyond(tmp_path, clock, loaded):
    model, optimizer = model_and_optimizer()
    with Watch(tmp_path, model, optimizer, quiet=True, noise="off") as watching:
        train(watching, model, optimizer, loader_of(24))
        saved = watching.state_dict()
        clock.pass_(10.0)
        train(watching, model, optimizer, loader_of(24))
        watching.metric("accuracy", 0.1)
    again = Watch(tmp_path, model, optimizer, quiet=True, noise="off", resume=loaded == "inside")
    if loaded == "before":
        again.load_state_dict(saved)
    with again:
        if loaded == "inside":
            again.load_state_dict(saved)
        clock.pass_(1.0)
        train(again, model, optimizer, loader_of(24))
    found = read(tmp_path)
    assert (found.last.samples, found.last.updates) == (48, 12)
    assert found.metrics == ()
    assert [m.updates for m in found.moments] == sorted(m.updates for m in found.moments)
    assert found.last.seconds == pytest.approx(11.0)


def test_a_state_of_something_else_is_refused(tmp_path):
    model, optimizer = model_and_optimizer()
    with pytest.raises(InvalidValueError, match="`state` must be what `state_dict` returned"):
        Watch(tmp_path, model, optimizer).load_state_dict({"epoch": 1})


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1; got 0"),
        ({"price_per_hour": -1.0}, "`price_per_hour` must be 0 or more"),
        ({"share": -0.1}, "`share` must be 0 or more"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, options, match):
    model, optimizer = model_and_optimizer()
    with pytest.raises(InvalidValueError, match=match):
        Watch(tmp_path, model, optimizer, **options)


@pytest.mark.wrong_type
def test_an_unknown_method_is_refused(tmp_path):
    model, optimizer = model_and_optimizer()
    with pytest.raises(InvalidValueError, match="`noise` must be one of auto, per example"):
        Watch(tmp_path, model, optimizer, noise="half")


def test_an_optimizer_is_found_in_its_wrappers():
    _, optimizer = model_and_optimizer()

    class Wrapper:
        def __init__(self, optimizer):
            self.optimizer = optimizer

    assert bare(Wrapper(Wrapper(optimizer))) is optimizer


def test_something_that_is_no_optimizer_is_refused():
    with pytest.raises(InvalidTypeError, match=r"`optimizer` must be a torch\.optim optimizer"):
        bare("sgd")


@pytest.mark.wrong_type
def test_a_compiled_model_is_trained_and_says_why_there_is_no_noise(tmp_path, at_once):
    torch.manual_seed(0)
    model = torch.compile(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)), backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watch(tmp_path, model, optimizer, quiet=True, share=math.inf) as watching:
        train(watching, model, optimizer, loader_of())
    assert "compiled" in read(tmp_path).notes[0].text
    assert watching.updates == 6


def worst_z(folder):
    """Errors of mean signal and noise over standard errors, n = 200 updates of a linear model that
    stands still: real hooks, known truth.
    """
    torch.manual_seed(1)
    model = nn.Linear(3, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)).double()
    dataset = TensorDataset(x, x.sum(1, keepdim=True) + 1)
    generator = torch.Generator().manual_seed(2)
    loader = DataLoader(dataset, batch_size=8, shuffle=True, generator=generator)
    with Watch(folder, model, optimizer, quiet=True, share=math.inf) as watching:
        for _ in range(25):
            for batch in watching.data(loader):
                (model(batch[0]) - batch[1]).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
    residual = 2 * (model(x) - dataset.tensors[1]).detach()
    each = torch.cat([residual * x, residual], dim=1)
    truth = {
        "signal": float(each.mean(0).square().sum()),
        "noise": float((each - each.mean(0)).square().sum(1).mean()),
    }
    blocks = read(folder).noise
    count = sum(block.pairs for block in blocks)
    assert count >= 195
    mean = {name: sum(b.pairs * getattr(b, name) for b in blocks) / count for name in truth}
    spread = {name: sum(b.pairs * getattr(b, f"{name}_var") for b in blocks) for name in truth}
    return max(abs(mean[n] - truth[n]) / math.sqrt(spread[n] / count**2) for n in truth)


def test_a_mean_over_many_updates_is_signal_and_noise_of_the_data(tmp_path, at_once):
    assert worst_z(tmp_path) <= 4


def test_contributions_taken_for_those_of_two_examples_are_found_out(
    tmp_path, at_once, monkeypatch
):
    found = PerExample._found
    monkeypatch.setattr(PerExample, "_found", lambda *args: found(*args)._replace(small=2))
    assert worst_z(tmp_path) > 4


@pytest.mark.parametrize("kind", [list, tuple])
def test_the_usual_batch_is_counted_without_a_search(kind, monkeypatch):
    monkeypatch.delattr(loop, "_first_tensor")
    assert loop.examples_in(kind([torch.zeros(3, 2), torch.zeros(3)])) == 3


@pytest.mark.parametrize(
    "batch",
    [[{"x": torch.zeros(3)}], ([torch.tensor(1.0), torch.zeros(3)],), ["a", torch.zeros(3)]],
)
def test_another_batch_is_searched(batch):
    assert loop.examples_in(batch) == 3


def test_an_empty_batch_is_refused_where_nothing_else_says_how_many():
    with pytest.raises(InvalidTypeError, match="batch_size"):
        loop.examples_in([])


def test_losses_are_a_mean_over_examples_from_which_the_first_that_is_not_finite_is_known():
    told = [(1, 4, 1.0), (2, 2, torch.tensor([2.0])), (2, 0, 3)]
    losses = Losses()
    assert not losses.pending
    for one in told:
        losses.tell(*one)
    assert losses.pending
    assert losses.take() == ((4 * 1.0 + 2 * 2.0 + 1 * 3.0) / 7, None)
    assert losses.take() == (None, None)
    for update, value in [(3, 1.0), (4, math.inf), (5, math.nan)]:
        losses.tell(update, 1, value)
    found = losses.take()
    assert math.isnan(found.value)
    assert found.diverged == 4
