"""What the study can be asked for, in each mode."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from batchlab.errors import InvalidValueError, must
from batchlab.studies.claim import Mode, Parameters, Value

FAULTS = (
    *("none", "reciprocal", "another time", "part of the batch", "counts exchanged"),
    *("recurrent counts exchanged", "growing not trained", "short evaluated at the start"),
    *("sizes exchanged", "small not trained", "large not trained"),
)


@dataclass(frozen=True)
class Asked:
    """Every parameter of the study; the values are those of ``--quick``.

    Attributes:
        pictures: Name of a picture set.
        net: Of the trainings that are not about the kind of net.
        examples: Training examples.
        small: Smallest batch size, examples.
        large: Largest.
        steps: Batch sizes from the smallest to the largest.
        stages: Batch sizes that a growing training passes through.
        passes: Over the data, where trainings are compared at their end.
        few: Training examples where over-fitting is looked for.
        short: Passes of a short training over them.
        long: Passes of a long one.
        wrong: Share of wrong labels.
        target: Validation loss to reach.
        held: Validation examples; the target is noticed by a quarter of them.
        reach_small: Passes with the smallest batch size until the target, at most.
        reach_large: With the largest.
        rates: Learning rates tried first in each repetition.
        seeds: Repetitions.
        arrivals: Repetitions of trainings to the target, which take longest.
        compared: Those of them, from the first on, in which two kinds of net are compared.
        pairs: Repetitions of two runs.
        longer: Repetitions of two runs of equal updates, in which a large batch sees most.
        rounds: Of timing.
        trials: Of weighing.
        fault: One of :data:`FAULTS` that is planted, or ``none``.

    Raises:
        InvalidValueError: If the fault is not known.
    """

    pictures: str = "digits"
    net: str = "mlp"
    examples: int = 1024
    small: int = 32
    large: int = 256
    steps: int = 2
    stages: int = 4
    passes: float = 6.0
    few: int = 256
    short: float = 10.0
    long: float = 40.0
    wrong: float = 0.2
    target: float = 0.5
    held: int = 512
    reach_small: float = 4.0
    reach_large: float = 10.0
    rates: int = 3
    seeds: int = 6
    arrivals: int = 6
    compared: int = 3
    pairs: int = 6
    longer: int = 3
    rounds: int = 8
    trials: int = 3
    fault: str = "none"

    def __post_init__(self) -> None:
        if self.fault not in FAULTS:
            raise InvalidValueError(must("fault", f"one of {', '.join(FAULTS)}", self.fault))

    @staticmethod
    def of(parameters: Parameters) -> Asked:
        """Those of the study, or the part of them that a cell depends on.

        Example:
            >>> Asked.of({"small": 16, "order": "grow"}).small
            16
        """
        known = {field.name for field in fields(Asked)}
        given: dict[str, Any] = {k: v for k, v in parameters.items() if k in known}
        return Asked(**given)

    def some(self, names: str) -> dict[str, Value]:
        """What a cell depends on.

        Args:
            names: With spaces between them.

        Example:
            >>> Asked(small=16).some("small steps")
            {'small': 16, 'steps': 2}
        """
        return {name: getattr(self, name) for name in names.split()}


QUICK: dict[str, Value] = asdict(Asked())
FULL: dict[str, Value] = {
    "steps": 4,
    "rates": 5,
    "seeds": 32,
    "arrivals": 52,
    "compared": 52,
    "pairs": 64,
    "longer": 64,
    "rounds": 40,
    "trials": 30,
}
PAPER: dict[str, Value] = {
    "pictures": "mnist",
    "net": "cnn",
    "examples": 50_000,
    "few": 5_000,
    "large": 1024,
    "steps": 4,
    "stages": 6,
    "passes": 3.0,
    "target": 0.1,
    "held": 2_000,
    "rates": 5,
    "seeds": 10,
    "arrivals": 10,
    "compared": 10,
    "pairs": 10,
    "longer": 10,
    "rounds": 40,
    "trials": 30,
}
"""A guide has no scale of its own: this is larger pictures, a convolutional net for all."""
PARAMETERS: dict[Mode, Parameters] = {
    "quick": QUICK,
    "full": QUICK | FULL,
    "paper": QUICK | PAPER,
}
