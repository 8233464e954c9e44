"""Several updates of a stack as one compiled program."""

from __future__ import annotations

import shutil
import sys
import warnings
import weakref
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree

from batchlab import _tree
from batchlab.engine.step import Program, Progress, make_step
from batchlab.rules import Numbers
from batchlab.tasks import Prepared
from batchlab.types import Tree


class Block(NamedTuple):
    """What K updates of S runs give.

    Attributes:
        progress: After them.
        losses: Training loss before each update.
        finite: Whether each update's loss and parameters are finite.
    """

    progress: Progress
    losses: Float[Tensor, "K S"]
    finite: Bool[Tensor, "K S"]


class Orders(NamedTuple):
    """Which examples and numbers K batches of S runs use.

    Attributes:
        index: Examples of each batch, shape ``[K, S, B]``.
        multiplier: Share of the peak learning rate.
        keys: Names of the dropout masks of the first of the batch's updates.
    """

    index: Int[Tensor, "K S B"]
    multiplier: Float[Tensor, "K S"]
    keys: Int[Tensor, "K S"]


Run: TypeAlias = Callable[[Progress, Numbers, Orders, Tree], Block]
"""``(progress, numbers, orders, data set) → Block``."""


KEPT = 4
"""Kinds of cells whose programs a process keeps for the next cell of the kind."""

Programs: TypeAlias = dict[tuple[int, ...], Run]
"""Compiled blocks by the shape of the batches' index, ``[K, S, B]``."""


def programs_of(prepared: Prepared, kind: Hashable) -> Programs:
    """The compiled blocks of one kind of cells of a task, which the cells before have left.

    On a GPU there are none: a program holds memory there, and ends with its stack.

    Args:
        prepared: The task.
        kind: All that a program depends on besides the task and the shapes.
    """
    return {} if prepared.device != "cpu" else _kept(_Only(prepared), kind)


class _Only:
    """Equal to what stands for the same object, as long as there is that object."""

    def __init__(self, thing: Prepared) -> None:
        self.thing, self._name = weakref.ref(thing), id(thing)

    def __hash__(self) -> int:
        return self._name

    def __eq__(self, other: object) -> bool:
        mine = self.thing()
        return isinstance(other, _Only) and mine is not None and other.thing() is mine


@lru_cache(maxsize=KEPT)
def _kept(task: _Only, kind: Hashable) -> Programs:
    return {}


def make_block(program: Program, reuse: int, dtype: torch.dtype) -> Run:
    """K batches, each used ``reuse`` times, gathered from the data set where they are used.

    Args:
        program: What the runs share.
        reuse: Updates on each batch.
        dtype: Of the floating-point leaves of a batch.
    """
    step = make_step(program, torch.vmap)

    def gathered(data: Tree, index: Tensor) -> Tree:
        return _tree.map_leaves(
            lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf,
            _tree.take(data, index),
        )

    def block(progress: Progress, numbers: Numbers, orders: Orders, data: Tree) -> Block:
        losses, finite = [], []
        for index, multiplier, keys in zip(*orders, strict=True):
            batch = gathered(data, index)
            scaled = numbers._replace(learning_rate=numbers.learning_rate * multiplier)
            for again in range(reuse):
                progress, loss, good = step(progress, scaled, batch, keys + again)
                losses.append(loss)
                finite.append(good)
            del batch  # or it would be there while the next one is gathered
        return Block(progress, torch.stack(losses), torch.stack(finite))

    return block


def _vector_products(a: Tensor, b: Tensor) -> Any:
    """Products of matrices with vectors as sums: the compiler then reads the data set where it
    multiplies, instead of gathering a batch and calling a library for each product.
    """
    if 1 not in (a.shape[1], a.shape[2], b.shape[2]):
        return NotImplemented
    return (a.unsqueeze(-1) * b.unsqueeze(1)).sum(2)


PLAIN = {torch.ops.aten.bmm.default: _vector_products}
"""How operations are written before they are compiled."""


def why_not_compiled(device: str) -> str:
    """Empty if this machine can compile for a device; otherwise what is missing."""
    if device != "cpu":
        return "" if device.startswith("cuda") else f"nothing is compiled for {device}"
    compiler = "cl" if sys.platform == "win32" else "g++"
    if shutil.which(compiler) or shutil.which("clang++"):
        return ""
    return f"there is no C++ compiler ({compiler})"


def compile_block(
    block: Run,
    progress: Progress,
    numbers: Numbers,
    orders: Orders,
    data: Tree,
    backend: str = "inductor",
) -> Run:
    """The same block, compiled for exactly these shapes.

    It is traced through vmap and autograd first and only then compiled, so that the compiler sees
    plain tensor operations. PyTorch keeps what it has compiled on disk, so that a second process
    starts from there.

    Args:
        block: Made by :func:`make_block`.
        progress: Of S runs.
        numbers: Likewise.
        orders: Of as many batches as one call is to train.
        data: The data set.
        backend: Of ``torch.compile``.

    Returns:
        A block for the same shapes; others are refused by an error of torch.
    """
    leaves, structure = _pytree.tree_flatten((progress, numbers, orders, data))
    made: list[Any] = []

    def flat(*inputs: Tensor) -> list[Tensor]:
        found = block(*_pytree.tree_unflatten(inputs, structure))
        out, shape = _pytree.tree_flatten(found)
        made.append(shape)
        return out

    mode = "reduce-overhead" if leaves[0].is_cuda and backend == "inductor" else None
    with torch.enable_grad():
        graph = make_fx(flat, decomposition_table=PLAIN)(*leaves)
    program = torch.compile(graph, fullgraph=True, dynamic=False, mode=mode, backend=backend)
    shape = made[0]

    def run(progress: Progress, numbers: Numbers, orders: Orders, data: Tree) -> Block:
        inputs = _pytree.tree_leaves((progress, numbers, orders, data))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Unable to hit fast path of CUDAGraphs.*")
            found = program(*inputs)
        if inputs[0].is_cuda:  # the graph's own memory is written over by the next call
            found = [leaf.clone() for leaf in found]
        return _pytree.tree_unflatten(found, shape)

    return run
