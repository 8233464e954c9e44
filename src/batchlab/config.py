"""One training run and sets of them, as frozen records."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

from batchlab import rules, schedules
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.models.feature_strength import checked_gamma

PRECISIONS = ("float32", "bfloat16", "float64")
DEFAULT_RULE = "shb"
DEFAULT_BATCH_SIZE = 32
DEFAULT_EPOCHS = "10ep"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run.

    The four fields that decide most, ``rule``, ``batch_size``, ``learning_rate`` and ``samples``,
    may be left out of a task's baseline; :meth:`resolved` fills them in and :meth:`assumptions`
    says so.

    Attributes:
        rule: Update rule, a name in :data:`batchlab.rules.RULES`. Left out: ``shb``, PyTorch's SGD
            with momentum.
        batch_size: Global batch size in examples, or a schedule such as ``"0:8 20ep:16"``. Left
            out: 32.
        learning_rate: Peak step size; its meaning is the rule's. Left out: 0.1 for the SGD family
            (0.01 with momentum), 0.001 for the others.
        samples: Budget in fresh examples, or text such as ``"20ep"`` or ``"50k"``. Left out: 10
            epochs.
        momentum: β in [0, 1); Adam's β₁. Left out: 0.9, or 0 for ``sgd`` and ``rmsprop``; ``sgd``
            has none.
        nu: QHM's ν in [0, 1]: 0 is SGD, 1 is NSHB.
        beta2: Decay of the second moment (Adam, RMSprop's α), in [0, 1).
        eps: Added to the root of the second moment.
        weight_decay: λ ≥ 0, 1/update.
        lr_schedule: Multiplier of the learning rate over the share of the budget, such as
            ``"cosine"``.
        rate_growth: Power p ≥ 0 with which the learning rate follows a schedule of batch sizes:
            it is multiplied by (B/B₀)ᵖ, B₀ being the first size. 0 keeps it, ½ follows the square
            root, 1 is linear.
        warmup: Share of the budget over which the learning rate rises linearly from 0, in [0, 1).
        clip_norm: Largest gradient norm, or None.
        precision: ``float32``, ``bfloat16`` (autocast) or ``float64``.
        reuse: Updates on each fetched batch, at least 1.
        micro_batch_size: Examples of one forward pass at most: larger batches are accumulated, as
            where they would not fit into memory. Left out: whole batches.
        seed: Names the initialisation, the order of the examples and every other draw.
        gamma: Feature-learning strength γ > 0: the model is trained as (f_θ − f_θ₀)/γ, see
            :class:`batchlab.FeatureStrength`. Left out: the model as it is.

    Example:
        >>> run = RunConfig(learning_rate=0.05, samples="2ep").resolved(examples=100)
        >>> run.samples, run.rule, run.momentum
        (200, 'shb', 0.9)
    """

    rule: str | None = None
    batch_size: int | str | None = None
    learning_rate: float | None = None
    samples: int | str | None = None
    momentum: float | None = None
    nu: float = 0.7
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    lr_schedule: str = "constant"
    rate_growth: float = 0.0
    warmup: float = 0.0
    clip_norm: float | None = None
    precision: str = "float32"
    reuse: int = 1
    micro_batch_size: int | None = None
    seed: int = 0
    gamma: float | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_names(self)

    def resolved(self, examples: int) -> RunConfig:
        """The same run with every open field filled in and the budget in samples.

        Args:
            examples: Training examples N, at least 1.

        Returns:
            A run whose ``rule``, ``batch_size``, ``learning_rate``, ``momentum`` and ``samples``
            are set.

        Example:
            >>> RunConfig(rule="adam").resolved(examples=50).learning_rate
            0.001
        """
        rule = self.rule or DEFAULT_RULE
        momentum = self.momentum if self.momentum is not None else _default_momentum(rule)
        rate = self.learning_rate
        if rate is None:
            rate = (0.01 if momentum else 0.1) if rules.is_sgd_family(rule) else 0.001
        batch_size = DEFAULT_BATCH_SIZE if self.batch_size is None else self.batch_size
        samples = DEFAULT_EPOCHS if self.samples is None else self.samples
        return dataclasses.replace(
            self,
            rule=rule,
            momentum=momentum,
            learning_rate=float(rate),
            batch_size=batch_size,
            samples=schedules.amount(samples, examples=examples, name="samples"),
        )

    def assumptions(self) -> tuple[str, ...]:
        """One sentence for each decisive field that was left out.

        Example:
            >>> RunConfig(rule="sgd", learning_rate=0.1, samples="1ep").assumptions()
            ('the baseline names no batch_size: 32 is assumed',)
        """
        full = self.resolved(examples=1)
        names = ("rule", "batch_size", "learning_rate")
        said = [
            f"the baseline names no {name}: {getattr(full, name)} is assumed"
            for name in names
            if getattr(self, name) is None
        ]
        if self.samples is None:
            said.append("the baseline names no samples: 10 epochs are assumed")
        if self.momentum is None and self.rule not in (None, "sgd") and full.momentum:
            meaning = " (β₁)" if self.rule in ("adam", "adamw") else ""
            said.append(f"the baseline names no momentum{meaning}: {full.momentum} is assumed")
        return tuple(said)

    @property
    def largest_batch(self) -> int:
        """Examples of the largest batch, of a resolved run."""
        assert self.batch_size is not None
        return max(schedules.batch_schedule(self.batch_size).sizes)

    @property
    def largest_pass(self) -> int:
        """Examples of the largest forward pass, of a resolved run.

        Example:
            >>> RunConfig(batch_size="0:8 1ep:32", micro_batch_size=16).largest_pass
            16
        """
        return min(self.largest_batch, self.micro_batch_size or self.largest_batch)

    @property
    def accumulates(self) -> bool:
        """Whether a batch of a resolved run takes several forward passes."""
        return self.largest_pass < self.largest_batch

    def multiplier(self, examples: int) -> Callable[[int], float]:
        """The learning rate of a batch as a share of ``learning_rate``.

        m(s) = schedule(s/S) · (B(s)/B(0))ᵖ with the budget S in samples and p = ``rate_growth``.

        Args:
            examples: Training examples N, at least 1.

        Returns:
            First sample s of a batch → m(s), 0 or more. Of a resolved run only.

        Source:
            umeda2024 for a rate that grows with the batch.

        Example:
            >>> run = RunConfig(batch_size="0:8 1ep:32", rate_growth=0.5, samples="2ep")
            >>> share = run.resolved(examples=100).multiplier(examples=100)
            >>> share(0), share(99), share(100)
            (1.0, 1.0, 2.0)
        """
        rate = schedules.rate_schedule(self.lr_schedule, warmup=self.warmup)
        samples, power = self.samples, self.rate_growth
        assert isinstance(samples, int)
        assert self.batch_size is not None
        if not power:
            return lambda sample: rate(sample / samples)
        sizes = schedules.batch_schedule(self.batch_size).resolve(examples)
        return lambda sample: rate(sample / samples) * (sizes.at(sample) / sizes.at(0)) ** power

    def replace(self, **changes: object) -> RunConfig:
        """A copy with some fields changed.

        Example:
            >>> RunConfig(seed=1).replace(seed=2).seed
            2
        """
        return dataclasses.replace(self, **changes)  # pyright: ignore[reportArgumentType]

    def fingerprint(self) -> str:
        """Short hash that names this run.

        Example:
            >>> RunConfig(seed=1).fingerprint() == RunConfig(seed=2).fingerprint()
            False
        """
        fields = dataclasses.asdict(self)
        if self.gamma is None:  # a run without γ keeps the name it had before there was one
            del fields["gamma"]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _default_momentum(rule: str) -> float:
    return 0.0 if rule in ("sgd", "rmsprop") else 0.9


