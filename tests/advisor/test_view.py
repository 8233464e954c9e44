"""The records as one case: today's settings, the best alternative, what they are called."""

import math

import numpy as np
import pytest

from batchlab.advisor.options import Options
from tests.advisor import made


def _fall(end, **given):
    return made.curve(np.linspace(1.0, end, 21), **given)


def _searched(ends, objective="time", maximise=True):
    curves = [_fall(0.5)] + [_fall(e, size=s, rate=r) for (s, r), e in ends.items()]
    best = {32: 0.1} | {s: r for s, r in ends}
    return made.view(
        projection=made.projection(curves, best),
        rates={32: 0.001, 64: 0.0019, 128: 0.003},
        options=Options(objective=objective),
        maximise=maximise,
    )


def test_a_batch_size_written_as_text_is_a_number():
    view = made.view(known=made.facts(baseline=made.BASELINE.replace(batch_size="32")))
    assert view.today == (32, 0.1)
    assert view.id((32, 0.1)) == "today"


def test_the_best_alternative_depends_on_what_is_asked():
    ends = {(64, 0.2): 0.3, (128, 0.4): 0.35}
    assert _searched(ends).chosen == (128, 0.4)
    assert _searched(ends, "samples").chosen == (64, 0.2)


@pytest.mark.parametrize("maximise", [True, False])
def test_for_accuracy_the_best_metric_in_its_direction_is_the_alternative(maximise):
    """The metric is 1 − loss: where less is better, the higher loss has the better metric."""
    view = _searched({(64, 0.2): 0.3, (128, 0.4): 0.6}, "accuracy", maximise)
    assert view.chosen == ((64, 0.2) if maximise else (128, 0.4))


def test_a_slower_alternative_is_still_the_alternative():
    """With it *keep* can be told with its range."""
    assert _searched({(64, 0.2): 0.7}).chosen == (64, 0.2)


def test_without_any_alternative_it_is_today():
    assert _searched({(64, 0.2): 0.99}).chosen == made.TODAY
    assert made.view().chosen == made.TODAY


def test_a_confirmation_fixes_the_alternative():
    record = made.confirmation((4000,) * 3, (2000,) * 3, chosen=(64, 0.2))
    assert made.view(confirmation=record).chosen == (64, 0.2)


def test_the_last_stage_gives_the_letter():
    view = _searched({(64, 0.2): 0.3})
    record = made.confirmation((4000,) * 3, (2000,) * 3)
    assert (made.view().stage, view.stage, made.view(confirmation=record).stage) == (*"ABC",)


def test_one_run_counts_reuse_and_is_unknown_before_timing():
    twice = made.facts(baseline=made.BASELINE.replace(reuse=2))
    assert made.view().run_seconds() == pytest.approx(made.SAMPLES / 32 * 0.001)
    assert made.view(known=twice).run_seconds() == pytest.approx(made.SAMPLES / 16 * 0.001)
    assert math.isnan(made.view(machine=None).run_seconds())


def test_one_run_takes_its_reading_too():
    slow = made.view(options=Options(seconds_per_sample=0.01))
    assert slow.run_seconds() == pytest.approx(made.view().run_seconds() + 100.0)
    assert slow.yardstick.reading == slow.fresh_yardstick.reading == 0.01


def test_a_setting_keeps_the_recipe():
    recipe = made.BASELINE.replace(rule="shb", momentum=0.9, weight_decay=1e-4, clip_norm=1.0)
    setting = made.view(known=made.facts(baseline=recipe)).setting((128, 0.4))
    assert (setting.batch_size, setting.learning_rate) == (128, 0.4)
    assert (setting.momentum, setting.weight_decay, setting.clip_norm) == (0.9, 1e-4, 1.0)
    assert setting.batch_size == (
        setting.micro_batch_size * setting.accum_steps * setting.world_size
    )
