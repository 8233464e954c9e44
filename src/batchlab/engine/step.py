"""One update, written for one run; the executors call it directly or map it over R runs."""

# The _foreach functions are what torch.optim itself is made of; they have no public name.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.func import functional_call

from batchlab import _tree as tree
from batchlab.accumulation import share
from batchlab.config import RunConfig
from batchlab.engine.dropout import NamedDropout
from batchlab.optim import IN_PLACE
from batchlab.rules import RULES, Grouped, Numbers, Rule, Scales, grouped, parts
from batchlab.tasks import Objective, Task
from batchlab.tasks.task import total_weight, weighted_sum
from batchlab.types import Params, Tree

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
"""Number format of the parameters; bfloat16 is autocast around float32 parameters."""


MASKS_APART = 1 << 40
"""Between the keys of two micro-batches' dropout masks; keys of two updates are 1 apart."""


class Progress(NamedTuple):
    """All that changes during a run; with a leading R axis in the stacked executor."""

    params: Params
    buffers: Params
    rule_state: Any


class Stepped(NamedTuple):
    """What one update gives.

    Attributes:
        progress: After the update.
        loss: Before it, Σwℓ/Σw of the batch.
        finite: Whether the loss and every parameter after the update are finite.
    """

    progress: Progress
    loss: Tensor
    finite: Bool[Tensor, "*R"]


@dataclass(frozen=True)
class Program:
    """What the runs of a cell share: the model's code, the rule, and how a step is taken.

    Attributes:
        objective: Model and loss; its own tensors are never read.
        rule: Update rule.
        clip_norm: Largest gradient norm, or None.
        autocast: Whether the forward pass runs in bfloat16.
        named_dropout: Whether dropout is served from named randomness.
        micro_batch_size: Examples of one forward pass at most, or None for whole batches.
    """

    objective: Objective
    rule: Rule
    clip_norm: float | None
    autocast: bool
    named_dropout: bool
    micro_batch_size: int | None = None

    def loss(
        self, params: Params, buffers: Params, batch: Tree, key: Tensor
    ) -> tuple[Tensor, Params]:
        """Σwℓ/Σw on a batch in training mode, and the buffers after it. Where nothing in the batch
        counts the loss is 0, and so is its gradient.
        """
        tensors = params | tree.map(torch.clone, buffers)
        with self._mode(key):
            losses, weights = functional_call(self.objective, tensors, (batch,))
        total, weight = weighted_sum(losses, weights)
        # A buffer that the model replaced rather than wrote to was put back into `tensors`.
        return self._mean(total, weight), {name: tensors[name] for name in buffers}

    def own_loss(self, batch: Tree, key: Tensor) -> Tensor:
        """The same of the objective's own tensors, whose buffers it writes to."""
        with self._mode(key):
            total, weight = weighted_sum(*self.objective(batch))
        return self._mean(total, weight)

    def _mean(self, total: Tensor, weight: Tensor) -> Tensor:
        """Σwℓ/Σw; without weights Σw is the number of examples, never 0."""
        weighted = self.objective.task.weight is not None
        return share(total, 1.0, weight) if weighted else total / weight

    def evaluate(
        self, params: Params, buffers: Params, batch: Tree
    ) -> tuple[Tree, Tensor, Tensor]:
        """Predictions, Σwℓ and Σw on a batch; the objective must be in evaluation mode.

        Without a metric that looks at them, there are no predictions: ``()``.
        """
        with self._precision(next(iter(params.values()))):
            outputs, losses, weights = functional_call(
                self.objective, params | buffers, (batch,), {"predict": True}
            )
        needed = self.objective.task.resolved_metric().function is not None
        return outputs if needed else (), *weighted_sum(losses, weights)

    def advance(
        self, params: Params, grads: Params, rule_state: Any, numbers: Numbers
    ) -> tuple[Params, Any, Tensor]:
        """θ + Δ: clip, then the rule; and whether every parameter is finite."""
        delta, rule_state = self.rule.update(self._clipped(grads), rule_state, params, numbers)
        params = tree.add(params, delta)
        return params, rule_state, tree.is_finite(params)

    def overwrite(
        self, params: Params, grads: Params, rule_state: Any, numbers: Numbers
    ) -> tuple[Params, Any, Tensor]:
        """The same as :meth:`advance` into the same memory, for one run whose rule has a form in
        place: an update then reads and writes every number once.
        """
        given, own = self._clipped(grads), list(params.values())
        states = rule_state.states if isinstance(rule_state, Grouped) else (rule_state,)
        groups = parts(params, self.rule.groups).items()
        for (scales, names), state in zip(groups, states, strict=True):
            velocity = getattr(state, "velocity", {})
            IN_PLACE[self.rule.name](
                [params[name] for name in names],
                [given[name] for name in names],
                [velocity[name] for name in names if velocity],
                _group(numbers, scales),
            )
        # A norm is finite only where every number is. Where squares overflow, each is looked at.
        finite = torch.stack(list(torch._foreach_norm(own))).isfinite().all()
        return params, rule_state, finite if finite else tree.is_finite(params)

    def _clipped(self, grads: Params) -> Params:
        if self.clip_norm is None:
            return grads
        share = self.clip_norm / (tree.norm(grads) + 1e-6)
        return tree.scale(share.clamp(max=1.0), grads)

    @contextlib.contextmanager
    def _mode(self, key: Tensor) -> Iterator[None]:
        """Dropout from named randomness, and the precision of the forward pass."""
        mode = NamedDropout(key) if self.named_dropout else contextlib.nullcontext()
        with mode, self._precision(key):
            yield

    def _precision(self, like: Tensor) -> Any:
        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(like.device.type, dtype=torch.bfloat16)


