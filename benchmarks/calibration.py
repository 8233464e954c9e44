"""How often the advice is right, on simulated tasks whose truth is known.

Each advice goes the advisor's way with the advisor's functions: project, keep the finalists,
choose on 5 seeds, compare with today on 8 fresh seeds and fresh timing blocks, decide, ask for the
repeats that would decide. Trainings are simulated; left out are the rounding to the evaluation
grid, demands (``--at-least``), and settings that change more than batch size and learning rate. A
last table is about *change* after the search alone.

The criteria: where nothing differs a change is advised in at most 5 % of advices; of advices that
say at least 95 %, at least 90 % are right (right: the true ratio is above 1; an equal candidate
is never right). They hold for one look and for three, each undecided look followed by the repeats
that it says would decide. A planted twin confirms on the seeds that chose and must fail them; the
exit code is 0 only if the advice passes and the twin fails.

    python benchmarks/calibration.py --repeats 2000 --json calibration.json
"""

from __future__ import annotations

import json as jsonlib
import math
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
import tyro
from scipy import special

from batchlab import stats
from batchlab.advisor.answer import counted_as_gain, further_pairs
from batchlab.advisor.decision import choose, decide, fails_more, not_separated, stands_out
from batchlab.advisor.record import Verdict
from batchlab.types import Estimate, to_plain

ALTERNATIVES = 6
CHOOSING_SEEDS, CONFIRMING_SEEDS = 5, 8
BLOCKS = 6
WORTH = 1.2
TODAY = "0"

MODES = (
    ("fresh seeds", False, 1),
    ("fresh seeds, three looks", False, 3),
    ("twin: choosing seeds reused", True, 1),
)
"""Name, whether the choosing seeds are reused, and looks."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""(random numbers, seeds) → updates to target, infinite if never. Shape [settings, seeds]."""


@dataclass(frozen=True)
class Scene:
    """One simulated task. Setting 0 is today.

    Attributes:
        draw: Its trainings.
        seconds: True seconds per update of each setting.
        times: True typical seconds to the target.
        ratio: True median of time today / time of each setting over paired seeds.
        block_sd: Log-sd of one timing block.
    """

    draw: Draw
    seconds: np.ndarray
    times: np.ndarray
    ratio: np.ndarray
    block_sd: float


@dataclass(frozen=True)
class Outcome:
    """One advice against the truth."""

    verdict: Verdict
    today_chosen: bool
    method: str
    sure: bool
    better: bool
    covered: bool


@dataclass(frozen=True)
class Row:
    """One line of the table; every share with its 90 % interval."""

    family: str
    equal: bool
    twin: bool
    change: Estimate
    keep: Estimate
    open: Estimate
    today_chosen: Estimate
    sign_test: Estimate
    sure: Estimate
    sure_and_right: Estimate | None
    change_and_right: Estimate | None
    covered: Estimate


def lognormal(rng: np.random.Generator, spread: float, never: float) -> Scene:
    """Log-normal times scattering by ``spread``; a share up to ``never`` of runs never arrives."""
    log_times = np.append(0.0, rng.normal(0, spread, ALTERNATIVES))
    log_sd, shared = rng.uniform(0.2, 0.35), math.sqrt(0.2)
    lost = rng.uniform(0, never, ALTERNATIVES + 1 if spread else 1) * np.ones(ALTERNATIVES + 1)
    seconds = rng.lognormal(-6, 1, ALTERNATIVES + 1)

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        own = rng.normal(size=(ALTERNATIVES + 1, n)) * math.sqrt(1 - shared**2)
        logs = log_times[:, None] + log_sd * (own + shared * rng.normal(size=n))
        gone = rng.random(logs.shape) < lost[:, None]
        return np.where(gone, np.inf, np.exp(logs) / seconds[:, None])

    pair_sd = log_sd * math.sqrt(2 * (1 - shared**2))
    ratio = [median_ratio(-t, pair_sd, lost[0], p) for t, p in zip(log_times, lost, strict=True)]
    return Scene(draw, seconds, np.exp(log_times), np.array(ratio), rng.uniform(0.02, 0.15))


