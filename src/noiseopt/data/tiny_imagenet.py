"""Tiny-ImageNet (Le & Yang 2015) in its own layout, with bounding boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from noiseopt.data.archives import entries
from noiseopt.data.dataset import Pool, pooled
from noiseopt.data.decode import decode, is_image
from noiseopt.errors import UserError

Box = tuple[int, int, int, int]
_UNKNOWN: Box = (-1, -1, -1, -1)
_LISTS = ("wnids.txt", "words.txt", "val_annotations.txt", "_boxes.txt")


def read_tiny_imagenet(source: Path) -> Pool:
    """The 110,000 images of Tiny-ImageNet that have labels: 100,000 for training, then the 10,000 of `val`.

    `source` is the folder that holds `wnids.txt`, or an archive of it. The official test images have no
    labels and are passed over. Classes are in the order of `wnids.txt`, with the first name that `words.txt`
    has for each. Raises UserError, naming the file, where one is damaged, an image or a class is not listed,
    or a listed validation image is missing.
    """
    lists = _Lists(source)
    # "train/…" comes before "val/…" in alphabetical order.
    names, images = decode(lists.take(), source=source, key=str)
    root = lists.root()
    wnids = [line[0] for line in lists.lines(f"{root}wnids.txt", fields=1)]
    number = {wnid: index for index, wnid in enumerate(wnids)}
    validation = _Validation(lists, root)
    train_boxes: dict[str, dict[str, Box]] = {}
    labels: list[int] = []
    boxes: list[Box] = []
    train = 0
    for name in names:
        match name.removeprefix(root).split("/"):
            case ["train", wnid, "images", file]:
                if wnid not in train_boxes:
                    train_boxes[wnid] = _train_boxes(lists, f"{root}train/{wnid}/{wnid}_boxes.txt")
                box = train_boxes[wnid].get(file, _UNKNOWN)
                train += 1
            case ["val", "images", file]:
                wnid, box = validation.take(file)
            case _:
                raise lists.wrong(name, "an image outside train/<class>/images/ and val/images/")
        if wnid not in number:
            raise lists.wrong(name, f"class {wnid}, which is not in wnids.txt")
        labels.append(number[wnid])
        boxes.append(box)
    validation.check_all_taken()
    return pooled(
        images,
        torch.tensor(labels),
        _class_names(lists, wnids, f"{root}words.txt"),
        train=train,
        boxes=torch.tensor(boxes, dtype=torch.int16),
    )


class _Lists:
    """The text files of the data set, which come in between the images."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._texts: dict[str, bytes] = {}

    def take(self) -> Iterator[tuple[str, bytes]]:
        """The labelled images; keeps the text files that it passes on the way."""
        for name, content in entries(self._source, self._wanted):
            if is_image(name):
                yield name, content
            else:
                self._texts[name] = content

    @staticmethod
    def _wanted(name: str) -> bool:
        if is_image(name):
            return not name.rpartition("/")[0].endswith("test/images")
        return name.endswith(_LISTS)

    def root(self) -> str:
        """The folder, with its slash, in which `wnids.txt` lies."""
        found = [name for name in self._texts if name.split("/")[-1] == "wnids.txt"]
        if len(found) != 1:
            raise UserError(
                f"{self._source} must hold one wnids.txt, the list of the classes",
                got=f"{len(found)} of them",
                fix="pass the folder tiny-imagenet-200, or an archive of it",
            )
        return found[0].removesuffix("wnids.txt")

    def has(self, name: str) -> bool:
        return name in self._texts

    def lines(self, name: str, *, fields: int) -> list[list[str]]:
        """The lines of the text file `name` that are not empty, each divided at tabs into `fields` fields."""
        if name not in self._texts:
            raise self.wrong(name, "no such file")
        try:
            lines = [line.strip().split("\t") for line in self._texts[name].decode().splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise self.wrong(name, str(error)) from error
        for line in lines:
            if len(line) != fields:
                raise self.wrong(name, f"a line of {len(line)} fields, not {fields}: {line[0]}")
        return lines

    def box(self, name: str, numbers: list[str]) -> Box:
        """Four numbers of a line of `name`."""
        try:
            left, top, right, bottom = (int(number) for number in numbers)
        except ValueError as error:
            raise self.wrong(name, str(error)) from error
        if not all(0 <= number < 2**15 for number in (left, top, right, bottom)):
            raise self.wrong(name, f"a box {numbers}")
        return left, top, right, bottom

    def wrong(self, name: str, got: str) -> UserError:
        return UserError(
            f"{self._source}/{name} must be as in Tiny-ImageNet",
            got=got,
            fix="use an undamaged copy; for folders of your own, pass their path to load()",
        )


class _Validation:
    """Class and box of every validation image, from `val_annotations.txt`."""

    def __init__(self, lists: _Lists, root: str) -> None:
        self._lists, self._name = lists, f"{root}val/val_annotations.txt"
        self._left: dict[str, tuple[str, Box]] = {}
        if lists.has(self._name):
            for file, wnid, *numbers in lists.lines(self._name, fields=6):
                self._left[file] = (wnid, lists.box(self._name, numbers))

    def take(self, file: str) -> tuple[str, Box]:
        if file not in self._left:
            raise self._lists.wrong(self._name, f"no line for {file}")
        return self._left.pop(file)

    def check_all_taken(self) -> None:
        for file in self._left:
            raise self._lists.wrong(self._name, f"a line for {file}, an image that is missing")


def _train_boxes(lists: _Lists, name: str) -> dict[str, Box]:
    if not lists.has(name):
        return {}
    return {file: lists.box(name, numbers) for file, *numbers in lists.lines(name, fields=5)}


def _class_names(lists: _Lists, wnids: list[str], name: str) -> list[str]:
    """The first word for each class; its wnid where there is none, or where two classes share it."""
    words = dict(lists.lines(name, fields=2)) if lists.has(name) else {}
    first = {wnid: words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids}
    count = Counter(first.values())
    return [first[wnid] if count[first[wnid]] == 1 else wnid for wnid in wnids]
