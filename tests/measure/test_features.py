"""Units in order of importance, the metric against units kept, and what single units look at."""

import base64
import copy
import io
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidTypeError, InvalidValueError, ValidityWarning
from batchlab.measure._cut import Batches, Cut, site_of
from batchlab.measure._png import heat, photograph
from batchlab.measure._units import gradient, segment
from batchlab.measure.features import (
    Features,
    Reader,
    by_importance,
    curve,
    features,
    features_probe,
    gains,
    grid,
    importance,
    smallest,
    units_needed,
)
from batchlab.tasks import Task, prepare
from batchlab.types import from_plain, to_plain


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = normal(90, 4, seed=1)
LABELS = (X[:, 0] + X[:, 1] > 0).long()


def loss(outputs, batch):
    return functional.cross_entropy(outputs, batch[1], reduction="none")


def net(seed=0):
    with _random.seeded(seed, "test"):
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def task_of(model=net, x=X, y=LABELS, **more):
    more = {"loss": loss, "metric": "accuracy"} | more
    return Task(model, (x, y), validation=(x, y), **more)


def cut_of(task, module=None, layer=None, **more):
    reader = Reader(prepare(task, device="cpu"), layer=layer, **more)
    objective = reader.objective
    if module is not None:
        objective.module.load_state_dict(module.state_dict())
    return reader.cuts(objective)[1]


def some(*units, of=5):
    return torch.isin(torch.arange(of), torch.tensor(units, dtype=torch.long))


def by_hand(model, kept, fill):
    """Loss and accuracy with the other units set to ``fill(what they say)``."""
    said = torch.tanh(model[0](X))
    outputs = model[2](torch.where(kept, said, fill(said)))
    hits = (outputs.argmax(1) == LABELS).double().mean()
    return functional.cross_entropy(outputs, LABELS).item(), hits.item()


def at_mean(said):
    return said.mean(0)


def at_zero(said):
    """A planted bug: taken out is not the same as left at its mean."""
    return torch.zeros_like(said)


def agrees(fill):
    cut, model = cut_of(task_of()), net()
    model.load_state_dict(cut.objective.module.state_dict())
    return all(
        cut.answer(some(*kept)) == pytest.approx(by_hand(model, some(*kept), fill), abs=1e-6)
        for count in range(6)
        for kept in itertools.combinations(range(5), count)
    )


def test_every_subset_of_units_answers_as_the_network_with_the_others_at_their_means():
    assert agrees(at_mean)


def test_units_set_to_zero_instead_are_noticed():
    assert not agrees(at_zero)


class Squeezed(nn.Module):
    """Its outputs are not those of the last layer, so the whole model has to run."""

    def __init__(self):
        super().__init__()
        self.body = net()

    def forward(self, x):
        return 1.0 * self.body(x)


def test_the_last_layer_alone_answers_as_the_whole_model_does():
    short, whole = cut_of(task_of()), cut_of(task_of(), by_tail=False)
    assert (short.short, whole.short) == (True, False)
    for kept in (some(), some(1, 3), some(*range(5))):
        assert short.answer(kept) == pytest.approx(whole.answer(kept), abs=1e-7)


def test_a_model_that_changes_its_last_layers_outputs_is_run_as_a_whole():
    assert not cut_of(task_of(Squeezed)).short
    assert cut_of(task_of(Squeezed)).answer(some(2)) == pytest.approx(
        cut_of(task_of()).answer(some(2)), abs=1e-7
    )


def test_keeping_all_units_is_the_model_and_keeping_none_says_the_same_of_every_example():
    cut = cut_of(task_of())
    outputs = cut.objective.module(X)
    expected = functional.cross_entropy(outputs, LABELS).item()
    assert cut.answer(some(*range(5)))[0] == pytest.approx(expected, abs=1e-6)
    share = LABELS.double().mean().item()
    assert cut.answer(some())[1] in (pytest.approx(share), pytest.approx(1 - share))


