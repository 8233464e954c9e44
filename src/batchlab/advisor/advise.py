"""The three stages, one after the other, as far as the budget pays."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchlab._team import Team
from batchlab.advisor import answer, inner, reusing, strengthening, sturdy
from batchlab.advisor.confirm import (
    FRESH,
    ConfirmationPlan,
    affordable_repeats,
    confirm,
    confirm_more,
    grown_afresh,
    plan_confirmation,
    price_of_confirmation,
    seconds_of,
    seconds_of_fresh,
)
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Projected, Yardstick, nearest, projected
from batchlab.advisor.options import Options
from batchlab.advisor.pilot import BUDGET as GROWING_UNPAID
from batchlab.advisor.pilot import MOST as MOST_GROWING
from batchlab.advisor.pilot import PilotPlan, plan_pilot, run_pilot
from batchlab.advisor.pilot import price as price_of_pilot
from batchlab.advisor.project import (
    Search,
    checkpoints,
    least_seconds,
    left_out,
    not_paid_for,
    plan_search,
    project,
    unpaid,
)
from batchlab.advisor.record import Verdict
from batchlab.advisor.reusing import EchoPlan
from batchlab.advisor.screen import (
    CHECKPOINT_SHARE,
    NOISE_PROBES,
    checkpoint_samples,
    probe_moments,
    screen,
    short_run,
    time_evaluation,
)
from batchlab.advisor.session import (
    Listener,
    Session,
    Silent,
    Stopwatch,
    checkpoint_state,
    one_batch_size,
)
from batchlab.advisor.stages import (
    Choice,
    Confirmation,
    Echoes,
    Machine,
    OnAll,
    Pilot,
    Projection,
    Records,
    Screening,
    Strengths,
    Tuning,
    all_sizes,
    choice_of,
    pace_of,
)
from batchlab.advisor.strengthening import StrengthPlan
from batchlab.advisor.tuning.search import TuningPlan, plan_tuning, seconds_of_first, tune
from batchlab.advisor.tuning.search import price as price_of_tuning
from batchlab.advisor.view import View, bare_facts
from batchlab.advisor.whole import KEY, WholePlan, plan_on_all, price_on_all, repeat_on_all
from batchlab.engine import Engine, RunState
from batchlab.engine.workers import Place
from batchlab.errors import TaskError, must
from batchlab.measure.insight import BUDGET, Insight
from batchlab.measure.noise import COST, EXAMPLES
from batchlab.measure.sturdiness import Survey
from batchlab.tasks import Prepared
from batchlab.types import from_plain

SEARCH_SHARE = 0.3
"""Share of the budget that stage B gets where stage C fits too."""
TUNING_SHARE = 0.5
"""Share of the budget that the search over all settings gets at least, where the shortest stage C
still fits."""
RESERVE = 0.05
"""Share of the time left that is kept for what cannot be foreseen and for the report."""
TYPICAL_FINALISTS = 3
WIDER = 2.0
"""A larger budget makes stage A again where it pays for a short run so many times as long."""
PARTS = {
    "R": "robustness",
    "G": "batches that grow",
    "E": "batches that are used again",
    "S": "feature-learning strengths",
    "F": "what decisions rest on",
}
"""What comes besides the three stages, by letter."""
NOTHING_TO_CONFIRM = (
    "no candidate did as well as today's settings in the search: nothing to confirm"
)
FIT_SECONDS, LEAST_SEARCH_SECONDS = 5.0, 10.0
"""What finding the largest batch and the shortest useful search usually take."""


@dataclass(frozen=True)
class Outcome:
    """What the stages found, and what the next one would take.

    Attributes:
        records: Everything measured.
        prices: Expected seconds of stages not run, by letter.
        measured: When something was last measured, ISO time.
    """

    records: Records
    prices: dict[str, float]
    measured: str


class Notes(Silent):
    """Passes everything on, with the stage in front, and keeps the sentences.

    Attributes:
        stage: 1, 2 or 3.
        sentences: What was said.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.stage = 1
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        """Keep and pass on."""
        self.sentences.append(sentence)
        self._listener.say(sentence)

    def progress(self, what: str, share: float) -> None:
        """Pass on."""
        self._listener.progress(f"stage {self.stage} of 3: {what}", share)


