"""What a model can do: be stacked, name its dropout, convolve. Found out while planning."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils import _pytree
from torch.utils.flop_counter import FlopCounterMode

from batchlab import _random, _tree
from batchlab.config import RunConfig
from batchlab.engine.dropout import NamedDropout
from batchlab.engine.step import (
    DTYPES,
    Program,
    Progress,
    make_step,
    rule_of,
    start_of,
    weighted_sum,
)
from batchlab.errors import TaskError
from batchlab.rules import RULES, Numbers
from batchlab.tasks import Objective, Prepared
from batchlab.tasks.source import Stacked
from batchlab.types import Params, Tree

STACKED_FLOP = 25e6
TRIED_EXAMPLES = 8
TRIED_SEEDS = 32
TRIED_RATE = 0.1
GRADIENTS_APART = 1e-3
"""Largest distance of two gradients, as a share of their length, that is round-off."""
TOLERANCES = {"float32": (1e-3, 1e-5), "bfloat16": (5e-2, 5e-2), "float64": (1e-6, 1e-9)}
"""Relative and absolute, between one run alone and the same run stacked, after one update."""


@dataclass(frozen=True)
class Capability:
    """What the executors need to know of a model.

    Attributes:
        stackable: Whether R runs together give what each gives alone.
        reason: Why not, in words; empty if they do.
        convolutions: Whether it convolves.
        dropout: Whether it calls a dropout that named randomness can serve.
        moves_generator: Whether a forward pass still draws from a global generator.
        flop_per_example: Floating-point operations of one example's forward and backward pass.
    """

    stackable: bool
    reason: str
    convolutions: bool
    dropout: bool
    moves_generator: bool
    flop_per_example: float

    def executor(self, batch_size: int) -> tuple[str, str]:
        """``stacked`` or ``loop``, and why.

        Example:
            >>> Capability(True, "", False, False, False, 1e3).executor(32)
            ('stacked', 'no convolution and 0.032 MFLOP a step')
        """
        flop = self.flop_per_example * batch_size
        if not self.stackable:
            return "loop", self.reason
        if self.convolutions:
            return "loop", "convolutions run faster one by one"
        if flop >= STACKED_FLOP:
            return "loop", f"{flop / 1e6:.3g} MFLOP a step are enough to fill a core"
        return "stacked", f"no convolution and {flop / 1e6:.3g} MFLOP a step"


def probe_capability(prepared: Prepared, config: RunConfig) -> Capability:
    """Try a forward pass, a gradient, an evaluation and one update, alone and as two stacked runs.

    Args:
        prepared: The task.
        config: A resolved run; its rule, precision and clipping are tried.

    Returns:
        What was found; leaves no trace.

    Raises:
        TaskError: If the model computes the gradients of other weights than those it is given.
    """
    dtype = DTYPES[config.precision]
    with _random.seeded(config.seed, "capability"):
        objective = prepared.objective(config.seed, dtype, config.gamma).train()
        index = torch.arange(min(TRIED_EXAMPLES, prepared.examples))
        batch = _tree.to(prepared.train.batch(index), prepared.device, dtype)
        _check_gradients(objective, batch)
        dropout, moves = _randomness(objective, batch)
        flop, convolutions = _cost(objective, batch)
        if moves:
            reason = "its forward pass draws from a global random generator"
        elif not isinstance(prepared.train, Stacked):
            reason = "its batches are made by reading or by the task's collate"
        else:
            reason = _why_not_stacked(prepared, config, objective, batch, dropout)
    return Capability(not reason, reason, convolutions, dropout, moves, flop / len(index))


def _check_gradients(objective: Objective, batch: Tree) -> None:
    """Refuse a model that looks at its own weights in the backward pass, where the engine passes
    weights in: what recomputes there would give gradients of other weights, without an error.
    """
    twin = copy.deepcopy(objective, {id(objective.task): objective.task})
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.25)  # away from what the module holds itself
    moved = {
        name: p.detach().clone().requires_grad_(p.requires_grad)
        for name, p in twin.named_parameters()
    }
    buffers = {name: buffer.clone() for name, buffer in objective.named_buffers()}
    passed = gradient(lambda: functional_call(objective, moved | buffers, (batch,)), moved)
    own = gradient(lambda: twin(batch), dict(twin.named_parameters()))
    if not float((passed - own).norm()) <= GRADIENTS_APART * float(own.norm()) + 1e-12:
        raise TaskError(
            f"The model of the task `{objective.task.name}` gives other gradients when its "
            "weights are passed in: its backward pass looks at the module itself. Switch off "
            "recomputation (torch.utils.checkpoint, gradient checkpointing)."
        )


def gradient(forward: Callable[[], tuple[Tensor, Tensor]], given: Params) -> Tensor:
    """The gradient of Σwℓ/Σw, flattened."""
    parameters = [p for p in given.values() if p.requires_grad]
    with _random.seeded(0, "gradient"):
        total, weight = weighted_sum(*forward())
        found = torch.autograd.grad(total / weight, parameters, allow_unused=True)
    each = zip(parameters, found, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in each])


def _randomness(objective: Objective, batch: Tree) -> tuple[bool, bool]:
    """Whether named dropout is called, and whether anything else draws."""
    before = _random.global_state()
    calls, first = _draw(objective, batch)
    after = _random.global_state()
    if before[1:] != after[1:] or before == after:
        return calls > 0, before != after
    # Only Python's generator has moved. A type checker's random samples do that too, so what
    # counts is whether the losses depend on it.
    for trial in range(TRIED_SEEDS):
        with _random.seeded(trial, "capability"):
            if not torch.equal(first, _draw(objective, batch)[1]):
                return calls > 0, True
    return calls > 0, False


def _draw(objective: Objective, batch: Tree) -> tuple[int, Tensor]:
    """Named dropouts served in a forward pass, and the losses; buffers stay as they are."""
    mode = NamedDropout(torch.tensor(0, device=_tree.leaves(batch)[0].device))
    tensors = dict(objective.named_parameters())
    tensors |= {name: buffer.clone() for name, buffer in objective.named_buffers()}
    with torch.no_grad(), mode:
        losses, _ = functional_call(objective, tensors, (batch,))
    return mode.calls, losses


def _cost(objective: Objective, batch: Tree) -> tuple[float, bool]:
    """Operations of a forward and backward pass, three forward passes; and whether it convolves.

    Convolutions are counted where they happen, so that functional ones are found too.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        objective(batch)
    named = [str(operation) for operation in counter.get_flop_counts().get("Global", {})]
    return 3.0 * counter.get_total_flops(), any("conv" in name for name in named)


