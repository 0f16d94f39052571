"""Adversarial training in stages: the training images joined by the examples that earlier stages' networks gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from noiseopt.concepts import Perturbation
from noiseopt.data import Dataset, Split
from noiseopt.noise.modes import evaluating
from noiseopt.threads import using_threads

_IDENTITIES = 1 << 24
_BATCH_SIZE = 1000


def with_pools(data: Split, networks: Sequence[nn.Module], perturbation: Perturbation) -> Split:
    """`data` with its training images and, for each of `networks`, their adversarial examples against it.

    The examples are rounded to 8 bits, as images are. Image i of pool k has the identity i + (k + 1) · 2²⁴, so that
    noise tells it from its original.
    """
    train = data.train
    pools = [_examples(train, network, perturbation) for network in networks]
    joined = Dataset(
        torch.cat([train.images, *pools]),
        train.labels.repeat(1 + len(pools)),
        train.classes,
        f"{train.name} and {len(pools)} pools of adversarial examples",
        torch.cat([train.ids + k * _IDENTITIES for k in range(1 + len(pools))]),
    )
    return replace(data, train=joined)


def _examples(data: Dataset, network: nn.Module, perturbation: Perturbation) -> Tensor:
    """`UInt8[N, C, H, W]`."""
    made = []
    place = next(network.parameters()).device
    # On one thread, however many workers there are: a pool is made once more when its stage goes on, and its images are
    # part of what that stage is.
    with evaluating(network), using_threads(1):
        for batch in data.batches(_BATCH_SIZE):
            images, labels, ids = (tensor.to(place) for tensor in batch)
            examples = perturbation(network, images, labels, samples=ids).detach()
            made.append(examples.mul(255).round().to(data.images.device, torch.uint8))
    return torch.cat(made)
