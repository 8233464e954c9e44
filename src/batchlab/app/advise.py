"""The advice from beginning to end: check, measure, decide, write everything down."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from batchlab import _platform, report
from batchlab._platform import version
from batchlab._team import Team, gathered
from batchlab._text import Text
from batchlab.advisor.advise import PARTS, Outcome, price_list, run_stages
from batchlab.advisor.assemble import Facts, assemble
from batchlab.advisor.journal import parse_seconds, read_record
from batchlab.advisor.options import Options
from batchlab.advisor.record import Price
from batchlab.advisor.session import Listener
from batchlab.advisor.stages import (
    Confirmation,
    Echoes,
    Grown,
    Machine,
    OnAll,
    Pilot,
    Projection,
    Records,
    Screening,
    Strengths,
    Tuning,
    choice_of,
    gamma_of,
)
from batchlab.advisor.strength import why_not
from batchlab.advisor.tuning.propose import library
from batchlab.advisor.tuning.space import FIELDS, names_in, names_of
from batchlab.advisor.view import bare_facts
from batchlab.advisor.whole import KEY
from batchlab.app import elsewhere, kinds, watched
from batchlab.app.advice import Advice
from batchlab.app.processes import Beating, check_same, together
from batchlab.cluster.place import Cluster
from batchlab.engine.choice import EXECUTORS, Choices
from batchlab.engine.store import collect, opened, stamped
from batchlab.errors import (
    InvalidTypeError,
    InvalidValueError,
    ResultError,
    TaskError,
    cannot_read,
    must,
)
from batchlab.measure import plain
from batchlab.measure._units import column_names
from batchlab.measure.features import Reader
from batchlab.measure.insight import Insight, curvature_of
from batchlab.measure.repeatability import reading_of
from batchlab.measure.sturdiness import Survey
from batchlab.models.feature_strength import checked_gamma
from batchlab.progress import listening
from batchlab.report import charts, figures, formats, measured
from batchlab.report.reuse import ReuseReport
from batchlab.schedules import sizes_of
from batchlab.stats import TYPICAL_LOG_SD, smallest_detectable_ratio
from batchlab.tasks import Prepared, Task, load, prepare
from batchlab.tasks.loading import BUILTIN
from batchlab.tasks.prepare import first_batch
from batchlab.tasks.subset import named, subset_of
from batchlab.types import Evidence, from_plain, to_plain

RESULTS = "batchlab-results"
DEMO_SECONDS = {"digits": 135.0, "teacher": 135.0}
"""What a demonstration may take without a budget."""
DAMAGED = "it is damaged; the command that made it makes it again"
APPLIED = tuple(dict.fromkeys((*Grown._fields, *FIELDS)))
"""Fields of a recommendation that ``apply.py`` takes over."""


def advise(
    task: Task | str,
    *,
    objective: str = "time",
    at_least: Mapping[str, float] | None = None,
    target: float | None = None,
    worth: float = 1.2,
    budget: str | float | None = None,
    price_per_hour: float | Mapping[str, float] | None = None,
    currency: str = "USD",
    price_per_sample: float = 0.0,
    seconds_per_sample: float = 0.0,
    seeds: int = 5,
    confirm_seeds: int = 8,
    batch_sizes: Sequence[int] | None = None,
    from_checkpoint: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    memory_limit: str | int | None = None,
    robustness: bool = False,
    prefer: str | None = None,
    growing: bool = True,
    tune: str | Sequence[str] | None = None,
    gammas: Sequence[float] | None = None,
    data: str | Path | None = None,
    subset: str | float | None = None,
    resume: bool = False,
    on: str | None = None,
    max_spend: float | None = None,
    listener: Listener | None = None,
    command: str = "",
) -> Advice:
    """Measure which batch size and learning rate to use, and how sure that is.

    Three priced stages: screening, projection, confirmation; it stops after the last one the
        budget pays for.

    Args:
        task: A :class:`Task`, a built-in name, ``file.py:function`` or ``module:function``.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        at_least: Metric → value that the recommendation must keep on validation data.
        target: Metric value that counts as trained; left out, what four in five runs of today's
            settings reach.
        worth: Smallest gain worth a change, a ratio above 1.
        budget: ``90s``, ``2m``, ``1h`` or seconds. Left out, digits and teacher run all stages,
            others stage A.
        price_per_hour: What an hour of computing costs; with ``on`` also kind of node → price.
        currency: Its currency.
        price_per_sample: What a fresh example costs.
        seconds_per_sample: Seconds that reading a fresh example takes in your own training,
            beside what is timed here; added to every time.
        seeds: Repeats used for choosing.
        confirm_seeds: Fresh repeats used for the reported comparison.
        batch_sizes: Candidates, instead of those around the measured noise scale.
        from_checkpoint: ``state_dict`` file from which the projection starts.
        out: Result directory; by default ``batchlab-results/advise-<task>``.
        seed: Names every random draw.
        device: ``auto``, ``cpu``, ``cuda`` …
        memory_limit: Such as ``2GiB``.
        robustness: Also measure how the metric changes with noise, drift, wrong labels and less
            data, and on how many examples two trainings disagree.
        prefer: Decides among finalists that the repeats cannot tell apart: ``repeatable`` takes
            the one whose trainings agree best, ``sparse`` the one whose decisions rest on the
            fewest internal features, ``flat`` the one whose loss is least sharp around it. Where
            the repeats cannot tell that apart either, the best by the objective is kept.
        growing: Whether batches that grow during a training are tried too, where the budget pays
            for it.
        tune: Settings that are searched together in the place of stage B, such as
            ``("batch_size", "learning_rate", "momentum")``, or ``"all"``; needs
            ``batchlab[optuna]``. What is found is confirmed as ever, on fresh seeds.
        gammas: Feature-learning strengths γ that are tried too, such as ``[0.1, 1, 10]``: the
            model is trained as (f − its start)/γ. The best joins the comparison.
        data: Folder with the data of ``mnist`` or ``cifar10``.
        subset: Part of the training data that the stages use: ``"10%"``, ``0.1`` or a number of
            examples. One pair is then repeated on all data, if the budget pays.
        resume: Continue an unfinished directory, or spend a larger budget on a finished one.
        on: A Ray cluster that trains: ``ray`` for the one here, which is started if none runs,
            or ``ray://HOST:PORT``; needs ``batchlab[ray]``.
        max_spend: Training stops before the nodes of the cluster cost more.
        listener: Hears progress. Left out, one line shows it in a notebook and on a terminal;
            ``batchlab.Quiet()`` says nothing.
        command: What was typed, for the report.

    Returns:
        The advice; ``report.html``, ``advice.json`` and ``summary.md`` are written beside it, and
        ``apply.py`` where the task has a name by which a script finds it.

    Raises:
        UserError: With one sentence about what is wrong.
    """
    began = time.perf_counter()  # the budget pays for loading too
    options = options_from(
        objective=objective,
        at_least=at_least,
        target=target,
        worth=worth,
        budget=budget,
        price_per_hour=None if isinstance(price_per_hour, Mapping) else price_per_hour,
        currency=currency,
        price_per_sample=price_per_sample,
        seconds_per_sample=seconds_per_sample,
        seeds=seeds,
        confirm_seeds=confirm_seeds,
        batch_sizes=batch_sizes,
        from_checkpoint=from_checkpoint,
        seed=seed,
        memory_limit=memory_limit,
        subset=subset,
        robustness=robustness,
        prefer=prefer,
        growing=growing,
        tune=tune,
        gammas=gammas,
    )
    where = elsewhere.Asked(on, price_per_hour, max_spend, currency)
    with gathered() as team:
        if on is not None and team.size > 1:
            raise InvalidValueError(must("on", "left out under torchrun", on))
        loaded, argument = team.own(lambda: found(task, data))
        options = replace(options, world_size=team.size)
        origin = task if isinstance(task, str) else task.origin
        if options.budget is None:
            options = replace(options, budget=DEMO_SECONDS.get(origin or ""))
        prepared = team.own(lambda: _prepared(loaded, options, team.device(device)))
        check_same(team, prepared)
        folder = Path(out) if out is not None else default_out("advise", loaded)
        typed = command or typed_command(argument, options, folder, device, data)
        wanted = _Wanted(options, folder, origin in BUILTIN, resume, typed, where, began)
        return team.lead(prepared, lambda: _advised(team, wanted, listener))


class _Wanted(NamedTuple):
    """What :func:`advise` was asked, checked."""

    options: Options
    folder: Path
    builtin: bool
    resume: bool
    typed: str
    where: elsewhere.Asked
    began: float


def _advised(team: Team, wanted: _Wanted, listener: Listener | None) -> Advice:
    """Measure, decide, and write it all down."""
    prepared: Prepared = team.context
    options, folder, builtin, resume, typed, where, began = wanted
    with listening(listener, options.budget) as told, _platform.DirectoryLock(folder):
        hears = Beating(told, team)
        if resume and not (folder / "plan.json").exists():
            hears.say(f"`{folder}` holds nothing to resume: this starts from the beginning")
        with elsewhere.place(where, told, folder) as cluster:
            outcome = run_stages(
                prepared,
                options,
                folder,
                resume=resume,
                listener=hears,
                on=cluster,
                team=team,
                began=began,
            )
            facts = _facts(prepared, options, outcome, typed, builtin)
            beside = elsewhere.told(cluster, folder)
            facts = replace(facts, provenance=facts.provenance | beside)
            made = Made(prepared, options, facts, outcome.records)
            if team.size > 1:
                first = assemble(made.records, options, facts)
                made = made.saying(together(team, first.today, first.recommended, folder, hears))
            advice, missing = made.written(folder)
            if cluster is not None and len(cluster.fleet.kinds()) > 1:
                made = made.saying(_by_kind(cluster, made, folder))
                advice, missing = made.written(folder)
        for sentence in missing:
            hears.say(sentence.en)
    return advice


@dataclass(frozen=True)
class Made:
    """Everything from which an advice is put together.

    Attributes:
        prepared: The task.
        options: What was asked.
        facts: About the task and the measurement.
        records: What was measured.
    """

    prepared: Prepared
    options: Options
    facts: Facts
    records: Records

    def written(self, folder: Path) -> tuple[Advice, tuple[Text, ...]]:
        """The advice, in its result directory; and what could not be written."""
        advice = Advice.of(assemble(self.records, self.options, self.facts))
        said = self.records.said
        return advice, _write(folder, advice, self.prepared, self.options, self.facts, said)

    def saying(self, sentences: Sequence[str]) -> Made:
        """The same with more to say."""
        records = replace(self.records, said=(*self.records.said, *sentences))
        return replace(self, records=records)


def _by_kind(cluster: Cluster, made: Made, folder: Path) -> list[str]:
    """What the advice comes to on each kind of node of a cluster, in sentences."""
    machine = made.records.machine
    sizes = [] if machine is None else sorted(map(int, machine.blocks))
    currency = cluster.fleet.purse.currency

    def judge(kind: Path, price: float) -> Advice:
        return again(folder, kind, (price, currency, None))

    return kinds.verdict(kinds.compared(cluster, made.prepared, sizes, folder, judge))


def options_from(
    *,
    at_least: Mapping[str, float] | None = None,
    budget: str | float | None = None,
    price_per_hour: float | None = None,
    currency: str = "USD",
    price_per_sample: float = 0.0,
    batch_sizes: Sequence[int] | None = None,
    subset: str | float | None = None,
    tune: str | Sequence[str] | None = None,
    gammas: Sequence[float] | None = None,
    **rest: Any,
) -> Options:
    """The options of :func:`advise` as a record; texts are read and checked here.

    Example:
        >>> options_from(budget="2m", price_per_hour=1.2).budget
        120.0
    """
    seconds = None if budget is None else parse_seconds(budget)
    if seconds is not None and math.isnan(seconds):
        raise InvalidValueError(must("budget", "above 0 seconds", budget, "Write 90s, 2m or 1h."))
    return Options(
        at_least=dict(at_least or {}),
        budget=seconds,
        price=_price(price_per_hour, currency, price_per_sample),
        batch_sizes=tuple(batch_sizes) if batch_sizes else None,
        subset=named(subset),
        tune=names_of(tune),
        gammas=_gammas(gammas),
        **rest,
    )


def dry_run(
    task: Task | str, options: Options, *, device: str = "auto", data: str | Path | None = None
) -> DryRun:
    """What an advice would measure and cost, from two short timings; nothing is kept.

    Args:
        task: As in :func:`advise`.
        options: What would be asked.
        device: Where it would run.
        data: Folder with the data of a built-in task.

    Returns:
        Seconds of one run and of each stage, and the smallest ratio the repeats could show.
    """
    loaded, _ = found(task, data)
    prepared = _prepared(loaded, options, device)
    prices, whole = price_list(prepared, options)
    accuracy = options.objective == "accuracy"
    spread = 1.0 if accuracy else TYPICAL_LOG_SD
    detectable = smallest_detectable_ratio(spread, options.confirm_seeds)
    detectable = math.log(detectable) if accuracy else detectable
    said = prepared.assumptions
    names, _ = _tuned(options, prepared)
    return DryRun(
        loaded.name,
        whole,
        prices,
        detectable,
        said,
        options.budget,
        options.price,
        names,
        accuracy,
    )


@dataclass(frozen=True)
class DryRun:
    """The price list of an advice.

    Attributes:
        task: Name.
        run_seconds: One run of today's settings.
        stages: Stage → expected seconds.
        smallest_detectable: Smallest ratio that the fresh repeats would show, with the usual
            spread; for ``accuracy`` the smallest difference, in standard deviations between pairs.
        assumptions: Sentences.
        budget: Seconds, or None.
        price: Or None.
        tuned: What the search in the place of stage B would tune.
        accuracy: Whether accuracy is the objective.
    """

    task: str
    run_seconds: float
    stages: dict[str, float]
    smallest_detectable: float
    assumptions: tuple[str, ...]
    budget: float | None = None
    price: Price | None = None
    tuned: tuple[str, ...] = ()
    accuracy: bool = False

    def __str__(self) -> str:
        search = f"search over {', '.join(self.tuned)}" if self.tuned else "projection"
        told = {"A": "screening", "B": search, "C": "confirmation"} | PARTS
        one = formats.duration(self.run_seconds).en
        lines = [f"{self.task}: one training of today takes about {one}."]
        lines += [
            f"  stage {k}, {told[k]}: about {self.stages[k]:.0f} s{self._cost(self.stages[k])}"
            for k in told
            if k in self.stages
        ]
        if KEY in self.stages:
            pair = self.stages[KEY]
            lines.append(f"  one pair on all data: about {pair:.0f} s{self._cost(pair)}")
        if self.budget is not None:
            lines.append(f"  the budget of {self.budget:.0f} s: {self._reach(self.budget)}")
        least = f"{self.smallest_detectable:.2f}"
        unit = " standard deviations between pairs" if self.accuracy else "×"
        lines.append(f"  the smallest gain the fresh repeats would show: {least}{unit}")
        return "\n".join([*lines, *(f"  assumed: {a}" for a in self.assumptions)])

    def _cost(self, seconds: float) -> str:
        if self.price is None or not self.price.per_hour:
            return ""
        return f", {seconds * self.price.per_hour / 3600:.2g} {self.price.currency}"

    def _reach(self, budget: float) -> str:
        """How far the budget should reach; a search can be shorter than usual."""
        a, b, c = (self.stages[letter] for letter in "ABC")
        c += self.stages.get("F", 0.0)
        names = {key: PARTS[key] for key in "GES"} | {KEY: "the pair on all data", "R": PARTS["R"]}
        later = " and ".join(name for key, name in names.items() if key in self.stages)
        whole = a + b + c + sum(self.stages.get(key, 0.0) for key in names)
        if later and whole <= budget:
            return f"enough for all stages and {later}"
        rest = f"; {later} as far as time is left" if later else ""
        if a + b + c <= budget:
            return f"enough for all stages{rest}"
        if a + c <= budget:
            return f"enough for all stages with a shorter search{rest}"
        return "stage A, and B as far as it fits"


def render(
    folders: Sequence[str | Path],
    *,
    machine: str | Path | None = None,
    price_per_hour: float | None = None,
    currency: str | None = None,
    price_per_sample: float | None = None,
    out: str | Path | None = None,
) -> Path:
    """Make the report again from stored records, for another price or machine, or of two results
    side by side.

    Args:
        folders: Result directories of ``advise`` or of watched trainings, or one of
            ``compare --reuse``.
        machine: Directory made by ``batchlab fit TASK --out`` on another machine.
        price_per_hour: Another price.
        currency: Its currency.
        price_per_sample: What a fresh example costs.
        out: Where the page is written; by default ``report.html`` in the (first) folder.

    Returns:
        The page.

    Raises:
        ResultError: If a folder holds no finished stage.
    """
    if not folders:
        raise InvalidValueError(must("folders", "at least one result directory", "none"))
    if watched.among(folders, machine):
        price = watched.priced(price_per_hour, currency, price_per_sample)
        command = shlex.join(["batchlab", "report", *map(str, folders)])
        asked = watched.Asked(price, command=command)
        return watched.report_on(folders, asked, out=out).page
    prices = (price_per_hour, currency, price_per_sample)
    if len(folders) == 1 and (Path(folders[0]) / "reuse.json").is_file():
        return _reuse_again(Path(folders[0]), (machine, *prices), out)
    advices = [again(Path(folder), machine, prices) for folder in folders]
    other = machine is not None or any(p is not None for p in prices)
    name = (
        "comparison.html" if len(advices) > 1 else "report-again.html" if other else "report.html"
    )
    page = Path(out) if out is not None else Path(folders[0]) / name
    if len(advices) > 1:
        _platform.write_whole(page, report.compare_page(advices))
    else:
        report.write(advices[0], page)
    return page


def _reuse_again(folder: Path, other: Sequence[object], out: str | Path | None) -> Path:
    """The page of ``compare --reuse`` from its record; of another price that command judges."""
    if any(one is not None for one in other):
        hint = "Give the price to the same compare command: it trains nothing again."
        got = next(str(one) for one in other if one is not None)
        raise InvalidValueError(
            must("price or machine", "left out for compare --reuse", got, hint)
        )
    page = folder / "reuse.html" if out is None else Path(out)
    known = from_plain(ReuseReport, _json(folder / "reuse.json"))
    _platform.write_whole(page, measured.reuse_page(known))
    return page


def again(
    folder: Path, machine: str | Path | None, prices: tuple[float | None, str | None, float | None]
) -> Advice:
    """The advice of a result directory, judged anew for a machine and a price."""
    kept, facts, options = _kept(folder / "facts.json")
    per_hour, currency, per_sample = prices
    old = options.price or Price(0.0, "USD")
    if any(p is not None for p in prices):
        price = _price(
            old.per_hour if per_hour is None else per_hour,
            currency or old.currency,
            old.per_sample if per_sample is None else per_sample,
        )
        options = replace(options, price=price)
    records = Records(
        machine=_stage(Path(machine) if machine else folder, "machine", Machine),
        screening=_stage(folder, "screening", Screening),
        projection=_stage(folder, "projection", Projection),
        confirmation=_stage(folder, "confirmation", Confirmation),
        on_all=_stage(folder, "on_all", OnAll),
        survey=_stage(folder, "robustness", Survey),
        insight=_stage(folder, "features", Insight),
        pilot=_stage(folder, "growing", Pilot),
        echoes=_stage(folder, "reusing", Echoes),
        tuning=_stage(folder, "tuning", Tuning),
        strengths=_stage(folder, "strength", Strengths),
        wall_seconds=kept["wall_seconds"],
        partial=kept["partial"],
        said=tuple(kept["said"]),
        elsewhere=machine is not None,
    )
    if machine is not None:
        _check_machine(records.machine, facts.task, machine)
    if machine is not None and records.confirmation is not None:
        # Timings of the other machine had no part in the choice.
        _check_wrapped(records, machine)
        untimed = replace(records.confirmation, timed={}, timed_wrapped={})
        records = replace(records, confirmation=untimed)
        if records.on_all is not None:
            records = replace(records, on_all=replace(records.on_all, blocks={}, wrapped={}))
    return Advice.of(assemble(records, options, facts))


def _kept(path: Path) -> tuple[dict[str, Any], Facts, Options]:
    """What a result says beside its records: all of it, the facts and what was asked."""
    if not path.is_file():
        raise ResultError(
            f"`{path.parent}` holds no result of batchlab advise ({path.name} is missing), and no "
            "watched training."
        )
    try:
        kept = opened(_platform.read_whole(path))
        return kept, from_plain(Facts, kept["facts"]), from_plain(Options, kept["options"])
    except Exception as error:  # from_plain raises whatever another structure leads it to
        raise cannot_read(path, DAMAGED) from error


def _check_machine(measured: Machine | None, task: str, folder: str | Path) -> None:
    """The timings of another machine must be there, and be of the same task."""
    if measured is None or not measured.blocks:
        raise ResultError(
            f"`{folder}` holds no machine.json. Make it with batchlab fit TASK --out {folder}."
        )
    if measured.task not in ("", task):
        raise ResultError(
            f"`{folder}` was measured with the task {measured.task}, this result is of {task}. "
            f"Run batchlab fit with {task} on that machine."
        )


def _check_wrapped(records: Records, folder: str | Path) -> None:
    """A γ that today's model has not has a time of its own, which must have been timed there."""
    here, there = records.confirmation, records.machine
    assert here is not None
    strengths = [gamma_of(choice_of(one)) for one in here.finalists]
    if any(gamma is not None for gamma in strengths) and there is not None and not there.wrapped:
        raise ResultError(
            f"`{folder}` holds no times of the model with a γ, which this result compares. "
            f"Measure them on that machine: batchlab fit TASK --with-gamma --out {folder}."
        )