def run_stages(
    prepared: Prepared,
    options: Options,
    out: Path,
    *,
    resume: bool = False,
    listener: Listener | None = None,
    workers: int | None = None,
    on: Place | None = None,
    team: Team | None = None,
    began: float | None = None,
) -> Outcome:
    """Measure as far as the budget pays.

    Args:
        prepared: The task.
        options: What is asked.
        out: Result directory.
        resume: Whether an unfinished one may be continued.
        listener: Hears progress.
        workers: Worker processes; one per core if left out.
        on: Machines that train, instead of worker processes here.
        team: Processes that the user trains on together, led by this one: seconds per update are
            theirs.
        began: When the advice began, by the monotonic clock, if that was before: loading a task
            takes its share of the budget.

    Returns:
        What was found. After an interruption whatever stages had ended, marked partial.
    """
    _check(prepared, options)
    notes = Notes(listener or Silent())
    began = time.perf_counter() if began is None else began
    with Engine(prepared, out, workers, on=on) as engine:
        task = _task_facts(prepared) | {"content": _content(prepared, engine)}
        journal = Journal(out, {"task": task, **_fields(options)}, resume, notes.say)
        session = _session(prepared, options, engine, journal, notes, team)
        stages = _Stages(session, journal)
        # Nothing is measured for a finished result, so its clock stands still.
        session.began = math.inf if journal.finished else began
        session.earlier_seconds = journal.spent
        if not journal.finished:
            try:
                stages.run()
                journal.finish()
            except KeyboardInterrupt:
                stages.partial = True
            stages.note()
        return stages.outcome()


def _fields(options: Options) -> dict[str, Any]:
    """What the result depends on; what is not asked for leaves no word, so that results made
    before it could be are read.
    """
    asked = {name: getattr(options, name) for name in options.__dataclass_fields__}
    usual = {"growing": True, "tune": (), "gammas": (), "world_size": 1}
    return {name: v for name, v in asked.items() if v is not usual.get(name, False)}


def _content(prepared: Prepared, engine: Engine) -> str:
    """Hash of the task with all its data, so that another part of them is another subset only."""
    if prepared.drawn is None:
        return engine.task_hash
    with Engine(prepared.drawn.whole, None, workers=0) as whole:
        return whole.task_hash


def _task_facts(prepared: Prepared) -> dict[str, Any]:
    """What must be the same for a result to be continued."""
    prepared = prepared if prepared.drawn is None else prepared.drawn.whole
    task = prepared.task
    return {
        "name": task.origin or task.name,
        "examples": prepared.examples,
        "validation": prepared.validation.examples,
        "baseline": asdict(prepared.baseline),
        "device": prepared.device,
    }


def _check(prepared: Prepared, options: Options) -> None:
    """Recipes that cannot be compared with others, and a checkpoint that is none of this model."""
    rate = prepared.baseline.learning_rate
    if options.tune:
        hint = "--tune searches around one size; leave it out, or give the size it mostly uses."
        one_batch_size(prepared.baseline, hint)
    if not rate:
        hint = "Other rates are tried as multiples of it."
        raise TaskError(must("learning_rate", "above 0 in the baseline", rate, hint))
    if options.from_checkpoint is not None:
        checkpoint_state(prepared, options.from_checkpoint, prepared.baseline)


def _session(
    prepared: Prepared,
    options: Options,
    engine: Engine,
    journal: Journal,
    notes: Notes,
    team: Team | None,
) -> Session:
    machine = journal.load("machine", Machine)
    known = (machine.blocks, machine.wrapped) if machine else (None, None)
    stopwatch = Stopwatch(prepared, 1, known[0], wrapped=known[1], team=team)
    session = Session(prepared, options, engine, notes, stopwatch)
    session.fit = machine.fit if machine else None
    return session


