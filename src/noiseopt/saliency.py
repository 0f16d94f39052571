"""Saliency maps by squared SmoothGrad (Xiao et al., eq. 8), and how much of one lies on the object.

    M(x) = 1/n Σ_j (∂y_c / ∂x)² at x + ξ_j,    ξ_j ~ N(0, σ²),    summed over the channels

y_c is the logit of class c. The maps of the paper's Fig. 4 are those of the images' own classes, σ = 0.15, n = 25.
"""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import NoiseTunnel, Saliency
from torch import Tensor

from noiseopt.chances import student_quantile
from noiseopt.concepts import Model, Record, sample_ids
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.noise import has_noise, stream
from noiseopt.noise import noise as switched
from noiseopt.noise.modes import evaluating
from noiseopt.streams import SampleRandom

# Keeps the noise on the images apart from what attacks and corruptions of the same seed draw.
_PURPOSE = 0x1A2F5C93D4E6B781

INSIDE = "saliency inside the box"
"""The metric of `share_inside`."""


def saliency(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    noise: bool,
    draws: int,
    seed: int,
    sigma: float = 0.15,
    samples: int = 25,
    ids: Tensor | None = None,
) -> Tensor:
    """How strongly each pixel moves the logit of the image's class: `Float[N, H, W]`, not negative, gradients detached.

    With the noise on, the squared gradient is also averaged over `draws` draws of it at each noisy image: draws make
    the estimate more precise and do not change what is estimated; 1 is the paper's protocol. Noisy images are not
    clipped to [0, 1], and are the same ones for all models, draws and settings of the noise. The map of an image
    depends on its identity and the seed, not on the batch.

    Args:
        model: images in [0, 1] → logits; used in eval mode, left in the mode that it had.
        images: `Float[N, C, H, W]` in [0, 1].
        labels: `Int64[N]`, the class of each image whose logit is differentiated.
        noise: is the model's noise on?
        draws: K ≥ 1 draws of the model's noise for each noisy image; a model without noise, or with `noise=False`,
            needs and takes one.
        seed: of the noise on the images and in the model, in [0, 2⁶³).
        sigma: standard deviation of the noise on the images, in pixel units; 0 gives the plain squared gradient.
        samples: n ≥ 1 noisy images for each image.
        ids: identities of the images, `Int64[N]`; None: 0, ..., N-1.

    Raises:
        UserError: an option is out of range, or labels do not fit images or model.
    """
    _check(images, labels, draws=draws, seed=seed, sigma=sigma, samples=samples, ids=ids)
    if len(images) == 0:
        return images.new_zeros(0, *images.shape[2:])
    ids = sample_ids(ids, images)
    # NoiseTunnel draws from the global generator even where it adds nothing.
    devices = [images.device] if images.device.type == "cuda" else []
    with (
        torch.inference_mode(False),
        torch.random.fork_rng(devices=devices),
        evaluating(model),
        switched(model, on=noise),
    ):
        draws = draws if has_noise(model) else 1
        scores = _Scores(model, labels, ids.clone(), seed=seed, sigma=sigma, draws=draws)
        # captum would draw the noise by the place in the batch: `_Scores` adds it instead, so captum's own is 0. One
        # noisy image of each at a time, so memory does not grow with their number.
        squares = NoiseTunnel(Saliency(scores)).attribute(
            images.detach().clone(),
            nt_type="smoothgrad_sq",
            nt_samples=samples * draws,
            nt_samples_batch_size=1,
            stdevs=0.0,
            target=labels.clone(),
        )
    return squares.detach().sum(dim=1)


class _Scores:
    """Logits of noisy images, K calls for each noisy image, every call with a draw of its own of the model's noise."""

    def __init__(self, model: Model, labels: Tensor, ids: Tensor, *, seed: int, sigma: float, draws: int) -> None:
        self._model, self._labels, self._ids = model, labels, ids
        self._seed, self._sigma, self._draws = seed ^ _PURPOSE, sigma, draws
        self._random = SampleRandom(self._seed, ids)
        self._shift = torch.empty(0)
        self._calls = 0

    def __call__(self, images: Tensor) -> Tensor:
        if self._calls % self._draws == 0:
            self._shift = self._sigma * self._random.randn(*images.shape[1:]).to(images.dtype)
        with stream(self._model, seed=self._seed, samples=self._ids, step=self._calls):
            logits = self._model(images + self._shift)
        if self._calls == 0:
            _check_classes(logits, self._labels)
        self._calls += 1
        return logits


def inside_box(maps: Tensor, boxes: Tensor) -> Tensor:
    """The share of each saliency map that lies inside the object's box: `Float[N]` in [0, 1].

    NaN where there is no share to speak of: the box is unknown (-1), or the map is 0 everywhere. The share of a map
    that sees no object is that of the box's area, `inside_box(torch.ones_like(maps), boxes)`.

    Args:
        maps: `Float[N, H, W]`, not negative.
        boxes: `Int[N, 4]`, (left, top, right, bottom) in pixels as in `Dataset.boxes`: the last column and row belong
            to the box, so (0, 0, W - 1, H - 1) is the whole image. What reaches beyond the image does not count.

    Raises:
        UserError: shapes that do not fit, a negative map, or a box whose right or bottom lies before its left or top.
    """
    if maps.dim() != 3 or boxes.shape != (len(maps), 4):
        raise UserError(
            "inside_box takes maps [N, H, W] and boxes [N, 4]",
            got=f"{list(maps.shape)} and {list(boxes.shape)}",
            fix="pass saliency(...) and the boxes of the same images",
        )
    if bool((maps < 0).any()):
        raise UserError("a saliency map is not negative", got=f"{maps.min().item():g}", fix="square it, or take abs()")
    left, top, right, bottom = boxes.to(device=maps.device, dtype=torch.int64)[:, :, None].unbind(dim=1)
    known = (boxes.to(maps.device) >= 0).all(dim=1)
    reversed_boxes = known & ((right < left) | (bottom < top))[:, 0]
    if bool(reversed_boxes.any()):
        worst = int(reversed_boxes.nonzero()[0])
        fix = "give (left, top, right, bottom)"
        raise UserError("a box ends right of and below its start", got=boxes[worst].tolist(), fix=fix)
    rows, columns = (torch.arange(length, device=maps.device) for length in maps.shape[1:])
    inside = ((rows >= top) & (rows <= bottom))[:, :, None] & ((columns >= left) & (columns <= right))[:, None, :]
    wide = maps.double()
    share = (wide * inside).sum(dim=(1, 2)) / wide.sum(dim=(1, 2))  # 0 / 0 is NaN
    return share.masked_fill(~known, torch.nan).to(maps.dtype)


