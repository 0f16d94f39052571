"""Objectives that are about adversarial examples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from noiseopt.concepts import Perturbation
from noiseopt.errors import UserError
from noiseopt.noise.injection import split_parameters
from noiseopt.noise.modes import evaluating
from noiseopt.noise.objective.base import Batch, SigmaObjective
from noiseopt.streams import SampleRandom

_WHICH = 0x2545F4914F6CDD1D  # keeps the choice of held-out images apart from all other streams


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


@dataclass
class Bilevel(SigmaObjective):
    """σ minimises the adversarial loss of images that the weights never see, after the weights' next step:

        min_σ  L_held(w', σ; x'),   w' = w − η ∇_w L_train(w, σ),   x' = examples(x)

    The gradient goes through the step, so it is exact: autograd takes it through ∇_w L_train a second time, and σ's
    part of every pass is the pathwise derivative of Theorem 1. It holds what σ does to the weights, and that alone:
    what σ does to L_held at fixed weights is left out, since that only ever asks for less noise.

    The images are a part of the training images (`held_out` of them), which the weights do not train on. Each image of
    a batch is met by one of them, chosen by its identity and the epoch alone. The examples are made for w, not w'.
    Under several processes each unrolls the step of its own part of the batch.

    Args:
        examples: the attack.
        step_size: η of the step that is looked ahead, of plain gradient descent; positive. SigmaAdam does not see the
            gradient's size, so a small η stands for the limit η → 0, in which σ makes the weights' gradient point
            where the held-out images want it; a large one also charges σ for a step that overshoots.
        held_out: share of the training images, in (0, 1).
    """

    name: ClassVar[str] = "bilevel"
    examples: Perturbation = field(kw_only=True)
    step_size: float = 0.01
    held_out: float = 0.1

    def __post_init__(self) -> None:
        self._images: tuple[Callable[[Tensor], Batch], int] | None = None
        if not 0 < self.step_size < float("inf"):
            raise UserError("step_size must be above 0", got=self.step_size, fix="step_size=0.01")
        if not 0 < self.held_out < 1:
            raise UserError("held_out must be a share in (0, 1)", got=self.held_out, fix="held_out=0.1")

    def hold(self, batch: Callable[[Tensor], Batch], count: int) -> None:
        self._images = batch, count

    def watching(self, model: nn.Module) -> AbstractContextManager[None]:
        """torch's fast attention has no second derivative."""
        return sdpa_kernel(SDPBackend.MATH)

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, training_loss: Tensor, *, samples: Tensor
    ) -> Tensor:
        if self._images is None:
            raise UserError("bilevel needs images that the weights do not see", fix="call hold(...), as train does")
        batch, count = self._images
        chosen = SampleRandom(_WHICH, samples).randint(0, count, 1)[:, 0]
        held, truth, _ = batch(chosen)
        with evaluating(model):
            attacked = self.examples(model, held, truth, samples=samples).detach()
            stepped = self._after_step(model, training_loss)
            return F.cross_entropy(functional_call(model, stepped, (attacked,)).float(), truth)

    def _after_step(self, model: nn.Module, training_loss: Tensor) -> dict[str, Tensor]:
        """The weights after one more step, as functions of σ."""
        weights, levels = split_parameters(model)
        moving = [p for p in weights if p.requires_grad]
        gradients = torch.autograd.grad(training_loss, moving, create_graph=True, materialize_grads=True)
        after = {id(p): p - self.step_size * g for p, g in zip(moving, gradients, strict=True)}
        after |= {id(s): s.detach() for s in levels}
        return {name: after[id(p)] for name, p in model.named_parameters() if id(p) in after}
