r"""Nets that differ in γ and in learning rate, from one start on one stream, trained together.

Centred model F = (f_θ(x) − f_θ(0)(x))/γ. f has L linear layers of width N: (Wh + b)/√fan-in and
relu, then (Wh + b)/N; W ~ N(0, 1) and b = 0 at the start. SGD at the rate Nη. Loss: squared error,
mean over batch and outputs, or cross-entropy.

Since gradients are used once and at once, a rate is multiplied into ∂ℓ/∂F, and every layer's
weights are moved in place by one product: R runs as one program, without autograd.

Source: atanasov2025 for the parametrisation; arithmetic proved against autograd by the tests.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from batchlab import _random
from batchlab.errors import InvalidValueError, must
from batchlab.theory.feature_strength import LOSSES, Loss

PURPOSE = "feature strength"
EVERY = 16
"""Updates between two looks at which runs have diverged."""
SHARE = 0.85
"""Runs are moved together once no more than this share of them is left."""
CHUNK = 32
"""Runs that train together: their activations stay in a core's cache."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the runs share.

    Attributes:
        depth: L, linear layers, at least 2.
        width: N, hidden units of a layer.
        inputs: D, standard normal features.
        batch_size: B, examples of an update.
        updates: T.
        loss: ``squared`` or ``cross-entropy``; the labels of the latter are the target's signs.
        momentum: β of heavy ball, v ← βv + g.
        examples: Of a data set that is used again and again, shuffled anew each pass; 0 for fresh
            examples always.
        noise: Standard deviation of what is added to the labels, or share of flipped ones.
        centred: Whether f_θ(0) is subtracted.
        readout: Power of N that the readout is divided by.
        rate: Power of N that the learning rate is multiplied by.
    """

    depth: int
    updates: int
    width: int = 64
    inputs: int = 16
    batch_size: int = 64
    loss: Loss = "squared"
    momentum: float = 0.0
    examples: int = 0
    noise: float = 0.0
    centred: bool = True
    readout: float = 1.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("depth", 2), ("width", 1), ("inputs", 3), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise InvalidValueError(must(name, f"{least} or more", getattr(self, name)))
        if self.loss not in LOSSES:
            raise InvalidValueError(must("loss", f"one of {', '.join(LOSSES)}", self.loss))
        if 0 < self.examples < self.batch_size:
            words = f"0, or at least the batch size {self.batch_size}"
            raise InvalidValueError(must("examples", words, self.examples))

    @property
    def scales(self) -> tuple[float, ...]:
        """What each layer's products are multiplied by."""
        hidden = [self.inputs] + [self.width] * (self.depth - 2)
        return (*(fan**-0.5 for fan in hidden), float(self.width) ** -self.readout)


class Layer(NamedTuple):
    """One linear layer of every run. Shapes ``[R, D, H]`` and ``[R, 1, H]``."""

    weight: Float[Tensor, "R D H"]
    bias: Float[Tensor, "R 1 H"]


Net: TypeAlias = tuple[Layer, ...]


class Stream(NamedTuple):
    """What all runs of a seed see, float64.

    Attributes:
        inputs: Shape ``[T, B, D]``.
        labels: Shape ``[T, B, 1]``.
    """

    inputs: Float[Tensor, "T B D"]
    labels: Float[Tensor, "T B 1"]


def target(inputs: Float[Tensor, "*B D"]) -> Float[Tensor, "*B 1"]:
    """Y = (x₀ + x₁x₂)/√2, of variance 1.

    Example:
        >>> target(torch.tensor([[1.0, 2.0, 3.0]])).round(decimals=2)
        tensor([[4.9500]])
    """
    return ((inputs[..., 0] + inputs[..., 1] * inputs[..., 2]) / math.sqrt(2)).unsqueeze(-1)


def start(setting: Setting, seed: int) -> Net:
    """One net at the start, float64; R = 1."""
    rng = _random.generator(seed, PURPOSE, 0)
    sizes = [setting.inputs] + [setting.width] * (setting.depth - 1) + [1]
    return tuple(
        Layer(
            torch.randn(1, before, after, generator=rng, dtype=torch.float64),
            torch.zeros(1, 1, after, dtype=torch.float64),
        )
        for before, after in itertools.pairwise(sizes)
    )


