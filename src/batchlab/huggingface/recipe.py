"""Optimizer, learning rate, batch size, length, clipping and precision of a Trainer."""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.huggingface.own import alike
from batchlab.huggingface.refusals import number_format
from batchlab.rules import Scales, is_sgd_family
from batchlab.tasks.recipe import (
    LINE_TOLERANCE,
    MAY_DIFFER,
    group_scales,
    learning_rates,
    left_out,
    optimizer_fields,
    rate_fields,
)

METRIC_DRIVEN = ("ReduceLROnPlateau", "GreedyLR")
"""Schedulers that look at the metric: no function of how far training is."""


@dataclass(frozen=True)
class Recipe:
    """How a Trainer trains.

    Attributes:
        baseline: The recipe.
        groups: Parameters with numbers of their own.
        notes: What is kept in another way, or not trained.
    """

    baseline: RunConfig
    groups: dict[str, Scales]
    notes: tuple[str, ...]


def recipe_of(trainer: Any, model: nn.Module, examples: int, *, summed: bool = False) -> Recipe:
    """The recipe of a Trainer.

    Args:
        trainer: The user's.
        model: A copy of its model; hooks may be left on it.
        examples: Training examples N.
        summed: Whether the Trainer adds the gradients of micro-batches.

    Returns:
        Optimizer, groups, schedule, batch size, length, clipping and precision.

    Raises:
        InvalidTypeError: If no rule stands for the optimizer.
        InvalidValueError: If optimizer or schedule cannot be kept.
    """
    args = trainer.args
    updates, samples = length(trainer, examples)
    played = _played(trainer, model)
    fields = optimizer_fields(played.optimizer, MAY_DIFFER)
    groups = group_scales(played.module, played.optimizer)
    # What the optimizer does not hold stays as it is, but counts in the norm that is clipped.
    still = left_out(played.module, played.optimizer)
    groups |= {name: Scales(0.0, 0.0) for name in still}
    fields |= _rates(trainer, played, updates)
    precision = "bfloat16" if args.bf16 else str(number_format(model)).removeprefix("torch.")
    config = RunConfig(
        batch_size=batch_size(trainer),
        samples=samples,
        clip_norm=args.max_grad_norm if args.max_grad_norm else None,
        precision=precision,
        **fields,
    )
    count = args.gradient_accumulation_steps if summed else 1
    baseline = of_mean(config, count)
    notes = [_said_of_sum(baseline, count)] if summed else []
    if "~" in baseline.lr_schedule:
        share = f"{100 * LINE_TOLERANCE:g} % of the peak"
        name = _name(trainer, played.scheduler)
        notes += [f"{name} is kept as straight lines, every update's rate to within {share}"]
    if still:
        shown = ", ".join(still[:3]) + (f" and {len(still) - 3} more" if len(still) > 3 else "")
        notes += [f"not trained, as the optimizer does not hold them: {shown}"]
    return Recipe(baseline, groups, (*identity(trainer), *notes))


def of_mean(config: RunConfig, count: int) -> RunConfig:
    """The same updates from the mean of gradients instead of their sum G = ng.

    SGD's α(ng + λθ) is αn(g + (λ/n)θ); Adam's and RMSprop's quotient stays if ε is divided by
    n, and where λθ is added to the gradient, λ too; so does clipping to c/n.

    Args:
        config: What is done with the sum.
        count: n.

    Example:
        >>> run = RunConfig(rule="adamw", learning_rate=0.1, clip_norm=1.0, weight_decay=0.5)
        >>> mean = of_mean(run, 2)
        >>> mean.learning_rate, mean.weight_decay, mean.eps, mean.clip_norm
        (0.1, 0.5, 5e-09, 0.5)
    """
    changes: dict[str, Any] = {}
    if config.clip_norm is not None:
        changes["clip_norm"] = config.clip_norm / count
    if config.rule != "adamw":
        changes["weight_decay"] = config.weight_decay / count
    if is_sgd_family(str(config.rule)):
        assert config.learning_rate is not None
        changes["learning_rate"] = config.learning_rate * count
    else:
        changes["eps"] = config.eps / count
    return config.replace(**changes) if count > 1 else config


