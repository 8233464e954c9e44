"""The language of targets and activations: what it computes, and that nothing else runs."""

import math

import pytest
import torch
from numpy.polynomial import hermite_e

from batchlab.errors import InvalidValueError
from batchlab.theory._expressions import FUNCTIONS, hermite
from batchlab.theory.activations import activation
from batchlab.theory.targets import target

Z = torch.linspace(-3, 3, 61, dtype=torch.float64)
PAIRS = torch.stack([Z, Z.flip(0) + 0.5], dim=-1)


@pytest.mark.parametrize("degree", range(8))
def test_hermite_polynomials_are_those_of_numpy(degree):
    expected = hermite_e.hermeval(Z.numpy(), [0] * degree + [1])
    assert torch.allclose(hermite(degree, Z), torch.from_numpy(expected))
    assert torch.allclose(target(f"He{degree}(z)")(Z[:, None]), torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("text", "function"),
    [
        ("z1 + z1*z2", lambda a, b: a + a * b),
        ("tanh(He1(z1) + He3(z2))", lambda a, b: torch.tanh(a + b**3 - 3 * b)),
        ("sign(z1*z2) / 2 - -z2**2", lambda a, b: torch.sign(a * b) / 2 + b**2),
        ("exp(-z1**2) * pi", lambda a, b: torch.exp(-(a**2)) * math.pi),
    ],
)
def test_an_expression_is_what_python_makes_of_it(text, function):
    assert torch.allclose(target(text, 2)(PAIRS), function(*PAIRS.unbind(-1)))


def test_a_constant_is_a_target():
    assert target("3")(Z[:, None]).tolist() == [3.0] * len(Z)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be an expression"),
        ("z1 +", "must be an expression"),
        ("__import__('os')", "known functions|what is understood"),
        ("z1.real", "made of what is understood; got 'z1.real'"),
        ("(lambda: 1)()", "made of what is understood"),
        ("z1 if z1 else 1", "made of what is understood"),
        ("[z1]", "made of what is understood"),
        ("True", "made of what is understood"),
        ("tanh(z1, z2)", "made of what is understood"),
        ("He31(z1)", "known functions; got 'He31"),
        ("sinh(z)", "known functions; got 'sinh"),
        ("z9", "in the variables z or z1 … z8; got 'z9'"),
        ("z + z2", "in z alone, or in z1 … z8"),
        ("x1", "in the variables"),
        ("1e999*z", "finite numbers"),
        (f"z*{'9' * 400}", "finite numbers"),
        ("z" + "+z" * 300, "at most 500 characters"),
        ("-" * 300 + "z", "nested at most 40 deep"),
        ("\0", "must be an expression"),
    ],
)
def test_what_is_no_expression_is_refused_in_a_sentence(text, said):
    with pytest.raises(InvalidValueError, match=said):
        target(text)


def test_too_few_or_too_many_dimensions_are_refused():
    with pytest.raises(InvalidValueError, match="`dimensions` must be at least 2"):
        target("z1*z2", 1)
    with pytest.raises(InvalidValueError, match="`dimensions` must be from 1 to 8"):
        target(lambda z: z[..., 0], 9)


def test_a_function_of_another_shape_is_refused():
    with pytest.raises(InvalidValueError, match="`target` must be a function from shape"):
        target(lambda z: z, 2)(PAIRS)
    with pytest.raises(InvalidValueError, match="`z` must be of shape"):
        target("z1*z2")(Z)


def test_division_of_constants_by_zero_is_not_a_number():
    assert target("1/0")(Z[:, None]).isnan().all()


@pytest.mark.parametrize("name", ["relu", "tanh", "erf", "linear", "He0", "He1", "He4"])
def test_slopes_and_curvatures_are_the_derivatives(name):
    known, h = activation(name), Z + 0.01
    slope = torch.func.vmap(torch.func.grad(known.value))(h)
    curvature = torch.func.vmap(torch.func.grad(torch.func.grad(known.value)))(h)
    assert torch.allclose(known.slope(h), slope)
    assert torch.allclose(known.curvature(h), curvature)


def test_an_expression_and_a_function_are_differentiated():
    for made in (activation("tanh(2*h)"), activation(lambda h: torch.tanh(2 * h))):
        assert torch.allclose(made.slope(Z), 2 / torch.cosh(2 * Z) ** 2)


def test_what_bends_needs_its_kinks():
    with pytest.raises(InvalidValueError, match="`kinks` must be the places"):
        activation("relu(h) - 0.5")
    assert activation("relu(h) - 0.5", ((0.0, 1.0),)).kinks[0].jump == 1.0


def test_an_unknown_activation_is_refused():
    with pytest.raises(InvalidValueError, match="one of relu, tanh, erf, linear"):
        activation("gelu")
    with pytest.raises(InvalidValueError, match="known functions"):
        activation("gelu(h)")


def test_every_function_of_the_language_takes_constants():
    for name in FUNCTIONS:
        assert target(f"{name}(1)")(Z[:, None]).shape == Z.shape
