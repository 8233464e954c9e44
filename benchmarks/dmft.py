"""Mean-field theory of re-used batches against plain simulations, and what the solver costs.

Every case is trained as a plain full-batch loop in d dimensions, the batch re-used (``multi``) or
fresh at every step (``single``), over many seeds. A number agrees if simulation and theory differ
by at most 1 % or by 4 joint standard errors, whichever is more. The cases were fixed before the
first comparison. Then: how often the solver's own 90 % intervals hold what a much larger
run finds, and its time and memory for 7 iterates.

    python benchmarks/dmft.py --d 1000 --seeds 40 --json dmft.json
"""

from __future__ import annotations

import json as jsonlib
import math
import platform
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from batchlab import _random, stats
from batchlab.theory import Dynamics, dmft
from batchlab.theory.activations import activation
from batchlab.theory.targets import target
from batchlab.types import to_plain

STEPS = 6
RELATIVE, ERRORS = 0.01, 4.0
FRESH = 20_000
V, V_HIDDEN = (0.767832, -0.640651), (0.640651, 0.767832)


@dataclass(frozen=True)
class Case:
    """One training: target, activation, p, α and η."""

    target: str
    activation: str
    width: int
    alpha: float
    learning_rate: float


RELEASED = Case("tanh(He1(z1) + He3(z2))", "relu", 2, 3, 0.2)
CASES = (
    Case("z1 + z1*z2", "relu", 2, 3, 0.2),
    RELEASED,
    Case("tanh(z1) + tanh(z2)", "relu", 2, 1, 0.5),
    Case("He3(z) / sqrt(6)", "tanh", 1, 5, 0.2),
    Case("He3(z) / sqrt(6)", "tanh", 1, 4, 0.3),
    Case("sign(z1*z2)", "erf", 2, 5, 0.1),
    Case("z1 + z1*z2", "tanh", 2, 1, 0.5),
    Case("tanh(He1(z1) + He3(z2))", "erf", 2, 3, 0.5),
)


@dataclass(frozen=True)
class Row:
    """One case against theory.

    Attributes:
        case: What was trained.
        passes: ``multi`` or ``single``.
        numbers: Compared: all of m, Q and both errors at t = 1 … 6.
        disagree: Of these apart by more than 1 % and 4 joint standard errors.
        worst: Largest difference in joint standard errors.
        inside: Share within 1.645 joint standard errors; 0.9 if all else is exact.
        apart: Largest difference of m.
    """

    case: Case
    passes: str
    numbers: int
    disagree: int
    worst: float
    inside: float
    apart: float


def simulated(case: Case, passes: str, d: int, seeds: int) -> dict[str, Tensor]:
    """m, Q and errors of every seed by plain gradient descent. Shape ``[seeds, T+1, ...]``."""
    runs = [trained(case, passes, d, seed) for seed in range(seeds)]
    return {name: torch.stack([run[name] for run in runs]).double() for name in runs[0]}


def trained(case: Case, passes: str, d: int, seed: int) -> dict[str, Tensor]:
    """One seed. Inputs know no direction, so that teacher and student may start on the axes."""
    known, bent = target(case.target), activation(case.activation)
    k, p, n = known.dimensions, case.width, round(case.alpha * d)
    a = (-1.0) ** torch.arange(p) / math.sqrt(p)
    axes = math.sqrt(d) * torch.eye(d)[: k + p]
    teacher, W = axes[:k], axes[k:].clone()
    draw = _random.generator(seed, "simulation")
    x, rows = torch.randn(n, d, generator=draw), []
    for t in range(STEPS + 1):
        if t and passes == "single":
            x = torch.randn(n, d, generator=draw)
        h, y = x @ W.T / math.sqrt(d), known(x @ teacher.T / math.sqrt(d))
        error = bent.value(h) @ a - y
        m, Q = W @ teacher.T / d, W @ W.T / d
        rows.append((m, Q, fresh_error(case, m, Q, draw), error.square().mean() / 2))
        pull = error[:, None] * a * bent.slope(h)
        W = W - case.learning_rate * pull.T @ x / math.sqrt(d)
    names = ("overlaps", "selves", "test_error", "training_error")
    return dict(zip(names, map(torch.stack, zip(*rows, strict=True)), strict=True))


def fresh_error(case: Case, m: Tensor, Q: Tensor, draw: torch.Generator) -> Tensor:
    """½(y − f)² of fresh inputs, of which only (z, h) matters."""
    p, k = m.shape
    z = torch.randn(FRESH, k, generator=draw)
    rest = torch.linalg.cholesky(Q - m @ m.T)
    h = z @ m.T + torch.randn(FRESH, p, generator=draw) @ rest.T
    a = (-1.0) ** torch.arange(p) / math.sqrt(p)
    f = activation(case.activation).value(h) @ a
    return (target(case.target)(z) - f).square().mean() / 2


def theory(case: Case, passes: str, samples: int, seed: int = 0) -> Dynamics:
    """The same by the solver."""
    return dmft(
        case.target,
        alpha=case.alpha,
        learning_rate=case.learning_rate,
        steps=STEPS,
        width=case.width,
        second_layer=[(-1) ** j / math.sqrt(case.width) for j in range(case.width)],
        activation=case.activation,
        passes=passes,
        samples=samples,
        seed=seed,
    )


