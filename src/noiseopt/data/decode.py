"""Image files → one uint8 tensor. Each file is decoded once; what comes out is cached (see cache.py)."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from noiseopt.errors import UserError

Pixels = NDArray[np.uint8]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".webp")
"""Of the image files that can be read here."""
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP")
_MOST_PIXELS, _MOST_PIXELS_UNSCALED = 64_000_000, 1024 * 1024
_CHUNK_FILES, _CHUNK_BYTES = 256, 64 * 2**20
# Below this many bytes a file, handing the interpreter lock around costs more than a second thread gains.
_THREADS_PAY = 3000
_GREY = frozenset({"1", "L", "LA"})
_COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})


def is_image(name: str) -> bool:
    """Is this, by its suffix, an image file that can be read here?"""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def decode(
    files: Iterable[tuple[str, bytes]],
    *,
    source: Path,
    key: Callable[[str], Any],
    size: int | None = None,
) -> tuple[list[str], Tensor]:
    """Decode `files` (name, content) of `source`: their names, and the images, in the order of `key(name)`.

    The images are `UInt8[N, C, H, W]`: C = 3 (RGB) if any file has colour, else 1; transparency is dropped.
    All must be of one size, unless `size` is given: then each is scaled to size × size pixels (bicubic), what
    sticks out on the longer side being cut off. Files come and go one chunk at a time, so the memory needed
    is that of the pixels. Raises UserError, naming the file, for one that cannot be decoded or is of another
    size.
    """
    names: list[str] = []
    chunks: list[Pixels] = []
    first: tuple[str, Pixels] | None = None
    with ThreadPoolExecutor() as threads:
        for chunk in _chunks(files):
            named = [(f"{source}/{name}", content) for name, content in chunk]
            if sum(len(content) for _, content in chunk) >= _THREADS_PAY * len(chunk):
                images = list(threads.map(lambda file: _decode(file[0], file[1], size), named))
            else:
                images = [_decode(path, content, size) for path, content in named]
            first = first or (named[0][0], images[0])
            for (path, _), image in zip(named, images, strict=True):
                _check_same_size(path, image, *first)
            names += [name for name, _ in chunk]
            chunks.append(_stack(images))
    if not names:
        raise UserError(
            f"{source} must hold image files ({', '.join(SUFFIXES)})",
            fix="put them in class folders: train/<class>/*.jpg and test/<class>/*.jpg, or <class>/*.jpg",
        )
    return _sorted(names, chunks, source=source, key=key)


def _chunks(files: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    chunk: list[tuple[str, bytes]] = []
    held = 0
    for name, content in files:
        chunk.append((name, content))
        held += len(content)
        if len(chunk) == _CHUNK_FILES or held >= _CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _decode(path: str, content: bytes, size: int | None) -> Pixels:
    """`UInt8[C, H, W]`, C = 1 or 3."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            most = _MOST_PIXELS_UNSCALED if size is None else _MOST_PIXELS
            if image.width * image.height > most:
                raise UserError(
                    f"{path} must have at most {most:,} pixels",
                    got=f"{image.width}×{image.height}",
                    fix="pass size=64, say, to scale every image to that many pixels a side",
                )
            if image.mode not in _GREY | _COLOUR:
                raise ValueError(f"pixels of mode {image.mode} are not 8-bit")
            flat: Image.Image = image.convert("L" if image.mode in _GREY else "RGB")
    except UserError:
        raise
    except Exception as error:  # On damaged bytes Pillow's readers raise nearly anything.
        raise UserError(
            f"{path} must be a whole 8-bit image file of one of the kinds {', '.join(_FORMATS)}",
            got=re.sub(r" <_io.*>", " it", f"{type(error).__name__}: {error}"),
            fix="replace it with an undamaged copy, or take it out",
        ) from error
    if size is not None:
        flat = ImageOps.fit(flat, (size, size), method=Image.Resampling.BICUBIC)
    pixels = np.asarray(flat)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _check_same_size(path: str, image: Pixels, first_path: str, first: Pixels) -> None:
    if image.shape[1:] != first.shape[1:]:
        (height, width), (first_height, first_width) = image.shape[1:], first.shape[1:]
        raise UserError(
            f"all images must be of one size; {first_path} is {first_width}×{first_height} (width × height)",
            got=f"{width}×{height} in {path}",
            fix=f"pass size={min(first_height, first_width)} to scale every image to that many pixels a side",
        )


def _stack(images: list[Pixels]) -> Pixels:
    channels = max(len(image) for image in images)
    return np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])


def _sorted(
    names: list[str], chunks: list[Pixels], *, source: Path, key: Callable[[str], Any]
) -> tuple[list[str], Tensor]:
    order = sorted(range(len(names)), key=lambda i: key(names[i]))
    ordered = [names[i] for i in order]
    for before, after in itertools.pairwise(ordered):
        if before == after:
            raise UserError(f"{source}/{after} must be there only once", fix="pack the archive again")
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    channels = max(chunk.shape[1] for chunk in chunks)
    images = np.empty((len(names), channels, *chunks[0].shape[2:]), dtype=np.uint8)
    start = len(names)
    while chunks:  # From the back, each chunk let go at once: the pixels are held once, not twice.
        chunk = chunks.pop()
        start -= len(chunk)
        images[place[start : start + len(chunk)]] = chunk
    return ordered, torch.from_numpy(images)