def _group(numbers: Numbers, scales: Scales) -> dict[str, float]:
    """One of ``param_groups``."""
    return {
        "lr": scales.learning_rate * float(numbers.learning_rate),
        "momentum": float(numbers.momentum),
        "weight_decay": scales.weight_decay * float(numbers.weight_decay),
        "nu": float(numbers.nu),
    }


Gradient: TypeAlias = Callable[
    [Params, Params, Tree, Tensor], tuple[Tensor, Sequence[Tensor | None], Params]
]
"""``(params, buffers, batch, key) → (mean loss, its gradient, buffers after it)``."""


def accumulated(gradient: Gradient, program: Program) -> Gradient:
    """The gradient of a batch from those of its micro-batches: ΣᵢWᵢgᵢ/ΣᵢWᵢ, where Wᵢ is the Σw of
    micro-batch i: :func:`batchlab.accumulation.share`. Batch norm sees micro-batches; each draws
    its own dropout masks.

    Args:
        gradient: Of one forward pass.
        program: Of one run; its ``micro_batch_size`` is the most examples of a pass.

    Returns:
        The same function, for batches of any size.
    """
    micro = program.micro_batch_size

    def whole(params: Params, buffers: Params, batch: Tree, key: Tensor) -> Any:
        size = tree.size(batch)
        if micro is None or size <= micro:
            return gradient(params, buffers, batch, key)
        pieces = [tree.narrow(batch, first, first + micro) for first in range(0, size, micro)]
        weights = [total_weight(program.objective.task, piece) for piece in pieces]
        total = torch.stack(weights).sum()
        mean, grads = torch.zeros(()), dict[int, Tensor]()
        for i, (piece, weight) in enumerate(zip(pieces, weights, strict=True)):
            if not weight:
                continue  # nothing in it counts
            part = share(torch.ones_like(weight), weight, total)
            loss, found, buffers = gradient(params, buffers, piece, key + i * MASKS_APART)
            mean = mean + part * loss.detach()
            for j, grad in enumerate(found):
                if grad is not None:
                    grads[j] = torch.addcmul(grads[j], grad, part) if j in grads else grad * part
        return mean, [grads.get(j) for j in range(len(params))], buffers

    return whole


Step: TypeAlias = Callable[[Progress, Numbers, Tree, Tensor], Stepped]
"""``(progress, numbers, batch, key) → Stepped``."""


