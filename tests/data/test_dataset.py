import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noiseopt.data import Dataset, to_unit
from noiseopt.errors import UserError


def make(count: int = 10, classes: int = 3, **changes: object) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    fields: dict[str, object] = {
        "images": torch.randint(0, 256, (count, 3, 4, 5), generator=generator, dtype=torch.uint8),
        "labels": torch.arange(count) % classes,
        "classes": tuple(f"class {i}" for i in range(classes)),
        "name": "made",
        "ids": torch.arange(100, 100 + count),
        "boxes": torch.arange(4 * count, dtype=torch.int16).view(count, 4),
    }
    return Dataset(**{**fields, **changes})  # type: ignore[arg-type]


def test_to_unit_is_exact_at_every_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_unit(levels).tolist() == (np.arange(256, dtype=np.float32) / np.float32(255)).tolist()
    assert levels.dtype == torch.uint8


def test_to_unit_refuses_floats() -> None:
    with pytest.raises(UserError, match="8-bit"):
        to_unit(torch.zeros(3))


@given(st.integers(1, 12))
def test_batches_are_the_images_once_in_order(batch_size: int) -> None:
    data = make()
    images, labels, ids = (torch.cat(column) for column in zip(*data.batches(batch_size), strict=True))
    assert images.dtype == torch.float32
    assert torch.equal((images * 255).round().to(torch.uint8), data.images)
    assert torch.equal(labels, data.labels)
    assert torch.equal(ids, data.ids)
    assert all(len(batch[0]) <= batch_size for batch in data.batches(batch_size))


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_batch_size_is_checked_at_the_call(size: object) -> None:
    with pytest.raises(UserError, match="batch_size"):
        make().batches(size)  # type: ignore[arg-type]


def test_batch_takes_images_labels_and_ids_at_the_index() -> None:
    data = make()
    images, labels, ids = data.batch(torch.tensor([7, 7, 2]))
    assert torch.equal(images, to_unit(data.images[[7, 7, 2]]))
    assert labels.tolist() == [1, 1, 2]
    assert ids.tolist() == [107, 107, 102]


def test_subset_keeps_identities_and_boxes() -> None:
    part = make().subset([4, 1])
    assert part.ids.tolist() == [104, 101]
    assert part.boxes is not None
    assert part.boxes.tolist() == [[16, 17, 18, 19], [4, 5, 6, 7]]
    again = part.subset(torch.tensor([1]))
    assert again.ids.tolist() == [101]
    assert torch.equal(again.images, make().images[[1]])


def test_subset_takes_a_mask_and_an_empty_list() -> None:
    data = make()
    assert data.subset(data.labels == 0).ids.tolist() == [100, 103, 106, 109]
    assert len(data.subset([])) == 0


@pytest.mark.parametrize("index", [[10], [-1], [0.5], [[1, 2]], torch.tensor(3), torch.tensor([True])])
def test_subset_refuses_a_wrong_index(index: object) -> None:
    with pytest.raises(UserError, match="index"):
        make().subset(index)  # type: ignore[arg-type]


def test_hash_is_sha256_of_shape_type_and_bytes() -> None:
    # Written out, because records of earlier runs are compared by it: it must never change.
    images = torch.arange(2 * 1 * 2 * 2, dtype=torch.uint8).view(2, 1, 2, 2)
    data = Dataset(images, torch.tensor([1, 0]), ("a", "b"), "x", torch.arange(2))
    content = b"|u1[2, 1, 2, 2]" + bytes(range(8)) + b"<i8[2]" + bytes([1] + 15 * [0])
    assert data.hash == hashlib.sha256(content).hexdigest()


def test_hash_is_of_content_alone() -> None:
    data = make()
    assert data.hash == data.named("other").hash == make(name="third", ids=torch.arange(10)).hash
    assert data.hash == data.to("cpu").hash == data.subset(range(10)).hash
    assert data.subset([0, 1]).hash != data.subset([1, 0]).hash
    assert data.subset([0, 1]).hash == data.span(0, 2).hash
    changed = data.images.clone()
    changed[9, 2, 3, 4] ^= 1
    assert make(images=changed).hash != data.hash
    assert make(labels=data.labels.flip(0)).hash != data.hash
    assert make(images=data.images.transpose(2, 3).contiguous()).hash != data.hash


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"images": torch.zeros(10, 3, 4, 5)}, "uint8"),
        ({"images": torch.zeros(10, 3, dtype=torch.uint8)}, r"\[N, C, H, W\]"),
        ({"labels": torch.zeros(10)}, "labels must be torch.int64"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, "10 images"),
        ({"labels": torch.full((10,), 3)}, r"0\.\.2"),
        ({"labels": torch.full((10,), -1)}, r"0\.\.2"),
        ({"ids": torch.zeros(3, dtype=torch.int64)}, "ids"),
        ({"boxes": torch.zeros(10, 3)}, "boxes"),
    ],
)
def test_wrong_fields_are_refused(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        make(**changes)


def test_repr_is_one_line() -> None:
    assert repr(make()) == "Dataset(made: 10 images of 3×4×5 in 3 classes, on cpu)"


def test_arrays_of_ones_own_become_a_dataset() -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
    mirrored = Dataset.of(images[:, ::-1], np.array([0, 2, 1, 0, 2, 1], dtype=np.uint32))
    assert torch.equal(mirrored.images.flip(-2)[:, 0], torch.from_numpy(images))
    data = Dataset.of(images.copy(), [0, 2, 1, 0, 2, 1])
    assert data.images.shape == (6, 1, 4, 5)
    assert (data.classes, data.ids.tolist()) == (("0", "1", "2"), list(range(6)))
    assert torch.equal(data.images[:, 0], torch.from_numpy(images))
    named = Dataset.of(make().images, make().labels.to(torch.int32), classes=["a", "b", "c"], name="mine")
    assert (named.classes, named.name, named.hash) == (("a", "b", "c"), "mine", make().hash)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(3, 1, 4, 4), [0, 1, 2], "must be torch.uint8"),
        (np.zeros((3, 4, 4, 3), dtype=np.uint8), [0, 1, 2], r"with C 1 or 3; got .*transpose\(0, 3, 1, 2\)"),
        (np.zeros((3, 4, 4), dtype=np.uint8), ["a", "b", "c"], "arrays of numbers"),
        (7, [0], "with C 1 or 3"),
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), [0.0, 1.0, 2.0], "whole numbers"),
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), [0, 1], "one number for each"),
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), [0, 1, -1], r"labels must be in 0\.\.1"),
    ],
)
def test_arrays_that_are_no_images_with_labels_are_refused(images: object, labels: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Dataset.of(images, labels)
