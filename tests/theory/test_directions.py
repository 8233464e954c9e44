"""Exponents and directions: known targets, independent calculations of E[·|y], and rotations."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.polynomial import hermite_e
from scipy import integrate, special

from batchlab import _random, theory
from batchlab.errors import InvalidValueError
from batchlab.theory import _quadrature, directions
from batchlab.theory.directions import exponents
from batchlab.theory.hermite import measured, of_labels, of_transforms
from batchlab.theory.leaps import order
from batchlab.theory.targets import target

V, W = (0.767832, -0.640651), (0.640651, 0.767832)


@pytest.fixture
def quick(monkeypatch):
    """Fewer points: bounds are wider, and exponents of plain targets the same."""
    monkeypatch.setattr(_quadrature, "SOBOL_POINTS", 2**14)
    monkeypatch.setattr(_quadrature, "PANELS", {1: (400, 8), 2: (20, 8), 3: (6, 6)})


def summary(found):
    """(information, leap, generative, its leap)."""
    return found.information, found.leap, found.generative, found.generative_leap


def path(found):
    return [(s.degree, s.through, len(s.directions)) for s in found.steps]


def close(vectors, expected, atol=1e-5):
    return len(vectors) == len(expected) and np.allclose(vectors, expected, atol=atol)


# ------------------------------------------------------------------ one direction


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z", (1, 1)),
        ("relu(z)", (1, 1)),
        ("He2(z)", (2, 2)),
        ("abs(z)", (2, 2)),
        ("He3(z)", (3, 1)),
        ("He4(z)", (4, 2)),
        ("He5(z)", (5, 1)),
        ("tanh(He3(z))", (1, 1)),
        ("sign(He3(z))", (1, 1)),
        ("z**2*exp(-z**2)", (4, 4)),
        ("cos(z)", (2, 2)),
        ("sign(abs(z) - 1)", (2, 2)),
        ("exp(z) + 3", (1, 1)),
    ],
)
def test_exponents_of_one_direction(text, expected):
    found = exponents(text)
    assert (found.information, found.generative) == expected
    assert summary(found) == (expected[0], *expected[:1], expected[1], expected[1])


def test_a_higher_hermite_polynomial_than_looked_at_is_not_reached():
    found = exponents("He5(z)", 4)
    assert (found.information, found.leap) == (None, None)
    assert found.one_pass_misses
    assert found.one_pass.left == ((1.0,),)
    assert exponents("He5(z)", 5).information == 5


def test_a_coefficient_below_a_thousandth_is_not_told_from_nothing():
    small, large = (exponents(f"He2(z) + {share}*z") for share in (0.0005, 0.01))
    assert small.information == 2
    assert small.one_pass.steps[0].resolution >= 0.0005 / math.sqrt(2)
    assert large.information == 1


@pytest.mark.parametrize(("a", "b"), [(3.0, -2.0), (1e-6, 1e3), (-1e5, 0.0)])
def test_neither_scale_nor_shift_of_the_label_matters(a, b):
    plain, moved = exponents("tanh(z)*z**3"), exponents(f"{a}*tanh(z)*z**3 + {b}")
    assert summary(plain) == summary(moved)
    for one, other in zip(plain.one_pass.steps, moved.one_pass.steps, strict=True):
        assert one.strengths == pytest.approx(other.strengths, abs=1e-5)


# ------------------------------------------------------------------ E[h_j | y] another way


def bump_places(y):
    """All z with z² exp(−z²) = y: −z² = W(−y), on both branches of Lambert's function."""
    squares = np.array([-special.lambertw(-y, branch).real for branch in (0, -1)])
    return np.concatenate([np.sqrt(squares), -np.sqrt(squares)])


def cube_places(y):
    """All z with z³ − 3z = y."""
    roots = np.roots([1, 0, -3, -y])
    return roots[np.abs(roots.imag) < 1e-7].real


BUMP = (
    lambda z: z**2 * np.exp(-(z**2)),
    lambda z: 2 * z * (1 - z**2) * np.exp(-(z**2)),
    bump_places,
)
CUBE = lambda z: z**3 - 3 * z, lambda z: 3 * z**2 - 3, cube_places


