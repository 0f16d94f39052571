"""A recipe that is done in a second: 48 images of 8×8 pixels in three classes, networks of eight neurons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noiseopt.experiments.events import Event
from noiseopt.experiments.recipe import Recipe, load
from noiseopt.experiments.run import Outcome
from tests.experiments.running import run

TINY = """
name: tiny
title: Three small networks
data: {path: images, split: [4, 1, 1], split_seed: 0}
training: {epochs: 2, batch_size: 8, lr: 1e-2}
rows:
  - {label: MLP, model: mlp, options: {hidden: [8]}}
  - {label: MLP+, model: mlp, options: {hidden: [8]}, noise: {sigma: 1.0}}
  - {label: MLPN, model: mlp, options: {hidden: [8]}, noise: {sigma: learned, init: 0.5}}
surrogate: {model: mlp, options: {hidden: [6]}, training: {epochs: 1}}
columns:
  - {key: clean, title: Original, perturbations: [clean]}
  - {key: pgd, title: PGD, group: White box, perturbations: [{attack: pgd, eps: 25/255, step_size: 5/255, steps: 2}]}
  - key: contrast
    perturbations: [{corruption: contrast, severity: 3}, {corruption: contrast, severity: 5}]
  - {key: transfer, group: Black box, perturbations: [{transfer: {attack: fgsm, eps: 0.1}}]}
evaluation: {noise: [on, off], paper: {draws: 3}}
seeds: [0]
"""


def write_images(folder: Path) -> None:
    """Sixteen images of each of three classes: a bright row at a place of its own, and noise."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("bottom", "middle", "top")):
        (folder / name).mkdir(parents=True)
        for number in range(16):
            pixels = random.integers(0, 120, size=(8, 8), dtype=np.uint8)
            pixels[1 + 3 * (2 - label)] += 120
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISEOPT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "images"
    write_images(folder)
    return folder


@pytest.fixture
def tiny_file(tmp_path: Path, images: Path) -> Path:
    """tiny.yaml, with its images beside it."""
    (tmp_path / "images").symlink_to(images)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture
def tiny(tiny_file: Path) -> Recipe:
    return load(tiny_file)


@pytest.fixture
def changed(tiny_file: Path) -> Callable[..., Recipe]:
    """The recipe with pieces of its text replaced."""

    def change(*pairs: tuple[str, str]) -> Recipe:
        text = TINY
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        tiny_file.write_text(text, encoding="utf-8")
        return load(tiny_file)

    return change


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, images: Path) -> tuple[Path, Outcome, list[Event]]:
    """A whole run, to be looked at and not touched."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "tiny.yaml").write_text(TINY.replace("images", str(images)), encoding="utf-8")
    outcome, events = run(load(folder / "tiny.yaml"), folder, command="noiseopt evaluate tiny.yaml")
    return folder, outcome, events