class _Stages:
    """The stages of one advice, each from its record if it has ended before.

    Args:
        session: The advice in the making.
        journal: Its result directory.

    Attributes:
        screening: Stage A, or None.
        projection: Stage B, or None.
        pilot: What was tried of batches that grow, or None.
        echoes: What was tried of batches that are used again, or None.
        strengths: What was tried of γ, or None.
        tuning: The search over all settings, which takes the place of stage B, or None.
        confirmation: Stage C, or None.
        on_all: The pair on all data, or None.
        insight: What the models look at, or None.
        prices: Expected seconds of stages not run, by letter.
        partial: Whether it was interrupted.
    """

    def __init__(self, session: Session, journal: Journal) -> None:
        self.session, self.journal = session, journal
        self.screening: Screening | None = journal.load("screening", Screening)
        self.projection: Projection | None = journal.load("projection", Projection)
        self.pilot: Pilot | None = journal.load("growing", Pilot)
        self.echoes: Echoes | None = journal.load("reusing", Echoes)
        self.strengths: Strengths | None = journal.load("strength", Strengths)
        self.tuning: Tuning | None = journal.load("tuning", Tuning)
        self.confirmation: Confirmation | None = journal.load("confirmation", Confirmation)
        self.on_all: OnAll | None = journal.load("on_all", OnAll)
        self.survey: Survey | None = journal.load("robustness", Survey)
        self.insight: Insight | None = journal.load("features", Insight)
        self._inside: inner.Inside | None = None
        self._had_confirmation = self.confirmation is not None
        self.prices: dict[str, float] = journal.prices
        self.partial = False
        if self.screening is not None:
            session.engine_factor = self.screening.engine_factor
            session.evaluation_seconds = self.screening.evaluation_seconds

    def run(self) -> None:
        """All stages the budget pays for."""
        self._screen()
        if self._tune() if self.session.options.tune else self._search():
            self._try_strengthening()
            self._try_reusing()
            self._try_growing()
            self._confirm()
            self._repeat_more()
            self._repeat_on_all()
            self._judge_growing()
            self._look_inside()
            self._survey()

    def _enter(self, stage: int) -> None:
        assert isinstance(self.session.listener, Notes)
        self.session.listener.stage = stage

    def _screen(self) -> None:
        """Stage A."""
        session = self.session
        if self.screening is not None and not self._widen_screening():
            return
        session.visit(all_sizes([session.today]))
        whole = session.run_seconds(session.today[0], session.samples)
        if whole > session.left:
            session.listener.say(
                f"one run of today's settings takes about {_time(whole)}, longer than the budget: "
                "this goes no further than a projection"
            )
        if session.options.budget is None:
            self._say_prices()
        plan = self.journal.plan("A", self._plan_screening())
        assert plan is not None
        self.screening = screen(session, int(plan["checkpoint_samples"]))
        self._save("screening", self.screening)

    def _widen_screening(self) -> bool:
        """Whether stage A is made again: the budget had cut it short, pays for more now, and
        nothing stands on it yet.
        """
        session, screening = self.session, self.screening
        assert screening is not None
        built_on = any(self.journal.plan(stage) for stage in "BTC")
        if not self.journal.more_budget or built_on or session.fit is None:
            return False
        late = session.fit.bound_by == "time"
        short = checkpoint_samples(session) >= WIDER * screening.checkpoint_samples
        if not late and not short:
            return False
        said = "stage A had been cut short by the budget: it is made again with the larger one"
        session.listener.say(said)
        self.journal.plan_anew("A", None, ())
        return True

    def _say_prices(self) -> None:
        """The price of each stage, where only the first is run."""
        known = prices(self.session) | _price_of_features(self.session, self.inside)
        told = ", ".join(
            f"{PARTS.get(k, f'stage {k}')} about {_time(v)}" for k, v in known.items() if k != KEY
        )
        self.session.listener.say(f"without --budget this stops after stage A; expected: {told}")

    def _plan_screening(self) -> dict[str, Any]:
        session = self.session
        end = checkpoint_samples(session)
        executor, why = session.engine.capability(session.baseline).executor(session.batch_size)
        return {
            "baseline": asdict(session.baseline),
            "seed": session.options.seed,
            "checkpoint_samples": end,
            "noise_at": probe_moments(end),
            "executor": executor,
            "why": why,
            "threads": session.stopwatch.threads,
            "workers": session.engine.workers,
        }

    def _save(self, name: str, record: Any) -> None:
        """Write down the machine as measured so far, a finished stage, which rests on it, and what
        it took.
        """
        self.journal.save("machine", self.session.machine())
        self.journal.save(name, record)
        self.note()

    def note(self) -> None:
        """Write down what the result has taken so far."""
        assert isinstance(self.session.listener, Notes)
        self.journal.note(self.session.elapsed, self.prices, self.session.listener.sentences)

    def _search(self) -> bool:
        """Stage B; False if it is not paid for, or nothing can be searched from."""
        session, screening = self.session, self.screening
        assert screening is not None
        if self.projection is not None and not self._widen_search(self.projection):
            return True
        self._enter(2)
        known = self.journal.plan("B")
        search = from_plain(Search, known) if known else self._plan_search()
        if search is None:
            return False
        if not known:
            candidates = {"candidates": [asdict(p) for p in screening.proposals]}
            self.journal.plan("B", asdict(search) | candidates)
            for sentence in left_out(session, screening, search):
                session.listener.say(sentence)
        starts = self._starts(search)
        if search.seeds[0] not in starts:
            raise TaskError(
                "Today's settings diverge at the beginning of the run: nothing can be compared "
                "with them. Try a smaller learning rate in the baseline."
            )
        seeds = tuple(seed for seed in search.seeds if seed in starts)
        missing = unpaid(session, screening, search)
        found = project(session, replace(search, seeds=seeds), starts)
        self.projection = replace(found, unpaid=missing)
        self._save("projection", self.projection)
        return True

    def _widen_search(self, projection: Projection) -> bool:
        """Whether stage B is made again: batch sizes that the budget did not pay for are paid for
        now, and nothing is confirmed yet.
        """
        known = self.journal.plan("B")
        if not projection.unpaid or known is None or self.journal.plan("C"):
            return False
        had = from_plain(Search, known).sizes
        if set(projection.unpaid) & set(had):
            return True  # so planned, and interrupted
        search = self._plan_search() if self.journal.more_budget else None
        if search is None or not set(had) < set(search.sizes):
            return False
        gained = [size for size in search.sizes if size not in had]
        words = ", ".join(map(str, gained))
        self.session.listener.say(
            f"stage B is made again: the larger budget also pays for batch size {words}"
        )
        assert self.screening is not None
        candidates = {"candidates": [asdict(p) for p in self.screening.proposals]}
        self.journal.plan_anew("B", asdict(search) | candidates, map(not_paid_for, gained))
        return True

    def _tune(self) -> bool:
        """The search over all settings in the place of stage B; False if it is not paid for, or
        found nothing that learns.
        """
        session, screening = self.session, self.screening
        assert screening is not None
        if self.tuning is None or not self.tuning.ended:
            self._enter(2)
            plan = self._plan_tuning(screening)
            if plan is None:
                return False
            for found in tune(session, self.journal, plan, self.tuning, self._left_to_tune):
                self.tuning = found
                self._save("tuning", found)
        if self.tuning is None:
            session.listener.say(
                "today's settings diverge: nothing can be compared with them; try a smaller "
                "learning rate in the baseline"
            )
            return False
        if not self.tuning.best:
            session.listener.say(NOTHING_TO_CONFIRM)
        return bool(self.tuning.best)

    def _plan_tuning(self, screening: Screening) -> TuningPlan | None:
        """The plan, written down; None where not even its first generation is paid for."""
        session, known = self.session, self.journal.plan("T")
        if known is not None:
            return from_plain(TuningPlan, known)
        expected = prices(session)
        self.prices = {"B": expected["B"], "C": expected["C"]}
        if session.options.budget is None:
            return None
        plan = plan_tuning(session, screening)
        least = seconds_of_first(session, plan)
        if least > self._left_to_tune():
            self.prices["B"] = max(least, expected["B"])
            session.listener.say(
                "the search over all settings is left out: the budget does not pay for its first "
                f"generation, about {_time(least)}"
            )
            return None
        self.journal.plan("T", asdict(plan))
        return plan

    def _left_to_tune(self) -> float:
        """Seconds that leave room for the usual stage C, for the shortest where that does not fit
        beside a search, and for none where not even that does.
        """
        session, left = self.session, _spendable(self.session)
        size = session.batch_size
        least = price_of_confirmation(session, 1, size)
        usual = price_of_confirmation(session, TYPICAL_FINALISTS, size)
        usual += price_on_all(session, size) + _kept_for_noise(session) + self._kept_for_features()
        budget = session.options.budget or math.inf
        kept = max(least, min(usual, (1 - TUNING_SHARE) * budget))
        return left - kept if least < left else left

    def _plan_search(self) -> Search | None:
        """The longest search that leaves room for stage C where that fits at all."""
        session, screening = self.session, self.screening
        assert screening is not None
        whole = session.run_seconds(session.today[0], session.samples)
        expected = prices(session)
        cheapest, pair = (price_of_confirmation(session, n, session.batch_size) for n in (1, 2))
        least = least_seconds(session, screening)
        if math.isnan(least):
            session.listener.say("a run has too few updates for learning rates to be compared")
            return None
        self.prices = {"B": max(expected["B"], least), "C": expected["C"]}
        budget = session.options.budget
        if budget is None:
            return None
        left = _spendable(session)
        if cheapest + least > left:
            return plan_search(session, screening, left)
        share = max(0.1 * left, min(max(SEARCH_SHARE * budget, whole), left - pair))
        allowed = min(max(share, least), left - cheapest)
        return plan_search(session, screening, allowed) or plan_search(session, screening, left)

    def _starts(self, search: Search) -> dict[int, RunState]:
        """Seed → checkpoint."""
        session, path = self.session, self.session.options.from_checkpoint
        if path is None:
            # Read from disk: stage A has trained it.
            assert self.screening is not None
            evaluated = self.screening.evaluated
            _, state = short_run(session, search.start, evaluate=evaluated)
            return checkpoints(session, search, state)
        config = session.config(session.batch_size, session.learning_rate, search.seeds[0])
        given = checkpoint_state(session.prepared, path, config)
        return {seed: given for seed in search.seeds}

    def yardstick(self) -> Yardstick:
        """Turns samples into the objective on this machine."""
        session = self.session
        options, reuse = session.options, session.baseline.reuse
        examples, reading = session.prepared.examples, options.seconds_per_sample
        return Yardstick(session.machine(), options.price, reuse, examples, reading)

    def _rows(self, objective: str) -> list[Projected]:
        """What the search says of every batch size."""
        session, projection = self.session, self.projection
        assert projection is not None
        return projected(
            projection,
            self.yardstick(),
            objective=objective,
            today=(session.batch_size, session.learning_rate),
            maximise=session.prepared.metric.maximise,
        )

    def _try_growing(self) -> None:
        """The pilot of batches that grow, if it is paid for and nothing is confirmed yet."""
        session, known = self.session, self.journal.plan("G")
        unpaid = self.pilot is None or self.pilot.why_not == GROWING_UNPAID
        off = not session.options.growing or bool(session.options.tune)
        if off or self.confirmation is not None or not unpaid:
            return
        self._enter(3)
        plan = from_plain(PilotPlan, known) if known else self._plan_pilot()
        if isinstance(plan, Pilot):
            self.pilot = plan
            self.prices |= {"G": plan.seconds} if plan.seconds is not None else {}
        else:
            self.journal.plan("G", asdict(plan))
            self.pilot = run_pilot(session, plan, self.yardstick)
            self.prices.pop("G", None)
        self._save("growing", self.pilot)

    def _plan_pilot(self) -> PilotPlan | Pilot:
        """The longest pilot that leaves room for all that comes after it, finalists that grow
        among it.
        """
        session, projection = self.session, self.projection
        assert projection is not None
        finalists = TYPICAL_FINALISTS + MOST_GROWING
        finalists += len(self._stronger) + reusing.extra(self._again)
        kept = self._kept_for_confirmation(finalists)
        return plan_pilot(session, projection, self._rows("samples"), _spendable(session) - kept)

    def _kept_for_confirmation(self, finalists: int) -> float:
        """Seconds for all that comes after a pilot, with so many finalists like today's."""
        session = self.session
        kept = price_of_confirmation(session, finalists, session.batch_size)
        return kept + price_on_all(session) + _kept_for_noise(session) + self._kept_for_features()

    def _try_reusing(self) -> None:
        """The pilot of batches that are used again, if samples cost enough, it is paid for and
        nothing is confirmed yet.
        """
        session, known = self.session, self.journal.plan("E")
        unpaid = self.echoes is None or self.echoes.why_not == GROWING_UNPAID
        off = session.baseline.reuse != 1 or bool(session.options.tune)
        if off or self.confirmation is not None or not unpaid:
            return
        self._enter(3)
        plan = from_plain(EchoPlan, known) if known else self._plan_echoes()
        if isinstance(plan, Echoes):
            self.echoes = plan
            self.prices |= {"E": plan.seconds} if plan.seconds is not None else {}
        else:
            self.journal.plan("E", asdict(plan))
            self.echoes = reusing.run(session, plan, self.yardstick)
            self.prices.pop("E", None)
        self._save("reusing", self.echoes)

    def _plan_echoes(self) -> EchoPlan | Echoes:
        """The longest pilot that leaves room for all that comes after it."""
        session, rows = self.session, self._rows(self.session.options.objective)
        finalists = TYPICAL_FINALISTS + len(self._stronger) + sum(reusing.FACTORS)
        kept = self._kept_for_confirmation(finalists)
        return reusing.plan(session, self.yardstick(), rows, _spendable(session) - kept)

    def _try_strengthening(self) -> None:
        """The pilot of γ, if it is asked for and paid for and nothing is confirmed yet."""
        session, known = self.session, self.journal.plan("S")
        unpaid = self.strengths is None or self.strengths.why_not == GROWING_UNPAID
        if not session.options.gammas or self.confirmation is not None or not unpaid:
            return
        self._enter(3)
        plan = from_plain(StrengthPlan, known) if known else self._plan_strengths()
        if isinstance(plan, Strengths):
            self.strengths = plan
            self.prices |= {"S": plan.seconds} if plan.seconds is not None else {}
        else:
            self.journal.plan("S", asdict(plan))
            self.strengths = strengthening.run(session, plan, self.yardstick)
            self.prices.pop("S", None)
        self._save("strength", self.strengths)

    def _plan_strengths(self) -> StrengthPlan | Strengths:
        """The longest pilot that leaves room for all that comes after it."""
        session, rows = self.session, self._rows(self.session.options.objective)
        kept = self._kept_for_confirmation(TYPICAL_FINALISTS + 1)
        return strengthening.plan(session, rows, _spendable(session) - kept)

    @property
    def _stronger(self) -> tuple[Choice, ...]:
        """The best γ, if there is one."""
        return () if self.strengths is None else tuple(map(choice_of, self.strengths.best))

    @property
    def _beyond(self) -> tuple[Choice, ...]:
        """The finalists besides those of stage B: batches that grow, or what the search over all
        settings has found.
        """
        found = self.tuning if self.session.options.tune else self.pilot
        return () if found is None else tuple(map(choice_of, found.best))

    @property
    def _again(self) -> tuple[Choice, ...]:
        """The batches that are used again among the finalists."""
        return () if self.echoes is None else tuple(map(choice_of, self.echoes.best))

    def _confirm(self) -> None:
        """Stage C, if it is paid for."""
        self._enter(3)
        self.session.keeps_ends = not self.inside.why_not
        if self.confirmation is not None:
            return
        known = self.journal.plan("C")
        plan = from_plain(ConfirmationPlan, known) if known else self._plan_confirmation()
        if plan is None:
            return
        self.journal.plan("C", asdict(plan))
        self.confirmation = record = confirm(self.session, self.journal, plan, self.yardstick)
        while record is not None and (more := self.journal.plan(_repeats_after(record))):
            record = self.confirmation = confirm_more(self.session, record, tuple(more["seeds"]))
        if self.confirmation is not None:
            self._save("confirmation", self.confirmation)

    def _plan_confirmation(self) -> ConfirmationPlan | None:
        session, beyond = self.session, self._beyond
        rows = self._rows(session.options.objective) if self.projection else []
        again, stronger = self._again, self._stronger
        full = plan_confirmation(session, rows, math.inf, beyond, again, stronger)
        if full is None and self.projection is not None:
            beyond = nearest(self.projection, (session.batch_size, session.learning_rate))
            full = plan_confirmation(session, rows, math.inf, beyond)
        if full is None:
            self.prices.pop("C", None)
            session.listener.say(NOTHING_TO_CONFIRM)
            return None
        self.prices["C"] = seconds_of(session, full)
        left = _spendable(session)
        noise = _kept_for_noise(session) + self._kept_for_features()
        pair = price_on_all(session)
        # What comes after stage C never costs it: first the noise gives way, then the pair.
        plans = (
            plan_confirmation(session, rows, left - kept, beyond, again, stronger)
            for kept in sorted({noise + pair, pair, noise, 0.0}, reverse=True)
        )
        return next((plan for plan in plans if plan is not None), None)

    def _repeat_more(self) -> None:
        """More fresh repeats, where a resumed advice has budget left, had been confirmed before
        and is still undecided: a verdict is never looked at again.
        """
        session, record = self.session, self.confirmation
        if record is None or session.options.budget is None or not self._had_confirmation:
            return
        view = View(self._records(), session.options, bare_facts(session.prepared))
        if answer.verdict(view) is not Verdict.NOT_ENOUGH_EVIDENCE or answer.contradicted(view):
            return
        done = len(record.today)
        first, name = session.options.seed + FRESH + done, _repeats_after(record)
        left = _spendable(session) - self._kept_for_later(record)
        count = affordable_repeats(session, pace_of(record.choice), left)
        made = {"seeds": list(range(first, first + count))} if count else None
        plan = self.journal.plan(name, made)
        if plan is None:
            return
        session.listener.say(f"{len(plan['seeds'])} more repeats on fresh seeds")
        self.confirmation = confirm_more(session, record, tuple(plan["seeds"]))
        self._save("confirmation", self.confirmation)

    def _judge_growing(self) -> None:
        """Fresh seeds for the best batch that grows and its rival, as far as they have none yet
        and the budget pays.
        """
        session, record = self.session, self.confirmation
        if record is None or self.pilot is None or record.growers:
            return
        view = View(self._records(), session.options, bare_facts(session.prepared))
        if not answer.that_grow(view):
            return
        had = (view.today, record.choice)
        choices = [choice for choice in answer.growers(view) if choice not in had]
        known, seeds = self.journal.plan("G fresh"), [curve.seed for curve in record.today]
        left = _spendable(session) - _kept_for_noise(session) - self._kept_for_features()
        if known is None and seconds_of_fresh(session, choices, len(seeds)) > left:
            return
        plan = known or {"choices": choices, "seeds": seeds}
        self.journal.plan("G fresh", plan)
        if choices:
            settings = [choice_of(one) for one in plan["choices"]]
            self.confirmation = grown_afresh(session, record, settings, plan["seeds"])
            self._save("confirmation", self.confirmation)

    def _kept_for_later(self, record: Confirmation) -> float:
        """Seconds for what comes after the repeats, as far as it has not been measured."""
        pair = 0.0 if self.on_all else price_on_all(self.session, pace_of(record.choice))
        return pair + self._kept_for_features() + self._kept_for_robustness()

    def _kept_for_robustness(self) -> float:
        """Seconds for noise, and for the trainings on changed data that a resumed advice has been
        asked to pay.
        """
        if self.survey is None:
            return _kept_for_noise(self.session)
        return sum(self.survey.unpaid.values())

    def _repeat_on_all(self) -> None:
        """The pair on all data, where the stages ran on a part of them and the budget pays."""
        session, record = self.session, self.confirmation
        if session.prepared.drawn is None or record is None or self.on_all is not None:
            return
        self.prices[KEY] = price_on_all(session, pace_of(record.choice))
        known = self.journal.plan(KEY)
        plan = from_plain(WholePlan, known) if known else None
        left = _spendable(session)
        noise = _kept_for_noise(session) + self._kept_for_features()
        plan = plan or plan_on_all(session, record, left - noise)
        plan = plan or plan_on_all(session, record, left)
        if plan is None:
            return
        self.journal.plan(KEY, asdict(plan))
        self.on_all = repeat_on_all(session, plan, self.journal.out)
        self._save("on_all", self.on_all)

    @property
    def inside(self) -> inner.Inside:
        """Whether the features of trained models can be measured, and at what price."""
        if self._inside is None:
            self._inside = inner.look(self.session.prepared, self.session.options)
        return self._inside

    def _kept_for_features(self) -> float:
        """Seconds for what the models look at, where that is measured and has not been."""
        if self.insight is not None:
            return 0.0
        return inner.reserved(self.inside, self.session.options)

    def _look_inside(self) -> None:
        """What the models of both settings look at; later, where the budget did not pay for it."""
        session, known = self.session, self.journal.plan("C")
        measured = self.insight is not None and self.insight.why_not != BUDGET
        if self.confirmation is None or known is None or measured:
            return
        plan = from_plain(ConfirmationPlan, known)
        self.insight = inner.measure(
            session,
            self.journal,
            plan,
            self.confirmation,
            self.inside,
            _spendable(session) - _kept_for_noise(session),
            again=lambda chosen: sturdy.seconds_again(session, plan, chosen),
        )
        self._save("features", self.insight)

    def _survey(self) -> None:
        """Robustness and repeatability, if asked for: what needs trainings comes last, and what
        the budget does not pay for is named with its price.
        """
        session, known = self.session, self.journal.plan("C")
        if not session.options.robustness or self.confirmation is None or known is None:
            return
        self.survey = sturdy.measure(
            session,
            self.journal,
            from_plain(ConfirmationPlan, known),
            self.confirmation,
            self.survey,
            spendable=lambda: _spendable(session),
            save=lambda found: self._save("robustness", found),
        )
        self.prices.pop("R", None)
        if self.survey.unpaid:
            self.prices["R"] = sum(self.survey.unpaid.values())

    def outcome(self) -> Outcome:
        """What there is."""
        return Outcome(self._records(), self.prices, self.journal.measured)

    def _records(self) -> Records:
        session = self.session
        return Records(
            session.machine() if session.stopwatch.blocks else None,
            self.screening,
            self.projection,
            self.confirmation,
            session.elapsed,
            self.partial,
            self.journal.said,
            self.on_all,
            self.survey,
            self.insight,
            self.pilot,
            self.echoes,
            self.tuning,
            self.strengths,
        )


