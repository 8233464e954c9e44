"""The plain training loop: what users read in ``apply.py``, and what seconds per update are of.

``apply.py`` is made of the source of the functions in the first part of this file, and of
:func:`batchlab.accumulation.share`. Each is complete in itself: torch and nothing else, except
:class:`batchlab.optim.QHM` for QHM.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_map

from batchlab import schedules
from batchlab.accumulation import identity, share
from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, TaskError, must
from batchlab.optim import QHM
from batchlab.tasks import Objective


def sgd(parameters: Iterable[Any], learning_rate: float, weight_decay: float) -> Any:
    """Plain SGD: g ← g + λθ,  Δ = −αg."""
    return torch.optim.SGD(parameters, lr=learning_rate, weight_decay=weight_decay)


def shb(
    parameters: Iterable[Any], learning_rate: float, momentum: float, weight_decay: float
) -> Any:
    """PyTorch's momentum: g ← g + λθ,  v ← βv + g,  Δ = −αv."""
    return torch.optim.SGD(
        parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay
    )


def nshb(
    parameters: Iterable[Any], learning_rate: float, momentum: float, weight_decay: float
) -> Any:
    """NSHB: v ← βv + (1−β)g,  Δ = −αv, the steps of PyTorch's momentum at the rate (1−β)α."""
    rate = (1 - momentum) * learning_rate
    return torch.optim.SGD(parameters, lr=rate, momentum=momentum, weight_decay=weight_decay)


def qhm(
    parameters: Iterable[Any],
    learning_rate: float,
    momentum: float,
    nu: float,
    weight_decay: float,
) -> Any:
    """QHM: v ← βv + (1−β)g,  Δ = −α((1−ν)g + νv)."""
    return QHM(parameters, lr=learning_rate, momentum=momentum, nu=nu, weight_decay=weight_decay)


def nesterov(
    parameters: Iterable[Any], learning_rate: float, momentum: float, weight_decay: float
) -> Any:
    """Nesterov's momentum: v ← βv + g,  Δ = −α(g + βv)."""
    return torch.optim.SGD(
        parameters,
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        nesterov=momentum > 0,
    )


