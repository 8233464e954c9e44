"""Waiting for data beside a queue that works on its own, with a queue made by hand."""

import pytest
import torch

from batchlab.watch.clock import KEPT, LEAST, Laps, Waiting, idle, marks

CPU = torch.device("cpu")


class Queue:
    """A device that works through a queue, on the host's clock plus an offset of its own."""

    def __init__(self, clock, offset=500.0):
        self.clock, self.offset, self.drained = clock, offset, 0.0

    def work(self, seconds):
        """Enqueue; the host does not wait."""
        self.drained = max(self.drained, self.clock()) + seconds

    def mark(self):
        return Mark(self, max(self.drained, self.clock()))


class Mark:
    """A mark that the queue comes to at some time."""

    def __init__(self, queue, at):
        self.queue, self.at = queue, at + queue.offset

    def record(self):
        raise AssertionError("marks are recorded when made")

    def synchronize(self):
        self.queue.clock.now = max(self.queue.clock.now, self.at - self.queue.offset)

    def elapsed_time(self, end_event):
        return 1000 * (end_event.at - self.at)


def waited(clock, *, loads, works, batches=4):
    """A loop whose host only enqueues work."""
    queue = Queue(clock)
    waiting = Waiting(CPU, mark=queue.mark)
    for _ in range(batches):
        waiting.enter()
        clock.pass_(loads)
        waiting.leave()
        queue.work(works)
    return waiting.seconds()


def test_loading_hidden_behind_the_queue_is_no_waiting(clock):
    assert waited(clock, loads=1.0, works=3.0) == pytest.approx(1.0)


def test_waiting_counts_from_when_the_queue_is_empty(clock):
    assert waited(clock, loads=3.0, works=1.0) == pytest.approx(3.0 + 3 * 2.0)


def test_without_a_queue_all_loading_is_waiting(clock):
    waiting = Waiting(CPU)
    for _ in range(4):
        waiting.enter()
        clock.pass_(1.5)
        waiting.leave()
        clock.pass_(3.0)
    assert waiting.seconds() == pytest.approx(6.0)


def test_waiting_that_ends_without_a_batch_does_not_count(clock):
    waiting = Waiting(CPU)
    waiting.enter()
    clock.pass_(1.5)
    waiting.enter()
    clock.pass_(1.0)
    waiting.leave()
    assert waiting.seconds() == pytest.approx(1.0)


def test_reading_in_between_changes_nothing(clock):
    queue = Queue(clock)
    waiting = Waiting(CPU, mark=queue.mark)
    for _ in range(4):
        waiting.enter()
        clock.pass_(3.0)
        waiting.leave()
        queue.work(1.0)
        waiting.seconds()
    assert waiting.seconds() == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("drained", "seconds"), [(0.0, 2.0), (1.0, 2.0), (2.5, 0.5), (3.0, 0.0), (9.0, 0.0)]
)
def test_a_queue_is_idle_from_when_it_ran_empty(drained, seconds):
    assert idle(1.0, 3.0, drained) == seconds


def test_the_processor_has_no_queue():
    assert marks(CPU) is None


def laps_of(queue, measured, seconds):
    laps = Laps(CPU, mark=queue.mark)
    for is_measured, each in zip(measured, seconds, strict=True):
        laps.begin(is_measured)
        queue.work(each)
        laps.end(is_measured)
    return laps.longer()


def test_measured_updates_are_longer_by_the_difference_of_medians(clock):
    measured = [False, True] * LEAST
    seconds = [1.0, 1.5] * (LEAST - 1) + [9.0, 9.0]
    assert laps_of(Queue(clock), measured, seconds) == pytest.approx(0.5)


def test_too_few_measured_updates_say_nothing(clock):
    measured = [False, True] * (LEAST - 1)
    assert laps_of(Queue(clock), measured, [1.0, 1.5] * (LEAST - 1)) == 0.0


def test_measured_updates_that_were_shorter_cost_nothing(clock):
    assert laps_of(Queue(clock), [False, True] * LEAST, [1.0, 0.5] * LEAST) == 0.0


def test_no_more_updates_are_timed_than_are_compared(clock):
    """A measured one is timed however many there were; a reading begins anew."""
    queue, made = Queue(clock), []
    laps = Laps(CPU, mark=lambda: made.append(queue.mark()) or made[-1])
    for _ in range(2):
        made.clear()
        for is_measured in [*[False] * (3 * KEPT), *[True] * LEAST]:
            laps.begin(is_measured)
            queue.work(1.5 if is_measured else 1.0)
            laps.end(is_measured)
        assert len(made) == 2 * (KEPT + LEAST)
        assert laps.longer() == pytest.approx(0.5)


@pytest.mark.gpu
def test_a_gpu_that_is_busy_is_not_waiting():
    device = torch.device("cuda")
    x = torch.randn(4096, 4096, device=device)
    waiting = Waiting(device)
    waiting.enter()
    waiting.leave()
    before = waiting.seconds()
    for _ in range(50):
        x = torch.nn.functional.normalize(x @ x)
    waiting.enter()
    waiting.leave()
    assert waiting.seconds() - before < 1e-3
