"""The pair on all data, after the stages on a part: trained, judged, and what becomes of it."""

import json
from dataclasses import replace

import pytest

from batchlab import _platform
from batchlab.advisor import advise, answer, order, whole
from batchlab.advisor.advise import _Stages, price_list, run_stages
from batchlab.advisor.assemble import assemble
from batchlab.advisor.options import Options
from batchlab.advisor.record import Advice, Verdict
from batchlab.advisor.session import Silent
from batchlab.advisor.stages import OnAll
from batchlab.advisor.whole import KEY, MOST_PAIRS, ON_ALL, plan_on_all, price_on_all
from batchlab.app.advise import DryRun, again
from batchlab.app.advise import advise as make_advice
from batchlab.config import RunConfig
from batchlab.engine import Job, train
from batchlab.errors import ResultError
from batchlab.tasks import prepare
from batchlab.tasks.subset import subset_of
from batchlab.types import to_plain
from tests.advisor import made, tiny

SLOW, FAST = [8000, 8250, 7750, 8000], [3000, 3250, 2750, 3000]
"""Samples to the target on the part: today, the alternative; per sample it is twice as fast."""
FACTS = made.facts(whole=(10_000, 100_000))


def on_all(today_at, other_at, *, ends=(1.0, 1.0), maximise=True, blocks=None):
    """Pairs that arrive at these samples and end at these metrics."""
    sides = [
        tuple(
            made.run_to(at, pair=pair, seed=ON_ALL + i, end=end, maximise=maximise)
            for i, at in enumerate(arrivals)
        )
        for pair, arrivals, end in (
            (made.TODAY, today_at, ends[0]),
            (made.OTHER, other_at, ends[1]),
        )
    ]
    return OnAll(10_000, 100_000, blocks or {}, *sides)


def view(repeat=None, *, part=(SLOW, FAST), known=FACTS, **options):
    return made.view(
        confirmation=made.confirmation(*part),
        options=Options(subset="10%", **options),
        known=known,
        on_all=repeat,
    )


# --- what all data do to the verdict ---


@pytest.mark.parametrize("pairs", [1, 3])
def test_an_order_that_holds_leaves_the_change(pairs):
    case = view(on_all([8000] * pairs, [3000] * pairs))
    assert answer.verdict(view()) is Verdict.CHANGE
    assert answer.verdict(case) is Verdict.CHANGE
    assert order.order(case).held


@pytest.mark.parametrize("pairs", [1, 3])
def test_an_order_that_flips_takes_the_change_back(pairs):
    case = view(on_all([2000] * pairs, [7000] * pairs))
    assert answer.verdict(case) is Verdict.NOT_ENOUGH_EVIDENCE
    assert not order.order(case).held
    assert answer.recommended(case) == case.today
    assert answer.changes(case) == ()


def test_an_order_that_was_not_asked_for_would_leave_the_change(monkeypatch):
    """The planted bug that the test before must notice."""
    monkeypatch.setattr(answer, "tempered", lambda view, found: found)
    assert answer.verdict(view(on_all([2000], [7000]))) is Verdict.CHANGE


def test_more_repeats_on_the_part_do_not_decide_what_all_data_took_back():
    case = view(on_all([2000], [7000]))
    assert answer.contradicted(case)
    assert answer.decide_repeats(case) == 0
    assert answer.next_stage(case) is None


@pytest.mark.parametrize(
    ("today_at", "other_at", "verdict"),
    [(99_999, 3000, Verdict.CHANGE), (3000, 99_999, Verdict.NOT_ENOUGH_EVIDENCE)],
)
def test_the_one_that_alone_reaches_the_target_is_the_better(today_at, other_at, verdict):
    assert answer.verdict(view(on_all([today_at], [other_at]))) is verdict


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [((0.6, 0.7), Verdict.CHANGE), ((0.7, 0.6), Verdict.NOT_ENOUGH_EVIDENCE)],
)
def test_the_metric_at_the_end_decides_where_neither_reaches_the_target(ends, verdict):
    case = view(on_all([2000], [2000], ends=ends))
    assert order.order(case).on_all.by == "validation"
    assert answer.verdict(case) is verdict
    assert [c.quantity for c in answer.on_all_data(case)] == ["validation"]


