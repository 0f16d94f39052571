"""Models of every kind that noise is put into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class RnnHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


class TransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x).mean(1))


class LayerUsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(6, 6)
        self.alias = self.shared

    def forward(self, x: Tensor) -> Tensor:
        return self.alias(torch.relu(self.shared(x)))


class DictModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, pixels: Tensor, text: Tensor) -> dict[str, Any]:
        return {"logits": self.a(pixels) + self.b(text), "hidden": (self.a(pixels), None)}


class TakesADict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.layer(batch["x"])
        return out, {"again": out}


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.norm(self.stem(x)))
        x = x + torch.relu(self.conv(x))
        return self.head(x.mean((2, 3)))


def _autoencoder(dims: int) -> nn.Module:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    transposed = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
    return nn.Sequential(conv(2, 3, 3, stride=2), nn.ReLU(), transposed(3, 2, 3, stride=2))


KINDS: dict[str, tuple[Callable[[], nn.Module], Any, set[str]]] = {
    "linear itself": (lambda: nn.Linear(4, 3), torch.rand(5, 4), {""}),
    "rnn head": (RnnHead, torch.rand(5, 7, 6), {"head"}),
    "transformer block": (TransformerBlock, torch.rand(5, 7, 8), {"block.linear1", "block.linear2", "head"}),
    "layer used twice": (LayerUsedTwice, torch.rand(5, 6), {"shared"}),
    "keyword inputs, dict output": (
        DictModel,
        {"pixels": torch.rand(5, 4), "text": torch.rand(5, 2)},
        {"a", "b"},
    ),
    "tuple input": (DictModel, (torch.rand(5, 4), torch.rand(5, 2)), {"a", "b"}),
    "dict input, tuple output": (TakesADict, {"x": torch.rand(5, 4)}, {"layer"}),
    "residual with batch norm": (Residual, torch.rand(5, 3, 6, 6), {"stem", "conv", "head"}),
    "channels last": (
        lambda: Residual().to(memory_format=torch.channels_last),
        torch.rand(5, 3, 6, 6).contiguous(memory_format=torch.channels_last),
        {"stem", "conv", "head"},
    ),
    "conv 1d": (lambda: _autoencoder(1), torch.rand(5, 2, 9), {"0", "2"}),
    "conv 2d": (lambda: _autoencoder(2), torch.rand(5, 2, 9, 9), {"0", "2"}),
    "conv 3d": (lambda: _autoencoder(3), torch.rand(5, 2, 9, 9, 9), {"0", "2"}),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(3)),
        torch.rand(5, 6),
        {"0", "2"},
    ),
    "parametrised": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
        torch.rand(5, 4),
        {"0"},
    ),
}


def run(net: nn.Module, example: Any) -> Any:
    if isinstance(example, dict) and "x" not in example:
        return net(**example)
    return net(*example) if isinstance(example, tuple) else net(example)


def scalar(output: Any) -> Tensor:
    """A number that depends on every tensor in an output."""
    if isinstance(output, Tensor):
        return output.square().sum()
    parts = output.values() if isinstance(output, dict) else output
    return sum((scalar(p) for p in parts if p is not None), torch.zeros(()))