def ways(folder: Path) -> list[str]:
    """How the runs of a result were trained, and why so; one line each.

    Args:
        folder: Result directory, with what was trained in folders of its own, such as ``labels``.
    """
    said = (
        f"executor by {'timing' if one.timings else 'rule'}: {one.executor} ({one.reason})"
        for path in sorted(folder.rglob(EXECUTORS), key=lambda path: (len(path.parts), path))
        for one in Choices(path).all()
    )
    return list(dict.fromkeys(said))


def found(task: Task | str, data: str | Path | None = None) -> tuple[Task, str]:
    """The task, and how it is named on the command line."""
    if isinstance(task, Task):
        return task, task.origin or task.name
    return load(task, data), task


def default_out(command: str, task: Task) -> Path:
    """``batchlab-results/<command>-<task>``, with what file systems dislike replaced.

    Example:
        >>> from batchlab.tasks import load
        >>> default_out("advise", load("digits")).name
        'advise-digits'
    """
    return named_out(command, task.name)


def named_out(command: str, task: str) -> Path:
    """:func:`default_out` of a task that is known by its name."""
    name = re.sub(r"[^\w.-]+", "-", task, flags=re.UNICODE).strip("-.") or "task"
    return Path(RESULTS) / f"{command}-{name}"


def _price(per_hour: float | None, currency: str, per_sample: float) -> Price | None:
    for name, value in (("price_per_hour", per_hour), ("price_per_sample", per_sample)):
        if value is not None and not 0 <= value < math.inf:
            raise InvalidValueError(must(name, "0 or more", value))
    return Price(per_hour or 0.0, currency, per_sample) if per_hour or per_sample else None


