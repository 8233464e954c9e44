"""What full-batch gradient descent learns in high dimensions, with the solver's own error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab import _random
from batchlab.errors import InvalidValueError, must
from batchlab.theory import activations, targets
from batchlab.theory.activations import Activation
from batchlab.theory.overlaps import PASSES, Moment, Passes, Problem, Sample, solved
from batchlab.theory.targets import Target

GROUPS = 16
LEVEL = 0.9
STUDENT_T = 1.7530503556925552
"""95 % point of Student's t for 15 degrees of freedom."""

LEAST_SAMPLES, MOST_SAMPLES = 64 * GROUPS, 2**30 * GROUPS
MAX_STEPS, MAX_WIDTH = 1000, 64
JUMP = 1e-3
"""A function that rises by more than its slope explains, on an interval of 1e-11, jumps."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A quantity at t = 0 … T, solved independently by each group of samples.

    Attributes:
        each: Shape ``[groups, T+1, ...]``.

    Example:
        >>> groups = torch.arange(16.0).reshape(16, 1)
        >>> curve = Curve(groups).of(lambda x: 2 * x)
        >>> [round(float(x), 2) for x in (curve.value, curve.low, curve.high)]
        [15.0, 10.83, 19.17]
    """

    each: Float[Tensor, "groups T ..."]

    @property
    def value(self) -> Float[Tensor, "T ..."]:
        """Mean over the groups."""
        return self.each.mean(0)

    @property
    def low(self) -> Float[Tensor, "T ..."]:
        """Lower end of the 90 % interval of the solver's own error."""
        return self.value - self._half_width()

    @property
    def high(self) -> Float[Tensor, "T ..."]:
        """Upper end."""
        return self.value + self._half_width()

    def of(self, function: Callable[[Tensor], Tensor]) -> Curve:
        """A function of the quantity, such as its projection onto a direction.

        Args:
            function: On the shape of ``each``, keeping the first two axes.
        """
        return Curve(function(self.each))

    def _half_width(self) -> Tensor:
        return STUDENT_T * self.each.std(0) / math.sqrt(len(self.each))


@dataclass(frozen=True, eq=False)
class Dynamics:
    """Overlaps and errors of a student in high dimensions, at t = 0 … T.

    Attributes:
        overlaps: m = WW*ᵀ/d. Shape ``[T+1, p, k]``.
        selves: Q = WWᵀ/d. Shape ``[T+1, p, p]``.
        test_error: ½E(y − f)² on fresh examples. Shape ``[T+1]``.
        training_error: The same on the batch of the step that follows; for ``single``, ``online``
            and ``flow`` it is the test error.
        diverged_at: First t at which a number is not finite; NaN from there on. None: never.
        target: As text.
        activation: Its name.
        alpha: α = n/d.
        learning_rate: η of the sum of the losses.
        ridge: λ.
        second_layer: a.
        passes: Which dynamics.
        samples: Of all groups together.
        groups: Independent solutions behind the intervals.
        level: Coverage of the intervals, a share.
        seed: Random seed.
    """

    overlaps: Curve
    selves: Curve
    test_error: Curve
    training_error: Curve
    diverged_at: int | None
    target: str
    activation: str
    alpha: float
    learning_rate: float
    ridge: float
    second_layer: tuple[float, ...]
    passes: Passes
    samples: int
    groups: int
    level: float
    seed: int


