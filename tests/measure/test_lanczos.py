"""Eigenvalues and traces of matrices that are written down, from their products alone."""

import itertools
import math

import pytest
import torch

from batchlab.errors import TaskError
from batchlab.measure import _lanczos
from batchlab.measure._hutchinson import rademacher, trace_values
from batchlab.measure._lanczos import lanczos


class Written:
    """R matrices that are written down; notes every product with how many of them were in it."""

    def __init__(self, matrices, seen=None):
        self.matrices = matrices
        self.like = matrices[:, 0]
        self.seen = [] if seen is None else seen

    def __call__(self, vectors):
        self.seen.append(len(self.matrices))
        return (self.matrices @ vectors.unsqueeze(2)).squeeze(2)

    def only(self, rows):
        return Written(self.matrices[rows], self.seen)


def symmetric(eigenvalues, seed=0):
    """A matrix with these eigenvalues in random directions."""
    values = torch.as_tensor(eigenvalues, dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed)
    square = torch.randn(len(values), len(values), generator=draw, dtype=torch.float64)
    turn, _ = torch.linalg.qr(square)
    return turn @ torch.diag(values) @ turn.T


SPIKED = [50.0, 20.0, 10.0, *torch.linspace(-1, 1, 97).tolist()]
TWICE = [5.0, 5.0, 2.0, 1.0, *torch.linspace(0, 0.01, 50).tolist()]
EVEN = torch.linspace(0, 1, 100).tolist()


# ------------------------------------------------------------------ eigenvalues


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("spectrum", [SPIKED, EVEN, [-x for x in SPIKED]])
def test_the_largest_eigenvalues_are_those_of_the_matrix(spectrum, count):
    found = lanczos(Written(symmetric(spectrum)[None]), count, tolerance=1e-5)[0]
    truth = torch.tensor(sorted(spectrum, reverse=True)[:count], dtype=torch.float64)
    assert found.converged
    assert torch.allclose(found.values, truth, rtol=1e-5)


def test_vectors_are_unit_eigenvectors():
    matrix = symmetric(SPIKED)
    found = lanczos(Written(matrix[None]), 3, tolerance=1e-8)[0]
    gram = found.vectors @ found.vectors.T
    assert torch.allclose(gram, torch.eye(3).double(), atol=1e-12)
    apart = found.vectors @ matrix - found.values[:, None] * found.vectors
    assert float(apart.norm()) < 1e-6


def test_the_basis_stays_orthonormal_and_carries_its_trace():
    matrix = symmetric(SPIKED)
    found = lanczos(Written(matrix[None]), 1, tolerance=1e-12, smallest=True)[0]
    gram = found.basis @ found.basis.T
    assert torch.allclose(gram, torch.eye(len(gram)).double(), atol=1e-13)
    assert found.trace == pytest.approx(float((found.basis @ matrix @ found.basis.T).trace()))


def test_without_reorthogonalisation_the_basis_would_not_stay_orthonormal(monkeypatch):
    """The planted bug that the test above is there for."""
    whole = _lanczos._Space._without

    def near_only(self, vectors, first):
        left, inner = whole(self, vectors, first)
        whole_pass = first == 0 and self.size > 2
        return (vectors, torch.zeros_like(inner)) if whole_pass else (left, inner)

    monkeypatch.setattr(_lanczos._Space, "_without", near_only)
    monkeypatch.setattr(_lanczos, "ASYMMETRY", 1e9)
    found = lanczos(Written(symmetric(SPIKED)[None]), 1, tolerance=1e-12, smallest=True, most=60)
    gram = found[0].basis @ found[0].basis.T
    assert float((gram - torch.eye(len(gram)).double()).abs().max()) > 1e-3


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6])
def test_the_range_of_a_search_cut_short_holds_the_eigenvalue(most):
    for seed in range(20):
        found = lanczos(Written(symmetric(SPIKED, seed)[None]), 1, tolerance=1e-9, most=most)[0]
        assert found.products == most
        assert not found.converged
        value, bound = float(found.values[0]), float(found.bounds[0])
        assert value <= 50.0 + found.round_off
        assert min(abs(value - x) for x in SPIKED) <= bound + found.round_off


