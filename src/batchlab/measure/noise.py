"""The gradient noise scale tr Σ/‖G‖²: the batch size at which noise and signal are equally large.

Squared norms of gradients at two batch sizes give signal and noise; how much the gradients of
blocks of examples differ from each other gives the interval. Weights stay frozen, and nothing is
left behind.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import mean
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from batchlab import _random, _tree, schedules
from batchlab._team import Team
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.measure import _per_example
from batchlab.measure._moments import (
    LEVEL,
    Design,
    Moments,
    finite_population,
    independent,
    moments,
    noise_scale,
    ratio_range,
    separate_batches,
    variance_factor,
    without_replacement,
)
from batchlab.measure.plain import DTYPES
from batchlab.tasks import Objective, Prepared
from batchlab.types import Estimate, Tree

__all__ = [
    "METHODS",
    "Moments",
    "NoisePlan",
    "NoiseProbe",
    "NoiseResult",
    "coupled",
    "finite_population",
    "from_trace_values",
    "measure_noise",
    "noise_plan",
    "noise_probe",
    "noise_scale",
    "pool",
    "result",
    "variance_factor",
]

BLOCKS = 32
LEAST_BLOCKS = 8
EXAMPLES = 256
BLOCK_BYTES = 512 * 2**20
VMAP_PARAMETERS = 2**18
COST = 3.0
SHARE = 0.05
MOST_EXAMPLES = 4096
COUPLING_TOLERANCE = 1e-4
METHODS = ("per example", "micro-batches", "training micro-batches")


@dataclass(frozen=True)
class NoiseResult:
    """The gradient noise scale at one moment.

    Attributes:
        samples: Examples seen before it.
        signal: ‖G‖², (loss/parameter)²; negative where not resolved.
        noise: tr Σ, (loss/parameter)².
        scale: tr Σ/‖G‖² in examples with its 90 % interval, or None if the signal is not
            resolved.
        at_least: Low end of that interval where its high end is infinite; None where the scale is
            resolved or not even that can be said.
        method: One of :data:`METHODS`.
        examples: Examples whose gradients went into it.
        moments: What pooling needs, or None where a gradient was not finite or there was no noise
            to measure.
    """

    samples: int
    signal: float
    noise: float
    scale: Estimate | None
    at_least: float | None
    method: str
    examples: int
    moments: Moments | None = None

    def values(self) -> dict[str, float]:
        """As named floats, NaN where not resolved; :func:`from_trace_values` undoes it."""
        scale = self.scale
        low = scale.low if scale is not None else self.at_least
        values = {
            "signal": self.signal,
            "noise": self.noise,
            "scale": math.nan if scale is None else scale.value,
            "low": math.nan if low is None else low,
            "high": math.nan if scale is None else scale.high,
            "examples": float(self.examples),
            "method": float(METHODS.index(self.method)),
        }
        for name in (f.name for f in fields(Moments)[2:]):
            values[name] = math.nan if self.moments is None else getattr(self.moments, name)
        return {f"noise.{name}": value for name, value in values.items()}


def result(
    found: Moments, *, samples: int, examples: int, method: str, level: float = LEVEL
) -> NoiseResult:
    """The noise scale from its moments, resolved or bounded below.

    Args:
        found: Signal, noise and their uncertainty.
        samples: Examples seen.
        examples: Examples measured.
        method: One of :data:`METHODS`.
        level: Coverage of the interval.

    Returns:
        The result. Ratio of averages; a signal that is not clearly positive gives a bound and no
        value.

    Example:
        >>> found = Moments(2.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 31.0)
        >>> print(result(found, samples=0, examples=64, method="per example").scale)
        4 examples (4 to 4, n = 64)
    """
    numbers = found.signal, found.noise
    if not all(map(math.isfinite, numbers)) or not found.noise > 0:
        return NoiseResult(samples, *numbers, None, None, method, examples)
    low, high = ratio_range(found, level)
    if low <= 0:
        at_least = 1 / high if high > 0 else None
        return NoiseResult(samples, *numbers, None, at_least, method, examples, found)
    value = found.noise / found.signal
    scale = Estimate(value, 1 / high, 1 / low, examples, "examples", f"gradients, {method}", level)
    return NoiseResult(samples, *numbers, scale, None, method, examples, found)


def from_trace_values(values: dict[str, float], samples: int) -> NoiseResult:
    """The result behind the named floats of a Trace.

    Args:
        values: What a noise probe recorded at one moment; other names are ignored.
        samples: Examples seen at that moment.

    Returns:
        The result, as :func:`measure_noise` gave it.

    Raises:
        InvalidValueError: If the noise was not recorded there.
    """
    own = {
        name.removeprefix("noise."): value
        for name, value in values.items()
        if name.startswith("noise.")
    }
    absent = {"examples", "method", *(f.name for f in fields(Moments))} - set(own)
    if absent:
        raise InvalidValueError(must("values", "those of a noise probe", sorted(values)))
    found = Moments(**{f.name: own[f.name] for f in fields(Moments)})
    method = METHODS[int(own["method"])]
    return result(found, samples=samples, examples=int(own["examples"]), method=method)


def pool(results: Sequence[NoiseResult]) -> NoiseResult:
    """One noise scale over neighbouring moments: mean noise over mean signal, no mean of ratios.

    Args:
        results: Results of one method; those without moments are left out.

    Returns:
        The result at their mean sample count, with the narrower interval of all their examples.

    Raises:
        InvalidValueError: If no result has moments, or the methods differ.

    Assumes:
        Errors independent from moment to moment, and one noise scale for all of them.
    """
    usable = [r for r in results if r.moments is not None]
    if not usable or len({r.method for r in usable}) > 1:
        raise InvalidValueError(
            must("results", "measured, by one method", [r.method for r in results])
        )
    parts = [r.moments for r in usable if r.moments is not None]
    return result(
        _mean_moments(parts),
        samples=round(mean(r.samples for r in usable)),
        examples=sum(r.examples for r in usable),
        method=usable[0].method,
    )


def _mean_moments(parts: list[Moments]) -> Moments:
    """Moments of the mean of independent measurements."""
    count, noise = len(parts), mean(p.noise for p in parts)
    return Moments(
        signal=mean(p.signal for p in parts),
        noise=noise,
        mean_factor=mean(p.mean_factor * p.noise for p in parts) / noise,
        floor=mean(p.floor for p in parts) / count,
        slope=mean(p.slope for p in parts) / count,
        noise_var=mean(p.noise_var for p in parts) / count,
        correlation=mean(p.correlation for p in parts),
        dof=sum(p.dof for p in parts),
    )


def measure_noise(
    objective: Objective,
    prepared: Prepared,
    config: RunConfig,
    *,
    samples: int,
    seed: int,
    examples: int = EXAMPLES,
    team: Team | None = None,
) -> NoiseResult:
    """Measure the gradient noise scale at the objective's current weights, leaving no trace.

    Training examples are drawn at random: without replacement where their losses are functions of
    the weights alone, else (dropout, random transforms) with. Gradients are those of training
    mode, before clipping and weight decay, in the recipe's precision; norms are formed in at least
    float32 and added in float64.

    An *example* is one item of the training data. With weights the loss is Σwℓ/Σw; the noise of an
    example is then that of w(∇ℓ − G)/w̄, which is right to first order in 1/examples.

    Args:
        objective: Model and loss. Nothing of it is changed.
        prepared: The task it belongs to.
        config: The resolved run: its precision, and its batch size where examples affect each
            other.
        samples: Fresh examples seen so far; names the draw.
        seed: Names the draw.
        examples: Examples to measure, at least 32; more are used where batch norm needs 8 training
            batches, fewer where there are fewer.
        team: Processes that share the work, each of which calls this with the same weights; each
            takes the gradients of its part of the blocks, and all come to the same result.

    Returns:
        Signal, noise and their ratio with a 90 % interval, or a lower bound where the signal is
        not resolved.

    Raises:
        InvalidValueError: If ``examples`` is below 32.

    Source:
        mccandlish2018, appendix A.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> from batchlab.tasks import Task, prepare
        >>> x = torch.arange(100.0).sin()[:, None]
        >>> def loss(out, batch):
        ...     return (out - batch[1]).square().mean(-1)
        >>> task = Task(lambda: torch.nn.Linear(1, 1), (x, 2 * x), loss=loss)
        >>> ready = prepare(task, device="cpu")
        >>> found = measure_noise(ready.objective(0), ready, ready.baseline, samples=0, seed=0)
        >>> found.method, found.examples
        ('per example', 84)
    """
    if examples < BLOCKS:
        raise InvalidValueError(must("examples", f"at least {BLOCKS}", examples))
    # The task is shared, not copied: it holds the data.
    own = Objective(objective.task, copy.deepcopy(objective.module))
    own.training = objective.training
    if not objective.training:
        own.train()
    with _random.seeded(seed, "noise", samples):
        found = _Measurement(own, prepared, config, samples, seed, team or Team())
        return found.measure(examples)


@dataclass(frozen=True)
class NoiseProbe:
    """A probe for the engine; see :func:`noise_probe`."""

    prepared: Prepared
    config: RunConfig
    examples: int
    team: Team | None = None

    @property
    def name(self) -> str:
        """What this probe measures, in the plan."""
        return f"noise of {self.examples} examples"

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """The noise scale as named floats."""
        if self.team is not None and self.team.size > 1:
            state = {name: value.cpu() for name, value in objective.state_dict().items()}
            asked = self.team.ask(_measure_here, state, self.config, samples, self.examples)
            return asked[0].values()
        found = measure_noise(
            objective,
            self.prepared,
            self.config,
            samples=samples,
            seed=self.config.seed,
            examples=self.examples,
        )
        return found.values()


def _measure_here(
    team: Team, state: dict[str, Tensor], config: RunConfig, samples: int, examples: int
) -> NoiseResult:
    """One process's part of a measurement, at the weights of the first."""
    prepared: Prepared = team.context
    objective = prepared.objective(config.seed, DTYPES[config.precision], config.gamma)
    objective.load_state_dict(state)
    return measure_noise(
        objective.train(),
        prepared,
        config,
        samples=samples,
        seed=config.seed,
        examples=examples,
        team=team,
    )


