"""Any tree of class folders, on disk or in an archive: the way to bring your own images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from noiseopt.data.archives import entries
from noiseopt.data.dataset import Pool, pooled
from noiseopt.data.decode import decode, is_image
from noiseopt.errors import UserError

_PARTS = ("train", "test")
_TREE = "train/<class>/ and test/<class>/, or <class>/ alone"


@dataclass(frozen=True)
class _Place:
    """Where in a tree an image lies: `prefix/part/label/…`."""

    prefix: tuple[str, ...]
    part: str
    label: str


def read_tree(source: Path, *, size: int | None = None) -> Pool:
    """Images in class folders: `train/<class>/*` and `test/<class>/*`, or `<class>/*`, at any one depth.

    `source` is a folder or an archive. Classes are in alphabetical order, images in that of part, class and
    file name. Raises UserError, naming the file, for an image that is damaged, of another size (see
    `decode`), in no class folder, or in a class folder that only `test` has.
    """
    names, images = decode(
        entries(source, is_image),
        source=source,
        key=lambda name: (_place(source, name).part != "train", name),
        size=size,
    )
    places = [_place(source, name) for name in names]
    for name, place in zip(names, places, strict=True):
        if place.prefix != places[0].prefix or (not place.part) != (not places[0].part):
            raise UserError(
                f"class folders must lie beside each other, as {_TREE}",
                got=f"{source}/{names[0]} and {source}/{name}",
                fix="move one of the two folders",
            )
    divided = bool(places[0].part)
    known = {place.label for place in places if place.part != "test"}
    if not divided and known <= set(_PARTS):
        raise UserError(
            f"images must lie in class folders, as {_TREE}",
            got=f"{source}/{names[0]}",
            fix="put a folder for each class into train/ and test/",
        )
    classes = sorted(known or {place.label for place in places})
    number = {label: index for index, label in enumerate(classes)}
    for name, place in zip(names, places, strict=True):
        if place.label not in number:
            raise UserError(
                "every class in test/ must be in train/ too",
                got=f"{source}/{name}",
                fix=f"add images to train/{place.label}/, or take test/{place.label}/ out",
            )
    labels = torch.tensor([number[place.label] for place in places])
    train = sum(place.part == "train" for place in places) if divided else None
    return pooled(images, labels, classes, train=train)


def _place(source: Path, name: str) -> _Place:
    *above, _file = PurePosixPath(name).parts
    if not above:
        raise UserError(
            f"images must lie in class folders, as {_TREE}",
            got=f"{source}/{name}",
            fix="make one folder for each class",
        )
    *above, label = above
    part = above.pop() if above and above[-1] in _PARTS else ""
    return _Place(tuple(above), part, label)
