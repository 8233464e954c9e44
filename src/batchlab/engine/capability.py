"""What a model can do: be stacked, name its dropout, convolve. Found out on the real shapes, while planning."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from batchlab import _random, _tree
from batchlab.config import RunConfig
from batchlab.engine.dropout import NamedDropout
from batchlab.engine.step import (
    DTYPES,
    Program,
    Progress,
    make_step,
    numbers_of,
    rule_of,
    start_of,
)
from batchlab.tasks import Objective, Prepared
from batchlab.tasks.source import Stacked
from batchlab.types import Tree

STACKED_FLOP = 25e6


@dataclass(frozen=True)
class Capability:
    """What the executors need to know of a model.

    Attributes:
        stackable: Whether R runs together give what each gives alone.
        reason: Why not, in words; empty if they do.
        convolutions: Whether it convolves.
        dropout: Whether it calls a dropout that named randomness can serve.
        moves_generator: Whether a forward pass still draws from torch's global generator.
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
    """
    with _random.seeded(config.seed, "capability"):
        objective = prepared.objective(config.seed, DTYPES[config.precision]).train()
        index = torch.arange(min(8, prepared.examples))
        batch = _tree.to(prepared.train.batch(index), prepared.device, DTYPES[config.precision])
        dropout, moves = _randomness(objective, batch)
        stackable, reason = True, ""
        if moves:
            stackable, reason = False, "its forward pass draws from torch's global generator"
        elif not isinstance(prepared.train, Stacked):
            stackable, reason = False, "its batches are made by reading or by the task's collate"
        else:
            reason = _why_not_stacked(prepared, config, objective, batch, dropout)
            stackable = not reason
        return Capability(
            stackable, reason, _convolves(objective), dropout, moves, _flop(objective, batch) / len(index)
        )


def _randomness(objective: Objective, batch: Tree) -> tuple[bool, bool]:
    """Whether named dropout is called, and whether anything else draws."""
    mode = NamedDropout(torch.tensor(0, device=_tree.leaves(batch)[0].device))
    before = torch.random.get_rng_state()
    with torch.no_grad(), mode:
        objective(batch)
    return mode.calls > 0, not torch.equal(before, torch.random.get_rng_state())


def _convolves(objective: Objective) -> bool:
    kinds = torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.Conv3d
    return any(isinstance(module, kinds) for module in objective.modules())


def _flop(objective: Objective, batch: Tree) -> float:
    """Forward and backward: three times the forward pass."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        objective(batch)
    return 3.0 * counter.get_total_flops()


def _why_not_stacked(
    prepared: Prepared, config: RunConfig, objective: Objective, batch: Tree, dropout: bool
) -> str:
    """Empty if two stacked runs give what each gives alone; otherwise what happened."""
    program = Program(objective, rule_of(config), config.clip_norm, config.precision == "bfloat16", dropout)
    starts = [
        start_of(prepared.objective(seed, DTYPES[config.precision]), program.rule)
        for seed in (config.seed, config.seed + 1)
    ]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*performance drop.*")
            return _difference(program, config, starts, batch)
    except Exception as error:  # whatever the model does under vmap decides, and is told
        text = " ".join(str(error).split())[:160] or type(error).__name__
        return f"its runs cannot be stacked ({type(error).__name__}: {text})"


def _difference(program: Program, config: RunConfig, starts: list[Progress], batch: Tree) -> str:
    numbers = numbers_of(config, next(iter(starts[0].params.values())))
    keys = torch.tensor([3, 5], device=numbers.learning_rate.device)
    alone = [
        _try(program, make_step(program), start, numbers, batch, keys[r])
        for r, start in enumerate(starts)
    ]
    both = _tree.map_leaves(lambda leaf: torch.stack([leaf, leaf]), batch)
    together = _try(
        program, make_step(program, torch.vmap), stack(starts),
        type(numbers)(*(n.expand(2) for n in numbers)), both, keys, over_runs=True,
    )
    for r, one in enumerate(alone):
        for a, b in zip(one, together, strict=True):
            if not torch.allclose(a, b[r], rtol=1e-3, atol=1e-5):
                return "its runs differ when they are stacked"
    return ""


def _try(program, step, start, numbers, batch, key, over_runs=False):  # noqa: ANN001, ANN202
    """Parameters, buffers, loss and evaluation after one update, as a flat list."""
    progress, loss = step(start, numbers, batch, key)
    program.objective.eval()
    with torch.no_grad():
        evaluate = torch.vmap(program.evaluate) if over_runs else program.evaluate
        outputs, losses, _ = evaluate(progress.params, progress.buffers, batch)
    program.objective.train()
    found = [*progress.params.values(), *progress.buffers.values(), loss, losses]
    return [leaf.double() for leaf in found + (_tree.leaves(outputs) if outputs is not None else [])]


def stack(starts: list[Progress]) -> Progress:
    """R runs → one with a leading R axis."""
    return torch.utils._pytree.tree_map(lambda *leaves: torch.stack(leaves), *starts)
