"""What a cell is asked to do, and the state in which a run can be handed on."""

from __future__ import annotations

import bisect
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch.utils import _pytree

from batchlab import schedules
from batchlab.config import RunConfig
from batchlab.engine.step import Progress
from batchlab.tasks import Objective
from batchlab.types import Params

Probe: TypeAlias = Callable[[Objective, int], dict[str, float]]
"""Called with a private copy of the model at its current weights and the samples seen; returns
what to record."""


@runtime_checkable
class BatchedProbe(Protocol):
    """A probe that can also be asked about several stacked runs at once.

    Both forms give the same of a run, up to round-off. What the batched one draws at random it
    names itself: the global generators are the same for all of its runs.
    """

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """As :data:`Probe`."""
        ...

    def together(
        self, objective: Objective, params: Params, buffers: Params, samples: Sequence[int]
    ) -> Sequence[dict[str, float]]:
        """What to record of each of R runs.

        Args:
            objective: A private copy of the model and loss; its own tensors belong to no run.
            params: Parameters that are trained, each with a leading R; private copies.
            buffers: Buffers and frozen parameters, likewise.
            samples: Samples seen by each run.
        """
        ...


@runtime_checkable
class RunProbe(Protocol):
    """A probe that has to know whose run it measures, such as one that compares with its start."""

    def of(self, config: RunConfig) -> Probe:
        """The probe of one run.

        Args:
            config: The run.
        """
        ...


def probe_of(probe: Probe | RunProbe, config: RunConfig) -> Probe:
    """What measures a run.

    Args:
        probe: Of the job.
        config: The run.
    """
    return probe.of(config) if isinstance(probe, RunProbe) else probe


EVALUATIONS = 40
LEAST_EVALUATIONS = 8


@dataclass(frozen=True)
class RunState:
    """A run at one moment, ready to go on under the same rule with other numbers.

    Attributes:
        progress: Parameters, buffers and the rule's state, on the CPU.
        samples: Fresh examples drawn so far.
        updates: Updates so far.
    """

    progress: Progress
    samples: int
    updates: int


@dataclass(frozen=True)
class Job:
    """What every run of a sweep does besides training.

    Attributes:
        evaluate_at: Sample counts at which the validation data is read, ascending.
        probe: Measurement taken during training, or None.
        probe_at: Sample counts at which it is taken.
        keep_end: Whether the states at the end are wanted.
        until: Sample count at which training stops although the run, and with it its learning-rate
            schedule, is longer; None for the end of the run.
    """

    evaluate_at: tuple[int, ...]
    probe: Probe | RunProbe | None = None
    probe_at: tuple[int, ...] = ()
    keep_end: bool = False
    until: int | None = None


def evaluation_grid(examples: int, samples: int, start: int = 0) -> tuple[int, ...]:
    """Every quarter pass, at least 8 and at most 40 times a run; the same for every batch size.

    A target counts as reached after three evaluations: fewer than 8 in a short run would leave no
    room to tell an early arrival from a late one.

    Args:
        examples: N.
        samples: End of the run.
        start: Where it begins.

    Returns:
        Sample counts, the first ``start`` and the last ``samples``.

    Example:
        >>> evaluation_grid(examples=100, samples=200)
        (0, 25, 50, 75, 100, 125, 150, 175, 200)
    """
    wanted = max(LEAST_EVALUATIONS, min(EVALUATIONS, 4 * (samples - start) // examples))
    count = max(1, min(wanted, samples - start))
    return tuple(start + round(i * (samples - start) / count) for i in range(count + 1))


def stops(plan: Sequence[tuple[int, int]], begin: int, moments: Iterable[int]) -> frozenset[int]:
    """After how many batches of a plan a moment of a grid has just been passed.

    Args:
        plan: (first sample, batch size) of every batch.
        begin: Samples before the first.
        moments: Sample counts.

    Returns:
        Numbers of batches, 0 for moments at or before ``begin``; a moment after the last batch is
        in none.

    Example:
        >>> sorted(stops([(0, 8), (8, 8), (16, 8)], 0, (0, 5, 8, 20, 99)))
        [0, 1, 3]
    """
    after = [begin, *(first + size for first, size in plan)]
    places = (bisect.bisect_left(after, moment) for moment in moments)
    return frozenset(place for place in places if place < len(after))


def updates_of(
    config: RunConfig, examples: int, start: int, until: int | None = None
) -> list[tuple[int, int]]:
    """(first sample, batch size) of every batch from ``start`` to ``until`` or the run's end."""
    assert config.batch_size is not None
    assert isinstance(config.samples, int)
    schedule = schedules.batch_schedule(config.batch_size).resolve(examples)
    return list(schedule.updates(start, config.samples if until is None else until))


def state_to_bytes(state: RunState) -> bytes:
    """A state as the bytes of an ``.npz`` file without pickles."""
    arrays = to_arrays("leaf", state.progress)
    buffer = io.BytesIO()
    whole = {"counts": np.array([state.samples, state.updates]), **arrays}
    np.savez(buffer, **whole)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def state_from_bytes(data: bytes, like: Progress) -> RunState:
    """Undo :func:`state_to_bytes`; ``like`` gives the structure."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        samples, updates = arrays["counts"].tolist()
        return RunState(from_arrays("leaf", arrays, like), samples, updates)


def to_arrays(prefix: str, progress: Progress) -> dict[str, np.ndarray]:
    """Every tensor of a run as an array, named ``prefix0``, ``prefix1`` …"""
    leaves = _pytree.tree_leaves(progress)
    return {f"{prefix}{i}": leaf.detach().cpu().numpy() for i, leaf in enumerate(leaves)}


def from_arrays(prefix: str, arrays: Mapping[str, np.ndarray], like: Progress) -> Progress:
    """Undo :func:`to_arrays`; ``like`` gives the structure."""
    _, structure = _pytree.tree_flatten(like)
    names = (f"{prefix}{i}" for i in range(structure.num_leaves))
    leaves = [torch.from_numpy(arrays[name]) for name in names]
    return _pytree.tree_unflatten(leaves, structure)


def to_device(progress: Progress, device: str) -> Progress:
    """Move every tensor of a run."""
    return _pytree.tree_map(lambda leaf: leaf.to(device), progress)