def _refuse_torchrun() -> None:
    if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        raise TaskError(
            "This command runs in one process: start it without torchrun. With it, fit, noise and "
            "advise run, and watch in your own loop."
        )


def _prepared(task: Task, options: Options, device: str) -> Prepared:
    """The task on the part of its data that is asked for, if the options make sense for it."""
    prepared = subset_of(prepare(task, device=device), options.subset, options.seed)
    _check_options(prepared, options)
    if prepared.drawn is not None and (options.target is not None or options.at_least):
        said = "a target and demands on the metric are judged by trainings on the part"
        prepared = replace(prepared, assumptions=(*prepared.assumptions, said))
    size = prepared.baseline.batch_size or 1
    if len(sizes_of(size)) > 1:
        said = (
            f"today's batch size is a schedule ({size}): the short run, the search over batch "
            f"sizes and the pilots compare with {sizes_of(size)[0]} throughout, whole trainings "
            "with the schedule itself"
        )
        prepared = replace(prepared, assumptions=(*prepared.assumptions, said))
    return prepared


def _check_options(prepared: Prepared, options: Options) -> None:
    """Demands that only make sense for this task."""
    for size in (*sizes_of(prepared.baseline.batch_size or 1), *(options.batch_sizes or ())):
        if size % options.world_size:
            hint = "Each takes an equal part of every batch."
            constraint = f"a multiple of the {options.world_size} processes"
            raise InvalidValueError(must("batch_size", constraint, size, hint))
    known = {"loss", prepared.metric.name}
    for name in options.at_least:
        if name not in known:
            raise InvalidValueError(must("at_least", f"about {' or '.join(sorted(known))}", name))
    for size in options.batch_sizes or ():
        if size > prepared.examples:
            raise InvalidValueError(
                must("batch_sizes", f"at most the {prepared.examples} training examples", size)
            )
    shares = [("target", options.target), ("at_least", options.at_least.get(prepared.metric.name))]
    for name, value in shares:
        if value is not None and prepared.metric.unit == "%" and not 0 <= value <= 1:
            hint = f"Write 0.97 for 97 % {prepared.metric.name}."
            raise InvalidValueError(must(name, "a share between 0 and 1", value, hint))
    if prepared.task.columns is not None:
        column_names(prepared.task, first_batch(prepared))
    if options.prefer == "sparse" and Reader(prepared).site is None:
        hint = "It counts the units of the layer that feeds the output."
        got = "one whose model has no such layer"
        raise InvalidValueError(must("prefer", "repeatable or left out for this task", got, hint))
    if options.prefer == "flat" and curvature_of(prepared) is None:
        hint = "Sharpness needs second derivatives."
        got = "one whose model cannot be differentiated twice"
        raise InvalidValueError(must("prefer", "repeatable or left out for this task", got, hint))
    if options.prefer == "repeatable" and reading_of(prepared) is None:
        hint = "It needs one target an example, and outputs that are classes or numbers like it."
        got = "one whose predictions cannot be compared"
        raise InvalidValueError(must("prefer", "left out for this task", got, hint))
    if options.gammas:
        _check_gammas(prepared)
    if options.tune:
        library()
        _tuned(options, prepared)
    path = options.from_checkpoint
    if path is not None and not Path(path).is_file():
        raise InvalidValueError(must("from_checkpoint", "a file with a state_dict", path))


