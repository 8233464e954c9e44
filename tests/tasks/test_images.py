import gzip
import io
import os
import pickle
import struct
from dataclasses import replace
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from batchlab.config import RunConfig
from batchlab.errors import TaskError
from batchlab.tasks import load, prepare
from batchlab.tasks.images import Normalise, read, read_idx
from batchlab.tasks.mnist import MNIST

COUNT = 40


def digits(seed):
    """Grey pixels [N, 1, 28, 28] and labels [N]."""
    random = np.random.default_rng(seed)
    pixels = random.integers(256, size=(COUNT, 1, 28, 28), dtype=np.uint8)
    return pixels, np.arange(COUNT) % 10


def photographs(seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(256, size=(COUNT, 3, 32, 32), dtype=np.uint8)
    return pixels, np.arange(COUNT) % 10


def encoded(picture, kind="PNG"):
    channels = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(channels).save(buffer, kind)
    return buffer.getvalue()


def table(arrays, column="image"):
    pixels, labels = arrays
    images = [{"bytes": encoded(p), "path": None} for p in pixels]
    return pl.DataFrame({column: images, "label": labels})


def write_parquet(folder, arrays, split, column="image", parts=1):
    folder.mkdir(parents=True, exist_ok=True)
    whole = table(arrays, column)
    for i, rows in enumerate(np.array_split(np.arange(COUNT), parts)):
        name = f"{split}-{i:05}-of-{parts:05}.parquet"
        whole[rows].write_parquet(folder / name)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def assert_holds(folder, name, make):
    task = load(name, folder)
    for data, arrays in ((task.train, make(0)), (task.test, make(1))):
        assert data[0].dtype == torch.uint8
        assert data[1].dtype == torch.int64
        assert np.array_equal(data[0], arrays[0])
        assert np.array_equal(data[1], arrays[1])


@pytest.mark.parametrize("below", [".", "mnist", "MNIST/raw"])
def test_parquet_is_read_bit_for_bit(tmp_path, below):
    write_parquet(tmp_path / below, digits(0), "train", parts=3)
    write_parquet(tmp_path / below, digits(1), "test")
    assert_holds(tmp_path, "mnist", digits)


@pytest.mark.parametrize(("below", "column"), [(".", "image"), ("plain_text", "img")])
def test_parquet_in_colour_is_read_bit_for_bit(tmp_path, below, column):
    for i, split in enumerate(("train", "test")):
        write_parquet(tmp_path / below, photographs(i), split, column)
    assert_holds(tmp_path, "cifar10", photographs)


def test_a_folder_with_a_space_and_japanese_in_its_name_is_read(tmp_path):
    for i, split in enumerate(("train", "test")):
        write_parquet(tmp_path / "手書き 数字", digits(i), split)
    assert_holds(tmp_path / "手書き 数字", "mnist", digits)


def test_a_saved_data_set_is_read_bit_for_bit(tmp_path):
    for i, split in enumerate(("train", "test")):
        (tmp_path / split).mkdir()
        table(digits(i)).write_ipc_stream(tmp_path / split / "data-00000-of-00001.arrow")
    assert_holds(tmp_path, "mnist", digits)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read_bit_for_bit(tmp_path, zipped):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for i, split in enumerate(("train", "t10k")):
        pixels, labels = digits(i)
        for name, array in (("images-idx3", pixels[:, 0]), ("labels-idx1", labels.astype("u1"))):
            content = idx(array)
            name = f"{split}-{name}-ubyte" + (".gz" if zipped else "")
            (raw / name).write_bytes(gzip.compress(content) if zipped else content)
    assert_holds(tmp_path, "mnist", digits)


class Python2(pickle._Pickler):
    """Writes text and bytes as the Python of 2009 did, whose pickles the original files are."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        content = value if isinstance(value, bytes) else value.encode("ascii")
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def dumps(part, protocol):
    buffer = io.BytesIO()
    (Python2 if protocol == 2 else pickle.Pickler)(buffer, protocol).dump(part)
    return buffer.getvalue()


def write_batches(folder, protocol=2):
    """The five training batches and the test batch, keys and data as in the original."""
    folder.mkdir()
    pixels, labels = photographs(0)
    for i, rows in enumerate(np.array_split(np.arange(COUNT), 5), start=1):
        part = {b"data": pixels[rows].reshape(len(rows), -1), b"labels": labels[rows].tolist()}
        (folder / f"data_batch_{i}").write_bytes(dumps(part, protocol))
    pixels, labels = photographs(1)
    part = {b"data": pixels.reshape(COUNT, -1), b"labels": labels.tolist()}
    (folder / "test_batch").write_bytes(dumps(part, protocol))


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickled_batches_are_read_bit_for_bit(tmp_path, protocol):
    write_batches(tmp_path / "cifar-10-batches-py", protocol)
    assert_holds(tmp_path, "cifar10", photographs)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused_unrun(tmp_path):
    write_batches(tmp_path / "cifar-10-batches-py")
    sprung = tmp_path / "sprung"
    bad = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    bad.write_bytes(pickle.dumps({b"data": Trap(sprung), b"labels": []}))
    with pytest.raises(TaskError, match=r"cannot be read: it wants to run \w+\.mkdir"):
        load("cifar10", tmp_path)
    assert not sprung.exists()
    # The trap is real: the ordinary reader springs it.
    pickle.loads(bad.read_bytes())
    assert sprung.exists()


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_missing_set_is_answered_with_the_line_that_fetches_it(name, tmp_path):
    fetch = f"hf download .*/{name} --repo-type dataset --local-dir {name}"
    with pytest.raises(TaskError, match=f"needs its pictures.*{fetch}.*--data {name}"):
        load(name)
    with pytest.raises(TaskError, match=rf"no folder.*{fetch}"):
        load(name, tmp_path / "none")
    with pytest.raises(TaskError, match=f"holds no train pictures of {name}.*{fetch}"):
        load(name, tmp_path)


def test_a_missing_test_part_is_named(tmp_path):
    write_parquet(tmp_path, digits(0), "train")
    with pytest.raises(TaskError, match="holds no test pictures of mnist"):
        load("mnist", tmp_path)


def test_pictures_of_another_set_are_refused(tmp_path):
    for split in ("train", "test"):
        write_parquet(tmp_path, photographs(0), split)
    with pytest.raises(TaskError, match=r"are 3×32×32 .*; those of mnist are 1×28×28"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not an idx file"),
        (b"\x00\x00\x0d\x03", "not an idx"),
        (idx(np.zeros((2, 3), "u1"))[:-1], "cannot reshape"),
    ],
)
def test_a_cut_or_foreign_idx_file_is_refused(tmp_path, content, said):
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_idx(file)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(2, "u1")))
    with pytest.raises(TaskError, match=r"The train pictures in .* cannot be read"):
        read(MNIST, tmp_path, "train")


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"\x00" * 100])
def test_a_damaged_parquet_file_is_refused(tmp_path, content):
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(content)
    with pytest.raises(TaskError, match=r"The train pictures in .* cannot be read"):
        load("mnist", tmp_path)


def test_a_picture_that_is_none_is_refused(tmp_path):
    rows = {"image": [{"bytes": b"no picture", "path": None}], "label": [0]}
    pl.DataFrame(rows).write_parquet(tmp_path / "train-0.parquet")
    with pytest.raises(TaskError, match="cannot be read: cannot identify image file"):
        load("mnist", tmp_path)


def test_other_columns_are_refused_by_name(tmp_path):
    pl.DataFrame({"picture": [1], "label": [0]}).write_parquet(tmp_path / "train-0.parquet")
    with pytest.raises(TaskError, match="columns `image` and `label` are expected"):
        load("mnist", tmp_path)


@pytest.mark.parametrize(("name", "make"), [("mnist", digits), ("cifar10", photographs)])
def test_the_task_prepares_and_keeps_pixels_as_bytes(tmp_path, name, make):
    for i, split in enumerate(("train", "test")):
        write_parquet(tmp_path, make(i), split)
    task = replace(load(name, tmp_path), baseline=RunConfig(batch_size=4))
    prepared = prepare(task, device="cpu")
    batch = prepared.train.batch(torch.arange(4))
    assert batch[0].dtype == torch.uint8
    losses, _ = prepared.objective(0, torch.float64)(batch)
    assert losses.shape == (4,)
    assert losses.dtype == torch.float64


def test_normalise_gives_zero_mean_and_unit_size():
    pixels = torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8)
    shares = pixels.double() / 255
    mean, std = shares.mean((0, 2, 3)), shares.std((0, 2, 3), correction=0)
    layer = Normalise(tuple(mean.tolist()), tuple(std.tolist())).double()
    out = layer(pixels)
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6)
    assert torch.allclose(out.std((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-6)
