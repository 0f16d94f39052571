"""Images in memory as 8-bit integers; they become numbers in [0, 1] only when a batch is taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noiseopt.errors import UserError


def to_unit(images: Tensor) -> Tensor:
    """`UInt8[...]` pixels 0..255 → `Float32[...]` in [0, 1]: divided by 255, nothing else.

    Raises UserError where the pixels are not 8-bit integers.
    """
    if images.dtype != torch.uint8:
        raise UserError(
            "pixels must be 8-bit integers (torch.uint8)",
            got=str(images.dtype),
            fix="pass images as 0..255 uint8; images that are in [0, 1] already need no conversion",
        )
    return images.to(torch.float32).div_(255)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images, all of one size, in memory on one device.

    - `images`: `UInt8[N, C, H, W]`, C = 1 (grey) or 3 (RGB)
    - `labels`: `Int64[N]`, indices into `classes`
    - `classes`: the name of every class
    - `name`: what the data are, and whether they are all of it
    - `ids`: `Int64[N]`, the identity of each image in the pooled set; a subset keeps it
    - `boxes`: `Int16[N, 4]`, bounding boxes (left, top, right, bottom) in pixels, -1 where unknown; or None
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    ids: Tensor
    boxes: Tensor | None = None

    def __post_init__(self) -> None:
        _check(self.images.dtype == torch.uint8, "images must be torch.uint8", self.images.dtype)
        _check(self.images.ndim == 4, "images must be [N, C, H, W]", list(self.images.shape))
        for field, tensor in (("labels", self.labels), ("ids", self.ids)):
            _check(tensor.dtype == torch.int64, f"{field} must be torch.int64", tensor.dtype)
            _check(
                tensor.shape == self.images.shape[:1],
                f"{field} must be one number for each of the {len(self.images)} images",
                list(tensor.shape),
            )
            _check(tensor.device == self.images.device, f"{field} must be on the images' device", tensor.device)
        if self.boxes is not None:
            _check(self.boxes.shape == (len(self), 4), "boxes must be [N, 4]", list(self.boxes.shape))
        if len(self):
            low, high = int(self.labels.min()), int(self.labels.max())
            in_range = low >= 0 and high < len(self.classes)
            _check(in_range, f"labels must be in 0..{len(self.classes) - 1}", f"{low}..{high}")

    @classmethod
    def of(
        cls, images: Any, labels: Any, *, classes: Sequence[str] | None = None, name: str = "images of your own"
    ) -> Dataset:
        """Of tensors, or of arrays, which are copied: `images` `UInt8[N, C, H, W]`, C = 1 or 3, or, grey,
        `UInt8[N, H, W]`; `labels` whole numbers from 0.

        `classes`: their names; None: "0", "1", ... Raises UserError where the two are not that.
        """
        try:
            images, labels = (t if isinstance(t, Tensor) else torch.from_numpy(np.array(t)) for t in (images, labels))
        except (TypeError, ValueError) as error:
            rule, fix = "images and labels must be tensors or arrays of numbers", "see help(noiseopt.data.Dataset)"
            raise UserError(rule, got=str(error), fix=fix) from None
        _check(not labels.is_floating_point(), "labels must be whole numbers", labels.dtype)
        if images.ndim == 3:
            images = images.unsqueeze(1)
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            rule, fix = "images must be [N, C, H, W], with C 1 or 3", "images.transpose(0, 3, 1, 2), if C is last"
            raise UserError(rule, got=list(images.shape), fix=fix)
        labels = labels.long()
        if classes is None:
            classes = [str(number) for number in range(int(labels.max()) + 1 if labels.numel() else 0)]
        return cls(images, labels, tuple(classes), name, torch.arange(len(images), device=images.device))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        size = "×".join(str(length) for length in self.images.shape[1:])
        return (
            f"Dataset({self.name}: {len(self):,} images of {size} in {len(self.classes)} classes, "
            f"on {self.images.device})"
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the shapes, types and bytes of images and labels, in hex: the same on every device."""
        digest = hashlib.sha256()
        for tensor, kind in ((self.images, "|u1"), (self.labels, "<i8")):
            array = tensor.cpu().contiguous().numpy().astype(kind, copy=False)
            digest.update(f"{kind}{list(array.shape)}".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def subset(self, index: Tensor | Sequence[int]) -> Dataset:
        """The images at `index` (`Int64[K]`, or a mask `Bool[N]`), in that order, with their ids.

        Raises UserError where the index is not of whole numbers in 0..N-1.
        """
        rows = torch.as_tensor(index, device=self.images.device)
        if rows.dtype == torch.bool and rows.shape == self.labels.shape:
            rows = rows.nonzero().flatten()
        if rows.numel() == 0:
            rows = rows.flatten().long()
        _check(
            rows.dtype in (torch.int64, torch.int32) and rows.ndim == 1,
            "an index must be a list of whole numbers, or a mask of all images",
            f"{rows.dtype}{list(rows.shape)}",
        )
        if len(rows):
            low, high = int(rows.min()), int(rows.max())
            _check(low >= 0 and high < len(self), f"an index must be in 0..{len(self) - 1}", f"{low}..{high}")
        boxes = None if self.boxes is None else self.boxes[rows]
        return Dataset(self.images[rows], self.labels[rows], self.classes, self.name, self.ids[rows], boxes)

    def span(self, start: int, stop: int) -> Dataset:
        """Images start..stop-1, sharing memory with this set."""
        rows = slice(start, stop)
        boxes = None if self.boxes is None else self.boxes[rows]
        return Dataset(self.images[rows], self.labels[rows], self.classes, self.name, self.ids[rows], boxes)

    def to(self, device: torch.device | str) -> Dataset:
        """The same set on `device`, all of it, so that no batch has to be copied there."""
        boxes = None if self.boxes is None else self.boxes.to(device)
        moved = replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            ids=self.ids.to(device),
            boxes=boxes,
        )
        return self._same_content(moved)

    def named(self, name: str) -> Dataset:
        """The same set under another name."""
        return self._same_content(replace(self, name=name))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The batch at `index` (`Int64[B]`, 0..N-1, best on the set's device; not checked, for speed).

        Returns images `Float32[B, C, H, W]` in [0, 1], labels `Int64[B]`, ids `Int64[B]`.
        """
        rows = index.to(self.images.device)
        # Several times as fast as indexing with a tensor.
        images, labels, ids = (t.index_select(0, rows) for t in (self.images, self.labels, self.ids))
        return to_unit(images), labels, ids

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Every image once, in order, as `batch` returns them; the last batch holds what is left.

        Raises UserError where `batch_size` is not a positive integer.
        """
        _check(
            isinstance(batch_size, int) and batch_size > 0,
            "batch_size must be a positive integer",
            batch_size,
        )
        return self._batches(batch_size)

    def _batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            yield to_unit(self.images[rows]), self.labels[rows], self.ids[rows]

    def _same_content(self, other: Dataset) -> Dataset:
        """Hand a hash that is known already to a set with the same images and labels."""
        if "hash" in self.__dict__:
            other.__dict__["hash"] = self.hash
        return other


@dataclass(frozen=True)
class Pool:
    """All the labelled images of a source: its training images first, then its test images.

    `train`: how many are training images; None where the source is not divided.
    """

    dataset: Dataset
    train: int | None


def pooled(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    train: int | None,
    boxes: Tensor | None = None,
) -> Pool:
    """A Pool with identities 0..N-1, without a name yet."""
    dataset = Dataset(images, labels, tuple(classes), "", torch.arange(len(images)), boxes)
    return Pool(dataset, train)


def _check(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise UserError(
            rule,
            got=got if isinstance(got, (str, int)) else str(got),
            fix="see help(noiseopt.data.Dataset) for shapes and types",
        )