@functools.cache
def energies(shape, degree, points=500):
    """E[E[h_j|y]²], j = 0 … degree: E[h_j|y] is a mean over the places z where the label is y."""
    function, slope, places = shape
    grid = np.linspace(-7, 7, points) + 1e-3
    weights = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])
    found = np.zeros(degree + 1)
    for w, y in zip(weights, function(grid), strict=True):
        z = places(y)
        mass = np.exp(-(z**2) / 2) / np.abs(slope(z))
        h = hermite_e.hermevander(z, degree)
        found += w * (mass @ h / mass.sum()) ** 2
    return found / special.factorial(np.arange(degree + 1))


@pytest.mark.parametrize(("shape", "text"), [(BUMP, "z**2*exp(-z**2)"), (CUBE, "He3(z)")])
def test_what_the_functions_of_the_label_see_is_at_most_the_conditional_mean(shape, text):
    """Most of it in the first degree; what the conditional mean lacks they do not see at all."""
    seen = of_transforms(measured(target(text), 0), 6).mean(0).square().sum(0).numpy()
    exact = energies(shape, 6)
    assert exact[0] == pytest.approx(1, abs=1e-9)
    assert (seen <= exact + 5e-3).all()
    first = 1 + int((exact[1:] > 1e-9).argmax())
    assert seen[first] >= 0.7 * exact[first]
    assert ((exact < 1e-9) == (seen < 1e-9)).all()


def test_the_bump_hides_degrees_one_to_three_and_no_more():
    exact = energies(BUMP, 6)
    assert max(exact[1:4]) < 1e-12
    assert exact[4] > 0.1


def test_the_sign_of_a_product_is_seen_as_the_two_values_of_the_label(quick):
    """E[h_α | y] = c_α y: nothing is lost by functions of the label."""
    found = of_transforms(measured(target("sign(z1*z2)"), 0), 2).mean(0).square().sum(0)
    assert found.tolist() == pytest.approx([1, 0, 0, 0, (2 / math.pi) ** 2, 0], abs=2e-3)


def test_a_product_of_two_is_seen_as_bessel_functions_say(quick):
    """E[z1² | z1 z2 = y] = |y| K₁(|y|)/K₀(|y|), and the density of y is K₀(|y|)/π."""

    def part(y):
        ratio = y * special.k1(y) / special.k0(y)
        return (ratio - 1) ** 2 / 2 * special.k0(y) / math.pi

    exact = 2 * integrate.quad(part, 0, 40)[0]
    seen = of_transforms(measured(target("z1*z2"), 0), 2).mean(0).square().sum(0)
    square, mixed, other = seen[3:6].tolist()
    assert 0.8 * exact <= square <= exact + 5e-3
    assert square == pytest.approx(other, abs=5e-3)
    assert mixed == pytest.approx(1.0, abs=5e-3)  # E[z1 z2 | y] = y
    assert seen[1:3].max() < 1e-3


def halves(text, examples=100_000, bins=50):
    """E[E[h_α|bin]²] of each direction in degrees 1 and 2: split in halves, and naively."""
    known = target(text)
    draws = _random.generator(3, "halves")
    z = torch.randn(examples, known.dimensions, dtype=torch.float64, generator=draws)
    rank = known(z).argsort().argsort()
    where = rank * bins // examples
    for h in (z, (z**2 - 1) / math.sqrt(2)):
        means = torch.zeros(2, bins, known.dimensions, dtype=torch.float64)
        for half in (0, 1):
            mine = torch.arange(examples) % 2 == half
            means[half].index_add_(0, where[mine], h[mine])
            means[half] /= examples / 2 / bins
        yield (means[0] * means[1]).mean(0), means[0].square().mean(0)


def test_sampling_in_halves_finds_the_generative_exponent_of_a_product_of_three(quick):
    """n = 100,000, 50 bins; the standard error of a square that is 0 is 50^½ · 2/n = 1.4e-4."""
    (first, naive), (second, _) = halves("z1*z2*z3")
    assert first.abs().max() < 4 * 1.4e-4
    assert naive.min() > 4 * 1.4e-4  # the twin: squares of noisy means are never 0
    strength = exponents("z1*z2*z3", 2).reuse.steps[0]
    assert strength.degree == 2
    assert (np.array(strength.strengths) ** 2 <= second.numpy() + 0.02).all()


# ------------------------------------------------------------------ several directions


