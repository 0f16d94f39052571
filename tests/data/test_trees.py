"""Images in folders and archives, on files made here."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noiseopt.data import Dataset, archives, load
from noiseopt.errors import UserError
from tests.data import data_files as make


def load_tree(folder: Path, files: make.Files, **options: object) -> Dataset:
    return load(make.write(folder / "mine", files), cache_dir=folder / "cache", **options)  # type: ignore[arg-type]


def test_folder_with_train_and_test(tmp_path: Path) -> None:
    data = load_tree(tmp_path, make.tree())
    assert data.name == "mine"
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1] * 2
    expected = np.stack([make.pixels(6, 6, 3, seed=seed) for seed in range(8)]).transpose(0, 3, 1, 2)
    assert np.array_equal(data.images.numpy(), expected)
    test = load_tree(tmp_path, {}, part="test")
    assert test.ids.tolist() == [4, 5, 6, 7]
    assert test.name == "mine test"


@pytest.mark.parametrize("top", ["", "./", "some/where/"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip"])
def test_archives_give_what_the_folder_gives(tmp_path: Path, suffix: str, top: str) -> None:
    files = {top + name: content for name, content in reversed(make.tree().items())}
    mode = {".tar": "w", ".tgz": "w:gz", ".zip": ""}.get(suffix, "w:" + suffix[-3:].strip("."))
    content = make.zipped(files) if suffix == ".zip" else make.tar(files, mode)
    (tmp_path / f"mine{suffix}").write_bytes(content)
    data = load(tmp_path / f"mine{suffix}", cache_dir=tmp_path / "cache")
    same = load_tree(tmp_path, make.tree())
    assert (data.hash, data.classes, data.name) == (same.hash, same.classes, same.name)
    assert len(list(tmp_path.rglob("*.png"))) == 8  # the folder's own: the archive was not unpacked


def test_class_folders_alone(tmp_path: Path) -> None:
    data = load_tree(tmp_path, make.tree(parts=("",)))
    assert data.labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(UserError, match="not divided"):
        load_tree(tmp_path, {}, part="train")


def test_only_training_images(tmp_path: Path) -> None:
    files = make.tree(parts=("train/",))
    assert len(load_tree(tmp_path, files, part="train")) == 4
    with pytest.raises(UserError, match="no test images"):
        load_tree(tmp_path, files, part="test")


def test_hidden_and_other_files_are_passed_over(tmp_path: Path) -> None:
    other = {"train/cat/._0.png": b"x", ".git/a/b.png": b"x", "__MACOSX/cat/x.png": b"x", "README.txt": b"x"}
    assert len(load_tree(tmp_path, make.tree() | other)) == 8


def test_tar_members_that_are_no_plain_files_or_climb_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    buffer = io.BytesIO(make.tar(make.tree()))
    with tarfile.open(fileobj=buffer, mode="a") as archive:
        for name in ("../evil/a.png", "/evil/b.png", "train/cat/../../c.png"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"train/cat/{kind!r}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    (tmp_path / "mine.tar").write_bytes(buffer.getvalue())
    assert len(load(tmp_path / "mine.tar", cache_dir=tmp_path / "cache")) == 8
    assert "passed over 4" in caplog.text


def test_links_on_disk_are_followed_and_loops_end(tmp_path: Path) -> None:
    make.write(tmp_path / "elsewhere", make.tree(parts=("",)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train").symlink_to(tmp_path / "elsewhere")
    assert len(load(tmp_path / "mine", cache_dir=tmp_path / "cache")) == 4
    (tmp_path / "mine" / "loop").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="beside each other"):
        load(tmp_path / "mine", cache_dir=tmp_path / "cache")


def test_grey_stays_grey_unless_any_has_colour(tmp_path: Path) -> None:
    grey = {f"{label}/{i}.png": make.image(make.pixels(4, 4, seed=i)) for label in "ab" for i in range(2)}
    assert load_tree(tmp_path / "1", grey).images.shape == (4, 1, 4, 4)
    data = load_tree(tmp_path / "2", grey | {"b/9.png": make.image(make.pixels(4, 4, 3))})
    assert data.images.shape == (5, 3, 4, 4)
    assert (data.images[0] == data.images[0, :1]).all()
    assert np.array_equal(data.images[0, 0].numpy(), make.pixels(4, 4))


def test_colour_late_in_a_large_set(tmp_path: Path) -> None:
    grey = make.image(make.pixels(2, 2))
    files = {f"a/{i:04}.png": grey for i in range(300)} | {"b/x.png": make.image(make.pixels(2, 2, 3))}
    (tmp_path / "mine.tar").write_bytes(make.tar(files))
    data = load(tmp_path / "mine.tar", cache_dir=tmp_path / "cache")
    assert data.images.shape == (301, 3, 2, 2)
    assert np.array_equal(data.images[-1].numpy(), make.pixels(2, 2, 3).transpose(2, 0, 1))
    assert np.array_equal(data.images[299, 2].numpy(), make.pixels(2, 2))


def test_other_sizes_need_size(tmp_path: Path) -> None:
    files = make.tree() | {"train/dog/wide.png": make.image(make.pixels(4, 10, 3))}
    with pytest.raises(UserError, match=r"10×4 in .*train/dog/wide\.png; fix: pass size="):
        load_tree(tmp_path, files)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    data = load_tree(tmp_path, files, size=5)
    assert data.images.shape == (9, 3, 5, 5)


def test_scaling_cuts_what_sticks_out(tmp_path: Path) -> None:
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 255
    data = load_tree(tmp_path, {"a/0.png": make.image(wide)}, size=4)
    assert (data.images == 255).all()


@pytest.mark.parametrize("size", [0, -3, 2000, 3.5, True])
def test_wrong_size(tmp_path: Path, size: object) -> None:
    with pytest.raises(UserError, match="size must be"):
        load_tree(tmp_path, make.tree(), size=size)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "must hold image files"),
        ({"a.png": "image"}, "class folders"),
        ({"train/a.png": "image"}, "class folders"),
        ({"train/cat/a.png": "image", "dog/b.png": "image"}, "beside each other"),
        ({"train/cat/a.png": "image", "train/cat/more/b.png": "image"}, "beside each other"),
        ({"train/cat/a.png": "image", "test/dgo/b.png": "image"}, r"every class in test.*test/dgo/b\.png"),
        ({"cat/a.png": b"no image"}, r"cat/a\.png must be a whole 8-bit image"),
        ({"cat/a.png": "cut"}, r"cat/a\.png must be a whole 8-bit image"),
        ({"cat/a.png": "16 bit"}, "not 8-bit"),
        ({"cat/a.png": "huge"}, r"cat/a\.png must have at most"),
    ],
)
def test_wrong_trees(tmp_path: Path, files: dict[str, object], message: str) -> None:
    contents = {
        "image": make.image(make.pixels(3, 3, 3)),
        "cut": make.image(make.pixels(30, 30, 3))[:-500],
        "16 bit": make.image(np.zeros((3, 3), dtype=np.uint16)),
        "huge": make.image(np.zeros((1025, 1024), dtype=np.uint8)),
    }
    tree = {name: contents[kind] if isinstance(kind, str) else kind for name, kind in files.items()}
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=message) as caught:
        load_tree(tmp_path, tree)  # type: ignore[arg-type]
    assert str(tmp_path / "mine") in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*"))


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_a_file_above_the_limit_is_not_read(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "LARGEST_FILE", 2**20)
    files = make.tree() | {"train/cat/bomb.png": bytes(2**20 + 1)}
    source = tmp_path / f"mine.{kind}"
    if kind == "folder":
        make.write(source, files)
    else:
        source.write_bytes(make.tar(files) if kind == "tar" else make.zipped(files))
    with pytest.raises(UserError, match=r"bomb\.png must be at most 1 MiB"):
        load(source, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("cut", [1, 600, 1024, 5000])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_truncated_archives(tmp_path: Path, mode: str, cut: int) -> None:
    content = make.tar(make.tree(size=40), mode)
    # An uncompressed archive ends in padding, of which the first block alone is needed.
    end = len(content.rstrip(b"\0")) if mode == "w" else len(content)
    path = tmp_path / "mine.tar"
    path.write_bytes(content[: end - cut])
    with pytest.raises(UserError, match=r"mine\.tar"):
        load(path, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*"))


def test_a_damaged_header_does_not_end_the_archive_in_silence(tmp_path: Path) -> None:
    content = bytearray(make.tar(make.tree()))
    content[content.index(b"test/cat/0.png")] ^= 1
    (tmp_path / "mine.tar").write_bytes(content)
    with pytest.raises(UserError, match="breaks off, or a header in it is damaged"):
        load(tmp_path / "mine.tar", cache_dir=tmp_path / "cache")


def test_a_name_twice(tmp_path: Path) -> None:
    buffer = io.BytesIO(make.zipped(make.tree()))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("train/cat/0.png", make.tree()["train/cat/0.png"])
    (tmp_path / "mine.zip").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="only once"):
        load(tmp_path / "mine.zip", cache_dir=tmp_path / "cache")


def test_modes_of_images(tmp_path: Path) -> None:
    base = Image.fromarray(make.pixels(4, 4, 3))
    files = {}
    for mode, kind in (("RGBA", "png"), ("P", "gif"), ("CMYK", "jpg"), ("LA", "png"), ("1", "png"), ("RGB", "webp")):
        buffer = io.BytesIO()
        base.convert(mode).save(buffer, "JPEG" if kind == "jpg" else kind.upper())
        files[f"a/{mode}.{kind}"] = buffer.getvalue()
    assert load_tree(tmp_path, files).images.shape == (6, 3, 4, 4)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(b"")
    (tmp_path / "mine.zip").write_bytes(b"PK")
    (tmp_path / "mine.rar").write_bytes(b"Rar!")
    for name in ("mine.tar", "mine.zip", "mine.rar"):
        with pytest.raises(UserError, match=name):
            load(os.fspath(tmp_path / name), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("left", [[], [".gitkeep"], ["0.tif"], ["deep/0.tif"], ["deep/.x"]])
@pytest.mark.parametrize("part", ["train/", ""])
def test_a_class_folder_without_images_moves_no_labels(tmp_path: Path, left: list[str], part: str) -> None:
    make.write(tmp_path / "mine", make.tree(parts=(part, "test/") if part else ("",)))
    folder = tmp_path / "mine" / part / "cow"
    folder.mkdir()
    for name in left:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"of a kind that is read: \.jpg.*got none in .*mine/{part}cow"):
        load_tree(tmp_path, {})
    shutil.rmtree(folder)
    load_tree(tmp_path, {})


def test_a_folder_of_other_things_is_no_class(tmp_path: Path) -> None:
    other = {"annotations/0.xml": b"x", "__pycache__/a.pyc": b"x", "@eaDir/0.tif@S": b"x", ".git/0.tif": b"x"}
    make.write(tmp_path / "mine", make.tree() | {f"train/{name}": content for name, content in other.items()})
    (tmp_path / "mine" / "train" / "lost+found").mkdir()
    (tmp_path / "mine" / "test" / "cow").mkdir()  # no test image of a class: that moves no label
    assert len(load_tree(tmp_path, {}, part="train")) == 4


def test_an_archive_too_loses_no_class(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_bytes(make.zipped(make.tree(parts=("",)) | {"cow/0.tif": b"x", "README.txt": b"x"}))
    with pytest.raises(UserError, match=r"got none in .*mine\.zip/cow"):
        load(tmp_path / "mine.zip", cache_dir=tmp_path / "cache")


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine/a/0\.png must be a whole .*cannot identify image file it; fix"):
        load_tree(tmp_path, {"a/0.png": b"x" * 50})
