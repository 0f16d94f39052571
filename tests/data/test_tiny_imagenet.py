"""Tiny-ImageNet's own layout, on files made here."""

from pathlib import Path

import pytest

from noiseopt.data import load
from noiseopt.errors import UserError
from tests.data import data_files as make


@pytest.mark.parametrize("archive", ["", "tiny-imagenet-200.zip", "tiny-imagenet-sample.tar.xz"])
def test_tiny_imagenet(tmp_path: Path, archive: str) -> None:
    files = make.tiny_imagenet()
    if archive:
        files = {archive: make.zipped(files) if archive.endswith("zip") else make.tar(files, "w:xz")}
    data = load("tiny-imagenet", data_dir=make.write(tmp_path, files), cache_dir=tmp_path / "cache")
    assert data.name == "tiny-imagenet (6 of 110,000 images)"
    assert data.classes == ("pay-phone", "goldfish")  # in the order of wnids.txt
    assert data.images.shape == (6, 3, 8, 8)
    assert data.labels.tolist() == [1, 1, 0, 0, 0, 1]
    assert data.boxes is not None
    unknown = [-1, -1, -1, -1]
    assert data.boxes.tolist() == [unknown, [0, 1, 2, 3], unknown, [0, 1, 2, 3], [0, 0, 1, 1], [4, 5, 6, 7]]
    test = load("tiny-imagenet", part="test", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert test.ids.tolist() == [4, 5]
    assert test.boxes is not None
    assert test.boxes.tolist() == [[0, 0, 1, 1], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wnids.txt", b"n01\n", r"class n02, which is not in wnids\.txt"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn01\t0\t0\t1\t1\n", "no line for val_1.JPEG"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn99\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n", "class n99"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn01\n", "2 fields, not 6"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn01\t0\t0\tx\t1\n", "invalid literal"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn01\t0\t0\t99999\t1\n", "a box"),
        ("val/val_annotations.txt", b"\xff\xfe", "utf-8"),
        ("val/images/val_0.JPEG", None, "val_0.JPEG, an image that is missing"),
        ("val/val_annotations.txt", None, "no line for val_0.JPEG"),
        ("wnids.txt", None, "one wnids.txt"),
        ("train/stray.JPEG", "image", r"train/stray\.JPEG .*outside"),
    ],
)
def test_mislabelled_tiny_imagenet(tmp_path: Path, name: str, content: object, message: str) -> None:
    files = make.tiny_imagenet()
    path = f"tiny-imagenet-200/{name}"
    if content is None:
        del files[path]
    else:
        files[path] = make.image(make.pixels(8, 8), "JPEG") if content == "image" else content  # type: ignore[assignment]
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(make.zipped(files))
    with pytest.raises(UserError, match=message) as caught:
        load("tiny-imagenet", data_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert "tiny-imagenet-200.zip" in str(caught.value)


def test_tiny_imagenet_by_path_is_sent_to_its_name(tmp_path: Path) -> None:
    make.write(tmp_path, make.tiny_imagenet())
    with pytest.raises(UserError, match="load\\('tiny-imagenet'"):
        load(tmp_path / "tiny-imagenet-200", cache_dir=tmp_path / "cache")