def _gammas(asked: Sequence[float] | None) -> tuple[float, ...]:
    """γ to try, ascending, each once."""
    if isinstance(asked, int | float):
        raise InvalidTypeError(must("gammas", "a list", asked, f"Write gammas=[{asked}]."))
    return tuple(sorted({checked_gamma(gamma) for gamma in asked or ()}))


def _tuned(options: Options, prepared: Prepared) -> tuple[tuple[str, ...], str]:
    """What is tuned, and why γ is left out of ``all``, if it is."""
    return names_in(options.tune, prepared.baseline.rule, lambda: why_not(prepared))


def _check_gammas(prepared: Prepared) -> None:
    """γ needs a model that can have one, and has none today."""
    if prepared.baseline.gamma is not None:
        hint = "Or search around it: --tune learning_rate,gamma."
        known = prepared.baseline.gamma
        raise InvalidValueError(must("gammas", f"left out where today's is {known:g}", "γ", hint))
    refused = why_not(prepared)
    if refused:
        hint = f"The model cannot be trained as (f − its start)/γ: {refused}."
        raise InvalidValueError(must("gammas", "left out for this task", "γ", hint))


def _facts(
    prepared: Prepared, options: Options, outcome: Outcome, command: str, builtin: bool
) -> Facts:
    return replace(
        bare_facts(prepared),
        command=command,
        version=version(),
        builtin=builtin,
        prices=outcome.prices,
        provenance=provenance(prepared, options),
        created=outcome.measured,
    )