def test_importance_is_what_the_loss_rises():
    cut = cut_of(task_of())
    model = cut.objective.module
    whole, _ = by_hand(model, some(*range(5)), at_mean)
    values, how = importance(cut)
    assert how == "ablation"
    for unit in range(5):
        kept = some(*(set(range(5)) - {unit}))
        assert values[unit].item() == pytest.approx(
            by_hand(model, kept, at_mean)[0] - whole, abs=1e-6
        )


def test_slopes_are_the_derivative_of_the_loss_on_the_way_to_the_mean():
    cut = cut_of(task_of(), precision="float64")
    model, step = cut.objective.module, 1e-6
    said = torch.tanh(model[0](X.double()))
    found = cut.slopes()
    for unit in range(5):

        def at(t, unit=unit):
            moved = said.clone()
            moved[:, unit] += t * (said[:, unit].mean() - said[:, unit])
            return functional.cross_entropy(model[2](moved), LABELS).item()

        assert found[unit].item() == pytest.approx((at(step) - at(-step)) / (2 * step), abs=1e-6)


def test_wide_layers_are_ordered_by_slopes():
    made = lambda: nn.Sequential(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 2))  # noqa: E731
    cut = cut_of(task_of(made))
    values, how = importance(cut)
    assert how == "gradient"
    assert torch.equal(values, cut.slopes())


def test_slopes_of_a_linear_loss_are_the_importance():
    """Where the loss is linear in the units, the first-order term is all there is."""
    task = task_of(loss=lambda out, batch: out[:, 0] * batch[0][:, 1], metric="loss")
    cut = cut_of(task)
    assert torch.allclose(cut.slopes(), importance(cut)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("none", "whole", "maximise", "expected"),
    [(0.5, 0.9, True, [0.0, 0.5, 1.0]), (2.0, 1.0, False, [-1.5, -1.3, -1.1])],
)
def test_gains_are_shares_of_what_all_units_add(none, whole, maximise, expected):
    values = none + np.array(expected) * (whole - none)
    assert gains(values, none, whole, maximise).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("maximise", [True, False])
def test_units_that_add_nothing_have_no_gains(maximise):
    assert np.isnan(gains(np.array([1.0]), 1.0, 1.0, maximise)).all()
    worse = 0.5 if maximise else 1.5
    assert np.isnan(gains(np.array([1.0]), 1.0, worse, maximise)).all()


@given(st.integers(1, 5000))
def test_the_grid_goes_from_none_to_all_in_steps_of_a_quarter(units):
    counts = grid(units)
    assert (counts[0], counts[-1]) == (0, units)
    for before, after in itertools.pairwise(counts):
        assert before < after <= max(before + 1, math.ceil(1.25 * before))


@given(st.integers(1, 400), st.data())
def test_the_smallest_number_of_a_rising_metric_is_found(units, data):
    threshold = data.draw(st.integers(0, units))
    found = smallest(grid(units), float, lambda value: value >= threshold)
    assert found == threshold


def without_halving(counts, metric, enough):
    """A planted bug: the answer is left at the grid."""
    return next(k for k in counts if enough(metric(k)))


def test_an_answer_left_at_the_grid_would_be_noticed():
    assert without_halving(grid(100), float, lambda v: v >= 31) != 31


class Lookup(nn.Module):
    """Six units of which two decide: the sign of the sum of the first two inputs."""

    def __init__(self, useful=(2, 5), scale=9.0):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        with torch.no_grad():
            self.first.weight.mul_(0.1)
            self.last.weight.mul_(0.001)
            self.last.bias.zero_()
            for i, unit in enumerate(useful):
                self.first.weight[unit] = functional.one_hot(torch.tensor(i), 4)
                self.last.weight[:, unit] = torch.tensor([-scale, scale])

    def forward(self, x):
        return self.last(self.first(x))


def test_a_network_in_which_two_units_decide_needs_two():
    found = features(task_of(Lookup), Lookup(), device="cpu")
    assert found.runs[0].needed == 2
    assert {unit.unit for unit in found.sheet[:2]} == {2, 5}
    assert found.runs[0].needed_random > 2
    assert (found.units, found.layer, found.order) == (6, "first", "ablation")
    assert found.runs[0].counts == tuple(range(7))


