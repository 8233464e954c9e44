"""The notebook in examples/: committed as it ran, and it runs again; what a notebook shows."""

import copy
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import batchlab
import batchlab.app.compare
from batchlab import progress
from batchlab.advisor.assemble import _params
from batchlab.advisor.journal import parse_seconds
from batchlab.app.advice import Advice
from batchlab.config import RunConfig
from batchlab.engine import Trace
from batchlab.progress import InNotebook, Quiet, Shown, listening, seconds_left, usual
from tests.engine import tiny
from tests.report import sample

PATH = Path(__file__).parents[1] / "examples" / "notebook.ipynb"
LARGEST = 60_000
"""Bytes of the committed notebook."""
SHORTER = {
    '"6ep"': '"1ep"',
    "6 * prep": "1 * prep",
    "seeds=3": "seeds=2",
    "n_trials=3": "n_trials=1",
}


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(PATH, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shortened(source):
    for old, new in SHORTER.items():
        source = source.replace(old, new)
    return source


# ------------------------------------------------------------------ the file


def test_the_committed_notebook_was_run_from_top_to_bottom(notebook):
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == list(
        range(1, 1 + len(code(notebook)))
    )
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {
        "display_data",
        "execute_result",
        "stream",
    }
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_the_committed_notebook_is_small(notebook):
    assert PATH.stat().st_size < LARGEST


def test_every_shortening_is_of_something_that_is_there(notebook):
    whole = "\n".join(cell.source for cell in code(notebook))
    assert [old for old in SHORTER if old not in whole] == []


@pytest.mark.parametrize(
    "shown",
    ["Change|Keep|Probably", "At equal samples", "trials; the best", "Validation loss of 4"],
)
def test_the_committed_notebook_shows_its_results(notebook, shown):
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    texts = [str(output.get("text") or output.data.get("text/html")) for output in outputs]
    assert any(re.search(shown, text) for text in texts)


def test_progress_is_one_line_of_the_committed_notebook(notebook):
    for name in ("batchlab.advise(", "batchlab.compare("):
        (cell,) = [cell for cell in code(notebook) if name in cell.source]
        lines = [o for o in cell.outputs if o.output_type == "display_data"]
        assert re.fullmatch(r"batchlab: done after \d+ s", lines[0].data["text/plain"])
        assert len(lines) == 1


def test_the_committed_advice_kept_its_budget_and_is_a_page_of_today(notebook):
    (cell,) = [cell for cell in code(notebook) if "batchlab.advise(" in cell.source]
    (budget,) = re.findall(r'budget="(\w+)"', cell.source)
    line, screen = cell.outputs
    (taken,) = re.findall(r"done after (\d+) s", line.data["text/plain"])
    assert int(taken) <= parse_seconds(budget)
    assert "".join(screen.data["text/html"]).endswith("</p></div>")


# ------------------------------------------------------------------ its code


def test_the_code_of_the_notebook_runs(notebook, tmp_path, monkeypatch, capsys):
    """Shortened, in this process, advice and page left out: the slow test makes them."""
    made = sample.change(params=_params(sample.BEST))
    monkeypatch.setattr(batchlab, "advise", lambda task, **given: Advice.of(made))
    module = sys.modules["batchlab.app.compare"]
    monkeypatch.setattr(module.measured, "compare_page", lambda report: "")
    monkeypatch.setattr(module, "BLOCK_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)
    program = "\n\n".join(shortened(cell.source) for cell in code(notebook))
    exec(compile(program, "cells", "exec"), names := {"__name__": "__main__"})
    assert names["study"].trials[-1].params == {"batch_size": 64, "learning_rate": 0.2}
    assert "trials; the best" in capsys.readouterr().out
    assert (tmp_path / "grid" / "compare.json").is_file()


WORKERS = """\
kept = [recipe.replace(samples="1ep") for recipe in recipes]
there = batchlab.train(prepared, kept, Job((0, 1275)), workers=2, executor="loop")
here = batchlab.train(prepared, kept, Job((0, 1275)), workers=0, executor="loop")
assert [r.final("loss") for r in there.runs] == [r.final("loss") for r in here.runs]
print([r.status for r in there.runs])"""


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel_and_its_factory_in_worker_processes(notebook, tmp_path):
    fresh = copy.deepcopy(notebook)
    for cell in fresh.cells:
        cell.source = shortened(cell.source)
    fresh.cells.append(nbformat.v4.new_code_cell(WORKERS))
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(fresh, timeout=600, kernel_name="python3", resources=where).execute()
    assert fresh.cells[-1].outputs[0]["text"].count("ok") == 4
    asked = next(cell for cell in fresh.cells if "batchlab.advise(" in cell.source)
    assert [output.output_type for output in asked.outputs] == ["display_data", "execute_result"]


# ------------------------------------------------------------------ what results show


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("name", sample.ALL)
def test_an_advice_is_its_first_screen(name, language):
    made = Advice.of(sample.ALL[name](sample.USD)).html(language)
    assert made.startswith(f'<div lang="{language}"><p><strong>')
    assert made.count("<p") == 4
    assert "['" not in made
    assert made.endswith("</p></div>")
    assert "<script" not in made
    assert len(made) < 6000


def test_the_words_of_a_user_are_escaped():
    made = Advice.of(sample.change(at_least={}, metric=sample.MetricInfo("<b>x", True)))
    assert "&lt;b&gt;x" in made.html("en")
    assert "<b>" not in made.html("en")


def test_text_beside_the_page_is_ten_lines():
    advice = Advice.of(sample.change())
    bundle = advice._repr_mimebundle_()
    assert bundle["text/plain"].count("\n") == 10
    assert bundle["text/html"] == advice._repr_html_()


def trace(rate, gamma=None):
    run = RunConfig(rule="sgd", batch_size=8, learning_rate=rate, samples=128, gamma=gamma)
    kept = tiny.ready(baseline=run)
    return tiny.trained(kept, [run.resolved(64)], asked=tiny.job(128))[0]


def test_a_trace_is_a_picture_and_a_table():
    made = trace(0.1)._repr_html_()
    assert made.count("<polyline") == 1
    assert "stroke-dasharray" not in made
    assert "<td" in made
    assert Trace(())._repr_html_().count("<svg") == 0


def test_a_trace_names_the_feature_strength_where_there_is_one():
    made = trace(0.1, gamma=3.0)._repr_html_()
    assert "learning rate 0.1, γ 3" in made
    assert ">γ</th>" in made
    assert "γ" not in trace(0.1)._repr_html_()


def test_a_diverged_run_is_dashed():
    made = trace(1e300)._repr_html_()
    assert "┄ diverged" in made
    assert ">diverged</td>" in made


# ------------------------------------------------------------------ the line of progress


class Cell:
    """Keeps what would stand below a cell."""

    def __init__(self):
        self.shown = []

    def display(self, bundle, raw, display_id):
        assert raw
        assert display_id
        self.shown.append(bundle["text/plain"])
        return self

    def update(self, bundle, raw):
        self.shown[-1] = bundle["text/plain"]


@pytest.fixture
def cell(monkeypatch):
    below = Cell()
    monkeypatch.setattr(progress.importlib, "import_module", lambda name: below)
    return below


def test_in_a_notebook_progress_is_one_line(cell):
    with InNotebook(budget=60) as line:
        line.progress("searching", 0.0)
        assert cell.shown == ["batchlab: searching · 0 s of about 60 s"]
        line.progress("confirming", 0.5)
        line.say("a remark")
        assert "0 s left in this step" in cell.shown[0]
    assert cell.shown == ["batchlab: done after 0 s"]


def test_in_a_notebook_an_error_is_not_called_done(cell):
    with pytest.raises(KeyboardInterrupt), InNotebook():
        raise KeyboardInterrupt
    assert cell.shown == ["batchlab: stopped after 0 s"]


def test_the_time_left_follows_the_pace():
    assert [seconds_left(10, share) for share in (0, 0.5, 1)] == [None, 10, 0]


def test_progress_is_shown_where_somebody_watches(monkeypatch, cell):
    assert type(usual()) is Quiet
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(usual()) is Shown
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    assert type(usual()) is InNotebook


def test_a_listener_that_was_given_is_the_one(monkeypatch, cell):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    given = Quiet()
    with listening(given) as hears:
        assert hears is given
    assert cell.shown == []
    with listening(None):
        pass
    assert len(cell.shown) == 1


def test_this_is_no_notebook():
    assert not progress.in_notebook()
