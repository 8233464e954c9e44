"""Copies of a user's Trainer and model, so that nothing of theirs is ever changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

DROPPED = (
    "model",
    "model_wrapped",
    "model_init",
    "train_dataset",
    "eval_dataset",
    "data_collator",
    "optimizer",
    "lr_scheduler",
    "compute_metrics",
    "preprocess_logits_for_metrics",
    "callback_handler",
    "gather_function",
    "state",
    "control",
    "_memory_tracker",
    "_eval_dataloaders",
)
"""What a loss does not need of a Trainer. One that asks for its state (such as the number of the
update) raises: there is no such thing here that is right for every batch size."""


class OneProcess:
    """What a Trainer asks of its Accelerator, in one process that wraps nothing."""

    parallelism_config = None
    num_processes = 1
    process_index = 0

    def prepare(self, given: Any) -> Any:
        """The same."""
        return given

    def unwrap_model(self, model: nn.Module, *_: Any, **__: Any) -> nn.Module:
        """The same."""
        return model


def alike(trainer: Any, **changes: Any) -> Any:
    """A Trainer of the same class with some attributes changed, and an Accelerator of its own.

    Args:
        trainer: Stays as it is.
        changes: Attribute → value.

    Returns:
        A shallow copy.
    """
    own = copy.copy(trainer)
    own.accelerator = OneProcess()
    own.__dict__.pop("_eval_dataloaders", None)
    vars(own).update(changes)
    return own


def slim(trainer: Any) -> Any:
    """A Trainer that can do nothing but compute a loss; small enough to travel."""
    # In one process there is nothing to average; for several GPUs the loss would be multiplied.
    args = copy.copy(trainer.args)
    args.average_tokens_across_devices = False
    gone = {name: None for name in DROPPED if name in vars(trainer)}
    return alike(trainer, **gone, args=args)


def own_model(model: nn.Module) -> nn.Module:
    """A private copy on the CPU, without gradients and as it was before Accelerate wrapped it."""
    own = copy.deepcopy(model)
    if "_original_forward" in vars(own):
        del own._original_forward, own.forward
    own.zero_grad(set_to_none=True)
    return own.to("cpu")


def fresh(model_init: Callable[..., nn.Module], trainer: Any) -> nn.Module:
    """A new model, made and made ready as the Trainer does before it trains.

    Args:
        model_init: The Trainer's.
        trainer: Slim.
    """
    return ready(alike(trainer, model_init=model_init).call_model_init(), trainer)


def ready(model: nn.Module, trainer: Any) -> nn.Module:
    """The settings that the Trainer changes in a model's config; changes the model in place."""
    from transformers import PreTrainedTokenizerBase, ProcessorMixin
    from transformers.trainer_utils import align_special_tokens

    config = getattr(model, "config", None)
    if config is not None:
        config.use_cache = trainer.args.use_cache
        if isinstance(trainer.processing_class, PreTrainedTokenizerBase | ProcessorMixin):
            align_special_tokens(model, trainer.processing_class)
    return model
