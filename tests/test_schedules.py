import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchlab.accumulation import cut
from batchlab.errors import InvalidTypeError, InvalidValueError
from batchlab.samplers import Stream
from batchlab.schedules import (
    SHAPES,
    BatchSchedule,
    Position,
    Progress,
    amount,
    batch_schedule,
    parse_position,
    rate_schedule,
)
from tests import reference

SIZES = st.integers(1, 40)
RISES = st.lists(st.integers(1, 300), max_size=4)


@st.composite
def sample_steps(draw):
    """Rising positions in samples with their sizes, as [(position, unit, size)]."""
    rises = draw(RISES)
    starts = [sum(rises[:i]) for i in range(len(rises) + 1)]
    return [(start, "", draw(SIZES)) for start in starts]


@st.composite
def epoch_steps(draw):
    """Rising positions in epochs, in hundredths."""
    return [(Fraction(start, 100), "ep", size) for start, _, size in draw(sample_steps())]


@st.composite
def update_steps(draw):
    return [(start, "upd", size) for start, _, size in draw(sample_steps())]


ANY_STEPS = st.one_of(sample_steps(), epoch_steps(), update_steps())


def text_of(steps):
    return " ".join(f"{Position(Fraction(start), unit)}:{size}" for start, unit, size in steps)


def resolved(steps, examples=100):
    """None where two hundredths of an epoch fall on one sample."""
    if len({math.ceil(s * examples) if unit == "ep" else s for s, unit, _ in steps}) < len(steps):
        return None
    return batch_schedule(text_of(steps)).resolve(examples)


# Amounts and positions


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        (1, 1),
        ("1000", 1000),
        ("50k", 50_000),
        ("1.5M", 1_500_000),
        ("20ep", 2020),
        ("0.5ep", 51),
        (" 2ep ", 202),
        ("0.001ep", 1),
    ],
)
def test_amount_in_samples(text, samples):
    assert amount(text, examples=101, name="samples") == samples


@pytest.mark.parametrize(
    "text",
    ["", "ep", "20 ep", "20epochs", "-5", "1e5", "1.5.5ep", "100upd", "½ep", "٣ep", "9" * 5000],
)
def test_amount_refuses_nonsense_naming_it(text):
    with pytest.raises(InvalidValueError, match=r"`samples` must be a number of samples") as error:
        amount(text, examples=10, name="samples")
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", [0, -3, "0", "0ep", "0.0M"])
def test_amount_below_one_is_refused(text):
    with pytest.raises(InvalidValueError, match="must be at least 1 sample"):
        amount(text, examples=10, name="samples")


@pytest.mark.parametrize("value", [2.0, True, None, [1]])
@pytest.mark.wrong_type
def test_amount_of_another_type_is_refused(value):
    with pytest.raises(InvalidTypeError, match=r"`samples` must be a whole number or text"):
        amount(value, examples=10, name="samples")


@pytest.mark.parametrize("text", ["0.5", "1.0005k", "1.0000005M", "2.5upd"])
def test_part_of_a_sample_or_update_is_refused(text):
    with pytest.raises(InvalidValueError, match="a whole number of samples or updates"):
        parse_position(text)


@given(st.integers(0, 10**9), st.sampled_from(["", "k", "M", "ep", "upd"]))
def test_position_round_trips(thousandths, unit):
    value = Fraction(thousandths, 1000)
    if unit in ("", "upd"):
        value = Fraction(thousandths)
    position = Position(value, unit if value else "")
    assert parse_position(str(position)) == position


@pytest.mark.wrong_type
@pytest.mark.parametrize("examples", [0, -1, 2.0, True])
def test_number_of_examples_must_be_whole(examples):
    with pytest.raises(InvalidValueError, match="`examples` must be a whole number, 1 or more"):
        amount("1ep", examples=examples, name="samples")


# Batch schedules


def test_schedule_of_the_growing_batch_paper():
    schedule = batch_schedule("0:8 20ep:16 40ep:32").resolve(examples=50_000)
    assert [schedule.at(s) for s in (0, 999_999, 1_000_000, 2_000_000, 10**9)] == [
        8,
        8,
        16,
        32,
        32,
    ]
    assert schedule.sizes == (8, 16, 32)
    assert not schedule.is_constant


@pytest.mark.parametrize("spec", [32, "32", "0:32", " 0:32 ", "0ep:32"])
def test_one_size_may_be_written_in_many_ways(spec):
    schedule = batch_schedule(spec)
    assert str(schedule) == "32"
    assert schedule.is_constant


