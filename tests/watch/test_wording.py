"""The sentence of every conclusion, in both languages."""

import re
from dataclasses import replace

import numpy as np
import pytest

from batchlab.watch import About, Checkpoint, Kind, Note, judge, sentence
from batchlab.watch.wording import _REASONS, _number, _percents, _reason_ja
from tests.watch.test_journal import axes, start
from tests.watch.test_noise import Pair, block
from tests.watch.test_verdict import GIB, gathered, gpu, training


def noisy(signal, spread, noise, **changes):
    """A noise scale with an interval, or only a bound."""
    rng = np.random.default_rng(0)
    pairs = [Pair(signal + spread * x, noise) for x in rng.standard_normal(16)]
    return replace(training(), noise=(replace(block(pairs), **axes(9), **changes),))


def without(text):
    return replace(training(), notes=(Note(**axes(3), about=About.NO_NOISE, text=text),))


CASES = {
    "no update": (gathered([start()]), Kind.NOTHING),
    "no batch": (
        replace(gathered([start()]), moments=(), checkpoints=(Checkpoint(**axes(3), step=3),)),
        Kind.NOTHING,
    ),
    "diverged": (training(100.0, diverged=7), Kind.DIVERGED),
    "loader": (training(4.0, waiting=0.5, begin=start(price_per_hour=720.0)), Kind.LOADER),
    "below": (noisy(1.0, 0.3, 100.0), Kind.BELOW),
    "bounded": (noisy(0.0, 1.0, 100.0), Kind.BELOW),
    "above": (noisy(1.0, 0.3, 0.5), Kind.ABOVE),
    "another family": (
        replace(noisy(1.0, 0.3, 100.0), starts=(start(sgd=False, optimizer="AdamW"),)),
        Kind.BELOW,
    ),
    "accumulated": (
        training(4.0, begin=start(memory_limit=80 * GIB), memory=10 * GIB, accumulation=3),
        Kind.MEMORY,
    ),
    "idle GPU": (training(begin=gpu(), memory=10 * GIB), Kind.MEMORY),
    "fine": (noisy(1.0, 0.3, 4.0), Kind.FINE),
    "a part": (noisy(1.0, 0.3, 4.0, covered=0.8), Kind.FINE),
    "too short": (training(), Kind.FINE),
    "no formula": (without("no formula for GRU"), Kind.FINE),
    "not resolved": (noisy(0.2, 1.0, 4.0), Kind.FINE),
    "below zero": (noisy(-3.0, 0.3, 4.0), Kind.FINE),
}
EVERY = [pytest.param(*case, id=name) for name, case in CASES.items()]


def both(watched):
    verdict = judge(watched)
    return sentence(verdict, "en"), sentence(verdict, "ja")


@pytest.mark.parametrize(("watched", "kind"), EVERY)
def test_the_case_is_the_one_it_is_made_for(watched, kind):
    assert judge(watched).kind is kind


def test_every_conclusion_has_a_case():
    assert {kind for _, kind in CASES.values()} == set(Kind)


@pytest.mark.parametrize(("watched", "kind"), EVERY)
def test_both_languages_tell_the_same_numbers(watched, kind):
    english, japanese = (sorted(re.findall(r"\d[\d,.]*\d|\d", text)) for text in both(watched))
    assert english == japanese


@pytest.mark.parametrize(("watched", "kind"), EVERY)
def test_every_sentence_says_how_far_it_is_tested(watched, kind):
    if kind is Kind.NOTHING:
        return
    english, japanese = both(watched)
    assert "screened" in english
    assert "下調べのみ" in japanese


@pytest.mark.parametrize(("watched", "kind"), EVERY)
def test_it_is_one_english_sentence(watched, kind):
    english, _ = both(watched)
    assert english.endswith(".")
    assert re.findall(r"[.?!] [A-Z]", english) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("diverged", "its loss was not finite at update 7 of 10"),
        ("loader", "50 % of the training time (90 % range 50 % to 50 %) went into waiting"),
        ("loader", "up to 2.0 times the speed (90 % range 2.0 to 2.0) and 1.00 USD of this run"),
        ("below", "The batch, 4 = 4 × 1 × 1, lies far below the noise scale, "),
        ("bounded", "which is not resolved but at least "),
        ("above", "lies far above the noise scale"),
        ("above", "fewer examples for "),
        ("another family", "for AdamW the formula gives the direction only"),
        ("accumulated", "the same batch, 12 = 4 × 3 × 1, takes 1 instead of 3 passes"),
        ("idle GPU", "micro-batches of 16 should fit, more than today's 4 = 4 × 1 × 1"),
        ("a part", "the noise scale of 80 % of the model"),
        ("too short", "too few updates were measured"),
        ("no formula", "the noise scale was not measured (no formula for GRU)"),
        ("not resolved", "the noise scale is not resolved, only that it is at least "),
        ("below zero", "cannot be judged: the noise scale is not resolved;"),
    ],
)
def test_what_matters_is_said(name, words):
    assert words in both(CASES[name][0])[0]


def test_an_amount_too_small_to_matter_is_left_out():
    english, _ = both(training(4.0, waiting=0.5, begin=start(price_per_hour=1.0)))
    assert "USD" not in english


@pytest.mark.parametrize("reason", ["no formula for GRU, LSTM", *list(_REASONS)[1:]])
def test_every_reason_is_said_in_japanese(reason):
    text = reason.replace(".+", "and so on")
    assert not re.search("[a-z]{4}", _reason_ja(text))
    assert _reason_ja(f"{text}; {text}").count("、") >= 1


def test_a_reason_nobody_foresaw_is_said_as_it_stands():
    assert _reason_ja("RuntimeError: strange") == "RuntimeError: strange"


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.0, "0"), (float("inf"), "∞"), (0.0123, "0.012"), (9.96, "10"), (1234.0, "1,200")],
)
def test_numbers_have_two_digits(value, written):
    assert _number(value).en == written


@pytest.mark.parametrize(
    ("shares", "written"),
    [
        ((0.3, 0.4, 0.5), "40 % (30–50 %)"),
        ((0.3, 0.3, 0.5), "30–50 %"),
        ((0.301, 0.302, 0.304), "30 %"),
    ],
)
def test_a_share_is_written_with_its_range(shares, written):
    assert _percents(*shares).en == written
