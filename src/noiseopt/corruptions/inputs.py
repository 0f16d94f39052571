"""What every corruption asks of its arguments, and the random stream that it draws from."""

from __future__ import annotations

import torch
from torch import Tensor

from noiseopt.errors import UserError
from noiseopt.streams import Random, SampleRandom


def check_images(images: Tensor) -> None:
    """`Float[N, C, H, W]` with every value in [0, 1], or a `UserError`; NaN counts as out of range."""
    if not isinstance(images, Tensor):
        raise UserError(
            "images must be a tensor Float[N, C, H, W]", got=type(images).__name__, fix="pass a torch.Tensor"
        )
    if not images.is_floating_point():
        raise UserError(
            "images must be floating-point in [0, 1]",
            got=f"dtype {str(images.dtype).removeprefix('torch.')}",
            fix="divide 8-bit images by 255",
        )
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise UserError(
            "images must have the shape [N, C, H, W], with C, H and W of 1 or more",
            got=f"shape {list(images.shape)}",
            fix="add the missing axes, as in image[None]",
        )
    if images.numel() and not _surely_in_range(images):
        low, high = (bound.item() for bound in images.detach().aminmax())
        if not (low >= 0.0 and high <= 1.0):  # written so that NaN, which aminmax hands on, fails it too
            raise UserError(
                "images must lie in [0, 1] and hold no NaN",
                got=f"values from {low:.4g} to {high:.4g}",
                fix="undo the normalisation or clip the images first",
            )


def _surely_in_range(images: Tensor) -> bool:
    """As integers, the floats from 0.0 to 1.0 are in order, and all others, NaN and -0.0 included, lie outside."""
    if images.dtype != torch.float32:
        return False
    low, high = images.detach().view(torch.int32).aminmax()  # twice as fast as on floats
    return bool(low >= 0) and bool(high <= 0x3F800000)


def random_stream(generator: torch.Generator | Random | None, images: Tensor) -> Random:
    """`generator` as a stream for this batch: a `torch.Generator` gives it its seed, as does `torch.manual_seed`.

    So the same generator corrupts alike on every device, and what a device draws it draws in parallel.
    """
    if generator is None or isinstance(generator, torch.Generator):
        device = generator.device if generator is not None else None
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
        return SampleRandom(seed, torch.arange(len(images), device=images.device))
    if not all(hasattr(generator, method) for method in ("rand", "randn", "randint")):
        raise UserError(
            "generator must be a torch.Generator, a stream of noiseopt.streams, or None",
            got=type(generator).__name__,
            fix="pass torch.Generator().manual_seed(0)",
        )
    return generator


def check_draws(draws: Tensor, images: Tensor) -> Tensor:
    """`draws`, on the images' device, if there are as many rows as images; a `UserError` if not."""
    if len(draws) != len(images):
        raise UserError(
            "the random stream must be one for this batch",
            got=f"{len(draws)} samples for {len(images)} images",
            fix="give one identity for every image",
        )
    return draws.to(images.device)
