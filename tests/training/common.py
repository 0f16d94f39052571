"""Small networks and images that training is tested with."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseopt import checkpoint
from noiseopt.data import Dataset, Split, split
from noiseopt.models import build
from noiseopt.noise import inject
from noiseopt.train import Epoch


def digits(count: int = 70, *, seed: int = 0, name: str = "stripes") -> Split:
    """Four classes of 8×8 images that a small network learns: a bright stripe on noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=generator)
    images = torch.randint(0, 120, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, 2 * labels] += 100
    return split(Dataset(images, labels, tuple("abcd"), name, torch.arange(count)), seed=seed)


def small(**options: Any) -> nn.Module:
    return build("mlp", seed=0, image_size=8, classes=4, hidden=(12,), **options)


def noisy(**options: Any) -> nn.Module:
    return inject(small(), example_input=torch.rand(1, 1, 8, 8), **options)


class Mixed(nn.Module):
    """What torch's global generator and the training mode act on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Dropout(0.5))
        self.output = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.body(images))


def mixed() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return inject(Mixed(), example_input=torch.rand(2, 1, 8, 8))


@dataclass(frozen=True)
class Darken:
    """A perturbation that writes down how it was called."""

    factor: float
    calls: list[tuple[bool, list[int]]] = field(default_factory=list)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        assert samples is not None
        self.calls.append((model.training, samples.tolist()))
        return images * self.factor + 0 * model(images).sum()


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "curves.jsonl").read_text().splitlines()]


def tensors(run_dir: Path) -> dict[str, Tensor]:
    return checkpoint.load(run_dir / "checkpoint.safetensors")[0]


def without_seconds(epochs: tuple[Epoch, ...]) -> list[dict[str, Any]]:
    return [line.model_dump(exclude={"seconds"}) for line in epochs]


def forkserver() -> multiprocessing.context.ForkServerContext:
    """Processes of their own that need not import torch again."""
    processes = multiprocessing.get_context("forkserver")
    # Training itself would import the last two.
    processes.set_forkserver_preload(["noiseopt.train", "noiseopt.noise.kernels.cpu", "torch._dynamo"])
    return processes


def with_two_processes(work: Callable[[Path], None], folder: Path) -> None:
    """`work(folder / "two")` in two processes as `accelerate launch` starts them, and `work(folder / "one")` here."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = forkserver()
    children = [processes.Process(target=_one_of_two, args=(rank, port, work, folder / "two")) for rank in ("0", "1")]
    for child in children:
        child.start()
    work(folder / "one")
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]


def _one_of_two(rank: str, port: str, work: Callable[[Path], None], folder: Path) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"})
    torch.set_num_threads(1)
    work(folder)