def noise_probe(
    prepared: Prepared,
    config: RunConfig,
    *,
    examples: int = EXAMPLES,
    team: Team | None = None,
) -> NoiseProbe:
    """The noise scale as a probe that the engine takes during training.

    It records ``noise.signal``, ``noise.noise``, ``noise.scale``, ``noise.low``, ``noise.high``
    and ``noise.examples``, NaN where not resolved, and what :func:`from_trace_values` needs beside
    them. Not resolved, ``noise.low`` alone is the lower bound.

    Args:
        prepared: The task.
        config: The resolved run.
        examples: Examples a moment, at least 32; see :func:`noise_plan`.
        team: Processes that share each measurement, led by this one.

    Returns:
        ``(objective, samples) → values``.

    Raises:
        InvalidValueError: If ``examples`` is below 32.
    """
    if examples < BLOCKS:
        raise InvalidValueError(must("examples", f"at least {BLOCKS}", examples))
    return NoiseProbe(prepared, config, examples, team)


class NoisePlan(NamedTuple):
    """When to measure the noise scale during a run.

    Attributes:
        at: Sample counts, ascending; empty where a run cannot pay for one measurement.
        examples: Examples a measurement.
    """

    at: tuple[int, ...]
    examples: int


def noise_plan(
    samples: int, *, reuse: int = 1, least: int = BLOCKS, cost: float = COST, share: float = SHARE
) -> NoisePlan:
    """Measurements that together cost at most a share of training.

    Examples measured × cost ≤ share × examples processed. Up to 12 measurements of 256 examples;
    what is left makes each larger, up to 4096, since a signal is resolved only where examples
    exceed a fraction of the noise scale. They are denser early, where the noise scale grows
    fastest: at squares of evenly spaced fractions.

    Args:
        samples: Fresh examples of the run.
        reuse: Updates on each batch.
        least: Examples below which a measurement is not worth taking; 8 training batches under
            batch norm.
        cost: Time of measuring one example over that of training on it.
        share: Largest share of training time.

    Returns:
        The plan.

    Raises:
        InvalidValueError: If a number is not positive.

    Example:
        >>> noise_plan(24_000)
        NoisePlan(at=(6000,), examples=400)
    """
    for name, value in {"samples": samples, "reuse": reuse, "cost": cost, "share": share}.items():
        if not value > 0:
            raise InvalidValueError(must(name, "above 0", value))
    affordable = int(share * samples * reuse / cost)
    if affordable < least:
        return NoisePlan((), least)
    count = max(1, min(12, affordable // max(EXAMPLES, least)))
    if affordable // count > MOST_EXAMPLES >= least:
        count = min(40, affordable // MOST_EXAMPLES)
    examples = max(least, min(MOST_EXAMPLES, affordable // count))
    return NoisePlan(
        tuple(int(samples * ((i + 1) / (count + 1)) ** 2) for i in range(count)), examples
    )


def coupled(objective: Objective, batch: Tree) -> bool:
    """Whether one example changes another's loss, as under batch norm, in the present mode.

    Measured: the first example's loss in the company of one half of the others and of the other
        half, with the
    same random numbers. Where the task gives one scalar for a batch, it is the change of the
    batch's total when its first example is exchanged that must not depend on the company.

    Args:
        objective: Model and loss; left as it is.
        batch: At least 6 examples.

    Returns:
        Whether.

    Raises:
        InvalidValueError: If the batch is too small.

    Example:
        >>> from batchlab.tasks import Task
        >>> net = torch.nn.BatchNorm1d(1)
        >>> task = Task(lambda: net, torch.ones(8, 1), loss=lambda out, batch: out[:, 0])
        >>> coupled(Objective(task, net), (torch.arange(8.0)[:, None],))
        True
    """
    size = _tree.size(batch)
    if size < 6:
        raise InvalidValueError(must("batch", "at least 6 examples", size))
    count = (size - 2) // 2
    company = torch.arange(2, 2 + count), torch.arange(2 + count, 2 + 2 * count)

    def losses(first: int, others: Tensor) -> Tensor:
        return _seen_losses(
            objective, _tree.take(batch, torch.cat([torch.tensor([first]), others]))
        )

    here, there = (losses(0, others) for others in company)
    if objective.task.training_step is None:
        here, there = here[:1], there[:1]
    else:
        here, there = (
            x - losses(1, others) for x, others in zip((here, there), company, strict=True)
        )
    typical = float(losses(0, company[0]).abs().mean())
    return not float((here - there).abs().max()) <= COUPLING_TOLERANCE * typical + 1e-9


def _seen_losses(objective: Objective, batch: Tree, draw: int = 0) -> Tensor:
    """Losses (or the batch's total) under named random numbers, in float64."""
    with torch.no_grad(), kept_buffers(objective), _random.seeded(draw, "noise"):
        losses, weights = objective(batch)
    return losses.cpu().double() if losses.ndim else (losses * weights).cpu().double().reshape(1)


@contextlib.contextmanager
def kept_buffers(objective: torch.nn.Module) -> Iterator[None]:
    """Put buffers back as they were."""
    before = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


class _Blocks(NamedTuple):
    """Gradients of K blocks of m examples.

    Attributes:
        rows: ∇Σwℓ of each block. Shape ``[K, P]``.
        weights: Σw of each block. Shape ``[K]``.
        squares: ‖∇ℓ‖² of single examples, mean over each block, or None where not to be had. Shape
            ``[K]``.
    """

    rows: Tensor
    weights: Tensor
    squares: Tensor | None

    def on_processor(self) -> _Blocks:
        """Where it can travel from."""
        squares = None if self.squares is None else self.squares.cpu()
        return _Blocks(self.rows.cpu(), self.weights.cpu(), squares)


@dataclass(frozen=True)
class _Measurement:
    """One measurement on a private copy of the objective."""

    objective: Objective
    prepared: Prepared
    config: RunConfig
    samples: int
    seed: int
    team: Team = field(default_factory=Team)
    read: tuple[Tensor, Tree] | None = None

    def measure(self, examples: int) -> NoiseResult:
        """Draw examples, take gradients, bound the ratio."""
        few = self.batch(self.draw(8))
        if coupled(self.objective, few):
            return self.separate(examples)
        random = not self.prepared.train.in_memory or _is_random(self.objective, few)
        population = None if random else self.prepared.examples
        count = examples if population is None else min(examples, population)
        block = max(1, count // self.most_blocks())
        blocks = count // block
        index = self.draw(blocks * block, replacement=random)
        form = self.team.each(lambda: _form(self.objective, few))[0]
        found = self.shared(
            index.reshape(blocks, block),
            lambda own: self.reading(own.flatten()).gradients(own.flatten(), len(own), form),
        )
        small = block if found.squares is None else 1
        if population is None:
            design = independent(small, block, blocks)
        else:
            design = without_replacement(small, block, blocks, population)
        return self.conclude(found, design, METHODS[found.squares is None], blocks * block)

    def separate(self, examples: int) -> NoiseResult:
        """Batches as training takes them, each drawn on its own: examples affect each other."""
        size, population = self.batch_size(), self.prepared.examples
        if size >= population:
            return NoiseResult(self.samples, math.nan, math.nan, None, None, METHODS[2], 0)
        blocks = max(LEAST_BLOCKS, min(self.most_blocks(), examples // size))
        draws = [self.draw(size, i) for i in range(blocks)]
        found = self.shared(torch.stack(draws), self.of_batches)
        if self.prepared.train.in_memory:
            design = separate_batches(size, blocks, population)
        else:
            design = independent(size, size, blocks)
        return self.conclude(found, design, METHODS[2], blocks * size)

    def of_batches(self, draws: Int[Tensor, "K m"]) -> _Blocks:
        """Gradients of whole batches."""
        own = self.reading(draws.flatten())
        parts = [
            _gradients("batch", self.objective, own.batch(draw), 1, self.autocast())
            for draw in draws
        ]
        rows, weights = torch.cat([g.blocks for g in parts]), torch.cat([g.weights for g in parts])
        return _Blocks(rows, weights, None)

    def shared(
        self, index: Int[Tensor, "K m"], work: Callable[[Int[Tensor, "k m"]], _Blocks]
    ) -> _Blocks:
        """K blocks of examples, each process doing its part of them, joined in their order.

        No process may have nothing to do: K is at least :data:`LEAST_BLOCKS`.
        """
        if self.team.size == 1:
            return work(index)
        parts = index.tensor_split(self.team.size)
        if not all(map(len, parts)):
            raise InvalidValueError(must("nproc-per-node", f"at most {len(index)}", len(parts)))
        rank = self.team.rank
        # Each its own random numbers: the same dropout in two blocks would make them alike.
        with _random.seeded(self.seed, "noise", self.samples, 1 + rank):
            found = self.team.each(lambda: work(parts[rank]).on_processor())
        weights = torch.cat([one.weights for one in found])
        squares = [one.squares for one in found if one.squares is not None]
        even = len(squares) == len(found) and bool((weights == weights[0]).all())
        rows = torch.cat([one.rows for one in found])
        return _Blocks(rows, weights, torch.cat(squares) if even else None)

    def conclude(self, found: _Blocks, design: Design, method: str, examples: int) -> NoiseResult:
        """From gradients to the result."""
        gram = _gram_of_shares(found.rows, found.weights)
        small_sq = gram.diagonal() if found.squares is None else found.squares
        if not bool(torch.isfinite(gram).all() and torch.isfinite(small_sq).all()):
            return NoiseResult(self.samples, math.nan, math.nan, None, None, method, examples)
        found_moments = moments(gram, small_sq, design)
        return result(found_moments, samples=self.samples, examples=examples, method=method)

    def gradients(self, index: Int[Tensor, " n"], blocks: int, form: str) -> _Blocks:
        """Gradients of K equal blocks of the examples, no more at once than training takes."""
        block = len(index) // blocks
        at_once = max(1, self.batch_size() // block) if form != "batch" else 1
        rows, weights, squares, even = [], [], [], True
        for start in range(0, blocks, at_once):
            part = index[start * block : (start + at_once) * block]
            count = len(part) // block
            pieces = part.split(self.batch_size()) if count == 1 else (part,)
            found = [
                _gradients(form, self.objective, self.batch(piece), count, self.autocast())
                for piece in pieces
            ]
            rows.append(sum(g.blocks for g in found))
            each = torch.cat([g.weights for g in found])
            weights.append(each.unflatten(0, (count, -1)).sum(1))
            squares += [
                g.squares.cpu().double() / g.weights.cpu().double().square() for g in found
            ]
            even = even and bool((each == each[0]).all())
        total = torch.cat(weights)
        even = even and form != "batch" and bool((total == total[0]).all())
        mean_squares = torch.cat(squares).unflatten(0, (blocks, -1)).mean(1) if even else None
        return _Blocks(torch.cat(rows), total, mean_squares)

    def most_blocks(self) -> int:
        """Blocks whose gradients fit in memory together."""
        size = sum(p.numel() for p in _per_example.trainable(self.objective).values())
        return max(LEAST_BLOCKS, min(BLOCKS, BLOCK_BYTES // (4 * size)))

    def batch_size(self) -> int:
        """Of training at this moment."""
        assert self.config.batch_size is not None
        schedule = schedules.batch_schedule(self.config.batch_size)
        return schedule.resolve(self.prepared.examples).at(self.samples)

    def draw(self, count: int, *counters: int, replacement: bool = False) -> Int[Tensor, " n"]:
        """Random training examples, the same for the same seed and sample count."""
        generator = _random.generator(self.seed, "noise", self.samples, *counters)
        if replacement:
            return torch.randint(self.prepared.examples, (count,), generator=generator)
        return torch.randperm(self.prepared.examples, generator=generator)[:count]

    def reading(self, index: Int[Tensor, " n"]) -> _Measurement:
        """Itself; where an example costs a block, with all it will ask for read in one go."""
        if self.prepared.train.blocks is None:
            return self
        once = index.unique()
        return replace(self, read=(once, self.examples_at(once)))

    def batch(self, index: Int[Tensor, " n"]) -> Tree:
        """These examples on the model's device, read as in the present pass."""
        like = next(iter(_per_example.trainable(self.objective).values()))
        if self.read is None:
            return _tree.to(self.examples_at(index), like.device, like.dtype)
        once, tree = self.read
        return _tree.to(_tree.take(tree, torch.searchsorted(once, index)), like.device, like.dtype)

    def examples_at(self, index: Int[Tensor, " n"]) -> Tree:
        """These examples as they are read."""
        passes = torch.full_like(index, self.samples // self.prepared.examples)
        return self.prepared.train.batch(index, passes, self.seed)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The recipe's precision."""
        if self.config.precision != "bfloat16":
            return contextlib.nullcontext()
        like = next(iter(_per_example.trainable(self.objective).values()))
        return torch.autocast(like.device.type, dtype=torch.bfloat16)


def _is_random(objective: Objective, batch: Tree) -> bool:
    """Whether the losses depend on random numbers drawn in the forward pass."""
    first, second = (_seen_losses(objective, batch, draw) for draw in range(2))
    return not torch.equal(first, second)


def _gradients(
    form: str,
    objective: Objective,
    batch: Tree,
    blocks: int,
    precision: contextlib.AbstractContextManager[object],
) -> _per_example.Gradients:
    """Per-example norms and block sums in the given form; ``batch`` knows the sum alone."""
    with kept_buffers(objective), precision:
        if form == "layers":
            return _per_example.by_layers(objective, batch, blocks)
        if form == "vmap":
            return _per_example.by_vmap(objective, batch, blocks)
        rows, weight = _per_example.by_batch(objective, batch)
        return _per_example.Gradients(torch.full((1,), math.nan), rows, weight.reshape(1))


def _form(objective: Objective, batch: Tree) -> str:
    """The cheapest form of per-example gradients that is right, on a few examples."""
    if objective.task.training_step is not None:
        return "batch"
    size = sum(p.numel() for p in _per_example.trainable(objective).values())
    forms = ("layers", "vmap") if size <= VMAP_PARAMETERS else ("layers",)
    return next((form for form in forms if _agrees(form, objective, batch)), "batch")


def _agrees(form: str, objective: Objective, batch: Tree) -> bool:
    """Whether a form agrees with plain autograd: first and last example, and the sum."""
    modes = [(module, module.training) for module in objective.modules()]
    objective.eval()
    try:
        found = _gradients(form, objective, batch, 1, contextlib.nullcontext())
        ends = [_tree.take(batch, torch.tensor([i])) for i in (0, _tree.size(batch) - 1)]
        alone = torch.stack(
            [_per_example.by_batch(objective, end)[0].square().sum() for end in ends]
        )
        whole = _per_example.by_batch(objective, batch)[0]
    except Exception:  # whatever a user's model raises, this form is not for it
        return False
    finally:
        for module, mode in modes:
            module.training = mode
    squares = found.squares[torch.tensor([0, -1])].to(alone.dtype)
    near = torch.allclose(squares, alone, rtol=1e-3, atol=1e-12)
    return near and float((found.blocks - whole).norm()) <= 1e-3 * float(whole.norm()) + 1e-9


def _gram_of_shares(
    rows: Float[Tensor, "K P"], weights: Float[Tensor, " K"]
) -> Float[Tensor, "K K"]:
    """Inner products of ḡ + (W_j/W̄)(γ_j − ḡ), γ_j the mean gradient of block j, in float64.

    Their mean is ḡ = ΣW_jγ_j/ΣW_j and their spread that of ḡ to first order; with equal weights
    they are the γ_j.
    """
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(2**16, dim=1):
        wide = part.cpu().double() if part.device.type == "mps" else part.double()
        gram += (wide @ wide.T).cpu()
    total = weights.cpu().double()
    share = total / total.mean()
    mix = torch.eye(len(rows), dtype=torch.float64) + (1 - share)[:, None] / len(rows)
    return mix @ gram @ mix.T / float(total.mean()) ** 2
