"""One epoch on MNIST against the loop that is usually written: a Dataset that makes a PIL image and a tensor of every
picture, a DataLoader that collates them, `loss.item()` at every step. Written afresh here as a baseline, the network
too (convolution, ReLU, pooling; torch's default memory layout); both train the same function of as many weights with
the same optimiser on the same images, without noise.

python -m benchmarks.train_epoch
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.harness import interleaved, options, publish
from noiseopt import Training, train
from noiseopt.data import Split, load, split
from noiseopt.models import build


class ImageByImage(TorchDataset):  # type: ignore[type-arg]
    """What an image-folder loader does: an array becomes a picture, the picture a tensor, the tensor is normalised."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images.squeeze(1).numpy(), labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index])
        pixels = torch.from_numpy(np.array(picture, copy=True)).unsqueeze(0).float().div(255)
        return pixels.sub(0.1307).div(0.3081), self.labels[index]


def usual_network(name: str) -> nn.Module:
    """The paper's MLP or CNN, as it is usually written."""
    if name == "mlp":
        return nn.Sequential(
            nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10)
        )
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def usual_loop(name: str, data: Split) -> None:
    """One epoch of the usual loop."""
    net = usual_network(name)
    loader = DataLoader(ImageByImage(data.train.images, data.train.labels), batch_size=128, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    net.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in DataLoader(ImageByImage(data.validation.images, data.validation.labels), batch_size=128):
            correct += int((net(images).argmax(1) == labels).sum())


def our_loop(name: str, data: Split) -> None:
    """One epoch of noiseopt's."""
    train(build(name, seed=0), data, Training(epochs=1), seed=0)


def main() -> None:
    arguments = options(__doc__).parse_args()
    data = split(load("mnist"), seed=0)
    rows = []
    for name in ("mlp", "cnn"):
        variants: dict[str, Callable[[], object]] = {
            "usual": lambda name=name: usual_loop(name, data),  # type: ignore[misc]
            "noiseopt": lambda name=name: our_loop(name, data),  # type: ignore[misc]
        }
        seconds = interleaved(variants, rounds=arguments.rounds or 3, warmup=0)
        usual, ours = (statistics.median(seconds[key]) for key in ("usual", "noiseopt"))
        rows.append([name, usual, ours, usual / ours])
    columns = ["network", "usual loop, s", "noiseopt, s", "times as fast"]
    title = f"One epoch of {len(data.train):,} MNIST images, validation included"
    publish("train_epoch", title, columns, rows, arguments.json)


if __name__ == "__main__":
    main()
