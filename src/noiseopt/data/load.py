"""`load`: a data set by its name, or your own images by their path."""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Literal

from noiseopt.data.archives import identity, is_archive, stem
from noiseopt.data.cache import cache_folder, cached
from noiseopt.data.dataset import Dataset, Pool
from noiseopt.data.fetch import fetch
from noiseopt.data.sources import DATASETS, MIRRORS, Source
from noiseopt.data.trees import read_tree
from noiseopt.errors import UserError

Part = Literal["all", "train", "test"]
_LOG = logging.getLogger(__name__)
_LARGEST_SIDE = 1024


def load(
    name_or_path: str | os.PathLike[str],
    *,
    part: Part = "all",
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    size: int | None = None,
) -> Dataset:
    """A named data set (see `DATASETS`), or the images in a folder or archive of your own, into memory.

    - `name_or_path`: a name; or the path of a folder or of a tar or zip archive, with images in
      `train/<class>/` and `test/<class>/`, or in `<class>/` alone. A string that is a name is one: write
      `./mnist` for a folder.
    - `part`: "train" or "test" as the source has them, or "all": both, pooled, training images first
    - `data_dir`: the folder with the named data sets' files; by default the one in the environment variable
      NOISEOPT_DATA. With neither, they are downloaded, checked and kept in the cache.
    - `cache_dir`: for downloads and decoded images; by default NOISEOPT_CACHE, or the system's cache folder
    - `size`: for your own images: scale each to size × size pixels

    The name of the set says so where a local copy is not the published data: `mnist (modified)`,
    `cifar10 (2,119 of 60,000 images)`.

    Raises UserError, naming the file, where one is missing, truncated, damaged or mislabelled.
    """
    if part not in ("all", "train", "test"):
        raise UserError("part must be 'all', 'train' or 'test'", got=part, fix="pass part='all'")
    cache = cache_folder(None if cache_dir is None else Path(cache_dir))
    if isinstance(name_or_path, str) and name_or_path in DATASETS:
        if size is not None:
            raise UserError(
                "size is for your own images; a named data set has its size", got=size, fix="leave size out"
            )
        folder = data_dir if data_dir is not None else os.environ.get("NOISEOPT_DATA") or None
        source = DATASETS[name_or_path]
        pool = _named(name_or_path, source, None if folder is None else Path(folder).expanduser(), cache)
        dataset = _part(name_or_path, pool, part)
        return dataset.named(_honest_name(name_or_path, source, pool, dataset, part))
    path = Path(os.path.abspath(Path(name_or_path).expanduser()))
    if not path.exists():
        near = difflib.get_close_matches(str(name_or_path), DATASETS, n=1)
        raise UserError(
            f"a data set must be one of {', '.join(DATASETS)}, or the path of a folder or archive of images",
            got=str(name_or_path),
            fix=f"did you mean {near[0]!r}?" if near else "check the name or the path",
        )
    dataset = _part(stem(path), _tree(path, size, cache), part)
    return dataset.named(_with_part(stem(path), part))


def _named(name: str, source: Source, data_dir: Path | None, cache: Path) -> Pool:
    if source.packaged is not None:
        return source.read(source.packaged())
    if data_dir is not None:
        root = _find(name, source, data_dir)
        if source.images or is_archive(root):
            return cached(_cache_file(cache, name, root), identity=identity(root), build=lambda: source.read(root))
        return source.read(root)
    if not source.downloads:
        raise UserError(
            f"{name} is not on the network", fix=f"put {source.local[0]} in a folder and pass it as data_dir"
        )
    folder = cache / "downloads" / name

    def download() -> Pool:
        files = [fetch(file, mirrors=MIRRORS[name], folder=folder) for file in source.downloads]
        return source.read(files[0] if is_archive(files[0]) else folder)

    archive = folder / source.downloads[0].file
    if is_archive(archive):
        # Its checksum is all that the pixels depend on: once they are kept, the archive need not be there.
        checksum = f"md5:{source.downloads[0].md5}"
        return cached(_cache_file(cache, name, archive), identity=checksum, build=download)
    return download()


def _find(name: str, source: Source, data_dir: Path) -> Path:
    """The folder or archive in `data_dir` that holds the data set."""
    for pattern in source.local:
        for found in sorted(data_dir.glob(pattern)):
            return found if found.is_dir() or is_archive(found) else found.parent
    raise UserError(
        f"{data_dir} must hold {name} (looked for {', '.join(source.local)})",
        fix="put its files there, or use neither data_dir nor NOISEOPT_DATA to download them",
    )


def _tree(path: Path, size: int | None, cache: Path) -> Pool:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST_SIDE):
        raise UserError(f"size must be an integer in 1..{_LARGEST_SIDE} pixels", got=size, fix="pass size=32")
    if path.is_dir() and (path / "wnids.txt").is_file():
        raise UserError(
            "Tiny-ImageNet in its own layout is loaded by its name",
            got=str(path),
            fix=f"load('tiny-imagenet', data_dir={str(path)!r})",
        )
    return cached(
        _cache_file(cache, stem(path), path, size),
        identity=f"{identity(path)} size={size}",
        build=lambda: read_tree(path, size=size),
    )


def _cache_file(cache: Path, name: str, root: Path, size: int | None = None) -> Path:
    """One file for each source and size: when the source changes, its file is replaced."""
    key = hashlib.sha256(f"{root.absolute()} {size}".encode(errors="surrogateescape")).hexdigest()[:16]
    return cache / "decoded" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)[:80]}-{key}.safetensors"


def _part(name: str, pool: Pool, part: Part) -> Dataset:
    if part == "all":
        return pool.dataset
    train = pool.train
    if train is None:
        raise UserError(f"{name} is not divided into 'train' and 'test'", got=part, fix="pass part='all' and use split")
    dataset = pool.dataset.span(0, train) if part == "train" else pool.dataset.span(train, len(pool.dataset))
    if len(dataset) == 0:
        raise UserError(f"{name} has no {part} images", got=part, fix="pass part='all'")
    return dataset


def _with_part(name: str, part: Part) -> str:
    return name if part == "all" else f"{name} {part}"


def _honest_name(name: str, source: Source, pool: Pool, dataset: Dataset, part: Part) -> str:
    """The name, the part, and in what the copy at hand differs from the published data."""
    label = _with_part(name, part)
    if source.counts is not None and pool.train is not None:
        train, test = source.counts
        if (pool.train, len(pool.dataset) - pool.train) != source.counts:
            published = {"all": train + test, "train": train, "test": test}[part]
            label = f"{label} ({len(dataset):,} of {published:,} images)"
            _LOG.info("not the whole of %s: %s", name, label)
            return label
    if source.hash is not None and pool.dataset.hash != source.hash:
        return f"{label} (modified)"
    return label
