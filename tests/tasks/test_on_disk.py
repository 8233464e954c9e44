"""A task whose data lie on disk trains as one whose data lie in memory."""

import os

import pytest
import torch
from torch.utils.data import Dataset

from batchlab import Task, advise, fit, noise, plan
from batchlab.config import RunConfig
from batchlab.data import MappedArrays, Shards, write_shards
from batchlab.data._disk import OnDisk
from batchlab.engine import Engine
from batchlab.engine.capability import probe_capability
from batchlab.engine.evaluate import Evaluator
from batchlab.engine.loop import Alone
from batchlab.measure.noise import measure_noise
from batchlab.measure.throughput import time_block
from batchlab.tasks.prepare import _sources
from batchlab.tasks.source import Collated, Stacked, Subset, files_of, make_source, part_of
from batchlab.tasks.task import METRICS, Metric, accuracy
from tests.engine import tiny

NAMES = ("x", "y")


def on_disk(folder, kind="npz", rows=8, window=3, **options):
    """The points of the engine's tests in files."""
    where = folder / f"{kind}-{rows}"
    if not where.exists():
        write_shards(
            tiny.points(), where, None if kind == "npy" else rows, kind=kind, leaves=NAMES
        )
    if kind == "npy":
        return MappedArrays(where, NAMES)
    return Shards(where, NAMES, window=window, **options)


KINDS = ("npz", "parquet", "npy")


def test_a_mapped_set_trains_bit_for_bit_as_data_in_memory(tmp_path):
    runs = [tiny.run(seed=seed) for seed in range(2)]
    memory, _ = tiny.trained(tiny.ready(), runs)
    disk, _ = tiny.trained(tiny.ready(train=on_disk(tmp_path, "npy")), runs)
    assert tiny.apart(memory, disk) == 0.0


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_shards_train_the_same_from_every_kind_and_with_any_memory(tmp_path, kind):
    expected, _ = tiny.trained(tiny.ready(train=on_disk(tmp_path)), [tiny.run()])
    tight = on_disk(tmp_path, kind, memory=3 * 8 * (tiny.INPUTS + 1) * 8)
    found, _ = tiny.trained(tiny.ready(train=tight), [tiny.run()])
    assert tiny.apart(expected, found) == 0.0


def test_the_engine_sees_shuffled_blocks_in_the_order_of_the_stream(tmp_path):
    prepared = tiny.ready(train=on_disk(tmp_path))
    seen = []
    run = Alone(prepared, tiny.run(), tiny.job(), probe_capability(prepared, tiny.run()), None)
    run._batch, batch = lambda *a: seen.append(batch(*a)) or seen[-1], run._batch
    for first, size in run.plan[:12]:
        run.update(first, size)
    index = prepared.stream(tiny.run().seed).take(0, 96)[0]
    assert torch.equal(torch.cat([x for x, _ in seen]), tiny.points()[0][index])
    assert not torch.equal(index, tiny.ready().stream(tiny.run().seed).take(0, 96)[0])


def test_another_order_of_blocks_trains_otherwise(tmp_path):
    wide, _ = tiny.trained(tiny.ready(train=on_disk(tmp_path)), [tiny.run()])
    narrow, _ = tiny.trained(tiny.ready(train=on_disk(tmp_path, window=1)), [tiny.run()])
    assert tiny.apart(wide, narrow) > 0.0


# Splitting


class Unread(OnDisk):
    """A data set on disk that must not be read."""

    def __init__(self, whole):
        self.whole = whole

    examples = property(lambda self: self.whole.examples)
    blocks = property(lambda self: self.whole.blocks)
    stamps = property(lambda self: self.whole.stamps)
    layout = property(lambda self: self.whole.layout)

    def batch(self, index, passes=None, seed=0):
        raise AssertionError("was read")


def test_validation_is_split_off_by_position_without_reading(tmp_path):
    data = Unread(on_disk(tmp_path))
    train, validation, said = _sources(tiny.task(train=data, validation=None))
    assert (train.examples, validation.examples) == (54, 10)
    assert sorted([*train.index.tolist(), *validation.index.tolist()]) == list(range(64))
    assert "reads every shard for each evaluation" in said[0]
    with pytest.raises(AssertionError, match="was read"):
        train.batch(torch.arange(2))


def test_what_is_left_of_the_blocks_is_shuffled_as_blocks(tmp_path):
    prepared = tiny.ready(train=on_disk(tmp_path), validation=None)
    blocks = prepared.train.blocks
    assert sum(blocks.lengths) == 54
    assert len(blocks.lengths) == 8
    assert blocks.order(1, 2) == on_disk(tmp_path).blocks.order(1, 2)
    index = prepared.stream(0).take(0, 54)[0]
    assert sorted(index.tolist()) == list(range(54))
    assert torch.equal(
        prepared.train.batch(index)[0], tiny.points()[0][prepared.train.index[index]]
    )


def test_a_part_that_is_out_of_order_has_no_blocks(tmp_path):
    assert part_of(on_disk(tmp_path), torch.tensor([5, 1])).blocks is None


def test_data_on_disk_are_never_taken_to_memory(tmp_path):
    for kind in KINDS:
        source = make_source(on_disk(tmp_path, kind), None, "train")
        assert not source.in_memory
        assert source.examples == 64
        assert source.elements().unique().tolist() == [tiny.INPUTS + 1]


def test_the_users_collate_joins_examples_of_files(tmp_path):
    def collate(items):
        x, y = zip(*items, strict=True)
        return 2 * torch.stack(x), torch.stack(y)

    source = make_source(on_disk(tmp_path), collate, "train")
    assert isinstance(source, Collated)
    index = torch.tensor([40, 3])
    assert torch.equal(source.batch(index)[0], 2 * tiny.points()[0][index])
    assert source.blocks == on_disk(tmp_path).blocks
    trace, _ = tiny.trained(tiny.ready(train=on_disk(tmp_path), collate=collate), [tiny.run()])
    assert trace.runs[0].updates == 50


