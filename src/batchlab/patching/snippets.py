"""A setting as the lines of code that hold it, for each kind of script."""

from __future__ import annotations

from batchlab.accumulation import identity
from batchlab.advisor.record import Setting
from batchlab.patching.division import Division
from batchlab.patching.kinds import Kind
from batchlab.schedules import batch_schedule

_TORCH = {
    "sgd": ("torch.optim.SGD", ("weight_decay",)),
    "shb": ("torch.optim.SGD", ("momentum", "weight_decay")),
    "nesterov": ("torch.optim.SGD", ("momentum", "nesterov", "weight_decay")),
    "adam": ("torch.optim.Adam", ("betas", "eps", "weight_decay")),
    "adamw": ("torch.optim.AdamW", ("betas", "eps", "weight_decay")),
    "rmsprop": ("torch.optim.RMSprop", ("alpha", "eps", "weight_decay")),
    "nshb": ("batchlab.optim.NSHB", ("momentum", "weight_decay")),
    "qhm": ("batchlab.optim.QHM", ("momentum", "nu", "weight_decay")),
}


def snippet(kind: Kind, one: Setting, cut: Division | None) -> tuple[str, ...]:
    """The lines of a script that hold a setting.

    Args:
        kind: The kind of script.
        one: The setting.
        cut: How its batch comes about; None where its size is a schedule.

    Returns:
        Lines of Python.
    """
    made = {"pytorch": _pytorch, "lightning": _lightning, "huggingface": _huggingface}[kind]
    return (*_model(kind, one), *made(one, cut))


def optimizer(one: Setting, parameters: str = "model.parameters()") -> str:
    """The call that makes the optimizer.

    Args:
        one: The setting.
        parameters: Where its parameters come from.
    """
    maker, wanted = _TORCH.get(one.rule, (one.rule, ()))
    values = {
        "momentum": written(one.momentum),
        "nesterov": "True",
        "betas": f"({written(one.momentum)}, {written(one.beta2)})",
        "alpha": written(one.beta2),
        "eps": written(one.eps),
        "nu": written(one.nu),
        "weight_decay": written(one.weight_decay),
    }
    given = "".join(f", {name}={values[name]}" for name in wanted)
    return f"{maker}({parameters}, lr={written(one.learning_rate)}{given})"


def written(value: object) -> str:
    """A value as Python writes it, floats without noise.

    Example:
        >>> written(0.1 + 0.2), written(64), written("0:8 20ep:16")
        ('0.3', '64', "'0:8 20ep:16'")
    """
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _model(kind: Kind, one: Setting) -> tuple[str, ...]:
    """The model, centred at its start and divided by γ, if there is one."""
    if one.gamma is None:
        return ()
    name, where = ("self.model", "  # __init__") if kind == "lightning" else ("model", "")
    return (f"{name} = batchlab.FeatureStrength({name}, gamma={written(one.gamma)}){where}",)


def _pytorch(one: Setting, cut: Division | None) -> tuple[str, ...]:
    maker = f"loader = {_loader(one, cut)}"
    return (maker, *_identity(cut), f"optimizer = {optimizer(one)}", *_rate(one))


def _lightning(one: Setting, cut: Division | None) -> tuple[str, ...]:
    steps = 1 if cut is None else cut.accum_steps
    return (
        f"return {_loader(one, cut)}  # train_dataloader",
        f"optimizer = {optimizer(one, 'self.parameters()')}  # configure_optimizers",
        f"trainer = Trainer(accumulate_grad_batches={steps})",
        *_identity(cut),
        *_rate(one),
    )


def _huggingface(one: Setting, cut: Division | None) -> tuple[str, ...]:
    if one.reuse > 1:
        given = f"schedule={written(one.batch_size)}, reuse={one.reuse}, …"
        return (
            f"trainer = batchlab.huggingface.GrowingTrainer({given})",
            f"TrainingArguments(learning_rate={written(one.learning_rate)})",
            *_identity(cut),
        )
    if isinstance(one.batch_size, str):
        return (
            "# TrainingArguments hold one batch size; override Trainer.get_train_dataloader:",
            f"return {_loader(one, cut)}",
            f"TrainingArguments(learning_rate={written(one.learning_rate)})",
            *_rate(one),
        )
    size = written(one.batch_size if cut is None else cut.micro_batch_size)
    return (
        "TrainingArguments(",
        f"    per_device_train_batch_size={size},",
        f"    gradient_accumulation_steps={1 if cut is None else cut.accum_steps},",
        f"    learning_rate={written(one.learning_rate)},",
        ")",
        *_identity(cut),
    )


def _loader(one: Setting, cut: Division | None) -> str:
    loader = _read(one, cut)
    if one.reuse == 1:
        return loader
    return f"batchlab.data.ReusingLoader({loader}, reuse={one.reuse})"


def _read(one: Setting, cut: Division | None) -> str:
    if isinstance(one.batch_size, str):
        sampler = f"batchlab.data.GrowingBatchSampler(train_set, {written(one.batch_size)})"
        return f"DataLoader(train_set, batch_sampler={sampler})"
    size = written(one.batch_size if cut is None else cut.micro_batch_size)
    return f"DataLoader(train_set, batch_size={size}, shuffle=True)"


def _rate(one: Setting) -> tuple[str, ...]:
    """What the learning rate does while the batch grows, and how its largest comes about."""
    if not isinstance(one.batch_size, str):
        return (f"# updates on each batch: {one.reuse}",) if one.reuse > 1 else ()
    rate, first = written(one.learning_rate), batch_schedule(one.batch_size).sizes[0]
    power = f" * (B / {first}) ** {one.rate_growth:g}" if one.rate_growth else ""
    told = f"# learning rate at batch size B: {rate}{power}, schedule: {one.lr_schedule}"
    size, micro = one.micro_batch_size * one.accum_steps, one.micro_batch_size
    if one.accum_steps == 1:
        return (told,)
    cut = (
        f"accumulation.Accumulator(model, loss, micro_batch_size={micro}): {identity(size, micro)}"
    )
    return (told, f"# {cut}")


def _identity(cut: Division | None) -> tuple[str, ...]:
    """How the batch comes about, where it is more than one micro-batch."""
    whole = cut is None or cut.accum_steps * cut.world_size == 1
    return () if whole else (f"# {cut}",)