def test_a_network_that_decides_by_nothing_needs_no_number_of_units():
    model = Lookup()
    with torch.no_grad():
        model.last.weight.zero_()
    found = features(task_of(Lookup), model, device="cpu")
    assert found.runs[0].needed is None
    assert found.needed is None
    assert "no number" in str(found)


def test_a_metric_to_be_minimised_needs_as_many():
    task = task_of(Lookup, metric="loss")
    found = features(task, Lookup(), device="cpu").runs[0]
    assert found.needed == 2
    assert found.metric[0] > found.metric[2] == pytest.approx(found.metric[-1], rel=0.01)


def test_random_orders_are_the_same_for_every_model():
    cut = cut_of(task_of(Lookup), Lookup())
    one, two = (curve(cut, order, cut.means, True) for order in (range(6), range(5, -1, -1)))
    assert one.random == two.random
    assert one.metric != two.metric


def test_several_models_give_an_interval_that_stays_within_the_units():
    models = [Lookup((2, 5)), Lookup((0, 1)), Lookup((3,))]
    found = features(task_of(Lookup), models, device="cpu")
    assert [run.needed for run in found.runs[:2]] == [2, 2]
    assert found.needed.n == 3
    assert 1 <= found.needed.low < found.needed.value < found.needed.high <= 6
    assert units_needed([None, None], 4) is None
    assert math.isnan(units_needed([3, None], 4).low)


def test_the_same_model_twice_is_one_model():
    one, other = Lookup((2, 5)), Lookup((0, 1))
    with pytest.warns(ValidityWarning, match="2 of 4 models are equal to an earlier one"):
        found = features(task_of(Lookup), [one, one, copy.deepcopy(one), other], device="cpu")
    assert len(found.runs) == found.needed.n == 2


def test_equally_important_units_keep_their_order_and_no_number_comes_last():
    assert by_importance(torch.tensor([0.0, math.nan, 2.0, 0.0])) == [2, 0, 3, 1]


def pictures(n=40):
    return normal(n, 1, 6, 6, seed=3), torch.arange(n) % 2


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2)
    )


class FunctionalCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(12, 2)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv(x)), 2)
        return self.head(x.view(len(x), -1))


@pytest.mark.parametrize("made", [small_cnn, FunctionalCNN])
def test_flattened_channels_are_units_with_their_places(made):
    cut = cut_of(task_of(made, *pictures()))
    assert (cut.site.units, cut.site.places) == (3, 4)
    outputs = []
    handle = cut.module.register_forward_pre_hook(lambda m, args: outputs.append(args[0]))
    cut.objective.module(pictures()[0])
    handle.remove()
    held = outputs[0].view(40, 3, 4).double()
    assert torch.allclose(cut.said, held.mean(-1))
    assert torch.allclose(cut.means, held.mean((0, 2)))


def test_a_channel_is_held_at_its_mean_at_all_its_places():
    task = task_of(small_cnn, *pictures())
    cut = cut_of(task)
    x, y = pictures()
    body, head = cut.objective.module[:4], cut.objective.module[4]
    said = body(x).view(40, 3, 4).clone()
    said[:, 1] = said[:, 1].mean()
    expected = functional.cross_entropy(head(said.flatten(1)), y).item()
    assert cut.answer(some(0, 2, of=3))[0] == pytest.approx(expected, abs=1e-6)


def test_the_layer_can_be_named():
    task = task_of(small_cnn, *pictures())
    named, usual = cut_of(task, layer="2"), cut_of(task)
    assert (named.site.units, named.site.side, named.short) == (3, "output", False)
    for kept in (some(1, of=3), some(of=3)):
        assert named.answer(kept) == pytest.approx(usual.answer(kept), abs=1e-6)


def test_a_network_without_hidden_units_is_told_so():
    task = task_of(lambda: nn.Linear(4, 2))
    assert Reader(prepare(task, device="cpu")).site is None
    with pytest.raises(InvalidValueError, match="networks with hidden units"):
        features(task, nn.Linear(4, 2), device="cpu")


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