def typed_command(
    argument: str, options: Options, folder: Path, device: str, data: str | Path | None
) -> str:
    """The command line that asks for the same as a call from Python, the budget left out.

    Example:
        >>> typed_command("digits", Options(worth=1.5), Path("my results"), "cpu", None)
        "batchlab advise digits --worth 1.5 --out 'my results' --device cpu"
    """
    words, usual = ["batchlab", "advise", argument], Options()
    if options.world_size > 1:
        words = ["torchrun", f"--nproc-per-node={options.world_size}", "-m", *words]
    for name in ("objective", "target", "worth", "seeds", "confirm_seeds", "from_checkpoint"):
        words += _flag(name, getattr(options, name), getattr(usual, name))
    words += _flag("at_least", [f"{k}={v!r}" for k, v in options.at_least.items()], [])
    words += _flag("batch_sizes", list(options.batch_sizes or ()), [])
    words += _flag("subset", options.subset, None)
    words += ["--robustness"] * options.robustness + _flag("prefer", options.prefer, None)
    words += [] if options.growing else ["--no-growing"]
    words += _flag("tune", ",".join(options.tune), "")
    words += _flag("gammas", [f"{gamma:g}" for gamma in options.gammas], [])
    words += _flag("seed", options.seed, 0) + _flag("memory_limit", options.memory_limit, None)
    if options.price is not None:
        words += _flag("price_per_hour", options.price.per_hour, None)
        words += _flag("currency", options.price.currency, "USD")
        words += _flag("price_per_sample", options.price.per_sample, 0.0)
    words += _flag("seconds_per_sample", options.seconds_per_sample, 0.0)
    words += _flag("out", folder, None) + _flag("device", device, "auto")
    return shlex.join([*words, *_flag("data", data, None)])


