"""Cells are measured once, wherever they run, and a damaged one again."""

import dataclasses

import pytest

from batchlab.errors import InvalidValueError, TaskError
from batchlab.progress import Quiet
from batchlab.studies.claim import Bench
from batchlab.studies.running import ROWS, measure
from tests.studies import made

QUICK = made.STUDY.parameters["quick"]


def run(out=None, workers=0, seed=0, **parameters):
    bench = Bench(seed=seed, out=out)
    return measure(made.STUDY, made.cells({**QUICK, **parameters}), bench, workers=workers)


def marks(out):
    """How often each finished cell was measured."""
    return [len(path.read_text()) for path in sorted(out.glob("cells/*/measured"))]


def test_a_table_has_the_rows_of_all_its_cells_with_their_settings():
    table = run()["draws"]
    assert table.columns == ["mean", "part", "n", "repetition", "value"]
    assert table["part"].to_list() == [0] * 8 + [1] * 8


def test_a_finished_cell_is_not_measured_again(tmp_path):
    first, second = run(tmp_path), run(tmp_path)
    assert marks(tmp_path) == [1, 1]
    assert first["draws"].equals(second["draws"])


def test_a_cell_that_was_damaged_is_set_aside_and_measured_again(tmp_path):
    first = run(tmp_path)
    damaged = next(tmp_path.glob(f"cells/*/{ROWS}"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(bytes(data))
    assert run(tmp_path)["draws"].equals(first["draws"])
    assert len(list(tmp_path.glob("cells/*.damaged1"))) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"mean": 2.0}])
def test_another_seed_or_setting_is_another_cell(tmp_path, change):
    first = run(tmp_path)
    assert not run(tmp_path, **change)["draws"]["value"].equals(first["draws"]["value"])
    assert marks(tmp_path) == [1, 1, 1, 1]


@pytest.mark.slow
def test_worker_processes_give_the_same(tmp_path):
    assert run(workers=2)["draws"].equals(run()["draws"])


def test_progress_ends_at_the_whole():
    told = []

    class Hears(Quiet):
        def progress(self, what, share):
            told.append(share)

    measure(made.STUDY, made.cells(QUICK), Bench(hears=Hears()), workers=0)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_what_a_cell_raises_becomes_one_sentence():
    words = r"Measuring `draws` \(mean = -200, part = 0, n = 8\) raised RuntimeError: the measure"
    with pytest.raises(TaskError, match=words):
        run(mean=-200)


def test_a_users_mistake_stays_its_own_sentence():
    with pytest.raises(InvalidValueError, match="100 at most"):
        run(mean=200)


def test_a_cell_without_rows_is_refused():
    empty = dataclasses.replace(made.STUDY, measure=lambda cell, bench: [])
    with pytest.raises(TaskError, match="gave no rows"):
        measure(empty, made.cells(QUICK), Bench(), workers=0)


def test_the_text_of_a_users_file_is_part_of_a_cells_name(tmp_path):
    file = tmp_path / "study.py"
    for text in ("a = 1", "a = 2"):
        file.write_text(text)
        bench = Bench(out=tmp_path / "out")
        measure(made.STUDY, made.cells(QUICK), bench, workers=0, origin=str(file))
    assert marks(tmp_path / "out") == [1, 1, 1, 1]
