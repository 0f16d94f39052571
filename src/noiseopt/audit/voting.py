"""Who wins: K draws of the noise vote on the class of each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from noiseopt.chances import sign_test
from noiseopt.errors import UserError
from noiseopt.noise import count_votes

_LEVEL = 0.05


@dataclass(frozen=True)
class Votes:
    """For each of N images: the votes for its label, and for the class that has most of the others. `Int64[N]`."""

    right: Tensor
    other: Tensor


@torch.no_grad()
def vote(
    model: nn.Module, images: Tensor, labels: Tensor, *, draws: int, seed: int, samples: Tensor | None = None
) -> Votes:
    """`draws` draws of the noise, as it is switched, each with one vote; one draw where there is no noise.

    The draws of an image depend on (seed, sample, draw) alone: two attacks are judged by the same noise.
    """
    total = count_votes(model, images, draws=draws, seed=seed, samples=samples)
    if int(labels.max()) >= total.shape[1] or int(labels.min()) < 0:
        rule, fix = f"labels must be below the model's {total.shape[1]} classes", "use the model's own data set"
        raise UserError(rule, got=int(labels.max()), fix=fix)
    right = total.gather(1, labels[:, None])[:, 0]
    return Votes(right, total.scatter(1, labels[:, None], -1).amax(dim=1))


def survives(right: int, other: int) -> bool:
    """More votes for the label than for any other class; a tie is lost."""
    return right > other


def is_clear(right: int, other: int) -> bool:
    """Would as clear a vote between label and runner-up come of chance with probability 0.05 at most? (two-sided)

    A model without noise has one vote, which is always the same.
    """
    return right + other <= 1 or 2 * sign_test(max(right, other), min(right, other)) <= _LEVEL
