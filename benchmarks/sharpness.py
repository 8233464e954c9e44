"""What sharpness costs: the same Lanczos as a plain loop of double backwards, over ours.

The largest eigenvalue of the Hessian to 1e-3, on one fixed subset, of an MLP and of a small CNN,
each trained a little. The plain way builds the gradient's graph anew for every product, model by
model; ours keeps it, and takes 16 models together. Both use the same first vectors, the same
re-orthogonalisation and the same stop, and must find the same eigenvalues. They run in turn, and
the order changes from pair to pair.

    python benchmarks/sharpness.py --pairs 15 --json results.json

Aims: at least 1.2 times as fast for one model, and 1.8 times a model for 16.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchlab import _random
from batchlab._platform import processor_name
from batchlab.measure._own import Examples
from batchlab.measure._spectra import measure, tensors_of
from batchlab.measure.sharpness import Settings
from batchlab.models.cnn import SmallCNN
from batchlab.models.mlp import MLP
from batchlab.stats import median_estimate
from batchlab.tasks import Objective, Task
from batchlab.tasks.source import Stacked

AIMS = {1: 1.2, 16: 1.8}
TOLERANCE, MOST = 1e-3, 256
AGREE = 2e-3
"""Relative difference of two eigenvalues that are both right to 1e-3."""
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: MLP(64, (128, 128), 10), (64,)),
    "cnn": (lambda: SmallCNN(), (1, 8, 8)),
}


def points(shape: tuple[int, ...], examples: int) -> tuple[Tensor, Tensor]:
    """Ten classes of points about ten centres."""
    draw = _random.generator(0, "sharpness benchmark")
    labels = torch.arange(examples) % 10
    centres = torch.randn(10, math.prod(shape), generator=draw)
    inputs = centres[labels] + 2 * torch.randn(examples, math.prod(shape), generator=draw)
    return inputs.reshape(-1, *shape), labels


def trained(make: Callable[[], nn.Module], data: tuple[Tensor, Tensor], seed: int) -> nn.Module:
    """A model after 50 updates."""
    with _random.seeded(seed, "init"):
        model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for update in range(50):
        index = (torch.arange(32) + 32 * update) % len(data[1])
        optimizer.zero_grad()
        cross_entropy(model(data[0][index]), data[1][index]).backward()
        optimizer.step()
    return model


# ------------------------------------------------------------------ the plain way


def plain(model: nn.Module, data: tuple[Tensor, Tensor], start: Tensor) -> tuple[float, int]:
    """Largest eigenvalue by Lanczos with full re-orthogonalisation, and the products used."""
    parameters = list(model.parameters())
    inputs, labels = data

    def product(vector: Tensor) -> Tensor:
        loss = cross_entropy(model(inputs), labels)
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        pieces = vector.split([p.numel() for p in parameters])
        along = [v.view_as(p) for v, p in zip(pieces, parameters, strict=True)]
        found = torch.autograd.grad(gradients, parameters, along)
        return torch.cat([h.reshape(-1) for h in found])

    basis, diagonal, beside = [start / start.norm()], [], []
    while True:
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        whole = torch.stack(basis)
        for _ in range(2):
            image = image - whole.T @ (whole @ image)
        beside.append(float(image.norm()))
        inner = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
        values, mixes = np.linalg.eigh(inner)
        enough = beside[-1] * abs(mixes[-1, -1]) <= TOLERANCE * abs(values[-1])
        if enough or len(basis) == MOST:
            return float(values[-1]), len(basis)
        basis.append(image / beside[-1])


def plain_all(models: list[nn.Module], data: tuple[Tensor, Tensor]) -> list[float]:
    """One after the other."""
    found = []
    for model in models:
        draw = _random.generator(0, "lanczos", 0, 0)
        size = sum(p.numel() for p in model.parameters())
        start = torch.randn(size, generator=draw, dtype=torch.float64).float()
        found.append(plain(model, data, start)[0])
    return found


# ------------------------------------------------------------------ ours


def ours_all(models: list[nn.Module], data: tuple[Tensor, Tensor]) -> list[float]:
    """All at once, as the probe takes stacked runs."""
    task = Task(
        lambda: models[0],
        data,
        loss=lambda out, batch: cross_entropy(out, batch[1], reduction="none"),
    )
    objectives = [Objective(task, model) for model in models]
    tensors = [tensors_of(objective) for objective in objectives]
    params, fixed = (
        {name: torch.cat([one[i][name] for one in tensors]) for name in tensors[0][i]}
        for i in range(2)
    )
    size = len(data[1])
    examples = Examples(Stacked(data), torch.arange(size), size, 0)
    settings = Settings(probes=0, examples=size, tolerance=TOLERANCE, parts=0)
    found = measure(objectives[0], params, fixed, examples, settings)
    return [one.largest.value for one in found]


# ------------------------------------------------------------------ in pairs


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        model: Which.
        together: Models, M.
        parameters: Of one.
        examples: Of the subset.
        ratio: Median over pairs of plain seconds over ours.
        low: Low end of its 90 % range.
        high: High end.
        cpu: The same median of CPU seconds, which other programs disturb less.
        pairs: Pairs.
        plain_ms: Median of the plain way, per model.
        ours_ms: Median of ours, per model.
        apart: Largest relative difference of the eigenvalues.
        aim: What the ratio is to be at least.
    """

    model: str
    together: int
    parameters: int
    examples: int
    ratio: float
    low: float
    high: float
    cpu: float
    pairs: int
    plain_ms: float
    ours_ms: float
    apart: float
    aim: float

    @property
    def missed(self) -> bool:
        """Whether it is too slow, or not the same."""
        return not (self.ratio >= self.aim and self.apart <= AGREE)