def compared(case: Case, passes: str, runs: dict[str, Tensor], found: Dynamics) -> Row:
    """Simulation and theory at t = 1 … 6."""
    differences, errors, allowed = [], [], []
    for name, each in runs.items():
        curve, n = getattr(found, name), len(each)
        here = each.mean(0)[1:].flatten()
        expected = curve.value[1:].flatten()
        own = (curve.each.std(0) / math.sqrt(found.groups))[1:].flatten()
        differences.append((here - expected).abs())
        errors.append((each.std(0)[1:].flatten().square() / n + own.square()).sqrt())
        allowed.append(RELATIVE * expected.abs())
    difference, error = torch.cat(differences), torch.cat(errors).clamp(min=1e-12)
    z, m = difference / error, runs["overlaps"].mean(0)
    wrong = difference > torch.maximum(ERRORS * error, torch.cat(allowed))
    apart = (m - found.overlaps.value).abs().max()
    inside = float((z <= 1.645).double().mean())
    return Row(case, passes, len(z), int(wrong.sum()), float(z.max()), inside, float(apart))


def released(runs: dict[str, Tensor], found: Dynamics) -> list[dict[str, object]]:
    """Mean |overlap| of both neurons along v and what is hidden, and the test error."""
    rows = []
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    for name, axis in (("along v", V), ("along hidden v", V_HIDDEN)):
        direction = torch.tensor(axis, dtype=torch.float64)
        curve = found.overlaps.of(lambda m, u=direction: ((m @ u) * signs).mean(-1))
        each = ((runs["overlaps"] @ direction) * signs).mean(-1)
        rows.append(beside(name, each, curve))
    return [*rows, beside("test error", runs["test_error"], found.test_error)]


def beside(name, each, curve) -> dict[str, object]:
    """Theory with its interval beside simulation with its standard error."""
    half, error = (curve.high - curve.low) / 2, each.std(0) / math.sqrt(len(each))
    columns = {"theory": curve.value, "±": half, "simulation": each.mean(0), "s.e.": error}
    return {"quantity": name} | {key: column.tolist() for key, column in columns.items()}


def coverage(case: Case, passes: str, samples: int, seeds: int) -> list[stats.Estimate]:
    """How often intervals hold the mean of a run with 2²³ samples; for m, Q, test error."""
    truth, hits = theory(case, passes, 2**23, seed=10_000), {}
    for seed in range(seeds):
        found = theory(case, passes, samples, seed)
        for name in ("overlaps", "selves", "test_error"):
            curve, right = getattr(found, name), getattr(truth, name).value
            held = ((curve.low <= right) & (right <= curve.high))[1:]
            hits.setdefault(name, []).append(held.double().mean())
    return [stats.mean_estimate([float(x) for x in found]) for found in hits.values()]


def cost(samples: int) -> dict[str, float]:
    """Seconds and peak memory of 7 iterates at p = k = 2."""
    began, used = time.perf_counter(), time.process_time()
    theory(RELEASED, "multi", samples)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    return {"samples": samples, "seconds": seconds, "cpu_seconds": cpu, "peak_GiB": peak}


def main(
    d: int = 1000,
    seeds: int = 40,
    samples: int = 2_000_000,
    covering: int = 100,
    json: Path | None = None,
) -> int:
    """Compare all cases, measure coverage and cost.

    Args:
        d: Input dimensions of the simulation.
        seeds: Simulations a case.
        samples: Of the solver.
        covering: Solutions for the coverage of the intervals.
        json: Where to write every number.

    Returns:
        0 if everything agrees.
    """
    price, rows, known = cost(samples), [], []
    print(
        f"{price['samples']} samples: {price['seconds']:.1f} s ({price['cpu_seconds']:.1f} s "
        f"CPU), {price['peak_GiB']:.2f} GiB",
        flush=True,
    )
    print("| target | s | p | α | η | passes | apart/numbers | worst z | in 90 % | Δm |")
    print("|---" * 10 + "|")
    for case in CASES:
        for passes in ("multi", "single"):
            runs, found = simulated(case, passes, d, seeds), theory(case, passes, samples)
            row = compared(case, passes, runs, found)
            rows.append(row)
            print(
                f"| {case.target} | {case.activation} | {case.width} | {case.alpha} | "
                f"{case.learning_rate} | {passes} | {row.disagree}/{row.numbers} | "
                f"{row.worst:.1f} | {row.inside:.2f} | {row.apart:.4f} |",
                flush=True,
            )
            if case == RELEASED and passes == "multi":
                known = released(runs, found)
    for line in known:
        print(line["quantity"])
        for key in ("theory", "±", "simulation", "s.e."):
            print(f"  {key:11}", " ".join(f"{x:.4f}" for x in line[key]))
    covered = {
        f"{c.target}, {c.activation}, {way}, {size} samples": coverage(c, way, size, covering)
        for c in (RELEASED, CASES[3])
        for way in ("multi", "single")
        for size in (2**14, 2**17)
    }
    for name, found in covered.items():
        print(name, "; ".join(map(str, found)))
    if json:
        versions = {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "d": d,
            "seeds": seeds,
            "samples": samples,
        }
        report = {
            "cost": price,
            "rows": [asdict(row) for row in rows],
            "released": known,
            "coverage": covered,
            "provenance": versions,
        }
        json.write_text(jsonlib.dumps(to_plain(report), indent=1))
    return int(any(row.disagree for row in rows))


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
