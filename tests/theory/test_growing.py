import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from batchlab.errors import InvalidValueError, ValidityWarning
from batchlab.schedules import batch_schedule, rate_schedule
from batchlab.theory import growing as theory
from batchlab.theory.growing import Phase, Plan, Problem, Step

PROBLEM = Problem(smoothness=2.0, noise=3.0, gap=5.0)
BETAS = [0.0, 0.01, 0.1, 0.3, 0.41, 0.5, 0.7, 0.9, 0.99]
some_phases = some.lists(some.builds(Phase, some.integers(1, 9), some.integers(1, 64)), min_size=1)


def inverse_sizes(phases):
    return [1 / p.size for p in phases for _ in range(p.updates)]


def double_sum(beta, inverse):
    """Σ_t Σ_{i≤t} β^{2(t−i)}/b_i, as the source writes it."""
    return sum(
        beta ** (2 * (t - i)) * inverse[i] for t in range(len(inverse)) for i in range(t + 1)
    )


# Sums


@given(some_phases, some.sampled_from(BETAS))
def test_the_double_sum_needs_one_step_a_phase(phases, beta):
    expected = double_sum(beta, inverse_sizes(phases))
    assert theory.remembered(beta, phases) == pytest.approx(expected, rel=1e-11)


@given(
    some.lists(some.tuples(some.integers(1, 40), some.integers(1, 30)), min_size=1, max_size=4),
    some.integers(1, 300),
)
def test_phases_are_the_updates_of_the_schedule(steps, samples):
    starts = itertools.accumulate((gap for gap, _ in steps[1:]), initial=0)
    text = " ".join(f"{s}:{size}" for s, (_, size) in zip(starts, steps, strict=True))
    schedule = batch_schedule(text)
    sizes = [size for _, size in schedule.updates(0, samples)]
    if not sizes:
        with pytest.raises(InvalidValueError, match="enough for a batch"):
            theory.phases(schedule, samples)
        return
    found = theory.phases(schedule, samples)
    assert [p.size for p in found for _ in range(p.updates)] == sizes


def naive(step, inverse, eta):
    """The sums from their definitions, the rate staying constant for long after the end."""
    beta, nu, T, far = step.momentum, step.nu, len(eta), 3000
    eta = np.append(eta, np.full(far, eta[-1]))
    c = [nu * sum(beta ** (j + 1) * eta[t + j] for j in range(far - T)) for t in range(2 * T)]
    h = [eta[t] * (1 - nu) + (1 - beta) * c[t] / beta if beta else eta[t] for t in range(2 * T)]
    found = Counter()
    for t in range(T):
        remembered = sum(beta ** (2 * (t - 1 - i)) * inverse[i] for i in range(t))
        kept = (1 - beta) ** 2 * c[t] ** 2 * remembered
        found.update(path=h[t], squares=h[t] ** 2, fresh=h[t] ** 2 * inverse[t])
        found.update(kept=kept, kept_path=h[t] * kept)
    # What comes after the end weighs β^{T−t}; beyond 2T it is a constant rate's.
    tail = h[-1] * c[-1] ** 2 / (1 - beta)
    for t in reversed(range(2 * T - 1)):
        tail = h[t + 1] * c[t + 1] ** 2 + beta * tail
        if t < T:
            found["signal"] += (1 - beta) * tail
            found["reach"] = max(found["reach"], math.sqrt((1 - beta) * tail / h[t]))
    return found


@pytest.mark.parametrize("rates", ["cosine(0.1)", "0:1 50%:0.1", "inverse_sqrt", "0:0.2 50%:1"])
@pytest.mark.parametrize(("beta", "nu"), [(0.0, 0.0), (0.6, 1.0), (0.8, 0.5)])
def test_sums_under_a_changing_rate_are_their_definitions(rates, beta, nu):
    plan = Plan(Step(0.3, beta, nu), batch_schedule("0:2 40:8"), rate_schedule(rates))
    inverse, eta = theory._each(plan, 120)
    found, expected = theory.sums(plan, 120), naive(plan.step, inverse, eta)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-15), name


