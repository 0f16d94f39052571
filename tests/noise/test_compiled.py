"""Under `torch.compile` the noise is one opaque operator with the same numbers and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from noiseopt.noise import inject, noise, seed, sigmas, stream


def test_operator_passes_torchs_own_checks() -> None:
    v, sigma = torch.randn(4, 6, requires_grad=True), torch.randn(6, requires_grad=True)
    rows, key = torch.stack([torch.arange(4)] * 2, 1), torch.tensor([5, 2, 0])
    torch.library.opcheck(torch.ops.noiseopt.add_noise.default, (v, sigma, rows, key, False))


@pytest.mark.parametrize("engine", ["aot_eager", "inductor"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_compiled_equals_eager(engine: str, memory: torch.memory_format, convnet: nn.Module, images: Tensor) -> None:
    """Whatever layout the compiler prefers inside."""
    convnet, images = convnet.to(memory_format=memory), images.contiguous(memory_format=memory)
    net = inject(convnet, example_input=images, init=0.5)
    compiled = torch.compile(net, backend=engine, fullgraph=True)
    assert list(sigmas(compiled)) == list(sigmas(net))
    results = []
    for version in (compiled, net):
        net.zero_grad()
        for step in range(3):
            with stream(version, seed=3, samples=torch.arange(6), step=step):
                out = version(images)
                out.square().sum().backward()
        results.append((out.detach(), [s.grad.clone() for s in sigmas(net).values()]))  # type: ignore[union-attr]
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
    with noise(compiled, on=False):
        torch.testing.assert_close(compiled(images), convnet(images))


def test_compiled_automatic_noise_is_fresh_and_seeded(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images, seed=4)
    eager = [net(images) for _ in range(3)]
    seed(net, 4)
    compiled = torch.compile(net, backend="aot_eager")
    for expected in eager:
        torch.testing.assert_close(compiled(images), expected)