def _check_numbers(run: RunConfig) -> None:
    """Ranges of every numeric field."""
    rate = run.learning_rate
    if rate is not None and not (_is_number(rate) and 0 <= rate < math.inf):
        raise InvalidValueError(must("learning_rate", "a finite number, 0 or more", rate))
    for name in ("momentum", "beta2", "warmup"):
        value = getattr(run, name)
        if value is not None and not (_is_number(value) and 0 <= value < 1):
            raise InvalidValueError(must(name, "in [0, 1)", value))
    if not (_is_number(run.nu) and 0 <= run.nu <= 1):
        raise InvalidValueError(must("nu", "in [0, 1]", run.nu))
    for name in ("weight_decay", "eps", "rate_growth"):
        value = getattr(run, name)
        if not (_is_number(value) and 0 <= value < math.inf):
            raise InvalidValueError(must(name, "a finite number, 0 or more", value))
    if run.clip_norm is not None and not (_is_number(run.clip_norm) and run.clip_norm > 0):
        raise InvalidValueError(must("clip_norm", "above 0, or None", run.clip_norm))
    if run.gamma is not None:
        checked_gamma(run.gamma)
    micro = () if run.micro_batch_size is None else (("micro_batch_size", 1),)
    for name, least in (("reuse", 1), ("seed", 0), *micro):
        value = getattr(run, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidValueError(must(name, f"a whole number, {least} or more", value))


def _check_names(run: RunConfig) -> None:
    """Fields that are one of a list, or text to be parsed."""
    if run.rule is not None and run.rule not in rules.RULES:
        raise InvalidValueError(must("rule", f"one of {', '.join(rules.RULES)}", run.rule))
    if run.rule == "sgd" and run.momentum:
        hint = "PyTorch's SGD with momentum is rule='shb'."
        raise InvalidValueError(must("momentum", "0 for the rule sgd", run.momentum, hint))
    if run.precision not in PRECISIONS:
        words = f"one of {', '.join(PRECISIONS)}"
        raise InvalidValueError(must("precision", words, run.precision))
    if run.batch_size is not None:
        schedules.batch_schedule(run.batch_size)
    if run.samples is not None:
        schedules.amount(run.samples, examples=1, name="samples")
    if not isinstance(run.lr_schedule, str):
        raise InvalidTypeError(must("lr_schedule", "text such as 'cosine'", run.lr_schedule))
    schedules.rate_schedule(run.lr_schedule, warmup=run.warmup)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