@given(ANY_STEPS)
def test_batch_schedule_round_trips(steps):
    schedule = batch_schedule(text_of(steps))
    assert batch_schedule(str(schedule)) == schedule


@given(ANY_STEPS, st.integers(1, 120))
def test_resolved_schedule_round_trips_and_resolves_to_itself(steps, examples):
    schedule = resolved(steps, examples)
    if schedule is not None:
        assert batch_schedule(str(schedule)) == schedule
        assert schedule.resolve(examples) == schedule


@given(ANY_STEPS, st.integers(1, 120), st.integers(0, 2000))
def test_updates_equal_the_naive_twin(steps, examples, budget):
    schedule = resolved(steps, examples)
    if schedule is not None:
        expected = reference.batches(steps, examples, budget)
        assert list(schedule.updates(0, budget)) == expected


def test_naive_twin_tells_an_off_by_one():
    schedule = batch_schedule("0:8 33:16").resolve(examples=100)
    assert list(schedule.updates(0, 200)) != reference.batches(
        [(0, "", 8), (32, "", 16)], 100, 200
    )


@given(ANY_STEPS, st.integers(0, 2000))
def test_batches_fill_the_budget_and_leave_less_than_one_batch(steps, budget):
    schedule = resolved(steps)
    if schedule is None:
        return
    batches = list(schedule.updates(0, budget))
    trained = sum(size for _, size in batches)
    assert [first for first, _ in batches] == [
        sum(size for _, size in batches[:i]) for i in range(len(batches))
    ]
    assert all(size == schedule.at(first) for first, size in batches)
    assert 0 <= budget - trained < schedule.at(trained)


@given(ANY_STEPS, st.integers(0, 1500), st.data())
def test_updates_from_the_middle_are_the_tail(steps, budget, data):
    schedule = resolved(steps)
    if schedule is None:
        return
    batches = list(schedule.updates(0, budget))
    done = data.draw(st.integers(0, len(batches)))
    start = sum(size for _, size in batches[:done])
    assert list(schedule.updates(start, budget)) == batches[done:]


@given(ANY_STEPS, st.integers(0, 700), st.integers(0, 1500))
def test_count_and_progress_equal_the_listed_batches(steps, start, end):
    schedule = resolved(steps)
    if schedule is None:
        return
    assert schedule.count(start, end) == len(list(schedule.updates(start, end)))
    begun = [(s, b) for s, b in schedule.updates(start, end + 1000) if s < end]
    after, last = (sum(begun[-1]), begun[-1][1]) if begun else (start, 0)
    assert schedule.progress(start, end) == Progress(len(begun), after, last)


@given(ANY_STEPS, st.integers(1, 60), st.integers(0, 3))
def test_every_schedule_sees_the_same_stream(steps, examples, seed):
    schedule = resolved(steps, examples)
    if schedule is None:
        return
    stream = Stream(examples, seed)
    seen = [
        pair for first, size in schedule.updates(0, 300) for pair in drawn(stream, first, size)
    ]
    assert seen == reference.stream(examples, seed, len(seen))


def drawn(stream, first, size):
    indices, passes = stream.take(first, size)
    return list(zip(indices.tolist(), passes.tolist(), strict=True))


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("0:8 20epp:16", "20epp"),
        ("0:8 20ep16", "20ep16"),
        ("0:8 20ep:16.5", "20ep:16.5"),
        ("0:8 20ep:0", "20ep:0"),
        ("0:8 20ep:-4", "20ep:-4"),
        ("0:8 :16", "''"),
        ("0:8 1.5upd:16", "1.5upd"),
        ("5ep:8", "5ep:8"),
        ("0:8 20ep:16 10ep:32", "10ep:32"),
        ("0:8 20ep:16 20ep:32", "20ep:32"),
        ("0:8 1k:16 1000:32", "1000:32"),
        ("0:8 0:16", "0:16"),
        ("eight", "eight"),
        ("", "''"),
        ("0", "'0'"),
        ("8 16", "'8'"),
        ("0:8,20ep:16", "8,20ep:16"),
    ],
)
def test_nonsense_schedule_is_refused_naming_the_token(text, token):
    with pytest.raises(InvalidValueError, match="`batch_size` must be") as error:
        batch_schedule(text)
    assert token in str(error.value)


@pytest.mark.parametrize("spec", [8.0, True, None, (8,)])
@pytest.mark.wrong_type
def test_batch_size_of_another_type_is_refused(spec):
    with pytest.raises(InvalidTypeError, match="`batch_size` must be a whole number, 1 or more"):
        batch_schedule(spec)