def _repeats_after(record: Confirmation) -> str:
    """The name of the plan of more repeats than a confirmation has."""
    return f"C after {len(record.today)} repeats"


def _kept_for_noise(session: Session) -> float:
    """Seconds that stage C leaves for noise on its runs; trainings on changed data come after."""
    if not session.options.robustness:
        return 0.0
    return sturdy.seconds_of_noise(session, 2 * session.options.confirm_seeds)


def _spendable(session: Session) -> float:
    """Seconds left, without the part kept for what cannot be foreseen and for the report."""
    return (1 - RESERVE) * session.left


def prices(session: Session) -> dict[str, float]:
    """What each stage would take, before anything but today's batch size is timed."""
    whole = session.run_seconds(session.today[0], session.samples) * session.engine_factor
    examples = round(NOISE_PROBES * EXAMPLES * COST)
    noise = session.run_seconds(session.batch_size, max(examples, session.batch_size))
    found = {
        "A": FIT_SECONDS + CHECKPOINT_SHARE * whole + noise,
        "B": max(whole, LEAST_SEARCH_SECONDS),
        "C": price_of_confirmation(session, TYPICAL_FINALISTS, session.batch_size),
    }
    if session.options.tune:
        found["B"] = max(price_of_tuning(session), LEAST_SEARCH_SECONDS)
    elif session.options.growing:
        found["G"] = price_of_pilot(session)
    if session.options.gammas:
        found["S"] = strengthening.price(session)
    repeat = price_on_all(session)
    if repeat:
        found[KEY] = repeat
    if session.options.robustness:
        found["R"] = sturdy.price(session, session.today)
    return found


def _price_of_features(session: Session, inside: inner.Inside) -> dict[str, float]:
    """What is read of trained models, unless it is left out."""
    if not inner.reserved(inside, session.options):
        return {}
    return {"F": inner.price(inside, session.options, TYPICAL_FINALISTS)}


def _time(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} seconds"


def price_list(prepared: Prepared, options: Options) -> tuple[dict[str, float], float]:
    """What each stage would take, from two short timings; nothing is trained or written.

    Args:
        prepared: The task.
        options: What is asked.

    Returns:
        Stage → seconds, and the seconds of one run of today's settings.
    """
    _check(prepared, options)
    with Engine(prepared, None) as engine:
        session = Session(
            prepared,
            options,
            engine,
            Silent(),
            Stopwatch(prepared, 1),
            began=time.perf_counter(),
        )
        time_evaluation(session)
        session.visit(all_sizes([session.today]))
        session.visit(all_sizes([session.today]))
        found = prices(session) | _price_of_features(session, inner.look(prepared, options))
        return found, session.run_seconds(session.today[0], session.samples)
