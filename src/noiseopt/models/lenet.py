"""The LeNet of Uličný et al., section 4: Caffe's version of LeCun's network, with dropout by layer."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.models.networks import _height_and_width, _normalize, _positive

LAYERS = ("input", "conv1", "conv2", "full", "output")


def lenet(
    *,
    dropout: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0),
    in_channels: int = 1,
    image_size: int | Sequence[int] = 28,
    classes: int = 10,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> nn.Sequential:
    """Two 5×5 convolutions (20 and 50 kernels), each with 2×2 max-pooling and no ReLU, then 500 neurons with ReLU, and
    the output: 431,080 parameters for MNIST.

    Weights start as Caffe's "xavier" filler has them, biases at 0. Pixels go in as they are; Caffe's example divides
    them by 256 and not by 255, which is `std=256/255`. Channels are last in memory, which takes a third off a step on
    a CPU.

    Args:
        dropout: the rate at which the nodes of input, conv1, conv2, full and output are dropped in training (Table 1):
            (.2, 0, 0, 0, 0) is the paper's `Inp`, (.2, .2, .2, .5, .5) its `All`. What is kept is scaled up. Nodes of
            a convolution are dropped after its pooling, where the next layer gets them (the paper leaves that open);
            those of the output are the logits. No dropout layer is made where the rate is 0.
        in_channels, image_size, classes, mean, std: those of `mlp`.

    Raises:
        UserError: an option is out of range, or the images are smaller than 16 pixels.
    """
    rates = _rates(dropout)
    height, width = _height_and_width(image_size)
    if min(height, width) < 16:
        raise UserError("lenet takes images of 16 pixels or more", got=image_size, fix="pass image_size=28")
    down = [((side - 4) // 2 - 4) // 2 for side in (height, width)]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        normalize=_normalize(mean, std, in_channels),
        dropout_input=nn.Dropout(rates[0]),
        conv1=nn.Conv2d(_positive(in_channels, name="in_channels"), 20, kernel_size=5),
        pool1=nn.MaxPool2d(2),
        dropout_conv1=nn.Dropout(rates[1]),
        conv2=nn.Conv2d(20, 50, kernel_size=5),
        pool2=nn.MaxPool2d(2),
        dropout_conv2=nn.Dropout(rates[2]),
        flatten=nn.Flatten(),
        full=nn.Linear(50 * down[0] * down[1], 500),
        activation=nn.ReLU(),
        dropout_full=nn.Dropout(rates[3]),
        output=nn.Linear(500, _positive(classes, name="classes")),
        dropout_output=nn.Dropout(rates[4]),
    )
    for layer in layers.values():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            _xavier(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    # A rate of 0 would still cost a pass over the batch.
    kept = {name: layer for name, layer in layers.items() if not (isinstance(layer, nn.Dropout) and layer.p == 0)}
    net = nn.Sequential(OrderedDict(kept))
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.no_grad()
def _xavier(weight: Tensor) -> None:
    """Caffe's "xavier" filler: uniform on ±√(3 / inputs of a neuron); Glorot & Bengio count the outputs too."""
    bound = math.sqrt(3.0 / weight[0].numel())
    weight.uniform_(-bound, bound)


def _rates(dropout: Sequence[float]) -> list[float]:
    numbers = list(dropout) if isinstance(dropout, Sequence) and not isinstance(dropout, str) else []
    fits = all(isinstance(r, int | float) and not isinstance(r, bool) and 0 <= r < 1 for r in numbers)
    if len(numbers) != len(LAYERS) or not fits:
        rule = f"dropout must list five rates in [0, 1), for {', '.join(LAYERS)}"
        raise UserError(rule, got=dropout, fix="pass dropout=(0.2, 0.2, 0.2, 0.5, 0.5)")
    return [float(rate) for rate in numbers]
