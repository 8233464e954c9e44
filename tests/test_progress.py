"""What a long measurement shows."""

from __future__ import annotations

import re

import pytest

from batchlab.advisor.advise import Notes
from batchlab.progress import Quiet, Shown


def test_each_step_is_one_plain_line_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Shown(budget=90) as shown:
        for share in (0.0, 0.5, 1.0):
            shown.progress("searching", share)
        shown.progress("confirming", 0.0)
        shown.say("one sentence")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^ *0 s of about 90 s  ", "", line) for line in lines] == [
        "searching",
        "confirming",
        "one sentence",
    ]


def test_without_a_budget_only_the_time_so_far_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Shown() as shown:
        shown.progress("searching", 0.0)
    assert capsys.readouterr().err.split() == ["0", "s", "searching"]


def test_what_is_said_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder named like markup, or like an emoji."""
    with Shown() as shown:
        shown.progress("reading runs[v2]", 0.0)
        shown.say("runs[v2] and [/v2] and :warning:")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("reading runs[v2]")
    assert second == "runs[v2] and [/v2] and :warning:"


def test_on_a_terminal_the_line_shows_a_step_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Shown() as shown:
        shown.progress("reading runs[v2]", 0.0)
    assert "runs[v2]" in capsys.readouterr().err


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Quiet() as quiet:
        quiet.say("a")
        quiet.progress("b", 1.0)
    assert capsys.readouterr() == ("", "")


def test_the_stage_stands_before_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    with Shown() as shown:
        notes = Notes(shown)
        notes.stage = 2
        notes.progress("searching", 0.0)
        notes.say("kept")
    assert "stage 2 of 3: searching" in capsys.readouterr().err
    assert notes.sentences == ["kept"]


def test_over_a_pipe_a_long_step_says_every_half_minute_how_long_it_still_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call a second of a step that takes 200 s; the clock is a number."""
    clock = [0.0]
    monkeypatch.setattr("batchlab.progress.time.monotonic", lambda: clock[0])
    with Shown() as shown:
        for second in range(101):
            clock[0] = float(second)
            shown.progress("measuring", second / 200)
    lines = [line.split("  ")[-1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "measuring",
        "measuring: 15 %, about 170 s left in this step",
        "measuring: 30 %, about 140 s left in this step",
        "measuring: 45 %, about 110 s left in this step",
    ]
