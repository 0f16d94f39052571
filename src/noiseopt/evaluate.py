"""How accurate is a model under a perturbation? The only evaluation loop."""

from __future__ import annotations

import dataclasses
import numbers
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from noiseopt.attacks.gradient import noise_seed
from noiseopt.attacks.settings import check_batch, check_count, check_seed
from noiseopt.concepts import Perturbation, Record, clean, perturbed, wilson_interval
from noiseopt.data import Dataset, to_unit
from noiseopt.errors import NoiseWarning, UserError
from noiseopt.given import logits_of
from noiseopt.noise import draw_logits, has_noise, stream
from noiseopt.noise import noise as switched
from noiseopt.noise.draws import check_finite
from noiseopt.noise.modes import evaluating
from noiseopt.plain import plain

Data = Dataset | tuple[Tensor, Tensor]


@torch.no_grad()
def predict(
    model: nn.Module,
    images: Tensor,
    *,
    draws: int = 20,
    noise: bool | None = None,
    seed: int = 0,
    samples: Tensor | None = None,
) -> Tensor:
    """Class probabilities `Float[N, classes]`: the mean of softmax over `draws` draws of the noise.

    Args:
        model: images → logits; used in eval mode, left in the mode that it had.
        images: `Float[N, C, H, W]` in [0, 1].
        draws: K ≥ 1; a model without noise, or with `noise=False`, needs and takes one.
        noise: is the model's noise on? None: as it is switched.
        seed: of the noise.
        samples: identities of the images, `Int64[N]`; the prediction for an image depends on its identity, never on
            its batch. None: 0, ..., N-1.

    Raises:
        UserError: no images, or predictions that are not finite.
    """
    if len(images) == 0:
        raise UserError("a prediction needs at least one image", got="none", fix="check the data set or its split")
    check_count("draws", draws)
    with evaluating(model), _switched(model, noise):
        total, count = torch.zeros(()), 0
        for logits in draw_logits(model, images, draws=draws, seed=seed, samples=samples):
            total, count = total.to(logits.device) + logits.float().softmax(-1).sum(0), count + len(logits)
    check_finite(total)
    return total / count


def evaluate(
    model: nn.Module,
    data: Data,
    perturbation: Perturbation = clean,
    *,
    draws: int = 20,
    noise: bool | None = None,
    batch_size: int = 500,
    seed: int = 0,
) -> Record:
    """Accuracy of `model` on perturbed images, with its 95 % Wilson interval.

    The noise is as stated for the attacker and the prediction alike: a white-box attack on a model whose noise is off
    sees it off. The attack and the prediction draw from streams of their own.

    Args:
        model: images in [0, 1] → logits; used in eval mode, left in the mode that it had, and on the device it is on.
        data: a `Dataset`, or (images `Float[N, C, H, W]` in [0, 1] or `UInt8`, labels `Int64[N]`).
        perturbation: any `(model, images, labels) → images`; what it draws of torch's generators is decided by `seed`.
        draws: K; the prediction is the mean over K draws of the noise.
        noise: is the model's noise on? None: as it is switched.
        batch_size: images at a time, at least 1; changes nothing but memory and speed (where `inject` has not warned).
        seed: of the noise of the predictions.

    Raises:
        UserError: no data or of another kind, images outside of [0, 1] or that the model does not take, labels that
            are no classes of the model or not one for each image, a perturbation that changes the shape or leaves
            [0, 1], or predictions that are not finite.

    Warns (`NoiseWarning`) where two passes with the same noise differ: the model has randomness that `draws` and
    `noise` do not know of.
    """
    check_count("batch_size", batch_size)
    check_count("draws", draws)
    check_seed(seed)
    if not isinstance(data, Dataset):
        pair = isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
        if not pair:
            got, fix = type(data).__name__, "pass (images, labels), for instance of one batch of a DataLoader"
            raise UserError("data must be a Dataset, or two tensors, images and labels", got=got, fix=fix)
    count = len(data) if isinstance(data, Dataset) else len(data[0])
    if count == 0:
        raise UserError("evaluation needs at least one image", got="none", fix="check the data set or its split")
    device = next((t.device for t in [*model.parameters(), *model.buffers()]), torch.device("cpu"))
    correct = 0
    # Dropout that stays on, and attacks that draw from torch's own generators: the same numbers again.
    with evaluating(model), _switched(model, noise), torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        stochastic = has_noise(model)
        for i, (images, labels, ids) in enumerate(_batches(data, batch_size, device)):
            if i == 0:
                _try(model, images, ids)
            # Attacks made here draw as they say themselves; what others draw is another stream than the prediction's.
            with stream(model, seed=noise_seed(seed), samples=ids):
                attacked = perturbed(perturbation, model, images, labels, samples=ids)
            probabilities = predict(model, attacked, draws=draws, seed=seed, samples=ids)
            least, most = int(labels.min()), int(labels.max())
            if least < 0 or most >= probabilities.shape[1]:
                raise UserError(
                    f"labels must be the model's classes, 0 to {probabilities.shape[1] - 1}",
                    got=f"{least} to {most}",
                    fix="use the model with the data set that it was built for",
                )
            correct += int((probabilities.argmax(1) == labels).sum())
    low, high = wilson_interval(correct, count)
    name, parameters = describe(perturbation)
    return Record(
        metric="accuracy",
        value=correct / count,
        count=count,
        low=low,
        high=high,
        perturbation=name,
        parameters=parameters,
        noise=stochastic,
        draws=draws if stochastic else 1,
        seed=seed,
        data=data.name if isinstance(data, Dataset) else "",
    )


