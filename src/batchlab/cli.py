"""The command line. A command's module is loaded when it is used, so that help and errors answer
at once.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import tyro

import batchlab
from batchlab.errors import UserError

Task = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
# What may be left out: the help says what happens then, so "None" need not be shown.
Count = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Real = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
Words = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
Place = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
Counts = Annotated[
    tuple[int, ...] | None, tyro.conf.arg(metavar="INT [INT ...]", help_behavior_hint="")
]
Reals = Annotated[
    tuple[float, ...] | None, tyro.conf.arg(metavar="FLOAT [FLOAT ...]", help_behavior_hint="")
]
Prices = Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(metavar="PRICE|KIND=PRICE", help_behavior_hint=""),
]
PROGRAM = "batchlab"
DEMO_PRICE = 1.2
NOT_PASSED_ON = ("task", "dry_run", "json", "verbose")
WITH_GRID = (
    "batch_sizes",
    "learning_rates",
    "rate_growth",
    "robustness",
    "features",
    "on",
    "max_spend",
)
WITH_REUSE = ("labels", "price_per_hour", "currency", "price_per_sample", "seconds_per_sample")
WITH_GAMMAS = ("depth",)
ALWAYS = ("samples", "out", "seed", "device", "data", "subset", "resume")
"""Options of ``compare`` that belong to a grid, to ``--reuse``, to ``--gammas`` and to all."""
RESUMABLE = ("advise", "demo", "critical", "compare", "study")


def advise(
    task: Task,
    /,
    objective: Literal["time", "cost", "samples", "accuracy"] = "time",
    at_least: tuple[str, ...] = (),
    target: Real = None,
    worth: float = 1.2,
    budget: Words = None,
    price_per_hour: Prices = (),
    currency: str = "USD",
    price_per_sample: float = 0.0,
    seconds_per_sample: float = 0.0,
    seeds: int = 5,
    confirm_seeds: int = 8,
    batch_sizes: Counts = None,
    from_checkpoint: Words = None,
    out: Place = None,
    seed: int = 0,
    device: str = "auto",
    memory_limit: Words = None,
    robustness: bool = False,
    prefer: Annotated[
        Literal["repeatable", "sparse", "flat"] | None,
        tyro.conf.arg(metavar="{repeatable,sparse,flat}", help_behavior_hint=""),
    ] = None,
    no_growing: bool = False,
    tune: Words = None,
    gammas: Reals = None,
    data: Place = None,
    subset: Words = None,
    dry_run: bool = False,
    resume: bool = False,
    on: Words = None,
    max_spend: Real = None,
    verbose: bool = False,
    json: bool = False,
) -> None:
    """Measure which batch size and learning rate to use, what each costs, and how sure that is.

    Args:
        task: Built-in name (digits, mnist, cifar10, teacher or teacher@TARGET), file.py:function
            or module:function.
        objective: What to make small (or, for accuracy, good).
        at_least: METRIC=VALUE that the recommendation must keep on validation data.
        target: Metric value that counts as trained; default: what four in five runs of today's
            settings reach.
        worth: Smallest gain worth a change, a ratio.
        budget: 90s, 2m, 1h. Without it digits and teacher run all stages, others stage A.
        price_per_hour: What an hour of computing costs; with --on, once for each kind of node:
            gpu-a=2.5.
        currency: Its currency.
        price_per_sample: What a fresh example costs.
        seconds_per_sample: Seconds that reading a fresh example takes in your own training, beside
            what is timed here.
        seeds: Repeats used for choosing.
        confirm_seeds: Fresh repeats used for the reported comparison.
        batch_sizes: Candidates; default: around the measured noise scale.
        from_checkpoint: File with a state_dict from which stage B starts.
        out: Result directory; default: batchlab-results/advise-<task>.
        seed: Names every random draw.
        device: auto, cpu, cuda or mps.
        memory_limit: Such as 2GiB; default: what the machine has.
        robustness: Also measure what noise, drift, wrong labels and less data do to the metric,
            and on how many examples two trainings disagree.
        prefer: Of finalists that the repeats cannot tell apart, repeatable takes the one whose
            trainings agree best, sparse the one whose decisions rest on the fewest internal
            features, flat the one whose loss is least sharp around it; where they cannot tell
            that apart either, the best by the objective is kept.
        no_growing: Leave out batches that grow during a training, which are otherwise tried where
            the budget pays for it.
        tune: Settings that are searched together in the place of stage B, such as
            batch_size,learning_rate,schedule,reuse,momentum,weight_decay,gamma, or all; needs
            batchlab[optuna].
        gammas: Feature-learning strengths that are tried too, such as 0.1 1 10: the model is
            trained as (f − its start)/γ.
        data: Folder with the data of mnist or cifar10.
        subset: Part of the training data that the stages use, such as 10%, 0.1 or 5000; one pair
            is then repeated on all of it, if the budget pays.
        dry_run: Print what each stage would cost, and stop.
        resume: Go on with an unfinished directory, or spend a larger budget.
        on: Train on a Ray cluster: ray for the one here, which is started if none runs, or
            ray://HOST:PORT; needs batchlab[ray].
        max_spend: With --on and a price: stop before its nodes cost more.
        verbose: Also print how the runs were trained, and why so.
        json: Print advice.json and nothing else.
    """
    given = {name: value for name, value in locals().items() if name not in NOT_PASSED_ON}
    given["at_least"] = _demands(at_least)
    given["price_per_hour"] = _price(price_per_hour)
    given["growing"] = not given.pop("no_growing")
    if dry_run:
        _show(_prices(task, given), json)
        return
    listener = _listener(quiet=json, budget=_seconds(task, budget))
    with listener:
        advice, folder = _advice(task, given, listener)
    _show_advice(advice, folder, json)
    if verbose and not json:
        _show_ways(folder)
    if advice.partial:
        raise KeyboardInterrupt  # what there was is written down; how to go on is said as ever


def demo(
    out: Place = None,
    price_per_hour: float = DEMO_PRICE,
    currency: str = "USD",
    resume: bool = False,
) -> None:
    """Real advice on scikit-learn's handwritten digits, in about three minutes; the same as
    `advise digits --price-per-hour 1.2`.

    Args:
        out: Result directory; default: batchlab-results/advise-digits.
        price_per_hour: What an hour of computing costs.
        currency: Its currency.
        resume: Go on with an unfinished directory.
    """
    advise(
        "digits", price_per_hour=(str(price_per_hour),), currency=currency, out=out, resume=resume
    )


def fit(
    task: Task,
    /,
    max_val: Count = None,
    init_val: Count = None,
    margin: Words = None,
    memory_limit: Words = None,
    with_gamma: bool = False,
    out: Place = None,
    device: str = "auto",
    data: Place = None,
    json: bool = False,
) -> None:
    """Find the largest micro-batch that runs, and memory and speed per batch size.

    Args:
        task: Built-in name, file.py:function or module:function.
        max_val: Largest size of interest; default: the training set.
        init_val: First size tried; default: the recipe's.
        margin: Memory to keep free, such as 500MiB; default: a twentieth of the limit.
        memory_limit: Such as 2GiB; default: what the machine has.
        with_gamma: Time the model with a feature-learning strength, too, for results that compare
            one; every size then runs with the frozen copy that it takes.
        out: Folder for machine.json, with which `batchlab report DIR --machine OUT` judges for
            this machine; default: batchlab-results/fit-<task>.
        device: auto, cpu, cuda or mps.
        data: Folder with the data of mnist or cifar10.
        json: Print the result as JSON and nothing else.
    """
    with _listener(quiet=json) as listener:
        machine = batchlab.fit(
            task,
            max_val=max_val,
            init_val=init_val,
            margin=margin,
            memory_limit=memory_limit,
            with_gamma=with_gamma,
            out=out,
            device=device,
            data=data,
            listener=listener,
        )
    _show_measured(machine, "fit", json)


def noise(
    task: Task,
    /,
    samples: Words = None,
    points: int = 6,
    out: Place = None,
    seed: int = 0,
    device: str = "auto",
    data: Place = None,
    subset: Words = None,
    json: bool = False,
) -> None:
    """Measure the gradient noise scale with a 90 % range, along a run of today's settings.

    Args:
        task: Built-in name, file.py:function or module:function.
        samples: How far to train, such as 2ep or 50k; default: the recipe's length.
        points: Measurements along the way.
        out: Result directory; default: batchlab-results/noise-<task>.
        seed: Names every random draw.
        device: auto, cpu, cuda or mps.
        data: Folder with the data of mnist or cifar10.
        subset: Part of the training data, such as 10%, 0.1 or 5000.
        json: Print the result as JSON and nothing else.
    """
    with _listener(quiet=json) as listener:
        found = batchlab.noise(
            task,
            samples=samples,
            points=points,
            out=out,
            seed=seed,
            device=device,
            data=data,
            subset=subset,
            listener=listener,
        )
    _show_measured(found, "noise", json)


def critical(
    task: Task,
    /,
    at: tuple[str, ...] = (),
    factors: Counts = None,
    window: Words = None,
    margin: float = 0.01,
    scaling: Annotated[
        Literal["linear", "sqrt", "none"] | None,
        tyro.conf.arg(metavar="{linear,sqrt,none}", help_behavior_hint=""),
    ] = None,
    seeds: int = 5,
    budget: Words = None,
    out: Place = None,
    seed: int = 0,
    device: str = "auto",
    data: Place = None,
    subset: Words = None,
    dry_run: bool = False,
    resume: bool = False,
    verbose: bool = False,
    json: bool = False,
) -> None:
    """Find the critical batch size by branching: up to which size as many examples teach as much,
    along a training with today's settings, against the noise scale.

    Args:
        task: Built-in name, file.py:function or module:function.
        at: Places of the training from which branches leave it, such as 10% 2ep 5000; default:
            five on a logarithmic scale from 1% on.
        factors: Multiples of today's batch size; default: powers of two up to 64, as far as a
            branch has 8 updates.
        window: Length of a branch, such as 2ep; default: 20% of the training.
        margin: Share by which a loss may be higher and still counts as equal.
        scaling: How the learning rate follows the batch size; default: linear for SGD and its
            momentum forms, sqrt for Adam and RMSprop.
        seeds: Trainings that branch, at least 2.
        budget: 90s, 2m, 1h; places that it does not pay for are left out.
        out: Result directory; default: batchlab-results/critical-<task>.
        seed: Names every random draw.
        device: auto, cpu, cuda or mps.
        data: Folder with the data of mnist or cifar10.
        subset: Part of the training data, such as 10%, 0.1 or 5000.
        dry_run: Print what would be trained and how long that takes, and stop.
        resume: Go on with an unfinished directory.
        verbose: Also print how the runs were trained, and why so.
        json: Print the result as JSON and nothing else.
    """
    from batchlab.app.critical import price

    given: dict[str, Any] = {
        "at": at or None,
        "factors": factors,
        "window": window,
        "margin": margin,
        "scaling": scaling,
        "seeds": seeds,
        "budget": budget,
        "seed": seed,
        "device": device,
        "data": data,
        "subset": subset,
    }
    if dry_run:
        _show(price(task, **given), json)
        return
    with _listener(quiet=json) as listener:
        found = batchlab.critical(task, **given, out=out, resume=resume, listener=listener)
    _show_measured(found, "critical", json, verbose)


def coordinates(
    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")],
    /,
    widths: Counts = None,
    updates: int = 4,
    seeds: int = 5,
    rule: Words = None,
    learning_rate: Real = None,
    parametrization: Annotated[
        Literal["standard", "mean-field"] | None,
        tyro.conf.arg(metavar="{standard,mean-field}", help_behavior_hint=""),
    ] = None,
    examples: int = 64,
    out: Place = None,
    seed: int = 0,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Check whether a learning rate tuned on a narrow network holds for a wide one: how far each
    layer moves in a few updates, against the width.

    Args:
        network: mlp, cnn, resnet or vit on digits; or file.py:function or module:function, a
            function from a width to a Task.
        widths: Two or more; default: 64 128 256 512, less for convolutions.
        updates: On one and the same batch.
        seeds: Starts of each width, at least 2.
        rule: Update rule; default: the task's, sgd for a reference network.
        learning_rate: The same for every width; default: the task's, 0.1 for a reference network.
        parametrization: Of a reference network; default: standard, as PyTorch's layers.
        examples: Of the batch.
        out: Result directory; default: batchlab-results/coordinates-<task>.
        seed: Names every random draw.
        device: auto, cpu, cuda or mps.
        json: Print the result as JSON and nothing else.
    """
    with _listener(quiet=json) as listener:
        found = batchlab.coordinate_check(
            network,
            widths=widths,
            updates=updates,
            seeds=seeds,
            rule=rule,
            learning_rate=learning_rate,
            parametrization=parametrization,
            examples=examples,
            out=out,
            seed=seed,
            device=device,
            listener=listener,
        )
    _show_measured(found, "coordinates", json)


