"""As many threads as the work can use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Multiply-adds of a batch below which one thread is faster than two: waking and joining threads at each of a step's
# hundred small operations costs more than they save. The paper's MLP has 1e7 at batch 128, its CNN 5e8.
_ONE_THREAD_BELOW = 1e8


def threads_that_fit(model: nn.Module, images: Tensor, *, batch_size: int) -> int:
    """1 where a step of `batch_size` images on the CPU is small, else as many as torch uses.

    The choice depends on the model and the batch size alone, never on timing, so a repeated run makes it again. The
    model should be in eval mode with its noise off: one of `images` is passed through it.
    """
    small = images.device.type == "cpu" and _multiply_adds(model, images[:1]) * batch_size < _ONE_THREAD_BELOW
    return 1 if small else torch.get_num_threads()


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """So many CPU threads inside the block, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _multiply_adds(model: nn.Module, image: Tensor) -> int:
    """Of the linear and convolution layers in one forward pass."""
    total = 0

    def count(module: nn.Module, args: object, output: object) -> None:
        nonlocal total
        weight = getattr(module, "weight", None)
        if isinstance(output, Tensor) and isinstance(weight, Tensor) and weight.dim() > 1:
            total += output.numel() * weight[0].numel()

    handles = [module.register_forward_hook(count) for module in model.modules()]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return total