def paired(name: str, together: int, pairs: int, examples: int) -> Row:
    """Both ways in turn; the first pair warms up."""
    make, shape = MODELS[name]
    data = points(shape, examples)
    models = [trained(make, data, seed) for seed in range(together)]
    ways = {"plain": plain_all, "ours": ours_all}
    times: dict[str, list[float]] = {way: [] for way in ways}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, list[float]] = {}
    for number in range(-1, pairs):
        for way in sorted(ways, reverse=bool(number % 2)):
            began, used = time.perf_counter(), time.process_time()
            found[way] = ways[way](models, data)
            if number >= 0:
                times[way].append(time.perf_counter() - began)
                spent[way].append(time.process_time() - used)
    ratio = median_estimate(np.array(times["plain"]) / np.array(times["ours"]))
    cpu = float(np.median(np.array(spent["plain"]) / np.array(spent["ours"])))
    apart = max(abs(a / b - 1) for a, b in zip(found["plain"], found["ours"], strict=True))
    each = {way: 1e3 * float(np.median(times[way])) / together for way in ways}
    size = sum(p.numel() for p in models[0].parameters())
    return Row(
        name, together, size, examples, ratio.value, ratio.low, ratio.high, cpu, pairs,
        each["plain"], each["ours"], apart, AIMS[together],
    )  # fmt: skip


def line(row: Row) -> str:
    """A row of the table."""
    verdict = "MISSED" if row.missed else "reached"
    return (
        f"{row.model:<5}{row.together:>3} model{'s' if row.together > 1 else ' '} of "
        f"{row.parameters:,} on {row.examples} examples: {row.plain_ms:.1f} ms a model plain, "
        f"{row.ours_ms:.1f} ms ours: {row.ratio:.2f}× ({row.low:.2f} to {row.high:.2f}, n = "
        f"{row.pairs} pairs; CPU time {row.cpu:.2f}×); aim {row.aim}× {verdict}; eigenvalues "
        f"apart by {row.apart:.1e}"
    )


def main() -> int:
    """Print the rows; 1 if an aim is missed or the eigenvalues differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for name in given.models:
        for together in AIMS:
            rows.append(paired(name, together, given.pairs, given.examples))
            print(line(rows[-1]), flush=True)
    print(f"{processor_name()}, {given.threads} thread(s), torch {torch.__version__}, float32")
    if given.json:
        machine = {"processor": processor_name(), "threads": given.threads}
        machine["torch"] = torch.__version__
        whole = {"machine": machine, "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(whole, indent=1), "utf-8")
    return int(any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