def test_the_hidden_units_of_a_recurrent_layer_feed_its_head():
    cut = cut_of(task_of(Recurrent, normal(40, 7, 2, seed=2), torch.arange(40) % 2))
    assert (cut.site.units, cut.short) == (5, True)
    last = cut.objective.module.gru(cut.data.batches[0][0])[0][:, -1]
    assert torch.allclose(cut.said, last.double())


def test_a_convolution_that_ends_the_network_is_fed_by_channels():
    def made():
        return nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.ReLU(),
            nn.Conv2d(3, 2, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    cut = cut_of(task_of(made, *pictures()))
    assert (cut.site.module, cut.site.axis, cut.site.units, cut.short) == ("2", 1, 3, False)
    whole = cut.answer(some(0, 1, 2, of=3))[0]
    x, y = pictures()
    expected = functional.cross_entropy(cut.objective.module(x), y).item()
    assert whole == pytest.approx(expected, abs=1e-6)


def test_a_training_step_with_weights_is_measured_too():
    def step(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1])

    task = task_of(loss=None, training_step=step, forward=lambda m, b: m(b[0]))
    cut, usual = cut_of(task), cut_of(task_of())
    assert not cut.short
    assert cut.answer(some(0, 4)) == pytest.approx(usual.answer(some(0, 4)), abs=1e-6)


def test_weights_of_examples_count():
    weighted = task_of(weight=lambda batch: 1.0 + batch[1])
    cut = cut_of(weighted)
    said = torch.tanh(cut.objective.module[0](X)).mean(0).expand(90, -1)
    each = functional.cross_entropy(cut.objective.module[2](said), LABELS, reduction="none")
    weights = 1.0 + LABELS
    assert cut.answer(some())[0] == pytest.approx(
        ((each * weights).sum() / weights.sum()).item(), abs=1e-6
    )