def scattered():
    """Fresh pairs on the part that end a little apart, up and down."""
    record = made.confirmation(SLOW, FAST)
    ends = (1.0, 0.98, 1.0, 0.99)
    runs = tuple(
        made.run_to(at, pair=made.OTHER, seed=1000 + i, end=end)
        for i, (at, end) in enumerate(zip(FAST, ends, strict=True))
    )
    return replace(record, recommended=runs)


@pytest.mark.parametrize(
    ("end", "verdict"), [(0.98, Verdict.CHANGE), (0.91, Verdict.NOT_ENOUGH_EVIDENCE)]
)
def test_a_faster_one_that_ends_far_beyond_the_scatter_is_not_better(end, verdict):
    case = view(on_all([8000], [3000], ends=(1.0, end)))
    case = replace(case, records=replace(case.records, confirmation=scattered()))
    assert answer.verdict(case) is verdict


@pytest.mark.parametrize(
    ("other_at", "verdict"), [(8000, Verdict.KEEP), (2000, Verdict.NOT_ENOUGH_EVIDENCE)]
)
def test_a_keep_that_all_data_contradict_is_taken_back(other_at, verdict):
    rates = {32: 0.001, 128: 0.004}  # as fast per sample
    part = ([8000] * 8, [8000] * 8)
    case = made.view(
        rates=rates,
        confirmation=made.confirmation(*part),
        options=Options(subset="10%"),
        known=FACTS,
        on_all=on_all([8000], [other_at]),
    )
    assert answer.verdict(replace(case, records=replace(case.records, on_all=None))) is (
        Verdict.KEEP
    )
    assert answer.verdict(case) is verdict


def test_for_accuracy_the_metric_decides():
    case = view(on_all([2000], [2000], ends=(0.9, 0.95)), objective="accuracy")
    found = order.order(case).on_all
    assert (found.better, found.by) == (True, "validation")


@pytest.mark.parametrize(
    ("end", "verdict"), [(0.9, Verdict.KEEP), (0.95, Verdict.NOT_ENOUGH_EVIDENCE)]
)
def test_a_keep_is_taken_back_where_the_metric_decides_too(end, verdict):
    case = view(on_all([8000], [8000], ends=(0.9, end)), objective="accuracy")
    assert order.tempered(case, Verdict.KEEP) is verdict


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (70.0, "stage A, and B as far as it fits"),
        (100.0, "enough for all stages; the pair on all data and robustness as far as time"),
        (145.0, "enough for all stages and the pair on all data and robustness"),
    ],
)
def test_a_budget_reaches_as_far_as_its_price_list_says(budget, told):
    stages = {"A": 10.0, "B": 20.0, "C": 70.0, KEY: 30.0, "R": 15.0}
    assert told in str(DryRun("t", 20.0, stages, 1.3, (), budget))


def test_times_on_all_data_are_those_timed_on_all_data():
    """Twice as slow per update there: the ratio of time turns, that of samples does not."""
    blocks = {"32": made.blocks(0.001, 32), "128": made.blocks(0.016, 128)}
    case = view(on_all([8000], [3000], blocks=blocks))
    time, samples, _ = answer.on_all_data(case)
    ratio = samples.difference.value
    assert time.difference.value == pytest.approx(ratio * (0.001 / 32) / (0.016 / 128))
    assert answer.verdict(case) is Verdict.NOT_ENOUGH_EVIDENCE


# --- what the record says ---