def median_ratio(log_ratio: float, pair_sd: float, today_lost: float, lost: float) -> float:
    """Median of today/other when either never arrives with a given probability; both: ratio 1.

    The distribution of the log ratio has weight at −∞ (the other is lost), at 0 (both are) and at
    +∞ (today is); in between it is normal.
    """
    below, both = (1 - today_lost) * lost, today_lost * lost
    finite = (1 - today_lost) * (1 - lost)
    at_zero = below + finite * special.ndtr(-log_ratio / pair_sd)
    if at_zero <= 0.5 <= at_zero + both and both > 0:
        return 1.0
    share = (0.5 - below - (both if at_zero < 0.5 else 0.0)) / finite
    return math.exp(log_ratio + pair_sd * special.ndtri(share))


def minimised_curves(rng: np.random.Generator, spread: float) -> Scene:
    """Falling losses, looked at 40 times; the target is what four in five runs of today reach.

    loss(s) = 0.1 + (1 + s/τ)^(−p) + noise with τ log-normal over seeds; a candidate's typical τ
    makes it faster or slower. The true ratio is that of τ: its direction is exact, its size nearly
    so, since the grid and the runs that never arrive shift the median of the pairs a little.
    """
    log_tau = np.append(0.0, rng.normal(0, spread, ALTERNATIVES))
    log_sd, power = rng.uniform(0.2, 0.35), rng.uniform(0.5, 1.5)
    grid = np.arange(1, 41) / 4
    seconds = rng.lognormal(-6, 1, ALTERNATIVES + 1)

    def losses(rng: np.random.Generator, settings: np.ndarray, n: int) -> np.ndarray:
        seeds = log_sd * rng.normal(size=(settings.size, n, 1))
        tau = np.exp(log_tau[settings, None, None] + seeds)
        return 0.1 + (1 + grid / tau) ** -power + 0.003 * rng.normal(size=(*tau.shape[:2], 40))

    target = stats.default_target(
        stats.end_values(losses(rng, np.array([0]), CHOOSING_SEEDS)[0]), maximise=False
    )

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        curves = losses(rng, np.arange(ALTERNATIVES + 1), n).reshape(-1, grid.size)
        samples = stats.times_to_target(grid, curves, target, maximise=False)
        return samples.reshape(-1, n) / seconds[:, None]

    times = np.exp(log_tau)
    return Scene(draw, seconds, times, 1 / times, rng.uniform(0.02, 0.15))


FAMILIES: dict[str, Callable[[np.random.Generator], Scene]] = {
    "all equal": lambda rng: lognormal(rng, 0.0, 0.0),
    "all equal, some never arrive": lambda rng: lognormal(rng, 0.0, 0.25),
    "all equal, metric minimised": lambda rng: minimised_curves(rng, 0.0),
    "nearly equal": lambda rng: lognormal(rng, 0.08, 0.0),
    "different": lambda rng: lognormal(rng, 0.35, 0.0),
    "different, some never arrive": lambda rng: lognormal(rng, 0.35, 0.25),
    "different, metric minimised": lambda rng: minimised_curves(rng, 0.35),
}


def advise(scene: Scene, rng: np.random.Generator, reuse: bool, looks: int) -> Outcome:
    """Project, choose, confirm, decide; repeat more while that would decide and looks are left.
    ``reuse`` is the twin: confirm on what chose.
    """
    settings = [TODAY, *finalists(scene, rng)]
    choosing, chosen_timing = scene.draw(rng, CHOOSING_SEEDS), timing(scene, rng)
    times = {name: choosing[int(name)] * chosen_timing[name].value for name in settings}
    changes = {name: int(name != TODAY) + int(int(name) % 2) for name in settings}
    rival = choose({name: times[name] for name in settings[1:]}, TODAY, changes)
    chosen = choose({name: times[name] for name in (TODAY, rival)}, TODAY, changes)
    confirming = choosing if reuse else scene.draw(rng, CONFIRMING_SEEDS)
    fresh_timing = chosen_timing if reuse else timing(scene, rng)
    today_chosen, truth = chosen == TODAY, scene.ratio[int(rival)]
    for look in range(looks):
        before, after = confirming[0], confirming[int(rival)]
        result = compare(before, after, fresh_timing, rival)
        failing = fails_more(failed(before), failed(after))
        verdict = decide(result.estimate, WORTH, not failing, today_chosen)
        most = compare(before, counted_as_gain(before, after), fresh_timing, rival).estimate.high
        if verdict is Verdict.KEEP and not most < WORTH:
            verdict = Verdict.NOT_ENOUGH_EVIDENCE
        more = 0
        if verdict is Verdict.NOT_ENOUGH_EVIDENCE and not (
            result.estimate.value >= WORTH and (failing or today_chosen)
        ):
            more = further_pairs(result, before, after, WORTH)
        if look + 1 == looks or not more:
            break
        confirming = np.concatenate([confirming, scene.draw(rng, more)], axis=1)
    return Outcome(
        verdict=verdict,
        today_chosen=today_chosen,
        method=result.method,
        sure=not today_chosen and result.chance >= 0.95,
        better=bool(truth > 1),
        covered=result.estimate.low <= truth <= result.estimate.high,
    )


