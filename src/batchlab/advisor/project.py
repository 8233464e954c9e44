"""Stage B: from one checkpoint, every batch size with every learning rate, in rungs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchlab.advisor.candidates import beyond, rates_for
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Curve, Projection, Screening
from batchlab.config import RunConfig
from batchlab.engine import Job, RunState
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
SHARES = tuple(0.7**k for k in range(30))
"""Lengths of the search that are tried, as shares of what is left of a whole run."""
REPEATED_FROM, LATE_FROM = 0.1, 0.25
"""Shares of a whole run from which on the best are repeated, and tried again from its middle."""
LEAST_FALL = 0.5
"""Share of today's fall of the loss below which a setting does not count as learning alike."""

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

    def runs(self, today: int) -> list[tuple[int, int, int]]:
        """(batch size, samples, evaluations) of everything, for pricing.

        Args:
            today: Batch size of today's settings, which train beside the best of every size.
        """
        length = self.end - self.start
        work = [(today, length, EVALUATIONS)] * len(self.seeds)
        if self.late:
            work += [(today, length // 2, EVALUATIONS // 2)]
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
    """The longest search that fits; where none does, the costliest batch size goes first.

    Args:
        session: The advice in the making.
        screening: Stage A.
        seconds: What it may take.

    Returns:
        The plan, or None if not even the shortest useful one fits.
    """
    sizes = worth_searching(session, screening)
    while True:
        search = next(
            (s for s in _searches(session, screening, sizes) if _seconds(session, s) <= seconds),
            None,
        )
        others = [size for size in sizes if size != session.batch_size]
        if search is not None or not others:
            return search
        # What the costliest candidate takes is what the others lack.
        sizes = [s for s in sizes if s != max(others, key=lambda b: session.run_seconds(b, 10**6))]


def least_seconds(session: Session, screening: Screening) -> float:
    """What the shortest search takes, of today's batch size and the cheapest other; NaN if a run
    is too short for any.
    """
    today = session.batch_size
    others = [size for size in worth_searching(session, screening) if size != today]
    cheapest = sorted(others, key=lambda size: session.run_seconds(size, 10**6))[:1]
    for sizes in (sorted([today, *cheapest]), [today]):
        each = [_seconds(session, search) for search in _searches(session, screening, sizes)]
        if each:
            return min(each)
    return math.nan


def _searches(session: Session, screening: Screening, sizes: Sequence[int]) -> Iterator[Search]:
    """Every search of these batch sizes, the most telling first."""
    start = 0 if session.options.from_checkpoint else screening.checkpoint_samples
    whole = session.samples - start
    least = LEAST_UPDATES * max(sizes)
    for seeds, late, from_share in (
        (SEEDS, True, LATE_FROM),
        (SEEDS, False, REPEATED_FROM),
        (1, False, 0.0),
    ):
        if late and (session.options.from_checkpoint or session.samples < 4 * session.batch_size):
            continue
        for share in SHARES:
            length = round(share * whole)
            if share >= from_share and length >= least:
                yield _search(session, start, start + length, sizes, seeds, late)


def _seconds(session: Session, search: Search) -> float:
    """What a search takes: its runs, the other seeds' checkpoints, today's run to the middle."""
    size, middle = session.batch_size, session.samples // 2
    checkpoints = [(size, search.start, 1)] * (len(search.seeds) - 1)
    alone = session.run_seconds(size, middle) * session.engine_factor if search.late else 0.0
    return session.wall_seconds(search.runs(size) + checkpoints) + alone


def worth_searching(session: Session, screening: Screening) -> list[int]:
    """The proposals without those that the noise scale already rules out.

    Samples to a given loss grow as 1 + B/B_noise (mccandlish2018), so going below today's batch
    saves at most that factor. A size that would still take more than twice as long is not
    searched; the low end of the noise scale, which favours small sizes, is used. Nothing is ruled
    out where samples count, for rules outside the SGD family (there the noise scale only orders),
    for sizes the user asked for, or without a resolved noise scale.

    Args:
        session: The advice in the making.
        screening: Stage A.

    Returns:
        Batch sizes, ascending; today's is always among them.
    """
    sizes = [p.batch_size for p in screening.proposals]
    scale = _least_scale(screening)
    if scale is None or not _noise_rules_out(session):
        return sizes
    today = _predicted(session, session.batch_size, scale)
    return [
        size
        for size in sizes
        if size >= session.batch_size or _predicted(session, size, scale) < HOPELESS * today
    ]


def _noise_rules_out(session: Session) -> bool:
    assert session.baseline.rule is not None
    options = session.options
    priced = options.price is not None and options.price.per_sample > 0
    computed = options.objective == "time" or (options.objective == "cost" and not priced)
    by_time = computed and not options.seconds_per_sample
    return by_time and not options.batch_sizes and is_sgd_family(session.baseline.rule)


def _least_scale(screening: Screening) -> float | None:
    """The smallest noise scale that the measurements allow."""
    lows = [r.scale.low for r in screening.noise if r.scale is not None and r.scale.low > 0]
    return min(lows, default=None)


def left_out(session: Session, screening: Screening, search: Search) -> Iterator[str]:
    """One sentence for every candidate that is not searched, with the reason."""
    worth, scale = worth_searching(session, screening), _least_scale(screening)
    for proposal in screening.proposals:
        size = proposal.batch_size
        if size in search.sizes:
            continue
        if size not in worth and scale is not None:
            today = _predicted(session, session.batch_size, scale)
            ratio = _predicted(session, size, scale) / today
            yield (
                f"batch size {size} is not searched: by speed and noise scale it would take "
                f"{ratio:.1f} times as long"
            )
        else:
            yield not_paid_for(size)


def not_paid_for(size: int) -> str:
    """What is said of a candidate that the budget keeps out of the search."""
    return f"batch size {size} is left out of the search: the budget does not pay for it"


def unpaid(session: Session, screening: Screening, search: Search) -> tuple[int, ...]:
    """Proposed batch sizes worth searching that the budget did not pay for.

    Args:
        session: The advice in the making.
        screening: Stage A.
        search: The plan of stage B.
    """
    return tuple(b for b in worth_searching(session, screening) if b not in search.sizes)


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
        if not wanted:
            return
        configs = [self._config(key) for key in wanted]
        ends = self.search.rungs
        moments = tuple(m for m in self._moments() if m <= ends[rung])
        last = rung + 1 == len(ends)
        job = Job(moments, keep_end=not last, until=None if last else ends[rung])
        starts = [self.states.get(key) or self.starts[key[2]] for key in wanted]
        trace, states = self.session.train(what, configs, job, starts)
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
        asked = self.session.options.objective, self.session.prepared.metric.maximise
        return {rate: score(c, self.today(seed), *asked) for rate, c in mine.items()}

    def today(self, seed: int) -> Curve:
        """Today's settings in the search."""
        return self.curves[self.session.batch_size, self.session.learning_rate, seed]


def score(curve: Curve, reference: Curve, objective: str, maximise: bool) -> float:
    """How a learning rate does in the search, among those of one batch size; smaller is better.

    For time, cost and samples: the samples at which it reaches the loss that today's settings end
    with; a rate that does not reach it ranks behind all that do, by its loss. For accuracy: the
    metric at the end. A rate that diverged, or whose loss is not finite, comes last.

    Args:
        curve: The run.
        reference: Today's settings with the same seed, up to the same rung.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        maximise: Direction of the metric.

    Returns:
        The score; comparable between curves of one batch size and rung only.
    """
    if curve.status is Status.DIVERGED:
        return math.inf
    if objective == "accuracy":
        value = float(np.mean(curve.metric[-3:]))
        signed = -value if maximise else value
        return signed if math.isfinite(signed) else math.inf
    level, end = end_loss(reference), end_loss(curve)
    if not math.isfinite(end):
        return math.inf
    if not math.isfinite(level):
        return end
    reached = samples_to(curve, level)
    return reached if math.isfinite(reached) else curve.samples[-1] * (1 + max(0.0, end - level))


def end_loss(curve: Curve) -> float:
    """Mean of the last three validation losses; NaN for a diverged run."""
    return float(np.mean(curve.loss[-3:]))


def samples_to(curve: Curve, level: float) -> float:
    """Samples from the checkpoint until a loss is reached; infinite if never.

    Losses are means of three evaluations, each placed at its middle one, so that a batch size
    with fewer evaluations does not look later; the moment is interpolated between two of them,
    because the search ranks settings that lie closer than the grid.

    Args:
        curve: The run.
        level: Validation loss.

    Returns:
        Examples.
    """
    losses = [curve.loss[0], *means_of_three(np.array(curve.loss))]
    samples = curve.samples[:-1]
    i = next((i for i, loss in enumerate(losses) if i and loss <= level), None)
    if i is None:
        return math.inf
    before, after = losses[i - 1], losses[i]
    back = (level - after) / (before - after) if before > level else 0.0
    return float(samples[i] - back * (samples[i] - samples[i - 1]) - samples[0])


def equal_fall(curve: Curve, reference: Curve) -> float:
    """Samples that a setting needs where ``reference`` needs its own length, for an equal fall of
    the loss.

    Both are read at the loss that both reach, the higher of their two ends: at the reference's own
    end a setting as good as it would be "never" there in half of all cases. The ratio of the two
    times is applied to the reference's length.

    Args:
        curve: The setting.
        reference: Today's settings, same seed and checkpoint.

    Returns:
        Examples; infinite if the setting diverged or its loss fell less than half as far.

    Assumes:
        The ratio at the common loss is the ratio further on.
    """
    mine, theirs = end_loss(curve), end_loss(reference)
    if not math.isfinite(mine):
        return math.inf
    if curve is reference or not math.isfinite(theirs):
        return float(curve.samples[-1] - curve.samples[0])
    length = reference.samples[-1] - reference.samples[0]
    fallen = reference.loss[0] - theirs
    if fallen > 0 and curve.loss[0] - mine < LEAST_FALL * fallen:
        return math.inf
    level = max(mine, theirs)
    own, todays = samples_to(curve, level), samples_to(reference, level)
    return length * own / todays if math.isfinite(own) and math.isfinite(todays) else math.inf


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
    late, late_start = _late(session, search, _that_learn(race, best)) if search.late else ((), 0)
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
    pairs = _that_learn(race, best)
    keys = [(size, rate, seed) for size, rate in pairs for seed in race.search.seeds[1:]]
    race.run(keys, len(RUNGS) - 1, "repeats of the best")


def _that_learn(race: _Race, best: dict[int, float]) -> list[tuple[int, float]]:
    """The best of each batch size that did not diverge, and today's settings."""
    session, seed = race.session, race.search.seeds[0]
    alive = {
        pair for pair in best.items() if race.curves[*pair, seed].status is not Status.DIVERGED
    }
    return sorted({*alive, (session.batch_size, session.learning_rate)})


def _late(
    session: Session, search: Search, pairs: Sequence[tuple[int, float]]
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
    count = EVALUATIONS // 2
    moments = tuple(middle + round(i * (end - middle) / count) for i in range(count + 1))
    configs = [session.config(size, rate, seed) for size, rate in pairs]
    job = Job(moments, until=None if end == session.samples else end)
    start = at_rest(states[0], session)
    trace, _ = session.train("again from half of the run", configs, job, [start] * len(configs))
    return tuple(Curve.of(r, size) for r, (size, _) in zip(trace.runs, pairs, strict=True)), middle


def at_rest(state: RunState, session: Session) -> RunState:
    """The same weights with the rule's memory emptied.

    A velocity gathered from small noisy batches, multiplied by another batch size's larger rate,
    would throw the weights far off in the first update: the candidate would be judged by today's
    noise.
    """
    rule, progress = rule_of(session.baseline, session.prepared.task), state.progress
    fresh = progress._replace(rule_state=rule.init(progress.params))
    return replace(state, progress=fresh)


def checkpoints(session: Session, search: Search, first: RunState | None) -> dict[int, RunState]:
    """The common checkpoint of every seed: today's settings, trained up to the start of the
    search. A seed with which they diverged on the way has none.
    """
    missing = search.seeds[1:]
    found = {} if first is None else {search.seeds[0]: first}
    if missing and found:
        configs = [
            session.config(session.batch_size, session.learning_rate, seed) for seed in missing
        ]
        job = Job((0, search.start), keep_end=True, until=search.start)
        _, states = session.train("checkpoints", configs, job)
        found |= {
            seed: state for seed, state in zip(missing, states, strict=True) if state is not None
        }
    return {seed: at_rest(state, session) for seed, state in found.items()}