def compare(
    task: Task,
    /,
    batch_sizes: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="SIZE [SIZE ...]", help_behavior_hint="")
    ] = (),
    learning_rates: Reals = None,
    rate_growth: Reals = None,
    seeds: Count = None,
    reuse: Counts = None,
    labels: Counts = None,
    price_per_hour: Prices = (),
    currency: str = "USD",
    price_per_sample: float = 0.0,
    seconds_per_sample: float = 0.0,
    gammas: Reals = None,
    depth: Count = None,
    samples: Words = None,
    robustness: bool = False,
    features: bool = False,
    out: Place = None,
    seed: int = 0,
    device: str = "auto",
    data: Place = None,
    subset: Words = None,
    resume: bool = False,
    on: Words = None,
    max_spend: Real = None,
    dry_run: bool = False,
    verbose: bool = False,
    json: bool = False,
) -> None:
    """Train an explicit grid and compare it at equal samples and at equal updates; or, with
    --reuse, k updates on each batch against k epochs and batches k times as large; or, with
    --gammas, feature-learning strengths.

    Args:
        task: Built-in name, file.py:function or module:function.
        batch_sizes: Batch sizes of the grid, or schedules in quotes, such as "0:8 2ep:16".
        learning_rates: Learning rates of the grid; default: today's, scaled to each batch size.
        rate_growth: Powers with which the learning rate follows a schedule: 0 keeps it, 0.5
            follows the root, 1 is linear; default: the recipe's.
        seeds: Repeats; default: 3, with --reuse and --gammas 5 fresh ones.
        reuse: Updates on each batch, such as 2 4, instead of batch sizes: when that pays.
        labels: With --reuse: numbers of labelled examples for a curve of the metric.
        price_per_hour: With --reuse: what an hour of computing costs; with --on, of a node, or
            once for each kind of node: gpu-a=2.5.
        currency: Its currency.
        price_per_sample: With --reuse: what a fresh example costs.
        seconds_per_sample: With --reuse: seconds that reading a fresh example takes in your own
            training, beside what is timed here.
        gammas: Feature-learning strengths, such as 0.1 1 10, instead of batch sizes: the model is
            centred at its start and divided by each, with a learning rate of its own.
        depth: With --gammas: layers with weights, which the learning rate depends on; default:
            counted from the model.
        samples: Length of a run, such as 10ep; default: the recipe's.
        robustness: Also measure what noise, drift, wrong labels and less data do to the metric,
            and on how many examples two trainings disagree; trains the grid about four times more.
        features: Also count the internal features that decisions rest on, and measure how sharp
            the loss is around the trained models.
        out: Result directory; default: batchlab-results/compare-<task>, reuse-<task> or
            gammas-<task>.
        seed: Names every random draw.
        device: auto, cpu, cuda or mps.
        data: Folder with the data of mnist or cifar10.
        subset: Part of the training data, such as 10%, 0.1 or 5000.
        resume: Go on with an unfinished directory.
        on: Train a grid on a Ray cluster: ray for the one here, which is started if none runs, or
            ray://HOST:PORT; needs batchlab[ray].
        max_spend: With --on and a price: stop before its nodes cost more.
        dry_run: With --reuse: print what would be trained and how long that takes, and stop.
        verbose: Also print how the runs were trained, and why so.
        json: Print the result as JSON and nothing else.
    """
    given = locals() | {"price_per_hour": _price(price_per_hour)}
    _check_compare(given)
    if reuse is not None and dry_run:
        from batchlab.app.reuse import price

        asked = ("labels", "seconds_per_sample", "samples", "seed", "device", "data", "subset")
        known = {name: given[name] for name in asked}
        print(price(task, reuse=reuse, seeds=5 if seeds is None else seeds, **known))
        return
    with _listener(quiet=json) as listener:
        if reuse is not None:
            known = {name: given[name] for name in (*WITH_REUSE, *ALWAYS)}
            found = batchlab.compare_reuse(
                task, reuse=reuse, seeds=5 if seeds is None else seeds, listener=listener, **known
            )
            _show_measured(found, "reuse", json, verbose)
            return
        if gammas is not None:
            known = {name: given[name] for name in (*WITH_GAMMAS, *ALWAYS)}
            found = batchlab.compare_gammas(
                task,
                gammas=gammas,
                seeds=5 if seeds is None else seeds,
                listener=listener,
                **known,
            )
            _show_measured(found, "gammas", json, verbose)
            return
        found = batchlab.compare(
            task,
            batch_sizes=batch_sizes,
            learning_rates=learning_rates,
            rate_growth=rate_growth,
            seeds=3 if seeds is None else seeds,
            samples=samples,
            robustness=robustness,
            features=features,
            out=out,
            seed=seed,
            device=device,
            data=data,
            subset=subset,
            resume=resume,
            on=on,
            price_per_hour=given["price_per_hour"],
            max_spend=max_spend,
            listener=listener,
        )
    _show_measured(found, "compare", json, verbose)


