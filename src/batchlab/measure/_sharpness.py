"""What is asked about the curvature of a loss, and what is found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from batchlab import _html
from batchlab.errors import InvalidValueError, must
from batchlab.types import Estimate

KINDS = ("hessian", "gauss-newton")
LEAST_PROBES = 8
PARTS = 8
UNIT = "loss/parameter²"


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        eigenvalues: Largest eigenvalues, K.
        probes: Probe vectors of the trace; 0 leaves it out.
        examples: Examples of the subset; all of them where there are fewer.
        kind: ``hessian``, or ``gauss-newton``, which leaves out the curvature of the model itself.
        tolerance: Relative accuracy of each eigenvalue.
        smallest: Whether the smallest eigenvalue, too, is known at the end, to the tolerance times
            the largest magnitude; else it is only bounded from above.
        seed: Names the subset and every random vector.
        micro_batch_size: Examples in memory at a time; left out, as many as a graph of 1 GiB
            holds. The result does not depend on it.
        parts: Disjoint parts of the subset by which its own randomness is judged; 0 leaves that
            out.
    """

    eigenvalues: int = 1
    probes: int = 16
    examples: int = 1024
    kind: str = "hessian"
    tolerance: float = 1e-3
    smallest: bool = False
    seed: int = 0
    micro_batch_size: int | None = None
    parts: int = PARTS

    def __post_init__(self) -> None:
        for name in ("eigenvalues", "examples", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidValueError(must(name, "at least 1", value))
        if self.probes and self.probes < LEAST_PROBES:
            hint = "Fewer give no range that holds."
            raise InvalidValueError(
                must("probes", f"at least {LEAST_PROBES}, or 0", self.probes, hint)
            )
        if self.kind not in KINDS:
            raise InvalidValueError(must("kind", " or ".join(KINDS), self.kind))
        if not 0 < self.tolerance < 1:
            raise InvalidValueError(must("tolerance", "between 0 and 1", self.tolerance))


@dataclass(frozen=True)
class Sharpness:
    """Curvature of the loss at a model's weights.

    Attributes:
        eigenvalues: The largest, descending. The range is what the iteration leaves open on this
            subset, round-off included: an eigenvalue lies in it, and none of that rank below it.
            That none lies above rests on the random first vectors. It says nothing about other
            examples.
        sampled: The same values with a 90 % range for all the data of which the subset is a part,
            from disjoint parts of it, to first order in 1/examples; empty where the subset is
            everything.
        smallest: The smallest eigenvalue; its low end is −∞ where it is only known to be at most
            the value.
        trace: The trace, or None. The range is that of the probe vectors.
        kind: ``hessian`` or ``gauss-newton``.
        examples: Examples of the subset.
        population: Examples it was drawn from.
        parameters: Parameters that are trained, P.
        products: Products with the matrix.
        seconds: Time it took; of several runs together, its share.
        tolerance: Accuracy asked for.
        converged: Whether it was reached.
    """

    eigenvalues: tuple[Estimate, ...]
    sampled: tuple[Estimate, ...]
    smallest: Estimate
    trace: Estimate | None
    kind: str
    examples: int
    population: int
    parameters: int
    products: int
    seconds: float
    tolerance: float
    converged: bool

    @property
    def largest(self) -> Estimate:
        """The largest eigenvalue, which is what is called sharpness."""
        return self.eigenvalues[0]

    @property
    def stable_learning_rate(self) -> float:
        """2/λ: gradient descent on all of the data above it leaves this point; ∞ where λ ≤ 0."""
        return 2 / self.largest.value if self.largest.value > 0 else math.inf

    def values(self) -> dict[str, float]:
        """As named floats, for a Trace."""
        named = {f"eigenvalue_{i}": one for i, one in enumerate(self.eigenvalues, 1)}
        named |= {f"sampled_{i}": one for i, one in enumerate(self.sampled, 1)}
        named |= {"smallest": self.smallest}
        named |= {} if self.trace is None else {"trace": self.trace}
        found = {}
        for name, one in named.items():
            found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        found |= {"converged": float(self.converged), "products": float(self.products)}
        return {f"sharpness.{name}": value for name, value in found.items()}

    def _head(self) -> str:
        """What was measured, on what."""
        kind = "Hessian" if self.kind == "hessian" else "Gauss–Newton matrix"
        of = f" of {self.population:,}" if self.population > self.examples else ""
        return (
            f"{kind} of the loss on {self.examples:,}{of} examples, evaluation mode, "
            f"{self.parameters:,} parameters"
        )

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """Name, value, range, and what the range covers."""
        rows = []
        for i, one in enumerate(self.eigenvalues):
            name = "largest eigenvalue" if i == 0 else f"eigenvalue {i + 1}"
            rows.append((name, f"{one.value:.4g}", _range(one), "left open by the iteration"))
            if self.sampled:
                over = self.sampled[i]
                about = f"90 %, for all {self.population:,} examples, from {over.n} parts"
                rows.append(("", "", _range(over), about))
        low, high = self.smallest.low, self.smallest.value
        known = math.isfinite(low)
        about = "left open by the iteration" if known else "it may be smaller"
        shown = f"{high:.4g}" if known else f"≤ {high:.4g}"
        rows.append(("smallest eigenvalue", shown, _range(self.smallest) if known else "", about))
        if self.trace is not None:
            about = f"90 %, from {self.trace.n} probe vectors"
            rows.append(("trace", f"{self.trace.value:.4g}", _range(self.trace), about))
        rate = self.stable_learning_rate
        rows.append(("2/largest", f"{rate:.4g}", "", "learning rate that gradient descent bears"))
        return rows

    def _foot(self) -> str:
        """What it cost, and what was not reached."""
        cost = f"{self.products} products in {self.seconds:.3g} s; unit {UNIT}"
        if self.converged:
            return cost
        return f"{cost}; NOT as accurate as {self.tolerance:g}: the ranges say how far it came"

    def __str__(self) -> str:
        lines = [
            f"{name:<21}{value:<11}{span:<25}{about}" for name, value, span, about in self._rows()
        ]
        return "\n".join([self._head(), *(line.rstrip() for line in lines), self._foot()])

    def _repr_html_(self) -> str:
        """For notebooks."""
        table = _html.table(("", "value", "range", "range of what"), self._rows())
        return _html.paragraph(self._head(), strong=True) + table + _html.paragraph(self._foot())

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, str]:
        """For IPython."""
        return _html.bundle(self._repr_html_(), str(self))


def _range(one: Estimate) -> str:
    return f"{one.low:.4g} to {one.high:.4g}"