@pytest.mark.parametrize(("beta", "nu"), [(0.0, 0.0), (0.9, 1.0), (0.8, 0.5), (0.5, 0.0)])
def test_a_rate_that_does_not_change_is_a_constant_one(beta, nu):
    step, batches = Step(0.3, beta, nu), batch_schedule("0:2 40:8 300:64")
    constant = theory.sums(Plan(step, batches), 1000)
    changing = theory.sums(Plan(step, batches, rate_schedule("constant")), 1000)
    assert vars(changing) == pytest.approx(vars(constant), rel=1e-10, abs=1e-15)


@pytest.mark.parametrize(("beta", "nu"), [(0.6, 1.0), (0.8, 0.5), (0.5, 0.0)])
def test_z_moves_as_if_there_were_no_momentum(beta, nu):
    rng, T = np.random.default_rng(0), 30
    eta, g = rng.uniform(0.1, 1.0, T), rng.normal(size=T)
    c = theory._backward(beta * nu * eta, beta, nu * beta / (1 - beta) * eta[-1])
    h = (1 - nu) * eta + (1 - beta) * c / beta
    after = np.append(c[1:], nu * beta / (1 - beta) * eta[-1])
    theta, d = 1.0, 0.0
    for t in range(T):
        z = theta - c[t] * d
        d = beta * d + (1 - beta) * g[t]
        theta -= eta[t] * ((1 - nu) * g[t] + nu * d)
        assert theta - after[t] * d == pytest.approx(z - h[t] * g[t], abs=1e-13)


# Forms of the bound


@pytest.mark.parametrize("text", ["8", "0:8 400:16 800:64", "0:64 500:8"])
@pytest.mark.parametrize("beta", BETAS)
def test_for_nshb_the_lemma_is_the_sources(text, beta):
    eta = theory.largest_step("nshb", PROBLEM.smoothness, beta)
    schedule = batch_schedule(text)
    sizes = [size for _, size in schedule.updates(0, 1600)]
    T, A = len(sizes), double_sum(beta, [1 / size for size in sizes])
    L, noise, gap = PROBLEM.smoothness, PROBLEM.noise, PROBLEM.gap
    expected = 2 * gap / (eta * T) + 2 * L * eta * noise / T * A
    found = theory.bound(PROBLEM, Plan(Step.of("nshb", eta, beta), schedule), 1600)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.start + found.noise == found.value
    assert found.proved


@pytest.mark.parametrize("factor", [1.2, 1.6, 2.0, 4.0])
@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9, 0.95])
def test_the_bracket_of_the_growing_theorem_simplifies(factor, beta):
    q = beta**2
    bracket = factor / (q * factor - 1) * (q / (1 - q) - 1 / (factor - 1))
    eta = theory.largest_step("nshb", PROBLEM.smoothness, beta, form="printed growing")
    found = theory.growing_bound(PROBLEM, Step.of("nshb", eta, beta), 8, factor, (70, 400))
    scale = 2 * PROBLEM.smoothness * eta * PROBLEM.noise * 70 / (8 * 400)
    assert found.noise == pytest.approx(scale * bracket, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("factor", "count"), [(2, 2), (2, 12), (4, 3)])