@pytest.mark.parametrize("spec", [0, -8])
def test_batch_size_below_one_is_refused(spec):
    with pytest.raises(InvalidValueError, match="`batch_size` must be a whole number, 1 or more"):
        batch_schedule(spec)


@pytest.mark.parametrize(
    "text", ["0:8 1ep:16 100:32", "0:8 100:16 1ep:32", "0:8 1ep:16 5upd:32", "0:8 1ep:16 12upd:4"]
)
def test_positions_must_rise_in_samples_too(text):
    with pytest.raises(InvalidValueError, match="positions rise") as error:
        batch_schedule(text).resolve(examples=100)
    assert text.split()[-1] in str(error.value)


def test_updates_count_a_batch_that_runs_across_a_step():
    # Batches of 8 begin at 0 … 96, so 13 updates end at 104; then 16 each.
    assert str(batch_schedule("0:8 1ep:16 15upd:4").resolve(examples=100)) == "0:8 100:16 136:4"


@pytest.mark.parametrize(
    "read", [lambda s: s.at(0), lambda s: s.updates(0, 9), lambda s: s.count(0, 9)]
)
def test_schedule_in_epochs_must_be_resolved_before_it_is_read(read):
    with pytest.raises(InvalidValueError, match="in samples before it is read"):
        read(batch_schedule("0:8 1ep:16"))


def test_negative_place_is_refused():
    with pytest.raises(InvalidValueError, match="`samples` must be 0 or more; got -1"):
        batch_schedule(8).at(-1)
    with pytest.raises(InvalidValueError, match="`start` must be 0 or more; got -1"):
        batch_schedule(8).updates(-1, 9)


def test_batch_schedule_is_a_value():
    assert hash(batch_schedule("0:8 1k:16")) == hash(batch_schedule("0:8 1k:16"))
    assert isinstance(batch_schedule(8), BatchSchedule)


# Rate schedules

SHARES = st.floats(0.0, 1.0)
ARGUMENTS = st.floats(1e-6, 1.0)
CURVES = st.one_of(
    st.sampled_from(sorted(SHAPES)),
    st.builds("{}({!r})".format, st.sampled_from(sorted(set(SHAPES) - {"constant"})), ARGUMENTS),
    st.just("0:1 12.5%:0.3 50%:0.1 75%:0.01"),
    st.just("0:1 ~12.5%:0.3 50%:0.1 ~75%:0.01"),
)
WARMUPS = st.one_of(st.just(0.0), st.floats(1e-3, 0.9))


@given(CURVES, WARMUPS)
def test_rate_schedule_round_trips(text, warmup):
    schedule = rate_schedule(text, warmup=warmup)
    assert rate_schedule(str(schedule)) == schedule


@given(CURVES, WARMUPS, SHARES)
def test_multiplier_stays_between_zero_and_one(text, warmup, share):
    assert 0.0 <= rate_schedule(text, warmup=warmup)(share) <= 1.0


@given(CURVES, WARMUPS, SHARES, SHARES)
def test_multiplier_never_rises_after_the_warmup(text, warmup, a, b):
    schedule = rate_schedule(text, warmup=warmup)
    early, late = sorted((max(a, warmup), max(b, warmup)))
    assert schedule(late) <= schedule(early) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("text", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25, 0]),
        ("linear(0.2)", 0.0, [1, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", 0.0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        ("cosine(0.1)", 0.0, [1, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.55, None, 0.1]),
        ("geometric(0.0001)", 0.0, [1, 0.1, 0.01, 0.001, 0.0001]),
        (
            "inverse_sqrt(0.25)",
            0.0,
            [1, math.sqrt(1 / 2), math.sqrt(1 / 3), 0.5, math.sqrt(1 / 5)],
        ),
        ("inverse_sqrt", 0.25, [0, 1, math.sqrt(1 / 2), math.sqrt(1 / 3), 0.5]),
        ("0:1 50%:0.1 75%:0.01", 0.0, [1, 1, 0.1, 0.01, 0.01]),
        ("0:1 50%:0.1", 0.5, [0, 0.5, 0.1, 0.1, 0.1]),
        ("0:0 ~50%:1 75%:0.5 ~100%:0", 0.0, [0, 0.5, 1, 0.5, 0]),
        ("0:0.2 ~50%:1", 0.0, [0.2, 0.6, 1, 1, 1]),
        ("linear", 0.5, [0, 0.5, 1, 0.5, 0]),
        ("warmup(0.5) constant", 0.0, [0, 0.5, 1, 1, 1]),
    ],
)
def test_rate_schedule_values_at_quarters(text, warmup, expected):
    schedule = rate_schedule(text, warmup=warmup)
    for quarter, value in enumerate(expected):
        if value is not None:
            assert schedule(quarter / 4) == pytest.approx(value, abs=1e-15)


