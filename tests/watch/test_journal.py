"""The file of a watched training: killed, torn, damaged, resumed, on a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields

import pytest

from batchlab import _platform
from batchlab.errors import ResultError
from batchlab.watch import About, Ending, read
from batchlab.watch.journal import NAME, Journal, write_provenance
from batchlab.watch.record import (
    FORMAT,
    KINDS,
    BatchSize,
    Checkpoint,
    End,
    MetricPoint,
    Moment,
    Note,
    Start,
    gathered,
)
from tests.watch.test_noise import Pair, block


def axes(updates, seconds=None):
    seconds = float(updates) if seconds is None else seconds
    return {"samples": 4 * updates, "updates": updates, "seconds": seconds, "money": None}


def start(updates=0, seconds=None, **changes):
    what = {
        "format": FORMAT, "at": "", "device": "cpu", "world_size": 1, "optimizer": "SGD",
        "sgd": True, "parameters": 3, "price_per_hour": None, "currency": "USD",
        "memory_limit": None, "memory_source": "",
    }  # fmt: skip
    return Start(**axes(updates, seconds), **(what | changes))


def moment(updates, seconds=None, **changes):
    what = {
        "loss": 1.0, "diverged": None, "waiting": 0.0, "working": 1.0, "memory": None,
        "micro_batch_size": 4, "accumulation": 1,
    }  # fmt: skip
    return Moment(**axes(updates, seconds), **(what | changes))


def write(folder, lines, resume=False):
    journal = Journal(folder, resume)
    for line in lines:
        journal.append(line)
    journal.close()
    return journal


EVERY = [
    start(),
    moment(2, loss=float("nan"), memory=5),
    MetricPoint(**axes(2), name="正解率", value=float("inf"), maximise=True),
    block([Pair(1.0, 2.0), Pair(2.0, 3.0)]),
    Checkpoint(**axes(2), step=2),
    Note(**axes(2), about=About.COUNTS, text="assumed"),
    End(**axes(3), ending=Ending.FINISHED),
]


def test_every_kind_of_line_is_read_as_it_was_written(tmp_path):
    write(tmp_path, EVERY)
    assert {type(line) for line in EVERY} == set(KINDS.values())
    assert repr(read(tmp_path)) == repr(gathered(EVERY))


def test_a_line_is_one_flat_object_with_its_kind(tmp_path):
    write(tmp_path, EVERY)
    for line, text in zip(EVERY, (tmp_path / NAME).read_text("utf-8").splitlines(), strict=True):
        plain = json.loads(text)
        assert list(plain) == ["kind", *(f.name for f in fields(line))]
        nested = {name for name, value in plain.items() if isinstance(value, dict | list)}
        assert nested <= {"settings"}


@pytest.mark.parametrize("torn", ['{"kind": "mom', "\u0000", '{"kind": "moment"}'])
def test_a_last_line_that_was_not_finished_is_left_out(tmp_path, torn):
    write(tmp_path, EVERY)
    with open(tmp_path / NAME, "a", encoding="utf-8") as file:
        file.write(torn)
    assert repr(read(tmp_path)) == repr(gathered(EVERY))


def test_every_cut_leaves_the_lines_before_it(tmp_path):
    write(tmp_path, EVERY)
    whole = (tmp_path / NAME).read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole), 5):
        (tmp_path / NAME).write_bytes(whole[:cut])
        count = whole[:cut].count(b"\n")
        assert repr(read(tmp_path)) == repr(gathered(EVERY[:count]))


def test_a_resume_after_a_torn_line_goes_on_behind_the_whole_ones(tmp_path):
    write(tmp_path, [start(), moment(1)])
    with open(tmp_path / NAME, "a", encoding="utf-8") as file:
        file.write('{"kind": "moment", "sam')
    journal = write(tmp_path, [start(1), moment(2)], resume=True)
    assert [m.updates for m in journal.before.moments] == [1]
    assert [m.updates for m in read(tmp_path).moments] == [1, 2]


def test_a_resume_of_a_file_torn_in_its_first_line_begins_anew(tmp_path):
    (tmp_path / NAME).write_text('{"kind": "sta', "utf-8")
    journal = write(tmp_path, [start()], resume=True)
    assert journal.before is None
    assert len(read(tmp_path).starts) == 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "no line was written to its end"),
        ('{"kind": "moment"}\n', r"line 1 is damaged"),
        ('{"kind": "dream", "samples": 1}\n', r"line 1 is damaged \('dream'\)"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path, content, match):
    (tmp_path / NAME).write_text(content, "utf-8")
    with pytest.raises(ResultError, match=match):
        read(tmp_path)


def test_a_file_that_does_not_begin_with_a_start_is_refused(tmp_path):
    write(tmp_path, [moment(1)])
    with pytest.raises(ResultError, match="line 1 is no start"):
        read(tmp_path)


def test_a_newer_format_is_refused(tmp_path):
    write(tmp_path, [start(format=FORMAT + 1)])
    with pytest.raises(ResultError, match="its format, 2, is newer than 1"):
        read(tmp_path)


def test_a_directory_without_a_watched_training_is_refused(tmp_path):
    with pytest.raises(ResultError, match=r"holds no watched training \(watch.jsonl is missing\)"):
        read(tmp_path)


def test_a_full_disk_ends_the_record_and_not_the_training(tmp_path):
    journal = Journal(tmp_path, resume=False)
    journal.append(start())
    os.close(journal._file.fileno())
    with pytest.warns(RuntimeWarning, match="cannot be written any more"):
        journal.append(moment(1))
    journal.append(moment(2))
    journal.close()
    assert len(read(tmp_path).starts) == 1


# -- what lines tell together ---------------------------------------------------------------------


def test_a_start_takes_back_what_was_trained_again():
    lines = [start(), moment(2), moment(4), End(**axes(5), ending=Ending.STOPPED)]
    found = gathered([*lines, start(2, seconds=6.0), moment(3, seconds=7.0)])
    assert [m.updates for m in found.moments] == [2, 3]
    assert found.end is None
    assert found.last.seconds == 7.0


def test_the_batch_is_that_of_the_second_half():
    early = [moment(i, micro_batch_size=8) for i in (1, 2, 3)]
    late = [moment(i, accumulation=2) for i in (5, 6)]
    assert gathered([start(world_size=3), *early, *late]).batch == BatchSize(4, 2, 3)


def test_the_first_diverged_update_is_found():
    lines = [start(), moment(2), moment(4, diverged=3), moment(6, diverged=5)]
    assert gathered(lines).diverged == 3


# -- killed ---------------------------------------------------------------------------------------

TRAINING = """
import sys, torch
from batchlab.watch import Watch, loop
loop.SHORTEST["cpu"] = 0.0
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Watch(sys.argv[1], model, optimizer, price_per_hour=1.0) as watching:
    while True:
        for batch in watching.data(torch.ones(50, 4, 3).unbind()):
            loss = model(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            watching.loss(loss)
"""


def test_a_killed_training_can_be_read_and_resumed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", TRAINING, str(tmp_path)])
    try:
        path = tmp_path / NAME
        while process.poll() is None and not (path.exists() and path.stat().st_size > 3000):
            time.sleep(0.01)
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = read(tmp_path)
    assert found.end is None
    assert len(found.moments) > 3
    assert found.last.samples == 4 * found.last.updates
    journal = Journal(tmp_path, resume=True)
    assert journal.before.last.samples == found.last.samples
    journal.close()


def test_a_directory_in_use_by_another_process_is_refused(tmp_path):
    hold = "import sys, pathlib; from batchlab import _platform\n"
    hold += "with _platform.DirectoryLock(pathlib.Path(sys.argv[1])):\n"
    hold += "    print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    try:
        with pytest.raises(ResultError, match="is in use by another run"):
            Journal(tmp_path, resume=False)
    finally:
        process.communicate(b"")


def test_provenance_names_versions_and_machine(tmp_path):
    write_provenance(tmp_path, "cpu")
    facts = json.loads((tmp_path / "provenance.json").read_text("utf-8"))
    assert facts["batchlab"] == _platform.version()
    assert {"torch", "python", "system", "processor", "device"} < set(facts)
