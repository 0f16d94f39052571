"""Any tree of class folders, on disk or in an archive: the way to bring your own images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from noiseopt.data.archives import entries
from noiseopt.data.dataset import Pool, pooled
from noiseopt.data.decode import SUFFIXES, decode, is_image
from noiseopt.errors import UserError

_PARTS = ("train", "test")
_UNREAD = {".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".raw", ".dng", ".npy", ".npz", ".svg", ".pbm"}
_NEVER_CLASSES = {"__pycache__", "__MACOSX", "lost+found", "@eaDir"}  # what systems leave lying about
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
    passed: set[PurePosixPath] = set()

    def wanted(name: str) -> bool:
        if PurePosixPath(name).suffix.lower() in _UNREAD:
            passed.add(PurePosixPath(name))
        return is_image(name)

    names, images = decode(
        entries(source, wanted),
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
    _check_no_class_is_lost(source, names, passed)
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


def _check_no_class_is_lost(source: Path, names: list[str], passed: set[PurePosixPath]) -> None:
    """A class folder without an image would be left out in silence, and all labels after it would be others.

    `passed`: images of kinds that are not read. A folder of other things (annotations, say) is no class.
    """
    folders = {PurePosixPath(name).parent for name in names if _place(source, name).part != "test"}
    above = {folder.parent for folder in folders}
    beside = {one / file.relative_to(one).parts[0] for one in above for file in passed if one in file.parents[1:]}
    if source.is_dir():
        made = (p for one in above for p in (source / one).iterdir() if p.is_dir() and _is_visible(p.name))
        bare = (p for p in made if not any(_is_visible(inside.name) for inside in p.rglob("*") if inside.is_file()))
        beside |= {PurePosixPath(p.relative_to(source).as_posix()) for p in bare}
    lost = sorted(beside - folders - above)
    if lost:
        rule = f"every folder beside the class folders must hold images of a kind that is read: {', '.join(SUFFIXES)}"
        raise UserError(rule, got=f"none in {source}/{lost[0]}", fix="convert what it holds, or move the folder away")


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name not in _NEVER_CLASSES


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
