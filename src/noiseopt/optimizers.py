"""The optimisers of a training: one of the weights, one of σ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from noiseopt.errors import UserError
from noiseopt.history import Training
from noiseopt.noise import SigmaAdam


def optimizers_of(
    weights: list[nn.Parameter],
    levels: list[nn.Parameter],
    training: Training,
    *,
    free: Sequence[nn.Parameter],
    folds: bool,
) -> dict[str, torch.optim.Optimizer]:
    """ "weights" and "sigma" (Algorithm 1 of Xiao et al.), each where there is something for it to train.

    `free`: of the weights, those without weight decay. `folds`: see `SigmaAdam`.

    Raises UserError where there is nothing to train, and something was asked for.
    """
    optimizers: dict[str, torch.optim.Optimizer] = {}
    lr, decay = training.lr, training.weight_decay
    known = {id(p) for p in free}
    apart = [p for p in weights if id(p) in known]
    groups: list[dict[str, Any]] = [{"params": [p for p in weights if id(p) not in known]}]
    groups = [group for group in (*groups, {"params": apart, "weight_decay": 0.0}) if group["params"]]
    if weights and training.optimizer == "adam":
        optimizers["weights"] = torch.optim.Adam(groups, lr=lr, weight_decay=decay, fused=True)
    elif weights:
        momentum, nesterov = training.momentum, bool(training.nesterov)
        optimizers["weights"] = torch.optim.SGD(
            groups, lr=lr, weight_decay=decay, momentum=momentum, nesterov=nesterov, fused=True
        )
    if levels:
        optimizers["sigma"] = SigmaAdam(levels, lr=training.sigma_lr, fold=folds)
    if not optimizers and training.epochs:
        raise UserError("the model has nothing to train", fix="leave requires_grad on for some parameters")
    return optimizers
