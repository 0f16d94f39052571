"""`load` on the real data, and its choices."""

import gzip
import tarfile
from pathlib import Path

import pytest
import torch

from noiseopt.data import DATASETS, load, split
from noiseopt.errors import UserError
from tests.data.data_files import mnist, tree, write


def test_mnist_is_the_published_one(shared_data: Path) -> None:
    data = load("mnist", data_dir=shared_data)
    assert data.name == "mnist"  # its hash is that of the published images and labels
    assert data.images.shape == (70_000, 1, 28, 28)
    assert data.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.labels[60_000:].bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.images.float().mean().item() == pytest.approx(33.385, abs=0.001)
    parts = split(data, (5, 1, 1), seed=0)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [50_000, 10_000, 10_000]


def test_mnist_test_part(shared_data: Path) -> None:
    data = load("mnist", part="test", data_dir=shared_data)
    assert data.name == "mnist test"
    assert data.ids.tolist() == list(range(60_000, 70_000))
    assert data.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_usps(shared_data: Path) -> None:
    data = load("usps", data_dir=shared_data)
    assert data.name == "usps"
    assert len(load("usps", part="train", data_dir=shared_data)) == 7291
    test = load("usps", part="test", data_dir=shared_data)
    # The counts that come with the data, in zip.info.txt.
    assert test.labels.bincount().tolist() == [359, 264, 198, 166, 200, 160, 170, 147, 166, 177]
    assert (int(data.images.min()), int(data.images.max())) == (0, 255)


def test_cifar10_sample_says_that_it_is_one(shared_data: Path) -> None:
    data = load("cifar10", data_dir=shared_data)
    assert data.name == "cifar10 (2,119 of 60,000 images)"
    assert data.images.shape == (2119, 3, 32, 32)
    assert len(load("cifar10", part="test", data_dir=shared_data)) == 1017


def test_tiny_imagenet_sample(shared_data: Path, tmp_path: Path) -> None:
    data = load("tiny-imagenet", data_dir=shared_data, cache_dir=tmp_path)
    again = load("tiny-imagenet", data_dir=shared_data, cache_dir=tmp_path)
    assert data.name == "tiny-imagenet (1,100 of 110,000 images)"
    assert data.images.shape == (1100, 3, 64, 64)
    assert data.labels.bincount().tolist() == [110] * 10
    assert data.classes[:2] == ("goldfish", "Persian cat")
    assert data.boxes is not None
    assert again.boxes is not None
    assert data.boxes[0].tolist() == [0, 10, 63, 58]
    assert (data.hash, data.classes) == (again.hash, again.classes)
    assert torch.equal(data.boxes, again.boxes)


@pytest.fixture(scope="module")
def cifar10_jpeg_sample(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `cifar10-jpeg.tar` of the first 40 images of every class and part: all would take 10 s."""
    folder = tmp_path_factory.mktemp("cifar10-jpeg")
    with (
        tarfile.open(shared_data / "cifar10-jpeg.tar.xz") as everything,
        tarfile.open(folder / "cifar10-jpeg.tar", "w") as sample,
    ):
        for member in everything:
            if member.name.endswith(".jpg") and Path(member.name).stem < "0040":
                sample.addfile(member, everything.extractfile(member))
    return folder


def test_cifar10_jpeg_is_cifar10_in_the_same_order(
    shared_data: Path, cifar10_jpeg_sample: Path, tmp_path: Path
) -> None:
    data = load("cifar10-jpeg", part="test", data_dir=cifar10_jpeg_sample, cache_dir=tmp_path)
    assert data.name == "cifar10-jpeg test (400 of 10,000 images)"
    assert data.ids[0] == 400
    lossless = load("cifar10", part="test", data_dir=shared_data)
    assert data.classes == lossless.classes
    # The n-th image of a class is the n-th in the lossless file: near it, as JPEG leaves it, and near no other.
    for label in range(10):
        here = data.images[data.labels == label].float()
        there = lossless.images[lossless.labels == label][:40].float()
        distance = (here[:, None] - there[None]).abs().mean(dim=(2, 3, 4))
        assert distance.argmin(dim=1).tolist() == list(range(40))


def test_modified_mnist_says_so(shared_data: Path, tmp_path: Path) -> None:
    for path in (shared_data / "mnist").iterdir():
        content = gzip.decompress(path.read_bytes())
        if path.name.startswith("train-images"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        (tmp_path / path.name.removesuffix(".gz")).write_bytes(content)
    assert load("mnist", data_dir=tmp_path).name == "mnist (modified)"
    assert load("mnist", part="test", data_dir=tmp_path).name == "mnist test (modified)"


def test_the_data_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISEOPT_DATA", str(write(tmp_path / "a", mnist(train=4))))
    write(tmp_path / "b", mnist(train=6))
    assert len(load("mnist")) == 7
    assert len(load("mnist", data_dir=tmp_path / "b")) == 9


def test_a_data_set_that_is_not_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DATASETS:
        if name != "mnist-mini":
            with pytest.raises(UserError, match=rf"must hold {name} \(looked for"):
                load(name, data_dir=tmp_path)
    monkeypatch.delenv("NOISEOPT_DATA", raising=False)
    with pytest.raises(UserError, match="not on the network"):
        load("cifar10-jpeg")


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'cifar10'"):
        load("cifar-10")
    with pytest.raises(UserError, match="must be one of mnist, mnist-mini, usps"):
        load(tmp_path / "absent")


def test_a_name_is_a_name_and_a_path_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mnist", tree())
    assert load("./mnist", cache_dir="cache").classes == ("cat", "dog")
    assert load(Path("mnist"), cache_dir="cache").name == "mnist"
    monkeypatch.chdir(tmp_path / "mnist")
    assert load(".", cache_dir=tmp_path / "cache").name == "mnist"


def test_part_and_size_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="part must be"):
        load("mnist", part="validation")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="size is for your own images"):
        load("mnist", size=32)