def dmft(
    target: str | Callable[[Tensor], Tensor] | Target,
    *,
    alpha: float,
    learning_rate: float,
    steps: int,
    width: int = 2,
    activation: str | Callable[[Tensor], Tensor] | Activation = "relu",
    second_layer: Sequence[float] | Tensor | None = None,
    ridge: float = 0.0,
    passes: Passes = "multi",
    overlaps: Tensor | None = None,
    residual: Tensor | None = None,
    samples: int = 2**20,
    seed: int = 0,
) -> Dynamics:
    """What full-batch gradient descent learns of a target, in the limit of high dimensions.

    The equations stand at the head of :mod:`batchlab.theory.overlaps`.

    Args:
        target: As :func:`batchlab.theory.targets.target` reads it; k directions.
        alpha: α = n/d, examples per input dimension, above 0.
        learning_rate: η of the *sum* of ½(f − y)² over the batch, above 0.
        steps: T, updates, 0 or more.
        width: p, units.
        activation: As :func:`batchlab.theory.activations.activation` reads it; continuous.
        second_layer: a. Shape ``[p]``; left out, ±1/√p in turn.
        ridge: λ ≥ 0, of W ← (1 − ηλ)W.
        passes: ``multi``: one batch at every step; ``single``: a fresh one; ``flow``: the
            population's gradient flow at τ = ηαt; ``online``: SGD on single fresh examples.
        overlaps: m(0). Shape ``[p, k]``; left out, 0.
        residual: Q⊥(0), overlaps of the parts of W orthogonal to the teacher, positive
            semi-definite. Shape ``[p, p]``; left out, the identity.
        samples: At least so many in all; each of 16 groups has a power of 2. The largest
            tensors take samples · p · (T + 1) bytes.
        seed: Random seed.

    Returns:
        Overlaps and errors with 90 % intervals of the solver's own error. What a network in
        finite dimension differs by, of order 1/√d for one run, is not in them. Where
        the target has long tails and samples are few (2¹⁴ for He₃) they cover only about 80 %.

    Raises:
        InvalidValueError: If an argument is out of range, the activation jumps, or the target
            is not finite.

    Assumes:
        Gaussian inputs; d → ∞ at fixed α, p, k and T; rows of W* orthogonal.

    Source:
        dandi2024.

    Example:
        >>> found = dmft("z", alpha=2, learning_rate=0.1, steps=1, width=1, activation="linear")
        >>> [round(float(x), 3) for x in found.overlaps.value.flatten()]
        [0.0, 0.2]
    """
    if passes not in PASSES:
        raise InvalidValueError(must("passes", f"one of {', '.join(PASSES)}", passes))
    known = targets.target(target)
    problem = Problem(
        known,
        activations.activation(activation),
        _second_layer(second_layer, _whole("width", width, 1, MAX_WIDTH)),
        _number("alpha", alpha),
        _number("learning_rate", learning_rate),
        ridge if ridge == 0 else _number("ridge", ridge),
        _whole("steps", steps, 0, MAX_STEPS),
        *_start(overlaps, residual, width, known.dimensions),
    )
    refuse_jumps(problem.activation)
    per_group = 2 ** math.ceil(
        math.log2(_whole("samples", samples, LEAST_SAMPLES, MOST_SAMPLES) / GROUPS)
    )
    groups = (draw(problem, per_group, seed, group) for group in range(GROUPS))
    paths = [solved(problem, sample, passes) for sample in groups]
    ends = min(map(len, paths))
    return Dynamics(
        **_curves(problem, paths),
        diverged_at=ends if ends <= steps else None,
        target=problem.target.text,
        activation=problem.activation.name,
        alpha=float(alpha),
        learning_rate=float(learning_rate),
        ridge=float(ridge),
        second_layer=tuple(problem.second_layer.tolist()),
        passes=passes,
        samples=per_group * GROUPS,
        groups=GROUPS,
        level=LEVEL,
        seed=seed,
    )


# ------------------------------------------------------------------ samples and intervals


def draw(problem: Problem, samples: int, seed: int, group: int) -> Sample:
    """Scrambled Sobol points as normals: z first, then ξ(0), ξ(1), …

    Args:
        problem: What is to be solved.
        samples: N, a power of 2.
        seed: Random seed.
        group: Which of the independent scrambles.

    Raises:
        InvalidValueError: If the target is not finite on the sample.
    """
    p, k = problem.overlaps.shape
    size, key = k + p * (problem.steps + 1), _random.key(seed, "dmft", group)
    points = torch.quasirandom.SobolEngine(size, scramble=True, seed=key)
    uniform = points.draw(samples, dtype=torch.float64).mT.contiguous()
    normal = torch.special.ndtri(uniform + 2.0**-31)  # of multiples of 2⁻³⁰ in [0, 1)
    z, xi = normal[:k], normal[k:]
    y = problem.target(z.mT).contiguous()
    if not y.isfinite().all():
        raise InvalidValueError(must("target", "finite for every z", problem.target.text))
    return Sample(z, y, xi)


