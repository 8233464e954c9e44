"""Coverage of the noise interval where the truth is known, its bias, and what measuring costs.

    python benchmarks/noise.py [--json noise.json] [--repetitions 500] [--seed 0]

Gaussian gradients of known G and Σ, linear regression of which all N examples are known, and the
digits net with all N gradients taken. Every row: the nominal 90 % interval covers 85 to 95 %, and
signal and noise are unbiased within 4 standard errors. Two exceptions: on digits at least 85 %,
for there it may be wider than it need be; where a few examples dominate at least 75 %, a known
weakness. Measuring at the planned moments costs at most 5 % of training digits, paired in time.
Exit code 1 if a criterion is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from batchlab import _random, stats
from batchlab.measure import _moments, throughput
from batchlab.measure.noise import Moments, measure_noise, noise_plan, result
from batchlab.tasks import Objective, Prepared, load, prepare

REPETITIONS = 500
BLOCKS, BLOCK = 32, 8
EXAMPLES = BLOCKS * BLOCK
RATIOS = {"≪": 0.05, "≈": 1.0, "≫": 10.0}
"""Noise scale over the number of examples measured."""
COVERS = (0.85, 0.95)
HEAVY_COVERS = (0.75, 0.95)
"""Known weakness: the noise is underestimated where its largest examples are not drawn."""
MOST_OVERHEAD = 0.05

Summarise = Callable[[Tensor, bool, _moments.Design], Moments]
"""Gradients [n, P], whether single norms are used, how they were drawn → moments."""


@dataclass(frozen=True)
class Problem:
    """Gradients whose truth is known.

    Attributes:
        name: What they imitate.
        truth: (‖G‖², tr Σ).
        draw: Repetition → gradients of the drawn examples, ``[n, P]``.
        design: How they are drawn, given the size of the small gradients.
        single: Whether the norms of single examples are used, or of blocks.
    """

    name: str
    truth: tuple[float, float]
    draw: Callable[[int], Tensor]
    design: Callable[[int], _moments.Design]
    single: bool


@dataclass(frozen=True)
class Row:
    """One problem's result.

    Attributes:
        problem: Its name.
        scale: True noise scale, examples.
        examples: Examples a measurement.
        repetitions: Measurements.
        covered: Share whose answer holds: the interval, or the bound where not resolved.
        resolved: Share with a value.
        bounded: Share with a lower bound alone.
        signal_z: Mean error of the signal over its standard error.
        noise_z: The same of the noise.
        missed: Criteria missed, in words.
    """

    problem: str
    scale: float
    examples: int
    repetitions: int
    covered: float
    resolved: float
    bounded: float
    signal_z: float
    noise_z: float
    missed: str


def summarise(gradients: Tensor, single: bool, design: _moments.Design) -> Moments:
    """What the package makes of these gradients."""
    parts = gradients.unflatten(0, (BLOCKS, -1))
    means = parts.mean(1)
    gram = means @ means.T
    return _moments.moments(
        gram, parts.square().sum(2).mean(1) if single else gram.diagonal(), design
    )


def spectra() -> dict[str, Tensor]:
    """Eigenvalues of Σ, summing to 1."""
    found = {
        "1000 equal directions": torch.ones(1000),
        "1000 directions falling as 1/i": 1 / torch.arange(1.0, 1001),
        "3 equal directions": torch.ones(3),
    }
    return {name: (values / values.sum()).double() for name, values in found.items()}


def gaussian(seed: int, name: str, eigenvalues: Tensor, ratio: float, single: bool) -> Problem:
    """Gradients G + Σ^½ z; G lies like a draw of the noise."""
    signal = 1 / (ratio * EXAMPLES)
    root = eigenvalues.sqrt()

    def draw(repetition: int) -> Tensor:
        generator = _random.generator(seed, "gaussian noise", repetition)
        z = torch.randn(EXAMPLES + 1, len(root), generator=generator).double() * root
        return z[1:] + z[0] * math.sqrt(signal) / z[0].norm()

    small = 1 if single else BLOCK
    full = f"Gaussian, {name}, {'single' if single else 'blocks'}"
    return Problem(
        full,
        (signal, 1.0),
        draw,
        lambda _: _moments.independent(small, BLOCK, BLOCKS),
        single,
    )


def regression(seed: int, ratio: float, single: bool, examples: int = 640) -> Problem:
    """Least squares with 20 weights, away from its minimum; 256 of N drawn without replacement."""
    generator = _random.generator(seed, "regression")
    x = torch.randn(examples, 20, generator=generator).double()
    error = torch.randn(examples, 1, generator=generator).double()
    error -= x @ torch.linalg.lstsq(x, error).solution
    direction = torch.randn(20, 1, generator=generator).double()
    # Distance to the minimum at which the noise scale is the wanted one, by bisection.
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        each = (error + middle * x @ direction) * x
        signal, noise = truth_of(each)
        low, high = (middle, high) if noise > ratio * EXAMPLES * signal else (low, middle)

    def draw(repetition: int) -> Tensor:
        order = _random.generator(seed, "regression", repetition)
        return each[torch.randperm(examples, generator=order)[:EXAMPLES]]

    small = 1 if single else BLOCK
    return Problem(
        f"regression, {EXAMPLES} of {examples}, {'single' if single else 'blocks'}",
        truth_of(each),
        draw,
        lambda n: _moments.without_replacement(small, BLOCK, BLOCKS, n),
        single,
    )


def truth_of(each: Tensor) -> tuple[float, float]:
    """‖G‖² and tr Σ of all N examples."""
    whole = each.mean(0)
    return float(whole.square().sum()), float((each - whole).square().sum(1).mean())


def problems(seed: int) -> list[Problem]:
    """Every spectrum and the regression, at three ratios of noise scale to examples."""
    found = [
        gaussian(seed, f"{name}, scale {sign} n", values, ratio, single)
        for name, values in spectra().items()
        for sign, ratio in RATIOS.items()
        for single in (True, False)
    ]
    for sign, ratio in {"≪": 0.1, "≈": 1.0, "≫": 5.0}.items():
        for single in (True, False):
            made = regression(seed, ratio, single)
            found.append(dataclasses.replace(made, name=f"{made.name}, scale {sign} n"))
    return found


def heavy(seed: int) -> Problem:
    """A few examples dominate: Gaussian gradients times log-normal sizes, kurtosis of norms 13."""
    even = gaussian(seed, "", spectra()["1000 equal directions"], 0.05, single=True)
    whole = math.sqrt(even.truth[0])

    def draw(repetition: int) -> Tensor:
        generator = _random.generator(seed, "heavy noise", repetition)
        z = torch.randn(EXAMPLES, 1000, generator=generator).double() / math.sqrt(1000)
        size = torch.randn(EXAMPLES, 1, generator=generator).double()
        each = z * torch.exp(0.8 * size - 0.64)
        each[:, 0] += whole
        return each

    return dataclasses.replace(even, name="a few examples dominate, scale ≪ n, single", draw=draw)


def score(
    problem: Problem,
    repetitions: int,
    use: Summarise = summarise,
    covers: tuple[float, float] = COVERS,
) -> Row:
    """Repeat a problem and count."""
    measured = [
        use(problem.draw(i), problem.single, problem.design(640)) for i in range(repetitions)
    ]
    return row(problem.name, problem.truth, measured, EXAMPLES, covers)


def row(
    name: str,
    truth: tuple[float, float],
    measured: list[Moments],
    examples: int,
    covers: tuple[float, float] = COVERS,
) -> Row:
    """Coverage and bias of measurements of one truth, against the coverage allowed."""
    scale = truth[1] / truth[0]
    answers = [result(m, samples=0, examples=examples, method="per example") for m in measured]
    covered = [
        a.scale.low <= scale <= a.scale.high if a.scale else not (a.at_least or 0) > scale
        for a in answers
    ]
    z = [
        _z(np.array([getattr(m, part) for m in measured]), value)
        for part, value in zip(("signal", "noise"), truth, strict=True)
    ]
    share = float(np.mean(covered))
    missed = [f"covers {share:.1%}"] if not covers[0] <= share <= covers[1] else []
    missed += [f"bias of {abs(value):.1f} s.e." for value in z if not abs(value) <= 4]
    return Row(
        name, scale, examples, len(measured), share,
        float(np.mean([a.scale is not None for a in answers])),
        float(np.mean([a.at_least is not None for a in answers])),
        *z, ", ".join(missed),
    )  # fmt: skip


def _z(values: np.ndarray, truth: float) -> float:
    return float((values.mean() - truth) / (values.std(ddof=1) / math.sqrt(len(values))))


def digits_rows(seed: int, repetitions: int) -> list[Row]:
    """The digits net before and during training, against the gradients of all its examples."""
    prepared = prepare(load("digits"), device="cpu")
    rows = []
    for passes in (0, 1, 5):
        objective = trained(prepared, passes)
        truth = truth_on(objective, prepared)
        measured = [
            measure_noise(objective, prepared, prepared.baseline, samples=i, seed=seed).moments
            for i in range(repetitions)
        ]
        name = f"digits after {passes} passes, 256 of {prepared.examples}"
        kept = [m for m in measured if m is not None]
        rows.append(row(name, truth, kept, EXAMPLES, covers=(COVERS[0], 1.0)))
    return rows


def trained(prepared: Prepared, passes: int) -> Objective:
    """The baseline's weights after some passes."""
    objective = prepared.objective(0).train()
    rate, momentum = prepared.baseline.learning_rate or 0.0, prepared.baseline.momentum or 0.0
    optimizer = torch.optim.SGD(objective.parameters(), lr=rate, momentum=momentum)
    for pass_ in range(passes):
        for index in _random.permutation(prepared.examples, 0, pass_).split(32):
            optimizer.zero_grad()
            objective(prepared.train.batch(index))[0].mean().backward()
            optimizer.step()
    return objective