def report(
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
    /,
    machine: Place = None,
    price_per_hour: Real = None,
    currency: Words = None,
    price_per_sample: Real = None,
    metric: Words = None,
    target: Real = None,
    worth: float = 1.2,
    out: Place = None,
) -> None:
    """Make a report again: for another price, for another machine, or of two results side by side.

    Of trainings that `batchlab.watch` watched: one by itself, or several compared. The settings of
    the first directory are today's; trainings of the same seed are pairs.

    Args:
        folders: Result directories of `batchlab advise` or of watched trainings, or one of
            `batchlab compare --reuse`.
        machine: Folder made by `batchlab fit TASK --out` on the other machine.
        price_per_hour: Another price.
        currency: Its currency.
        price_per_sample: What a fresh example costs.
        metric: By which watched trainings are compared; default: one that all of them tell, else
            their loss.
        target: Its value that counts as trained; default: what four in five of today's trainings
            reach.
        worth: Smallest gain worth a change, for watched trainings.
        out: The page; default: in the (first) folder.
    """
    from batchlab.app import watched

    if watched.among(folders, machine):
        price = watched.priced(price_per_hour, currency, price_per_sample)
        asked = watched.Asked(price, worth, metric, target, command=_typed())
        _show_watched(watched.report_on(folders, asked, out=out))
        return
    watched.only_asked_of_watched(folders, worth, metric, target)
    page = batchlab.render(
        folders,
        machine=machine,
        price_per_hour=price_per_hour,
        currency=currency,
        price_per_sample=price_per_sample,
        out=out,
    )
    print(f"report: {page}")