def test_the_staircase_of_the_hidden_cube(quick):
    found = exponents("tanh(He1(z1) + He3(z2))")
    assert summary(found) == (1, 1, 1, 1)
    assert close(found.at_once, [V])
    assert path(found.one_pass) == [(1, 0, 1), (1, 2, 1)]
    assert close(found.one_pass.directions, [V, W])
    assert close(found.only_by_reuse, [W])
    assert not found.even
    assert found.mirrors == ()


@pytest.mark.parametrize(
    ("text", "numbers", "steps"),
    [
        ("z1 + z1*z2", (1, 1, 1, 1), [(1, 0, 1), (1, 1, 1)]),
        ("z1*z2", (2, 2, 2, 2), [(2, 0, 2)]),
        ("sign(z1*z2)", (2, 2, 2, 2), [(2, 0, 2)]),
        ("z1 + He3(z2)", (1, 3, 1, 1), [(1, 0, 1), (3, 0, 1)]),
        ("z1 + z1*He3(z2)", (1, 3, 1, 1), [(1, 0, 1), (3, 1, 1)]),
        ("tanh(z1) + tanh(z2)", (1, 2, 1, 2), [(1, 0, 1), (2, 1, 1)]),
        ("z1**2 - z2**2", (2, 2, 2, 2), [(2, 0, 2)]),
    ],
)
def test_exponents_of_two_directions(quick, text, numbers, steps):
    found = exponents(text)
    assert summary(found) == numbers
    assert path(found.one_pass) == steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "numbers", "steps"),
    [
        ("z1*z2*z3", (3, 3, 2, 2), [(3, 0, 3)]),
        ("sign(z1*z2*z3)", (3, 3, 3, 3), [(3, 0, 3)]),
        ("z1 + z1*z2 + z1*z2*z3", (1, 1, 1, 1), [(1, 0, 1), (1, 1, 1), (1, 2, 1)]),
        ("z1 + z1*z2*z3", (1, 2, 1, 2), [(1, 0, 1), (2, 1, 2)]),
        ("z1*z2*z3*z4", (4, 4, 2, 2), [(4, 0, 4)]),
        ("tanh(z1 + z5)", (1, 1, 1, 1), [(1, 0, 1)]),
    ],
)
def test_exponents_of_many_directions(text, numbers, steps):
    found = exponents(text)
    assert summary(found) == numbers
    assert path(found.one_pass) == steps


def test_a_direction_that_does_not_matter_is_left_and_not_missed(quick):
    found = exponents("tanh(z1)", dimensions=2)
    assert found.one_pass.left == ((0.0, 1.0),)
    assert not found.one_pass_misses
    assert summary(found) == (1, 1, 1, 1)
    assert found.mirrors == ()


def test_a_direction_that_is_beyond_the_degree_is_missed(quick):
    found = exponents("z1 + He5(z2)", 4)
    assert found.one_pass.left == ((0.0, 1.0),)
    assert found.one_pass_misses
    assert found.leap is None
    assert not found.reuse_misses


@pytest.mark.parametrize(
    ("text", "even", "mirrors"),
    [
        ("z1**2 + z2", False, [(1, 0)]),
        ("z1*z2", True, []),
        ("abs(z1) + z2**4", True, [(1, 0), (0, 1)]),
        ("He3(z1 + z2)", False, []),
        ("(z1 - z2)**2 + z1 + z2", False, [(1 / math.sqrt(2), -1 / math.sqrt(2))]),
    ],
)
def test_mirrors_are_found(quick, text, even, mirrors):
    found = exponents(text, 3)
    assert found.even == even
    assert close(found.mirrors, mirrors) if mirrors else found.mirrors == ()


def test_no_even_target_is_learned_at_once(quick):
    for text in ("z**2*exp(-z**2)", "z1*z2", "sign(abs(z1) - abs(z2))"):
        found = exponents(text, 4)
        assert found.even
        assert found.at_once == found.at_once_by_reuse == found.only_by_reuse == ()


