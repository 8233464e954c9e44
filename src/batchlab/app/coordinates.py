"""``coordinates``: train networks of several widths for a few updates, write it down, draw it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from batchlab import _platform, _random
from batchlab.advisor.session import Listener
from batchlab.app.advise import _refuse_torchrun, default_out
from batchlab.app.measure import _rate, _today, origin, write
from batchlab.config import DEFAULT_RULE, RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, must, reason
from batchlab.measure.coordinates import EXAMPLES, measure_coordinates
from batchlab.models.cnn import FourLayerCNN
from batchlab.models.mlp import MLP
from batchlab.models.parametrization import rate_multiples
from batchlab.models.resnet import ResNet
from batchlab.models.transformer import VisionTransformer
from batchlab.progress import listening
from batchlab.report import measured
from batchlab.report.coordinates import CoordinatesReport
from batchlab.report.findings import setting_of
from batchlab.rules import Scales
from batchlab.tasks import Task, prepare
from batchlab.tasks.loading import load, module_of

RATE = 0.1
Make = Callable[[int], Any]
Rates = Callable[[nn.Module, str], Mapping[str, float]]
"""(model, rule) → a parameter's name → multiple of the learning rate."""


def _mlp(width: int, parametrization: str) -> nn.Module:
    return MLP(64, (width, width), 10, parametrization=parametrization)


def _cnn(width: int, parametrization: str) -> nn.Module:
    return FourLayerCNN(1, 8, width, 10, parametrization)


def _resnet(width: int, parametrization: str) -> nn.Module:
    return ResNet((1, 1), width, 10, 1, "layer", parametrization)


def _vit(width: int, parametrization: str) -> nn.Module:
    return VisionTransformer(1, 8, 4, width, parametrization=parametrization)


NETWORKS: dict[str, tuple[Callable[[int, str], nn.Module], tuple[int, ...]]] = {
    "mlp": (_mlp, (64, 128, 256, 512)),
    "cnn": (_cnn, (16, 32, 64, 128)),
    "resnet": (_resnet, (8, 16, 32, 64)),
    "vit": (_vit, (32, 64, 128, 256)),
}
"""Reference networks for the pictures of ``digits``, and the widths to try."""
WIDTHS = (64, 128, 256, 512)


def coordinate_check(
    make: Make | str,
    data: Any = None,
    *,
    loss: Callable[..., Any] | None = None,
    forward: Callable[..., Any] | None = None,
    widths: Sequence[int] | None = None,
    updates: int = 4,
    seeds: int = 5,
    rule: str | None = None,
    learning_rate: float | None = None,
    rates: Rates | None = None,
    parametrization: str | None = None,
    examples: int = EXAMPLES,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    listener: Listener | None = None,
) -> CoordinatesReport:
    """Check how far each layer of a network moves in a few updates, against its width.

    Where no layer's change depends on the width, a learning rate tuned on a narrow network holds
    for a wide one.

    Args:
        make: Width → your model, with ``data`` and ``loss``; or width → a :class:`Task`, whose
            recipe and groups of parameters may depend on the width; or ``file.py:function`` of
            such a function; or ``mlp``, ``cnn``, ``resnet`` or ``vit``, a reference network on
            ``digits``.
        data: Training data of your model, as a :class:`Task` takes it.
        loss: Its loss, ``(outputs, batch) → [B]``, one number per example.
        forward: ``(model, batch) → outputs``, where it is not ``model(batch[0])``.
        widths: Two or more; 64, 128, 256 and 512 if left out, less for convolutions.
        updates: On one and the same batch.
        seeds: Starts of each width, at least 2; 5 or more give a useful range.
        rule: Update rule; the task's, else SGD.
        learning_rate: The same for every width; the task's, else 0.1.
        rates: (model, rule) → multiples of the learning rate by a parameter's name, such as
            :func:`batchlab.models.parametrization.rate_multiples`.
        parametrization: Of a reference network: ``standard`` or ``mean-field``, which has the
            rates that belong to it.
        examples: Of the batch.
        out: Folder for ``coordinates.json`` and ``coordinates.html``; by default
            ``batchlab-results/coordinates-<task>``.
        seed: The first seed.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        listener: Hears progress.

    Returns:
        A record whose ``str`` is a table.

    Raises:
        UserError: With one sentence about what is wrong.

    Source:
        yang2022, appendix D.1.
    """
    began = time.perf_counter()
    _refuse_torchrun()
    usual, tries = _maker(make, data, loss, forward, parametrization)
    if parametrization == "mean-field" and rates is None:
        rates = rate_multiples
    changed = {"rule": rule, "learning_rate": learning_rate}
    kept = {name: value for name, value in changed.items() if value is not None}
    own = functools.partial(_with_recipe, usual, kept, rates)
    sizes = tries if widths is None else tuple(widths)
    if not sizes:
        raise InvalidValueError(must("widths", "two or more different whole numbers", [*sizes]))
    prepared = prepare(own(min(sizes)), device=device)
    folder = Path(out) if out is not None else default_out("coordinates", prepared.task)
    with listening(listener) as hears, _platform.DirectoryLock(folder):
        found = measure_coordinates(
            own,
            sizes,
            updates=updates,
            seeds=range(seed, seed + seeds),
            examples=examples,
            device=device,
            progress=lambda share: hears.progress("training networks of every width", share),
        )
        report = CoordinatesReport(
            prepared.task.name,
            setting_of(prepared.baseline, "today", _today(prepared), _rate(prepared)),
            prepared.examples,
            found,
            origin(prepared, "coordinates", folder, time.perf_counter() - began, seed),
        )
        write(folder / "coordinates.json", report)
        _platform.write_whole(folder / "coordinates.html", measured.coordinates_page(report))
    return report


