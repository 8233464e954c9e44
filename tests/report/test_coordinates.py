"""What ``coordinates`` says: the sentence for every outcome, the table, the picture, the page."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import vl_convert

from batchlab._text import plain
from batchlab.config import RunConfig
from batchlab.measure.coordinates import Coordinates, LayerSizes
from batchlab.report.charts.coordinates import coordinates
from batchlab.report.coordinates import CoordinatesReport, slope_text
from batchlab.report.findings import Origin, setting_of
from batchlab.report.measured import coordinates_page
from batchlab.types import Estimate, from_plain, to_plain

EVIL = "</script><img src=x onerror=alert(1)>"
WIDTHS, SEEDS = (8, 32, 128), (0, 1, 2)
ORIGIN = Origin(
    "batchlab coordinates demo", "2026-11-28T09:30:00+00:00", 12.0, "cpu", 2,
    ("something assumed",), {"batchlab": "0.1.0", "seed": "0"}, "results",
)  # fmt: skip


def layer(name, power, spread=0.0, updates=2):
    """Sizes that follow a power, whose seeds differ by a share of it."""
    powers = power + spread * np.array([-1.0, 0.0, 1.0])
    change = 0.1 * np.array(WIDTHS, float)[:, None] ** powers
    return LayerSizes.of(name, WIDTHS, np.stack([np.ones((3, 3)), *[change] * updates]))


def diverged(one, after):
    sizes = np.array(one.sizes)
    sizes[after + 1 :, -1, -1] = math.inf
    return LayerSizes.of(one.name, WIDTHS, sizes)


def report(*layers, task="demo"):
    config = RunConfig(rule="sgd", batch_size=32, learning_rate=0.1, samples=64).resolved(64)
    found = Coordinates(WIDTHS, SEEDS, 2, 32, 0.1, "sgd", layers)
    return CoordinatesReport(task, setting_of(config, "today", 32, 0.1), 64, found, ORIGIN)


EVERY = {
    "grows": report(layer("a", 0.0), layer("output", 1.0)),
    "shrinks": report(layer("a", -0.5), layer("output", 0.0)),
    "open": report(layer("a", 0.2, spread=0.2)),
    "flat": report(layer("a", 0.0), layer("output", 0.1)),
    "diverged later": report(diverged(layer("a", 0.0), 1)),
    "diverged": report(diverged(layer("a", 0.0), 0)),
}


@pytest.mark.parametrize(
    ("name", "says", "says_ja"),
    [
        ("grows", "the further it moves: the change of output grows like the width to the power "
         "1.00", "幅が広いほど大きく動きます：outputの変化は幅の1.00"),
        ("shrinks", "the less it moves: the change of a shrinks like the width to the power −0.50",
         "動かなくなります：aの変化は幅の−0.50"),
        ("open", "Not resolved: 3 seeds do not tell", "定まりません：シード3個"),
        ("flat", "No layer's change depends on the width", "どの層の変化も幅によりません"),
        ("diverged later", "No layer's change depends", "どの層の変化も"),
        ("diverged", "The first update already makes a network diverge", "最初の更新で発散する"),
    ],
)  # fmt: skip
def test_every_outcome_has_its_answer(name, says, says_ja):
    answer = EVERY[name].answer()
    assert says in plain(answer.en)
    assert says_ja in plain(answer.ja)


@pytest.mark.parametrize(
    ("power", "spread", "says"),
    [
        (0.5, 0.0, "the change of a grows like the width to the power 0.50 (0.50 to 0.50)"),
        (-1.0, 0.0, "the change of a shrinks like the width to the power −1.00"),
        (0.0, 0.0, "the change of a is independent of the width (power 0.00 (0.00 to 0.00))"),
        (0.3, 0.3, "whether the change of a depends on the width is not resolved (power 0.30"),
    ],
)
def test_every_layer_has_its_sentence(power, spread, says):
    one = layer("a", power, spread)
    assert says in plain(report(one).verdict(one).en)


def test_a_later_divergence_is_said():
    told = " ".join(plain(text.en) for text in EVERY["diverged later"].said())
    assert "A training diverged after update 1" in told
    assert "diverged" not in " ".join(plain(text.en) for text in EVERY["flat"].said())


def test_no_slope_is_a_dash_and_no_zero_has_a_sign():
    assert slope_text(Estimate(math.nan, math.nan, math.nan, 5)).en == "–"
    assert slope_text(Estimate(-0.001, -0.01, 0.004, 5)).en == "0.00 (−0.01 to 0.00)"


def test_the_table_has_a_line_for_each_layer():
    text = str(EVERY["grows"])
    assert [line.split()[0] for line in text.splitlines()[2:4]] == ["a", "output"]
    assert "grows with the width" in text


@pytest.mark.parametrize("name", EVERY)
def test_every_picture_can_be_drawn(name):
    chart = coordinates(EVERY[name])
    assert len(chart.specs) == 3
    for specs in chart.specs.values():
        assert set(specs) == {"en", "ja"}
        spec = specs["en"] | {"width": 500, "autosize": "pad"}
        spec["datasets"] = {chart.id: list(chart.rows), **spec.get("datasets", {})}
        svg = vl_convert.vegalite_to_svg(spec)
        assert "<path" in svg
        assert "NaN" not in svg


def test_the_picture_opens_with_what_the_layers_are_judged_by():
    assert list(coordinates(EVERY["grows"]).specs) == ["2", "0", "1"]
    assert next(iter(coordinates(EVERY["diverged later"]).specs)) == "1"


def test_a_point_of_the_picture_is_the_geometric_mean():
    rows = coordinates(report(layer("a", 0.5, spread=0.5))).rows
    last = next(r for r in rows if r["step"] == 2 and r["width"] == 128)
    assert last["size"] == pytest.approx(0.1 * 128**0.5, rel=1e-5)


@pytest.mark.parametrize("name", EVERY)
def test_the_page_holds_the_answer_in_both_languages(name):
    page = coordinates_page(EVERY[name])
    assert "座標チェック" in page
    assert "coordinate check" in page
    assert "NaN" not in page.split('id="data">')[1].split("</script>")[0]


def test_names_cannot_break_out_of_the_page():
    page = coordinates_page(report(layer(EVIL, 1.0), task=EVIL))
    assert EVIL not in page


def test_the_record_survives_json():
    found = EVERY["grows"]
    kept = from_plain(CoordinatesReport, json.loads(json.dumps(to_plain(found))))
    assert kept == found
    assert replace(kept, task="other") != found