def _flag(name: str, value: Any, usual: Any) -> list[str]:
    """``--name value``, or nothing where the value is the usual one."""
    if value == usual:
        return []
    values = value if isinstance(value, list) else [value]
    return [f"--{name.replace('_', '-')}", *map(str, values)]


def provenance(prepared: Prepared, options: Options) -> dict[str, str]:
    """Versions and seeds that a number depends on."""
    return {
        "batchlab": version(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": prepared.device,
        "precision": prepared.baseline.precision,
        "seed": str(options.seed),
    }


def _write(
    folder: Path,
    advice: Advice,
    prepared: Prepared,
    options: Options,
    facts: Facts,
    said: Sequence[str],
) -> tuple[Text, ...]:
    """Everything a reader may want, into the result directory; what could not be written."""
    kept = {
        "facts": to_plain(facts),
        "options": to_plain(options),
        "wall_seconds": advice.wall_seconds,
        "partial": advice.partial,
        "said": list(said),
    }
    text = json.dumps(stamped(kept), ensure_ascii=False)
    _platform.write_whole(folder / "facts.json", text)
    _platform.write_whole(folder / "provenance.json", json.dumps(advice.provenance, indent=1))
    advice.save(folder / "advice.json")
    report.write(advice, folder / "report.html")
    _platform.write_whole(folder / "summary.md", report.summary(advice))
    collect(folder)
    if prepared.task.origin is not None:
        setting = advice.params
        whole = prepared if prepared.drawn is None else prepared.drawn.whole
        config = whole.baseline.replace(
            **{name: setting[name] for name in APPLIED if name in setting}
        )
        script = plain.apply_script(
            config,
            prepared.task.origin,
            examples=whole.examples,
            micro_batch_size=setting["micro_batch_size"],
            device=prepared.device,
            reached=_reached(advice),
            threads=1 if prepared.device == "cpu" else 0,
            groups=bool(prepared.task.groups),
        )
        _platform.write_whole(folder / "apply.py", script)
    return figures.write(charts.charts(advice).values(), folder / "charts", brief=True)


def _reached(advice: Advice) -> tuple[str, int] | None:
    """The goal, and after how many examples confirmed runs of the recommendation reached it."""
    if advice.part is not None:
        return None  # how far all data must be trained to the goal, the part does not say
    used = next((c for c in advice.candidates if c.setting.id == advice.recommended.id), None)
    if used is None or used.evidence is not Evidence.CONFIRMED or advice.target is None:
        return None
    samples = used.samples_to_target
    if samples is None or not math.isfinite(samples.value):
        return None
    goal = f"validation {advice.metric.name} {advice.target.value:.4g}"
    return goal, round(samples.value)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise cannot_read(path, str(error).splitlines()[0]) from error


def _stage(folder: Path, name: str, kind: Any) -> Any:
    path = folder / f"{name}.json"
    try:
        return read_record(path, kind)
    except FileNotFoundError:
        return None
    except ValueError:
        raise cannot_read(path, DAMAGED) from None