def make_step(
    program: Program,
    over_runs: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
) -> Step:
    """The step of a cell.

    The gradient is taken of the *sum* of the runs' losses: run r's loss depends on run r's
    parameters only, so this gives every run its own gradient with one backward pass and no
    transform around autograd.

    Args:
        program: What the runs share.
        over_runs: Maps a function of one run over R (``torch.vmap``), or None for one run alone.

    Returns:
        ``(progress, numbers, batch, key) → Stepped``.
    """
    loss_of = over_runs(program.loss) if over_runs else program.loss
    advance = over_runs(program.advance) if over_runs else program.advance

    def once(params: Params, buffers: Params, batch: Tree, key: Tensor) -> Any:
        loss, buffers = loss_of(params, buffers, batch, key)
        found = torch.autograd.grad(loss.sum(), list(params.values()), allow_unused=True)
        return loss, found, tree.map(torch.detach, buffers)

    gradient = once if over_runs else accumulated(once, program)

    def step(progress: Progress, numbers: Numbers, batch: Tree, key: Tensor) -> Stepped:
        params = {n: value.detach().requires_grad_() for n, value in progress.params.items()}
        loss, found, buffers = gradient(params, progress.buffers, batch, key)
        with torch.no_grad():
            grads = {
                name: torch.zeros_like(value) if grad is None else grad
                for (name, value), grad in zip(params.items(), found, strict=True)
            }
            params = tree.map(torch.detach, params)
            params, rule_state, finite = advance(params, grads, progress.rule_state, numbers)
        progress = Progress(params, buffers, rule_state)
        return Stepped(progress, loss.detach(), finite & torch.isfinite(loss.detach()))

    return step


def bind(objective: Objective, progress: Progress) -> None:
    """Make a run's tensors those of the module: whoever overwrites one overwrites both.

    Args:
        objective: Model and loss of :func:`make_bound_step`'s program.
        progress: The run's.
    """
    values = progress.params | progress.buffers
    for name, own in (*objective.named_parameters(), *objective.named_buffers()):
        own.data = values[name]


def make_bound_step(program: Program) -> Step:
    """The step of one run alone whose tensors live in its module, see :func:`bind`.

    It equals :func:`make_step`'s, overwrites what it is given, and costs no functional call: a
    tenth of the time of a small convolutional net's step.

    Args:
        program: Of a rule that has a form in place.

    Returns:
        ``(progress, numbers, batch, key) → Stepped``; ``progress`` must be the bound one.
    """
    objective = program.objective
    named = list(objective.named_parameters())
    trained = [(name, p) for name, p in named if p.requires_grad]
    frozen = {name: p.data for name, p in named if not p.requires_grad}
    has_buffers = next(objective.buffers(), None) is not None

    def once(params: Params, buffers: Params, batch: Tree, key: Tensor) -> Any:
        loss = program.own_loss(batch, key)
        return loss, torch.autograd.grad(loss, [p for _, p in trained], allow_unused=True), buffers

    gradient = accumulated(once, program)

    def step(progress: Progress, numbers: Numbers, batch: Tree, key: Tensor) -> Stepped:
        loss, found, _ = gradient(progress.params, progress.buffers, batch, key)
        with torch.no_grad():
            grads = {
                name: torch.zeros_like(p) if grad is None else grad
                for (name, p), grad in zip(trained, found, strict=True)
            }
            given = progress.params, grads, progress.rule_state, numbers
            params, rule_state, finite = program.overwrite(*given)
        buffers = _own_buffers(objective) | frozen if has_buffers else progress.buffers
        loss = loss.detach()
        return Stepped(Progress(params, buffers, rule_state), loss, finite & loss.isfinite())

    return step


def _own_buffers(objective: Objective) -> Params:
    """The buffers as they are now; one that the model replaced is cut off from its past."""
    return {name: b.detach_() if b.requires_grad else b for name, b in objective.named_buffers()}


def start_of(objective: Objective, rule: Rule) -> Progress:
    """The initial progress of one run, detached from the module."""
    params = {n: p.detach().clone() for n, p in objective.named_parameters() if p.requires_grad}
    # Frozen parameters differ between seeds like any other initial value, so they travel with the
    # buffers.
    frozen = {
        n: p.detach().clone() for n, p in objective.named_parameters() if not p.requires_grad
    }
    buffers = {n: b.detach().clone() for n, b in objective.named_buffers()}
    return Progress(params, buffers | frozen, rule.init(params))


def numbers_of(config: RunConfig, like: Tensor) -> Numbers:
    """The numbers of a resolved run as scalar tensors."""
    values = {name: float(getattr(config, name)) for name in Numbers._fields}
    return Numbers.of(**values, dtype=like.dtype, device=like.device)


def rule_of(config: RunConfig, task: Task) -> Rule:
    """The rule of a resolved run, with the task's groups of parameters."""
    assert config.rule is not None
    # In an Objective the user's model is called `module`; where that is wrapped, `module.model`.
    place = "module" if config.gamma is None else "module.model"
    groups = {f"{place}.{name}": scales for name, scales in task.groups.items()}
    return grouped(RULES[config.rule], groups)