def adam(
    parameters: Iterable[Any],
    learning_rate: float,
    momentum: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> Any:
    """Adam; the momentum is β₁."""
    return torch.optim.Adam(
        parameters, lr=learning_rate, betas=(momentum, beta2), eps=eps, weight_decay=weight_decay
    )


def adamw(
    parameters: Iterable[Any],
    learning_rate: float,
    momentum: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> Any:
    """Adam with decoupled weight decay; the momentum is β₁."""
    return torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(momentum, beta2), eps=eps, weight_decay=weight_decay
    )


def rmsprop(
    parameters: Iterable[Any],
    learning_rate: float,
    momentum: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> Any:
    """RMSprop; beta2 is what PyTorch calls alpha."""
    return torch.optim.RMSprop(
        parameters,
        lr=learning_rate,
        alpha=beta2,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
    )


def grouped(make: Callable[..., Any], model: Any, groups: Any, **numbers: Any) -> Any:
    """The optimizer with groups of parameters: ``groups`` holds, by a parameter's name, its
    multiples of the learning rate and of the weight decay.
    """
    parts: dict[Any, list[Any]] = {}
    wrapped = hasattr(model.module, "keeps_copy")  # in a FeatureStrength
    own = model.module.model if wrapped else model.module
    for name, parameter in own.named_parameters():
        parts.setdefault(groups.get(name), []).append(parameter)
    optimizer = make([{"params": part} for part in parts.values()], **numbers)
    for scales, group in zip(parts, optimizer.param_groups, strict=True):
        if scales is not None:
            group["lr"] *= scales.learning_rate
            group["weight_decay"] *= scales.weight_decay
    return optimizer


def batches(sizes: list[tuple[int, int]], samples: int) -> Iterator[tuple[int, int]]:
    """(samples seen, batch size) of every update; what is left at the end is not trained.

    ``sizes`` holds (from this sample on, batch size).
    """
    seen = 0
    while True:
        size = [size for first, size in sizes if first <= seen][-1]
        if seen + size > samples:
            return
        yield seen, size
        seen += size


def read(source: Any, stream: Any, seen: int, size: int, micro_batch_size: int) -> list[Any]:
    """The next ``size`` examples of the stream as micro-batches; the last may be shorter."""
    indices, passes = stream.take(seen, size)
    batch = source.batch(indices, passes, stream.seed)
    starts = range(0, size, micro_batch_size)
    return [tree_map(lambda leaf, s=s: leaf[s : s + micro_batch_size], batch) for s in starts]


def move(batch: Any, model: torch.nn.Module) -> Any:
    """The batch on the model's device, floating-point numbers in the model's format."""
    like = next(model.parameters())
    return tree_map(
        lambda leaf: leaf.to(like.device, like.dtype if leaf.is_floating_point() else None), batch
    )


def in_precision(model: torch.nn.Module, precision: str) -> torch.autocast:
    """Forward passes inside it run in bfloat16 if that is the precision."""
    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def accumulate(model: torch.nn.Module, batch: Any, total_weight: Any, precision: str) -> None:
    """Add a micro-batch's share Σwℓ/Σw to the gradient; Σw runs over the whole batch."""
    batch = move(batch, model)
    with in_precision(model, precision):
        losses, weights = model(batch)
    share(losses, weights, total_weight).backward()


def step(
    model: torch.nn.Module, optimizer: Any, multiplier: float, clip_norm: float | None
) -> None:
    """Clip the gradient, set the learning rate to its share of the peak, apply the rule."""
    if clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = multiplier * group["initial_lr"]
    optimizer.step()


def update(
    model: torch.nn.Module,
    optimizer: Any,
    micro_batches: list[Any],
    weight_of: Callable[[Any], Any],
    multiplier: float = 1.0,
    clip_norm: float | None = None,
    precision: str = "float32",
) -> None:
    """One update on one batch, given in micro-batches: the same gradient however it is cut."""
    optimizer.zero_grad()
    total_weight = sum(weight_of(batch) for batch in micro_batches)
    for batch in micro_batches:
        accumulate(model, batch, total_weight, precision)
    step(model, optimizer, multiplier, clip_norm)


def evaluate(
    model: torch.nn.Module, source: Any, metric: Any, batch_size: int, precision: str = "float32"
) -> float:
    """The metric over all examples at once; without a function, the mean loss Σwℓ/Σw."""
    model.eval()
    predicted, read_batches, loss, weight = [], [], 0.0, 0.0
    with torch.no_grad(), in_precision(model, precision):
        for start in range(0, source.examples, batch_size):
            batch = source.batch(torch.arange(start, min(start + batch_size, source.examples)))
            outputs, losses, weights = model(move(batch, model), predict=True)
            loss, weight = loss + float((losses * weights).sum()), weight + float(weights.sum())
            predicted.append(outputs)
            read_batches.append(batch)
    if metric.function is None:
        return loss / weight
    outputs = tree_map(lambda *parts: torch.cat(parts).float().cpu(), *predicted)
    return metric.function(outputs, tree_map(lambda *parts: torch.cat(parts), *read_batches))


def train(
    model: torch.nn.Module,
    optimizer: Any,
    source: Any,
    stream: Any,
    *,
    sizes: list[tuple[int, int]],
    samples: int,
    micro_batch_size: int,
    weight_of: Callable[[Any], Any],
    rate: Callable[[float], float],
    clip_norm: float | None,
    precision: str,
    reuse: int = 1,
    rate_growth: float = 0.0,
    stop_after: int | None = None,
) -> None:
    """Train for ``samples`` examples, or stop earlier without changing the schedule; ``rate`` is
    the schedule over the share of ``samples`` that is behind, ``rate_growth`` the power with which
    the learning rate follows the batch size.
    """
    model.train()
    for seen, size in batches(sizes, samples if stop_after is None else min(stop_after, samples)):
        micro_batches = read(source, stream, seen, size, micro_batch_size)
        for _ in range(reuse):
            update(
                model,
                optimizer,
                micro_batches,
                weight_of,
                multiplier=rate(seen / samples) * (size / sizes[0][1]) ** rate_growth,
                clip_norm=clip_norm,
                precision=precision,
            )


# What follows is not part of apply.py.

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": sgd,
    "shb": shb,
    "nshb": nshb,
    "qhm": qhm,
    "nesterov": nesterov,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
}
"""Rule → function that makes its optimizer; its arguments are fields of a RunConfig."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
"""Precision → number format of the parameters; bfloat16 is autocast around float32."""

LOOP = (batches, read, move, in_precision, share, accumulate, step, update, evaluate, train)
"""What every ``apply.py`` contains."""


def make_optimizer(model: Objective, config: RunConfig) -> torch.optim.Optimizer:
    """The rule of a run as an optimizer, at its peak learning rate, with the task's groups of
    parameters.

    Args:
        model: Model and loss.
        config: A resolved run.

    Returns:
        An optimizer that takes the steps of :data:`batchlab.rules.RULES`.

    Example:
        >>> config = RunConfig(rule="nshb", learning_rate=1.0, momentum=0.75).resolved(examples=9)
        >>> from batchlab.tasks import Task
        >>> task = Task(lambda: torch.nn.Linear(1, 1), torch.ones(9, 1), loss=torch.sub)
        >>> make_optimizer(Objective(task, task.model()), config).param_groups[0]["lr"]
        0.25
    """
    make, groups = OPTIMIZERS[_rule(config)], model.task.groups
    numbers = {name: getattr(config, name) for name in _arguments(make)}
    if groups:
        return grouped(make, model, groups, **numbers)
    return make(model.parameters(), **numbers)


def batch_sizes(config: RunConfig, examples: int) -> list[tuple[int, int]]:
    """The batch schedule of a run as (from this sample on, batch size).

    Example:
        >>> batch_sizes(RunConfig(batch_size="0:8 2ep:16"), examples=100)
        [(0, 8), (200, 16)]
    """
    schedule = schedules.batch_schedule(_set(config.batch_size)).resolve(examples)
    return [(int(start.value), size) for start, size in schedule.steps]


def apply_script(
    config: RunConfig,
    task: str | None,
    *,
    examples: int,
    micro_batch_size: int | None = None,
    device: str = "auto",
    reached: tuple[str, int] | None = None,
    threads: int = 0,
    groups: bool = False,
) -> str:
    """Write a program that trains a task with one setting, in plain PyTorch.

    Args:
        config: The resolved setting.
        task: What :func:`batchlab.tasks.load` finds the task by.
        examples: Training examples N, to which positions of a batch schedule refer.
        micro_batch_size: Examples per forward pass; the whole batch if left out.
        device: Where it trains, as in :func:`batchlab.tasks.prepare`.
        reached: The goal in words and the examples after which it was usually reached, if known.
        threads: Torch threads of the loop; 0 leaves them as they are.
        groups: Whether the task has groups of parameters.

    Returns:
        The text of ``apply.py``: the settings as constants, the loop, evaluation at the end.

    Raises:
        TaskError: If the task cannot be found again by a name.
        InvalidTypeError: If the setting is not resolved.
    """
    if not task:
        hint = "apply.py has to find the task again: give it as file.py:function."
        raise TaskError(must("task", "a name", task, hint))
    make = OPTIMIZERS[_rule(config)]
    sizes = batch_sizes(config, examples)
    micro = micro_batch_size or max(size for _, size in sizes)
    used = (make, grouped, *LOOP) if groups else (make, *LOOP)
    functions = "\n\n\n".join(inspect.getsource(function).rstrip() for function in used)
    numbers = [f"        {name}={name.upper()}," for name in _arguments(make)]
    if groups:
        call = f"grouped(\n        {make.__name__},\n        model,\n        prepared.task.groups,"
    else:
        call = f"{make.__name__}(\n        model.parameters(),"
    imports = "from batchlab.optim import QHM\n" if make is qhm else ""
    known = (task, sizes, micro, device, _arguments(make), reached, threads)
    return SCRIPT.format(
        imports=imports,
        constants=_constants(config, *known),
        rate=_rate_source(config),
        functions=functions,
        optimizer="\n".join([call, *numbers]),
        dtype="float64" if config.precision == "float64" else "float32",
        gamma="" if config.gamma is None else ", GAMMA",
    )


SCRIPT = '''"""The setting that batchlab recommends, as plain PyTorch. Run it: python apply.py

batchlab loads the task (model, data, loss, metric) and the order of the examples. For your own
program, copy `train` and the functions it calls; `model(batch)` returns losses and weights, one
per example.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_map

{imports}from batchlab.tasks import load, prepare
from batchlab.tasks.task import total_weight

{constants}


{rate}


{functions}


def main() -> None:
    """Train, then evaluate on what every decision read and, once, on the test data."""
    if THREADS:
        torch.set_num_threads(THREADS)
    prepared = prepare(load(TASK), device=DEVICE)
    model = prepared.objective(SEED, torch.{dtype}{gamma})
    optimizer = {optimizer}
    )
    train(
        model,
        optimizer,
        prepared.train,
        prepared.stream(SEED),
        sizes=BATCH_SIZES,
        samples=SAMPLES,
        micro_batch_size=MICRO_BATCH_SIZE,
        weight_of=functools.partial(total_weight, prepared.task),
        rate=rate,
        clip_norm=CLIP_NORM,
        precision=PRECISION,
        reuse=REUSE,
        rate_growth=RATE_GROWTH,
        stop_after=STOP_AFTER,
    )
    for name, source in (("validation", prepared.validation), ("test", prepared.test)):
        if source is not None:
            value = evaluate(model, source, prepared.metric, MICRO_BATCH_SIZE, PRECISION)
            print(f"{{name}} {{prepared.metric.name}}: {{value:.4f}}")


