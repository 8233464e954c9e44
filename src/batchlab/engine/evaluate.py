"""Validation loss and metric of one run, or of R runs at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree

from batchlab import _random, _tree
from batchlab._memory import give_back, if_it_fits
from batchlab.errors import TaskError
from batchlab.tasks import Metric
from batchlab.tasks.source import Source
from batchlab.tasks.task import METRICS, target_of
from batchlab.types import Tree

EVALUATION_BATCH = 256

Predict: TypeAlias = Callable[[Tree], tuple[Tree, Tensor, Tensor]]
"""``batch → (outputs, Σwℓ, Σw)`` of one run (sums of shape ``[]``) or of R runs (``[R]``)."""


class Evaluator:
    """The validation batches, ready on the device, and the metric.

    Where memory runs out the batches become half as large, from then on: what fits in training
    need not fit 256 at a time.

    Args:
        source: Where the examples come from; kept on the device if it is in memory.
        metric: Sees all predictions at once; where batches cannot be joined, only the loss is
            there.
        device: Where the model is.
        dtype: Of the floating-point leaves.
        batch_size: Examples read at a time, at first.
    """

    def __init__(
        self,
        source: Source,
        metric: Metric,
        device: str,
        dtype: torch.dtype,
        batch_size: int = EVALUATION_BATCH,
    ) -> None:
        self._source, self._metric, self._device, self._dtype = source, metric, device, dtype
        self._batch_size = min(batch_size, max(1, source.examples))
        self._kept = list(self._read()) if source.in_memory else None
        self._whole = _joined(self._kept, "batches") if self._kept and metric.function else None

    def _read(self) -> Iterator[Tree]:
        for start in range(0, self._source.examples, self._batch_size):
            index = torch.arange(start, min(start + self._batch_size, self._source.examples))
            with _random.seeded(0, "evaluation", start):
                batch = self._source.batch(index)
            yield _tree.to(batch, self._device, self._dtype)

    def batches(self) -> Iterable[Tree]:
        """The batches in order, on the device."""
        return self._kept if self._kept is not None else self._read()

    def __call__(self, predict: Predict) -> list[dict[str, float]]:
        """Evaluate; what the model draws at random is the same every time.

        Args:
            predict: Of one run or of R.

        Returns:
            One ``{"loss": …, "metric": …}`` per run.
        """
        found = self._all(predict)
        while found is None:
            self._batch_size = -(-self._batch_size // 2)
            self._kept = None
            give_back(self._device)
            self._kept = list(self._read()) if self._source.in_memory else None
            found = self._all(predict)
        sums, weights, outputs, batches = zip(*found, strict=True)
        loss = torch.stack(sums).sum(0) / torch.stack(weights).sum(0)
        losses = loss.reshape(-1).tolist()
        if self._metric.function is None:
            return [{"loss": value, "metric": value} for value in losses]
        whole = self._whole if self._whole is not None else _joined(list(batches), "batches")
        return [
            {"loss": value, "metric": self._score([_run(o, r, loss.ndim) for o in outputs], whole)}
            for r, value in enumerate(losses)
        ]

    def _all(self, predict: Predict) -> list[tuple[Tensor, Tensor, Tree, Tree]] | None:
        """Of every batch; None where memory ran out and smaller ones are possible."""

        def whole() -> list[tuple[Tensor, Tensor, Tree, Tree]]:
            with _random.seeded(0, "evaluation"):
                return [self._one(predict, batch) for batch in self.batches()]

        return if_it_fits(whole, last=self._batch_size == 1)

    def _one(self, predict: Predict, batch: Tree) -> tuple[Tensor, Tensor, Tree, Tree]:
        """Σwℓ, Σw, and what the metric needs, of one batch."""
        outputs, loss_sum, weight = predict(batch)
        needed = self._metric.function is not None
        outputs, batch = (_on_cpu(outputs), self._seen(batch)) if needed else ((), ())
        return loss_sum.double(), weight.double(), outputs, batch

    def _seen(self, batch: Tree) -> Tree:
        """What the metric looks at: of data that are read, the targets if it needs no more."""
        if self._source.in_memory or self._metric not in METRICS.values():
            return batch
        return {"target": target_of(batch).cpu()}

    def _score(self, outputs: list[Tree], whole: Tree) -> float:
        """The metric; NaN where the predictions hold NaN, or infinity that the metric refuses."""
        assert self._metric.function is not None
        joined = _joined(outputs, "outputs")
        floats = [leaf for leaf in _tensors(joined) if leaf.is_floating_point()]
        if any(bool(leaf.isnan().any()) for leaf in floats):
            return float("nan")
        try:
            with _random.seeded(0, "metric"):
                return float(self._metric.function(joined, whole))
        except Exception as error:  # the user's own code may raise anything
            if any(bool(leaf.isinf().any()) for leaf in floats):
                return float("nan")
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise TaskError(f"The metric `{self._metric.name}` raised {reason}") from error


def _run(outputs: Tree, run: int, axes: int) -> Tree:
    """One run's outputs; the R axis is there only if the losses have it."""
    return _tree.map_leaves(lambda leaf: leaf[run], outputs) if axes else outputs


def _tensors(tree: Tree) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _on_cpu(outputs: Tree) -> Tree:
    """Predictions for the metric: on the CPU, in float32 at least; what is no tensor stays."""

    def move(leaf: object) -> object:
        if not isinstance(leaf, Tensor):
            return leaf
        floats = leaf.is_floating_point()
        wide = torch.promote_types(leaf.dtype, torch.float32) if floats else leaf.dtype
        return leaf.detach().to("cpu", wide)

    return _pytree.tree_map(move, outputs)


def _joined(parts: list[Tree], what: str) -> Tree:
    """All batches, or all outputs, as one on the CPU."""

    def join(first: object, *others: object) -> object:
        if not isinstance(first, Tensor):
            return first
        return torch.cat([first, *others]).cpu()  # pyright: ignore[reportArgumentType]

    try:
        return _pytree.tree_map(join, *parts)
    except (RuntimeError, ValueError, TypeError) as error:
        raise TaskError(
            f"The metric looks at all predictions at once, but the validation {what} cannot be "
            f"joined: {str(error).splitlines()[0]}. Let `collate` pad every batch to one length, "
            "or use metric='loss'."
        ) from error
