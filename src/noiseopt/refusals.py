"""What training refuses: a model that does not fit its images, settings that say nothing, a loss that ran away."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from noiseopt.concepts import Perturbation
from noiseopt.data import Dataset, Split
from noiseopt.errors import Diverged, UserError
from noiseopt.history import Training
from noiseopt.noise import noise
from noiseopt.noise.modes import evaluating
from noiseopt.paired import PairedLoss
from noiseopt.tasks import task_of


def check_fits(model: nn.Module, data: Dataset, training: Training) -> None:
    """One image through the model, before hours are spent on many.

    Raises UserError where there is none, or where the model does not take it or gives something else than is asked.
    """
    if len(data) == 0:
        raise UserError("training needs at least one image", got="none", fix="check the data set or its split")
    images, _, _ = data.batch(torch.arange(1))
    try:
        with evaluating(model), torch.no_grad(), noise(model, on=False):
            outputs = model(images)
    except UserError:
        raise
    except Exception as error:  # whatever a model of the user's raises
        fix = "build the model for this data set (in_channels, image_size, classes)"
        raise UserError(f"the model must take images of {list(images.shape)}", got=str(error), fix=fix) from error
    task_of(training.task).check(outputs, data)


def check_split(data: object) -> None:
    """Raises UserError where `data` is no Split."""
    if not isinstance(data, Split):
        rule, got = "data must be a Split: images to train on, to validate and to test", type(data).__name__
        raise UserError(rule, got=got, fix='noiseopt.data.split(noiseopt.data.load("mnist-mini"), seed=0)')


def check_paired(paired: PairedLoss | None, perturbation: Perturbation | None, training: Training) -> None:
    """Raises UserError where a loss of both has no examples to be of, or no classes."""
    if paired is None:
        return
    if perturbation is None:
        raise UserError("a paired loss needs what it pairs the images with", fix="pass perturbation too")
    if training.task == "reconstruct":
        raise UserError("a paired loss is of a classifier", got="task='reconstruct'", fix="leave paired out")


def check_finite(losses: Tensor, validation_loss: float, epoch: int, training: Training) -> None:
    """Raises Diverged where a loss is not finite, with the step that it happened in."""
    bad = (~losses.isfinite()).nonzero().flatten().tolist()
    if bad or not math.isfinite(validation_loss):
        step = f", step {bad[0] + 1} of {len(losses)}" if bad else ", in validation"
        raise Diverged(
            f"the loss must stay finite; it did not in epoch {epoch + 1}{step}",
            got=float(losses[bad[0]]) if bad else validation_loss,
            fix=f"lower lr (now {training.lr:g}) or sigma_lr (now {training.sigma_lr:g})"
            + ("; the checkpoint of the epoch before is kept" if epoch else ""),
        )