def _switched(model: nn.Module, on: bool | None) -> AbstractContextManager[None]:
    return nullcontext() if on is None else switched(model, on=on)


def _try(model: nn.Module, images: Tensor, samples: Tensor) -> None:
    """Two passes alike: does the model take the images, and has it randomness of its own?"""

    def passed(count: int) -> Tensor:
        with stream(model, seed=0, samples=samples[:count]):
            return logits_of(model, images[:count])

    try:
        said = passed(2), passed(2)
    except UserError:  # it may take batches of one size only
        said = passed(len(images)), passed(len(images))
    if not torch.allclose(said[0], said[1], rtol=1e-3, atol=1e-4, equal_nan=True):
        warnings.warn(
            "two passes of this model differ, though their noise is the same: it draws random numbers that noiseopt "
            "does not see (dropout that stays on, say). With noise off a prediction is then one such draw, not a mean.",
            NoiseWarning,
            stacklevel=3,
        )


def describe(perturbation: Perturbation) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a perturbation, as a Record keeps them.

    A perturbation may say them itself (`name`, `parameters()`); else they are its class or function name and, for a
    data class, its plain fields.
    """
    own_name = getattr(perturbation, "__name__", type(perturbation).__name__)
    name: str = getattr(perturbation, "name", own_name)
    own = getattr(perturbation, "parameters", None)
    if callable(own) and not isinstance(perturbation, nn.Module):
        return name, plain(own())
    if dataclasses.is_dataclass(perturbation):
        values = {f.name: getattr(perturbation, f.name) for f in dataclasses.fields(perturbation)}
        return name, {k: plain(v) for k, v in values.items() if isinstance(v, numbers.Real | str | bool | None)}
    return name, {}


def _batches(data: Data, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    if isinstance(data, Dataset):
        batches = data.batches(batch_size)
    else:
        images, labels = data
        images = to_unit(images) if images.dtype == torch.uint8 else images
        ids = check_batch(images, labels, None).cpu()
        batches = zip(images.split(batch_size), labels.split(batch_size), ids.split(batch_size), strict=True)
    for batch in batches:
        images, labels, ids = (t.to(device) for t in batch)
        yield images, labels, ids