def truth_on(objective: Objective, prepared: Prepared) -> tuple[float, float]:
    """‖G‖² and tr Σ from every example's gradient, one by one, by plain autograd."""
    parameters = [p for p in objective.parameters() if p.requires_grad]
    total, squares = torch.zeros(sum(p.numel() for p in parameters)).double(), 0.0
    for index in torch.arange(prepared.examples).split(1):
        losses, _ = objective(prepared.train.batch(index))
        found = torch.autograd.grad(losses.sum(), parameters)
        flat = torch.cat([g.flatten() for g in found]).double()
        total, squares = total + flat, squares + float(flat @ flat)
    signal = float((total / prepared.examples).square().sum())
    return signal, squares / prepared.examples - signal


@dataclass(frozen=True)
class Overhead:
    """What measuring the noise scale during a run costs.

    Attributes:
        measurements: Planned for the run.
        examples: Examples each.
        probe_ms: Median time of one.
        training_ms: Median time of training the run, on the plain loop.
        share: Median over pairs of measuring over training.
        low: Low end of its 90 % interval.
        high: High end.
        pairs: Pairs of one timed measurement and one timed block of training.
        missed: Criteria missed, in words.
    """

    measurements: int
    examples: int
    probe_ms: float
    training_ms: float
    share: float
    low: float
    high: float
    pairs: int
    missed: str


