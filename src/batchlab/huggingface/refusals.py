"""What of a Trainer cannot be kept, by name; and what is kept in another way, a sentence each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from batchlab.errors import InvalidTypeError, InvalidValueError, missing, must

OFF = {
    "fp16": "batchlab trains in float32, bfloat16 (bf16=True) or float64.",
    "deepspeed": "batchlab trains in one process.",
    "fsdp": "batchlab trains in one process.",
    "parallelism_config": "batchlab trains in one process.",
    "use_liger_kernel": "It changes the model's code while it trains.",
    "neftune_noise_alpha": "It adds noise to the embeddings while it trains.",
    "activation_checkpointing": "A forward pass cannot be repeated during the backward pass here.",
    "gradient_checkpointing": "A forward pass cannot be repeated during the backward pass here.",
}
"""Arguments that change training in a way that cannot be kept → why, or what to do."""

LOOP = (
    "train",
    "training_step",
    "get_batch_samples",
    "compute_loss_context_manager",
    "autocast_smart_context_manager",
    "_inner_training_loop",
    "_run_epoch",
    "_get_num_items_in_batch",
    "_prepare_inputs",
    "_prepare_input",
    "_clip_grad_norm",
    "_wrap_model",
)
"""Methods that are the training loop: overridden, the loop is the user's own."""

STEPS = (
    "on_train_begin",
    "on_epoch_begin",
    "on_step_begin",
    "on_pre_optimizer_step",
    "on_optimizer_step",
    "on_substep_end",
    "on_step_end",
    "on_epoch_end",
)
"""Events of a callback by which it may change training."""


def check(trainer: Any, ignore: Collection[str] = ()) -> None:
    """Refuse, by its name, what would make another training of it.

    Args:
        trainer: The user's.
        ignore: Callbacks that the user vouches for.

    Raises:
        MissingDependencyError: If transformers is not installed.
        InvalidTypeError: If it is no Trainer, or its model's numbers are of another format.
        InvalidValueError: If something of it cannot be kept.
    """
    try:
        import transformers
    except ImportError:
        raise missing("transformers", "transformers") from None
    if not isinstance(trainer, transformers.Trainer):
        raise InvalidTypeError(must("trainer", "a transformers.Trainer", type(trainer).__name__))
    _check_arguments(trainer.args)
    _check_model(trainer)
    own = [name for name in LOOP if overridden(trainer, name)]
    if own:
        hint = "A training loop of one's own cannot be read; `compute_loss` may be overridden."
        got = f"{type(trainer).__name__}.{own[0]}"
        raise InvalidValueError(must("trainer", "one with the Trainer's own loop", got, hint))
    there = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
    for name in ignore:
        if name not in there:
            hint = f"There are: {', '.join(there)}."
            raise InvalidValueError(
                must("ignore", "names of callbacks that are there", name, hint)
            )
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ not in ignore:
            _check_callback(callback)


def overridden(trainer: Any, name: str) -> bool:
    """Whether a method is another than that of ``transformers.Trainer``."""
    import transformers

    original = getattr(transformers.Trainer, name, None)
    own = getattr(getattr(trainer, name, None), "__func__", None)
    return original is not None and own is not original


def _check_arguments(args: Any) -> None:
    for name, hint in OFF.items():
        value = getattr(args, name, None)
        if value not in (None, False, "", [], 0):
            raise InvalidValueError(must(name, "off", value, hint))
    if args.world_size > 1:
        hint = "Start it without torchrun; the global batch size is kept."
        raise InvalidValueError(must("world_size", "1", args.world_size, hint))


def _check_model(trainer: Any) -> None:
    model: nn.Module = trainer.model
    if getattr(model, "quantization_method", None) is not None or trainer.is_model_parallel:
        got = type(model).__name__
        words = "one that is neither quantized nor spread over devices"
        raise InvalidValueError(must("trainer.model", words, got))
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        hint = "Call trainer.model.activation_checkpointing_disable() first."
        got = f"{type(model).__name__} with it"
        words = "without activation checkpointing"
        raise InvalidValueError(must("trainer.model", words, got, hint))
    steps = trainer.args.gradient_accumulation_steps
    if steps > 1 and any(isinstance(module, _BatchNorm) for module in model.modules()):
        words = "1 with batch norm, which would see the whole batch here"
        raise InvalidValueError(must("gradient_accumulation_steps", words, steps))
    number_format(model)


def number_format(model: nn.Module) -> torch.dtype:
    """The one number format of a model's parameters.

    Raises:
        InvalidTypeError: If it is neither float32 nor float64.

    Example:
        >>> number_format(nn.Linear(1, 1))
        torch.float32
    """
    formats = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if formats not in ({torch.float32}, {torch.float64}):
        got = ", ".join(sorted(str(f).removeprefix("torch.") for f in formats))
        hint = "Load it with dtype=torch.float32; bf16=True then computes in bfloat16."
        raise InvalidTypeError(must("trainer.model", "in float32", got, hint))
    return formats.pop()


def _check_callback(callback: Any) -> None:
    from transformers import TrainerCallback

    kind = type(callback)
    if kind.__module__.partition(".")[0] == "transformers":
        return
    acting = [n for n in STEPS if getattr(kind, n) is not getattr(TrainerCallback, n)]
    if acting:
        hint = f"If it changes nothing in training: task(trainer, ignore=[{kind.__name__!r}])."
        words = "callbacks that do not act while it trains"
        raise InvalidValueError(must("trainer", words, f"{kind.__name__}.{acting[0]}", hint))


def changed(trainer: Any) -> Iterator[str]:
    """What is kept in another way than the Trainer does it.

    Args:
        trainer: The user's, checked.
    """
    args = trainer.args
    if trainer.model_init is None:
        yield (
            "every seed starts from the trainer's present weights; give the Trainer a model_init "
            "for fresh ones"
        )
    yield (
        "times are those of a plain PyTorch loop: what the Trainer adds to each update is not in "
        "them"
    )
    if trainer.optimizer is not None and trainer.optimizer.state:
        yield "the trainer has trained before: its optimizer's memory is not taken over"
    if getattr(args, "torch_compile", False):
        yield "the model is trained and timed without torch.compile"
    if getattr(args, "tf32", None) is not None:
        yield f"tf32={args.tf32} is not set here: torch's own setting holds"
    if getattr(args, "auto_find_batch_size", False):
        yield "auto_find_batch_size is off here: the batch size is the one that is set"
    if args.dataloader_num_workers:
        yield (
            "examples are read by the process that trains "
            f"(dataloader_num_workers={args.dataloader_num_workers} is not kept)"
        )
    if getattr(args, "bf16_full_eval", False) or getattr(args, "fp16_full_eval", False):
        yield "evaluation runs in the precision of training"
    yield from _callbacks(trainer)


def _callbacks(trainer: Any) -> Iterator[str]:
    from transformers import EarlyStoppingCallback

    for callback in trainer.callback_handler.callbacks:
        kind = type(callback)
        if isinstance(callback, EarlyStoppingCallback):
            yield "EarlyStoppingCallback is not called: runs have their full length"
        elif kind.__module__.partition(".")[0] != "transformers":
            yield f"the callback {kind.__name__} is not called"
