"""A LightningModule as a model factory and a training step that need no trainer."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from batchlab import _random
from batchlab.errors import InvalidTypeError, TaskError, UserError, must, reason
from batchlab.lightning.kinds import is_a, overrides
from batchlab.types import Tree

BATCH_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")
"""What Lightning does to every batch, and the training step here too."""

PLACES = ("current_epoch", "global_step")
"""Where a training stands: a loss that reads it is another one later."""

BATCH_INDEX = 1
"""Given to every training step. Not 0, at which modules log pictures."""


class Silent:
    """A logger that takes everything and does nothing."""

    def __getattr__(self, name: str) -> Silent:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *given: Any, **named: Any) -> Silent:
        """Nothing."""
        return self


def silent(*given: Any, **named: Any) -> None:
    """In the place of ``self.log``, ``self.log_dict`` and ``self.print``."""


class StandIn:
    """What stands for the trainer: plain facts, and a refusal for everything else.

    Args:
        facts: Attributes that are known.
        where: The user's method that may ask, for the error.
        trainer: A real trainer that is asked for the rest, or None.
    """

    def __init__(self, facts: Mapping[str, Any], where: str, trainer: Any = None) -> None:
        self._facts, self._where, self._real = facts, where, trainer

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__
        if name.startswith("__") or "_facts" not in own:
            raise AttributeError(name)
        if name in own["_facts"]:
            return own["_facts"][name]
        if own["_real"] is not None:
            return getattr(own["_real"], name)
        hint = "batchlab trains without a trainer."
        if name in PLACES:
            hint = f"If the loss does not depend on it, say ignore=['{name}']: it is then 0."
        asked = f"self.{name}" if name in PLACES else f"self.trainer.{name}"
        raise TaskError(must(own["_where"], "one that needs no trainer", asked, hint))


def made_ready(module: Any, stand_in: StandIn) -> nn.Module:
    """A module that logs nothing, prepared as ``Trainer.fit`` does.

    Raises:
        InvalidTypeError: If it is no LightningModule.
        TaskError: If its own code raises.
    """
    if not is_a(module, "LightningModule"):
        got = type(module).__name__
        hint = "Of lightning or pytorch_lightning."
        wanted = "a LightningModule, or a function that returns one"
        raise InvalidTypeError(must("module", wanted, got, hint))
    module.trainer = stand_in
    guarded(module.prepare_data, what="prepare_data")
    guarded(module.setup, "fit", what="setup")
    guarded(module.configure_model, what="configure_model")
    module.trainer = None
    for part in module.modules():
        if is_a(part, "LightningModule"):
            part.log = part.log_dict = part.print = silent
    return module


def guarded(function: Callable[..., Any], *given: Any, what: str) -> Any:
    """Call the user's code; what it raises becomes one sentence."""
    try:
        return function(*given)
    except UserError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise TaskError(f"`{what}` raised {reason(error)}.") from error


@dataclass(frozen=True)
class Copies:
    """A model factory: every model is a copy of one module, with its weights.

    Attributes:
        module: Never trained itself.
        frozen: Parameters that are not trained.
    """

    module: nn.Module
    frozen: frozenset[str] = frozenset()

    def __call__(self) -> nn.Module:
        """A new copy."""
        return _frozen(copy.deepcopy(self.module), self.frozen)


@dataclass(frozen=True)
class Made:
    """A model factory: every model is made anew by the user's function.

    Attributes:
        make: The user's function.
        facts: What the module may ask the trainer in ``setup``.
        frozen: Parameters that are not trained.
    """

    make: Callable[[], Any]
    facts: Mapping[str, Any]
    frozen: frozenset[str] = frozenset()

    def __call__(self) -> nn.Module:
        """A new module."""
        ready = made_ready(guarded(self.make, what="module()"), StandIn(self.facts, "setup"))
        return _frozen(ready, self.frozen)


def _frozen(module: nn.Module, names: frozenset[str]) -> nn.Module:
    for name, parameter in module.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    return module


def factory(module: Any, facts: Mapping[str, Any], stand_in: StandIn) -> Copies | Made:
    """A model factory from a module or from a function that makes one.

    Args:
        module: The user's module, which stays as it is, or the function.
        facts: What a module may ask the trainer in ``setup`` in a worker process.
        stand_in: The trainer of the module's own ``setup``.

    Returns:
        The factory.
    """
    if not isinstance(module, nn.Module):
        if not callable(module):
            got = type(module).__name__
            wanted = "a LightningModule, or a function that returns one"
            raise InvalidTypeError(must("module", wanted, got))
        return Made(module, facts)
    own = guarded(copy.deepcopy, module, what="copy.deepcopy(module)")
    with _random.seeded(0, "setup"):
        return Copies(made_ready(own, stand_in).cpu())