def _curves(problem: Problem, paths: list[list[Moment]]) -> dict[str, Curve]:
    """The groups' paths as curves, NaN where a group is not finite."""
    each = [_stacked(problem, path) for path in paths]
    m, residual, test, training = (torch.stack(parts) for parts in zip(*each, strict=True))
    return {
        "overlaps": Curve(m),
        "selves": Curve(residual + m @ m.mT),
        "test_error": Curve(test),
        "training_error": Curve(training),
    }


def _stacked(problem: Problem, path: list[Moment]) -> list[Tensor]:
    rows = [(*moment.state, moment.test, moment.training) for moment in path]
    shapes = problem.overlaps.shape, problem.residual.shape, (), ()
    missing = tuple(torch.full(shape, math.nan, dtype=torch.float64) for shape in shapes)
    rows += [missing] * (problem.steps + 1 - len(rows))
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


# ------------------------------------------------------------------ what is refused


def _number(name: str, value: float) -> float:
    if not (isinstance(value, int | float) and 0 < value < math.inf):
        raise InvalidValueError(must(name, "finite and above 0", value))
    return float(value)


def _whole(name: str, value: int, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidValueError(must(name, f"a whole number from {least} to {most}", value))
    return value


def _second_layer(weights: Sequence[float] | Tensor | None, width: int) -> Float[Tensor, " p"]:
    if weights is None:
        return (-1.0) ** torch.arange(width, dtype=torch.float64) / math.sqrt(width)
    return _matrix("second_layer", weights, (width,))


def _matrix(name: str, values: Sequence[float] | Tensor, shape: tuple[int, ...]) -> Tensor:
    found = torch.as_tensor(values).to(dtype=torch.float64, device="cpu")
    if found.shape != shape or not found.isfinite().all():
        raise InvalidValueError(must(name, f"finite, of shape {list(shape)}", found.tolist()))
    return found


def _start(
    overlaps: Tensor | None, residual: Tensor | None, width: int, dimensions: int
) -> tuple[Float[Tensor, "p k"], Float[Tensor, "p p"]]:
    """m(0) and Q⊥(0)."""
    if overlaps is None:
        overlaps = torch.zeros(width, dimensions)
    if residual is None:
        residual = torch.eye(width)
    found = _matrix("residual", residual, (width, width))
    if not torch.allclose(found, found.mT) or torch.linalg.eigvalsh(found)[0] < -1e-12:
        words = "symmetric and positive semi-definite"
        raise InvalidValueError(must("residual", words, found.tolist()))
    return _matrix("overlaps", overlaps, (width, dimensions)), found


def refuse_jumps(activation: Activation) -> None:
    """Gradient descent needs a continuous activation, finite for every h.

    Zooms in on the place where s rises most beyond its slope: what is left there is a jump.

    Raises:
        InvalidValueError: If s jumps, or is not finite, between −8 and 8.

    Example:
        >>> refuse_jumps(activations.activation("relu"))
        >>> refuse_jumps(activations.activation("h + sign(h - 1)", kinks=()))
        Traceback (most recent call last):
        batchlab.errors.InvalidValueError: `activation` must be continuous; got 'h + sign(h - 1)'.
    """
    h = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    left = torch.zeros(())
    for _ in range(4):
        values, slopes = activation.value(h), activation.slope(h)
        if not (values.isfinite().all() and slopes.isfinite().all()):
            raise InvalidValueError(must("activation", "finite for every h", activation.name))
        left = (values.diff() - h.diff() * (slopes[1:] + slopes[:-1]) / 2).abs()
        worst = int(left.argmax())
        h = torch.linspace(float(h[worst]), float(h[worst + 1]), 1001, dtype=torch.float64)
    if left.max() > JUMP:
        raise InvalidValueError(must("activation", "continuous", activation.name))