def _said_of_sum(config: RunConfig, count: int) -> str:
    """What the conversion of :func:`of_mean`, whose result is given, means for the user."""
    names = ["learning_rate"] if is_sgd_family(str(config.rule)) else ["eps"]
    names += ["weight_decay"] if config.rule != "adamw" and config.weight_decay else []
    names += ["clip_norm"] if config.clip_norm is not None else []
    values = ", ".join(f"{name} {getattr(config, name):.4g}" for name in names)
    return (
        f"the trainer adds the gradients of its {count} micro-batches, as its loss is a mean "
        f"whatever num_items_in_batch says; here they are averaged, with {values}, which gives "
        "the same updates"
    )


def batch_size(trainer: Any) -> int:
    """Examples per update."""
    return trainer._train_batch_size * trainer.args.gradient_accumulation_steps


def identity(trainer: Any) -> tuple[str, ...]:
    """How the batch of an update is put together, where it is."""
    args = trainer.args
    accumulation, devices = args.gradient_accumulation_steps, max(1, args.n_gpu)
    if accumulation * devices == 1:
        return ()
    return (
        f"global batch size {batch_size(trainer)} = {args.per_device_train_batch_size} "
        f"(micro-batch) × {accumulation} (accumulation steps) × {devices} (devices)",
    )


def length(trainer: Any, examples: int) -> tuple[int, int]:
    """Updates the Trainer makes, and examples it trains on in them.

    Args:
        trainer: The user's.
        examples: N.
    """
    args, micro, size = trainer.args, trainer._train_batch_size, batch_size(trainer)
    batches = examples // micro if args.dataloader_drop_last else math.ceil(examples / micro)
    used = min(examples, batches * micro)
    a_pass = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    by_epochs = math.ceil(args.num_train_epochs * a_pass)
    updates = args.max_steps if args.max_steps > 0 else by_epochs
    passes, rest = divmod(updates, a_pass)
    return updates, passes * used + min(rest * size, used)


@dataclass(frozen=True)
class Played:
    """An optimizer and a scheduler to play with.

    Attributes:
        optimizer: Holds the parameters of ``module``; takes no step.
        scheduler: Of this optimizer; None where the Trainer is to make one.
        module: The model.
    """

    optimizer: torch.optim.Optimizer
    scheduler: Any
    module: nn.Module


def _played(trainer: Any, model: nn.Module) -> Played:
    """What the Trainer would make, on a copy of its model; or copies of what it was given."""
    given = trainer.optimizer
    if given is None:
        own = alike(trainer, model=model, model_wrapped=model)
        return Played(own.create_optimizer(), None, model)
    given = getattr(given, "optimizer", given)  # Accelerate wraps it
    scheduler = None if trainer._created_lr_scheduler else trainer.lr_scheduler
    # The parameters themselves are shared: a schedule changes the rates of groups only.
    shared = {id(p): p for group in given.param_groups for p in group["params"]}
    optimizer, scheduler = copy.deepcopy((given, scheduler), shared)
    if scheduler is None:
        for group in optimizer.param_groups:
            group["lr"] = group.get("initial_lr", group["lr"])
    return Played(optimizer, scheduler, trainer.model)


def _rates(trainer: Any, played: Played, updates: int) -> dict[str, Any]:
    """The schedule, found by running the scheduler."""
    scheduler, name = played.scheduler, _name(trainer, played.scheduler)
    if scheduler is None:
        own = alike(trainer, optimizer=played.optimizer, lr_scheduler=None)
        scheduler = own.create_scheduler(updates)
    if type(scheduler).__name__ in METRIC_DRIVEN:
        hint = "Its rates depend on the metric, so they differ from run to run."
        raise InvalidValueError(must("lr_scheduler_type", "a function of time", name, hint))
    with warnings.catch_warnings():
        # It watched the steps of the optimizer that was copied.
        warnings.filterwarnings("ignore", message=r"Seems like `optimizer\.step\(\)`")
        rates = learning_rates(
            played.optimizer, lambda _: scheduler.step(), updates, scheduler=name
        )
    return rate_fields(rates, scheduler=name)


def _name(trainer: Any, scheduler: Any) -> str:
    """What a schedule is called: by its class where it was handed in."""
    kind = trainer.args.lr_scheduler_type
    return str(getattr(kind, "value", kind)) if scheduler is None else type(scheduler).__name__
