"""What γ, the feature-learning strength, asks of a task: its depth, its law, whether it can be."""

from __future__ import annotations

from batchlab.engine.capability import probe_capability
from batchlab.errors import reason
from batchlab.models.feature_strength import depth_of, rate_factor
from batchlab.rules import is_sgd_family
from batchlab.tasks import Prepared
from batchlab.tasks.prepare import first_batch


def depth(prepared: Prepared) -> int:
    """L of the law, counted from the losses of a few examples.

    Args:
        prepared: The task.
    """
    objective = prepared.objective(0).eval()
    return depth_of(objective(first_batch(prepared))[0].sum())


def factor(gamma: float | None, layers: int, rule: str) -> float:
    """What the learning rate of the model as it is is multiplied by: γ² up to 1, γ^(2/L) above.

    For rules that divide by the gradient's size, whose steps do not grow with it, the root.

    Args:
        gamma: γ, or None for the model as it is.
        layers: L.
        rule: Update rule.

    Source:
        atanasov2025, section 3; the root is an assumption of ours.

    Example:
        >>> factor(0.5, 3, "sgd"), factor(256.0, 2, "adam"), factor(None, 3, "sgd")
        (0.25, 16.0, 1.0)
    """
    power = 1.0 if is_sgd_family(rule) else 0.5
    return 1.0 if gamma is None else rate_factor(gamma, layers) ** power


def why_not(prepared: Prepared) -> str:
    """Why the model cannot be trained with a γ, tried once on a few examples; empty if it can.

    Args:
        prepared: The task.
    """
    try:
        depth(prepared)
        probe_capability(prepared, prepared.baseline.replace(gamma=1.0))
    except Exception as error:  # the user's own code may raise anything
        return reason(error)
    return ""