def apply(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
    /,
    kind: Annotated[
        Literal["auto", "pytorch", "lightning", "huggingface"], tyro.conf.arg(name="for")
    ] = "auto",
    file: tuple[Path, ...] = (),
    world_size: Count = None,
    micro_batch_size: Count = None,
    write: bool = False,
) -> None:
    """Print what an advice changes, as a patch for your own script: `batchlab apply DIR --file
    train.py | git apply -p0`.

    Args:
        folder: Result directory of `batchlab advise`.
        kind: The kind of script; auto: what it calls or, without one, how the task was made.
        file: Your script, or several that belong together; without it, the lines to write by hand.
        world_size: Processes that train together; default: what the script says.
        micro_batch_size: Largest that fits where you train; default: what was measured.
        write: Change the script itself, if everything was found.
    """
    patch = batchlab.Advice.load(folder).apply(
        kind, file, world_size=world_size, micro_batch_size=micro_batch_size
    )
    print(patch)
    if write:
        patch.write()
        print("\n".join(f"{one.name} is written." for one in patch.changed))
    if file and patch.snippet and not patch.changed:
        sys.exit(1)  # for whoever pipes it on: there is no patch


def study(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    file: Annotated[
        Path | None,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE", help_behavior_hint="only after `new`"),
    ] = None,
    /,
    quick: bool = False,
    full: bool = False,
    paper: bool = False,
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE")] = (),
    seed: int = 0,
    out: Place = None,
    resume: bool = False,
    device: str = "cpu",
    data: Place = None,
    on: Words = None,
    price_per_hour: Prices = (),
    max_spend: Real = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Measure the claims of a source: reproduced, not reproduced, or inconclusive. `batchlab
    studies` lists them; `batchlab study new FILE` writes one of your own.

    Args:
        name: A study, or your own in a file: my_study.py or my_study.py:NAME.
        file: Where `study new` writes.
        quick: Two to four minutes on two cores; the default.
        full: Enough repetitions for every claim.
        paper: The source's own scale; says first how long that takes on this machine.
        set: Parameters of the study to change; verdicts are then about that variant.
        seed: Names every random draw.
        out: Result directory; default: batchlab-results/study-<name>-<mode>.
        resume: Go on with an unfinished directory.
        device: cpu, cuda, mps or auto.
        data: Folder with the data of mnist and cifar10, for studies that use them.
        on: Measure on a Ray cluster: ray for the one here, which is started if none runs, or
            ray://HOST:PORT; needs batchlab[ray].
        price_per_hour: With --on: what an hour of a node costs, or once for each kind: gpu-a=2.5.
        max_spend: With --on and a price: stop before its nodes cost more.
        dry_run: Print what would be measured and how long it takes, and stop.
        json: Print the verdicts as JSON and nothing else.
    """
    from batchlab.app import study as studying

    if name == "new" or file is not None:
        _new_study(name, file)
        return
    modes: dict[Any, bool] = {"quick": quick, "full": full, "paper": paper}
    mode = studying.one_mode([mode for mode, on in modes.items() if on])
    given = {"set": set, "seed": seed, "out": out, "device": device, "data": data}
    if mode == "paper" or dry_run:
        asked = studying.plan(name, mode=mode, **given)
        print(studying.price(asked, studying.pace(asked)), file=sys.stderr if json else sys.stdout)
        if dry_run:
            return
    given |= {"on": on, "price_per_hour": _price(price_per_hour), "max_spend": max_spend}
    with _listener(quiet=json) as listener:
        found = batchlab.study(
            name, mode=mode, resume=resume, listener=listener, command=_typed(), **given
        )
    _show_study(found, json)


def studies() -> None:
    """List the studies, their sources and what they take."""
    from batchlab.app.study import listed

    print(listed())


def cite(
    what: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR|KEY")] = (),
    /,
) -> None:
    """Print BibTeX of the sources that a result rests on, or of some keys, or of all.

    Args:
        what: Result directories or keys; without any: every source.
    """
    from batchlab.app.cite import cited

    print(cited(what))


def plan(
    examples: int,
    batch_size: str = "32",
    epochs: float = 1.0,
    last: Literal["run-on", "short", "drop"] = "run-on",
    seconds_per_update: Real = None,
    price_per_hour: Real = None,
    currency: str = "USD",
    rule: Annotated[
        Literal["shb", "nshb"] | None,
        tyro.conf.arg(metavar="{shb,nshb}", help_behavior_hint=""),
    ] = None,
    learning_rate: Real = None,
    momentum: float = 0.9,
    json: bool = False,
) -> None:
    """Calculate updates, samples, the last short batch, time and cost; convert SHB's and NSHB's
    learning rates.

    Args:
        examples: Examples in the training set.
        batch_size: A number, or a schedule such as "0:8 20ep:16".
        epochs: Passes over the training set.
        last: What happens to the last batch of a pass: runs on into the next, is short, or is
            dropped.
        seconds_per_update: For the time; `batchlab fit` measures it.
        price_per_hour: For the cost.
        currency: Its currency.
        rule: Rule of the learning rate to convert: shb is PyTorch's momentum, nshb multiplies the
            gradient by 1−β.
        learning_rate: The learning rate to convert.
        momentum: β.
        json: Print the result as JSON and nothing else.
    """
    found = batchlab.plan(
        examples=examples,
        batch_size=batch_size,
        epochs=epochs,
        last=last,
        seconds_per_update=seconds_per_update,
        price_per_hour=price_per_hour,
        currency=currency,
        rule=rule,
        learning_rate=learning_rate,
        momentum=momentum,
    )
    _show(found, json)


def exponents(
    expression: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPRESSION")],
    /,
    degree: Count = None,
    dimensions: Count = None,
    seed: int = 0,
    language: Annotated[
        Literal["en", "ja"] | None, tyro.conf.arg(metavar="{en,ja}", help_behavior_hint="")
    ] = None,
    json: bool = False,
) -> None:
    """Calculate how hard a target function is: information, leap and generative exponent, and
    which of its directions one pass over the data learns and which only re-used batches.

    Args:
        expression: In z, or z1 ... z8, such as "tanh(He1(z1) + He3(z2))"; standard normal.
        degree: Largest total Hermite degree; default: 8, 6, 5 for one to three variables, else 4.
        dimensions: Directions; default: the largest number of a variable.
        seed: Names every random draw.
        language: Of the words; default: the locale's.
        json: Print the result as JSON and nothing else.
    """
    from batchlab._text import usual_language
    from batchlab.app.exponents import plain, told
    from batchlab.theory import exponents as calculate

    found = calculate(expression, degree, dimensions=dimensions, seed=seed)
    if json:
        _show(plain(found), json)
        return
    from rich.console import Console

    words = told(found, language or usual_language())
    Console().print(words, markup=False, highlight=False, emoji=False)


def doctor(json: bool = False) -> None:
    """Print device, threads, memory limit and where it came from, compiler and versions.

    Args:
        json: Print the result as JSON and nothing else.
    """
    from batchlab.measure.doctor import doctor as examine

    _show(examine(), json)


def init(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = Path(
        "my_task.py"
    ),
    /,
) -> None:
    """Write a commented task file that runs as it is.

    Args:
        file: Where to write it.
    """
    from batchlab.tasks.template import write_template

    write_template(file)
    print(f"{file} is written. Try: batchlab advise {file}:task --dry-run")


COMMANDS: dict[str, Callable[..., None]] = {
    "advise": advise,
    "demo": demo,
    "fit": fit,
    "noise": noise,
    "critical": critical,
    "coordinates": coordinates,
    "compare": compare,
    "report": report,
    "apply": apply,
    "study": study,
    "studies": studies,
    "cite": cite,
    "plan": plan,
    "exponents": exponents,
    "doctor": doctor,
    "init": init,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2, Ctrl-C is 130,
    SIGTERM 143.
    """
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if given in (["--version"], ["-V"]):
        print(f"{PROGRAM} {batchlab.__version__}")
        return
    terminated = _Terminated()
    signal.signal(signal.SIGTERM, terminated)
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog=PROGRAM,
            description="Measure which batch size, learning rate and schedule to use for your own "
            "PyTorch model.",
            args=given,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except BrokenPipeError:  # the reader, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError) as error:
        if not _said_by_first(error):
            print(f"{PROGRAM}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        hint = " Add --resume to go on." if given[0] in RESUMABLE else ""
        print(f"{PROGRAM}: interrupted.{hint}", file=sys.stderr)
        sys.exit(143 if terminated.came else 130)


def _is_first() -> bool:
    """Whether this process speaks: the only one, or the first that torchrun started."""
    return int(os.environ.get("RANK") or 0) == 0


def _said_by_first(error: Exception) -> bool:
    """Whether another process prints this sentence."""
    if _is_first():
        return False
    from batchlab._team import said_by_first

    return said_by_first(error)


class _Terminated:
    """SIGTERM stops as Ctrl-C does; that it came is known to the end, whoever has caught it."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


def _typed() -> str:
    """What was typed, as it can be pasted; ``demo`` as the advice that it stands for."""
    words = sys.argv[1:]
    if words[:1] == ["demo"]:
        priced = any(word.startswith(("--price-per-hour", "--price_per_hour")) for word in words)
        price = [] if priced else ["--price-per-hour", str(DEMO_PRICE)]
        words = ["advise", "digits", *words[1:], *price]
    return shlex.join([PROGRAM, *words])


def _check_compare(given: dict[str, Any]) -> None:
    """Options of the other kind of comparison are refused, not ignored."""
    from batchlab.errors import InvalidValueError, must

    kinds = {"reuse": (*WITH_REUSE, "dry_run"), "gammas": WITH_GAMMAS}
    asked = [kind for kind in kinds if given[kind] is not None]
    if len(asked) > 1:
        raise InvalidValueError(must("gammas", "left out with --reuse", given["gammas"]))
    usual = {"currency": "USD"}
    words = {name: f"given with --{k} only" for k, names in kinds.items() for name in names}
    words |= {name: f"left out with --{kind}" for kind in asked for name in WITH_GRID}
    for name, said in words.items():
        allowed = any(name in kinds[kind] for kind in asked)
        allowed = allowed or (name == "price_per_hour" and given["on"])
        if not allowed and given[name] and given[name] != usual.get(name):
            got = given[name]
            got = " ".join(map(str, got)) if isinstance(got, tuple) else got
            raise InvalidValueError(must(name, said, got))
    if given["reuse"] is not None:
        if isinstance(given["price_per_hour"], dict):
            raise InvalidValueError(
                must("price_per_hour", "one number with --reuse", given["price_per_hour"])
            )
        from batchlab.app.asking import check_reuse

        seeds = 5 if given["seeds"] is None else given["seeds"]
        sought = given["reuse"], given["labels"] or (), given["seconds_per_sample"]
        check_reuse(*sought, seeds, given["seed"])
    if not asked and not given["batch_sizes"]:
        hint = "Or ask when several updates on each batch pay: --reuse 2 4."
        raise InvalidValueError(must("--batch-sizes", "given, such as 16 64", [], hint))


def _price(texts: Sequence[str]) -> Any:
    """``PRICE`` → a number, ``KIND=PRICE`` … → {KIND: price}; None without any."""
    from batchlab.errors import InvalidValueError, must

    prices = {}
    for text in texts:
        kind, _, value = text.rpartition("=")
        try:
            prices[kind] = float(value)
        except ValueError:
            words = "a number, or KIND=PRICE such as gpu-a=2.5"
            raise InvalidValueError(must("price_per_hour", words, text)) from None
    if "" in prices and len(texts) > 1:
        words = "given once, or as KIND=PRICE for each kind of node"
        raise InvalidValueError(must("price_per_hour", words, " ".join(texts)))
    return prices.get("", prices or None)


def _demands(texts: Sequence[str]) -> dict[str, float]:
    """``METRIC=VALUE`` → {METRIC: VALUE}."""
    from batchlab.errors import InvalidValueError, must

    demands = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            demands[name] = float(value)
        except ValueError:
            raise InvalidValueError(
                must("at_least", "METRIC=VALUE, such as accuracy=0.97", text)
            ) from None
    return demands


def _listener(quiet: bool, budget: float | None = None) -> Any:
    from batchlab.progress import Quiet, Shown

    return Quiet() if quiet or not _is_first() else Shown(budget)


def _seconds(task: str, budget: str | None) -> float | None:
    """What an advice may take, if that is limited."""
    from batchlab.app.advise import DEMO_SECONDS, options_from

    if budget is None:
        return DEMO_SECONDS.get(task)
    return options_from(budget=budget).budget


def _advice(task: str, given: dict[str, Any], listener: Any) -> tuple[Any, Path]:
    """The advice, and the folder it was written to."""
    from batchlab.app.advise import named_out

    advice = batchlab.advise(task, **given, listener=listener, command=_typed())
    return advice, given["out"] or named_out("advise", advice.task)


def _show_advice(advice: Any, folder: Path, as_json: bool) -> None:
    """The answer as a table with reasons, and where the report lies."""
    if not _is_first():
        return
    if as_json:
        _show(advice, as_json)
        return
    from rich.console import Console

    from batchlab.report import terminal

    Console().print(terminal(advice))
    print(f"report: {folder / 'report.html'}")


def _show_watched(found: Any) -> None:
    """What watched trainings come to, and where the page lies."""
    from rich.console import Console

    Console().print(found.words, markup=False, highlight=False, soft_wrap=found.alone)
    print(f"report: {found.page}")


def _show_ways(folder: Path) -> None:
    """How the runs of a result were trained."""
    from batchlab.app.advise import ways

    print("\n".join(ways(folder)))


def _show_measured(found: Any, name: str, as_json: bool, verbose: bool = False) -> None:
    """A measurement, and where its page lies."""
    if not _is_first():
        return
    _show(found, as_json)
    if not as_json:
        if verbose:
            _show_ways(Path(found.origin.folder))
        print(f"report: {Path(found.origin.folder) / f'{name}.html'}")


def _new_study(name: str, file: Path | None) -> None:
    """``study new FILE``."""
    from batchlab.errors import InvalidValueError, must
    from batchlab.studies.template import write

    if name != "new":
        raise InvalidValueError(must("FILE", "left out unless a new study is written", str(file)))
    path = write(Path("my_study.py") if file is None else file)
    print(f"{path} is written. Try: {PROGRAM} study {path}")


def _show_study(found: Any, as_json: bool) -> None:
    """The verdicts, and where the page lies."""
    if as_json:
        _show(found.verdicts, as_json)
        return
    from rich.console import Console

    from batchlab.studies.record import table

    Console().print(table(found))
    print(f"report: {Path(found.folder) / 'report.html'}")


def _prices(task: str, given: dict[str, Any]) -> Any:
    """The price list of an advice."""
    from batchlab.app.advise import dry_run, options_from

    elsewhere = ("on", "max_spend", "out", "device", "data", "resume")
    wanted = {k: v for k, v in given.items() if k not in elsewhere}
    if isinstance(given["price_per_hour"], dict):
        wanted["price_per_hour"] = None  # of kinds of nodes, which are not timed here
    return dry_run(task, options_from(**wanted), device=given["device"], data=given["data"])


def _show(found: Any, as_json: bool) -> None:
    """A result as text, or as JSON."""
    from batchlab.types import to_plain

    if as_json:
        print(json.dumps(to_plain(found), ensure_ascii=False))
    else:
        print(found)


if __name__ == "__main__":
    main()
