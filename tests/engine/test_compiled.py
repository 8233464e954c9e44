"""Several updates as one program: the same numbers, traced as plain tensor operations."""

import gc
import weakref

import pytest
import torch
from torch.utils import _pytree

from batchlab.engine import compiled, stacked
from batchlab.engine.capability import probe_capability
from batchlab.engine.job import Job
from batchlab.engine.stacked import Stack, train_stacked
from tests.engine import tiny

MODELS = [tiny.mlp, tiny.batch_norm, tiny.with_dropout]


def runs(count=3, **changes):
    return [tiny.run(seed=s, learning_rate=0.02 * (s + 1), **changes) for s in range(count)]


def ready(model, unit, configs, slots=None):
    prepared = tiny.ready(model)
    capability = probe_capability(prepared, configs[0])
    stack = Stack(
        prepared, configs, Job(()), capability, [None] * len(configs), slots or len(configs), unit
    )
    stack.fill()
    return stack


@pytest.fixture
def without_compiler(monkeypatch):
    """Traced and functionalised as for the compiler, then run by torch; the list of the shapes."""
    whole, shapes = compiled.compile_block, []

    def traced(*given):
        shapes.append(tuple(given[3].index.shape))
        return whole(*given, backend="aot_eager")

    monkeypatch.setattr(stacked, "compile_block", traced)
    return shapes


slow = pytest.mark.slow


@pytest.mark.usefixtures("without_compiler")
@pytest.mark.parametrize(
    ("model", "unit"),
    [
        (tiny.with_dropout, 1),
        (tiny.mlp, 2),
        *(pytest.param(model, 1, marks=slow) for model in MODELS if model != tiny.with_dropout),
        *(pytest.param(model, 4, marks=slow) for model in MODELS),
    ],
)
def test_a_compiled_block_gives_what_the_eager_one_gives(model, unit):
    configs = runs(reuse=2, rule="adam", clip_norm=0.5, lr_schedule="cosine")
    eager, fast = (ready(model, u, configs) for u in (0, unit))
    expected, found = (stack._train(stack._orders(6)) for stack in (eager, fast))
    assert expected[0].shape == found[0].shape == (12, 3)
    assert abs(expected[0] - found[0]).max() < 1e-10
    assert (expected[1] == found[1]).all()
    one, other = (_pytree.tree_leaves(stack.progress) for stack in (eager, fast))
    assert all(
        torch.allclose(a.double(), b.double(), atol=1e-10) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.usefixtures("without_compiler")
def test_a_compiled_stack_is_padded_and_trains_the_same_trace():
    configs = runs(5, samples=160)
    prepared = tiny.ready()
    capability = probe_capability(prepared, configs[0])
    job = tiny.job(160)
    plain = train_stacked(prepared, configs, job, capability)
    fast = train_stacked(prepared, configs, job, capability, slots=8, unit=1)
    for (a, one), (b, other) in zip(plain, fast, strict=True):
        assert abs(tiny.numbers(a) - tiny.numbers(b)).max() < 1e-10
        assert (one.samples, one.updates) == (other.samples, other.updates)


def test_a_second_cell_of_the_same_shape_compiles_nothing(without_compiler):
    prepared, configs = tiny.ready(tiny.batch_norm), runs(6, samples=16)
    capability, job = probe_capability(prepared, configs[0]), tiny.job(16)
    for some in (configs[:3], configs[3:]):
        fast = train_stacked(prepared, some, job, capability, slots=3, unit=1)
        assert without_compiler == [(1, 3, 8)]
        plain = train_stacked(prepared, some, job, capability)
        for (a, _), (b, _) in zip(plain, fast, strict=True):
            assert abs(tiny.numbers(a) - tiny.numbers(b)).max() < 1e-10


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "nshb"},
        {"clip_norm": 0.5},
        {"precision": "float32"},
        {"reuse": 2},
        {"gamma": 2.0},
        {"micro_batch_size": 4},
    ],
)
def test_a_cell_of_another_kind_shares_no_program(changes):
    prepared = tiny.ready()
    capability = probe_capability(prepared, tiny.run())

    def programs(**given):
        configs = [tiny.run(**given)]
        return Stack(prepared, configs, Job(()), capability, [None], 1, 1).compiled

    assert programs() is programs(learning_rate=0.3, momentum=0.1, seed=7)
    assert programs() is not programs(**changes)


def test_few_kinds_of_programs_are_kept_and_none_outlives_its_task():
    prepared, other = tiny.ready(), tiny.ready()
    first = compiled.programs_of(prepared, 0)
    assert compiled.programs_of(prepared, 0) is first
    assert compiled.programs_of(other, 0) is not first
    for kind in range(1, compiled.KEPT + 1):
        compiled.programs_of(prepared, kind)
    assert compiled.programs_of(prepared, 0) is not first
    gone = weakref.ref(prepared)
    del prepared
    gc.collect()
    assert gone() is None


def test_a_machine_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    assert "there is no C++ compiler" in compiled.why_not_compiled("cpu")
    assert "nothing is compiled for mps" in compiled.why_not_compiled("mps")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_real_compiler_gives_the_same_in_float64(model):
    # A compiler is no requirement; what it is given is tested without one above, everywhere.
    if compiled.why_not_compiled("cpu"):
        pytest.skip("no C++ compiler")
    configs = runs(4)
    eager, fast = (ready(model, u, configs) for u in (0, 2))
    expected, found = (stack._train(stack._orders(50)) for stack in (eager, fast))
    assert abs(expected[0] - found[0]).max() < 1e-10


@pytest.mark.parametrize("shape", [(1, 5, 3), (4, 5, 1), (4, 1, 3), (1, 1, 1)])
def test_products_with_vectors_are_written_as_sums(shape):
    rows, inner, columns = shape
    a, b = torch.randn(2, rows, inner).double(), torch.randn(2, inner, columns).double()
    torch.testing.assert_close(compiled._vector_products(a, b), a @ b, rtol=1e-12, atol=1e-12)


def test_other_products_are_left_to_the_library():
    assert compiled._vector_products(torch.ones(2, 3, 4), torch.ones(2, 4, 5)) is NotImplemented
