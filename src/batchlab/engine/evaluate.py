"""Validation loss and metric of one run, or of R runs at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from batchlab import _random, _tree
from batchlab.tasks import Metric
from batchlab.tasks.source import Source
from batchlab.types import Tree

EVALUATION_BATCH = 256


class Evaluator:
    """The validation batches, ready on the device, and the metric."""

    def __init__(
        self, source: Source, metric: Metric, device: str, dtype: torch.dtype, batch_size: int = EVALUATION_BATCH
    ) -> None:
        self._source, self._metric, self._device, self._dtype = source, metric, device, dtype
        self._batch_size = batch_size
        self._kept = list(self._read()) if source.in_memory else None
        # The metric sees the whole set at once; where batches cannot be joined (padding), only the loss is there.
        self._whole = _joined(self._kept) if self._kept and metric.function else None

    def _read(self) -> Any:
        for start in range(0, self._source.examples, self._batch_size):
            index = torch.arange(start, min(start + self._batch_size, self._source.examples))
            with _random.seeded(0, "evaluation", start):
                batch = self._source.batch(index)
            yield _tree.to(batch, self._device, self._dtype)

    def __call__(self, predict: Callable[[Tree], tuple[Tree, Tensor, Tensor]]) -> list[dict[str, float]]:
        """Evaluate.

        Args:
            predict: ``batch → (outputs, Σwℓ, Σw)`` of one run (sums of shape ``[]``) or of R (``[R]``).

        Returns:
            One ``{"loss": …, "metric": …}`` per run.
        """
        outputs, sums, weights, batches = [], [], [], []
        for batch in self._kept if self._kept is not None else self._read():
            predicted, loss_sum, weight = predict(batch)
            sums.append(loss_sum.double())
            weights.append(weight.double())
            if self._metric.function is not None:
                outputs.append(_tree.map_leaves(lambda leaf: leaf.detach().float().cpu(), predicted))
                batches.append(batch)
        loss = torch.stack(sums).sum(0) / torch.stack(weights).sum(0)
        if self._metric.function is None:
            return [{"loss": value, "metric": value} for value in loss.reshape(-1).tolist()]
        whole = self._whole if self._whole is not None else _joined(batches)
        return [
            {"loss": value, "metric": self._score([_run(o, r, loss.ndim) for o in outputs], whole)}
            for r, value in enumerate(loss.reshape(-1).tolist())
        ]

    def _score(self, outputs: list[Tree], whole: Tree) -> float:
        assert self._metric.function is not None
        joined = _tree.concatenate(outputs)
        if not all(bool(torch.isfinite(leaf).all()) for leaf in _tree.leaves(joined)):
            return float("nan")
        return float(self._metric.function(joined, whole))


def _run(outputs: Tree, run: int, axes: int) -> Tree:
    """One run's outputs; the R axis is there only if the losses have it."""
    return _tree.map_leaves(lambda leaf: leaf[run], outputs) if axes else outputs


def _joined(batches: list[Tree]) -> Tree:
    return _tree.to(_tree.concatenate(batches), "cpu")
