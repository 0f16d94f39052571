"""The committee of Uličný et al.: several models, one averaged prediction."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise import seed as start_noise


class Committee(nn.Module):
    """Logits whose softmax is the mean of the members' softmaxes: log((1/M) Σ_m softmax(f_m(x)))."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """`images`: `Float[N, C, H, W]` in [0, 1]; returns log-probabilities `Float[N, classes]`."""
        votes = [member(images).log_softmax(-1) for member in self.members]
        if len({vote.shape for vote in votes}) > 1:
            got = ", ".join(str(vote.shape[-1]) for vote in votes)
            raise UserError("the members of a committee must have the same classes", got=got, fix="leave others out")
        return torch.stack(votes).logsumexp(0) - math.log(len(self.members))


def committee(members: Sequence[nn.Module], *, seed: int = 0) -> nn.Module:
    """A Model that predicts with the average of its members' predictions (class probabilities).

    A white-box attack goes through all of them. Members with noise keep it, each with a stream of its own.

    Args:
        members: one or more Models with the same classes; copied, not changed.
        seed: where the members' noise starts outside of a `noiseopt.stream` block, each member's elsewhere.

    Raises:
        UserError: no member; when it is called, members of different numbers of classes.
    """
    if len(members) == 0:
        raise UserError("a committee needs at least one member", got="none", fix="committee([model, ...])")
    net = Committee([copy.deepcopy(member) for member in members])
    net.members.training = net.training = any(member.training for member in members)
    start_noise(net, seed)  # else two members injected with the same seed would draw the same numbers
    return net
