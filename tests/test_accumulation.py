"""Accumulation equals the whole batch, and a lack of memory changes nothing but the cut."""

import itertools
import math
import warnings
import weakref
from collections import UserDict

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from batchlab import _random
from batchlab.accumulation import Accumulator, cut, examples, identity, share, windows
from batchlab.errors import InvalidTypeError, InvalidValueError, ValidityWarning
from tests.together import together

EXAMPLES, TOKENS = 23, 4


def data(seed=0):
    """Sequences of which different numbers of tokens count; of some, none."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, TOKENS, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(EXAMPLES, TOKENS, generator=generator, dtype=torch.float64)
    kept = torch.randint(0, TOKENS + 1, (EXAMPLES, 1), generator=generator)
    return {"x": x, "y": y, "mask": (torch.arange(TOKENS) < kept).double()}


def network(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), *middle, nn.Linear(5, 1)).double()


def token_losses(model, batch):
    return (model(batch["x"])[..., 0] - batch["y"]).square()


def by_example(model, batch):
    """Each example's mean over its tokens."""
    total = (token_losses(model, batch) * batch["mask"]).sum(1)
    return total / batch["mask"].sum(1).clamp(min=1)


def summed(model, batch):
    return (token_losses(model, batch) * batch["mask"]).sum()


def averaged(model, batch):
    return summed(model, batch) / batch["mask"].sum()


def tokens(batch):
    return batch["mask"].sum()


def tokens_of_each(batch):
    return batch["mask"].sum(1)


WAYS = {
    "losses of examples": (by_example, {"weight": tokens_of_each}),
    "losses of tokens": (token_losses, {"weight": lambda batch: batch["mask"]}),
    "a sum": (summed, {"weight": tokens, "reduction": "sum"}),
    "a mean": (averaged, {"weight": tokens, "reduction": "mean"}),
}
"""The same loss Σwℓ/Σw, as users may write it."""


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def expected(batch, model):
    """The gradient of the whole batch, with nothing of the package."""
    model.zero_grad()
    averaged(model, batch).backward()
    found = gradients(model)
    model.zero_grad()
    return found


def difference(found, wanted):
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))


def pieces(batch, edges):
    ends = [0, *edges, EXAMPLES]
    return [{k: v[a:b] for k, v in batch.items()} for a, b in itertools.pairwise(ends)]


# The whole batch


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [1, 7, 22, 23, 100])
def test_a_batch_that_is_cut_has_the_gradient_of_the_whole(way, size):
    model, batch = network(), data()
    loss, options = WAYS[way]
    wanted = expected(batch, model)
    mean = Accumulator(model, loss, micro_batch_size=size, **options)(batch)
    assert difference(gradients(model), wanted) < 1e-12
    assert abs(float(mean - averaged(model, batch).detach())) < 1e-12


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("edges", [[], [1], [20], [5, 6, 7, 19]])
def test_unequal_micro_batches_have_the_gradient_of_the_whole(way, edges):
    model, batch = network(), data()
    loss, options = WAYS[way]
    wanted = expected(batch, model)
    Accumulator(model, loss, **options)(*pieces(batch, edges))
    assert difference(gradients(model), wanted) < 1e-12


@pytest.mark.parametrize(
    ("loss", "reduction"),
    [
        (by_example, "none"),
        (lambda model, batch: by_example(model, batch).mean(), "mean"),
        (lambda model, batch: by_example(model, batch).sum(), "sum"),
    ],
)
def test_without_weights_every_example_counts_once(loss, reduction):
    model, batch = network(), data()
    by_example(model, batch).mean().backward()
    wanted = gradients(model)
    model.zero_grad()
    Accumulator(model, loss, micro_batch_size=4, reduction=reduction)(batch)
    assert difference(gradients(model), wanted) < 1e-12