def failed(updates: np.ndarray) -> tuple[int, int]:
    """(Runs that never reach the target, all runs)."""
    return int(np.isinf(updates).sum()), updates.size


def finalists(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """Alternatives a noisy projection cannot separate from the best of them."""
    projected = {
        str(i): stats.mean_estimate(scene.times[i] * rng.lognormal(0, 0.15, 3))
        for i in range(1, ALTERNATIVES + 1)
    }
    return not_separated(projected)


def timing(scene: Scene, rng: np.random.Generator) -> dict[str, stats.LogMean]:
    """Seconds per update of every setting, measured in blocks."""
    blocks = scene.seconds[:, None] * rng.lognormal(0, scene.block_sd, (ALTERNATIVES + 1, BLOCKS))
    return {str(i): stats.log_mean(row) for i, row in enumerate(blocks)}


def compare(
    before: np.ndarray, after: np.ndarray, seconds: dict[str, stats.LogMean], rival: str
) -> stats.Paired:
    """Updates of today and of the rival on the same seeds, with these timings."""
    today, other = seconds[TODAY], seconds[rival]
    return stats.paired_log_ratio(
        before * today.value,
        after * other.value,
        today_seconds_log_var=today.log_var,
        today_seconds_dof=today.dof,
        recommended_seconds_log_var=other.log_var,
        recommended_seconds_dof=other.dof,
    )


def run(family: str, repeats: int, seed: int, reuse: bool, looks: int) -> list[Outcome]:
    """Independent advices; advice i of a family always sees the same random numbers."""
    index = list(FAMILIES).index(family)
    rngs = (np.random.default_rng([seed, index, i]) for i in range(repeats))
    return [advise(FAMILIES[family](rng), rng, reuse, looks) for rng in rngs]


def summarise(family: str, outcomes: list[Outcome], twin: bool) -> Row:
    """Shares of one family."""
    sure = [o for o in outcomes if o.sure]
    change = [o for o in outcomes if o.verdict is Verdict.CHANGE]
    return Row(
        family=family,
        equal=family.startswith("all equal"),
        twin=twin,
        change=share([o.verdict is Verdict.CHANGE for o in outcomes]),
        keep=share([o.verdict is Verdict.KEEP for o in outcomes]),
        open=share([o.verdict is Verdict.NOT_ENOUGH_EVIDENCE for o in outcomes]),
        today_chosen=share([o.today_chosen for o in outcomes]),
        sign_test=share([o.method == "sign" for o in outcomes]),
        sure=share([o.sure for o in outcomes]),
        sure_and_right=some([o.better for o in sure]),
        change_and_right=some([o.better for o in change]),
        covered=share([o.covered for o in outcomes]),
    )


def share(hits: list[bool]) -> Estimate:
    """A share with its exact interval."""
    return stats.share_estimate(sum(hits), len(hits), "simulation")


def some(hits: list[bool]) -> Estimate | None:
    """A share, or None of nothing."""
    return share(hits) if hits else None


def failures(rows: list[Row], right: Estimate | None) -> list[str]:
    """The criteria that do not hold, in words."""
    wrong = [
        f"{row.family}: change advised in {percent(row.change)}, more than 5 %"
        for row in rows
        if row.equal and row.change.value > 0.05
    ]
    if right is not None and right.value < 0.9:
        wrong.append(f"of advices that say at least 95 %, {percent(right)} are right, under 90 %")
    return wrong


def percent(estimate: Estimate | None) -> str:
    """12.3 (11.0–13.7) %, n."""
    if estimate is None:
        return "none"
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:.1f} ({low:.1f}–{high:.1f}), n = {estimate.n}"


