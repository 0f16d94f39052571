"""The cache of decoded images: whole or not there, and never believed when it is damaged."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from noiseopt.data import Dataset, load, trees
from noiseopt.data import cache as cache_module
from noiseopt.errors import UserError
from tests.data import data_files as make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "mine.tar"
    path.write_bytes(make.tar(make.tree()))
    return path


def load_it(source: Path, **options: object) -> Dataset:
    return load(source, cache_dir=source.parent / "cache", **options)  # type: ignore[arg-type]


def kept(source: Path) -> list[Path]:
    return [path for path in (source.parent / "cache").rglob("*") if path.is_file()]


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sources whose images were decoded."""
    calls: list[Path] = []
    decode = trees.decode

    def counted(*args: object, source: Path, **options: object) -> object:
        calls.append(source)
        return decode(*args, source=source, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(trees, "decode", counted)
    return calls


def test_decoded_once(source: Path, decodings: list[Path]) -> None:
    first, second, part = load_it(source), load_it(source), load_it(source, part="test")
    assert decodings == [source]
    assert first.hash == second.hash
    assert (first.classes, first.name) == (second.classes, second.name)
    assert second.ids.tolist() == list(range(8))
    assert part.ids.tolist() == [4, 5, 6, 7]
    assert [path.suffix for path in kept(source)] == [".safetensors"]


def test_a_changed_source_is_decoded_again_and_replaces_the_old(source: Path, decodings: list[Path]) -> None:
    before = load_it(source)
    files = make.tree()
    files["train/cat/0.png"] = files["train/dog/0.png"]
    source.write_bytes(make.tar(files))
    after = load_it(source)
    assert len(decodings) == 2
    assert before.hash != after.hash
    assert len(kept(source)) == 1


def test_a_changed_folder_is_decoded_again(tmp_path: Path, decodings: list[Path]) -> None:
    folder = make.write(tmp_path / "mine", make.tree())
    assert len(load_it(folder)) == len(load_it(folder)) == 8
    (folder / "test" / "dog" / "1.png").unlink()
    assert len(load_it(folder)) == 7
    assert len(decodings) == 2


def test_sizes_are_kept_apart(source: Path, decodings: list[Path]) -> None:
    for _ in range(2):
        assert load_it(source).images.shape[-1] == 6
        assert load_it(source, size=3).images.shape[-1] == 3
    assert len(decodings) == 2


def test_the_loaded_images_are_in_memory_not_in_the_file(source: Path) -> None:
    load_it(source)
    data = load_it(source)
    (file,) = kept(source)
    file.write_bytes(bytes(file.stat().st_size))
    assert data.images.any()


def _metadata_swapped(content: bytes) -> bytes:
    return content.replace(b'\\"cat\\", \\"dog\\"', b'\\"dog\\", \\"cat\\"')


DAMAGE = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-1],
    "header": lambda content: b"\xff" * 8 + content[8:],
    "last pixel": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "text": lambda content: b"not a cache file at all",
    "classes": _metadata_swapped,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_built_again_with_a_warning(
    source: Path, damage: str, decodings: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    good = load_it(source)
    (file,) = kept(source)
    content = file.read_bytes()
    assert DAMAGE[damage](content) != content
    file.write_bytes(DAMAGE[damage](content))
    again = load_it(source)
    assert (again.hash, again.classes) == (good.hash, good.classes)
    assert len(decodings) == 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(file) in caplog.text
    load_it(source)
    assert len(decodings) == 2


def test_nothing_is_left_when_writing_fails(
    source: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert len(load_it(source)) == 8
    assert kept(source) == []
    assert "No space left" in caplog.text


def test_nothing_is_left_when_decoding_fails(source: Path) -> None:
    files = make.tree()
    files["test/dog/1.png"] = files["test/dog/1.png"][:-30]
    source.write_bytes(make.tar(files))
    with pytest.raises(UserError, match=r"test/dog/1\.png"):
        load_it(source)
    assert kept(source) == []


def test_a_cache_that_cannot_be_written_costs_only_time(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    (source.parent / "cache").write_text("a file where the folder should be")
    assert len(load_it(source)) == 8
    assert "could not keep" in caplog.text


_KILLED = """
import os, signal, sys
from pathlib import Path
from noiseopt.data import load
stop = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
os.fsync = stop
load(Path(sys.argv[1]), cache_dir=sys.argv[2])
"""


def test_a_kill_while_writing_leaves_no_cache_file(source: Path, decodings: list[Path]) -> None:
    arguments = [sys.executable, "-c", _KILLED, str(source), str(source.parent / "cache")]
    assert subprocess.run(arguments, check=False).returncode == -9
    (left,) = kept(source)
    assert left.parent.suffix == ".partial"
    assert len(load_it(source)) == 8
    assert len(decodings) == 1
    # What the killed process left is removed at the next writing, once it is too old to be another process's.
    assert left in kept(source)
    old = time.time() - 2 * 3600
    os.utime(left.parent, (old, old))
    load_it(source, size=3)
    assert {path.parent.name for path in kept(source)} == {"decoded"}


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISEOPT_CACHE", str(tmp_path / "here"))
    assert cache_module.cache_folder(None) == tmp_path / "here"
    assert cache_module.cache_folder(tmp_path / "there") == tmp_path / "there"
    monkeypatch.delenv("NOISEOPT_CACHE")
    assert cache_module.cache_folder(None).name == "noiseopt"
