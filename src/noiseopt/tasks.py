"""What a network is trained to do: to classify images or, for an autoencoder, to give them back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from noiseopt.data import Dataset
from noiseopt.errors import UserError


@dataclass(frozen=True)
class Task:
    """`loss(outputs, images, labels)`: the mean over the batch, a scalar. `score` of the same: one number for each
    image, in [0, 1], higher is better. `check(outputs, data)` raises UserError for outputs that cannot be right.
    """

    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor, Tensor], Tensor]
    check: Callable[[object, Dataset], None]


def task_of(name: str | None) -> Task:
    """The task of that name; None: to classify."""
    return RECONSTRUCT if name == "reconstruct" else CLASSIFY


def _cross_entropy(outputs: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels)


def _is_right(outputs: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return outputs.argmax(1) == labels


def _check_logits(outputs: object, data: Dataset) -> None:
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] < len(data.classes):
        got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs)
        rule = f"a model for {data.name} must give [N, {len(data.classes)}] logits"
        raise UserError(rule, got=got, fix="build the model with this number of classes")


def _cross_entropy_of_pixels(outputs: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Pixels as probabilities, as Caffe's autoencoder is trained: summed over the image, mean over the batch."""
    return F.binary_cross_entropy(outputs, images, reduction="sum") / len(images)


def _closeness(outputs: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return 1 - (outputs - images).abs().flatten(1).mean(1)


def _check_images(outputs: object, data: Dataset) -> None:
    want = list(data.images.shape[1:])
    if not isinstance(outputs, Tensor) or list(outputs.shape[1:]) != want:
        got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs)
        raise UserError(f"an autoencoder for {data.name} must give images of {want}", got=got, fix="task='classify'?")
    if not bool(((outputs >= 0) & (outputs <= 1)).all()):
        span = f"{float(outputs.min()):.3g} to {float(outputs.max()):.3g}"
        raise UserError("an autoencoder must give pixels in [0, 1]", got=span, fix="end it with a sigmoid")


CLASSIFY = Task(_cross_entropy, _is_right, _check_logits)
RECONSTRUCT = Task(_cross_entropy_of_pixels, _closeness, _check_images)