def boxed(data: Dataset, count: int) -> Dataset:
    """The first `count` images whose bounding box is known; none where no box is."""
    if data.boxes is None:
        return data.span(0, 0)
    return data.subset((data.boxes >= 0).all(dim=1).nonzero().flatten()[:count])


def share_inside(
    model: Model,
    data: Dataset,
    *,
    noise: bool,
    draws: int,
    seed: int,
    sigma: float = 0.15,
    samples: int = 25,
    batch_size: int = 32,
) -> Record:
    """The mean over all images of `inside_box(saliency(...))`, with its 95 % interval over images, as a Record.

    All images count, the wrongly classified ones too, so that the numbers of several models are about the same images.
    `parameters` holds, as "uniform", the share that a map without any preference has: that of the boxes' area. `count`
    is less than the number of images where maps are 0 everywhere.

    Args:
        model: images in [0, 1] → logits; used in eval mode, left in the mode that it had, and on the device it is on.
        data: images with `boxes`, as `boxed` chooses them, on the model's device.
        noise, draws, seed, sigma, samples: see `saliency`.
        batch_size: images at a time; changes nothing but memory and speed.

    Raises:
        UserError: there is no image with a known box and a map, or as `saliency` does.
    """
    if data.boxes is None:
        fix = "use images that have them, such as Tiny-ImageNet's"
        raise UserError("a share is of images with bounding boxes", got=data.name, fix=fix)
    shares, areas = [], []
    with switched(model, on=noise):
        stochastic = has_noise(model)
    for (images, labels, ids), box in zip(data.batches(batch_size), data.boxes.split(batch_size), strict=True):
        options: dict[str, Any] = {"noise": noise, "draws": draws, "seed": seed, "sigma": sigma, "samples": samples}
        maps = saliency(model, images, labels, ids=ids, **options)
        shares.append(inside_box(maps, box).double())
        areas.append(inside_box(torch.ones_like(maps), box).double())
    found = torch.cat(shares) if shares else torch.zeros(0)
    known = ~found.isnan()
    if not bool(known.any()):
        fix = "use images with bounding boxes, such as Tiny-ImageNet's, and a model that is trained"
        raise UserError("there must be an image with a known box and a map that is not 0", got=len(data), fix=fix)
    low, high = _mean_interval(found[known])
    uniform = float(torch.cat(areas)[known].mean())
    return Record(
        metric=INSIDE,
        value=float(found[known].mean()),
        count=int(known.sum()),
        low=low,
        high=high,
        perturbation="smoothgrad",
        parameters={"sigma": sigma, "samples": samples, "uniform": uniform},
        noise=stochastic,
        draws=draws if stochastic else 1,
        seed=seed,
        data=data.name,
    )


def _mean_interval(shares: Tensor) -> tuple[float, float]:
    """The 95 % t-interval of a mean of shares, cut to [0, 1]; all of that for a single one."""
    count = len(shares)
    if count < 2:
        return 0.0, 1.0
    mean, half = float(shares.mean()), student_quantile(0.975, count - 1) * float(shares.std()) / count**0.5
    return max(0.0, mean - half), min(1.0, mean + half)


def _check(
    images: Tensor, labels: Tensor, *, draws: int, seed: int, sigma: float, samples: int, ids: Tensor | None
) -> None:
    if images.dim() != 4 or not images.is_floating_point():
        got = f"{images.dtype} of shape {list(images.shape)}"
        raise UserError("images must be Float[N, C, H, W]", got=got, fix="divide 8-bit images by 255")
    for name, tensor in (("labels", labels), ("ids", ids)):
        if tensor is not None and (tensor.dtype != torch.int64 or tensor.shape != images.shape[:1]):
            got = f"{tensor.dtype} of shape {list(tensor.shape)} for {len(images)} images"
            raise UserError(f"{name} must be int64, one for each image", got=got, fix=f"pass {name} as Int64[N]")
    for name, count in (("draws", draws), ("samples", samples)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UserError(f"{name} must be an integer of at least 1", got=count, fix=f"pass {name}=25")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError("a seed must be an integer in [0, 2⁶³)", got=seed, fix="pass seed=0")
    if not 0 <= sigma < float("inf"):
        raise UserError("sigma must be finite and at least 0, in pixel units", got=sigma, fix="pass sigma=0.15")


def _check_classes(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2:
        got = f"shape {list(logits.shape)}"
        raise UserError("a model returns logits [N, classes]", got=got, fix="return one logit a class")
    if not bool(((labels >= 0) & (labels < logits.shape[1])).all()):
        got = f"labels from {int(labels.min())} to {int(labels.max())}, {logits.shape[1]} logits"
        raise UserError("labels must be classes of the model", got=got, fix="use the model's own data set")