def test_more_examples_than_asked_for_are_not_read():
    cut = cut_of(task_of(), examples=20)
    assert cut.data.examples == 20
    assert cut.data.index.tolist() == [i * 90 // 20 for i in range(20)]
    assert len(cut.said) == 20


def test_the_examples_shown_are_those_that_excite_a_unit_most():
    found = features(task_of(), net(), device="cpu")
    said = torch.tanh(net()[0](X)).double()
    for unit in found.sheet:
        order = torch.argsort(said[:, unit.unit], descending=True)[:3]
        assert unit.examples == tuple(order.tolist())
        assert unit.values == pytest.approx(said[order, unit.unit].tolist(), abs=1e-6)


def test_a_table_shows_the_weights_of_its_columns():
    found = features(task_of(Lookup), Lookup(), columns=list("abcd"), device="cpu")
    assert found.kind == "table"
    best = next(unit for unit in found.sheet if unit.unit == 2)
    assert best.columns[0].name == "a"
    assert best.columns[0].weight == pytest.approx(X[:, 0].std(correction=0).item(), rel=1e-5)
    assert [abs(c.weight) for c in best.columns] == sorted(
        (abs(c.weight) for c in best.columns), reverse=True
    )


def test_a_task_may_name_its_columns():
    found = features(replace(task_of(Lookup), columns=tuple("wxyz")), Lookup(), device="cpu")
    assert {c.name for unit in found.sheet for c in unit.columns} == set("wxyz")
    without = features(task_of(Lookup), Lookup(), device="cpu")
    assert without.sheet[0].columns[0].name.startswith("column ")


def test_names_of_columns_are_checked_before_anything_is_measured():
    with pytest.raises(InvalidValueError, match="`columns` must be 4 names"):
        Reader(prepare(replace(task_of(Lookup), columns=("a",)), device="cpu"))
    named = replace(task_of(small_cnn, *pictures()), columns=("a",))
    with pytest.raises(InvalidValueError, match="`columns` must be left out for this task"):
        Reader(prepare(named, device="cpu"))


def opened(address):
    head, _, content = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_pictures_show_the_examples_and_what_in_them_raises_the_unit():
    x, y = pictures()
    found = features(task_of(small_cnn, x, y), small_cnn(), device="cpu")
    assert found.kind == "image"
    unit = found.sheet[0]
    assert opened(unit.pictures[0]).shape == (6, 6, 3)
    assert len(unit.pictures) == 3
    assert opened(unit.saliency).shape == (6, 6, 3)
    shown = opened(unit.pictures[0])[:, :, 0].astype(float)
    example = x[unit.examples[0], 0].numpy()
    assert np.corrcoef(shown.ravel(), example.ravel())[0, 1] > 0.999


def test_pictures_of_whole_numbers_are_shown_as_they_are():
    x = torch.randint(0, 256, (40, 3, 6, 6), dtype=torch.uint8)

    class Bytes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(108, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(torch.relu(self.first(x.flatten(1).float() / 255)))

    found = features(task_of(Bytes, x, torch.arange(40) % 2), Bytes(), device="cpu")
    assert found.kind == "image"
    unit = found.sheet[0]
    expected = x[unit.examples[0]].permute(1, 2, 0).numpy()
    assert np.array_equal(opened(unit.pictures[0]), expected)


def test_heat_is_orange_above_nothing_and_blue_below():
    shown = opened(heat(torch.tensor([[2.0, 0.0], [-2.0, 1.0]])))
    assert shown[0, 0].tolist() == [213, 94, 0]
    assert shown[0, 1].tolist() == [255, 255, 255]
    assert shown[1, 0].tolist() == [0, 114, 178]
    assert opened(photograph(torch.zeros(1, 64, 32))).shape == (32, 16, 3)


def test_the_saliency_of_a_first_layers_unit_is_its_weights():
    made = lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Linear(3, 2))  # noqa: E731
    cut = cut_of(task_of(made, *pictures()))
    _, grad = gradient(cut, 0, cut.data.batches[0], unit=1)
    weights = cut.objective.module[1].weight[1].view(1, 6, 6)
    assert torch.allclose(grad, weights.expand(40, -1, -1, -1))


@pytest.mark.parametrize("time_first", [True, False])
def test_the_segment_of_a_signal_is_where_the_unit_looks(time_first):
    class Window(nn.Module):
        """Its first unit reads steps 12 to 14 of the second channel, and nothing else."""

        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(60, 2), nn.Linear(2, 2)
            with torch.no_grad():
                self.first.weight.zero_()
                self.first.weight.view(2, 30, 2)[0, 12:15, 1] = 1.0
                self.last.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))

        def forward(self, x):
            return self.last(self.first((x if time_first else x.transpose(1, 2)).flatten(1)))

    x = normal(40, 30, 2, seed=8)
    y = (x[:, 12:15, 1].sum(1) < 0).long()
    x = x if time_first else x.transpose(1, 2).contiguous()
    found = features(task_of(Window, x, y), Window(), device="cpu")
    assert (found.kind, found.runs[0].needed) == ("signal", 1)
    unit = found.sheet[0]
    assert (unit.unit, unit.segment, unit.steps) == (0, (12, 15), 30)
    example = x[unit.examples[0]]
    series = example[:, 1] if time_first else example[1]
    assert unit.signal == pytest.approx(series.tolist())


def test_a_segment_is_a_tenth_of_the_signal_around_the_largest_share():
    x, slopes = torch.zeros(30, 1), torch.ones(30, 1)
    x[25] = 9.0
    begin, end, channel = segment(x, slopes)
    assert end - begin == 3
    assert begin <= 25 < end
    assert channel == 0


