"""On how many examples two trainings that differ in their seed disagree.

The seeds are the sample, the validation examples are given. Pairs of seeds share seeds and are not
independent: the interval is a jackknife over seeds, by pseudo-values, so that the same functions
as elsewhere give the mean, its interval, and the paired difference of two settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from batchlab.config import RunConfig
from batchlab.engine import RunState
from batchlab.engine.cell import one_thread
from batchlab.engine.evaluate import Evaluator
from batchlab.engine.job import to_device
from batchlab.engine.step import DTYPES
from batchlab.errors import InvalidTypeError
from batchlab.measure.robustness import program_on
from batchlab.stats import Paired, mean_estimate, paired_difference
from batchlab.tasks import METRICS, Prepared
from batchlab.tasks.altered import has_classes, targets_of
from batchlab.tasks.task import target_of
from batchlab.types import Estimate, Tree

TOLERANCE = 0.5
"""Numbers disagree when they differ by more than so many standard deviations of the targets."""


@dataclass(frozen=True)
class Reading:
    """How predictions are compared.

    Attributes:
        classes: Whether they are classes, by the largest output, or by :func:`named` where there
            is one; else numbers.
        sd: Standard deviation of each target over the validation data; empty for classes.
    """

    classes: bool
    sd: tuple[float, ...] = ()


def reading_of(prepared: Prepared) -> Reading | None:
    """How this task's predictions are compared, or None where they cannot be.

    They can where the target is found by :func:`batchlab.tasks.task.target_of` and the outputs are
    one tensor (or have one called ``logits``) that fits it: a score of each class, or a number.

    Args:
        prepared: The task.
    """
    targets, task = targets_of(prepared.validation), prepared.task
    if targets is None or (task.training_step is not None and task.forward is None):
        return None
    if targets.is_floating_point() and not has_classes(targets):
        if len(targets.unique()) <= 2:  # several labels of one example
            return None
        spread = targets.flatten(1).double() if targets.ndim > 1 else targets.double()[:, None]
        found = Reading(False, tuple(spread.std(0, correction=0).tolist()))
    else:
        found = Reading(True)
    # The first examples of an untrained model tell whether outputs and targets fit.
    objective = prepared.objective(0).eval()
    batch = next(
        iter(
            Evaluator(
                prepared.validation, METRICS["loss"], prepared.device, torch.float32
            ).batches()
        )
    )
    with torch.no_grad(), one_thread(prepared.device):
        fits = answers(objective.outputs(batch), target_of(batch), found)
    return None if fits is None else found


def answers(outputs: Tree, target: Tensor, reading: Reading) -> Tensor | None:
    """What a model says of each example, to be compared with another model's.

    Args:
        outputs: Of one batch.
        target: Of the same batch; places where a class is negative are left out.
        reading: How they are read.

    Returns:
        Classes, shape ``[B']``; the score of each example where there is one only, ``[B']`` and
        floating-point; or numbers in standard deviations of their targets, ``[B', C]``. None where
        outputs and target do not fit.

    Example:
        >>> answers(torch.tensor([[0.1, 0.9], [3.0, 1.0]]), torch.tensor([1, 1]), Reading(True))
        tensor([1, 0])
    """
    scores = _tensor(outputs)
    if scores is None:
        return None
    if not reading.classes:
        if scores.numel() != target.numel():
            return None
        sd = torch.tensor(reading.sd, dtype=torch.float64)
        return scores.reshape(len(target), -1).double().cpu() / sd.where(sd > 0, torch.ones(()))
    if scores.numel() == target.numel():
        return scores.flatten().double().cpu()
    said = _classes(scores, target)
    return None if said is None else said[target.flatten() >= 0].cpu()


def _tensor(outputs: Tree) -> Tensor | None:
    if isinstance(outputs, Mapping):
        outputs = outputs.get("logits")
    return outputs if isinstance(outputs, Tensor) else None


def _classes(scores: Tensor, target: Tensor) -> Tensor | None:
    """The class named by the scores, flat: along the last axis, or along the second as torch's
    cross-entropy has it.
    """
    if scores.shape[:-1] == target.shape:
        return scores.argmax(-1).flatten()
    if scores.ndim > 2 and (len(scores), *scores.shape[2:]) == tuple(target.shape):
        return scores.argmax(1).flatten()
    return None


def predictions(
    prepared: Prepared, config: RunConfig, states: Sequence[RunState], reading: Reading
) -> list[Shaped[np.ndarray, "N ..."]]:
    """What trained runs say of every validation example.

    Args:
        prepared: The task.
        config: The runs' recipe; its precision is that of the evaluation.
        states: Where they ended.
        reading: From :func:`reading_of`.

    Returns:
        One array a run, see :func:`answers`.
    """
    # A metric that looks at outputs makes the program hand them out.
    program = program_on(prepared, replace(prepared.task, metric=METRICS["accuracy"]), config)
    dtype = DTYPES[config.precision]
    source = Evaluator(prepared.validation, METRICS["loss"], prepared.device, dtype)
    found = []
    for state in states:
        params, buffers, _ = to_device(state.progress, prepared.device)
        parts = []
        with torch.no_grad(), one_thread(prepared.device):
            for batch in source.batches():
                said = answers(
                    program.evaluate(params, buffers, batch)[0], target_of(batch), reading
                )
                if said is None:
                    raise InvalidTypeError("`outputs` must fit the target; see `reading_of`.")
                parts.append(said)
        found.append(torch.cat(parts).numpy())
    return named(found) if reading.classes else found


def named(said: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Classes, from the one score of each example where runs give one: it names the second class
    above ½ where all scores of all runs are probabilities, and above 0 otherwise.

    Args:
        said: One array a run, from :func:`answers`.

    Example:
        >>> [one.tolist() for one in named([np.array([0.1, 0.9]), np.array([0.6, 0.7])])]
        [[0, 1], [1, 1]]
        >>> [one.tolist() for one in named([np.array([-3.0, 0.9]), np.array([0.6, 0.7])])]
        [[0, 1], [1, 1]]
    """
    if not all(np.issubdtype(one.dtype, np.floating) for one in said):
        return list(said)
    shares = all(((one >= 0) & (one <= 1)).all() for one in said)
    return [(one > (0.5 if shares else 0.0)).astype(np.int64) for one in said]


def disagreements(said: Sequence[np.ndarray]) -> Float[np.ndarray, "R R"]:
    """Share of examples on which each two runs disagree; 0 on the diagonal.

    Classes disagree when they differ; numbers when the root mean square over an example's outputs,
    each in standard deviations of its target, is above :data:`TOLERANCE`.

    Args:
        said: One array a run, from :func:`predictions`.

    Example:
        >>> disagreements([np.array([0, 1]), np.array([0, 1]), np.array([1, 1])])[0].tolist()
        [0.0, 0.0, 0.5]
    """
    runs = len(said)
    shares = np.zeros((runs, runs))
    for i in range(runs):
        for j in range(i):
            shares[i, j] = shares[j, i] = float(np.mean(_differs(said[i], said[j])))
    return shares


def _differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if one.ndim == 1:
        return one != other
    return np.sqrt(np.square(one - other).mean(1)) > TOLERANCE


def pseudo_values(shares: Float[np.ndarray, "R R"]) -> Float[np.ndarray, " R"]:
    """Jackknife pseudo-values over seeds, R·U − (R−1)·U₋ᵢ.

    U is the mean over all pairs of seeds, U₋ᵢ that without seed i. Their mean is U; their variance
    over R estimates Var U although pairs share seeds.

    Args:
        shares: Disagreement of each two runs, R at least 3.

    Returns:
        One value a seed.

    Source:
        Arvesen, Jackknifing U-statistics, Annals of Mathematical Statistics 40 (1969).

    Example:
        >>> shares = np.array([[0, 0.1, 0.3], [0.1, 0, 0.2], [0.3, 0.2, 0]])
        >>> pseudo_values(shares).round(3).tolist()
        [0.2, 0.0, 0.4]
    """
    runs = len(shares)
    total = shares.sum() / 2
    whole = total / (runs * (runs - 1) / 2)
    without = (total - shares.sum(1)) / ((runs - 1) * (runs - 2) / 2)
    return runs * whole - (runs - 1) * without


def repeatability(shares: Float[np.ndarray, "R R"]) -> Estimate:
    """Share of examples on which two seeds disagree, mean over all pairs, with a 90 % interval.

    Args:
        shares: From :func:`disagreements`.

    Returns:
        The share; the interval is NaN below three seeds. ``n`` counts seeds.

    Assumes:
        Seeds independent, pseudo-values roughly normal; the validation examples are given. Where
        one training in five is six times as bad as the rest, it covers 81 % at n = 8.

    Example:
        >>> print(repeatability(np.array([[0, 0.1, 0.3], [0.1, 0, 0.2], [0.3, 0.2, 0]])))
        0.2 % (0 to 0.537, n = 3)
    """
    runs = len(shares)
    if runs < 3:
        value = float(shares[0, 1]) if runs == 2 else float("nan")
        return Estimate(value, float("nan"), float("nan"), runs, "%", "pairs of seeds")
    found = mean_estimate(pseudo_values(shares), "%", "pairs of seeds, jackknife over seeds")
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def repeatability_difference(
    today: Float[np.ndarray, "R R"], recommended: Float[np.ndarray, "R R"]
) -> Paired:
    """Difference recommended − today of the share, paired by seed.

    Args:
        today: Disagreements of today's runs.
        recommended: Of the other setting's, with the same seeds in the same order, at least 3.
    """
    return paired_difference(
        pseudo_values(today), pseudo_values(recommended), maximise=False, unit="%"
    )
