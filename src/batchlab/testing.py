"""Contract checks for anyone who adds a rule, a schedule or a sampler.

Each check raises ``AssertionError`` with one sentence, or returns None. Use them in your own
tests::

    def test_my_rule():
        batchlab.testing.check_rule(my_rule())
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils import _pytree

from batchlab import _tree as tree
from batchlab.rules import Numbers, Rule
from batchlab.schedules import BatchSchedule, RateSchedule, batch_schedule, rate_schedule
from batchlab.types import Params

_NUMBERS = Numbers.of(
    learning_rate=0.05,
    momentum=0.6,
    weight_decay=0.1,
    nu=0.7,
    beta2=0.9,
    eps=1e-3,
    dtype=torch.float64,
)
_UPDATES = 4


@runtime_checkable
class SampleStream(Protocol):
    """What :func:`check_sampler` checks; :class:`batchlab.samplers.Stream` is one."""

    @property
    def examples(self) -> int:
        """Examples in the data set N."""
        ...

    def take(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """``(indices, passes)`` of the samples from ``start`` on, both shape ``[count]``."""
        ...


@runtime_checkable
class EpochSampler(Protocol):
    """What :func:`check_batch_sampler` checks; :class:`batchlab.data.GrowingBatchSampler` is
    one.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Any: ...

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        ...


# Rules


def check_rule(rule: Rule) -> None:
    """Check that an update rule keeps the contract of :class:`batchlab.rules.Rule`.

    It must return a step of the parameters' names, shapes and precision; change nothing it is
    given; give the same twice; read exactly the numbers it names; not move at rate 0; lower a
    quadratic; shrink the parameters by weight decay if it has one; give the same for runs
    together as alone; and, if it says it is of the SGD family, be linear in the gradients.

    Args:
        rule: The rule.

    Raises:
        AssertionError: At the first breach, with a sentence.

    Example:
        >>> from batchlab.rules import RULES
        >>> check_rule(RULES["shb"])
    """
    _must(rule.uses <= set(Numbers._fields), rule, "names a number that does not exist")
    _check_form(rule)
    _check_purity(rule)
    _check_numbers_used(rule)
    _check_no_step_at_rate_zero(rule)
    _check_descent(rule)
    _check_weight_decay(rule)
    _check_runs_together(rule)
    if rule.sgd_family:
        _check_linearity(rule)


def _check_form(rule: Rule) -> None:
    for dtype in (torch.float32, torch.float64):
        params = {name: value.to(dtype) for name, value in _params().items()}
        numbers = Numbers(*(number.to(dtype) for number in _NUMBERS))
        state = rule.init(params)
        delta, after = rule.update(params, state, params, numbers)
        _must(_forms(delta) == _forms(params), rule, "returns a step of another form than θ")
        _must(_forms(state) == _forms(after), rule, "changes the form of its state")


def _check_purity(rule: Rule) -> None:
    params, grads = _params(), _gradient(0)
    state = rule.init(params)
    given = (grads, state, params, _NUMBERS)
    before = _copy(given)
    first = _copy(rule.update(*given))
    _must(_equal(given, before), rule, "overwrites what it is given")
    _must(_equal(first, rule.update(*given)), rule, "gives another step for the same input")


def _check_numbers_used(rule: Rule) -> None:
    path = _run(rule, _NUMBERS)
    for field in Numbers._fields:
        changed = _run(rule, _NUMBERS._replace(**{field: getattr(_NUMBERS, field) * 0.5}))
        if field in rule.uses:
            _must(not _equal(path, changed), rule, f"names {field} and does not use it")
        else:
            _must(_equal(path, changed), rule, f"uses {field} and does not name it")


def _check_no_step_at_rate_zero(rule: Rule) -> None:
    path = _run(rule, _NUMBERS._replace(learning_rate=torch.zeros((), dtype=torch.float64)))
    _must(_close(path[-1], _params()), rule, "moves at learning rate 0")


def _check_descent(rule: Rule) -> None:
    """On ½‖θ‖² the gradient is θ."""
    params = start = _params()
    state, numbers = rule.init(params), _with(learning_rate=0.01, weight_decay=0.0)
    for _ in range(20):
        delta, state = rule.update(params, state, params, numbers)
        params = tree.add(params, delta)
    lower = bool(tree.norm(params) < tree.norm(start))
    _must(lower, rule, "does not lower a quadratic at a small learning rate")