def overhead(pairs: int = 20) -> Overhead:
    """Time measuring and training digits alternately, on one thread."""
    prepared = prepare(load("digits"), device="cpu")
    config, objective = prepared.baseline, prepared.objective(0).train()
    assert isinstance(config.samples, int)
    assert isinstance(config.batch_size, int)
    plan = noise_plan(config.samples)
    probe, training = [], []
    for i in range(pairs):
        start = time.perf_counter()
        measure_noise(objective, prepared, config, samples=i, seed=0, examples=plan.examples)
        probe.append(time.perf_counter() - start)
        block = throughput.time_block(prepared, config, seconds=0.2, threads=1)
        training.append(block.seconds / block.updates * (config.samples // config.batch_size))
    shares = len(plan.at) * np.array(probe) / np.array(training)
    found = stats.median_estimate(shares)
    missed = f"overhead {found.value:.1%}" if not found.value <= MOST_OVERHEAD else ""
    return Overhead(
        len(plan.at), plan.examples, 1e3 * float(np.median(probe)),
        1e3 * float(np.median(training)), found.value, found.low, found.high, pairs, missed,
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [
        f"{'problem':<66}{'scale':>8}{'n':>5}{'reps':>6}{'covered':>9}{'resolved':>9}{'bound':>7}"
        f"{'z sig.':>8}{'z noise':>8}"
    ]
    lines += [
        f"{r.problem:<66}{r.scale:>8.4g}{r.examples:>5}{r.repetitions:>6}{r.covered:>9.1%}"
        f"{r.resolved:>9.0%}{r.bounded:>7.0%}{r.signal_z:>8.1f}{r.noise_z:>8.1f}"
        f"{'   MISSED: ' + r.missed if r.missed else ''}"
        for r in rows
    ]
    return "\n".join(lines)


def summary(rows: list[Row], cost: Overhead) -> str:
    """Three lines."""
    covered, counts = [r.covered for r in rows], [r.repetitions for r in rows]
    return (
        f"nominal 90 %: covers {min(covered):.1%} to {max(covered):.1%} on {len(rows)} problems, "
        f"{min(counts)} to {max(counts)} repetitions each\n"
        f"digits: {cost.measurements} × {cost.examples} examples cost {cost.share:.1%} of "
        f"training ({cost.low:.1%} to {cost.high:.1%}, n = {cost.pairs} pairs): "
        f"{cost.probe_ms:.0f} ms each, training {cost.training_ms:.0f} ms"
        f"{'   MISSED: ' + cost.missed if cost.missed else ''}\n"
        f"{sum(bool(r.missed) for r in rows) + bool(cost.missed)} missed; torch "
        f"{torch.__version__}, one thread"
    )


def main() -> int:
    """Print the table; 1 if a criterion is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [score(problem, given.repetitions) for problem in problems(given.seed)]
    rows.append(score(heavy(given.seed), given.repetitions, covers=HEAVY_COVERS))
    rows += digits_rows(given.seed, min(given.repetitions, 400))
    cost = overhead()
    print(table(rows), summary(rows, cost), sep="\n\n")
    if given.json:
        plain = {
            "rows": [dataclasses.asdict(r) for r in rows],
            "overhead": dataclasses.asdict(cost),
        }
        given.json.write_text(json.dumps(plain, indent=1))
    return int(any(r.missed for r in rows) or bool(cost.missed))


if __name__ == "__main__":
    sys.exit(main())
