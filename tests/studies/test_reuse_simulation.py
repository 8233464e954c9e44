"""The simulation of students that re-use batches, against loops from the equations."""

import itertools
import math

import numpy as np
import pytest
import torch

from batchlab import _random
from batchlab.errors import InvalidValueError
from batchlab.studies.batch_reuse import simulate as simulation
from batchlab.studies.batch_reuse.simulate import (
    Setting,
    Summary,
    Unread,
    Whole,
    along,
    descend,
    residual,
    simulate,
    single,
    singles,
    start,
)

# ------------------------------------------------------------------ batches that are not drawn


def generators(count, first=0):
    return [torch.Generator().manual_seed(first + seed) for seed in range(count)]


def normal(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_an_unread_batch_answers_fits_together():
    batch, asked_v, asked_u = Unread(9, 7, generators(3)), [], []
    for seed in range(2):
        v, u = normal(3, 7, 2, seed=seed), normal(3, 9, 1, seed=seed + 9)
        asked_v.append((v, batch.times(v)))
        asked_u.append((u, batch.back(u)))
    for (v, xv), (u, xu) in itertools.product(asked_v, asked_u):
        assert torch.allclose(u.mT @ xv, xu.mT @ v, atol=1e-12)
    (first, answer), (second, other) = asked_v
    assert torch.allclose(batch.times(first + 2 * second), answer + 2 * other, atol=1e-12)


def jacobian(monkeypatch, forgets):
    """Of the whole X by the normals that were drawn on the way to it."""
    n, d = 4, 3
    turn = torch.linalg.qr(normal(1, d, d))[0]
    u = normal(1, n, 2, seed=1)

    def whole(unit):
        drawn = iter(range(100))

        def normals(rngs, *size):
            numbers = torch.zeros(math.prod(size), dtype=torch.float64)
            for place in range(len(numbers)):
                numbers[place] = float(next(drawn) == unit)
            return numbers.reshape(1, *size)

        monkeypatch.setattr(simulation, "_normals", normals)
        batch = Unread(n, d, [torch.Generator()])
        first = batch.times(turn[..., :1])
        batch.back(u)
        if forgets:
            batch._xu = torch.zeros_like(batch._xu)
        rest = batch.times(turn[..., 1:])
        return (torch.cat((first, rest), -1) @ turn.mT).flatten()

    return torch.stack([whole(unit) for unit in range(n * d + 2 + 2 * d)], 1)


def test_an_unread_batch_is_of_independent_standard_normals(monkeypatch):
    J = jacobian(monkeypatch, forgets=False)
    assert torch.allclose(J @ J.T, torch.eye(12, dtype=torch.float64), atol=1e-12)


def test_an_unread_batch_that_forgets_what_it_said_is_not(monkeypatch):
    J = jacobian(monkeypatch, forgets=True)
    assert (J @ J.T - torch.eye(12, dtype=torch.float64)).abs().max() > 0.1


def test_an_unread_batch_asked_for_more_than_it_has_is_refused():
    batch = Unread(5, 3, generators(1))
    batch.times(normal(1, 3, 2))
    with pytest.raises(InvalidValueError, match="`batch_size and inputs` must be more than the"):
        batch.times(normal(1, 3, 2, seed=1))


# ------------------------------------------------------------------ updates

PLAIN = {"target": "z1 + z1*z2", "learning_rate": 0.2, "width": 2, "activation": "tanh"}


def loop(setting, W, teacher, data):
    """The equations, example by example."""
    a, d = setting.second_layer.numpy(), setting.inputs

    def gradient(W, X):
        G = np.zeros_like(W)
        for x in X:
            z, h = teacher @ x / math.sqrt(d), W @ x / math.sqrt(d)
            error = (a * np.tanh(h)).sum() - (z[0] + z[0] * z[1])
            for j in range(len(W)):
                G[j] += error * a[j] / np.cosh(h[j]) ** 2 * x / math.sqrt(d)
        return G

    path = [W]
    for t in range(setting.updates):
        X = data[t // setting.reuse]
        ahead = W - setting.look_ahead * gradient(W, X)
        W = W - setting.learning_rate * gradient(ahead, X)
        path.append(W)
    return np.stack(path)


@pytest.mark.parametrize(("reuse", "look_ahead"), [(1, 0.0), (2, 0.0), (4, 0.0), (2, 0.7)])
def test_updates_are_the_equations(reuse, look_ahead):
    setting = Setting(
        inputs=6, batch_size=5, updates=4, reuse=reuse, look_ahead=look_ahead, **PLAIN
    )
    W, teacher = start(setting, generators(2))
    data = normal(4 // reuse, 2, 5, 6)
    path = [found for found, _ in descend(W, teacher, iter(map(Whole, data)), setting)]
    for seed in range(2):
        expected = loop(setting, W[seed].numpy(), teacher[seed].numpy(), data[:, seed].numpy())
        assert np.allclose(torch.stack(path)[:, seed].numpy(), expected, atol=1e-12)


def test_a_student_starts_at_right_angles_to_its_teacher():
    setting = Setting(inputs=6, batch_size=5, updates=1, **PLAIN)
    rows = torch.cat(start(setting, generators(3)), 1)
    assert torch.allclose(rows @ rows.mT / 6, torch.eye(4, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize(("reuse", "look_ahead"), [(1, 0.0), (3, 0.0), (1, 0.7), (2, 0.7)])
def test_single_examples_need_no_weights(reuse, look_ahead):
    setting = Setting(
        **PLAIN | {"inputs": 6, "batch_size": 1, "look_ahead": look_ahead},
        **dict.fromkeys(("updates", "reuse", "every"), reuse),
    )
    W, teacher = start(setting, generators(4))
    W = W + 0.3 * teacher
    x = normal(4, 1, 6)
    end = list(descend(W, teacher, iter([Whole(x)]), setting))[-1][0]
    z, h = ((x @ rows.mT)[:, 0] / math.sqrt(6) for rows in (teacher, W))
    known = Summary(W @ teacher.mT / 6, W @ W.mT / 6)
    found = single(known, z, h, x.square().sum((1, 2)) / 6, setting)
    assert torch.allclose(found.overlaps, end @ teacher.mT / 6, atol=1e-12)
    assert torch.allclose(found.selves, end @ end.mT / 6, atol=1e-12)


def test_lengths_of_single_examples_are_those_of_gaussian_ones():
    setting = Setting(inputs=9, batch_size=1, updates=1, **PLAIN)
    rngs = [np.random.default_rng(seed) for seed in range(400)]
    _, _, sizes = zip(*itertools.islice(singles(setting, rngs), 50), strict=True)
    sizes = torch.cat(sizes).numpy() * 9
    n = len(sizes)
    assert abs(sizes.mean() - 9) < 4 * math.sqrt(18 / n)
    # Var of (x − 9)² for χ²: κ₄ + 2σ⁴ = 48·9 + 2·18².
    assert abs(((sizes - 9) ** 2).mean() - 18) < 4 * math.sqrt((48 * 9 + 2 * 18**2) / n)


# ------------------------------------------------------------------ all together


def means(setting, seeds):
    paths = simulate(setting, range(seeds))
    M, Q = paths.overlaps[:, -1], paths.selves[:, -1]
    found = torch.cat((M.flatten(1), Q.flatten(1), M.square().flatten(1)), 1)
    return found.mean(0), found.std(0) / math.sqrt(seeds)


def worst(one, other, seeds=3000):
    (a, da), (b, db) = means(one, seeds), means(other, seeds)
    return float(((a - b) / (da.square() + db.square()).sqrt()).abs().max())


SMALL = Setting(inputs=12, batch_size=24, updates=3, reuse=3, **PLAIN)


def changed(**fields):
    return Setting(**(vars(SMALL) | fields))


def test_an_unread_batch_teaches_what_a_whole_one_does():
    assert worst(SMALL, changed(examples=24)) < 4


def test_fresh_batches_do_not():
    assert worst(changed(reuse=1), changed(examples=24)) > 5


def test_single_examples_teach_what_whole_ones_do():
    one = changed(batch_size=1, updates=12, reuse=2, every=2, look_ahead=0.3)
    whole = changed(batch_size=1, updates=12, reuse=2, look_ahead=0.3, examples=6)
    # As many examples as are used: one pass over a data set is fresh examples.
    assert worst(one, whole) < 4


def test_single_examples_without_looking_ahead_teach_something_else():
    one = changed(batch_size=1, updates=12, reuse=2, every=2, look_ahead=0.3)
    assert worst(one, changed(batch_size=1, updates=12, reuse=2, every=2)) > 5


def test_a_seed_does_not_depend_on_its_neighbours(monkeypatch):
    for setting in (SMALL, changed(examples=48), changed(batch_size=1, updates=9, every=3)):
        together = simulate(setting, range(5))
        with monkeypatch.context() as patched:
            patched.setattr(simulation, "CHUNK_BYTES", 1)
            alone = simulate(setting, range(5))
        assert torch.allclose(together.overlaps, alone.overlaps, atol=1e-12)
        assert torch.allclose(together.selves, alone.selves, atol=1e-12)


def test_small_batches_go_through_every_example_once_a_pass():
    setting = changed(batch_size=5, examples=15, updates=6, reuse=1)
    batches = simulation._batches(setting, [_random.generator(0, "x")])
    rows = torch.cat([batch.examples[0] for batch in itertools.islice(batches, 6)])
    first, second = rows[:15], rows[15:]
    assert len(torch.unique(first, dim=0)) == 15
    assert torch.equal(torch.unique(first, dim=0), torch.unique(second, dim=0))
    assert not torch.equal(first, second)


def test_what_one_step_leaves_in_pre_activations_is_seen_by_the_next():
    again = simulate(changed(inputs=60, batch_size=240), range(200)).seen[:, 1]
    fresh = simulate(changed(inputs=60, batch_size=240, reuse=1), range(200)).seen[:, 1]
    # E[h(1) y] = η a E[s'(h)] E[y²] + E[h(1) z] E[z y]; the second part is that of fresh batches.
    slope = 1 - np.tanh(np.random.default_rng(0).normal(size=10**6)) ** 2
    expected = 0.2 * SMALL.second_layer * slope.mean() * 2
    gained = (again - fresh).mean(0)
    error = (again - fresh).std(0) / math.sqrt(200)
    assert ((gained - expected).abs() < 4 * error + 0.05 * expected.abs()).all()


def test_cosines_and_residuals_are_their_formulas():
    paths = simulate(SMALL, range(2))
    M, Q = paths.overlaps[0, -1], paths.selves[0, -1]
    expected = M / Q.diagonal().sqrt()[:, None]
    assert torch.allclose(paths.cosines[0, -1], expected)
    assert torch.allclose(
        residual(paths.overlaps, (0.6, -0.8))[0, -1], 0.8 * M[:, 0] + 0.6 * M[:, 1]
    )
    assert torch.allclose(along(paths.overlaps, (0.6, -0.8))[0, -1], 0.6 * M[:, 0] - 0.8 * M[:, 1])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"updates": 0}, "`updates` must be 1 or more; got 0"),
        ({"every": 2}, "`every` must be a divisor of the 3 updates; got 2"),
        ({"batch_size": 1}, "`every` must be a multiple of the 3 updates on each example; got 1"),
        ({"examples": 10}, "`examples` must be 0, or at least the batch size 24; got 10"),
    ],
)
def test_an_impossible_setting_is_refused(fields, words):
    with pytest.raises(InvalidValueError, match=words):
        changed(**fields)
