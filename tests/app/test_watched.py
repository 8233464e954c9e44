"""``batchlab report`` on directories of watched trainings."""

import pytest
import torch
from torch import nn

import batchlab
from batchlab import cli
from batchlab.app import watched
from batchlab.watch import Watch, read
from tests.advisor.watched.made import write

PACES = (1.0, 1.1, 0.9)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three trainings of today's and three twice as fast, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for seed, pace in enumerate(PACES):
        write(tmp_path / f"today{seed}", seed=seed, pace=pace)
        write(tmp_path / f"big{seed}", seed=seed, pace=pace / 2, batch=64, rate=0.2)
    return [f"{kind}{seed}" for kind in ("today", "big") for seed in range(3)]


@pytest.fixture
def unrendered(monkeypatch):
    """No pictures are made: what is said is looked at."""
    monkeypatch.setattr(watched, "page", lambda found: "")
    monkeypatch.setattr(watched.report, "write", lambda advice, path: None)


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", *arguments])
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.count("\n") == 1
    return said


def test_one_training_is_reported_with_its_sentence(runs, capsys, tmp_path):
    cli.main(["report", runs[0]])
    told = capsys.readouterr().out
    assert "(screened)" in told.splitlines()[0]
    assert told.endswith("report: today0/report.html\n")
    assert (tmp_path / "today0" / "report.html").is_file()


def test_several_are_compared(runs, capsys):
    cli.main(["report", *runs, "--price-per-hour", "3600", "--currency", "EUR"])
    told = capsys.readouterr().out
    assert "Change two settings: batch size 32 → 64 and learning rate 0.1 → 0.2." in told
    assert "12.00 EUR" in told
    assert told.endswith("report: today0/comparison.html\n")


def test_the_sentence_counts_money_at_the_price_that_is_asked_about(
    tmp_path, monkeypatch, capsys, unrendered
):
    """Of 12 s of training 4.8 are waiting, at 1 yen a second."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "slow", price=2.5, waiting=0.4)
    cli.main(["report", "slow", "--price-per-hour", "3600", "--currency", "JPY"])
    first = capsys.readouterr().out.splitlines()[0]
    assert "4.80 JPY of this run's cost" in first
    assert "USD" not in first


def test_what_is_worth_a_change_is_the_users_to_say(runs, capsys, unrendered):
    cli.main(["report", *runs, "--worth", "3", "--target", "0.5"])
    assert "Change nothing." in capsys.readouterr().out


def test_python_makes_the_same_page(runs, tmp_path):
    page = batchlab.render(runs, out="page.html")
    assert "8 trainings" not in page.read_text("utf-8")
    assert "6 trainings of yours" in page.read_text("utf-8")


def test_python_names_the_command_of_the_next_step(runs, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(watched.report, "write", lambda advice, path: told.append(advice))
    monkeypatch.setattr(watched.report, "terminal", lambda advice: "")
    (tmp_path / "big0").rename(tmp_path / "a b")
    batchlab.render(["today0", "a b"])
    assert told[0].next_stage.command == "batchlab report today0 'a b'"


def test_mixed_directories_are_refused(runs, capsys, tmp_path):
    (tmp_path / "advice").mkdir()
    said = refused(capsys, runs[0], "advice")
    assert "`today0` holds a watched training, `advice` does not" in said


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (["--worth", "3"], "--worth: leave it out"),
        (["--metric", "f1", "--target", "0.5"], "--metric, --target: leave them out"),
        (["--target", "0"], "--target: leave it out"),
    ],
)
def test_an_advice_is_not_asked_what_only_watched_trainings_are(
    tmp_path, monkeypatch, capsys, asked, names
):
    (tmp_path / "advice").mkdir()
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "advice", *asked)
    assert "`advice` holds no watched training" in said
    assert names in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["today0", "today0"], "`DIR` must be named once"),
        (["today0", "--machine", "gpu"], "leave out --machine"),
        (["today0", "--worth", "0.5"], "`worth` must be a ratio above 1"),
        (["today0", "--price-per-hour", "-1"], "`price_per_hour` must be 0 or more"),
        (["today0", "big0", "--metric", "f1"], "no metric `f1`"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(runs, capsys, arguments, words):
    assert words in refused(capsys, *arguments)


def test_a_damaged_line_is_one_sentence(runs, capsys, tmp_path):
    (tmp_path / "today0" / "watch.jsonl").write_text("{}\n{}\n", "utf-8")
    assert "is damaged" in refused(capsys, "today0")


@pytest.mark.parametrize("learning_rate", ["1e-3 cosine", None])
def test_settings_that_are_no_numbers_do_not_stop_a_report(
    tmp_path, monkeypatch, capsys, learning_rate
):
    """Files written before such settings were refused hold them."""
    monkeypatch.chdir(tmp_path)
    odd = {"learning_rate": learning_rate, "momentum": "high", "accum_steps": "two"}
    for seed in range(2):
        write(tmp_path / f"odd{seed}", seed=seed, rate=None, settings=odd)
        write(tmp_path / f"big{seed}", seed=seed, rate=None, settings=odd, batch=64, pace=0.5)
    cli.main(["report", "odd0"])
    cli.main(["report", "odd0", "odd1", "big0", "big1"])
    assert "batch size 32 → 64" in capsys.readouterr().out


def test_a_training_that_is_killed_or_runs_is_reported(tmp_path, capsys, monkeypatch, unrendered):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "killed", ending=None, steps=5)
    with open(tmp_path / "killed" / "watch.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "mom')
    cli.main(["report", "killed"])
    assert "not ended: it runs, or was killed" in capsys.readouterr().out


def test_a_training_can_be_reported_while_it_runs(tmp_path, capsys, unrendered):
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = torch.randn(40, 8, 4, generator=torch.Generator().manual_seed(0)).unbind()
    with Watch(tmp_path / "run", model, optimizer, quiet=True, seed=3) as watching:
        for batch in watching.data(loader):
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watching.loss(loss)
        watching.record()
        cli.main(["report", str(tmp_path / "run")])
        assert "not ended" in capsys.readouterr().out
    assert read(tmp_path / "run").starts[0].seed == 3