def _maker(
    make: Make | str, data: Any, loss: Any, forward: Any, parametrization: str | None
) -> tuple[Callable[[int], Task], tuple[int, ...]]:
    """Width → task, and the widths to try."""
    if isinstance(make, str) and make in NETWORKS:
        network, tries = NETWORKS[make]
        kind = parametrization or "standard"
        return functools.partial(_reference, make, network, kind), tries
    if parametrization is not None:
        hint = f"It belongs to {', '.join(NETWORKS)}."
        words = "left out for a network of your own"
        raise InvalidValueError(must("parametrization", words, parametrization, hint))
    named = make if isinstance(make, str) else getattr(make, "__name__", "network")
    function = _function(make) if isinstance(make, str) else make
    if not callable(function):
        got = type(function).__name__
        raise InvalidTypeError(must("make", "a function from a width to a model", got))
    return functools.partial(_task, function, named, data, loss, forward), WIDTHS


def _reference(
    name: str, network: Callable[[int, str], nn.Module], parametrization: str, width: int
) -> Task:
    """A reference network on the digits."""
    task = load("digits")
    model = functools.partial(network, width, parametrization)
    recipe = RunConfig(rule="sgd", learning_rate=RATE, batch_size=EXAMPLES, samples="1ep")
    return replace(task, model=model, baseline=recipe, name=f"{name}-{parametrization}")


def _function(name: str) -> Any:
    """The function that a name stands for."""
    module_name, _, function_name = name.rpartition(":")
    if not module_name:
        hint = f"Known networks: {', '.join(NETWORKS)}. Your own: path/to/file.py:function."
        raise TaskError(must("TASK", "a network's name or file.py:function", name, hint))
    module, _ = module_of(module_name)
    if not hasattr(module, function_name):
        raise TaskError(must("TASK", f"a function in `{module_name}`", function_name))
    return getattr(module, function_name)


def _task(make: Make, name: str, data: Any, loss: Any, forward: Any, width: int) -> Task:
    """What the user's function makes at a width, as a task."""
    try:
        with _random.seeded(0, "coordinates", width):
            made = make(width)
    except TypeError as error:
        hint = "Let it take the width as its one argument."
        raise TaskError(f"`make({width})` raised {reason(error)}. {hint}") from error
    except Exception as error:  # the user's own code may raise anything
        raise TaskError(f"`make({width})` raised {reason(error)}.") from error
    if isinstance(made, Task):
        return made
    if not isinstance(made, nn.Module):
        got = type(made).__name__
        raise InvalidTypeError(must("make", "a function to a torch.nn.Module or a Task", got))
    for given, value in (("data", data), ("loss", loss)):
        if value is None:
            raise InvalidValueError(must(given, "given with a function that makes a model", None))
    model = functools.partial(make, width)
    recipe = RunConfig(rule="sgd", learning_rate=RATE, samples="1ep")
    return Task(model, data, loss=loss, forward=forward, baseline=recipe, name=name)


def _with_recipe(
    usual: Callable[[int], Task],
    changed: Mapping[str, Any],
    rates: Rates | None,
    width: int,
) -> Task:
    """The task of a width with another recipe, and the rates of its parameters."""
    task = usual(width)
    recipe = task.baseline.replace(**changed)
    if rates is None:
        return replace(task, baseline=recipe)
    with _random.seeded(0, "coordinates", width):
        multiples = rates(task.model(), recipe.rule or DEFAULT_RULE)
    groups = {name: Scales(learning_rate=value) for name, value in multiples.items()}
    return replace(task, baseline=recipe, groups=groups)
