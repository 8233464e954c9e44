"""``batchlab exponents``: the words in both languages, JSON, and what is refused."""

import json

import pytest
from rich.cells import cell_len

from batchlab import cli
from batchlab.app.exponents import combination, plain, told
from batchlab.theory import _quadrature, exponents


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Fewer points: the words are the same."""
    monkeypatch.setattr(_quadrature, "SOBOL_POINTS", 2**14)
    monkeypatch.setattr(_quadrature, "PANELS", {1: (400, 8), 2: (20, 8), 3: (6, 6)})


def ran(capsys, *arguments):
    """(exit code, stdout, stderr) of ``batchlab exponents``."""
    code = 0
    try:
        cli.main(["exponents", *arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err


def test_the_hidden_cube_is_explained(capsys):
    code, out, err = ran(capsys, "tanh(He1(z1)+He3(z2))", "--language", "en")
    words = " ".join(out.split())
    assert (code, err) == (0, "")
    assert "information exponent 1 leap exponent 1 generative exponent 1" in words
    assert "One pass learns 0.768 z1 − 0.641 z2 in O(1) steps." in words
    assert "without a staircase, only re-use of the batch learns 0.641 z1 + 0.768 z2." in words
    assert "through degree 2 of what is known" in words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("He3(z)", "SGD needs of order d^2 examples"),
        ("He2(z)", "SGD needs of order d log d examples"),
        ("z1*z2", "does not help in O(1) steps: the target is even, so that E[z | y] = 0."),
        ("sign(z1*z2*z3)", "E[z | y] is not told from 0 (<"),
        ("z**2", "even"),
        ("z1**2 + z2", "The label is even in z1, which no number of passes finds"),
        ("z1 + He3(z2)", "one pass learns z2 with a leap of 3. In O(1)"),
        ("tanh(z2)", "The label does not depend on z1."),
        ("z1 + z1*z2", "through degree 1 of what is known"),
        ("sin(5*z) + He2(z)/100", "degree 2: z (0.020 ± 2e-12) (in lower degrees < 1e-03)"),
        ("z", "Re-use of the batch learns no further direction in O(1) steps."),
    ],
)
def test_what_the_numbers_mean_is_said(capsys, text, said):
    out = ran(capsys, text, "--language", "en", "--degree", "3")[1]
    assert said in " ".join(out.split())


def test_what_is_not_reached_is_said(capsys):
    words = " ".join(ran(capsys, "He5(z)", "--degree", "3", "--language", "en")[1].split())
    assert "information exponent > 3" in words
    assert "not reached up to degree 3" in words
    assert "One pass learns nothing up to degree 3." in words


@pytest.mark.parametrize("text", ["He3(z)", "z1*z2", "z1 + z1*z2", "z1 + He3(z2)", "tanh(z2)"])
def test_japanese_says_as_much_as_english(text):
    found = exponents(text, 3)
    english, japanese = told(found, "en").splitlines(), told(found, "ja").splitlines()
    assert len(english) == len(japanese)
    assert "情報指数" in "".join(japanese)
    assert all(ord(letter) < 0x2E80 for letter in "".join(english))


def test_the_locale_chooses_the_language(capsys, monkeypatch):
    monkeypatch.setattr("batchlab._text.locale.getlocale", lambda: ("ja_JP", "UTF-8"))
    assert "情報指数" in ran(capsys, "z")[1]
    assert "情報指数" not in ran(capsys, "z", "--language", "en")[1]


@pytest.mark.parametrize("language", ["en", "ja"])
def test_eighty_columns_are_enough(capsys, monkeypatch, language):
    monkeypatch.setenv("COLUMNS", "80")
    out = ran(capsys, "z1 + z2*z3", "--language", language, "--degree", "3")[1]
    assert max(map(cell_len, out.splitlines())) <= 80


def test_json_holds_the_record_and_what_follows_from_it(capsys):
    code, out, _ = ran(capsys, "z1 + z1*z2", "--degree", "3", "--json")
    found = json.loads(out)
    assert code == 0
    assert found == json.loads(json.dumps(plain(exponents("z1 + z1*z2", 3))))
    assert (found["information"], found["leap"], found["generative"]) == (1, 1, 1)
    assert found["at_once"] == [[1, 0]]
    assert found["coefficients"][1]["bound"] < 1e-6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("exp(z**2)",), "`target` must be square integrable"),
        (("log(z)",), "`target` must be finite for every z"),
        (("7",), "`target` must be dependent on z"),
        (("q",), "in the variables z or z1 … z8"),
        (("z +",), "`target` must be an expression"),
        (("z", "--degree", "40"), "`degree` must be a whole number from 1 to 12"),
        (("z2", "--dimensions", "1"), "`dimensions` must be at least 2"),
    ],
)
def test_wrong_input_is_one_sentence_and_code_2(capsys, arguments, said):
    code, out, err = ran(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        ((1.0,), "z"),
        ((0.0, 1.0), "z2"),
        ((-0.6, 0.8), "−0.600 z1 + 0.800 z2"),
        ((0.8, 0.0, -0.6), "0.800 z1 − 0.600 z3"),
        ((1.0, 0.0004), "z1"),
    ],
)
def test_a_direction_is_a_sum_of_variables(vector, said):
    assert combination(vector) == said