COLUMNS = {
    "change %": "change",
    "keep %": "keep",
    "today chosen %": "today_chosen",
    "sign test %": "sign_test",
    "say ≥ 95 % %": "sure",
    "of these right %": "sure_and_right",
    "of changes right %": "change_and_right",
    "range holds truth %": "covered",
}


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| family | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows:
        cells = [percent(getattr(row, name)) for name in COLUMNS.values()]
        lines.append(f"| {row.family} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def searched(rng: np.random.Generator, spread: float) -> tuple[bool, bool]:
    """Whether a search alone says *change*, and whether the candidate it names is better.

    Six sizes with four rates each; the first of three seeds chooses the rates, all three the
    front runner.
    """
    better = np.append(0.0, rng.normal(0, spread, ALTERNATIVES - 1))
    log_sd = rng.uniform(0.2, 0.35)
    rates = np.array([0.0, -0.1, -0.3, -1.0])
    logs = better[:, None, None] + rates[:, None] + log_sd * rng.normal(size=(ALTERNATIVES, 4, 3))
    tuned = np.take_along_axis(logs, logs[:, :, :1].argmax(1)[:, None], 1)[:, 0]
    front = int(tuned.mean(1).argmax())
    said = stands_out(np.exp(tuned[front, 1:]), ALTERNATIVES, WORTH)
    return said, bool(better[front] > 0)


def after_the_search(repeats: int, seed: int) -> tuple[dict[str, Estimate | None], list[str]]:
    """Shares of *change* after the search, and what does not hold."""
    shares: dict[str, Estimate | None] = {}
    for order, (name, spread) in enumerate((("all equal", 0.0), ("different", 0.5))):
        rng = np.random.default_rng([seed, 99, order])
        found = [searched(rng, spread) for _ in range(repeats)]
        shares[f"{name}: change"] = share([said for said, _ in found])
        shares[f"{name}: of changes right"] = some([right for said, right in found if said])
    false = shares["all equal: change"]
    right = shares["different: of changes right"]
    wrong = ["after the search a change is advised too often"] * (false.value > 0.05)
    wrong += ["after the search changes are too often wrong"] * (
        right is not None and right.value < 0.9
    )
    return shares, wrong


def simulate(
    repeats: int, seed: int, reuse: bool, looks: int
) -> tuple[list[Row], Estimate | None]:
    """All families, and the share of right ones among all advices that say at least 95 %."""
    outcomes = {family: run(family, repeats, seed, reuse, looks) for family in FAMILIES}
    sure = [o.better for family in outcomes.values() for o in family if o.sure]
    return [summarise(name, found, reuse) for name, found in outcomes.items()], some(sure)


def main(repeats: int = 2000, json: Path | None = None, seed: int = 0) -> int:
    """Measure how often advice is right, and that reusing the choosing seeds would be noticed.

    Args:
        repeats: Simulated advices per family; the criteria mean something from 200 on.
        json: Where to write every number.
        seed: Random seed.

    Returns:
        0 if the advice meets the criteria and the twin does not.
    """
    began = time.perf_counter()
    report, wrong = {}, {}
    for name, reuse, looks in MODES:
        rows, right = simulate(repeats, seed, reuse, looks)
        wrong[name] = failures(rows, right)
        print(f"## {name}\n\n{table(rows)}\n")
        print(f"All families: of advices that say at least 95 %, right: {percent(right)}.")
        print("\n".join(wrong[name]) or "All criteria hold.", end="\n\n")
        report[name] = {"rows": rows, "sure_and_right": right, "failures": wrong[name]}
    shares, early = after_the_search(repeats, seed)
    print("## After the search alone\n")
    print("\n".join(f"{name} %: {percent(found)}" for name, found in shares.items()))
    print("\n".join(early) or "All criteria hold.", end="\n\n")
    report["after the search"] = shares
    held, twin = [not wrong[name] for name, *_ in MODES[:2]], wrong[MODES[2][0]]
    print("The twin fails, as it must." if twin else "THE TWIN PASSES: this cannot be.")
    print(f"{repeats} advices a family, seed {seed}, {time.perf_counter() - began:.0f} s.")
    if json:
        versions = {"python": platform.python_version(), "numpy": np.__version__}
        versions |= {"scipy": scipy.__version__, "repeats": str(repeats), "seed": str(seed)}
        json.write_text(jsonlib.dumps(to_plain(report | {"provenance": versions}), indent=1))
    return 0 if all(held) and twin and not early else 1


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