def test_inverse_sqrt_without_warmup_uses_a_tenth_of_the_budget():
    assert rate_schedule("inverse_sqrt")(0.3) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("cosin", "cosin"),
        ("cosine(2)", "cosine(2)"),
        ("cosine(-0.1)", "cosine(-0.1)"),
        ("cosine(nan)", "cosine(nan)"),
        ("cosine()", "cosine()"),
        ("constant(1)", "constant(1)"),
        ("geometric(0)", "geometric(0)"),
        ("inverse_sqrt(0)", "inverse_sqrt(0)"),
        ("cosine linear", "cosine linear"),
        ("", "''"),
        ("0:1 50:0.1", "50:0.1"),
        ("0:1 50%:x", "50%:x"),
        ("0:1 50%:-1", "50%:-1"),
        ("0:1 101%:0.1", "101%:0.1"),
        ("10%:1", "10%:1"),
        ("0:1 50%:0.1 50%:0.01", "50%:0.01"),
        ("0:1 50%", "50%"),
        ("~0:1 50%:0.1", "~0:1"),
        ("0:1 ~~50%:0.1", "~~50%:0.1"),
        ("warmup(1) cosine", "warmup(1)"),
        ("warmup cosine", "warmup"),
        ("warmup(0.1)", "''"),
    ],
)
def test_nonsense_rate_schedule_is_refused_naming_the_token(text, token):
    with pytest.raises(InvalidValueError, match=r"`(lr_schedule|warmup)` must be") as error:
        rate_schedule(text)
    assert token in str(error.value)


def test_two_warmups_are_refused():
    with pytest.raises(InvalidValueError, match="without a second warm-up"):
        rate_schedule("warmup(0.1) cosine", warmup=0.1)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, math.nan])
def test_warmup_outside_its_range_is_refused(warmup):
    with pytest.raises(InvalidValueError, match="`warmup` must be a share of the budget"):
        rate_schedule("cosine", warmup=warmup)


@pytest.mark.parametrize("share", [-0.01, 1.01, math.nan])
def test_share_outside_the_budget_is_refused(share):
    with pytest.raises(InvalidValueError, match="`fraction` must be a share of the budget"):
        rate_schedule("cosine")(share)


@pytest.mark.wrong_type
def test_rate_schedule_of_another_type_is_refused():
    with pytest.raises(InvalidTypeError, match="`lr_schedule` must be text"):
        rate_schedule(0.1)


# Micro-batches


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 4))
def test_micro_is_how_the_accumulator_cuts_the_largest_share(size, largest, processes):
    (part,) = batch_schedule(size).micro(largest, processes)
    pieces = cut(torch.arange(-(-size // processes)), largest)
    assert part.accum_steps == len(pieces)
    assert part.micro_batch_size == max(map(len, pieces)) <= largest


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 4))
def test_micro_takes_no_more_micro_batches_than_needed(size, largest, processes):
    (part,) = batch_schedule(size).micro(largest, processes)
    share = -(-size // processes)
    assert (part.accum_steps - 1) * largest < share <= part.accum_steps * largest


def test_micro_keeps_the_steps_of_the_schedule():
    schedule = batch_schedule("0:8 20ep:16 40ep:100")
    parts = schedule.micro(32)
    assert [(part.start, part.size) for part in parts] == list(schedule.steps)
    assert [part.accum_steps for part in parts] == [1, 1, 4]


@pytest.mark.parametrize("given", [{"max_micro": 0}, {"max_micro": 1, "world_size": 0}])
def test_micro_of_nothing_is_refused(given):
    with pytest.raises(InvalidValueError, match="must be at least 1; got 0"):
        batch_schedule(8).micro(**given)


@given(steps=sample_steps(), updates=st.integers(0, 60))
def test_samples_drawn_by_updates_are_those_of_a_walk(steps, updates):
    schedule = batch_schedule(" ".join(f"{start}:{size}" for start, _, size in steps))
    walked = 0
    for _ in range(updates):
        walked += schedule.at(walked)
    assert schedule.drawn(updates) == walked
    assert schedule.count(0, walked) == updates
