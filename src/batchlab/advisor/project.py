"""Stage B: from one checkpoint, every batch size with every learning rate, in rungs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchlab.advisor.candidates import beyond, rates_for
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Curve, Projection, Screening
from batchlab.config import RunConfig
from batchlab.engine import Job, RunState, Trace
from batchlab.engine.step import rule_of
from batchlab.rules import is_sgd_family
from batchlab.stats import means_of_three
from batchlab.types import Status

RUNGS = (0.25, 0.5, 1.0)
KEPT = (3, 2)
"""Learning rates of a batch size that go on after the first and the second rung."""
SEEDS = 3
EVALUATIONS = 24
EXTENSIONS = 3
HOPELESS = 2.0
"""Predicted time / today's, above which a smaller batch is not searched."""
LEAST_UPDATES = 8
"""Updates of the largest batch in the search, at least."""

Key = tuple[int, float, int]


@dataclass(frozen=True)
class Search:
    """The plan of stage B.

    Attributes:
        start: Samples of the checkpoint.
        end: Samples where the last rung ends.
        sizes: Batch sizes.
        rates: Learning rates each starts with, in the order of ``sizes``.
        seeds: Seeds; the first is searched with, all are used for the best rates.
        late: Whether the best are tried again from half of the run.
    """

    start: int
    end: int
    sizes: tuple[int, ...]
    rates: tuple[tuple[float, ...], ...]
    seeds: tuple[int, ...]
    late: bool

    @property
    def rungs(self) -> tuple[int, ...]:
        """Samples at which each rung ends."""
        return tuple(self.start + round(share * (self.end - self.start)) for share in RUNGS)

    def runs(self) -> list[tuple[int, int, int]]:
        """(batch size, samples, evaluations) of everything, for pricing."""
        length = self.end - self.start
        work = []
        for size, rates in zip(self.sizes, self.rates, strict=True):
            counts = (len(rates) + 1, *(min(k, len(rates)) for k in KEPT))
            steps = np.diff([0.0, *RUNGS])
            for count, step in zip(counts, steps, strict=True):
                work += [(size, round(step * length), round(step * EVALUATIONS))] * count
            work += [(size, length, EVALUATIONS)] * (len(self.seeds) - 1)
            if self.late:
                work += [(size, length // 2, EVALUATIONS // 2)]
        return work


def plan_search(session: Session, screening: Screening, seconds: float) -> Search | None:
    """The longest search that fits.

    Args:
        session: The advice in the making.
        screening: Stage A.
        seconds: What it may take.

    Returns:
        The plan, or None if not even the shortest useful one fits.
    """
    start = 0 if session.options.from_checkpoint else screening.checkpoint_samples
    whole = session.samples - start
    sizes = _worth_searching(session, screening)
    while len(sizes) >= 2:
        for seeds, late in ((SEEDS, True), (SEEDS, False), (1, False)):
            for share in (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.02, 0.01):
                if (seeds > 1 and share < 0.1) or (late and share < 0.25):
                    break
                search = _search(session, start, start + round(share * whole), sizes, seeds, late)
                if search.end - start < LEAST_UPDATES * max(sizes):
                    break
                if session.wall_seconds(search.runs()) <= seconds:
                    return search
        # The slowest candidate goes first: what it costs is what the others lack.
        costly = max(
            (s for s in sizes if s != session.batch_size),
            key=lambda s: session.run_seconds(s, whole),
        )
        sizes.remove(costly)
        session.listener.say(
            f"batch size {costly} is left out of the search: it would take most of the time"
        )
    return None


def _worth_searching(session: Session, screening: Screening) -> list[int]:
    """The proposals without those that the noise scale already rules out.

    Samples to a given loss grow as 1 + B/B_noise (mccandlish2018), so going below today's batch
    saves at most that factor. A size that would still take more than twice as long is not
    searched; the low end of the noise scale, which favours small sizes, is used. Nothing is ruled
    out for the objectives ``samples`` and ``accuracy``, for sizes the user asked for, or without a
    resolved noise scale.
    """
    sizes = [p.batch_size for p in screening.proposals]
    noise = [r.scale.low for r in screening.noise if r.scale is not None and r.scale.low > 0]
    if (
        session.options.objective in ("samples", "accuracy")
        or session.options.batch_sizes
        or not noise
    ):
        return sizes
    scale, kept = min(noise), []
    for size in sizes:
        ratio = _predicted(session, size, scale) / _predicted(session, session.batch_size, scale)
        if size >= session.batch_size or ratio < HOPELESS:
            kept.append(size)
        else:
            session.listener.say(
                f"batch size {size} is not searched: by speed and noise scale it would take "
                f"{ratio:.1f} times as long"
            )
    return kept


def _predicted(session: Session, size: int, scale: float) -> float:
    """Relative time to a given loss: (1 + B/B_noise) × seconds per sample."""
    return (1 + size / scale) * session.stopwatch.rate(size) / size


def _search(
    session: Session, start: int, end: int, sizes: Sequence[int], seeds: int, late: bool
) -> Search:
    assert session.baseline.rule is not None
    family = is_sgd_family(session.baseline.rule)
    rates = tuple(
        rates_for(session.learning_rate, session.batch_size, size, family) for size in sizes
    )
    first = session.options.seed
    return Search(start, end, tuple(sizes), rates, tuple(range(first, first + seeds)), late)


class _Race:
    """The search in progress: curves and end states by (batch size, learning rate, seed)."""

    def __init__(self, session: Session, search: Search, starts: dict[int, RunState]) -> None:
        self.session, self.search, self.starts = session, search, starts
        self.curves: dict[Key, Curve] = {}
        self.states: dict[Key, RunState | None] = {}

    def run(self, keys: Iterable[Key], rung: int, what: str) -> None:
        """Train from the end of the last rung (or the checkpoint) to the end of this one."""
        wanted = [key for key in keys if self._may_go_on(key, rung)]
        configs = [self._config(key) for key in wanted]
        ends = self.search.rungs
        moments = [m for m in self._moments() if m <= ends[rung]]
        job = Job(tuple(moments), keep_end=rung + 1 < len(ends))
        starts = [self.states.get(key) or self.starts[key[2]] for key in wanted]
        trace, states = _train_until(
            self.session, what, configs, job, starts, ends[rung], self.search.end
        )
        for key, result, state in zip(wanted, trace.runs, states, strict=True):
            later = Curve.of(result, key[0], rung)
            self.curves[key] = self.curves[key].joined(later) if key in self.states else later
            self.states[key] = state

    def _may_go_on(self, key: Key, rung: int) -> bool:
        return key not in self.curves or (
            self.curves[key].status is not Status.DIVERGED and self.curves[key].rung < rung
        )

    def _moments(self) -> list[int]:
        length = self.search.end - self.search.start
        return [
            self.search.start + round(i * length / EVALUATIONS) for i in range(EVALUATIONS + 1)
        ]

    def _config(self, key: Key) -> RunConfig:
        size, rate, seed = key
        return self.session.config(size, rate, seed, self.search.end)

    def scores(self, size: int, seed: int) -> dict[float, float]:
        """Learning rate → how late it reaches what today's settings reach; smaller is better."""
        mine = {rate: c for (b, rate, s), c in self.curves.items() if b == size and s == seed}
        last = max(c.rung for c in mine.values())
        mine = {
            rate: c for rate, c in mine.items() if c.rung == last or c.status is Status.DIVERGED
        }
        reference = self.today(seed)
        return {rate: score(curve, reference, self.session) for rate, curve in mine.items()}

    def today(self, seed: int) -> Curve:
        """Today's settings in the search."""
        return self.curves[self.session.batch_size, self.session.learning_rate, seed]


def _train_until(
    session: Session,
    what: str,
    configs: Sequence[RunConfig],
    job: Job,
    starts: Sequence[RunState],
    until: int,
    end: int,
) -> tuple[Trace, list[RunState | None]]:
    """Train runs whose schedules end at ``end`` only up to ``until``."""
    job = Job(job.evaluate_at, keep_end=job.keep_end, until=None if until == end else until)
    return session.train(what, configs, job, starts)


def score(curve: Curve, reference: Curve, session: Session) -> float:
    """How a setting does in the search; smaller is better.

    For time, cost and samples: the samples at which it reaches the loss that today's settings end
        with; a setting
    that does not reach it ranks behind all that do, by its loss. For accuracy: the metric at the
    end.
    """
    if curve.status is Status.DIVERGED:
        return math.inf
    if session.options.objective == "accuracy":
        value = float(np.mean(curve.metric[-3:]))
        return -value if session.prepared.metric.maximise else value
    reached = equal_fall(curve, reference)
    if math.isfinite(reached):
        return reached
    return curve.samples[-1] * (1.0 + abs(float(np.mean(curve.loss[-3:])) - end_loss(reference)))


def end_loss(curve: Curve) -> float:
    """Mean of the last three validation losses."""
    return float(np.mean(curve.loss[-3:]))


def equal_fall(curve: Curve, reference: Curve) -> float:
    """Samples from the checkpoint until the loss that ``reference`` ends with; infinite if never.

    Losses are means of three evaluations, and the moment is interpolated between two of them: the
        search ranks
    learning rates that lie closer than the grid.
    """
    level, means = end_loss(reference), means_of_three(np.array(curve.loss))
    samples = np.array(curve.samples[2:], dtype=float)
    reached = np.flatnonzero((means <= level) & (samples <= reference.samples[-1]))
    if not reached.size:
        return math.inf
    i = int(reached[0])
    late = 0.0
    if i > 0 and means[i - 1] > means[i]:
        late = (level - means[i]) / (means[i - 1] - means[i]) * (samples[i] - samples[i - 1])
    return float(samples[i] - late - curve.samples[0])


def project(session: Session, search: Search, starts: dict[int, RunState]) -> Projection:
    """Run stage B.

    Args:
        session: The advice in the making.
        search: Its plan.
        starts: Seed → checkpoint.

    Returns:
        The record.
    """
    race = _Race(session, search, starts)
    seed = search.seeds[0]
    today = (session.batch_size, session.learning_rate, seed)
    _first_rung(race, seed)
    session.visit(search.sizes)
    for rung, kept in enumerate(KEPT, start=1):
        survivors = [
            (size, rate, seed)
            for size in search.sizes
            for rate in _best(race.scores(size, seed), kept)
        ]
        race.run({*survivors, today}, rung, f"search, part {rung + 1} of {len(RUNGS)}")
        session.visit(search.sizes)
    best = {size: _best(race.scores(size, seed), 1)[0] for size in search.sizes}
    _more_seeds(race, best)
    session.visit(search.sizes)
    curves = tuple(race.curves.values())
    named = {str(size): rate for size, rate in best.items()}
    late, late_start = _late(session, search, best) if search.late else ((), 0)
    return Projection(search.start, search.end, curves, named, late, late_start)


def _first_rung(race: _Race, seed: int) -> None:
    """Every rate of every size; more rates beyond an edge on which the best lies."""
    search = race.search
    keys = {
        (size, rate, seed)
        for size, rates in zip(search.sizes, search.rates, strict=True)
        for rate in rates
    }
    race.run(sorted(keys), 0, f"search, part 1 of {len(RUNGS)}")
    for _ in range(EXTENSIONS):
        more = [
            (size, rate, seed)
            for size in search.sizes
            for rate in beyond(race.scores(size, seed))
            if (size, rate, seed) not in race.curves
        ]
        if not more:
            return
        race.run(more, 0, "more learning rates")


def _best(scores: dict[float, float], count: int) -> list[float]:
    """The learning rates with the smallest scores."""
    return sorted(scores, key=lambda rate: (scores[rate], rate))[:count]


def _more_seeds(race: _Race, best: dict[int, float]) -> None:
    """The best rate of every size, and today's settings, on the other seeds, from the checkpoint
    to the end.
    """
    session = race.session
    pairs = {*best.items(), (session.batch_size, session.learning_rate)}
    keys = [(size, rate, seed) for size, rate in sorted(pairs) for seed in race.search.seeds[1:]]
    if keys:
        race.run(keys, len(RUNGS) - 1, "repeats of the best")


def _late(
    session: Session, search: Search, best: dict[int, float]
) -> tuple[tuple[Curve, ...], int]:
    """The best of each size again, from half of the run, under today's schedule."""
    seed = search.seeds[0]
    middle = session.samples // 2 // session.batch_size * session.batch_size
    today = session.config(session.batch_size, session.learning_rate, seed)
    job = Job((middle,), keep_end=True, until=middle)
    _, states = session.train("today's settings up to half of the run", [today], job)
    if states[0] is None:
        return (), 0
    end = min(session.samples, middle + (search.end - search.start) // 2)
    pairs = sorted({*best.items(), (session.batch_size, session.learning_rate)})
    count = EVALUATIONS // 2
    moments = tuple(middle + round(i * (end - middle) / count) for i in range(count + 1))
    configs = [session.config(size, rate, seed) for size, rate in pairs]
    job = Job(moments, until=None if end == session.samples else end)
    start = at_rest(states[0], session.baseline)
    trace, _ = session.train("again from half of the run", configs, job, [start] * len(configs))
    return tuple(Curve.of(r, size) for r, (size, _) in zip(trace.runs, pairs, strict=True)), middle


def at_rest(state: RunState, config: RunConfig) -> RunState:
    """The same weights with the rule's memory emptied.

    A velocity gathered from small noisy batches, multiplied by another batch size's larger rate,
    would throw the
    weights far off in the first update: the candidate would be judged by today's noise.
    """
    progress = state.progress._replace(rule_state=rule_of(config).init(state.progress.params))
    return replace(state, progress=progress)


def checkpoints(session: Session, search: Search, first: RunState | None) -> dict[int, RunState]:
    """The common checkpoint of every seed: today's settings, trained up to the start of the
    search.
    """
    missing = [seed for seed in search.seeds if first is None or seed != search.seeds[0]]
    found = {} if first is None else {search.seeds[0]: first}
    if missing:
        configs = [
            session.config(session.batch_size, session.learning_rate, seed) for seed in missing
        ]
        job = Job((0, search.start), keep_end=True, until=search.start)
        _, states = session.train("checkpoints", configs, job)
        found |= {
            seed: state for seed, state in zip(missing, states, strict=True) if state is not None
        }
    return {seed: at_rest(state, session.baseline) for seed, state in found.items()}