@pytest.mark.parametrize("divisor", ["micro-batches of a full window", "micro-batches"])
def test_dividing_by_a_number_of_micro_batches_would_not_pass(divisor):
    model, parts = network(), pieces(data(), [8, 16])
    wanted = expected(data(), model)
    count = {"micro-batches of a full window": 4, "micro-batches": len(parts)}[divisor]
    for part in parts:
        (averaged(model, part) / count).backward()
    assert difference(gradients(model), wanted) > 1e-3


def test_the_last_short_window_of_an_epoch_is_exact():
    x, y = data()["x"][:, 0], data()["y"][:, 0]
    loader = DataLoader(TensorDataset(x, y), batch_size=4)  # 4 4 4 4 4 3
    model = network()
    accumulate = Accumulator(model, lambda m, b: (m(b[0])[:, 0] - b[1]).square())
    sizes = []
    for window in windows(loader, 4):
        model.zero_grad()
        accumulate(*window)
        sizes.append([len(batch[0]) for batch in window])
    assert sizes == [[4, 4, 4, 4], [4, 3]]
    found = gradients(model)
    model.zero_grad()
    (model(x[16:])[:, 0] - y[16:]).square().mean().backward()
    assert difference(found, gradients(model)) < 1e-12


def test_a_micro_batch_without_tokens_adds_nothing():
    model, batch = network(), data()
    batch["mask"][:4] = 0
    wanted = expected(batch, model)
    loss, options = WAYS["a mean"]
    assert math.isnan(loss(model, pieces(batch, [4])[0]).item())
    Accumulator(model, loss, **options)(*pieces(batch, [4]))
    assert difference(gradients(model), wanted) < 1e-12


def test_gradients_are_added_like_those_of_backward():
    model, batch = network(), data()
    wanted = [3 * g for g in expected(batch, model)]
    loss, options = WAYS["a sum"]
    for recover in (False, True, False):
        Accumulator(model, loss, micro_batch_size=5, recover=recover, **options)(batch)
    assert difference(gradients(model), wanted) < 1e-12


def test_the_formula_is_the_one_the_printed_loop_calls():
    losses, weights = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert float(share(losses, weights, 22)) == 0.5


# Mixed precision


