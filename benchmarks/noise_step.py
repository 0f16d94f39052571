"""What noise costs: a training step with noise on every layer against the plain step, and against the naive formula.

python -m benchmarks.noise_step [--device cuda]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import interleaved, options, publish, ratio
from noiseopt import SigmaAdam, inject, split_parameters
from noiseopt.models import build
from noiseopt.threads import threads_that_fit, using_threads

BATCH = 128
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...], Any, int]] = {
    # name: model, its options, image shape, where the noise goes, rounds
    "MLP": ("mlp", {}, (1, 28, 28), "all", 1000),
    "CNN-MLP": ("cnn", {}, (1, 28, 28), "linear", 60),
    "CNN-A": ("cnn", {}, (1, 28, 28), "all", 60),
}


class Naive(nn.Module):
    """The formula everyone writes: draws held for the backward pass."""

    def __init__(self, layer: nn.Module, sigma: Tensor) -> None:
        super().__init__()
        self.layer, self.sigma = layer, nn.Parameter(sigma)

    def forward(self, x: Tensor) -> Tensor:
        v = self.layer(x)
        return v + self.sigma.abs() * torch.randn_like(v)


def naive(model: nn.Module, noisy: nn.Module) -> nn.Module:
    """`model` with `Naive` noise wherever `noisy` has noise."""
    from noiseopt import remove, sigmas

    net = remove(noisy)
    for name, sigma in sigmas(noisy).items():
        parent = net.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], Naive(net.get_submodule(name), sigma.detach().clone()))
    return net


def step_of(net: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One whole training step: forward, backward, both optimisers."""
    weights, learned = split_parameters(net)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-4)]
    if learned:
        optimizers.append(SigmaAdam(learned, lr=1e-3))

    def step() -> None:
        nn.functional.cross_entropy(net(images), labels).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def bytes_held(net: nn.Module, images: Tensor) -> int:
    """Bytes of tensors that the graph of one forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        net(images).sum().backward()
    return sum(kept.values())


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", choices=list(NETWORKS), action="append")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only or NETWORKS:
        model, settings, shape, where, rounds = NETWORKS[name]
        plain = build(model, seed=0, **settings)
        images = torch.rand(BATCH, *shape)
        noisy = inject(plain, example_input=images[:2], where=where, init=0.1)
        nets = {"plain": plain, "noiseopt": noisy, "naive": naive(plain, noisy)}
        labels = torch.randint(0, 10, (BATCH,)).to(arguments.device)
        images = images.to(arguments.device)
        steps = {key: step_of(net.to(arguments.device).train(), images, labels) for key, net in nets.items()}
        threads = threads_that_fit(plain, images, batch_size=BATCH)  # as in training
        with using_threads(threads):
            seconds = interleaved(steps, rounds=arguments.rounds or rounds, warmup=5, device=arguments.device)
        held = {key: bytes_held(net, images) for key, net in nets.items()}
        rows.append(
            [
                f"{name} ({arguments.device}, {threads} thread{'s' * (threads > 1)})",
                statistics.median(seconds["plain"]) * 1e3,
                statistics.median(seconds["noiseopt"]) * 1e3,
                ratio(seconds, "noiseopt", "plain"),
                ratio(seconds, "naive", "plain"),
                f"{(held['noiseopt'] - held['plain']) / 1e6:.3f}",
                f"{(held['naive'] - held['plain']) / 1e6:.3f}",
            ]
        )
    columns = [
        "network",
        "plain ms",
        "noisy ms",
        "noisy / plain",
        "naive / plain",
        "MB held more",
        "naive: MB held more",
    ]
    publish("noise_step", f"A training step of {BATCH} images", columns, rows, arguments.json)


if __name__ == "__main__":
    main()
