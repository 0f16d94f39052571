"""Certificates for input noise: randomised smoothing (Cohen, Rosenfeld, Kolter 2019)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from noiseopt.chances import lower_limit
from noiseopt.concepts import Record, wilson_interval
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.given import given, hash_of_images, hash_of_model
from noiseopt.journal import Journal
from noiseopt.noise import GaussianNoise, count_votes
from noiseopt.noise import noise as switched
from noiseopt.noise.attaching import Behind
from noiseopt.noise.modes import evaluating
from noiseopt.noise.streaming import Stream

ABSTAIN = -1


@dataclass(frozen=True, kw_only=True)
class Certifying:
    """How certain, and under which noise.

    `sigma`: standard deviation of the noise that is put in front of the model, in pixel units ([0, 1]); None: the model
    has noise on its images, and that is it. `guess`: draws that choose the class (n0 of the paper). `draws`: draws that
    bound its probability (n). `alpha`: how often a certificate may be wrong. `seed`: of the draws.
    """

    sigma: float | None = None
    guess: int = 100
    draws: int = 1000
    alpha: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sigma is not None and not (_is_number(self.sigma) and 0 < self.sigma < math.inf):
            raise UserError("sigma must be a positive standard deviation", got=self.sigma, fix="pass sigma=0.25")
        for name in ("guess", "draws"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1", got=value, fix=f"pass {name}=1000")
        if not (_is_number(self.alpha) and 0 < self.alpha < 0.5):
            raise UserError("alpha must lie between 0 and 0.5", got=self.alpha, fix="pass alpha=0.001")


@dataclass(frozen=True)
class Certificates:
    """What is certain of N images.

    `predicted`: the class of the smoothed model, `Int64[N]`, or -1 where it abstains. `radius`: `Float64[N]`, in pixel
    units: within this L2 distance of the image the class stays the same, with probability 1 - alpha; 0 where it
    abstains. `correct`: `Bool[N]`.
    """

    settings: Certifying
    sigma: float
    predicted: Tensor
    radius: Tensor
    correct: Tensor
    known: dict[str, Any]

    @property
    def largest(self) -> float:
        """The radius of an image whose class never lost a vote."""
        return radius_of(self.settings.draws, self.settings.draws, alpha=self.settings.alpha, sigma=self.sigma)

    def at(self, radius: float) -> Record:
        """Certified accuracy: the share of images whose class is right, and certain at least this far."""
        count = len(self.radius)
        good = int((self.correct & (self.radius >= radius)).sum())
        low, high = wilson_interval(good, count)
        parameters = {
            "radius": radius,
            "sigma": self.sigma,
            "alpha": self.settings.alpha,
            "guess": self.settings.guess,
            "in_front": self.settings.sigma is not None,
            "abstained": int((self.predicted == ABSTAIN).sum()),
        }
        known = {"perturbation": "l2", "noise": True, "seed": self.settings.seed, **self.known}
        return Record(
            metric="certified accuracy",
            value=good / count,
            count=count,
            low=low,
            high=high,
            parameters=parameters,
            draws=self.settings.draws,
            **known,
        )

    def records(self, radii: Sequence[float] | None = None) -> list[Record]:
        """Certified accuracy at these radii; by default at every σ/2, from 0 as far as the draws can certify."""
        if radii is None:
            radii = [round(0.5 * self.sigma * k, 6) for k in range(int(2 * self.largest / self.sigma) + 1)]
        return [self.at(radius) for radius in radii]


def certify(
    model: nn.Module,
    data: Dataset | tuple[Tensor, Tensor],
    settings: Certifying,
    *,
    folder: str | Path | None = None,
    batch_size: int = 50,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Certificates:
    """Certify the class that a model gives an image most often under Gaussian noise (CERTIFY of the paper).

    For each image `settings.guess` draws choose the class A, and others bound its probability from below by p (Clopper
    and Pearson, with confidence 1 - alpha). Where p > 1/2 the radius is σ Φ⁻¹(p) (Theorem 1), else it abstains. Noise
    inside of the model is part of what is smoothed: the theorem holds for any function of the image to [0, 1], here the
    probability of A over that noise. Of the model's own noise on its images the certificate is by `input_noise`.

    Args:
        model: images in [0, 1] → logits; used in eval mode, left in the mode that it had, on the device that it is on.
        data: a `Dataset`, or (images `Float[N, C, H, W]` in [0, 1] or `UInt8`, labels `Int64[N]`).
        settings: how certain, and under which noise.
        folder: where to keep what is known, so that what was stopped goes on; None: nowhere.
        batch_size: images at a time; changes nothing but memory, and how much a kill loses.
        progress: called with (images done, images) after every batch.

    Raises:
        UserError: no images, images that do not fit the model, no noise on the images and no `sigma`, images that also
            reach the model past its noise, predictions that are not finite, or a folder that cannot be written.
    """
    with evaluating(model), switched(model, on=True):
        images, labels, ids = given(model, data)
        sigma = settings.sigma if settings.sigma is not None else input_noise(model, images[:2])
        if not sigma:
            rule, fix = "a certificate needs noise on the images", "sigma=0.25 (--sigma 0.25) puts it in front"
            raise UserError(rule, got="a model without", fix=fix)
        smoothed = model if settings.sigma is None else with_noise_in_front(model, sigma, like=images)
        smoothed.eval()
        journal = (
            None if folder is None else Journal(Path(folder) / f"{_hash(settings, model, images, labels, ids)}.jsonl")
        )
        known: dict[int, tuple[int, int]] = {}
        for line in journal.lines if journal else ():
            known |= {row: (chosen, votes) for row, chosen, votes in line["rows"]}
        missing = torch.tensor([row for row in range(len(images)) if row not in known], dtype=torch.int64)
        progress(len(known), len(images))
        for rows in missing.split(batch_size) if len(missing) else ():
            at = rows.to(images.device)
            found = _count(smoothed, images[at], ids[at], settings)
            if journal:
                journal.add({"rows": [[row, *said] for row, said in zip(rows.tolist(), found, strict=True)]})
            known |= dict(zip(rows.tolist(), found, strict=True))
            progress(len(known), len(images))
    certain = [_certificate(*known[row], settings, sigma) for row in range(len(images))]
    predicted = torch.tensor([predicted for predicted, _ in certain])
    radius = torch.tensor([radius for _, radius in certain], dtype=torch.float64)
    about = {"data": data.name, "data_hash": data.hash} if isinstance(data, Dataset) else {}
    return Certificates(settings, sigma, predicted, radius, predicted == labels.cpu(), about)


def radius_of(votes: int, draws: int, *, alpha: float, sigma: float) -> float:
    """σ Φ⁻¹(p), p the lower limit of a class's probability that had `votes` of `draws`; 0 where it abstains."""
    bound = lower_limit(votes, draws, alpha=alpha)
    return sigma * NormalDist().inv_cdf(bound) if bound > 0.5 else 0.0