def test_the_growing_theorem_lies_above_the_lemma_and_meets_it_after_long_phases(
    factor, count, beta
):
    eta = theory.largest_step("nshb", PROBLEM.smoothness, beta, form="printed growing")
    step, K = Step.of("nshb", eta, beta), 5000
    sizes = [factor**m for m in range(count)]
    starts = list(itertools.accumulate((K * b for b in sizes), initial=0))
    text = " ".join(f"{s}:{b}" for s, b in zip(starts, sizes, strict=False))
    lemma = theory.bound(PROBLEM, Plan(step, batch_schedule(text)), starts[-1])
    theorem = theory.growing_bound(PROBLEM, step, 1, factor, (K, lemma.updates))
    assert lemma.start == theorem.start
    left = 1 - factor**-count  # of the series of all phases
    assert left * (1 - 0.02) <= lemma.noise / theorem.noise <= left * (1 + 1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_the_constant_theorem_lies_between_the_sharp_form_and_the_lemma(beta):
    eta = theory.largest_step("nshb", PROBLEM.smoothness, beta, form="printed growing")
    step = Step.of("nshb", eta, beta)
    for samples in (8, 80, 8_000, 8_000_000):
        plan = Plan(step, batch_schedule(8))
        sharp = theory.bound(PROBLEM, plan, samples, "sharp")
        found = theory.constant_bound(PROBLEM, step, 8, sharp.updates)
        assert sharp.value <= found.value
    assert found.value <= theory.bound(PROBLEM, plan, samples).value


def test_without_momentum_the_constant_theorem_has_half_the_noise_of_the_lemma():
    step, plan = Step.of("sgd", 0.1), Plan(Step.of("sgd", 0.1), batch_schedule(8))
    found, lemma = theory.constant_bound(PROBLEM, step, 8, 10), theory.bound(PROBLEM, plan, 80)
    assert 2 * found.noise == pytest.approx(lemma.noise) == 2 * 2.0 * 0.1 * 3.0 / 8
    tiny = theory.bound(PROBLEM, Plan(Step.of("nshb", 0.1, 1e-9), batch_schedule(8)), 80)
    assert tiny.value == pytest.approx(lemma.value)


@pytest.mark.parametrize("text", ["8", "0:8 400:32"])
def test_for_sgd_the_sharp_form_is_umedas_lemma(text):
    eta, schedule, L = 0.7, batch_schedule(text), PROBLEM.smoothness
    inverse = [1 / size for _, size in schedule.updates(0, 1600)]
    total, noise = eta * len(inverse), eta**2 * sum(inverse)
    expected = 2 * PROBLEM.gap / total + L * PROBLEM.noise * noise / total
    found = theory.bound(PROBLEM, Plan(Step.of("sgd", eta), schedule), 1600, "sharp")
    assert found.value == pytest.approx(expected / (2 - L * eta), rel=1e-12)


@pytest.mark.parametrize("rates", [None, "cosine(0.2)", "0:1 50%:1.3"])
@pytest.mark.parametrize(("beta", "nu"), [(0.5, 1.0), (0.9, 1.0), (0.9, 0.4)])
def test_the_sharp_form_takes_the_best_kappa(rates, beta, nu):
    eta = 0.6 * theory.largest_step("nshb", PROBLEM.smoothness, beta, form="sharp") / 1.3
    made = None if rates is None else rate_schedule(rates)
    found = theory.sums(Plan(Step(eta, beta, nu), batch_schedule("0:4 900:16"), made), 2000)
    L, noise = PROBLEM.smoothness, PROBLEM.noise
    values = [
        (PROBLEM.gap + L * noise * found.fresh / 2 + k * L**2 * noise * found.kept_path)
        / (found.path * (1 - 1 / (2 * k)) - L * found.squares / 2 - k * L**2 * found.signal)
        for k in np.geomspace(0.5, 1e4, 20_001)
        if 1 - L * found.largest / 2 - 1 / (2 * k) - k * (L * found.reach) ** 2 >= 0
    ]
    value = theory.evaluated(PROBLEM, found, "sharp").value
    assert value == pytest.approx(min(values), rel=1e-5)
    assert value <= min(values)


# Exact trainings: f = ½hθ², gradients hθ + noise of variance s²/b, second moments by recursion.


def moments(step, h, s2, start, inverse, eta):
    """E‖∇f(θ_t)‖² before each update, and at the end."""
    beta, nu = step.momentum, step.nu
    second, found = np.array([[start**2, 0.0], [0.0, 0.0]]), []
    for one, rate in zip(inverse, eta, strict=True):
        found.append(h**2 * second[0, 0])
        memory = np.array([(1 - beta) * h, beta])  # d after, from (θ, d); the noise enters as 1−β
        taken = nu * memory + np.array([(1 - nu) * h, 0.0])
        A = np.array([np.array([1.0, 0.0]) - rate * taken, memory])
        into = np.array([-rate * (nu * (1 - beta) + 1 - nu), 1 - beta])
        second = A @ second @ A.T + s2 * one * np.outer(into, into)
    return np.array([*found, h**2 * second[0, 0]])


def test_for_sgd_on_a_parabola_the_sharp_form_misses_only_what_is_left_at_the_end():
    plan = Plan(Step.of("sgd", 0.5), batch_schedule("0:2 40:8"))
    inverse = [1 / size for _, size in plan.batches.updates(0, 200)]
    found = moments(plan.step, 2.0, 3.0, 1.5, inverse, [0.5] * len(inverse))
    problem = Problem(2.0, 3.0, 2.0 * 1.5**2 / 2)
    sharp = theory.bound(problem, plan, 200, "sharp")
    left = found[-1] / (2 * 2.0)  # f = ‖∇f‖²/2h
    weight = 0.5 * len(inverse) * (1 - 2.0 * 0.5 / 2)
    assert sharp.value == pytest.approx(found[:-1].mean() + left / weight, rel=1e-12)


CASES = list(
    itertools.product(
        [("sgd", 0.0, 0.0), ("nshb", 0.5, 1.0), ("nshb", 0.9, 1.0), ("qhm", 0.9, 0.5)],
        ["4", "0:4 200:8 600:32", "0:64 400:4"],
        [None, "cosine", "warmup(0.2) constant", "0:0.5 50%:1"],
        [0.05, 1.0],
    )
)


def within(rates, form):
    """Share of the largest step; where the rate rises, r is larger than at its peak."""
    return 0.6 if rates else 1.0 if form == "lemma" else 0.95


def slackness(case, planted=1.0):
    """The weighted mean of E‖∇f‖² over its bounds, for curvatures up to L."""
    (_, beta, nu), text, rates, h = case
    for form in ("lemma", "sharp"):
        made = None if rates is None else rate_schedule(rates)
        eta = within(rates, form) * theory.largest_step("qhm", 1.0, beta, nu, form)
        plan = Plan(Step(eta, beta, nu), batch_schedule(text), made)
        inverse = [1 / size for _, size in plan.batches.updates(0, 1200)]
        share_of = made or (lambda share: 1.0)
        each = [eta * share_of(s / 1200) for s, _ in plan.batches.updates(0, 1200)]
        found = moments(plan.step, h, 1.0, 0.3, inverse, each)[:-1]
        problem = Problem(1.0, planted, h * 0.3**2 / 2)
        sums = theory.sums(plan, 1200)
        value = theory.evaluated(problem, sums, form)
        assert value.proved, form
        yield found.min() / value.value


@pytest.mark.parametrize("case", CASES)
def test_exact_trainings_stay_below_their_bounds(case):
    assert max(slackness(case)) <= 1.0


def test_a_bound_with_half_of_the_noise_would_be_exceeded():
    assert max(max(slackness(case, planted=0.5)) for case in CASES[:24]) > 1.0


def test_the_lemma_lies_above_the_sharp_form():
    for case in CASES:
        (_, beta, nu), text, rates, _ = case
        made = None if rates is None else rate_schedule(rates)
        eta = within(rates, "lemma") * theory.largest_step("qhm", 2.0, beta, nu)
        found = theory.sums(Plan(Step(eta, beta, nu), batch_schedule(text), made), 1200)
        lemma, sharp = (theory.evaluated(PROBLEM, found, form) for form in ("lemma", "sharp"))
        assert lemma.proved
        assert sharp.value <= lemma.value


# Step sizes


@pytest.mark.parametrize("beta", np.linspace(0.0, 0.999, 40).tolist())
def test_the_printed_minimum_lies_within_what_is_derived(beta):
    printed = theory.largest_step("nshb", 1.0, beta, form="printed growing")
    assert printed <= theory.largest_step("nshb", 1.0, beta)


def test_the_printed_maximum_would_allow_a_step_that_diverges():
    beta = 0.01
    constant = theory.largest_step("nshb", 1.0, beta, form="printed constant")
    second = (1 - beta) ** 2 / (5 * beta**2 - 6 * beta + 5)
    for eta, stays in ((max(constant, second), False), (min(constant, second), True)):
        norms = moments(Step.of("nshb", eta, beta), 1.0, 0.0, 1.0, [1.0] * 200, [eta] * 200)
        assert (norms[-1] < 1) == stays
        assert (norms.mean() <= 2 * 0.5 / (eta * 200)) == stays


def test_the_heavy_ball_bears_the_rate_of_its_normal_form():
    for form in ("lemma", "sharp", "printed constant", "printed growing"):
        shb, nshb = (theory.largest_step(r, 3.0, 0.9, form=form) for r in ("shb", "nshb"))
        assert shb == pytest.approx(0.1 * nshb)


def test_the_families_limits_meet():
    assert Step.of("qhm", 0.1, 0.9, nu=1.0) == Step.of("nshb", 0.1, 0.9)
    qhm, sgd = (Step.of(rule, 0.1, 0.9, nu=0.0) for rule in ("qhm", "sgd"))
    for form in ("lemma", "sharp"):
        one, other = (
            theory.bound(PROBLEM, Plan(step, batch_schedule("0:4 80:8")), 400, form)
            for step in (qhm, sgd)
        )
        assert one == other


# Ranges


def test_a_step_outside_the_proof_warns_and_the_lemma_still_gives_its_number():
    plan = Plan(Step.of("nshb", 1.0), batch_schedule(8))
    with pytest.warns(ValidityWarning, match=r"proved for rates up to 0\.0189"):
        found = theory.bound(PROBLEM, plan, 800)
    assert not found.proved
    assert math.isfinite(found.value)
    with pytest.warns(ValidityWarning, match="sharp"):
        assert theory.bound(PROBLEM, plan, 800, "sharp").value == math.inf


@pytest.mark.parametrize(("rate", "warns"), [(1.9, False), (2.0, True), (0.5, False)])
def test_a_rate_that_outgrows_the_root_of_the_batch_warns(rate, warns, recwarn):
    rates = rate_schedule(f"0:1 50%:{rate}")
    plan = Plan(Step.of("sgd", 0.01), batch_schedule("0:8 400:32"), rates)
    theory.bound(PROBLEM, plan, 800)
    said = [str(w.message) for w in recwarn if w.category is ValidityWarning]
    assert bool(said) == warns
    assert all("square root" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Problem(0.0, 1.0, 1.0), "`smoothness` must be finite and above 0"),
        (lambda: Problem(1.0, -1.0, 1.0), "`noise` must be finite, 0 or more"),
        (lambda: Step.of("sgd", 0.0), "`learning_rate` must be finite and above 0"),
        (lambda: Step.of("shb", 0.1, 1.0), r"`momentum` must be in \[0, 1\)"),
        (lambda: Step.of("qhm", 0.1, 0.9, 1.5), r"`nu` must be in \[0, 1\]"),
        (lambda: theory.ranked(PROBLEM, {}, 10), "`plans` must be at least one"),
        (
            lambda: theory.constant_bound(PROBLEM, Step.of("qhm", 0.1), 8, 10),
            "`nu` must be 1 for this theorem",
        ),
        (
            lambda: theory.growing_bound(PROBLEM, Step.of("sgd", 0.1), 8, 1.0, (1, 1)),
            "`factor` must be above 1",
        ),
        (
            lambda: theory.sums(Plan(Step.of("sgd", 0.1), batch_schedule("0:8 2ep:9")), 10),
            "in samples before it is read",
        ),
    ],
)
def test_what_is_impossible_is_refused(call, words):
    with pytest.raises(InvalidValueError, match=words):
        call()


@pytest.mark.wrong_type
def test_a_rule_outside_the_family_is_refused():
    with pytest.raises(InvalidValueError, match="`rule` must be one of sgd, shb"):
        Step.of("adam", 0.1)


# Ranking


def test_schedules_are_ranked_by_their_bounds_at_equal_samples():
    step = Step.of("shb", theory.largest_step("shb", PROBLEM.smoothness))
    texts = ("8", "0:8 2k:16 4k:32", "64", "0:32 4k:8")
    plans = {text: Plan(step, batch_schedule(text)) for text in texts}
    found = theory.ranked(PROBLEM, plans, 8000)
    values = [one.bound.value for one in found]
    assert values == sorted(values)
    counts = {one.name: one.bound.updates for one in found}
    assert counts == {t: batch_schedule(t).count(0, 8000) for t in texts}


def test_little_noise_ranks_small_batches_first_and_much_noise_large_ones():
    step = Step.of("sgd", 0.1)
    plans = {text: Plan(step, batch_schedule(text)) for text in ("8", "64")}
    for noise, first in ((1e-6, "8"), (1e6, "64")):
        problem = Problem(1.0, noise, 1.0)
        assert theory.ranked(problem, plans, 8000)[0].name == first