def _check_weight_decay(rule: Rule) -> None:
    if "weight_decay" not in rule.uses:
        return
    params = start = _params()
    state = rule.init(params)
    for _ in range(_UPDATES):
        delta, state = rule.update(tree.zeros_like(params), state, params, _NUMBERS)
        params = tree.add(params, delta)
    shrinks = bool(tree.norm(params) < tree.norm(start))
    _must(shrinks, rule, "does not shrink the parameters by weight decay when gradients vanish")


def _check_runs_together(rule: Rule) -> None:
    several = [Numbers(*(number * scale for number in _NUMBERS)) for scale in (0.5, 1.0)]
    try:
        together = _run_together(rule, several)
    except RuntimeError as error:
        raise AssertionError(f"Rule {rule.name} cannot be mapped over runs: {error}") from error
    for run, numbers in enumerate(several):
        same = _close(tree.pick(together, run), _run(rule, numbers)[-1])
        _must(same, rule, "gives other steps for runs together than alone")


def _run_together(rule: Rule, several: list[Numbers]) -> Params:
    """θ of several runs after a few updates, with a leading R axis."""
    params = tree.stack([_params() for _ in several])
    numbers = Numbers(*(torch.stack(values) for values in zip(*several, strict=True)))
    state = torch.func.vmap(rule.init)(params)
    for step in range(_UPDATES):
        grads = tree.stack([_gradient(step) for _ in several])
        delta, state = torch.func.vmap(rule.update)(grads, state, params, numbers)
        params = tree.add(params, delta)
    return params


def _check_linearity(rule: Rule) -> None:
    numbers = _with(weight_decay=0.0)
    ends = [_run(rule, numbers, scale)[-1] for scale in (1.0, 3.0)]
    once, thrice = (tree.axpy(-1.0, _params(), end) for end in ends)
    linear = _close(tree.scale(3.0, once), thrice)
    _must(linear, rule, "says it is of the SGD family and is not linear in the gradients")


def _params() -> Params:
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (3, 2), "b": (2,), "scale": ()}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) + 0.1
        for name, shape in shapes.items()
    }


def _gradient(step: int) -> Params:
    return tree.map(lambda p: torch.cos(p * (step + 1)) + 0.3, _params())


def _run(rule: Rule, numbers: Numbers, scale: float = 1.0) -> list[Params]:
    """θ after each of a few updates with set gradients."""
    params, path = _params(), []
    state = rule.init(params)
    for step in range(_UPDATES):
        grads = tree.scale(scale, _gradient(step))
        delta, state = rule.update(grads, state, params, numbers)
        params = tree.add(params, delta)
        path.append(params)
    return path


def _with(**changes: float) -> Numbers:
    tensors = {name: torch.tensor(v, dtype=torch.float64) for name, v in changes.items()}
    return _NUMBERS._replace(**tensors)


# Schedules