def stream(setting: Setting, seed: int) -> Stream:
    """The examples of all T updates."""
    rng = _random.generator(seed, PURPOSE, 1)
    T, B = setting.updates, setting.batch_size
    count = setting.examples or T * B
    x = torch.randn(count, setting.inputs, generator=rng, dtype=torch.float64)
    y = labelled(setting, target(x), rng)
    if setting.examples:
        passes = -(-T * B // count)
        order = torch.cat([torch.randperm(count, generator=rng) for _ in range(passes)])
        x, y = x[order[: T * B]], y[order[: T * B]]
    return Stream(x.view(T, B, -1), y.view(T, B, 1))


def labelled(setting: Setting, y: Tensor, rng: torch.Generator) -> Tensor:
    """Labels as the loss wants them, with noise."""
    if setting.loss == "squared":
        return y + setting.noise * torch.randn(y.shape, generator=rng, dtype=y.dtype)
    flipped = torch.rand(y.shape, generator=rng, dtype=y.dtype) < setting.noise
    return ((y > 0) ^ flipped).to(y.dtype)


def probe(setting: Setting, count: int) -> tuple[Tensor, Tensor]:
    """Fixed inputs, shape ``[count, D]``, and labels without noise, the same for all seeds."""
    rng = _random.generator(0, PURPOSE, 2)
    x = torch.randn(count, setting.inputs, generator=rng, dtype=torch.float64)
    y = target(x)
    return x, y if setting.loss == "squared" else (y > 0).to(y.dtype)


# ------------------------------------------------------------------ one update


def forward(net: Net, x: Float[Tensor, "B D"], setting: Setting) -> list[Tensor]:
    """Inputs, hidden activations and f of every run, from the first layer to the last."""
    seen = [x.expand(len(net[0].weight), *x.shape)]
    for i, (layer, scale) in enumerate(zip(net, setting.scales, strict=True)):
        z = torch.baddbmm(layer.bias, seen[-1], layer.weight, beta=scale, alpha=scale)
        seen.append(z.clamp_(min=0) if i + 1 < setting.depth else z)
    return seen


def losses_and_slopes(
    output: Float[Tensor, "R B C"], labels: Float[Tensor, "B C"], loss: Loss
) -> tuple[Float[Tensor, " R"], Float[Tensor, "R B C"]]:
    """Mean loss of each run, and ∂ℓ/∂F.

    Example:
        >>> F, y = torch.tensor([[[3.0], [1.0]]]), torch.tensor([[1.0], [1.0]])
        >>> losses_and_slopes(F, y, "squared")[1].flatten()
        tensor([2., 0.])
    """
    count = labels.numel()
    if loss == "squared":
        error = output - labels
        return error.square().mean((1, 2)), error * (2 / count)
    entropy = torch.nn.functional.softplus(output) - labels * output
    return entropy.mean((1, 2)), (torch.sigmoid(output) - labels) / count


def step(
    net: Net,
    seen: Sequence[Tensor],
    pull: Float[Tensor, "R B C"],
    setting: Setting,
    speed: Net | None = None,
) -> None:
    """Move all weights in place.

    Args:
        net: Weights.
        seen: From :func:`forward`.
        pull: −rate · ∂ℓ/∂f; shape ``[R, B, C]``.
        setting: With momentum β.
        speed: −rate · v of heavy ball, moved too; None without momentum.
    """
    for i in range(setting.depth - 1, -1, -1):
        scale, (weight, bias), h = setting.scales[i], net[i], seen[i]
        below = None
        if i:
            below = torch.bmm(pull, weight.mT).mul_(scale)
            below = torch.ops.aten.threshold_backward(below, h, 0)
        if speed is None:
            weight.baddbmm_(h.mT, pull, alpha=scale)
            bias.add_(pull.sum(1, keepdim=True), alpha=scale)
        else:
            beta = setting.momentum
            weight.add_(speed[i].weight.baddbmm_(h.mT, pull, beta=beta, alpha=scale))
            bias.add_(speed[i].bias.mul_(beta).add_(pull.sum(1, keepdim=True), alpha=scale))
        if below is not None:
            pull = below


def taken(net: Net, rows: Tensor) -> Net:
    """Some runs of a net, copied."""
    return tuple(Layer(*(part[rows] for part in layer)) for layer in net)


# ------------------------------------------------------------------ all of them


class Moment(NamedTuple):
    """Runs that are still alive before an update.

    Attributes:
        update: t, from 0; T at the end.
        runs: Their places. Shape ``[r]``.
        net: Their weights, not to be written to.
    """

    update: int
    runs: Tensor
    net: Net


Watch: TypeAlias = Callable[[Moment], None]


def train(
    setting: Setting,
    seed: int,
    gammas: Sequence[float],
    rates: Sequence[float],
    *,
    watch: Watch | None = None,
    at: Sequence[int] = (),
    chunk: int = CHUNK,
) -> Float[Tensor, "R T"]:
    """Loss of each run before every update, on the batch of that update.

    Runs with γ < 0.01 are trained in float64, others in float32.

    Args:
        setting: What the runs share.
        seed: Name of start and stream.
        gammas: γ, one a run.
        rates: η, one a run; Nη is the rate of SGD.
        watch: Told the weights.
        at: Updates before which it is; T is the end.
        chunk: Runs that train together.

    Returns:
        Float64; NaN from a run's divergence on.

    Raises:
        InvalidValueError: If γ or η is not above 0.

    Example:
        >>> setting = Setting(depth=2, updates=50, width=16)
        >>> losses = train(setting, 0, gammas=[1.0, 1.0], rates=[0.3, 1e6])
        >>> losses.shape, losses[:, -1].isnan().tolist()
        (torch.Size([2, 50]), [False, True])
    """
    for name, given in (("gammas", gammas), ("rates", rates)):
        if not all(0 < each < math.inf for each in given):
            raise InvalidValueError(must(name, "finite and above 0", list(given)))
    begin, data = start(setting, seed), stream(setting, seed)
    zero = _constant(begin, data, setting)
    losses = torch.full((len(gammas), setting.updates), math.nan, dtype=torch.float64)
    for kind, runs in _kinds(gammas):
        net, shown = _as(begin, kind), Stream(*(part.to(kind) for part in data))
        for some in runs.split(chunk):
            numbers = torch.tensor(gammas, dtype=kind)[some], torch.tensor(rates, dtype=kind)[some]
            part = _Part(setting, net, shown, zero.to(kind), some, *numbers)
            part.train(losses, watch, set(at))
    return losses


def _kinds(gammas: Sequence[float]) -> Iterator[tuple[torch.dtype, Tensor]]:
    small = torch.tensor(gammas, dtype=torch.float64) < 0.01 * (1 - 1e-9)
    for kind, which in ((torch.float64, small), (torch.float32, ~small)):
        if which.any():
            yield kind, which.nonzero().flatten()


def _as(net: Net, kind: torch.dtype) -> Net:
    return tuple(Layer(*(part.to(kind) for part in layer)) for layer in net)


def _constant(begin: Net, data: Stream, setting: Setting) -> Float[Tensor, "T B 1"]:
    """f_θ(0) on the stream, or zeros."""
    if not setting.centred:
        return torch.zeros_like(data.labels)
    flat = forward(begin, data.inputs.flatten(0, 1), setting)[-1][0]
    return flat.view_as(data.labels)


class _Part:
    """Runs in one precision that train together; those that have diverged are let go.

    Args:
        setting: What they share.
        begin: The start, R = 1.
        data: The stream.
        zero: What is subtracted of f, by example.
        runs: Their places among all.
        gammas: γ.
        rates: η.
    """

    def __init__(
        self,
        setting: Setting,
        begin: Net,
        data: Stream,
        zero: Tensor,
        runs: Tensor,
        gammas: Tensor,
        rates: Tensor,
    ) -> None:
        self.setting, self.data, self.zero, self.runs = setting, data, zero, runs
        first = torch.zeros(len(runs), dtype=torch.int64)
        self.net = taken(begin, first)
        self.speed = None
        if setting.momentum:
            self.speed = tuple(Layer(*(torch.zeros_like(p) for p in one)) for one in self.net)
        self.inverse = (1 / gammas)[:, None, None]
        size = float(setting.width) ** setting.rate
        self.pulls = (-rates * size / gammas)[:, None, None]

    def train(self, losses: Tensor, watch: Watch | None, at: set[int]) -> None:
        """All updates; losses are written to their rows."""
        kept = torch.empty(len(self.runs), EVERY, dtype=self.inverse.dtype)
        for t in range(self.setting.updates):
            if watch is not None and t in at:
                watch(Moment(t, self.runs, self.net))
            kept[: len(self.runs), t % EVERY] = self.update(t)
            if (t + 1) % EVERY == 0 or t + 1 == self.setting.updates:
                first = t - t % EVERY
                found = kept[: len(self.runs), : t + 1 - first]
                losses[self.runs, first : t + 1] = found.double()
                self._leave(found.isfinite().all(1))
            if not len(self.runs):
                return
        if watch is not None and self.setting.updates in at:
            watch(Moment(self.setting.updates, self.runs, self.net))

    def update(self, t: int) -> Float[Tensor, " r"]:
        """The losses before one update."""
        seen = forward(self.net, self.data.inputs[t], self.setting)
        output = (seen[-1] - self.zero[t]).mul_(self.inverse)
        losses, slopes = losses_and_slopes(output, self.data.labels[t], self.setting.loss)
        step(self.net, seen, slopes.mul_(self.pulls), self.setting, self.speed)
        return losses

    def _leave(self, alive: Bool[Tensor, " r"]) -> None:
        if bool(alive.all()):
            return
        rows = alive.nonzero().flatten()
        self.runs, self.inverse, self.pulls = (
            part[rows] for part in (self.runs, self.inverse, self.pulls)
        )
        self.net = taken(self.net, rows)
        if self.speed is not None:
            self.speed = taken(self.speed, rows)
