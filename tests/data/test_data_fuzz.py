"""Damaged files: whatever the bytes, a Dataset of valid shapes or a UserError that names the file."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from noiseopt.data import DATASETS, load
from noiseopt.errors import UserError
from tests.data import data_files as make

# name or path to load, and the files
CASES: dict[str, tuple[str, make.Files]] = {
    "idx": ("mnist", make.mnist()),
    "idx.gz": ("mnist", make.gzipped(make.mnist())),
    "usps": ("usps", make.usps()),
    "usps.gz": ("usps", make.gzipped(make.usps())),
    "cifar": ("cifar10", make.cifar10()),
    "tar": ("x.tar", {"x.tar": make.tar(make.tree())}),
    "tar.gz": ("x.tar.gz", {"x.tar.gz": make.tar(make.tree(), "w:gz")}),
    "tar.xz": ("x.tar.xz", {"x.tar.xz": make.tar(make.tree(), "w:xz")}),
    "zip": ("x.zip", {"x.zip": make.zipped(make.tree())}),
    "tree": ("x", {f"x/{name}": content for name, content in make.tree().items()}),
    "tiny": ("tiny-imagenet", make.tiny_imagenet()),
}
MUTATIONS_OF_EACH = 40


def _truncate(content: bytes, r: random.Random) -> bytes:
    return content[: r.randrange(len(content))]


def _flip_bits(content: bytes, r: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(r.randint(1, 8)):
        changed[r.randrange(len(changed))] ^= 1 << r.randrange(8)
    return bytes(changed)


def _replace_header(content: bytes, r: random.Random) -> bytes:
    length = r.randint(1, 16)
    return r.randbytes(length) + content[length:]


def _extreme_header_bytes(content: bytes, r: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(r.randint(1, 4)):
        changed[r.randrange(min(len(changed), 512))] = r.choice([0, 127, 255, ord("0"), ord("7"), ord(" ")])
    return bytes(changed)


def _replace_middle(content: bytes, r: random.Random) -> bytes:
    start = r.randrange(len(content))
    return content[:start] + r.randbytes(r.randint(0, 300)) + content[start + r.randint(1, 300) :]


def _append(content: bytes, r: random.Random) -> bytes:
    return content + r.randbytes(r.randint(1, 600))


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    _truncate,
    _flip_bits,
    _replace_header,
    _extreme_header_bytes,
    _replace_middle,
    _append,
]


@pytest.mark.parametrize("case", CASES)
def test_damaged_sources(case: str, tmp_path: Path) -> None:
    name, files = CASES[case]
    r = random.Random(case)
    make.write(tmp_path, files)
    cache = tmp_path / "cache"
    source = name if name in DATASETS else tmp_path / name
    refused = 0
    for i in range(MUTATIONS_OF_EACH):
        path = r.choice(sorted(files))
        (tmp_path / path).write_bytes(MUTATIONS[i % len(MUTATIONS)](files[path], r))
        shutil.rmtree(cache, ignore_errors=True)
        message = ""
        try:
            data = load(source, data_dir=tmp_path, cache_dir=cache)
        except UserError as error:
            message = str(error)
        left = [file.suffix for file in cache.rglob("*") if file.is_file()]
        if message:
            refused += 1
            assert str(tmp_path) in message
            assert left == []
        else:
            assert data.images.ndim == 4
            assert len(data) == len(data.labels) == len(data.ids) > 0
            assert set(left) <= {".safetensors"}
        (tmp_path / path).write_bytes(files[path])
    assert refused >= MUTATIONS_OF_EACH // 4
    # Nothing that was refused, or read in a damaged state, may be remembered.
    shutil.rmtree(cache, ignore_errors=True)
    assert len(load(source, data_dir=tmp_path, cache_dir=cache)) > 0


def test_damaged_cache_files(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(make.tar(make.tree()))
    r = random.Random(0)
    good = load(tmp_path / "x.tar", cache_dir=tmp_path / "cache")
    (file,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    content = file.read_bytes()
    for i in range(2 * MUTATIONS_OF_EACH):
        file.write_bytes(MUTATIONS[i % len(MUTATIONS)](content, r))
        data = load(tmp_path / "x.tar", cache_dir=tmp_path / "cache")
        assert (data.hash, data.classes) == (good.hash, good.classes)
        assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [file]