def test_the_advice_names_the_part_and_the_pair(tmp_path):
    case = view(on_all([8000], [3000]))
    advice = assemble(case.records, case.options, case.facts)
    assert (advice.part.share, advice.part.examples, advice.part.whole) == (0.1, 1000, 10_000)
    assert advice.part.repeat.held
    assert {point.id for point in advice.part.repeat.curves} == {"today", "B128-lr0.4"}
    assert max(point.epochs for point in advice.part.repeat.curves) == pytest.approx(1.0)
    assert advice.params["samples"] == 100_000
    assert advice.run_seconds == pytest.approx(100_000 / 32 * made.RATES[32])
    advice.save(tmp_path / "advice.json")
    again = Advice.load(tmp_path / "advice.json")
    assert to_plain(again.part) == to_plain(advice.part)


def test_a_pair_that_was_not_paid_for_is_the_next_step_with_its_price():
    case = view(known=replace(FACTS, prices={KEY: 300.0}))
    following = answer.next_stage(case)
    assert (following.stage, following.seconds) == ("all-data", 300.0)
    assert "--resume" in following.command
    assert assemble(case.records, case.options, case.facts).part.seconds == 300.0


def test_without_a_part_nothing_is_said_of_one():
    case = view(known=made.facts())
    assert assemble(case.records, case.options, case.facts).part is None


# --- planning and training ---

RECIPE = RunConfig(rule="sgd", batch_size=32, learning_rate=0.1, samples="3ep", momentum=0.0)
OPTIONS = Options(budget=600.0, subset="40%", growing=False)


@pytest.fixture(scope="module")
def part():
    task = replace(tiny.task(), train=tiny.data(400), baseline=RECIPE)
    return subset_of(prepare(task, device="cpu"), "40%", 0)


def test_the_price_of_a_pair_is_that_of_two_whole_trainings(part):
    session = made.session()
    session.prepared = part
    samples = part.drawn.whole.baseline.samples
    expected = sum(samples / size * made.RATES[size] for size in (32, 128))
    assert price_on_all(session, made.OTHER[0]) == pytest.approx(
        session.pace * expected / 1.0, rel=0.2
    )
    assert price_on_all(session, made.OTHER[0], 2) == pytest.approx(
        2 * price_on_all(session, made.OTHER[0])
    )


def test_where_all_data_are_used_the_pair_costs_nothing():
    assert price_on_all(made.session(), made.OTHER[0]) == 0.0


def test_as_many_pairs_are_planned_as_the_budget_pays(part):
    session, record = made.session(), made.confirmation(SLOW, FAST)
    session.prepared = part
    one = price_on_all(session, made.OTHER[0])
    counts = [
        len(plan.seeds) if (plan := plan_on_all(session, record, share * one)) else 0
        for share in (0.9, 1.1, 2.1, 50)
    ]
    assert counts == [0, 1, 2, MOST_PAIRS]


@pytest.fixture
def stages(monkeypatch):
    """The stages on the part, already run: what is left is the pair on all data."""
    monkeypatch.setattr(_platform, "available_cores", lambda: 1)
    monkeypatch.setattr(whole, "MOST_PAIRS", 1)

    def screened(self):
        self.session.visit([32, 128])
        self.screening = made.screening()

    def searched(self):
        self.projection = made.projection([], {})
        return True

    def confirmed(self):
        self.confirmation = made.confirmation(SLOW, FAST)

    monkeypatch.setattr(_Stages, "_screen", screened)
    monkeypatch.setattr(_Stages, "_search", searched)
    monkeypatch.setattr(_Stages, "_confirm", confirmed)