def half(model, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return by_example(model, batch)


def test_autocast_around_the_call_is_autocast_in_the_loss():
    batch = {k: v.float() for k, v in data().items()}
    inside, around = network().float(), network().float()
    Accumulator(inside, half, micro_batch_size=5)(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        Accumulator(around, by_example, micro_batch_size=5)(batch)
    assert difference(gradients(inside), gradients(around)) == 0
    exact = network().float()
    Accumulator(exact, by_example, micro_batch_size=5)(batch)
    assert 0 < difference(gradients(inside), gradients(exact)) < 0.05


def test_the_mean_loss_of_bfloat16_losses_is_wide():
    model = nn.Linear(1, 1, dtype=torch.bfloat16)
    accumulate = Accumulator(model, lambda m, b: m(b)[:, 0] * 0 + 1, micro_batch_size=1)
    mean = accumulate(torch.ones(300, 1).bfloat16())
    assert float(mean) == pytest.approx(1, abs=1e-6)
    assert mean.dtype == torch.float32


def test_a_gradient_scaler_scales_what_it_then_takes_back():
    batch = {k: v.float() for k, v in data().items()}
    model, scaled = network().float(), network().float()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    Accumulator(model, by_example, micro_batch_size=5)(batch)
    Accumulator(scaled, by_example, micro_batch_size=5, scaler=scaler)(batch)
    assert difference(gradients(scaled), [1024 * g for g in gradients(model)]) == 0
    optimizer = torch.optim.SGD(scaled.parameters(), lr=0.1)
    scaler.unscale_(optimizer)
    assert difference(gradients(scaled), gradients(model)) == 0


# Batch norm


class Frozen(nn.BatchNorm1d):
    """As torchvision's: it is never in training mode."""

    def train(self, mode=True):
        return super().train(False)


class Channels(nn.Module):
    """A layer on the middle axis, so that every kind of norm can stand there."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


def warned(model, micro_batch_size=5, calls=3):
    """The texts of the warnings of several calls."""
    accumulate = Accumulator(model, by_example, micro_batch_size=micro_batch_size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(calls):
            accumulate(data())
    return [str(w.message) for w in caught if w.category is ValidityWarning]


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm1d(5), nn.BatchNorm1d(5, track_running_stats=False).eval()]
)
def test_batch_norm_is_warned_about_once(layer):
    model = network(Channels(layer))
    (said,) = warned(model)
    assert "`2.layer`" in said
    assert "of each micro-batch, not of the whole batch" in said


@pytest.mark.parametrize(
    "layer",
    [Frozen(5), nn.GroupNorm(5, 5), nn.InstanceNorm1d(5), nn.Identity()],
    ids=lambda layer: type(layer).__name__,
)
def test_other_norms_are_not_warned_about(layer):
    assert warned(network(Channels(layer)).train()) == []


def test_batch_norm_in_evaluation_mode_is_exact_and_not_warned_about():
    model, batch = network(Channels(nn.BatchNorm1d(5))).eval(), data()
    assert warned(model) == []
    wanted = expected(batch, model)
    loss, options = WAYS["a mean"]
    Accumulator(model, loss, micro_batch_size=5, **options)(batch)
    assert difference(gradients(model), wanted) < 1e-12


def test_batch_norm_without_accumulation_is_not_warned_about():
    assert warned(network(Channels(nn.BatchNorm1d(5))), micro_batch_size=EXAMPLES) == []


# Cutting


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 9, 30])
@pytest.mark.parametrize("count", [0, 1, 8, 9, 17])
def test_a_cut_is_complete_even_and_no_longer_than_needed(count, size):
    parts = cut(torch.arange(count), size)
    lengths = [len(part) for part in parts]
    assert torch.cat([torch.arange(0), *parts]).tolist() == list(range(count))
    assert len(parts) == math.ceil(count / size)
    assert max(lengths, default=0) <= size
    assert max(lengths, default=0) - min(lengths, default=0) <= 1
    assert lengths == sorted(lengths, reverse=True)


class Encoding(UserDict):
    """As a tokenizer gives: a dictionary that is none, with names as attributes."""

    def __getattr__(self, name):
        return self.data[name]


def test_what_a_tokenizer_gives_keeps_its_kind():
    parts = cut(Encoding({"ids": torch.arange(5)}), 3)
    assert [type(part) for part in parts] == [Encoding, Encoding]
    assert parts[1].ids.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ({"x": torch.ones(3), "names": ["a", "b", "c"]}, "str"),
        ({"x": torch.ones(3), "scale": torch.tensor(2.0)}, r"a tensor \[\]"),
        ((torch.ones(3), torch.ones(2)), r"a tensor \[3\], a tensor \[2\]"),
        ((), "nothing"),
    ],
)
def test_what_cannot_be_counted_is_refused(batch, found):
    with pytest.raises(InvalidTypeError, match=f"`batch` must be made of tensors.*{found}"):
        examples(batch)


def test_a_batch_of_any_kind_passes_where_nothing_is_cut():
    model = nn.Linear(1, 1)
    batch = {"x": torch.ones(2, 1), "names": ["a", "b"]}
    accumulate = Accumulator(model, lambda m, b: m(b["x"])[:, 0], weight=lambda b: torch.ones(2))
    accumulate(batch)
    assert model.weight.grad.item() == 1


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((256, 64), "256 = 64 × 4 × 1"),
        ((251, 84, 1), "251 = 84 × 3 × 1 − 1"),
        ((8, 4, 2), "× 1 × 2"),
    ],
)
def test_the_identity_is_an_equation(sizes, said):
    text = identity(*sizes)
    assert said in text
    left, right = text.split(" (")[0].split(" = ")
    assert int(left) == eval(right.replace("×", "*").replace("−", "-"))


# Refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"micro_batch_size": 0}, "`micro_batch_size` must be at least 1"),
        ({"reduction": "average"}, "`reduction` must be one of none, mean, sum"),
    ],
)
@pytest.mark.wrong_type
def test_impossible_settings_are_refused(options, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        Accumulator(network(), by_example, **options)


@pytest.mark.wrong_type
@pytest.mark.parametrize(
    ("loss", "options", "sentence"),
    [
        (averaged, {}, r"one for each example.*a tensor \[\].*`reduction='mean'`"),
        (token_losses, {}, r"one for each example.*a tensor \[23, 4\]"),
        (token_losses, {"weight": tokens_of_each}, "of the shape of the weights"),
        (by_example, {"reduction": "mean"}, r"a scalar tensor, the mean.*a tensor \[23\]"),
        (lambda m, b: 1.0, {"reduction": "sum"}, "a scalar tensor, the sum.*got 'float'"),
    ],
)
def test_a_loss_of_another_shape_is_refused(loss, options, sentence):
    with pytest.raises(InvalidTypeError, match=f"`loss` must be {sentence}"):
        Accumulator(network(), loss, **options)(data())


@pytest.mark.parametrize("weight", [lambda b: 0.0, lambda b: float("nan")])
def test_a_window_without_weight_is_refused(weight):
    accumulate = Accumulator(network(), averaged, reduction="mean", weight=weight)
    with pytest.raises(InvalidValueError, match="`weight` must be above 0 in sum over a window"):
        accumulate(data())


def test_a_window_of_no_micro_batches_is_refused():
    with pytest.raises(InvalidValueError, match="`count` must be at least 1"):
        windows([], 0)


def test_a_sharded_model_is_refused():
    class FSDPModule(nn.Linear):
        pass

    with pytest.raises(InvalidTypeError, match="`model` must be whole in every process"):
        Accumulator(nn.Sequential(FSDPModule(1, 1)), by_example)


# Lack of memory


class Tight(nn.Module):
    """Raises above a number of examples, where and how a test asks for."""

    def __init__(self, inner, limit, error=None):
        super().__init__()
        self.inner, self.limit = inner, limit
        self.error = error or RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def forward(self, x):
        found = self.inner(x)
        if len(x) > self.limit:
            raise self.error
        return found


def train(limit, micro_batch_size, *, recover=True, steps=3, error=None):
    """Some updates of a model with dropout and batch norm."""
    inner = network(Channels(nn.BatchNorm1d(5)), nn.Dropout(0.3))
    model = Tight(inner, limit, error)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    said = []
    accumulate = Accumulator(
        model, by_example, micro_batch_size=micro_batch_size, recover=recover, said=said.append
    )
    with _random.seeded(0, "test"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)
        means = []
        for seed in range(steps):
            optimizer.zero_grad()
            means.append(float(accumulate(data(seed))))
            optimizer.step()
    return inner.state_dict(), means, accumulate, said


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
    ],
)
def test_after_a_lack_of_memory_training_is_as_if_it_had_been_cut_so_from_the_start(error):
    state, means, accumulate, said = train(limit=6, micro_batch_size=23, error=error)
    wanted, wanted_means, without, _ = train(limit=99, micro_batch_size=6)
    assert means == wanted_means
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert [(h.window, h.before, h.after) for h in accumulate.halvings] == [
        (1, 23, 12),
        (1, 12, 6),
    ]
    assert said == [str(h) for h in accumulate.halvings]
    assert without.halvings == ()


def test_a_lack_of_memory_in_the_third_micro_batch_redoes_its_window_only():
    model, sizes = network(), []
    wanted = expected(data(), model)

    def loss(model, batch):
        sizes.append(len(batch["x"]))
        if len(sizes) == 3:
            raise MemoryError("the third")
        return summed(model, batch)

    options = {"weight": tokens, "reduction": "sum", "recover": True, "said": print}
    accumulate = Accumulator(model, loss, micro_batch_size=8, **options)
    accumulate(data())
    assert sizes == [8, 8, 7, 4, 4, 4, 4, 4, 3]
    assert difference(gradients(model), wanted) < 1e-12


def test_without_a_listener_a_warning_says_it():
    model = Tight(network(), 12)
    accumulate = Accumulator(model, by_example, recover=True)
    with pytest.warns(
        RuntimeWarning, match=r"Window 1: memory ran out with micro-batches of 23 .*"
    ):
        accumulate(data())
    assert accumulate.micro_batch_size == 12


def test_a_batch_smaller_than_the_micro_batch_size_halves_from_what_was_tried():
    accumulate = Accumulator(
        Tight(network(), 12), by_example, micro_batch_size=4096, recover=True, said=print
    )
    accumulate(data())
    assert accumulate.micro_batch_size == 12
    assert len(accumulate.halvings) == 1


def test_gradients_from_before_outlive_a_lack_of_memory():
    model = network()
    wanted = [2 * g for g in expected(data(), model)]
    loss, options = WAYS["a mean"]
    Accumulator(model, loss, **options)(data())
    tight = Tight(model, 4)
    Accumulator(tight, loss, recover=True, said=print, **options)(data())
    assert difference(gradients(model), wanted) < 1e-12


def test_the_memory_of_a_failed_try_is_free_before_the_next():
    alive, seen = [], []

    def loss(model, batch):
        seen.append([ref() is not None for ref in alive])
        big = torch.zeros(10)
        alive.append(weakref.ref(big))
        if len(batch["x"]) > 12:
            raise MemoryError("no")
        return by_example(model, batch)

    Accumulator(network(), loss, recover=True, said=print)(data())
    assert seen == [[], [False], [False, False]]


def test_what_never_fits_is_raised():
    accumulate = Accumulator(Tight(network(), 0), by_example, recover=True, said=print)
    with pytest.raises(torch.OutOfMemoryError, match="Not even a micro-batch of 1 fits"):
        accumulate(data())


@pytest.mark.parametrize("recover", [False, True])
@pytest.mark.parametrize(
    "error", [ValueError("mine"), RuntimeError("CUDA error: invalid configuration argument")]
)
def test_another_error_is_raised_as_it_is(error, recover):
    model = Tight(network(), 12, error)
    accumulate = Accumulator(model, by_example, recover=recover)
    with pytest.raises(type(error), match=str(error)) as caught:
        accumulate(data())
    assert caught.value is error
    assert accumulate.halvings == ()


def test_another_error_leaves_the_gradients_from_before():
    model = network()
    before = expected(data(), model)
    for p, gradient in zip(model.parameters(), before, strict=True):
        p.grad = gradient.clone()
    accumulate = Accumulator(Tight(model, 0, ValueError("mine")), by_example, recover=True)
    with pytest.raises(ValueError, match="mine"):
        accumulate(data())
    assert difference(gradients(model), before) == 0


def test_without_recover_a_lack_of_memory_is_raised():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        Accumulator(Tight(network(), 4), by_example)(data())


# Two processes

PROGRAM = """
import itertools
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from batchlab.accumulation import Accumulator

COUNTS = {"unequal": (11, 6), "idle": (17, 0)}

def network(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), *middle, nn.Linear(5, 1)).double()

def whole(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(17, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(17, generator=generator, dtype=torch.float64)
    w = torch.randint(1, 9, (17,), generator=generator).double()
    return {"x": x, "y": y, "w": w}

def part_of(batch, counts):
    start = counts[0] if RANK else 0
    return {k: v[start:start + counts[RANK]] for k, v in batch.items()}

def losses(model, batch):
    return (model(batch["x"])[:, 0] - batch["y"]).square()

def averaged(model, batch):
    return (losses(model, batch) * batch["w"]).sum() / batch["w"].sum()

def weight(batch):
    return batch["w"]

def gradients(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]

def difference(found, wanted):
    return max(float((a - b).abs().max()) for a, b in zip(found, wanted, strict=True))

def expected(model, batch):
    model.zero_grad()
    averaged(model, batch).backward()
    found = gradients(model)
    model.zero_grad()
    return found

class Tight:
    # A loss that lacks memory in some processes above some size.
    def __init__(self, limits, error=MemoryError("no"), before=False):
        self.limit, self.error, self.before, self.sizes = limits[RANK], error, before, []
    def __call__(self, model, batch):
        self.sizes.append(len(batch["x"]))
        fails = len(batch["x"]) > self.limit
        if fails and self.before:
            raise self.error
        found = losses(model, batch)
        if fails:
            raise self.error
        return found

def wrapped(*middle, **options):
    inner = network(*middle)
    return inner, DistributedDataParallel(inner, **options)

for recover, (name, counts) in itertools.product((False, True), COUNTS.items()):
    inner, model = wrapped()
    wanted = expected(network(), whole())
    accumulate = Accumulator(model, losses, micro_batch_size=4, weight=weight, recover=recover)
    part = part_of(whole(), counts)
    mean = accumulate(*([part] if counts[RANK] else []))
    FACTS[f"{name} {recover}"] = difference(gradients(inner), wanted)
    FACTS[f"mean {name} {recover}"] = float(mean - averaged(network(), whole()).detach())

inner, model = wrapped()
averaged(model, part_of(whole(), COUNTS["unequal"])).backward()
FACTS["mean of means"] = difference(gradients(inner), expected(network(), whole()))

exchanges = []
inner, model = wrapped()
def hook(state, bucket):
    exchanges.append(1)
    return dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future().then(
        lambda future: future.value()[0])
model.register_comm_hook(None, hook)
Accumulator(model, losses, micro_batch_size=2)(part_of(whole(), (11, 6)))
FACTS["exchanges"] = len(exchanges)

for before in (False, True):
    for limits in ((3, 99), (99, 2), (2, 3)):
        inner, model = wrapped()
        loss, said = Tight(limits, before=before), []
        accumulate = Accumulator(
            model, loss, micro_batch_size=8, weight=weight, recover=True, said=said.append)
        accumulate(part_of(whole(), (11, 6)))
        key = f"{limits} {before}"
        FACTS[f"halved {key}"] = [(h.before, h.after) for h in accumulate.halvings]
        FACTS[f"said {key}"] = len(said)
        FACTS[f"gradient {key}"] = difference(gradients(inner), expected(network(), whole()))

def attempt(*arguments, **options):
    try:
        Accumulator(*arguments, recover=True, said=print, **options)(part_of(whole(), (11, 6)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"

FACTS["other error"] = attempt(wrapped()[1], Tight((99, 1), ValueError("mine")))
FACTS["weight error"] = attempt(
    wrapped()[1], losses, weight=weight if RANK else lambda batch: 1 / 0)
FACTS["never fits"] = attempt(wrapped()[1], Tight((99, 0)))
# The wrapper refuses this layer on the CPU, so it comes in afterwards.
inner, model = wrapped()
inner.append(nn.SyncBatchNorm(1))
FACTS["talking layer"] = attempt(model, losses)

class Branches(nn.Module):
    # Each process uses its own branch; nobody uses the third.
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList(nn.Linear(3, 1).double() for _ in range(3))
    def forward(self, x):
        return self.branches[RANK](x)

inner = Branches()
model = DistributedDataParallel(inner)
Accumulator(model, losses, micro_batch_size=4, recover=True)(part_of(whole(), (11, 6)))
FACTS["own branches"] = [None if g is None else float(g.abs().sum()) for g in gradients(inner)]

for recover in (False, True):
    inner, model = wrapped(nn.BatchNorm1d(5).double())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    accumulate = Accumulator(model, losses, weight=weight, recover=recover)
    for seed in range(3):
        optimizer.zero_grad()
        accumulate(part_of(whole(seed), (11, 6)))
        optimizer.step()
    with torch.no_grad():
        inner.eval()
        FACTS[f"after {recover}"] = [float(v.double().sum()) for v in inner.state_dict().values()]

inner, model = wrapped()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
alone = network()
reference = torch.optim.Adam(alone.parameters(), lr=0.01)
accumulate = Accumulator(
    model, Tight((3, 99)), weight=weight, micro_batch_size=8, recover=True, said=print)
for seed in range(3):
    optimizer.zero_grad()
    accumulate(part_of(whole(seed), (11, 6)))
    optimizer.step()
    reference.zero_grad()
    averaged(alone, whole(seed)).backward()
    reference.step()
FACTS["trained"] = difference(inner.parameters(), list(alone.parameters()))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """What two processes found out; one that waits for ever is a failure."""
    return together(PROGRAM, tmp_path_factory.mktemp("together"))


def both(facts, name):
    return [fact[name] for fact in facts]


@pytest.mark.parametrize("recover", [False, True])
@pytest.mark.parametrize("shares", ["unequal", "idle"])
def test_the_shares_of_two_processes_have_the_gradient_of_the_whole(facts, shares, recover):
    assert max(both(facts, f"{shares} {recover}")) < 1e-12
    assert max(map(abs, both(facts, f"mean {shares} {recover}"))) < 1e-12


def test_the_mean_over_processes_would_not_pass(facts):
    assert min(both(facts, "mean of means")) > 1e-3


def test_gradients_are_exchanged_once_per_window(facts):
    assert both(facts, "exchanges") == [1, 1]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("limits", "halvings"),
    [
        ((3, 99), [[6, 3]]),
        ((99, 2), [[6, 3], [3, 2]]),
        ((2, 3), [[6, 3], [3, 2]]),
    ],
)
def test_where_one_process_lacks_memory_all_halve(facts, limits, halvings, before):
    key = f"{limits} {before}"
    assert both(facts, f"halved {key}") == [halvings, halvings]
    assert both(facts, f"said {key}") == [len(halvings), 0]
    assert max(both(facts, f"gradient {key}")) < 1e-12


def test_where_one_process_fails_otherwise_all_stop(facts):
    elsewhere = "TaskError: Another process of this training failed; it says why."
    assert both(facts, "other error") == [elsewhere, "ValueError: mine"]
    assert both(facts, "weight error") == ["ZeroDivisionError: division by zero", elsewhere]


def test_where_one_example_does_not_fit_in_one_process_all_stop(facts):
    here, there = both(facts, "never fits")
    assert here == "OutOfMemoryError: Not even a micro-batch of 1 fits: in another process."
    assert there == "OutOfMemoryError: Not even a micro-batch of 1 fits: MemoryError: no."


def test_layers_that_talk_are_refused_where_a_process_may_fail(facts):
    for said in both(facts, "talking layer"):
        assert said.startswith("InvalidTypeError: `model` must be without SyncBatchNorm")


def test_a_parameter_that_one_process_uses_has_a_gradient_in_all(facts):
    here, there = both(facts, "own branches")
    assert here == there
    assert [g is None for g in here] == [False] * 4 + [True] * 2


@pytest.mark.parametrize("recover", [False, True])
def test_the_processes_stay_together(facts, recover):
    here, there = both(facts, f"after {recover}")
    parameters = slice(0, 4)
    assert here[parameters] == there[parameters]


def test_buffers_are_the_first_processs_as_without_recovery(facts):
    here, there = both(facts, "after True")
    assert here == there


def test_training_with_a_lack_of_memory_is_training_on_the_whole_batch(facts):
    assert max(both(facts, "trained")) < 1e-12


def test_the_share_of_a_batch_in_which_nothing_counts_is_0_with_gradient_0():
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    part = share(losses, torch.zeros(2), torch.zeros(()))
    part.backward()
    assert part == 0
    assert losses.grad.tolist() == [0.0, 0.0]
    assert share(losses, torch.ones(2), torch.tensor(2.0)) == 1.5
