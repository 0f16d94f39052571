"""A run directory as the runner writes it. Every number in it is made up for the tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import save_file

from noiseopt.concepts import Record, wilson_interval

MLP_ROWS = ["MLP (ReLU)", "MLP (sigmoid)", "MLP+ (ReLU)", "MLP+ (sigmoid)", "MLPN (ReLU)", "MLPN (sigmoid)"]
COLUMNS = [
    ("clean", "Original", "", {}),
    ("fgsm", "FGSM", "White box", {"eps": 0.1}),
    ("lbfgs", "L-BFGS", "White box", {"steps": 10, "lr": 0.5}),
    ("pgd", "PGD", "White box", {"eps": 25 / 255, "step_size": 5 / 255, "steps": 10, "random_start": False}),
    ("gaussian_noise", "Gaussian", "Black box", {}),
    ("impulse_noise", "Impulse", "Black box", {}),
    ("glass_blur", "Glass blur", "Black box", {}),
    ("contrast", "Contrast", "Black box", {}),
    (
        "transfer_fgsm",
        "FGSM",
        "Black box",
        {"attack": {"name": "fgsm", "eps": 0.1}, "surrogate": "surrogate_mlp"},
    ),
    (
        "transfer_lbfgs",
        "L-BFGS",
        "Black box",
        {"attack": {"name": "lbfgs", "steps": 10}, "surrogate": "surrogate_mlp"},
    ),
]
LEVEL = dict(zip([c[0] for c in COLUMNS], [0.94, 0.27, 0.38, 0.21, 0.9, 0.86, 0.82, 0.63, 0.4, 0.74], strict=True))
COUNT = 500


def record(value: float, **changes: Any) -> Record:
    """A Record of `value` on 500 images with the interval that belongs to it."""
    count = changes.get("count", COUNT)
    low, high = (value, value) if np.isnan(value) else wilson_interval(round(value * count), count)
    settings: dict[str, Any] = {"count": count, "noise": False, "draws": 1, "low": low, "high": high}
    return Record(value=value, **(settings | changes))


def synthetic_records(rows: list[str], protocols: tuple[str, ...]) -> Iterator[Record]:
    random = np.random.default_rng(0)
    for place, row in enumerate(rows):
        for noise in (True, False) if noisy(row) else (False,):
            for protocol in protocols:
                draws = 20 if protocol == "strict" else 1
                for key, _, group, parameters in COLUMNS:
                    gain = 0.03 * place + (0.04 if noise else -0.02)
                    if draws > 1 and group == "White box":
                        gain -= 0.16
                    value = float(np.clip(LEVEL[key] + 0.3 * gain + random.normal(0, 0.01), 0.01, 0.99))
                    corruption = group == "Black box" and not parameters
                    for severity in range(1, 6) if corruption else [None]:
                        extra: dict[str, Any] = {"severity": severity} if severity else {}
                        if group == "White box":
                            extra["draws"] = draws
                        share = round((value - 0.03 * ((severity or 3) - 3)) * COUNT) / COUNT
                        yield record(
                            min(share, 1.0), perturbation=key, column=key, parameters={**parameters, **extra},
                            noise=noise, draws=20 if noise else 1, model=row, model_seed=0, protocol=protocol,
                            data="mnist test", code="0.1.0",
                        )  # fmt: skip


def noisy(row: str) -> bool:
    return "+" in row or "MLPN" in row or row.endswith("AN")


def digit(label: int) -> np.ndarray:
    picture = Image.new("L", (28, 28))
    ImageDraw.Draw(picture).text((8, 2), str(label), fill=255, font=ImageFont.load_default(22))
    return np.asarray(picture, np.float32)[None] / 255


def write_gallery(folder: Path, rows: list[str], images: int) -> None:
    random = np.random.default_rng(1)
    names = ["clean", "gaussian_noise", "impulse_noise", "glass_blur", "contrast", "fgsm", "pgd", "PGD (strict)"]
    labels = np.arange(images) % 10
    plain = np.stack([digit(label) for label in labels])
    strength = np.linspace(0, 0.25, len(names))[:, None, None, None, None]
    noise = random.normal(size=(len(names), *plain.shape)) * strength
    tensors = {"images": np.clip(plain + noise, 0, 1).astype(np.float32), "labels": labels.astype(np.int64)}
    for row in rows:
        wrong = random.random((len(names), images)) < np.linspace(0, 0.8, len(names))[:, None]
        said = np.where(wrong, random.integers(0, 10, wrong.shape), labels)
        tensors[f"predictions/{row}"] = said.astype(np.int64)
        tensors[f"confidence/{row}"] = random.uniform(0.3, 1, wrong.shape).astype(np.float32)
    save_file(tensors, folder / "gallery.safetensors")
    about = {
        "perturbations": names,
        "classes": [str(label) for label in range(10)],
        "rows": rows,
        "crafted_on": rows[-1],
    }
    (folder / "gallery.json").write_text(json.dumps(about))


def write_model(folder: Path, place: int, *, noisy: bool, fixed: bool, epochs: int, conv: bool) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(place)
    shapes: dict[str, tuple[int, ...]] = {"fc1": (100,), "fc2": (50,), "fc3": (10,)}
    if conv:
        shapes = {"features.conv1": (8, 28, 28), "features.conv2": (16, 14, 14), "fc1": (128,), "fc2": (10,)}
    with (folder / "curves.jsonl").open("w") as file:
        for epoch in range(1, epochs + 1):
            fade = np.exp(-epoch / (4 + place))
            line = {
                "epoch": epoch,
                "train_loss": 0.02 * (place + 1) + 1.6 * fade + random.normal(0, 0.004),
                "validation_loss": 0.1 + 0.02 * place + 1.4 * fade + random.normal(0, 0.01),
                "validation_accuracy": 0.96 - 0.008 * place - 0.3 * fade + random.normal(0, 0.003),
                "sigma": {name: {"mean": 0.5, "min": 0.0, "max": 1.0, "rms": 0.6} for name in shapes if noisy},
                "seconds": 1.0,
            }
            file.write(json.dumps(line) + "\n")
    if noisy:
        tensors: dict[str, np.ndarray] = {}
        for name, shape in shapes.items():
            before = np.ones(shape) if fixed else random.normal(size=shape)
            after = before if fixed else np.abs(before) * random.uniform(0.2, 0.9, shape)
            if len(shape) == 3 and not fixed:
                grid = np.linspace(-1, 1, shape[1])
                after = np.abs(before) * 0.3 + np.exp(-2 * (grid[:, None] ** 2 + grid**2)) * random.uniform(
                    size=(shape[0], 1, 1)
                )
            tensors[f"before/{name}"], tensors[f"after/{name}"] = (
                before.astype(np.float32),
                after.astype(np.float32),
            )
        save_file(tensors, folder / "sigma.safetensors")


def write_run(
    folder: Path,
    *,
    rows: list[str] | None = None,
    protocols: tuple[str, ...] = ("paper", "strict"),
    epochs: int = 12,
    images: int = 3,
    conv: bool = False,
    paper: str | None = "3",
    title: str = "MLP on MNIST",
) -> Path:
    """Write a finished run with everything that a report can show."""
    rows = MLP_ROWS if rows is None else rows
    folder.mkdir(parents=True)
    columns = [{"key": key, "title": name, "group": group} for key, name, group, _ in COLUMNS]
    about = {
        "command": "noiseopt run mnist-mlp --seed 0 --images 500",
        "recipe_name": "mnist-mlp",
        "recipe": {"table": {"title": title, "paper": paper, "rows": rows, "columns": columns}},
        "seed": 0,
        "versions": {"noiseopt": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "numpy": "2.3.1"},
        "data": {
            "name": "mnist",
            "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "counts": {"train": 50000, "validation": 10000, "test": 10000},
        },
        "started": "2026-02-03T14:05:06+00:00",
        "seconds": 724.2,
        "device": "cpu",
    }
    (folder / "run.json").write_text(json.dumps(about))
    lines = [r.model_dump_json() for r in synthetic_records(rows, protocols)]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    for place, row in enumerate(rows):
        name = f"{row.replace('/', '-')}-s0"
        write_model(folder / "models" / name, place, noisy=noisy(row), fixed="+" in row, epochs=epochs, conv=conv)
    write_gallery(folder, rows, images)
    return folder


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    return record


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")