@dataclass(frozen=True)
class Step:
    """``training_step`` as a task's: ``(module, batch) → `` scalar mean over the batch.

    Attributes:
        facts: What the module may ask the trainer.
        indexed: Whether it takes a ``batch_idx``.
        hooks: Which of :data:`BATCH_HOOKS` the module overrides.
        metrics: Names of its torchmetrics. They are emptied after every step: what they gather
            would grow without end.
        resting: Names of its parts that are in evaluation mode when training begins, and stay so.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    indexed: bool = True
    hooks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    resting: tuple[str, ...] = ()

    @classmethod
    def of(cls, module: Any, facts: Mapping[str, Any]) -> Step:
        """What the step of a module needs.

        Raises:
            TaskError: If it has none, or one that fetches its own batches.
        """
        if not overrides(module, "training_step"):
            raise TaskError(must("module", "one with a training_step", type(module).__name__))
        names = list(inspect.signature(module.training_step).parameters)
        if "dataloader_iter" in names:
            wanted = "a function of a batch"
            raise TaskError(must("training_step", wanted, "one of a dataloader_iter"))
        hooks = tuple(hook for hook in BATCH_HOOKS if overrides(module, hook))
        metrics = tuple(name for name, part in module.named_modules() if _is_metric(part))
        resting = tuple(name for name, part in module.named_modules() if not part.training)
        return cls(facts, len(names) > 1, hooks, metrics, resting)

    def __call__(self, module: Any, batch: Tree) -> Tensor:
        """The loss of a batch in the module's present mode."""
        self.attach(module)
        batch = self.hooked(module, batch)
        index = (BATCH_INDEX,) if self.indexed else ()
        loss = _loss_of(module.training_step(batch, *index))
        for name in self.metrics:
            module.get_submodule(name).reset()
        return loss

    def attach(self, module: Any) -> None:
        """Give the module what stands for its trainer, its resting parts, and where it is."""
        mode = {"training": module.training, "validating": not module.training}
        module.trainer = StandIn({**self.facts, **mode}, "training_step")
        for name in self.resting:
            module.get_submodule(name).training = False
        like = next(module.parameters())
        if (module.device, module.dtype) != (like.device, like.dtype):
            # Lightning notes both in `.to()` of the module itself, which is not called where the
            # module is a part of another.
            for part in module.modules():
                if is_a(part, "LightningModule"):
                    part._device, part._dtype = like.device, like.dtype

    def hooked(self, module: Any, batch: Tree) -> Tree:
        """The batch after the module's own hooks."""
        for hook in self.hooks:
            batch = getattr(module, hook)(batch, 0)
        return batch


def _is_metric(part: nn.Module) -> bool:
    return any(kind.__module__.startswith("torchmetrics.") for kind in type(part).__mro__)


def _loss_of(made: Any) -> Tensor:
    """The loss in what a training step returned."""
    loss = made.get("loss") if isinstance(made, Mapping) else made
    if not isinstance(loss, Tensor):
        got = "None" if loss is None else type(loss).__name__
        wanted = "a function that returns a loss, or a dictionary with one"
        hint = "A step that is skipped cannot be kept." if loss is None else ""
        raise TaskError(must("training_step", wanted, got, hint))
    return loss.reshape(()) if loss.numel() == 1 else loss


@dataclass(frozen=True)
class Forward:
    """The user's ``forward``, or ``module(batch[0])``, on batches as the training step sees them.

    Attributes:
        function: The user's, or None.
        step: The training step.
    """

    function: Callable[[Any, Tree], Tree] | None
    step: Step

    def __call__(self, module: Any, batch: Tree) -> Tree:
        """The predictions."""
        self.step.attach(module)
        batch = self.step.hooked(module, batch)
        return module(batch[0]) if self.function is None else self.function(module, batch)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether an example's loss depends on the others of its forward pass.

    Example:
        >>> has_batch_norm(nn.Sequential(nn.BatchNorm1d(2)))
        True
    """
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def some(names: tuple[str, ...]) -> str:
    """Some names, and how many more.

    Example:
        >>> some(("a", "b", "c", "d", "e"))
        'a, b, c and 2 more'
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
