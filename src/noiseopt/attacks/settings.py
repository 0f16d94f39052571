"""Checks of what an attack is given: a UserError that tells the fix, before the first gradient is computed."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor

from noiseopt.concepts import sample_ids
from noiseopt.errors import UserError


def check_pixel_size(name: str, value: Any) -> None:
    """`value` is a size in pixel units: in (0, 1]."""
    if not _is_number(value) or not value > 0:
        raise UserError(f"{name} must be a positive number", got=value, fix=f"pass {name}=8/255")
    if value > 1:
        fix = f"pixels are in [0, 1]: divide by 255, {name}={value:g}/255"
        raise UserError(f"{name} must be at most 1", got=value, fix=fix)


def check_positive(name: str, value: Any) -> None:
    """`value` is a positive, finite number."""
    if not _is_number(value) or not 0 < value < float("inf"):
        raise UserError(f"{name} must be a positive number", got=value, fix=f"pass {name}=0.5")


def check_count(name: str, value: Any, *, least: int = 1) -> None:
    """`value` is an integer of at least `least`."""
    if not _is_integer(value) or value < least:
        raise UserError(f"{name} must be an integer of at least {least}", got=value, fix=f"pass {name}=10")


def check_seed(value: Any) -> None:
    """`value` is an integer in [0, 2⁶³)."""
    if not _is_integer(value) or not 0 <= value < 2**63:
        raise UserError("seed must be an integer in [0, 2⁶³)", got=value, fix="pass seed=0")


def check_batch(images: Tensor, labels: Tensor, samples: Tensor | None) -> Tensor:
    """`images` is `Float32|Float64[N, ...]` in [0, 1], `labels` and `samples` `Int64[N]`.

    Returns the identities of the images, `Int64[N]`.
    """
    if images.dtype not in (torch.float32, torch.float64):
        fix = "pass images.float() / 255 for 8-bit images, images.float() for half precision"
        raise UserError("images must be float32 or float64", got=images.dtype, fix=fix)
    for name, tensor in (("labels", labels), ("samples", samples)):
        if tensor is not None and (tensor.dtype != torch.int64 or tensor.shape != images.shape[:1]):
            got = f"{tensor.dtype} of shape {tuple(tensor.shape)} for {len(images)} images"
            raise UserError(f"{name} must be int64, one for each image", got=got, fix=f"pass {name} as Int64[N]")
    # Written so that NaN fails too.
    if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
        got = f"values from {images.min().item():g} to {images.max().item():g}"
        fix = "scale the images to [0, 1] and normalise in the first layer of the model"
        raise UserError("images must be in [0, 1]", got=got, fix=fix)
    return sample_ids(samples, images)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
