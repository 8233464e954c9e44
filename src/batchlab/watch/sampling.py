"""Which updates are measured, by which method, and what they add up to.

An update is measured when the time that measuring has taken is below a share of the training time;
so the share holds whatever the model, and nothing has to be tuned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import Parameter

from batchlab.watch import gradients
from batchlab.watch.clock import Laps
from batchlab.watch.gradients import Collector, Found, MicroBatches, PerExample
from batchlab.watch.noise import Pair, Squares, block_of, pair
from batchlab.watch.record import About

Method = Literal["auto", "per example", "micro-batches", "processes", "off"]

FIRST = 10
"""Updates before the first measured one, at least 1: by then it is known whether gradients are
accumulated, kernels are chosen, and memory is laid out."""
LEAST_PAIRS = 8
"""Pairs that make a block."""
IN_VAIN = 16
"""Updates that may turn out not to be measurable, such as the short last one of an epoch."""
WHOLE, PART = 0.99, 0.5
"""Share of the trained numbers from which per-example norms stand for the model, and that below
which they say nothing about it."""


class _Measured(NamedTuple):
    found: Found
    loss_scale: float


class Sampling:
    """Measures some updates of a running training.

    Args:
        model: The user's.
        optimizer: The user's; the parameters of its groups are what is trained.
        method: One way, or ``auto`` for the better one.
        share: Largest share of training time that it may take.
        scaler: The GradScaler, where there is one; its factor is taken out of signal and noise.

    Attributes:
        population: Examples of the data set, where drawn without replacement.
        trained: Parameters of the optimizer that are not frozen.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: Method,
        share: float,
        scaler: Any = None,
    ) -> None:
        self._model, self._method, self._share, self._scaler = model, method, share, scaler
        groups = optimizer.param_groups
        self.trained = [p for group in groups for p in group["params"] if p.requires_grad]
        self.population: int | None = None
        self._notes: list[tuple[About, str]] = []
        self._laps, self._compiled = Laps(self.device), gradients.compilations()
        self._longer = 0.0
        self._collector: Collector | None = None
        self._looked_for: bool | None = None
        self._failed: dict[str, str] = {}
        self._left_out: dict[Parameter, str] = {}
        self._unread: list[_Measured] = []
        self._pairs: list[Pair] = []
        self._open = self._active = False
        self._updates, self._accumulates, self._batch_size = 0, False, 0
        self._next, self._in_vain, self._loss_scale = 0.0, 0, 1.0
        self._working = 0.0

    @property
    def device(self) -> torch.device:
        """Of the first parameter."""
        return self.trained[0].device if self.trained else torch.device("cpu")

    def told(self) -> list[tuple[About, str]]:
        """What could not be measured, each once."""
        notes, self._notes = self._notes, []
        return notes

    def begin(self, size: int | None, working: float) -> None:
        """A micro-batch begins.

        Args:
            size: Its examples; None where :meth:`tell` says them later.
            working: Seconds of training so far.
        """
        if not self._open:
            self._open, self._working = True, working
            due = self._due()
            self._laps.begin(due)
            if due and self._ready():
                self._start()
        if size is not None:
            self.tell(size)

    def tell(self, size: int) -> None:
        """The examples of the micro-batch at hand."""
        if self._collector is not None:
            self._collector.size = size

    def stepped(self) -> None:
        """The optimizer has stepped: the factor on the loss is still that of its gradient."""
        if self._active and self._scaler is not None:
            self._loss_scale = float(self._scaler.get_scale())

    def end(self, sizes: Sequence[int]) -> None:
        """An update was made of micro-batches of these sizes."""
        measured, self._open, self._active = self._active, False, False
        self._updates, self._accumulates = self._updates + 1, len(sizes) > 1
        if measured and self._collector is not None:
            found = self._collector.stop(sizes)
            cost = max(self._collector.spent, self._longer)
            self._next = self._working + cost / self._share
            self._in_vain = 0 if found else self._in_vain + 1
            if found is not None:
                self._batch_size = found.big
                self._unread.append(_Measured(found, self._loss_scale))
            else:
                self._give_up()
        self._laps.end(measured)

    def resolve(self, *, last: bool = False) -> dict[str, Any] | None:
        """Read what was measured, and make a block of it where it is long enough.

        Args:
            last: The training ends: what is there is a block.

        Returns:
            Fields of a ``NoiseBlock`` beside the four axes, or None.
        """
        self._longer = self._laps.longer()
        measured, self._unread = self._unread, []
        if self._collector is None or self._missing(measured):
            return None
        self._pairs += [p for p in self._split(measured) if all(map(math.isfinite, p))]
        if len(self._pairs) < (2 if last else LEAST_PAIRS):
            return None
        pairs, self._pairs = self._pairs, []
        return block_of(pairs) | {
            "method": self._collector.method,
            "batch_size": self._batch_size,
            "covered": gradients.covered(self._collector.parameters, self.trained),
            "population": self.population,
        }

    def close(self) -> None:
        """Take every hook away."""
        if self._active and self._collector is not None:
            self._collector.stop(())
        self._active = False

    def _due(self) -> bool:
        """Whether the measured update before this one is paid for by the training since, and there
        may be a way to measure another.
        """
        return (
            self._method != "off"
            and self._share > 0
            and self._updates >= FIRST
            and self._working >= self._next
            and (self._collector is not None or self._looked_for != self._accumulates)
        )

    def _start(self) -> None:
        assert self._collector is not None
        self._active = True
        self._collector.start(check=not self._pairs and not self._unread)

    def _ready(self) -> bool:
        """Whether there is a way to measure; looked for again where batches begin to be split."""
        if self._collector is None and self._looked_for != self._accumulates:
            self._looked_for = self._accumulates
            self._collector = self._chosen()
        if isinstance(self._collector, PerExample) and not self._pairs:
            if reason := gradients.forbidden(self._model, self._compiled):
                self._drop(reason)
        return self._collector is not None

    def _chosen(self) -> Collector | None:
        """The better way to measure this model, or a note why there is none."""
        by_example, reason = self._by_example()
        share = gradients.covered(by_example.parameters, self.trained) if by_example else 0.0
        if by_example and share >= WHOLE:
            return by_example
        summed, no_sum = self._by_micro_batch()
        if summed:
            return summed
        exchanged, not_exchanged = self._by_process()
        if exchanged:
            return exchanged
        if by_example and share >= PART:
            self._notes.append((About.PART_OF_NOISE, reason))
            return by_example
        reasons = [*self._failed.values(), reason, no_sum, not_exchanged]
        self._notes.append((About.NO_NOISE, "; ".join(dict.fromkeys(filter(None, reasons)))))
        return None

    def _by_micro_batch(self) -> tuple[MicroBatches | None, str]:
        """The collector of micro-batches, or why there is none."""
        if self._method not in ("auto", "micro-batches") or "micro-batches" in self._failed:
            return None, ""
        if not self._accumulates:
            return None, "gradients are not accumulated over micro-batches"
        return MicroBatches(self.trained), ""

    def _by_process(self) -> tuple[Collector | None, str]:
        """The collector of the processes' gradients, or why there is none where it is asked for;
        one process alone needs no excuse.
        """
        if self._method not in ("auto", "processes") or "processes" in self._failed:
            return None, ""
        found = gradients.processes(self._model, self.trained)
        wanted = found is None and self._method == "processes"
        said = "the model given to watch is not in DistributedDataParallel with other processes"
        return found, said if wanted else ""

    def _by_example(self) -> tuple[PerExample | None, str]:
        """The collector of single examples, and what keeps it from covering the whole model."""
        if self._method not in ("auto", "per example") or "per example" in self._failed:
            return None, ""
        if reason := gradients.forbidden(self._model, self._compiled):
            return None, reason
        found, others = gradients.per_example(self._model, self.trained, self._left_out)
        return found, f"no formula for {others}" if others else ""

    def _missing(self, measured: Sequence[_Measured]) -> bool:
        """Whether contributions missed a gradient; then what was measured with it is dropped."""
        assert self._collector is not None
        missed = {
            parameter
            for one in measured
            for parameter, times in zip(
                one.found.missed, gradients.numbers([*one.found.missed.values()]), strict=True
            )
            if times > 1
        }
        if not missed:
            return False
        if isinstance(self._collector, MicroBatches):
            self._drop("gradients are not set to zero before each update")
        else:
            self._left_out |= dict.fromkeys(missed, "gradients from outside their layer")
            self._forget()
        return True

    def _give_up(self) -> None:
        """Leave out what the collector could not cover, or the collector itself."""
        assert self._collector is not None
        if self._collector.failure:
            self._drop(self._collector.failure)
        elif self._in_vain >= IN_VAIN:
            self._drop("its updates cannot be split into examples or micro-batches of one size")
        elif self._collector.refused:
            self._left_out |= self._collector.refused
            self._forget()

    def _drop(self, reason: str) -> None:
        """This way of measuring is not for this training."""
        assert self._collector is not None
        self._failed[self._collector.method] = reason
        self._forget()

    def _forget(self) -> None:
        self._collector, self._looked_for = None, None
        self._pairs, self._unread = [], []

    def _split(self, measured: Sequence[_Measured]) -> list[Pair]:
        norms = [x for m in measured for x in (m.found.small_sq, m.found.big_sq)]
        values = iter(gradients.numbers(norms))
        pairs = []
        for one in measured:
            small_sq, big_sq = (next(values) / one.loss_scale**2 for _ in range(2))
            squares = Squares(small_sq, big_sq, one.found.small, one.found.big)
            pairs.append(pair(squares, self.population))
        return pairs
