"""The three stages, one after the other, as far as the budget pays."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batchlab import schedules
from batchlab.advisor.confirm import (
    FRESH,
    ConfirmationPlan,
    confirm,
    confirm_more,
    plan_confirmation,
    price_of_confirmation,
)
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Yardstick, projected
from batchlab.advisor.options import Options
from batchlab.advisor.project import Search, checkpoints, plan_search, project
from batchlab.advisor.screen import screen
from batchlab.advisor.session import Listener, Session, Silent, Stopwatch, checkpoint_state
from batchlab.advisor.stages import Confirmation, Machine, Projection, Records, Screening
from batchlab.engine import Engine, RunState
from batchlab.errors import TaskError, must
from batchlab.tasks import Prepared
from batchlab.types import from_plain

DEMO_SECONDS = 150.0
"""What a built-in task may take without a budget."""
SEARCH_SHARE = 0.3
"""Share of the budget that stage B gets where stage C fits too."""
RESERVE = 0.05
"""Share of the budget kept for what cannot be foreseen and for the report."""
TYPICAL_FINALISTS = 3


@dataclass(frozen=True)
class Outcome:
    """What the stages found, and what the next one would take.

    Attributes:
        records: Everything measured.
        prices: Expected seconds of stages not run, by letter.
        run_seconds: One baseline run alone.
        said: Sentences told on the way that belong in the report.
    """

    records: Records
    prices: dict[str, float]
    run_seconds: float
    said: tuple[str, ...]


class Notes(Silent):
    """Passes everything on and keeps the sentences."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        """Keep and pass on."""
        self.sentences.append(sentence)
        self._listener.say(sentence)

    def progress(self, what: str, share: float) -> None:
        """Pass on."""
        self._listener.progress(what, share)


def run_stages(
    prepared: Prepared,
    options: Options,
    out: Path,
    *,
    resume: bool = False,
    builtin: bool = False,
    listener: Listener | None = None,
    workers: int | None = None,
) -> Outcome:
    """Measure as far as the budget pays.

    Args:
        prepared: The task.
        options: What is asked.
        out: Result directory.
        resume: Whether an unfinished one may be continued.
        builtin: Whether it is a built-in demonstration, which runs all stages without a budget.
        listener: Hears progress.
        workers: Worker processes; one per core if left out.

    Returns:
        What was found. After an interruption whatever stages had ended, marked partial.
    """
    _refuse_schedule(prepared)
    notes = Notes(listener or Silent())
    if options.budget is None and builtin:
        options = Options(**{**_fields(options), "budget": DEMO_SECONDS})
    journal = Journal(out, {"task": _task_facts(prepared), **_fields(options)}, resume)
    began = time.perf_counter()
    with Engine(prepared, out, workers) as engine:
        session = _session(prepared, options, engine, journal, notes, began)
        stages = _Stages(session)
        if journal.finished:
            # Made before with this very configuration: only written out again.
            session.began = math.inf
        else:
            try:
                stages.run()
                journal.finish()
            except KeyboardInterrupt:
                stages.partial = True
            journal.spend(session.elapsed)
        return stages.outcome(tuple(notes.sentences))


def _fields(options: Options) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__dataclass_fields__}


def _task_facts(prepared: Prepared) -> dict[str, Any]:
    """What must be the same for a result to be continued."""
    task = prepared.task
    return {
        "name": task.origin or task.name,
        "examples": prepared.examples,
        "validation": prepared.validation.examples,
        "baseline": asdict(prepared.baseline),
        "device": prepared.device,
    }


def _refuse_schedule(prepared: Prepared) -> None:
    size = prepared.baseline.batch_size
    assert size is not None
    if not schedules.batch_schedule(size).is_constant:
        hint = "advise compares constant batch sizes; give the baseline the size it mostly uses."
        raise TaskError(must("batch_size", "one number in the baseline", size, hint))


def _session(
    prepared: Prepared,
    options: Options,
    engine: Engine,
    journal: Journal,
    notes: Notes,
    began: float,
) -> Session:
    machine = journal.load("machine", Machine)
    threads = 1 if prepared.device == "cpu" else 0
    stopwatch = Stopwatch(prepared, threads or 1, machine.blocks if machine else None)
    session = Session(prepared, options, engine, journal, notes, stopwatch, began=began)
    session.fit = machine.fit if machine else None
    session.earlier_seconds = journal.spent
    return session


class _Stages:
    """The stages of one advice, each from its record if it has ended before."""

    def __init__(self, session: Session) -> None:
        self.session, self.journal = session, session.journal
        self.screening: Screening | None = self.journal.load("screening", Screening)
        self.projection: Projection | None = self.journal.load("projection", Projection)
        self.confirmation: Confirmation | None = self.journal.load("confirmation", Confirmation)
        self._had_confirmation = self.confirmation is not None
        self.prices: dict[str, float] = {}
        self.partial = False
        if self.screening is not None:
            session.engine_factor = self.screening.engine_factor
            session.evaluation_seconds = self.screening.evaluation_seconds

    def run(self) -> None:
        """All stages the budget pays for."""
        state = self._screen()
        if not self._search(state):
            return
        self._confirm()
        self._repeat_more()

    def _screen(self) -> RunState | None:
        """Stage A, and the checkpoint where stage B begins."""
        session = self.session
        if self.screening is not None:
            return None
        session.visit([session.batch_size])
        whole = session.run_seconds(session.batch_size, session.samples)
        if whole > session.left:
            session.listener.say(
                f"one run of today's settings takes about {_time(whole)}, longer than the budget: "
                "this goes no further than a projection"
            )
        self.journal.plan("A", {"checkpoint_share": 0.05, "baseline": asdict(session.baseline)})
        self.screening, state = screen(session)
        self.journal.save("screening", self.screening)
        self._save_machine()
        return state

    def _save_machine(self) -> None:
        self.journal.save("machine", self.session.machine())

    def _search(self, state: RunState | None) -> bool:
        """Stage B; False if it is not paid for."""
        session = self.session
        assert self.screening is not None
        if self.projection is not None:
            return True
        known = self.journal.plan("B")
        search = from_plain(Search, known) if known else self._plan_search()
        if search is None:
            return False
        self.journal.plan("B", asdict(search))
        self.projection = project(session, search, self._starts(search, state))
        self.journal.save("projection", self.projection)
        self._save_machine()
        return True

    def _plan_search(self) -> Search | None:
        """The longest search that leaves room for stage C where that fits at all."""
        session, screening = self.session, self.screening
        assert screening is not None
        whole = session.run_seconds(session.batch_size, session.samples)
        finalist = max(1, session.batch_size)
        cheapest = price_of_confirmation(session, 1, finalist)
        usual = price_of_confirmation(session, TYPICAL_FINALISTS, finalist)
        usual_search = max(whole * session.engine_factor, 10.0)
        self.prices = {"B": usual_search, "C": usual}
        if session.options.budget is None:
            return None
        left = session.left - RESERVE * session.options.budget
        allowed = left
        if cheapest + 0.1 * session.options.budget < left:
            allowed = max(
                0.1 * left, min(max(SEARCH_SHARE * session.options.budget, whole), left - usual)
            )
            allowed = min(allowed, left - cheapest)
        return plan_search(session, screening, allowed)

    def _starts(self, search: Search, state: RunState | None) -> dict[int, RunState]:
        """Seed → checkpoint."""
        session, path = self.session, self.session.options.from_checkpoint
        if path is None:
            return checkpoints(session, search, state)
        config = session.config(session.batch_size, session.learning_rate, search.seeds[0])
        given = checkpoint_state(session.prepared, path, config)
        return {seed: given for seed in search.seeds}

    def yardstick(self) -> Yardstick:
        """Turns samples into the objective on this machine."""
        session = self.session
        return Yardstick(session.machine(), session.options.price, session.baseline.reuse)

    def _confirm(self) -> None:
        """Stage C, if it is paid for."""
        session = self.session
        assert self.projection is not None
        if self.confirmation is not None:
            return
        known = self.journal.plan("C")
        plan = from_plain(ConfirmationPlan, known) if known else self._plan_confirmation()
        if plan is None:
            return
        self.journal.plan("C", asdict(plan))
        self.confirmation = confirm(session, plan, self.yardstick)
        self.journal.save("confirmation", self.confirmation)
        self._save_machine()

    def _plan_confirmation(self) -> ConfirmationPlan | None:
        session, projection = self.session, self.projection
        assert projection is not None
        rows = projected(
            projection,
            self.yardstick(),
            objective=session.options.objective,
            today=(session.batch_size, session.learning_rate),
            maximise=session.prepared.metric.maximise,
        )
        reserve = RESERVE * (session.options.budget or 0.0)
        plan = plan_confirmation(session, rows, session.left - reserve)
        full = plan_confirmation(session, rows, math.inf)
        if plan is None and full is not None:
            sizes = [size for size, _ in full.pairs()]
            self.prices["C"] = price_of_confirmation(session, len(sizes), max(sizes))
        if full is None:
            session.listener.say(
                "no candidate did as well as today's settings in the search: nothing to confirm"
            )
        return plan

    def _repeat_more(self) -> None:
        """More fresh repeats, where a resumed advice has budget left and had been confirmed
        before.
        """
        session, record = self.session, self.confirmation
        asked = session.options.budget
        if record is None or asked is None or not self._had_confirmation:
            return
        size = int(record.chosen[0])
        pair = session.run_seconds(session.batch_size, session.samples) + session.run_seconds(
            size, session.samples
        )
        count = int(
            0.8
            * session.left
            * max(1, session.engine.workers)
            / max(1e-9, pair * session.engine_factor)
        )
        count = min(count, 64)
        if count < 1:
            return
        done = len(record.today)
        first = session.options.seed + FRESH + done
        session.listener.say(f"{count} more repeats on fresh seeds")
        self.confirmation = confirm_more(session, record, tuple(range(first, first + count)))
        self.journal.save("confirmation", self.confirmation)
        self._save_machine()

    def outcome(self, said: tuple[str, ...]) -> Outcome:
        """What there is."""
        session = self.session
        machine = session.machine() if session.stopwatch.blocks else None
        whole = session.run_seconds(session.batch_size, session.samples) if machine else math.nan
        records = Records(
            machine,
            self.screening,
            self.projection,
            self.confirmation,
            session.elapsed,
            self.partial,
            said,
        )
        return Outcome(records, self.prices, whole, said)


def _time(seconds: float) -> str:
    """Seconds in the unit a person would use."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} seconds"


def price_list(prepared: Prepared, options: Options) -> tuple[dict[str, float], float]:
    """What each stage would take, from two short timings; trains nothing that is kept.

    Args:
        prepared: The task.
        options: What is asked.

    Returns:
        Stage → seconds, and the seconds of one run of today's settings.
    """
    _refuse_schedule(prepared)
    with Engine(prepared, None) as engine:
        stopwatch = Stopwatch(prepared, 1)
        journal = Journal(Path("batchlab-dry-run"), {}, False)
        session = Session(
            prepared, options, engine, journal, Silent(), stopwatch, began=time.perf_counter()
        )
        session.visit([session.batch_size])
        session.visit([session.batch_size])
        whole = session.run_seconds(session.batch_size, session.samples)
        prices = {
            "A": 5.0 + 0.05 * whole * session.engine_factor,
            "B": max(whole * session.engine_factor, 10.0),
            "C": price_of_confirmation(session, TYPICAL_FINALISTS, session.batch_size),
        }
        return prices, whole
