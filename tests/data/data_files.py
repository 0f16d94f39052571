"""Small data sets in every format that can be read, as {path: content}; made from a seed."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

Files = dict[str, bytes]


def write(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def gzipped(files: Files) -> Files:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def image(array: np.ndarray, kind: str = "PNG") -> bytes:
    """An image file of `UInt8[H, W]` or `UInt8[H, W, 3]`."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def tree(parts: tuple[str, ...] = ("train/", "test/"), *, size: int = 6) -> Files:
    """Two images of each of the classes `cat` and `dog` in every part: PNG, so that pixels are kept exactly."""
    names = [f"{part}{label}/{i}.png" for part in parts for label in ("cat", "dog") for i in range(2)]
    return {name: image(pixels(size, size, 3, seed=seed)) for seed, name in enumerate(names)}


def tar(files: Files, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(train: int = 7, test: int = 3) -> Files:
    files = {}
    for part, count in (("train", train), ("t10k", test)):
        files[f"mnist/{part}-images-idx3-ubyte"] = idx(pixels(count, 5, 4, seed=count))
        files[f"mnist/{part}-labels-idx1-ubyte"] = idx(pixels(count, seed=count) % 10)
    return files


def usps_text(grey: np.ndarray, labels: np.ndarray) -> bytes:
    rows = [" ".join([f"{label}.0000", *(f"{v:.4f}" for v in row)]) for label, row in zip(labels, grey, strict=True)]
    return ("\n".join(rows) + "\n").encode()


def usps() -> Files:
    grey = pixels(5, 256) / 127.5 - 1
    return {f"usps/zip.{part}": usps_text(grey, np.arange(5)) for part in ("train", "test")}


def cifar10() -> Files:
    batch = np.concatenate([np.arange(3, dtype=np.uint8)[:, None], pixels(3, 3072)], axis=1)
    return {f"cifar-10-batches-bin/{name}.bin": batch.tobytes() for name in ("data_batch_1", "test_batch")}


def tiny_imagenet() -> Files:
    files: Files = {}
    for number, wnid in enumerate(("n02", "n01")):
        for i in range(2):
            name = f"train/{wnid}/images/{wnid}_{i}.JPEG"
            files[name] = image(pixels(8, 8, 3, seed=2 * number + i), "JPEG")
        files[f"train/{wnid}/{wnid}_boxes.txt"] = f"{wnid}_1.JPEG\t0\t1\t2\t3\n".encode()
    for i in range(2):
        files[f"val/images/val_{i}.JPEG"] = image(pixels(8, 8, seed=i + 9), "JPEG")
    files["val/val_annotations.txt"] = b"val_1.JPEG\tn01\t4\t5\t6\t7\nval_0.JPEG\tn02\t0\t0\t1\t1\n"
    files["wnids.txt"] = b"n02\nn01\n"
    files["words.txt"] = b"n01\tgoldfish, Carassius auratus\nn02\tpay-phone, pay-station\nn03\tunused\n"
    files["test/images/test_0.JPEG"] = b"has no label, and is not even opened"
    return {f"tiny-imagenet-200/{name}": content for name, content in files.items()}
