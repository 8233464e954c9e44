"""The pictures: complete rows, valid specs, the page's one value in each of them."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import altair as alt
import pytest
import vl_convert

from batchlab.advisor.record import NoisePoint
from batchlab.report import charts
from batchlab.report.charts import shared
from batchlab.report.charts.curves import thinned
from tests.report import sample


def specs(drawn: dict[str, charts.Chart]) -> list[tuple[charts.Chart, dict[str, Any]]]:
    return [
        (chart, spec)
        for chart in drawn.values()
        for by_language in chart.specs.values()
        for spec in by_language.values()
    ]


@pytest.fixture(scope="module")
def drawn() -> dict[str, charts.Chart]:
    return charts.charts(sample.change())


def test_every_picture_is_there_for_a_full_record(drawn: dict[str, charts.Chart]) -> None:
    assert list(drawn) == ["speed", "memory", "noise", "plane", "curves", "pareto"]


def test_the_picture_of_the_speed_says_how_many_processes_trained() -> None:
    advice = sample.change()
    assert "one run alone" in charts.charts(advice)["speed"].caption.en
    together = dataclasses.replace(advice, today=dataclasses.replace(advice.today, world_size=4))
    caption = charts.charts(together)["speed"].caption
    assert "one run of 4 processes together" in caption.en
    assert "4プロセス" in caption.ja


def test_after_screening_only_what_was_measured_is_drawn() -> None:
    assert list(charts.charts(sample.screened())) == ["speed", "memory", "noise"]


def test_every_spec_has_the_pages_one_value(drawn: dict[str, charts.Chart]) -> None:
    for chart, spec in specs(drawn):
        params = {one["name"]: one for one in spec["params"]}
        assert params["picked"]["value"] == "B64-lr0.2", chart.id


def test_every_spec_takes_the_pages_width(drawn: dict[str, charts.Chart]) -> None:
    for _chart, spec in specs(drawn):
        assert spec["width"] == "container"
        assert spec["height"] > 0
        assert spec["autosize"]["type"] == "fit-x"
        assert "$schema" not in spec
        assert "http" not in json.dumps(spec)


def test_every_spec_is_valid_vega_lite(drawn: dict[str, charts.Chart]) -> None:
    for chart, spec in specs(drawn):
        if next(iter(chart.specs.values()))["en"] is spec:
            alt.LayerChart.from_dict({**spec, "data": {"name": chart.id}})
            assert vl_convert.vegalite_to_vega(spec)["marks"], chart.id


def names_of_data(spec: Any) -> set[str]:
    """The data sets that a spec, or a layer of it, reads by name."""
    if isinstance(spec, list):
        return {name for one in spec for name in names_of_data(one)}
    if not isinstance(spec, dict):
        return set()
    own = spec.get("data")
    name = {own["name"]} if isinstance(own, dict) and "name" in own else set()
    return name | {n for key, one in spec.items() if key != "datasets" for n in names_of_data(one)}


def test_every_data_set_that_a_spec_reads_is_in_it_or_the_pages() -> None:
    drawn = charts.charts(sample.robust())
    for chart, spec in specs(drawn):
        assert names_of_data(spec) - {chart.id} == set(spec.get("datasets", {})), chart.id
    assert any("datasets" in spec for _chart, spec in specs(drawn))


def test_both_languages_have_the_same_variants(drawn: dict[str, charts.Chart]) -> None:
    for chart in drawn.values():
        for by_language in chart.specs.values():
            assert set(by_language) == {"en", "ja"}
        options = [[key for key, _words in choice] for _name, choice in chart.choices]
        expected = {""} if not options else set(options[0])
        for more in options[1:]:
            expected = {f"{a}-{b}" for a in expected for b in more}
        assert set(chart.specs) == expected


@pytest.mark.parametrize("name", ["change", "screened", "projected", "minimised"])
def test_rows_are_finite_few_and_named(name: str) -> None:
    for chart in charts.charts(sample.ALL[name]()).values():
        assert 0 < len(chart.rows) <= shared.ROWS_A_CHART
        json.dumps(chart.rows, allow_nan=False)
        for key, title in chart.columns:
            assert title.en, (chart.id, key)
            assert title.ja, (chart.id, key)
            assert key in chart.rows[0], (chart.id, key)


def test_money_is_an_axis_only_with_a_price() -> None:
    with_price = charts.curves(sample.change(sample.USD))
    without = charts.curves(sample.change(None))
    assert with_price is not None
    assert without is not None
    assert "metric-money" in with_price.specs
    assert "metric-money" not in without.specs


def test_a_failed_trial_has_a_look_and_a_legend_entry(drawn: dict[str, charts.Chart]) -> None:
    chart = drawn["plane"]
    statuses = {row["status"] for row in chart.rows}
    assert statuses == {"ok", "diverged", "did not learn"}
    text = json.dumps(chart.specs["metric"]["ja"], ensure_ascii=False)
    assert "失敗：発散した" in text
    assert shared.CROSS in text


def test_a_noise_scale_that_is_not_resolved_is_a_lower_bound() -> None:
    advice = dataclasses.replace(sample.change(), noise=(NoisePoint(10, None, at_least=5.0),))
    chart = charts.noise(advice)
    assert chart is not None
    assert chart.rows[0]["state"] == "at least"
    assert chart.rows[0]["scale"] == 5.0


def test_what_never_reached_the_goal_stands_at_the_edge(drawn: dict[str, charts.Chart]) -> None:
    rows = drawn["pareto"].rows
    lost = next(row for row in rows if row["reached"] == "not reached")
    assert lost["seconds"] is None
    assert lost["x"] > max(row["seconds"] for row in rows if row["seconds"])


def test_curves_have_at_most_200_points_and_keep_the_last() -> None:
    first = sample.curves()[0]
    points = [dataclasses.replace(first, samples=step) for step in range(1, 1002)]
    kept = thinned(points)
    assert len(kept) <= shared.POINTS_A_CURVE
    assert kept[-1].samples == 1001
    assert sorted(p.samples for p in kept) == [p.samples for p in kept]


@pytest.mark.parametrize(("low", "high"), [(2.1, 5.9), (1e-4, 3.0), (900, 44000), (5, 5)])
def test_ticks_of_a_log_axis_lie_inside_it(low: float, high: float) -> None:
    ticks = shared.log_ticks(low, high)
    assert all(low / 1.02 <= tick <= high * 1.02 for tick in ticks)
    assert len(ticks) >= (2 if high > 2 * low else 0)


def test_a_batch_schedule_is_left_out_of_batch_axes() -> None:
    growing = dataclasses.replace(sample.TODAY, batch_size="0:8 20ep:16")
    advice = dataclasses.replace(sample.change(), today=growing)
    drawn = charts.charts(advice)
    assert "speed" in drawn
    assert "plane" in drawn


def test_infinite_and_missing_numbers_become_empty() -> None:
    (row,) = shared.plain_rows([{"a": math.inf, "b": math.nan, "c": 1.0, "d": "x"}])
    assert row == {"a": None, "b": None, "c": 1.0, "d": "x"}


MAKERS = (
    *(charts.speed, charts.memory, charts.noise, charts.plane, charts.curves),
    *(charts.pareto, charts.on_all, charts.robustness, charts.features),
)
"""Each by itself is checked by altair."""


@pytest.mark.parametrize("make", [sample.change, sample.robust])
def test_the_pictures_are_valid_and_the_same_where_altair_checks_them(make: Any) -> None:
    advice = make()
    checked = [one(advice) for one in MAKERS]
    assert {one.id: one.specs for one in checked if one is not None} == {
        key: one.specs for key, one in charts.charts(advice).items()
    }
