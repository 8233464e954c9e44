"""Measure which batch size, learning rate and schedule to use for your own PyTorch model.

Everything public stands in the table below. A name's module is loaded when the name is first
used, so that ``import batchlab`` costs next to nothing and needs no optional dependency.

Parts with a module of their own: :mod:`batchlab.optim` and :mod:`batchlab.data` for your own
training loop; :mod:`batchlab.lightning` and :mod:`batchlab.huggingface` for
an existing training; :mod:`batchlab.watch` to measure one while it runs;
:mod:`batchlab.rules`, :mod:`batchlab.schedules`, :mod:`batchlab.samplers` and
:mod:`batchlab.stats` to build on.

Example:
    >>> import batchlab
    >>> batchlab.RunConfig(rule="sgd", batch_size="0:8 20ep:16", samples="40ep").batch_size
    '0:8 20ep:16'
"""

import importlib
from typing import TYPE_CHECKING, Any

from batchlab.errors import missing

if TYPE_CHECKING:
    from batchlab.accumulation import Accumulator, windows
    from batchlab.advisor.record import Verdict
    from batchlab.app.advice import Advice
    from batchlab.app.advise import advise, render
    from batchlab.app.compare import compare
    from batchlab.app.coordinates import coordinate_check
    from batchlab.app.critical import critical
    from batchlab.app.measure import fit, noise
    from batchlab.app.plan import plan
    from batchlab.app.reuse import compare_reuse
    from batchlab.app.strength import compare_gammas
    from batchlab.app.study import study
    from batchlab.config import RunConfig
    from batchlab.engine import Trace, train
    from batchlab.finding import FoundBatchSize, find_batch_size
    from batchlab.measure.alignment import alignment
    from batchlab.measure.features import features
    from batchlab.measure.sharpness import Sharpness, sharpness
    from batchlab.measure.smoothness import rank_schedules
    from batchlab.measure.sparsity import sparsity
    from batchlab.models.feature_strength import FeatureStrength
    from batchlab.optuna import optuna_trials
    from batchlab.progress import Quiet
    from batchlab.schedules import batch_schedule, rate_schedule
    from batchlab.tasks import Metric, Task, load
    from batchlab.types import Estimate, Evidence, Status

    __version__: str

_HOMES = {
    "batchlab.accumulation": ("Accumulator", "windows"),
    "batchlab.advisor.record": ("Verdict",),
    "batchlab.app.advice": ("Advice",),
    "batchlab.app.advise": ("advise", "render"),
    "batchlab.app.compare": ("compare",),
    "batchlab.app.coordinates": ("coordinate_check",),
    "batchlab.app.critical": ("critical",),
    "batchlab.app.measure": ("fit", "noise"),
    "batchlab.app.plan": ("plan",),
    "batchlab.app.reuse": ("compare_reuse",),
    "batchlab.app.strength": ("compare_gammas",),
    "batchlab.app.study": ("study",),
    "batchlab.config": ("RunConfig",),
    "batchlab.engine": ("Trace", "train"),
    "batchlab.finding": ("FoundBatchSize", "find_batch_size"),
    "batchlab.measure.alignment": ("alignment",),
    "batchlab.measure.features": ("features",),
    "batchlab.measure.sharpness": ("Sharpness", "sharpness"),
    "batchlab.measure.smoothness": ("rank_schedules",),
    "batchlab.measure.sparsity": ("sparsity",),
    "batchlab.models.feature_strength": ("FeatureStrength",),
    "batchlab.optuna": ("optuna_trials",),
    "batchlab.progress": ("Quiet",),
    "batchlab.schedules": ("batch_schedule", "rate_schedule"),
    "batchlab.tasks": ("Metric", "Task", "load"),
    "batchlab.types": ("Estimate", "Evidence", "Status"),
}

_EXTRAS = {
    "advise": (
        *("PIL", "altair", "cloudpickle", "jinja2", "loky"),
        *("polars", "scipy", "sklearn", "vl_convert"),
    ),
    "optuna": ("optuna",),
}

__all__ = [
    "Accumulator",
    "Advice",
    "Estimate",
    "Evidence",
    "FeatureStrength",
    "FoundBatchSize",
    "Metric",
    "Quiet",
    "RunConfig",
    "Sharpness",
    "Status",
    "Task",
    "Trace",
    "Verdict",
    "__version__",
    "advise",
    "alignment",
    "batch_schedule",
    "compare",
    "compare_gammas",
    "compare_reuse",
    "coordinate_check",
    "critical",
    "features",
    "find_batch_size",
    "fit",
    "load",
    "noise",
    "optuna_trials",
    "plan",
    "rank_schedules",
    "rate_schedule",
    "render",
    "sharpness",
    "sparsity",
    "study",
    "train",
    "windows",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _load("batchlab._platform").version()
    if name == "theory":
        return _load("batchlab.theory")
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'batchlab' has no attribute {name!r}")
    return getattr(_load(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _load(module: str) -> Any:
    """Import a part; an absent optional dependency becomes the line that installs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        absent = (error.name or "").partition(".")[0]
        extra = next((extra for extra, names in _EXTRAS.items() if absent in names), None)
        if extra is None:
            raise
        raise missing(extra, absent) from error
