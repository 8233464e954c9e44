"""An advice of several processes: one trains, all time, and none waits for one that died."""

import pytest

from tests.together import together

SIZES = (2, 4)

BEGIN = """
import signal
from pathlib import Path
from torch import nn
from torch.nn.functional import cross_entropy
from batchlab.app.advise import advise
from batchlab.config import RunConfig
from batchlab.progress import Quiet
from batchlab.tasks import Task

FOLDER = Path(__file__).parent

def points(examples, seed):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, 5, generator=draw, dtype=torch.float64)
    noise = torch.randn(examples, generator=draw, dtype=torch.float64)
    return inputs, (inputs.sum(1) + noise > 0).long()

def loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")

def task(model=lambda: nn.Linear(5, 2), batch_size=8):
    recipe = RunConfig(rule="sgd", batch_size=batch_size, learning_rate=0.1, samples="4ep")
    return Task(model, points(128, 0), points(32, 1), loss=loss, name="tiny", baseline=recipe)

def failed(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""

PROGRAM = (
    BEGIN
    + """
options = {"device": "cpu", "listener": Quiet()}
advice = advise(task(), out=FOLDER / "out", **options)
FACTS["today"] = [advice.today.batch_size, advice.today.micro_batch_size,
                  advice.today.accum_steps, advice.today.world_size]
FACTS["candidates"] = [
    [s.batch_size, s.micro_batch_size * s.accum_steps * s.world_size, s.world_size]
    for s in (one.setting for one in advice.candidates)]
FACTS["said"] = list(advice.assumptions)
again = advise(task(), out=FOLDER / "out", **options)
FACTS["again"] = list(again.assumptions)
FACTS["uneven"] = failed(lambda: advise(task(batch_size=9), out=FOLDER / "no", **options))
FACTS["asked"] = failed(lambda: advise(task(), batch_sizes=(16, 15), out=FOLDER / "no", **options))

class FSDPModule(nn.Linear):
    pass

FACTS["sharded"] = failed(
    lambda: advise(task(lambda: FSDPModule(5, 2)), out=FOLDER / "no", **options))
"""
)

DECIDES = (
    BEGIN
    + """
from batchlab.advisor import session
from batchlab.measure import together
from batchlab.measure.throughput import Block

# Alone, an update takes as long as its examples; together, all take 1 s: only there they gain.
def alone(prepared, config, seconds, *, batch_size, start=0, **_):
    return Block(batch_size, 1, 0.01 * batch_size, 0.0, start)

def run(part, updates):
    return (0.0, 0.0) if part is None else (1.0 * updates, 0.0)

session.time_block, together._run = alone, run
advice = advise(task(), batch_sizes=(16, 32, 64), out=FOLDER / "out", device="cpu",
                listener=Quiet())
FACTS["seconds"] = {
    str(one.setting.batch_size): one.seconds_per_update.value for one in advice.candidates}
FACTS["source"] = sorted({one.seconds_per_update.source for one in advice.candidates})
FACTS["knee"] = advice.memory.knee if advice.memory else None
"""
)

KILLED = (
    BEGIN
    + """
class Dies(Quiet):
    def progress(self, what, share):
        os.kill(os.getpid(), signal.SIGKILL)

FACTS["said"] = failed(
    lambda: advise(task(), out=FOLDER / "out", device="cpu", listener=Dies()))
# The first process is gone, so there is nothing to leave in order.
print(json.dumps(FACTS), flush=True)
os._exit(0)
"""
)


@pytest.fixture(scope="module", params=SIZES)
def facts(request, tmp_path_factory):
    """(what so many processes found out, their folder)."""
    folder = tmp_path_factory.mktemp("advised")
    return together(PROGRAM, folder, request.param), folder


def agreed(facts, name):
    """What all processes say alike."""
    first, *others = [fact[name] for fact in facts[0]]
    assert all(other == first for other in others)
    return first


@pytest.mark.slow
def test_every_setting_is_micro_batch_times_accumulation_times_processes(facts):
    size = len(facts[0])
    assert agreed(facts, "today") == [8, 8 // size, 1, size]
    for batch, product, world in agreed(facts, "candidates"):
        assert product == batch
        assert world == size or batch % size


@pytest.mark.slow
def test_the_plan_holds_the_number_of_processes(facts):
    assert f'"world_size": {len(facts[0])}' in (facts[1] / "out" / "plan.json").read_text("utf-8")


@pytest.mark.slow
def test_an_advice_says_what_more_processes_gain_and_times_them_once(facts):
    said, size = agreed(facts, "said"), len(facts[0])
    assert any(f"{size} processes go through" in sentence for sentence in said)
    assert any(f"Of the {size} processes of this start one alone trained" in s for s in said)
    assert agreed(facts, "again") == said


@pytest.mark.slow
def test_a_batch_that_does_not_split_evenly_is_refused(facts):
    said = f"`batch_size` must be a multiple of the {len(facts[0])} processes; got"
    assert f"{said} 9" in agreed(facts, "uneven")
    assert f"{said} 15" in agreed(facts, "asked")


@pytest.mark.slow
def test_a_model_spread_over_the_processes_is_refused_by_name(facts):
    said = agreed(facts, "sharded")
    assert "`model` must be whole in every process; got 'FSDPModule'" in said


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_an_advice_decides_by_the_seconds_of_all_processes_together(tmp_path, size):
    first, *others = together(DECIDES, tmp_path, size)
    assert others == [first] * (size - 1)
    assert first["seconds"] == {"8": 1.0, "16": 1.0, "32": 1.0, "64": 1.0}
    assert first["source"] == ["processes together"]
    # By the seconds of one process, no batch size would be faster than 8.
    assert first["knee"] == 64


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_where_the_first_process_dies_the_others_end(tmp_path, size):
    _, *others = together(KILLED, tmp_path, size, killed=(0,))
    said = "LostError: The connection to another process of this start is lost"
    assert all(fact["said"].startswith(said) for fact in others)
