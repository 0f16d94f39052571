"""The files of a folder, a tar or a zip archive, one after the other: nothing is ever unpacked to disk."""

from __future__ import annotations

import hashlib
import logging
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from noiseopt.errors import UserError

LARGEST_FILE = 64 * 2**20
"""Bytes; a single file above it is refused, so that a small archive cannot fill the memory."""
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")
_DEEPEST = 8
_LOG = logging.getLogger(__name__)
# What the readers of the standard library raise on damaged bytes. MemoryError and OverflowError: a length
# field that asks for more than there is.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    RuntimeError,
    OverflowError,
    MemoryError,
)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Turn what goes wrong while reading `path` into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(
            f"{path} must be a whole, readable file of its kind",
            got=f"{type(error).__name__}: {error}",
            fix="replace it with an undamaged copy",
        ) from error


def is_archive(path: Path) -> bool:
    """Is this, by its name, a tar or zip archive?"""
    return path.name.lower().endswith(_ARCHIVES)


def stem(path: Path) -> str:
    """`photos` for `photos.tar.xz` and for a folder `photos`."""
    for suffix in sorted(_ARCHIVES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def entries(source: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name (relative, with slashes) and content of every plain file in `source` whose name is `wanted`.

    Hidden files (`.x`, `._x`, `__MACOSX/`), links in archives and names that climb out of the archive are
    passed over. Raises UserError, naming the file, where one is truncated, damaged or above 64 MiB.
    """
    if source.is_dir():
        return _folder(source, wanted)
    if not is_archive(source):
        raise UserError(
            "images come as a folder or as an archive (" + ", ".join(_ARCHIVES) + ")",
            got=str(source),
            fix="pass the folder that holds the class folders, or pack it with tar",
        )
    return (_zip if source.suffix.lower() == ".zip" else _tar)(source, wanted)


def identity(source: Path) -> str:
    """Changes when the file changes, or any file in the folder: made of names, sizes and times alone."""
    digest = hashlib.sha256()
    with naming(source):
        files = _walk(source, "", 0) if source.is_dir() else [("", source)]
        for name, path in files:
            status = path.stat()
            digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _folder(source: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    for name, path in _walk(source, "", 0):
        if wanted(name):
            with naming(path):
                _check_size(f"{path}", path.stat().st_size)
                content = path.read_bytes()
            yield name, content


def _walk(folder: Path, above: str, depth: int) -> Iterator[tuple[str, Path]]:
    """Plain files below `folder`, sorted; links are followed; the depth is bounded, so that a loop ends."""
    with naming(folder), os.scandir(folder) as found:
        members = sorted(found, key=lambda member: member.name)
    for member in members:
        name = above + member.name
        if _visible(name) is None:
            continue
        if member.is_file():
            yield name, Path(member.path)
        elif member.is_dir() and depth < _DEEPEST:
            yield from _walk(Path(member.path), name + "/", depth + 1)


def _tar(source: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    passed_over = 0
    with naming(source), tarfile.open(source, "r:*") as archive:
        for member in archive:
            name = _visible(member.name)
            if name is None or member.isdir() or not wanted(name):
                continue
            content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
            if content is None:
                passed_over += 1
                continue
            _check_size(f"{source}/{name}", member.size)
            yield name, content.read()
        _check_end(archive)
    if passed_over:
        _LOG.warning("%s: passed over %d links and other entries that are not plain files", source, passed_over)


def _check_end(archive: tarfile.TarFile) -> None:
    """`tarfile` takes a damaged header for the end of the archive. The real end is a block of zeros."""
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("the archive breaks off, or a header in it is damaged")
    # The checksum of a compressed archive comes last; it is checked only when that is reached.
    while stream.read(2**20):
        pass


def _zip(source: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with naming(source), zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            name = _visible(member.filename)
            if name is None or member.is_dir() or not wanted(name):
                continue
            _check_size(f"{source}/{name}", member.file_size)
            yield name, archive.read(member)


def _visible(name: str) -> str | None:
    """The name in canonical form, or None for one to pass over."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)  # ".." is hidden too
    return None if hidden or path.is_absolute() or not parts else "/".join(parts)


def _check_size(name: str, size: int) -> None:
    if size > LARGEST_FILE:
        raise UserError(
            f"{name} must be at most {LARGEST_FILE // 2**20} MiB",
            got=f"{size:,} bytes",
            fix="leave the file out, or store a smaller one",
        )
