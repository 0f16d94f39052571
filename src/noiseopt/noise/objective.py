"""What σ minimises: small, replaceable parts of the training step.

The paper's is the training loss itself. The others answer what becomes of learned noise under another aim; each is
a recipe's `objective:` and an entry of `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseopt.concepts import Perturbation
from noiseopt.errors import UserError
from noiseopt.noise.modes import evaluating


@dataclass
class SigmaObjective:
    """The paper's own, `loss`: σ minimises the training loss, so its gradient is a by-product of the weights'.

    Subclass to try another. `loss` may use the model, the batch and the noise; where it returns anything but
    `training_loss` itself, σ gets that scalar's gradient and the weights keep the training loss's.
    """

    name: ClassVar[str] = "loss"
    folds: ClassVar[bool] = True
    """Does the update end with σ ← |σ| (Eq. 7)?"""

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
    ) -> Tensor:
        """The scalar that σ descends; called once a step, within the step's stream of noise.

        `samples`: `Int64[N]`, what a random attack is to be keyed by: other for every image and every epoch.
        """
        return training_loss

    def after_backward(self, sigmas: Sequence[Tensor]) -> None:
        """Called when every σ has its gradient, before the steps: for terms that depend on σ alone."""

    def after_step(self, sigmas: Sequence[Tensor]) -> None:
        """Called after both optimisers' steps, for objectives that hold σ to a constraint."""


@dataclass
class PublishedSign(SigmaObjective):
    """The slip of the paper's published code, for replication only: the gradient without `sign(σ)`, and no folding.

    Where σ < 0 a step then walks the wrong way: half of the noise that starts at N(0, 1) grows where the loss wants
    it to shrink.
    """

    name: ClassVar[str] = "published-sign"
    folds: ClassVar[bool] = False

    @torch.no_grad()
    def after_backward(self, sigmas: Sequence[Tensor]) -> None:
        for sigma in sigmas:
            if sigma.grad is not None:
                sigma.grad.mul_(sigma.sign())  # sign² = 1: what is left is Σ_n δ_n ε_n


@dataclass
class Budget(SigmaObjective):
    """σ's mean square is held at `mean_square` in every layer: only where the noise sits is learned, not how much.

    `ascend`: σ climbs the loss instead of descending it.
    """

    name: ClassVar[str] = "budget"
    mean_square: float = 1.0
    ascend: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.mean_square < float("inf"):
            raise UserError("mean_square must be above 0", got=self.mean_square, fix="mean_square=1.0")

    @torch.no_grad()
    def after_backward(self, sigmas: Sequence[Tensor]) -> None:
        if self.ascend:
            for sigma in sigmas:
                if sigma.grad is not None:
                    sigma.grad.neg_()

    @torch.no_grad()
    def after_step(self, sigmas: Sequence[Tensor]) -> None:
        for sigma in sigmas:
            mean_square = sigma.square().mean()
            if mean_square > 0:  # no noise at all has no direction to scale
                sigma.mul_((self.mean_square / mean_square).sqrt())


@dataclass
class Entropy(SigmaObjective):
    """Loss − `price` · Σ_layers mean log σ: noise is worth its entropy, so that the loss alone cannot remove it."""

    name: ClassVar[str] = "entropy"
    price: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.price < float("inf"):
            raise UserError("price must be at least 0", got=self.price, fix="price=0.02")

    @torch.no_grad()
    def after_backward(self, sigmas: Sequence[Tensor]) -> None:
        for sigma in sigmas:
            if sigma.grad is not None:
                # d/dσ of −price · mean log|σ|; a σ at 0 is pushed as one at 1e-6 is, not infinitely hard.
                pull = torch.where(sigma < 0, -1.0, 1.0) / sigma.abs().clamp_min(1e-6)
                sigma.grad.sub_(pull, alpha=self.price / sigma.numel())


@dataclass
class Adversarial(SigmaObjective):
    """σ minimises the loss on adversarial examples; the weights keep the training loss."""

    name: ClassVar[str] = "adversarial"
    examples: Perturbation = field(kw_only=True)

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
    ) -> Tensor:
        with evaluating(model):
            # The loss too: in training mode batch norm would take the examples into its running statistics.
            perturbed = self.examples(model, images, labels, samples=samples).detach()
            return F.cross_entropy(model(perturbed).float(), labels)


OBJECTIVES: dict[str, type[SigmaObjective]] = {
    kind.name: kind for kind in (SigmaObjective, PublishedSign, Budget, Entropy, Adversarial)
}
"""Name in a recipe → objective."""