class Augmented(Dataset):
    """A data set of the user's around one on disk, which names its blocks."""

    def __init__(self, whole):
        self.whole, self.blocks = whole, whole.blocks

    def __len__(self):
        return len(self.whole)

    def __getitem__(self, index):
        x, y = self.whole[index]
        return x + torch.rand(1), y


def test_the_users_transforms_keep_the_blocks(tmp_path):
    source = make_source(Augmented(on_disk(tmp_path)), None, "train")
    assert not source.in_memory
    assert source.blocks == on_disk(tmp_path).blocks
    assert part_of(source, torch.arange(10)).blocks.lengths == (8, 2, 0, 0, 0, 0, 0, 0)


# Measuring


def sums(prepared):
    objective = prepared.objective(0, torch.float64).eval()

    def predict(batch):
        outputs, losses, weights = objective(batch, predict=True)
        return outputs, (losses * weights).sum(), weights.sum()

    return predict


def scored(validation, metric):
    prepared = tiny.ready(validation=validation, metric=metric)
    source = prepared.validation
    evaluator = Evaluator(source, prepared.metric, "cpu", torch.float64, batch_size=7)
    with torch.no_grad():
        return evaluator(sums(prepared))


@pytest.mark.parametrize("metric", ["accuracy", Metric("own", accuracy, maximise=True)])
def test_evaluation_of_shards_equals_that_of_memory(tmp_path, metric):
    assert scored(on_disk(tmp_path), metric) == scored(tiny.points(), metric)


def test_evaluation_keeps_the_targets_of_files_alone(tmp_path):
    prepared = tiny.ready(validation=on_disk(tmp_path), metric="accuracy")
    kept = []
    own = Metric("own", accuracy, maximise=True)
    for metric in (METRICS["accuracy"], own):
        evaluator = Evaluator(prepared.validation, metric, "cpu", torch.float64)
        kept.append(evaluator._seen((torch.zeros(2, 5), torch.arange(2))))
    assert list(kept[0]) == ["target"]
    assert len(kept[1]) == 2


def noise_of(train):
    prepared = tiny.ready(train=train, validation=tiny.points(32, seed=1))
    model = prepared.objective(0, torch.float64)
    return measure_noise(model, prepared, tiny.run(), samples=0, seed=0, examples=64)


def test_noise_of_shards_equals_that_of_a_mapped_set(tmp_path):
    assert noise_of(on_disk(tmp_path)) == noise_of(on_disk(tmp_path, "npy"))


def test_noise_reads_each_block_once_beside_the_first_look(tmp_path, monkeypatch):
    data = on_disk(tmp_path, rows=4, window=2, memory=2 * 4 * 8 * (tiny.INPUTS + 1))
    prepared = tiny.ready(train=data)
    read, plain = [], data._format.read
    monkeypatch.setattr(data._format, "read", lambda *a: read.append(a[0]) or plain(*a))
    model = prepared.objective(0, torch.float64)
    measure_noise(model, prepared, tiny.run(), samples=0, seed=0, examples=64)
    assert len(read) <= 8 + 16 + 2


def test_time_is_measured_on_blocks_as_they_are_trained_on(tmp_path):
    block = time_block(tiny.ready(train=on_disk(tmp_path)), tiny.run(), 0.01)
    assert 0 < block.loader_seconds < block.seconds


def test_a_task_is_another_one_when_a_file_has_changed(tmp_path):
    def name(validation):
        task = tiny.ready(train=on_disk(tmp_path), validation=validation)
        with Engine(task, None, 0) as engine:
            return engine.task_hash

    for validation in (None, tiny.points(32, seed=1)):
        before = name(validation)
        assert name(validation) == before
        path = on_disk(tmp_path).stamps[3].path
        os.utime(path, ns=(path.stat().st_mtime_ns + 1,) * 2)
        assert name(validation) != before


def test_a_part_of_files_is_named_by_its_examples(tmp_path):
    data = on_disk(tmp_path)
    names = {files_of(Subset(data, torch.tensor(index))) for index in ([0, 1], [0, 2])}
    assert len({*names, files_of(data)}) == 3
    assert files_of(Collated(data, list)) == files_of(data)
    assert files_of(Stacked(tiny.points())) is None


def test_the_calculator_takes_the_data_set(tmp_path):
    assert plan(examples=on_disk(tmp_path), batch_size=8).updates == 8


# Commands


def big(folder, kind, examples=400):
    x, y = tiny.points(examples)
    rows = None if kind == "npy" else 50
    write_shards((x.float(), y), folder / "train", rows, kind=kind, leaves=NAMES)
    opened = (MappedArrays if kind == "npy" else Shards)(folder / "train", NAMES)
    baseline = RunConfig(batch_size=16, samples=800, learning_rate=0.1)
    return Task(tiny.mlp, opened, loss=tiny.cross, metric="accuracy", baseline=baseline)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fit_and_noise_answer_for_data_on_disk(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    task = big(tmp_path, kind)
    assert fit(task, max_val=64, device="cpu").fit.largest >= 1
    found = noise(task, points=1, device="cpu")
    assert len(found.moments) == 1


@pytest.mark.slow
def test_advice_is_given_for_data_on_disk(tmp_path):
    found = advise(
        big(tmp_path, "npz"),
        batch_sizes=(16, 64),
        seeds=2,
        confirm_seeds=3,
        budget=60.0,
        growing=False,
        out=tmp_path / "out",
        device="cpu",
    )
    assert found.stage in ("B", "C")
    assert (tmp_path / "out" / "report.html").is_file()
