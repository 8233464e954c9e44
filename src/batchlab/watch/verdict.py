"""What a watched training suggests: one of a few conclusions, with numbers behind it.

Pure functions of the record. Everything here is *screened*: measured in one training, compared
with nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from batchlab.measure._moments import LEVEL, t_quantile
from batchlab.measure.noise import NoiseResult
from batchlab.types import Estimate, Evidence
from batchlab.watch.noise import estimate
from batchlab.watch.record import About, BatchSize, Moment, Watched

FAR = 4.0
"""Far from the noise scale is a factor of four beyond its interval, as in ``batchlab noise``."""
WORSE = 1.2
"""A change of batch size may cost this factor in examples where it saves updates, and the other
way round."""
ROUNDING = 1e-9
LOADER_LIMIT = 0.2
"""Share of the time waiting for data from which the loader is the limit."""
FILLED = 0.9
"""Share of the memory that a larger micro-batch may fill."""


class Kind(StrEnum):
    """What it comes to."""

    NOTHING = "no update"
    DIVERGED = "diverged"
    LOADER = "loader is the limit"
    BELOW = "batch far below the noise scale"
    ABOVE = "batch far above the noise scale"
    MEMORY = "memory idle"
    FINE = "fine"


@dataclass(frozen=True)
class Change:
    """What another batch size would be worth, by the formulas about the noise scale.

    Attributes:
        batch_size: The global batch proposed, examples.
        updates: Updates it needs over those of today, with interval.
        samples: Examples it needs over those of today, with interval.
    """

    batch_size: int
    updates: Estimate
    samples: Estimate


@dataclass(frozen=True)
class Verdict:
    """The conclusion from a watched training.

    Attributes:
        kind: What it comes to.
        evidence: Screened, always.
        batch: Global batch of the second half; None before the first update.
        noise: Noise scale of the second half, or None.
        covered: Share of the trained numbers that it is of.
        why_no_noise: Why it was not measured, a clause; empty if it was, or for want of updates.
        waiting: Share of the time of training spent waiting for data, with interval.
        speed: How many times as fast the training is without that, at most.
        saved: Money that this would have saved, in ``currency``; None without a price.
        currency: Of the money.
        memory: Largest use of memory over what may be used; None where unknown.
        change: What another batch size is worth, where it lies far from the noise scale.
        micro_batch: A larger micro-batch that should fit, where memory is idle.
        proved: Whether the optimizer is of the family for which the formulas are proved.
        optimizer: Its name.
        diverged: First update whose loss was not finite, or None.
        updates: Of the training.
        samples: Of the training.
    """

    kind: Kind
    evidence: Evidence
    batch: BatchSize | None
    noise: NoiseResult | None
    covered: float
    why_no_noise: str
    waiting: Estimate | None
    speed: Estimate | None
    saved: float | None
    currency: str
    memory: float | None
    change: Change | None
    micro_batch: int | None
    proved: bool
    optimizer: str
    diverged: int | None
    updates: int
    samples: int


def judge(watched: Watched) -> Verdict:
    """Conclude from a watched training.

    In this order: a loss that was not finite; a loader that takes a fifth of the time or more, for
    then no batch size makes the training faster; a batch a factor of four or more outside the
    interval of the noise scale; memory of which less than half is used where a larger micro-batch
    would serve; else fine.

    Args:
        watched: Finished or not.

    Returns:
        The verdict.
    """
    start, batch = watched.starts[-1], watched.batch
    late = [block for block in watched.noise if 2 * block.samples > watched.last.samples]
    noise = estimate(late) if late else None
    waiting = waiting_share(watched.moments)
    speed = _mapped(waiting, _speed_without) if waiting is not None else None
    change = change_of(batch.whole, noise, _most(watched)) if batch and noise else None
    memory = _memory_share(watched)
    return Verdict(
        kind=_kind(watched, waiting, change, memory),
        evidence=Evidence.SCREENED,
        batch=batch,
        noise=noise,
        covered=late[-1].covered if late else 0.0,
        why_no_noise=_why_no_noise(watched) if noise is None else "",
        waiting=waiting,
        speed=speed,
        saved=_saved(watched),
        currency=start.currency,
        memory=memory,
        change=change,
        micro_batch=_micro_batch(batch, memory),
        proved=start.sgd,
        optimizer=start.optimizer,
        diverged=watched.diverged,
        updates=watched.last.updates,
        samples=watched.last.samples,
    )


def _kind(
    watched: Watched, waiting: Estimate | None, change: Change | None, memory: float | None
) -> Kind:
    batch = watched.batch
    if batch is None or not batch.whole:
        return Kind.NOTHING
    if watched.diverged is not None:
        return Kind.DIVERGED
    known = waiting is not None and not math.isnan(waiting.low)  # not from a moment or two
    if waiting is not None and known and waiting.value >= LOADER_LIMIT:
        return Kind.LOADER
    if change is not None:
        return Kind.BELOW if change.batch_size > batch.whole else Kind.ABOVE
    on_gpu = watched.starts[-1].device.startswith("cuda")
    serves = on_gpu or batch.accumulation > 1
    return Kind.MEMORY if serves and _micro_batch(batch, memory) else Kind.FINE


def _speed_without(waiting: float) -> float:
    return 1 / (1 - waiting) if waiting < 1 else math.inf


def updates_needed(batch_size: float, scale: float) -> float:
    """Updates to a given loss over the fewest possible, 1 + B_noise/B.

    Args:
        batch_size: B, examples.
        scale: B_noise, examples.

    Source:
        mccandlish2018, section 2.2.

    Example:
        >>> updates_needed(64, scale=128), updates_needed(64, scale=0)
        (3.0, 1.0)
    """
    return 1 + scale / batch_size


def samples_needed(batch_size: float, scale: float) -> float:
    """Examples to a given loss over the fewest possible, 1 + B/B_noise.

    Args:
        batch_size: B, examples.
        scale: B_noise, examples; 0 and infinity are its limits.

    Source:
        mccandlish2018, section 2.2.

    Example:
        >>> samples_needed(64, scale=128), samples_needed(64, scale=math.inf)
        (1.5, 1.0)
    """
    return math.inf if scale == 0 else 1 + batch_size / scale


def change_of(batch_size: int, noise: NoiseResult, most: float = math.inf) -> Change | None:
    """The batch size that saves much for little, where today's is far from the noise scale.

    Below it, the largest power of two times today's batch that needs at most 1.2 times the
    examples; above it, the smallest fraction that needs at most 1.2 times the updates; each at the
    near end of the noise scale's interval.

    Args:
        batch_size: Today's, examples.
        noise: The noise scale, or its lower bound.
        most: Largest batch size worth proposing.

    Returns:
        The change; None where the batch is not far from the noise scale, or cannot be changed.
    """
    scale = noise.scale
    low = scale.low if scale is not None else noise.at_least
    high = scale.high if scale is not None else math.inf
    if low is not None and FAR * batch_size <= low:
        near, step, price = low, 2.0, samples_needed
    elif batch_size >= FAR * high:
        near, step, price = high, 0.5, updates_needed
    else:
        return None
    new = _farthest(
        batch_size,
        step,
        lambda size: (
            1 <= size <= max(most, batch_size)
            and _ratio(price, size, batch_size, near) <= WORSE + ROUNDING
        ),
    )
    if new == batch_size or low is None:
        return None
    between = Estimate(scale.value if scale else low, low, high, scale.n if scale else 0)
    return Change(
        new,
        _mapped(between, lambda s: _ratio(updates_needed, new, batch_size, s)),
        _mapped(between, lambda s: _ratio(samples_needed, new, batch_size, s)),
    )


def _ratio(needed: Callable[[float, float], float], new: int, old: int, scale: float) -> float:
    if math.isinf(scale):
        return old / new if needed is updates_needed else 1.0
    return needed(new, scale) / needed(old, scale)


def _farthest(size: int, step: float, allowed: Callable[[int], bool]) -> int:
    """The last of size·stepᵏ, whole, that is allowed."""
    following = int(size * step)
    while following != size and allowed(following):
        size, following = following, int(following * step)
    return size


def _mapped(x: Estimate, function: Callable[[float], float]) -> Estimate:
    """A monotone function of a number with its interval."""
    low, high = sorted((function(x.low), function(x.high)))
    return Estimate(function(x.value), low, high, x.n, "", x.source, x.level)


def waiting_share(moments: Sequence[Moment], level: float = LEVEL) -> Estimate | None:
    """Share of the time of training that went into waiting for data, as a ratio of sums.

    w = Σx/Σy with Var w ≈ n/(n−1) Σ(x − wy)²/(Σy)² over the stretches between moments.

    Args:
        moments: In order; seconds in them run on.
        level: Coverage of the interval.

    Returns:
        The share, its ends within [0, 1]; NaN ends below 3 stretches. None where nothing ran.

    Source:
        cochran1977, section 6.3.
    """
    waited, worked = ([getattr(m, name) for m in moments] for name in ("waiting", "working"))
    stretches = [
        (x, x + y) for x, y in zip(_steps(waited), _steps(worked), strict=True) if x + y > 0
    ]
    whole, n = sum(y for _, y in stretches), len(stretches)
    if not whole:
        return None
    share = sum(x for x, _ in stretches) / whole
    half = math.nan
    if n > 2:
        residuals = sum((x - share * y) ** 2 for x, y in stretches)
        half = t_quantile((1 + level) / 2, n - 1) * math.sqrt(n / (n - 1) * residuals) / whole
    ends = (min(1.0, max(0.0, share + side)) for side in (-half, half))
    low, high = ends if n > 2 else (math.nan, math.nan)
    return Estimate(share, low, high, n, "", "time between batches", level)


def _steps(values: Sequence[float]) -> list[float]:
    """What each adds to the one before it."""
    return [b - a for a, b in zip([0.0, *values], values, strict=False)]


def _why_no_noise(watched: Watched) -> str:
    told = [note.text for note in watched.notes if note.about is About.NO_NOISE]
    return told[-1] if told else ""


def _saved(watched: Watched) -> float | None:
    price = watched.starts[-1].price_per_hour
    if price is None or not watched.moments:
        return None
    return price * watched.moments[-1].waiting / 3600


def _memory_share(watched: Watched) -> float | None:
    used = [m.memory for m in watched.moments if m.memory is not None]
    limit = watched.starts[-1].memory_limit
    return max(used) / limit if used and limit else None


def _micro_batch(batch: BatchSize | None, memory: float | None) -> int | None:
    """A larger micro-batch that fits if all memory in use grows with it, in powers of two; no
    larger than the batch itself where that is accumulated.
    """
    if batch is None or not memory or memory > FILLED / 2:
        return None
    factor = 2 ** int(math.log2(FILLED / memory))
    if batch.accumulation > 1:
        factor = min(factor, 2 ** math.ceil(math.log2(batch.accumulation)))
    whole = batch.micro * batch.accumulation if batch.accumulation > 1 else math.inf
    return int(min(batch.micro * factor, whole))


def _most(watched: Watched) -> float:
    """A quarter of the data set, where it is known."""
    known = [b.population for b in watched.noise if b.population is not None]
    return known[-1] / 4 if known else math.inf
