"""Slow and obvious versions of what the package does fast, written from the definitions."""

import math

import torch

from batchlab import _random

# Update rules on one number. Each is a generator: send a gradient, get the new θ.


def sgd(theta, *, learning_rate, weight_decay=0.0):
    while True:
        g = yield theta
        theta = theta - learning_rate * (g + weight_decay * theta)


def shb(theta, *, learning_rate, momentum, weight_decay=0.0):
    m = 0.0
    while True:
        g = yield theta
        m = momentum * m + (g + weight_decay * theta)
        theta = theta - learning_rate * m


def nshb(theta, *, learning_rate, momentum, weight_decay=0.0):
    m = 0.0
    while True:
        g = yield theta
        m = momentum * m + (1 - momentum) * (g + weight_decay * theta)
        theta = theta - learning_rate * m


def qhm(theta, *, learning_rate, momentum, nu, weight_decay=0.0):
    d = 0.0
    while True:
        g = yield theta
        g = g + weight_decay * theta
        d = momentum * d + (1 - momentum) * g
        theta = theta - learning_rate * ((1 - nu) * g + nu * d)


def nesterov(theta, *, learning_rate, momentum, weight_decay=0.0):
    past = []
    while True:
        g = yield theta
        past.append(g + weight_decay * theta)
        t = len(past) - 1
        velocity = sum(momentum ** (t - i) * g_i for i, g_i in enumerate(past))
        theta = theta - learning_rate * (past[-1] + momentum * velocity)


def adam(theta, *, learning_rate, momentum, beta2, eps, weight_decay=0.0, decoupled=False):
    past = []
    while True:
        g = yield theta
        past.append(g if decoupled else g + weight_decay * theta)
        t = len(past)
        weights = [momentum ** (t - 1 - i) for i in range(t)]
        squares = [beta2 ** (t - 1 - i) for i in range(t)]
        # The bias correction makes both of them weighted means.
        m = sum(w * g_i for w, g_i in zip(weights, past, strict=True)) / sum(weights)
        s = sum(w * g_i**2 for w, g_i in zip(squares, past, strict=True)) / sum(squares)
        decay = weight_decay * theta if decoupled else 0.0
        theta = theta - learning_rate * (m / (math.sqrt(s) + eps) + decay)


def adamw(theta, **numbers):
    return adam(theta, decoupled=True, **numbers)


def rmsprop(theta, *, learning_rate, momentum, beta2, eps, weight_decay=0.0):
    s, v = 0.0, 0.0
    while True:
        g = yield theta
        g = g + weight_decay * theta
        s = beta2 * s + (1 - beta2) * g**2
        v = momentum * v + g / (math.sqrt(s) + eps)
        theta = theta - learning_rate * v


def follow(rule, theta, gradients, **numbers):
    """θ after every gradient."""
    steps = rule(theta, **numbers)
    next(steps)
    return [steps.send(g) for g in gradients]


# The one stream


def stream(examples, seed, length):
    """The first samples of the stream as (index, pass), one permutation after another."""
    drawn = []
    pass_ = 0
    while len(drawn) < length:
        drawn += [(i, pass_) for i in _random.permutation(examples, seed, pass_).tolist()]
        pass_ += 1
    return drawn[:length]


def blocks(lengths, window, seed, length):
    """The same where blocks are shuffled, and examples among ``window`` blocks at a time."""
    starts = [sum(lengths[:b]) for b in range(len(lengths))]
    drawn, pass_ = [], 0
    while len(drawn) < length:
        generator = _random.generator(seed, "blocks", pass_)
        order = torch.randperm(len(lengths), generator=generator).tolist()
        for number, first in enumerate(range(0, len(order), window)):
            own = order[first : first + window]
            examples = [i for b in own for i in range(starts[b], starts[b] + lengths[b])]
            generator = _random.generator(seed, "window", pass_, number)
            shuffled = torch.randperm(len(examples), generator=generator).tolist()
            drawn += [(examples[place], pass_) for place in shuffled]
        pass_ += 1
    return drawn[:length]


# Batch schedules, given as [(position, unit, size)], update by update


def batches(steps, examples, budget):
    """(first sample, size) of every batch: before each, the latest step that has begun decides."""
    drawn = updates = at = 0
    found = []
    while True:
        while at + 1 < len(steps) and has_begun(steps[at + 1], examples, drawn, updates):
            at += 1
        size = steps[at][2]
        if drawn + size > budget:
            return found
        found.append((drawn, size))
        drawn, updates = drawn + size, updates + 1


def has_begun(step, examples, drawn, updates):
    position, unit, _ = step
    if unit == "upd":
        return updates >= position
    return drawn >= position * {"": 1, "k": 1_000, "M": 1_000_000, "ep": examples}[unit]


# On how many examples trainings disagree; its variance by leaving out one training after another


def disagreement(said):
    """Mean over all pairs of trainings of the share of examples on which they differ."""
    pairs = [(a, b) for i, a in enumerate(said) for b in said[:i]]
    return sum(sum(x != y for x, y in zip(a, b, strict=True)) / len(a) for a, b in pairs) / len(
        pairs
    )


def jackknife_variance(said):
    """(R−1)/R Σ(U₋ᵢ − mean of U₋ᵢ)²."""
    left = [disagreement([row for j, row in enumerate(said) if j != i]) for i in range(len(said))]
    mean = sum(left) / len(left)
    return (len(said) - 1) / len(said) * sum((u - mean) ** 2 for u in left)
