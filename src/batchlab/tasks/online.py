"""Data of which no example comes twice: drawn inputs, and pictures distorted anew each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.tasks import inputs as drawing
from batchlab.tasks.augment import Augmentation, augment
from batchlab.tasks.prepare import prepare, resolve_device
from batchlab.tasks.source import Source, Stacked
from batchlab.tasks.task import Task
from batchlab.theory import targets
from batchlab.theory.targets import Target
from batchlab.types import Tree

HELD_OUT = 4096


def squared_error(outputs: Float[Tensor, "B C"], batch: Tree) -> Float[Tensor, " B"]:
    """Mean over outputs of (f − y)², one number per example."""
    return (outputs - batch[1]).square().mean(-1)


def drawn_task(
    target: str | Target,
    model: Callable[[], nn.Module],
    *,
    features: int = 16,
    examples: int = 19_200,
    inputs: str = "gaussian",
    baseline: RunConfig | None = None,
    seed: int = 0,
) -> Task:
    """Labels y = f*(x₁, …, x_k) of the first k features of drawn inputs, each of them seen once.

    Args:
        target: f*, as :func:`batchlab.theory.targets.target` reads it; z1 is the first feature.
        model: Makes a network from ``features`` inputs to one output.
        features: d.
        examples: Of the training data: the samples of a run, which is one pass.
        inputs: As :func:`batchlab.tasks.inputs.draw` knows them.
        baseline: The recipe; plain SGD with batches of 64 if left out. Its length becomes one
            pass.
        seed: Names the data; a run's own seed, its start and its order.

    Returns:
        A task in float32 with squared error and 4,096 further examples for validation.

    Raises:
        InvalidValueError: If the target has more directions than there are features, or a name or
            number is not possible.

    Source:
        atanasov2025.

    Example:
        >>> from batchlab.models.mlp import mean_field_mlp
        >>> task = drawn_task("(z1 + z2*z3)/sqrt(2)", lambda: mean_field_mlp(16), examples=640)
        >>> [tuple(leaf.shape) for leaf in task.train], task.baseline.samples
        ([(640, 16), (640, 1)], '1ep')
    """
    known = targets.target(target)
    if known.dimensions > features:
        words = f"at least {known.dimensions}, the directions of the target"
        raise InvalidValueError(must("features", words, features))
    if examples < 1:
        raise InvalidValueError(must("examples", "1 or more", examples))
    rng = _random.generator(seed, "online inputs")
    x = drawing.draw(inputs, examples + HELD_OUT, features, rng)
    whole = x.float(), known(x[:, : known.dimensions]).float().unsqueeze(-1)
    recipe = baseline or RunConfig(rule="sgd", batch_size=64, learning_rate=0.1)
    return Task(
        model,
        train=tuple(leaf[:examples] for leaf in whole),
        validation=tuple(leaf[examples:] for leaf in whole),
        loss=squared_error,
        baseline=recipe.replace(samples="1ep"),
        name="online",
    )


@dataclass(frozen=True)
class Pictures:
    """Pictures by their place in a stream that never repeats one.

    Place p ≥ 0 is picture p mod n in its distortion p div n; place −1 − i is picture i as it is.

    Attributes:
        images: First the n training pictures, then others. Shape ``[N channels S S]``.
        count: n.
        how: Strengths of the distortions.
        seed: Names them.
    """

    images: Tensor
    count: int
    how: Augmentation
    seed: int

    def __call__(self, model: nn.Module, batch: Tree) -> Tree:
        """A task's ``forward``: render the batch's places and show them to the model."""
        like = next(model.parameters())
        return model(self.at(batch[0]).to(like.dtype))

    def at(self, places: Int[Tensor, " B"]) -> Float[Tensor, "B channels S S"]:
        """The pictures at some places, on the device of the places.

        Example:
            >>> pictures = Pictures(torch.rand(2, 1, 4, 4), 2, Augmentation(), seed=0)
            >>> torch.equal(pictures.at(torch.tensor([-1, -2])), pictures.images)
            True
        """
        distorted = places >= 0
        index = torch.where(distorted, places % self.count, -1 - places)
        plain = self.images[index.to(self.images.device)].to(places.device)
        # Half of the key's range, so that adding a place does not leave it.
        keys = (_random.key(self.seed, "augmentation") >> 1) + places
        made = augment(plain, keys, self.how)
        return torch.where(distorted[:, None, None, None], made, plain)


def augmented_task(
    task: Task,
    passes: int,
    how: Augmentation | None = None,
    *,
    seed: int = 0,
    device: str = "cpu",
) -> Task:
    """A task whose training pictures come distorted, differently each time.

    The training data are places in a stream of ``passes`` times as many pictures, rendered where
    the model is; validation and test pictures stay as they are. Each is a function of the seed and
    its place: the same for every batch size and executor, and after resuming.

    Args:
        task: Square pictures and labels in memory, without a ``forward`` of its own. Its loss and
            metric read labels only.
        passes: Distortions of each training picture; the recipe's length becomes one pass over
            them all.
        how: Strengths; moderate ones, without flips, if left out.
        seed: Names the distortions; a run's own seed, its start and its order.
        device: Where the undistorted pictures lie. Distortions are computed where the model is; on
            the same device no batch is copied to it.

    Returns:
        A task whose batches are ``(places, labels)``.

    Raises:
        InvalidValueError: If ``passes`` is below 1.
        TaskError: If the task does not hold pictures, or has a step or a forward of its own.

    Example:
        >>> from batchlab.tasks import load
        >>> task = augmented_task(load("digits"), passes=10)
        >>> len(task.train[0]), task.forward(task.model(), (torch.arange(3), None)).shape
        (12210, torch.Size([3, 10]))
    """
    if passes < 1:
        raise InvalidValueError(must("passes", "1 or more", passes))
    if task.forward is not None or task.training_step is not None:
        raise TaskError(must("task", "one without a forward or step of its own", task.name))
    ready = prepare(task, device="cpu")
    parts = [_pictures(one) for one in (ready.train, ready.validation, ready.test) if one]
    count = ready.train.examples
    starts = torch.tensor([0, *(len(images) for images, _ in parts)]).cumsum(0).tolist()
    held = [
        (-1 - torch.arange(start, start + len(labels)), labels)
        for start, (_, labels) in zip(starts[1:], parts[1:], strict=False)
    ]
    images = torch.cat([images for images, _ in parts]).to(resolve_device(device))
    return replace(
        task,
        train=(torch.arange(passes * count), torch.cat([parts[0][1]] * passes)),
        validation=held[0],
        test=held[1] if ready.test is not None else None,
        forward=Pictures(images, count, how or Augmentation(), seed),
        baseline=task.baseline.replace(samples="1ep"),
    )


def _pictures(source: Source) -> Sequence[Tensor]:
    """Pictures and labels of a source that holds nothing else."""
    tree = source.tree if isinstance(source, Stacked) else None
    if isinstance(tree, tuple | list) and len(tree) == 2 and tree[0].ndim == 4:
        if tree[0].is_floating_point() and tree[0].shape[-1] == tree[0].shape[-2]:
            return tree
    words = "square floating-point pictures [N channels S S] and labels, in memory"
    raise TaskError(must("train", words, type(tree).__name__))
