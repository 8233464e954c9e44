"""The search for the largest size that fits: pure, it knows neither memory nor models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from batchlab._platform import format_bytes
from batchlab.errors import InvalidValueError, must

CLOSE = 0.97
"""The search ends when what ran is at least this share of what might still fit."""
TRUSTED = 1.1
"""After one failure, a prediction up to this factor above it puts the answer just below it."""
FACTORS = (2, 8, 32, 128)
"""Largest growth from one trial that fits to the next. Ever faster: bisecting a ratio r takes
log₂ ln r trials, so a wide bracket costs little."""
MAX_TRIALS = 16


class Failure(StrEnum):
    """Why a size did not fit."""

    NONE = ""
    MEMORY = "memory"
    CRASH = "crash"
    TIME = "time"


@dataclass(frozen=True)
class Outcome:
    """What happened when a size was tried.

    Attributes:
        fits: Whether it ran to the end.
        bytes: Peak bytes, None if unknown.
        reason: Why not, in words.
        failure: Why not, by kind.
    """

    fits: bool
    bytes: int | None = None
    reason: str = ""
    failure: Failure = Failure.NONE


@dataclass(frozen=True)
class Found:
    """The end of a search.

    Attributes:
        largest: Largest size that ran within limit − margin, 0 if none did.
        bound_by: ``memory``, ``crash``, ``time``, ``cap`` or ``nothing fits``.
        trials: Size → outcome in the order of trying; ``fits`` is the verdict with the margin.
    """

    largest: int
    bound_by: str
    trials: dict[int, Outcome]


def find_largest(
    trial: Callable[[int], Outcome],
    *,
    max_size: int,
    start: int = 1,
    limit: int | None = None,
    margin: int = 0,
) -> Found:
    """Find the largest size that fits, by trying.

    Sizes grow while they fit; two measured sizes predict the next by a line (three by a parabola
    if it bends upwards), a failure is bisected on a logarithmic scale. A prediction only chooses
    what is tried next: what is returned has run. The cap itself is tried before it is returned.

    Args:
        trial: Runs a size and says whether it ran and how many bytes it took.
        max_size: Largest size that makes sense, at least 1.
        start: First size to try, in [1, max_size].
        limit: Bytes allowed, or None if only the trial itself knows.
        margin: Bytes to keep free below the limit.

    Returns:
        The largest size that ran within limit − margin and every trial. What might still fit is at
        most 3 % larger, if fitting is monotone in the size and bytes are nearly so.

    Raises:
        InvalidValueError: If the sizes or the margin are impossible.

    Example:
        >>> found = find_largest(lambda b: Outcome(True, 100 + 7 * b), max_size=9999, limit=1000)
        >>> found.largest, found.bound_by, list(found.trials)
        (128, 'memory', [1, 2, 16, 128, 132])
    """
    _check(max_size, start, limit, margin)
    allowed = None if limit is None else limit - margin
    trials: dict[int, Outcome] = {}
    size: int | None = start
    while size is not None and len(trials) < MAX_TRIALS:
        trials[size] = judged(trial(size), allowed)
        size = _next_size(trials, max_size, allowed)
    largest = max((s for s, outcome in trials.items() if outcome.fits), default=0)
    return Found(largest, _bound_by(trials, largest, max_size), trials)


def _check(max_size: int, start: int, limit: int | None, margin: int) -> None:
    if max_size < 1:
        raise InvalidValueError(must("max_size", "at least 1", max_size))
    if not 1 <= start <= max_size:
        raise InvalidValueError(must("start", f"from 1 to {max_size}", start))
    if margin < 0:
        raise InvalidValueError(must("margin", "0 bytes or more", margin))
    if limit is not None and limit <= margin:
        raise InvalidValueError(must("margin", f"below the limit of {limit} bytes", margin))


def judged(outcome: Outcome, allowed: int | None) -> Outcome:
    """A size that ran but took more bytes than allowed did not fit.

    Args:
        outcome: Of a trial.
        allowed: Bytes, or None if only the trial itself knows.

    Returns:
        The verdict.

    Example:
        >>> judged(Outcome(True, 3072), allowed=2048).reason
        'it took 3.0 KiB, 1.0 KiB more than allowed'
    """
    if not outcome.fits or allowed is None or outcome.bytes is None or outcome.bytes <= allowed:
        return outcome
    taken, over = format_bytes(outcome.bytes), format_bytes(outcome.bytes - allowed)
    reason = f"it took {taken}, {over} more than allowed"
    return Outcome(False, outcome.bytes, reason, Failure.MEMORY)


def _next_size(trials: dict[int, Outcome], max_size: int, allowed: int | None) -> int | None:
    """The size to try next, None when the search is over."""
    low = max((size for size, o in trials.items() if o.fits), default=0)
    high = min((size for size, o in trials.items() if not o.fits and size > low), default=None)
    if low == max_size or any(o.failure is Failure.TIME for o in trials.values()):
        return None
    known = sorted((size, o.bytes) for size, o in trials.items() if o.bytes is not None)
    if high is None:
        return _grow(low, len(trials), _predict(known, low, allowed), max_size)
    predicted = _predict([point for point in known if point[0] <= high], low, allowed)
    failures = sum(not outcome.fits for outcome in trials.values())
    if _is_slow(trials, low, high) or predicted > high * (TRUSTED if failures == 1 else 1.0):
        predicted = math.inf
    return _between(low, high, predicted)


def _grow(low: int, tried: int, predicted: float, max_size: int) -> int:
    """Upwards: to the prediction, no faster than FACTORS, never beyond the cap.

    Where the prediction says that nothing more fits, the size that proves it is tried.
    """
    factor = FACTORS[min(tried, len(FACTORS)) - 1]
    return min(max_size, max(_proof(low), int(min(predicted, low * factor))))


def _between(low: int, high: int, predicted: float) -> int | None:
    """Inside the bracket: near the prediction where it is sensible, else the geometric middle."""
    if (high - 1) * CLOSE <= low:
        return None
    sensible = low <= predicted < math.inf
    aim = predicted if sensible else math.sqrt(max(low, 1) * high)
    # Next to an end, the size that ends the search: by failing above low, by fitting below high.
    return min(max(min(int(aim), math.ceil((high - 1) * CLOSE)), _proof(low)), high - 1)


def _proof(low: int) -> int:
    """The size that ends the search if it fails: what is below it is close enough to ``low``."""
    return int(low / CLOSE) + 1


def _is_slow(trials: dict[int, Outcome], low: int, high: int) -> bool:
    """Whether the last trial left most of the bracket (on a log scale), so bisect now."""
    before = list(trials)[:-1]
    lows = [size for size in before if trials[size].fits]
    highs = [size for size in before if not trials[size].fits and size > low]
    if not highs:
        return False
    left = math.log(high / max(low, 1))
    return left > 0.6 * math.log(min(highs) / max(1, max(lows, default=1)))


def _predict(known: list[tuple[int, int]], low: int, allowed: int | None) -> float:
    """Where the last three points say the bytes reach what is allowed; infinite if they do not."""
    if allowed is None or len(known) < 2 or known[-1][0] < low:
        return math.inf
    return min(_line(known[-2], known[-1], allowed), _parabola(known[-3:], allowed))


def _line(first: tuple[int, int], last: tuple[int, int], allowed: int) -> float:
    """Solve the line through two points; a flat one near the end gives way to proportion."""
    (x, y), (u, v) = first, last
    if v <= y:
        return u * allowed / v if v > allowed / 4 else math.inf
    return u + (allowed - v) * (u - x) / (v - y)


def _parabola(points: list[tuple[int, int]], allowed: int) -> float:
    """Solve the parabola through three points; infinite unless it bends upwards."""
    if len(points) < 3:
        return math.inf
    (x, y), (u, v), (s, t) = points
    early, late = (v - y) / (u - x), (t - v) / (s - u)
    bend = (late - early) / (s - x)
    if bend <= 0 or early < 0:
        return math.inf
    slope = late + bend * (s - u)
    under = slope**2 + 4 * bend * (allowed - t)
    return s + (math.sqrt(under) - slope) / (2 * bend) if under >= 0 else math.inf


def _bound_by(trials: dict[int, Outcome], largest: int, max_size: int) -> str:
    if not largest:
        late = any(outcome.failure is Failure.TIME for outcome in trials.values())
        return "time" if late else "nothing fits"
    if largest == max_size:
        return "cap"
    failed = min((size for size, o in trials.items() if not o.fits and size > largest), default=0)
    return str(trials[failed].failure or Failure.MEMORY) if failed else "memory"