def _why_not_stacked(
    prepared: Prepared, config: RunConfig, objective: Objective, batch: Tree, dropout: bool
) -> str:
    """Empty if two stacked runs give what each gives alone; otherwise what happened."""
    autocast = config.precision == "bfloat16"
    rule = rule_of(config, prepared.task)
    program = Program(objective, rule, config.clip_norm, autocast, dropout)
    # Compared under sgd: the others divide by the gradient's size or add up over time, which makes
    # much of round-off. In bfloat16 the comparison is blunt, so the same is done without autocast.
    plain = dataclasses.replace(program, rule=RULES["sgd"])
    sharp = dataclasses.replace(plain, autocast=False)
    tolerance = TOLERANCES[config.precision]
    trials = [(sharp, TOLERANCES["float32"])] * autocast + [(plain, tolerance)]
    dtype, gamma = DTYPES[config.precision], config.gamma
    objectives = [prepared.objective(config.seed + r, dtype, gamma) for r in (0, 1)]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*performance drop.*")
            _update_stacked(program, [start_of(own, program.rule) for own in objectives], batch)
            starts = [start_of(own, plain.rule) for own in objectives]
            same = all(_agree(trial, starts, batch, *limits) for trial, limits in trials)
            return "" if same else "its runs differ when they are stacked"
    except Exception as error:  # whatever the model does under vmap decides, and is told
        return f"its runs cannot be stacked ({_first_sentence(error)})"


def _agree(
    program: Program, starts: list[Progress], batch: Tree, relative: float, absolute: float
) -> bool:
    """Whether two stacked runs give what each gives alone."""
    numbers, keys = _tried_numbers(starts[0])
    together = _update_stacked(program, starts, batch)
    for r, start in enumerate(starts):
        alone = _update(
            program, make_step(program), program.evaluate, start, numbers, batch, keys[r]
        )
        for a, b in zip(alone, together, strict=True):
            if not torch.allclose(a, b[r], rtol=relative, atol=absolute):
                return False
    return True


def _update_stacked(program: Program, starts: list[Progress], batch: Tree) -> list[Tensor]:
    """Both runs in one step, as the stacked executor does it."""
    numbers, keys = _tried_numbers(starts[0])
    step = make_step(program, torch.vmap)
    evaluate = torch.vmap(program.evaluate, in_dims=(0, 0, None))
    both = Numbers(*(n.expand(len(starts)) for n in numbers))
    return _update(program, step, evaluate, stack(starts), both, batch, keys)


def _update(
    program: Program,
    step: Callable[..., Any],
    evaluate: Callable[..., Any],
    start: Progress,
    numbers: Numbers,
    batch: Tree,
    key: Tensor,
) -> list[Tensor]:
    """Evaluation, then parameters, buffers and loss after one update, as a flat list."""
    program.objective.eval()
    with torch.no_grad():
        outputs, *sums = evaluate(start.params, start.buffers, batch)
    program.objective.train()
    own = batch
    if key.ndim:
        own = _tree.map_leaves(lambda leaf: torch.stack([leaf] * len(key)), batch)
    progress, loss, _ = step(start, numbers, own, key)
    found = [*progress.params.values(), *progress.buffers.values(), loss, *sums]
    return [leaf.double() for leaf in found + _tree.leaves(outputs)]


def _tried_numbers(start: Progress) -> tuple[Numbers, Tensor]:
    """The numbers of both runs, and a key for each."""
    like = next(iter(start.params.values()))
    numbers = Numbers.of(learning_rate=TRIED_RATE, dtype=like.dtype, device=like.device)
    return numbers, torch.tensor([3, 5], device=like.device)


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()).split(". ")[0][:160].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def stack(starts: list[Progress]) -> Progress:
    """R runs → one with a leading R axis."""
    return _pytree.tree_map(lambda *leaves: torch.stack(leaves), *starts)