def test_words_have_no_pictures_and_are_measured_all_the_same():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.table(x).mean(1))

    words = torch.randint(0, 9, (40, 5), generator=torch.Generator().manual_seed(0))
    found = features(task_of(Words, words, torch.arange(40) % 2), Words(), device="cpu")
    assert (found.kind, found.units) == ("none", 6)
    assert len(found.sheet[0].examples) == 3


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
        self.head = nn.Linear(6, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.head(self.body(x))


@pytest.mark.wrong_type  # the check of types draws at random
def test_it_leaves_no_trace():
    model = Noisy().train()
    model.body[1].eval()
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    generators = _random.global_state()
    task = task_of(Noisy)
    first = features(task, model, device="cpu")
    assert _random.global_state() == generators
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    # As plain values: no NaN equals another.
    assert to_plain(features(task, model, device="cpu")) == to_plain(first)


def test_the_record_survives_being_written_down():
    found = features(task_of(Lookup), [Lookup(), Lookup((0,))], device="cpu")
    assert to_plain(from_plain(Features, to_plain(found))) == to_plain(found)


def test_buffers_of_the_users_model_are_used():
    def made():
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))

    model = made()
    model(5 * X + 3)  # moves the running means
    found = features(task_of(made), model, device="cpu")
    expected = model.eval()(X)
    whole = (expected.argmax(1) == LABELS).double().mean().item()
    assert found.runs[0].metric[-1] == pytest.approx(whole)


def test_the_order_comes_from_training_examples_and_the_metric_from_validation():
    """A unit that matters for training examples only comes first, and helps nothing."""
    x = torch.cat([normal(60, 4, seed=4), torch.zeros(40, 4)])
    x[60:, 1] = normal(40, seed=5)
    x[:60, 1] = 0.0
    x[:, 0] += 0.5  # no prediction is a tie, with this unit or with its mean
    y = (x[:, 0] + x[:, 1] > 0).long()
    task = Task(
        Lookup, (x[:60], y[:60]), validation=(x[60:], y[60:]), loss=loss, metric="accuracy"
    )
    found = features(task, Lookup(), device="cpu")
    assert found.sheet[0].unit == 2  # reads the first input, constant in validation
    assert found.runs[0].metric[1] == found.runs[0].metric[0]
    assert found.runs[0].needed > 1


def test_the_probe_records_the_units_needed_during_training():
    prepared = prepare(task_of(Lookup), device="cpu")
    config = prepared.baseline.replace(samples=100, batch_size=10, learning_rate=1e-9)
    job = Job((0, 100), features_probe(prepared, config, examples=90), (0, 100))
    with Engine(prepared, None, workers=0) as engine:
        trace, _ = engine.train([config], job)
    series = trace.runs[0].series
    assert series["features.needed"].values.tolist() == [2, 2]
    assert series["features.units"].values.tolist() == [6, 6]
    with pytest.raises(InvalidValueError, match="at least 16"):
        features_probe(prepared, config, examples=3)


@pytest.mark.wrong_type
@pytest.mark.parametrize(
    ("models", "options", "error", "words"),
    [
        ([], {}, InvalidValueError, "one trained model or more"),
        ("model", {}, InvalidTypeError, r"torch\.nn\.Module"),
        (nn.Linear(4, 2), {}, InvalidValueError, "trained models of the task"),
        (Lookup(), {"layer": "third"}, InvalidValueError, "`layer` must be one of first, last"),
        (Lookup(), {"columns": ["a"]}, InvalidValueError, "`columns` must be 4 names"),
        (Lookup(), {"draws": 0}, InvalidValueError, "`draws` must be"),
        (Lookup(), {"examples": 3}, InvalidValueError, "`examples` must be"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(models, options, error, words):
    with pytest.raises(error, match=words) as told:
        features(task_of(Lookup), models, device="cpu", **options)
    assert "\n" not in str(told.value)


def test_a_recipe_in_bfloat16_is_measured_in_it():
    task = replace(task_of(), baseline=RunConfig(precision="bfloat16"))
    cut = cut_of(task, precision="bfloat16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = functional.cross_entropy(cut.objective.module(X), LABELS).item()
    assert cut.answer(some(*range(5)))[0] == pytest.approx(expected, rel=1e-2)


def test_batches_are_read_once_and_kept():
    prepared = prepare(task_of(), device="cpu")
    kept = Batches.of(prepared.validation, 1000, "cpu", torch.float32)
    objective = prepared.objective(0).eval()
    site = site_of(objective, kept.batches[0])
    cut = Cut(objective, site, kept, prepared.metric)
    assert cut.answer(some(1)) == cut.answer(some(1))