def test_the_smallest_eigenvalue_is_found_when_asked_for_and_bounded_when_not():
    spectrum = [30.0, *torch.linspace(-3, 1, 60).tolist()]
    matrix = symmetric(spectrum)[None]
    free, asked = (lanczos(Written(matrix), 1, smallest=s)[0] for s in (False, True))
    assert -3 - asked.smallest_bound - 1e-9 <= asked.smallest <= -3 + 1e-2
    assert asked.smallest_bound <= 1e-3 * 30
    assert free.smallest >= -3 - 1e-9
    assert free.products < asked.products


def test_an_eigenvalue_that_occurs_twice_is_found_twice():
    found = lanczos(Written(symmetric(TWICE)[None]), 3)[0]
    assert found.values.tolist() == pytest.approx([5, 5, 2], rel=1e-3)


def test_a_block_of_one_would_find_it_once(monkeypatch):
    """The planted bug: the width of the block is what finds multiple eigenvalues."""
    whole = _lanczos._Space.__init__

    def narrow(self, products, width, capacity, seed):
        whole(self, products, 1, capacity, seed)

    monkeypatch.setattr(_lanczos._Space, "__init__", narrow)
    found = lanczos(Written(symmetric(TWICE)[None]), 3)[0]
    assert found.values.tolist() == pytest.approx([5, 2, 1], rel=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_space_that_is_used_up_is_exact(size):
    spectrum = [float(i) for i in range(size)]
    found = lanczos(Written(symmetric(spectrum)[None]), min(2, size), tolerance=1e-12)[0]
    assert found.converged
    assert found.values.tolist() == pytest.approx(spectrum[::-1][:2], abs=1e-12)
    assert found.products <= size


def test_a_matrix_of_zeros_needs_one_product():
    found = lanczos(Written(torch.zeros(1, 9, 9).double()), 1)[0]
    assert (float(found.values[0]), found.products, found.converged) == (0.0, 1, True)


def test_a_multiple_of_one_has_the_same_eigenvalue_in_every_direction():
    found = lanczos(Written(7 * torch.eye(9).double()[None]), 3)[0]
    assert found.values.tolist() == pytest.approx([7, 7, 7])


@pytest.mark.parametrize("kept", [9, 12, 20])
@pytest.mark.parametrize("smallest", [False, True])
def test_a_small_memory_changes_nothing_but_the_number_of_products(kept, smallest):
    matrix = symmetric(EVEN)[None]
    given = {"tolerance": 1e-6, "smallest": smallest, "most": 4000}
    whole = lanczos(Written(matrix), 2, kept=100, **given)[0]
    short = lanczos(Written(matrix), 2, kept=kept, **given)[0]
    assert short.converged
    assert len(short.basis) <= kept
    assert short.products >= whole.products
    assert torch.allclose(short.values, whole.values, rtol=1e-6)
    assert short.trace == pytest.approx(float((short.basis @ matrix[0] @ short.basis.T).trace()))


def test_float32_reaches_three_digits_of_what_float64_finds():
    matrix = symmetric(SPIKED)[None]
    wide, narrow = lanczos(Written(matrix), 3)[0], lanczos(Written(matrix.float()), 3)[0]
    assert torch.allclose(wide.values, narrow.values, rtol=1e-4)
    assert narrow.vectors.dtype == torch.float32


# ------------------------------------------------------------------ many at once


def several():
    """Four that converge at different times."""
    spectra = [SPIKED, EVEN, [-x for x in SPIKED], [3.0, *[0.0] * 99]]
    return torch.stack([symmetric(s, seed) for seed, s in enumerate(spectra)])


def test_matrices_alone_give_what_they_give_together():
    matrices = several()
    together = lanczos(Written(matrices), 2)
    for run, found in enumerate(together):
        alone = lanczos(Written(matrices[run : run + 1]), 2)[0]
        assert torch.allclose(alone.values, found.values, rtol=1e-12, atol=1e-12)
        assert (alone.products, alone.converged) == (found.products, found.converged)
        if run < 3:  # of the last, whose rank is one, only round-off is left
            assert torch.allclose(alone.basis, found.basis, atol=1e-9)


def test_matrices_that_are_done_stop_costing():
    products = Written(several())
    found = lanczos(products, 1)
    assert len({one.products for one in found}) > 2
    assert products.seen[0] == 4
    assert products.seen[-1] == 1
    assert sum(products.seen) < 4 * max(one.products for one in found)


def test_a_matrix_that_is_not_finite_has_no_eigenvalues_and_does_not_disturb_the_others():
    matrices = several()
    matrices[1, 3, 5] = math.inf
    found = lanczos(Written(matrices), 1)
    assert math.isnan(float(found[1].values[0]))
    assert not found[1].converged
    assert float(found[0].values[0]) == pytest.approx(50, rel=1e-3)


def test_a_matrix_that_is_not_symmetric_is_refused():
    matrix = symmetric(SPIKED)
    matrix[0, 1] += 5.0
    with pytest.raises(TaskError, match="are not symmetric: part of it is cut off"):
        lanczos(Written(matrix[None]), 1, tolerance=1e-6)


# ------------------------------------------------------------------ the trace


def all_signs(size):
    return [torch.tensor(signs) for signs in itertools.product((-1.0, 1.0), repeat=size)]


@pytest.mark.parametrize("kept", [0, 1, 3, 6])
def test_the_mean_over_all_sign_vectors_is_the_trace(kept):
    matrix = symmetric([9.0, -4.0, 2.0, 1.0, 0.5, 0.25])
    turn, _ = torch.linalg.qr(torch.arange(36.0).reshape(6, 6).double().cos())
    basis = turn[:, :kept].T
    known = float((basis @ matrix @ basis.T).trace())
    values = trace_values(Written(matrix[None]), all_signs(6), [basis], [known])
    assert float(values.mean()) == pytest.approx(8.75, abs=1e-12)


def test_without_what_the_basis_knows_the_mean_would_miss_it():
    """The planted bug."""
    matrix = symmetric([9.0, -4.0, 2.0, 1.0, 0.5, 0.25])
    basis = torch.linalg.qr(torch.arange(36.0).reshape(6, 6).double().cos())[0][:, :3].T
    values = trace_values(Written(matrix[None]), all_signs(6), [basis], [0.0])
    assert float(values.mean()) != pytest.approx(8.75, abs=1e-3)


def test_the_space_of_lanczos_takes_out_most_of_the_spread():
    matrix = symmetric(SPIKED)
    found = lanczos(Written(matrix[None]), 1, tolerance=1e-6)[0]
    signs = list(rademacher(100, seed=0, count=200))
    plain = trace_values(Written(matrix[None]), signs, [matrix[:0]], [0.0])
    better = trace_values(Written(matrix[None]), signs, [found.basis], [found.trace])
    assert float(better.std()) < 0.2 * float(plain.std())
    error = float(better.mean() - matrix.trace()) / float(better.std() / math.sqrt(200))
    assert abs(error) <= 4


def test_bases_of_different_lengths_stay_apart():
    matrices = several()
    found = lanczos(Written(matrices), 1)
    assert len({len(one.basis) for one in found}) > 1
    signs = list(rademacher(100, seed=0, count=4))
    bases, known = [one.basis for one in found], [one.trace for one in found]
    together = trace_values(Written(matrices), signs, bases, known)
    for run, one in enumerate(found):
        alone = trace_values(Written(matrices[run : run + 1]), signs, [one.basis], [one.trace])
        assert torch.allclose(alone[0], together[run], rtol=1e-12)