if __name__ == "__main__":
    main()
'''


def _constants(
    config: RunConfig,
    task: str,
    sizes: list[tuple[int, int]],
    micro: int,
    device: str,
    numbers: list[str],
    reached: tuple[str, int] | None,
    threads: int,
) -> str:
    """The settings, one a line."""
    stop = "examples; None: go on to SAMPLES"
    if reached is not None:
        stop = f"or {reached[1]}, where {reached[0]} was usually reached: saves the time after it"
    largest = max(size for _, size in sizes)
    lines = [
        f"TASK = {task!r}",
        f"DEVICE = {device!r}",
        f"THREADS = {threads}  # of torch, as in the measurement; 0: as many as there are cores",
        f"SEED = {config.seed}",
        f"SAMPLES = {config.samples}  # examples drawn, all passes together",
        f"STOP_AFTER = None  # {stop}",
        f"BATCH_SIZES = {sizes!r}  # (from this sample on, examples per update)",
        f"MICRO_BATCH_SIZE = {micro}  # largest batch: {identity(largest, min(micro, largest))}",
        *(f"{name.upper()} = {getattr(config, name)!r}" for name in numbers),
        f"WARMUP = {config.warmup!r}  # share of SAMPLES over which the learning rate rises",
        f"RATE_GROWTH = {config.rate_growth!r}  # power with which it follows the batch size",
        f"CLIP_NORM = {config.clip_norm!r}",
        f"PRECISION = {config.precision!r}",
        f"REUSE = {config.reuse}  # updates on each batch",
    ]
    if config.gamma is not None:
        lines.append(
            f"GAMMA = {config.gamma!r}  # the model is trained as (f - its start) / GAMMA"
        )
    return "\n".join(lines)


def _rate_source(config: RunConfig) -> str:
    """The learning-rate schedule as a function of its own; equal to schedules.rate_schedule."""
    schedule = schedules.rate_schedule(config.lr_schedule, warmup=config.warmup)
    text = f'    """Share of the peak rate when this share of SAMPLES is behind: {schedule}."""'
    rise = "    rise = fraction / WARMUP if fraction < WARMUP else 1.0"
    head = f"def rate(fraction: float) -> float:\n{text}\n{rise}"
    if isinstance(schedule.body, schedules.Stairs):
        between = inspect.getsource(schedules._between).rstrip()
        call = f"    return rise * _between({schedule.body.numbers!r}, fraction)"
        return f"{between}\n\n\n{head}\n{call}"
    shape = schedules.SHAPES[schedule.body.name]
    argument = schedule.body.argument
    after = "max(0.0, fraction - WARMUP)"
    if schedule.body.name == "inverse_sqrt":
        argument = argument or config.warmup or shape.default
    else:
        after += " / (1.0 - WARMUP)"
        argument = argument if argument is not None else shape.default or 0.0
    call = f"    return rise * {shape.curve.__name__}({after}, {argument!r})"
    return f"{inspect.getsource(shape.curve).rstrip()}\n\n\n{head}\n{call}"


def _arguments(make: Callable[..., Any]) -> list[str]:
    """Fields of a RunConfig that an optimizer takes."""
    return list(inspect.signature(make).parameters)[1:]


def _rule(config: RunConfig) -> str:
    return str(_set(config.rule))


def _set(value: Any) -> Any:
    if value is None:
        raise InvalidTypeError(must("config", "resolved", None, "Call .resolved(examples)."))
    return value
