"""What noise costs: a training step with noise on every layer against the plain step, and against the naive formula.

python -m benchmarks.noise_step [--device cuda]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import interleaved, options, publish, ratio
from noiseopt import SigmaAdam, inject, split_parameters
from noiseopt.models import build
from noiseopt.threads import threads_that_fit, using_threads

RESNET_A = ["layer*.conv2", "hidden*", "output"]


@dataclass(frozen=True)
class Case:
    """A network, the images of its step, where the noise goes, and how often to measure."""

    model: str
    shape: tuple[int, ...]
    where: Any
    rounds: int
    batch: int = 128
    batch_cuda: int = 128
    bf16_cuda: bool = False
    channels_first: bool = False


NETWORKS = {
    "MLP": Case("mlp", (1, 28, 28), "all", rounds=1000),
    "CNN-MLP": Case("cnn", (1, 28, 28), "linear", rounds=60),
    "CNN-A": Case("cnn", (1, 28, 28), "all", rounds=60),
    # The layout that torch gives by default: the plain step takes longer, the noise as long.
    "CNN-A, channels first": Case("cnn", (1, 28, 28), "all", rounds=60, channels_first=True),
    # On a CPU small and few, so that it ends; on a GPU as it is trained there.
    "ResNet18-A": Case("resnet18", (3, 32, 32), RESNET_A, rounds=7, batch=32, batch_cuda=512, bf16_cuda=True),
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


def step_of(net: nn.Module, images: Tensor, labels: Tensor, *, bf16: bool = False) -> Callable[[], None]:
    """One whole training step: forward (under bfloat16 autocast if `bf16`), backward, both optimisers."""
    weights, learned = split_parameters(net)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(weights, lr=1e-3, weight_decay=1e-4, fused=True)]
    if learned:
        optimizers.append(SigmaAdam(learned, lr=1e-3))

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            loss = nn.functional.cross_entropy(net(images).float(), labels)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return step


def bytes_held(net: nn.Module, images: Tensor, *, bf16: bool = False) -> int:
    """Bytes of tensors that the graph of one forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=bf16)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), autocast:
        logits = net(images)
    logits.sum().backward()
    return sum(kept.values())


def measure(name: str, case: Case, device: str, rounds: int | None) -> list[Any]:
    """The row of one network."""
    on_gpu = device == "cuda"
    bf16, batch = on_gpu and case.bf16_cuda, case.batch_cuda if on_gpu else case.batch
    plain = build(case.model, seed=0)
    if case.channels_first:
        plain = plain.to(memory_format=torch.contiguous_format)
    images = torch.rand(batch, *case.shape)
    noisy = inject(plain, example_input=images[:2], where=case.where, init=0.1)
    nets = {"plain": plain, "noiseopt": noisy, "naive": naive(plain, noisy)}
    images, labels = images.to(device), torch.randint(0, 10, (batch,)).to(device)
    if case.shape[0] == 3:
        images = images.contiguous(memory_format=torch.channels_last)  # as the kernels of the networks for colour are
    steps = {key: step_of(net.to(device).train(), images, labels, bf16=bf16) for key, net in nets.items()}
    threads = threads_that_fit(plain.eval(), images, batch_size=batch)  # as in training
    plain.train()
    with using_threads(threads):
        seconds = interleaved(steps, rounds=rounds or case.rounds, warmup=5 if case.rounds >= 20 else 1, device=device)
    held = {key: bytes_held(net, images, bf16=bf16) for key, net in nets.items()}
    where = "cuda, bf16" if bf16 else device if on_gpu else f"cpu, {threads} thread{'s' * (threads > 1)}"
    return [
        f"{name} ({where})",
        batch,
        statistics.median(seconds["plain"]) * 1e3,
        statistics.median(seconds["noiseopt"]) * 1e3,
        ratio(seconds, "noiseopt", "plain"),
        ratio(seconds, "naive", "plain"),
        f"{(held['noiseopt'] - held['plain']) / 1e6:.3f}",
        f"{(held['naive'] - held['plain']) / 1e6:.3f}",
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", choices=list(NETWORKS), action="append")
    arguments = parser.parse_args()
    columns = [
        "network",
        "images",
        "plain ms",
        "noisy ms",
        "noisy / plain",
        "naive / plain",
        "MB held more",
        "naive: MB held more",
    ]
    names = arguments.only or NETWORKS
    rows = [measure(name, NETWORKS[name], arguments.device, arguments.rounds) for name in names]
    publish("noise_step", "A training step", columns, rows, arguments.json)


if __name__ == "__main__":
    main()