@pytest.mark.parametrize(
    ("text", "hidden", "blind", "seeing"),
    [
        ("tanh(He1(z1) + He3(z2))", W, "relu", "tanh"),
        ("z1 + z1*z2", (0.0, 1.0), "tanh", "relu"),
    ],
)
def test_a_student_climbs_the_stairs_iff_its_slope_has_a_part_of_their_degree(
    quick, text, hidden, blind, seeing
):
    """Mean-field dynamics of one pass, four steps; a half-width is 1.75 standard errors."""
    assert exponents(text).one_pass.steps[1].through % 2 == (blind == "tanh")
    for student, seen in ((blind, False), (seeing, True)):
        found = theory.dmft(
            text,
            alpha=3,
            learning_rate=0.2,
            steps=4,
            activation=student,
            passes="single",
            samples=2**16,
        )
        along = found.overlaps.of(lambda m: m @ torch.tensor(hidden, dtype=torch.float64))
        ratio = (along.value[-1] / (along.high[-1] - along.value[-1])).abs()
        assert (ratio >= 4).all() if seen else (ratio <= 2.3).all()


# ------------------------------------------------------------------ rotations

TARGETS = ["tanh(He1(z1) + He3(z2))", "z1 + z1*z2", "z1 + He3(z2)", "z1**2 + z2"]


def turned(text, angle, flip):
    c, s = math.cos(angle), math.sin(angle)
    axes = torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
    axes = axes * torch.tensor([1.0, -1.0 if flip else 1.0], dtype=torch.float64)
    plain = target(text)
    return target(lambda z: plain(z @ axes.mT), 2), axes


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(TARGETS), st.floats(0, 6.3), st.booleans())
def test_a_turned_target_has_the_same_steps_and_turned_directions(quick, text, angle, flip):
    function, axes = turned(text, angle, flip)
    plain, other = (of_labels(measured(f, 0), 4) for f in (target(text), function))
    first, second = (order(each, 2, 4, 1e-3) for each in (plain, other))
    assert path(first) == path(second)
    for one, two in zip(first.steps, second.steps, strict=True):
        assert one.strengths == pytest.approx(two.strengths, abs=1e-4)
    found = np.array(second.directions) @ axes.numpy().T
    cosines = np.abs((found * np.array(first.directions)).sum(1))
    assert cosines == pytest.approx(np.ones(2), abs=1e-4)


def test_a_direction_turned_the_other_way_would_be_seen(quick):
    function, axes = turned(TARGETS[0], 0.5, False)
    found = order(of_labels(measured(function, 0), 4), 2, 4, 1e-3)
    wrong = np.array(found.directions) @ axes.numpy()
    assert abs(wrong[0] @ np.array(V)) < 0.9


@pytest.mark.parametrize("angle", [0.3, 1.1])
def test_a_turned_target_has_the_same_exponents(quick, angle):
    function, axes = turned(TARGETS[0], angle, False)
    found = exponents(function, 4)
    assert summary(found) == (1, 1, 1, 1)
    assert np.abs(np.array(found.only_by_reuse) @ axes.numpy().T @ np.array(W)) == pytest.approx(1)


# ------------------------------------------------------------------ the function itself


def test_it_is_public():
    assert theory.exponents is exponents
    assert theory.Exponents is directions.Exponents


def test_the_same_seed_gives_the_same(quick):
    assert exponents("tanh(z1*z2)", 3) == exponents("tanh(z1*z2)", 3)


@pytest.mark.parametrize("text", ["exp(z**2)", "exp(z1**2)*z4", "1/z", "log(z)", "7", "w"])
def test_impossible_targets_are_refused(quick, text):
    with pytest.raises(InvalidValueError, match="`target` must be"):
        exponents(text)


@pytest.mark.parametrize(
    "text",
    [
        "sign(z-2.37)+sign(z+2.37)",  # two rare atoms
        "relu(z-2.7)-relu(-z-2.7)",  # almost all labels are one value
        "sign(z-2.45)+2*sign(z+3)",  # the middle half of the labels is one value
    ],
)
def test_a_function_of_the_label_sees_no_less_than_the_label_does(text):
    found = exponents(text, 4)
    assert found.information == found.generative == 1
    assert found.at_once_by_reuse


@pytest.mark.parametrize("text", ["sign(z1 + 0.5*z2 - 0.3)", "sign(z1 + z2)"])
def test_a_slanted_jump_leaves_no_direction_that_it_does_not_depend_on(text):
    found = exponents(text, 4)
    assert (found.leap, found.one_pass_misses, found.reuse_misses) == (1, False, False)