def check_schedule(schedule: BatchSchedule | RateSchedule, *, examples: int = 97) -> None:
    """Check that a schedule keeps its contract.

    Text made of it must read back as the same schedule. A batch schedule must cut every budget
    into batches that follow one another without gap, each of the size in force at its first
    sample, leaving less than one batch, and give the same batches when asked from the middle. A
    multiplier must be finite and not negative.

    Args:
        schedule: A batch schedule or a rate schedule.
        examples: Examples in the data set N, for positions in epochs.

    Raises:
        AssertionError: At the first breach, with a sentence.

    Example:
        >>> check_schedule(batch_schedule("0:8 2ep:16"))
        >>> check_schedule(rate_schedule("cosine", warmup=0.1))
    """
    read = rate_schedule if isinstance(schedule, RateSchedule) else batch_schedule
    _must(read(str(schedule)) == schedule, schedule, "does not read back from its text")
    if isinstance(schedule, RateSchedule):
        _check_multipliers(schedule)
        return
    resolved = schedule.resolve(examples)
    last = int(resolved.steps[-1].start.value) + 2 * max(resolved.sizes) + 1
    for budget in sorted({0, 1, last // 2, last - 1, last}):
        _check_cut(resolved, budget)


def _check_multipliers(schedule: RateSchedule) -> None:
    for step in range(101):
        value = schedule(step / 100)
        fine = math.isfinite(value) and value >= 0.0
        _must(fine, schedule, f"gives {value} at {step} % of the budget")
    if schedule.warmup:
        _must(schedule(0.0) == 0.0, schedule, "does not begin its warm-up at 0")


def _check_cut(schedule: BatchSchedule, budget: int) -> None:
    batches = list(schedule.updates(0, budget))
    ends = list(itertools.accumulate(size for _, size in batches))
    starts, trained = [0, *ends][: len(ends)], [0, *ends][-1]
    in_order = [first for first, _ in batches] == starts
    _must(in_order, schedule, "leaves gaps between its batches, or overlaps")
    in_force = all(size == schedule.at(first) for first, size in batches)
    _must(in_force, schedule, "uses a size that is not in force at the first sample")
    fits = 0 <= budget - trained < schedule.at(trained)
    _must(fits, schedule, f"trains {trained} of {budget} samples")
    middle = len(batches) // 2
    start = [*starts, trained][middle]
    tail = list(schedule.updates(start, budget))
    _must(tail == batches[middle:], schedule, "gives other batches when asked from the middle")
    counted = schedule.count(0, budget) == len(batches)
    _must(counted, schedule, "counts its batches wrongly")


# Samplers


def check_sampler(sampler: SampleStream, *, samples: int | None = None) -> None:
    """Check that a sampler is one infinite stream of examples.

    Each pass must hold every example once, ``passes`` must count them, pieces must join to the
    whole, asking twice must give the same, and torch's global generator must stay where it is.

    Args:
        sampler: The stream.
        samples: How far to look; left out, three passes and a half.

    Raises:
        AssertionError: At the first breach, with a sentence.

    Example:
        >>> from batchlab.samplers import Stream
        >>> check_sampler(Stream(examples=10, seed=0))
    """
    n = sampler.examples
    length = samples or 3 * n + (n + 1) // 2
    generator = torch.get_rng_state()
    indices, passes = sampler.take(0, length)
    untouched = torch.equal(torch.get_rng_state(), generator)
    _must(untouched, sampler, "moves torch's global generator")
    _must(len(indices) == len(passes) == length, sampler, "gives another number than asked for")
    counted = torch.equal(passes, torch.arange(length) // n)
    _must(counted, sampler, "does not count the passes over the data")
    for end in range(n, length + 1, n):
        whole = torch.equal(indices[end - n : end].sort().values, torch.arange(n))
        _must(whole, sampler, "does not show every example once in a pass")
    for size in (1, 2, n, n + 1):
        pieces = [sampler.take(s, min(size, length - s))[0] for s in range(0, length, size)]
        joined = torch.equal(torch.cat(pieces), indices)
        _must(joined, sampler, f"shows another order in pieces of {size}")


def check_batch_sampler(make: Callable[[], EpochSampler], *, epochs: int = 3) -> None:
    """Check that a batch sampler for a ``DataLoader`` can be counted, stopped and resumed.

    ``len`` must be the number of batches of the epoch, ``set_epoch`` must lead where iterating
    leads and must not rewind an epoch that has begun, and a sampler that loads a state must hand
    out the rest.

    Args:
        make: Makes the same sampler again, before its first epoch.
        epochs: How many to look at.

    Raises:
        AssertionError: At the first breach, with a sentence.

    Example:
        >>> from batchlab.data import GrowingBatchSampler
        >>> check_batch_sampler(lambda: GrowingBatchSampler(10, 4))
    """
    straight = make()
    for epoch in range(epochs):
        other = make()
        other.set_epoch(epoch)
        length = len(other)
        batches = list(straight)
        _must(list(other) == batches, other, f"reaches another epoch {epoch} by set_epoch")
        _must(length == len(batches), other, f"announces {length} batches for {len(batches)}")
        _check_resume(make, epoch, batches)


def _check_resume(make: Callable[[], EpochSampler], epoch: int, batches: list[list[int]]) -> None:
    stopped, resumed = make(), make()
    stopped.set_epoch(epoch)
    done = len(batches) // 2
    for _ in itertools.islice(stopped, done):
        pass
    resumed.load_state_dict(stopped.state_dict())
    resumed.set_epoch(epoch)
    rest = list(resumed)
    _must(rest == batches[done:], resumed, f"does not go on after batch {done} when resumed")


# Sentences and comparisons


def _must(holds: bool, subject: object, breach: str) -> None:
    if not holds:
        name = subject.name if isinstance(subject, Rule) else subject
        raise AssertionError(f"{type(subject).__name__} {name} {breach}.")


def _forms(nested: Any) -> list[Any]:
    """Names, shapes and precisions."""
    leaves, form = _pytree.tree_flatten(nested)
    return [form, *((leaf.shape, leaf.dtype) for leaf in leaves)]


def _copy(nested: Any) -> Any:
    return _pytree.tree_map(torch.clone, nested)


def _equal(a: Any, b: Any) -> bool:
    pairs = zip(_pytree.tree_leaves(a), _pytree.tree_leaves(b), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def _close(a: Params, b: Params) -> bool:
    return all(torch.allclose(a[name], b[name], rtol=1e-9, atol=1e-12) for name in a)
