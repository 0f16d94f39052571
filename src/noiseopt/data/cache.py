"""Decoded images on disk, so that none is decoded twice. Written whole or not at all, and never trusted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from noiseopt.data.dataset import Pool, pooled
from noiseopt.errors import UserError

_LOG = logging.getLogger(__name__)
_FORMAT = "noiseopt decoded images 1"
_PARTIAL = ".partial"
_STALE = 3600.0  # seconds


def cache_folder(given: Path | None) -> Path:
    """`given`, or the folder in NOISEOPT_CACHE, or the user's cache folder on this system."""
    if given is not None:
        return given.expanduser()
    if from_environment := os.environ.get("NOISEOPT_CACHE"):
        return Path(from_environment).expanduser()
    import pooch  # Takes 0.2 s to import, and most loads do not come here.

    return Path(pooch.os_cache("noiseopt"))


def cached(path: Path, *, identity: str, build: Callable[[], Pool]) -> Pool:
    """The Pool kept in `path` (safetensors), or what `build()` returns where none of this `identity` is.

    What was built is then kept. A file that is damaged is built anew, with a warning; a folder that cannot be
    written to costs only time, and a warning. An error in `build` leaves the cache as it was.
    """
    try:
        pool = _read(path, identity)
    except (SafetensorError, UserError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        _LOG.warning("%s is damaged (%s: %s): decoding the images again", path, type(error).__name__, error)
        pool = None
    if pool is None:
        pool = build()
        try:
            _write(path, identity, pool)
        except (OSError, SafetensorError) as error:
            _LOG.warning("could not keep the decoded images in %s (%s): the next load decodes again", path, error)
    return pool


def _read(path: Path, identity: str) -> Pool | None:
    """The Pool in the file, None where that was made from another source; raises on any damage."""
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        if about["format"] != _FORMAT or about["identity"] != identity:
            return None
        # Cloned, because what safe_open gives is a view of the file, and changes or dies with it.
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (not a dict)
    train = json.loads(about["train"])
    pool = pooled(
        tensors["images"],
        tensors["labels"],
        json.loads(about["classes"]),
        train=train,
        boxes=tensors.get("boxes"),
    )
    if _digest(pool, identity) != about["digest"]:
        raise ValueError("its checksum is wrong")
    return pool


def _write(path: Path, identity: str, pool: Pool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    data = pool.dataset
    tensors = {"images": data.images, "labels": data.labels}
    if data.boxes is not None:
        tensors["boxes"] = data.boxes
    about = {
        "format": _FORMAT,
        "identity": identity,
        "classes": json.dumps(data.classes),
        "train": json.dumps(pool.train),
        "digest": _digest(pool, identity),
    }
    # A folder, because save_file writes a temporary file of its own beside its target.
    partial = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=_PARTIAL, dir=path.parent))
    try:
        save_file(tensors, partial / path.name, metadata=about)
        with (partial / path.name).open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial / path.name, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_stale(path: Path) -> None:
    """What killed processes left behind, once it is too old to be another process's work."""
    for partial in path.parent.glob(f"*{_PARTIAL}"):
        if time.time() - partial.stat().st_mtime > _STALE:
            shutil.rmtree(partial, ignore_errors=True)


def _digest(pool: Pool, identity: str) -> str:
    boxes = b"" if pool.dataset.boxes is None else pool.dataset.boxes.to(torch.int16).numpy().tobytes()
    about = json.dumps([_FORMAT, identity, pool.dataset.hash, list(pool.dataset.classes), pool.train])
    return hashlib.sha256(about.encode() + boxes).hexdigest()