def with_noise_in_front(model: nn.Module, sigma: float, *, like: Tensor) -> nn.Module:
    """The model with a noise layer on its images; the model itself, no copy. Not clipped, as in the paper."""
    level = torch.full((1, 1, 1), float(sigma), device=like.device, dtype=like.dtype)
    return Behind(model, GaussianNoise(level, learned=False, index=0, stream=Stream(layers=1, seed=0)))


@torch.no_grad()
def input_noise(model: nn.Module, images: Tensor) -> float | None:
    """σ of the noise that the model adds to its images as they come; None where it adds none.

    Where σ differs from pixel to pixel, the least counts. Where noise is drawn for the images several times (by a
    committee's members, or by one layer called more than once), moving the images moves all of it at once, which is as
    if it were drawn once with (Σ σ_i⁻²)^-½.

    Raises UserError where the images also reach the model past its noise: no theorem is about that.
    """
    layers: set[GaussianNoise] = set()
    sigmas: list[float] = []  # of every call

    def look(layer: nn.Module, args: tuple[Any, ...]) -> None:
        value = args[0] if args else None
        if isinstance(value, Tensor) and value.shape == images.shape and torch.equal(value, images):
            assert isinstance(layer, GaussianNoise)
            layers.add(layer)
            sigmas.append(float(layer.sigma.abs().min()))

    def hide(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    _hooked(model, images, [m.register_forward_pre_hook(look) for m in model.modules() if isinstance(m, GaussianNoise)])
    if not sigmas or min(sigmas) == 0:
        return None
    with switched(model, on=False):
        one, *others = (
            _hooked(model, seen, [layer.register_forward_hook(hide) for layer in layers])
            for seen in (images, 1 - images, torch.zeros_like(images), images / 2, _unrelated(images))
        )
    if not all(torch.equal(one, other) for other in others):
        rule, fix = "all that a model sees of its images must be noisy, or its noise proves nothing", "pass sigma=0.25"
        raise UserError(rule, got="images that also go past its noise", fix=fix)
    return sigmas[0] if len(sigmas) == 1 else math.fsum(sigma**-2 for sigma in sigmas) ** -0.5


def _unrelated(images: Tensor) -> Tensor:
    uniform = torch.rand(images.shape, generator=torch.Generator().manual_seed(0), dtype=images.dtype)
    return uniform.to(images.device)


def _hooked(model: nn.Module, images: Tensor, handles: list[Any]) -> Tensor:
    """What the model says of the images; the hooks are taken out afterwards."""
    try:
        logits: Tensor = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return logits


@torch.no_grad()
def _count(model: nn.Module, images: Tensor, samples: Tensor, settings: Certifying) -> list[tuple[int, int]]:
    """For each image the class that most of the first draws chose, and how many of the others chose it too."""

    about: dict[str, Any] = {"seed": settings.seed, "samples": samples}
    chosen = count_votes(model, images, draws=settings.guess, **about).argmax(dim=1)
    others = count_votes(model, images, draws=settings.draws, first_draw=settings.guess, **about)
    counts = others.gather(1, chosen[:, None])[:, 0]
    return list(zip(chosen.tolist(), counts.tolist(), strict=True))


def _certificate(chosen: int, votes: int, settings: Certifying, sigma: float) -> tuple[int, float]:
    radius = radius_of(votes, settings.draws, alpha=settings.alpha, sigma=sigma)
    return (chosen, radius) if radius > 0 else (ABSTAIN, 0.0)


def _hash(settings: Certifying, model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor) -> str:
    versions = version("noiseopt"), torch.__version__
    parts = asdict(settings), hash_of_model(model), hash_of_images(images, labels), ids.tolist(), versions
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
