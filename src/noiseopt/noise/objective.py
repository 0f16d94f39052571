"""What σ minimises: one small, replaceable part of the training step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SigmaObjective:
    """The paper's own: σ minimises the training loss itself, so its gradient is a by-product of the weights'.

    Subclass to try another. `loss` may use the model, the batch and the noise; where it returns anything but
    `training_loss` itself, σ gets that scalar's gradient and the weights keep the training loss's.
    """

    name = "loss"

    def loss(self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor) -> Tensor:
        """The scalar that σ descends; called once a step, within the step's stream of noise."""
        return training_loss

    def after_step(self, sigmas: Sequence[Tensor]) -> None:
        """Called after both optimisers' steps, for objectives that hold σ to a constraint."""