@pytest.mark.usefixtures("stages")
def test_the_pair_trains_on_all_data_to_the_end_and_resumes(part, tmp_path):
    first = run_stages(part, OPTIONS, tmp_path, workers=0).records.on_all
    everything = part.drawn.whole
    assert (first.examples, first.samples) == (everything.examples, everything.baseline.samples)
    assert {c.seed for c in first.today} == {c.seed for c in first.recommended}
    assert min(c.seed for c in first.today) == ON_ALL
    for curve in (*first.today, *first.recommended):
        assert curve.samples[-1] > everything.baseline.samples - curve.batch_size
    assert set(first.blocks) == {"32", "128"}
    planned = json.loads((tmp_path / "plan.json").read_text())["stages"][KEY]
    assert planned["seeds"] == [c.seed for c in first.today]
    # Killed after the plan: the same plan, the same curves.
    (tmp_path / "on_all.json").unlink()
    made.unfinished(tmp_path)
    again = run_stages(part, OPTIONS, tmp_path, resume=True, workers=0).records.on_all
    assert (again.today, again.recommended) == (first.today, first.recommended)


@pytest.mark.usefixtures("stages")
def test_a_pair_that_the_budget_does_not_pay_for_has_a_price(part, tmp_path, monkeypatch):
    monkeypatch.setattr(advise, "plan_on_all", lambda *given: None)
    found = run_stages(part, OPTIONS, tmp_path, workers=0)
    assert found.records.on_all is None
    assert found.prices[KEY] > 0


@pytest.mark.usefixtures("stages")
def test_another_subset_is_another_result(part, tmp_path, monkeypatch):
    monkeypatch.setattr(advise, "plan_on_all", lambda *given: None)
    run_stages(part, OPTIONS, tmp_path, workers=0)
    other = subset_of(part.drawn.whole, "50%", 0)
    with pytest.raises(ResultError, match=r"holds a result with another subset\. Use another"):
        run_stages(other, replace(OPTIONS, subset="50%"), tmp_path, resume=True, workers=0)


class _Interrupter(Silent):
    def progress(self, what, share):
        if "all data" in what:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("stages")
def test_an_interrupted_pair_leaves_the_part_and_goes_on(part, tmp_path):
    stopped = run_stages(part, OPTIONS, tmp_path, workers=0, listener=_Interrupter())
    assert stopped.records.partial
    assert stopped.records.on_all is None
    resumed = run_stages(part, OPTIONS, tmp_path, resume=True, workers=0)
    assert resumed.records.on_all is not None


def test_a_dry_run_prices_the_pair_on_all_data(part, monkeypatch):
    monkeypatch.setattr(_platform, "available_cores", lambda: 1)
    assert price_list(part, OPTIONS)[0].keys() == {"A", "B", "C", "F", KEY}
    assert KEY not in price_list(part.drawn.whole, OPTIONS)[0]


@pytest.mark.slow
def test_an_advice_on_a_part_from_end_to_end(tmp_path):
    """All stages on a part, the pair on all data, and what is written beside them."""
    asked = {"budget": 600.0, "seeds": 2, "confirm_seeds": 3, "batch_sizes": (16, 64)}
    out = tmp_path / "out"
    found = make_advice(tiny.task(), **asked, subset=0.5, out=out, device="cpu")
    assert found.stage == "C"
    assert (found.part.examples, found.part.whole) == (255, 510)
    assert found.part.repeat is not None
    assert "--subset 50%" in found.command
    assert found.params["samples"] == 3 * 510
    assert '<section id="all-data">' in (out / "report.html").read_text("utf-8")
    assert again(out, None, (2.5, None, None)).part.repeat.held == found.part.repeat.held
    with pytest.raises(ResultError, match="another subset"):
        make_advice(tiny.task(), **asked, subset="40%", out=out, device="cpu", resume=True)


@pytest.mark.slow
def test_workers_train_the_part_as_one_process_does(part):
    runs = [part.baseline.replace(seed=seed) for seed in range(4)]
    job = Job((0, part.baseline.samples))
    alone, together = (train(part, runs, job, workers=count) for count in (0, 2))
    assert [run.series["loss"].values.tolist() for run in alone.runs] == [
        run.series["loss"].values.tolist() for run in together.runs
    ]
