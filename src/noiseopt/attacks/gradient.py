"""The gradient every attack climbs: of the expected loss over noise draws (EOT; Athalye et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from noiseopt.concepts import Model
from noiseopt.errors import UserError
from noiseopt.noise import draw_logits

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits `Float[M, classes]`, labels `Int64[M]`) → a loss of each row, `Float[M]`, that an attack raises."""

_ATTACKER = 0x5DEECE66D2B7E151


def noise_seed(seed: int) -> int:
    """The seed of an attack's noise: another stream than that of an evaluation with the same seed."""
    return seed ^ _ATTACKER


class NoGradient(UserError):
    """The model cannot be attacked by its gradient: there is none."""


@dataclass(frozen=True)
class Expectation:
    """Means over K noise draws, for each of N images by itself."""

    loss: Tensor
    """`Float[N]`: mean over the draws of the loss; the cross-entropy, in nats, where no other was asked for."""
    gradient: Tensor
    """`Float[N, C, H, W]`: of `loss`, with respect to the images."""
    probabilities: Tensor
    """`Float[N, classes]`: mean over the draws of the softmax."""

    def fooled(self, labels: Tensor) -> Tensor:
        """`Bool[N]`: is another class than the label the most probable?"""
        return self.probabilities.argmax(dim=1) != labels


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row of `Float[M, classes]`: `Float[M]`, in nats.

    Computed as `-log sigmoid(z_y - logsumexp of the others)`, which is the same number as
    `torch.nn.functional.cross_entropy` but keeps its digits, and those of its gradient, where p_y rounds to 1
    (in float32 from a margin of 17): there the usual formula looks like a defence and is none.
    """
    label = labels[:, None]
    others = logits.scatter(1, label, -torch.inf).logsumexp(dim=1)
    return -logsigmoid(logits.gather(1, label)[:, 0] - others)


def expected_gradient(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    draws: int,
    seed: int,
    samples: Tensor | None = None,
    first_draw: int = 0,
) -> Tensor:
    """The gradient of the summed per-image loss, each the mean cross-entropy over `draws` noise draws.

    The arguments are those of `expected_loss`. Returns `Float[N, C, H, W]`.
    """
    return expected_loss(model, images, labels, draws=draws, seed=seed, samples=samples, first_draw=first_draw).gradient


def expected_loss(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    draws: int,
    seed: int,
    samples: Tensor | None = None,
    first_draw: int = 0,
    criterion: Loss = cross_entropy,
) -> Expectation:
    """Loss, gradient and probabilities of `images` (`Float[N, C, H, W]`), averaged over `draws` noise draws.

    `criterion`: the loss of each draw's logits.

    Draw k (from `first_draw` on) of image `samples[i]` under `seed` is the same noise whatever else is in the
    batch, and every image and draw has its own. Draws go through the model in chunks, each with its backward
    pass, so memory does not grow with `draws`. A model without noise is run once.

    The model is left as it was found: its parameters' `.grad` and `requires_grad`, its train or eval mode (it
    is run in whichever it is in; batch normalisation in train mode does couple the images of a batch) and its
    noise switch. Works under `torch.no_grad` and `torch.inference_mode`. Raises `NoGradient` where the model is
    not differentiable in its images, and `UserError` where its loss or gradient is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad(), _frozen(model):
        leaf = images.detach().clone().requires_grad_()
        labels = labels.clone()
        samples = None if samples is None else samples.clone()
        loss = torch.zeros(len(leaf), dtype=leaf.dtype, device=leaf.device)
        gradient = torch.zeros_like(leaf, requires_grad=False)
        probabilities: Tensor | None = None
        count = 0
        chunks = draw_logits(model, leaf, draws=draws, seed=seed, samples=samples, first_draw=first_draw)
        for logits in chunks:
            _check_logits(logits, labels)
            drawn = logits.shape[0]
            losses = criterion(logits.flatten(0, 1), labels.repeat(drawn)).view(drawn, -1)
            gradient += _gradient(losses.sum(), logits, leaf)
            loss += losses.detach().sum(dim=0)
            softmax = logits.detach().softmax(dim=-1).sum(dim=0)
            probabilities = softmax if probabilities is None else probabilities + softmax
            count += drawn
    assert probabilities is not None, "draw_logits yields at least one chunk"
    loss, gradient = loss / count, gradient / count
    if not bool(torch.isfinite(loss).all() & torch.isfinite(gradient).all()):
        bad = int((~torch.isfinite(gradient.flatten(1).sum(dim=1) + loss)).sum())
        raise UserError(
            "the model's loss and gradient must be finite: it produced NaN or infinite gradients",
            got=f"{bad} of {len(images)} images",
            fix="look for NaN weights (diverged training), or square roots and logarithms of 0 in the model",
        )
    return Expectation(loss, gradient, probabilities / count)


@contextmanager
def _frozen(model: Model) -> Iterator[None]:
    """The parameters ask for no gradient meanwhile: saves the backward pass of the weights."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _gradient(loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
    """Of the loss, in the images.

    A network that works in half precision loses all of the gradient of an image that it is sure of (below 6e-8), and
    looks robust. Such an image's is taken once more, from slopes that a power of two, which rounds nothing, brings to a
    size of about 1.
    """
    gradient = None
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, images, allow_unused=True, retain_graph=True)
        if gradient is not None:
            lost = ~gradient.flatten(1).any(dim=1)
            if bool(lost.any()):
                gradient = torch.where(_along(lost, images), _rescued(loss, logits, images), gradient)
    if gradient is None:
        raise NoGradient(
            "the model must be differentiable in its images, or no gradient attack can be run on it",
            fix="remove detach(), no_grad() and integer conversions from its forward, or use Transfer(...)",
        )
    return gradient


def _rescued(loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
    (slopes,) = torch.autograd.grad(loss, logits, retain_graph=True)
    size = slopes.abs().amax(dim=(0, 2))
    power = size / torch.frexp(size).mantissa  # of two: size = mantissa · 2^k
    power = torch.where((power > 0) & torch.isfinite(power), power, 1.0)
    (gradient,) = torch.autograd.grad(logits, images, slopes / power[:, None])
    return gradient * _along(power, images).to(gradient.dtype)


def _along(values: Tensor, images: Tensor) -> Tensor:
    """One of `values` for all pixels of an image."""
    return values.view(-1, *[1] * (images.dim() - 1))


def _check_logits(logits: Tensor, labels: Tensor) -> None:
    classes = logits.shape[-1]
    if logits.dim() != 3 or classes < 2:
        got = f"shape {tuple(logits.shape[1:])}"
        raise UserError("a model returns logits [N, classes], classes ≥ 2", got=got, fix="return one logit a class")
    if not bool(((labels >= 0) & (labels < classes)).all()):
        got = f"labels from {int(labels.min())} to {int(labels.max())}, {classes} logits"
        raise UserError("labels must be classes of the model", got=got, fix="use the model's own data set")
