"""The denoising autoencoder of Uličný et al., section 4.1: Caffe's MNIST autoencoder with dropout on its input."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.models.networks import _height_and_width, _positive

_SPARSE = 15


def autoencoder(
    *,
    hidden: Sequence[int] = (1000, 500, 250, 30),
    dropout: float = 0.2,
    in_channels: int = 1,
    image_size: int | Sequence[int] = 28,
) -> nn.Sequential:
    """784-1000-500-250-30-250-500-1000-784 in the paper: images in [0, 1] → images of the same shape in [0, 1].

    The paper gives the widths, the dropout and Nesterov's gradient. The rest is that of the example which Caffe has
    with these widths: sigmoids on all layers but the code of 30, which is linear; weights N(0, 1) where they are not 0,
    each being so with probability 1 - 15 / outputs of its layer; biases 0. Not a Model of this project, whose output
    are logits: see `noiseopt.defences.denoise`. Its random weights come from torch's global generator;
    `build("noiseopt.models:autoencoder", seed=...)` seeds it.

    Args:
        hidden: widths from the first hidden layer to the code; the decoder mirrors them.
        dropout: share of the pixels that are set to 0 in training, in [0, 1); the paper does not give it. The others
            are scaled up by 1 / (1 - dropout).
        in_channels, image_size: C, and H = W (or (H, W)), of the images `Float[N, C, H, W]`.

    Raises:
        UserError: an option is out of range.
    """
    if isinstance(hidden, str) or not isinstance(hidden, Sequence) or len(hidden) == 0:
        raise UserError("hidden must list the widths down to the code", got=hidden, fix="pass (1000, 500, 250, 30)")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise UserError("dropout must be a rate in [0, 1)", got=dropout, fix="pass dropout=0.2")
    shape = (_positive(in_channels, name="in_channels"), *_height_and_width(image_size))
    down = [shape[0] * shape[1] * shape[2], *(_positive(width, name="a width in hidden") for width in hidden)]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten(), dropout=nn.Dropout(dropout))
    code = len(hidden)
    for i, (inputs, outputs) in enumerate(pairwise(down), start=1):
        layers[f"encode{i}"] = _linear(inputs, outputs)
        if i < code:
            layers[f"encode{i}_activation"] = nn.Sigmoid()
    for i, (inputs, outputs) in zip(range(code, 0, -1), pairwise(reversed(down)), strict=True):
        layers[f"decode{i}"] = _linear(inputs, outputs)
        layers[f"decode{i}_activation"] = nn.Sigmoid()
    layers["image"] = nn.Unflatten(1, shape)
    return nn.Sequential(layers)


@torch.no_grad()
def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Caffe's sparse Gaussian filler (after Martens 2010): with dense small weights so many sigmoids learn nothing."""
    layer = nn.Linear(inputs, outputs)
    kept: Tensor = torch.rand_like(layer.weight) < _SPARSE / outputs
    layer.weight.normal_().mul_(kept)
    nn.init.zeros_(layer.bias)
    return layer
