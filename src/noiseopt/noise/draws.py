"""K draws of a stochastic model in few passes: the one mechanism behind K-draw prediction and EOT attacks."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from noiseopt.errors import UserError
from noiseopt.noise.modes import evaluating
from noiseopt.noise.streaming import has_noise, set_on_all, stream, streams_of

MEMORY = 128 * 2**20


def draw_logits(
    model: nn.Module,
    images: Tensor,
    *,
    draws: int,
    seed: int,
    samples: Tensor | None = None,
    first_draw: int = 0,
    memory: int = MEMORY,
) -> Iterator[Tensor]:
    """Logits under draws number `first_draw`, ..., `first_draw + draws - 1` of the noise, folded into the batch.

    Every image and every draw has noise of its own, which depends on (seed, sample, draw) and on nothing else, so the
    numbers do not depend on how many draws or images share a pass. Layers before the first noise run once, not K times,
    where the model allows it. Gradients flow; let go of a chunk before asking for the next and memory stays bounded.

    Args:
        model: images → logits; its noise is used as it is switched.
        images: `Float[N, C, H, W]`.
        draws: K ≥ 1.
        seed: of the noise.
        samples: identities of the images, `Int64[N]`; None: 0, ..., N-1.
        first_draw: number of the first draw; an iterative attack passes fresh numbers every iteration.
        memory: bytes that a pass's activations may take, about.

    Yields:
        `Float[k, N, classes]`, the k of all chunks adding up to `draws`; one chunk with k = 1 where `model` has no
        noise that is switched on, since all draws are then the same.
    """
    if draws < 1:
        raise UserError("draws must be at least 1", got=draws, fix="draws=20")
    if not has_noise(model):
        yield _logits(_pass(model, images), 1, len(images))
        return
    if samples is None:
        samples = torch.arange(len(images), device=images.device)
    if len(samples) != len(images):
        raise UserError("samples must name every image", got=f"{len(samples)} for {len(images)}", fix="pass Int64[N]")
    fold = _fan_out if _fans_out(model, images, seed) else _repeat
    room = max(1, memory // _bytes_per_image(model, images, seed) // len(images))
    for first in range(first_draw, first_draw + draws, room):
        count = min(room, first_draw + draws - first)
        numbers = torch.arange(first, first + count, device=images.device)
        ids, steps = samples.repeat(count), numbers.repeat_interleave(len(images))
        try:
            with stream(model, seed=seed, samples=ids, step=steps):
                logits = fold(model, images, count)
        except (RuntimeError, UserError):
            if fold is _repeat:
                raise
            fold = _repeat  # it could fan out before, but a flag may have changed the model since
            _verdicts.pop(model, None)
            with stream(model, seed=seed, samples=ids, step=steps):
                logits = fold(model, images, count)
        yield logits


@torch.no_grad()
def count_votes(
    model: nn.Module, images: Tensor, *, draws: int, seed: int, samples: Tensor | None = None, first_draw: int = 0
) -> Tensor:
    """How many of the draws give each class to each image, `Int64[N, classes]`; arguments as of `draw_logits`.

    Raises UserError where a prediction is not finite.
    """
    total: Tensor | None = None
    for logits in draw_logits(model, images, draws=draws, seed=seed, samples=samples, first_draw=first_draw):
        check_finite(logits)
        counted = one_hot(logits.argmax(dim=-1), logits.shape[-1]).sum(dim=0)
        total = counted if total is None else total + counted
    assert total is not None, "draw_logits yields at least one chunk"
    return total


def check_finite(predictions: Tensor) -> None:
    """Raises UserError where logits, or what was made of them, are no numbers."""
    if not bool(torch.isfinite(predictions).all()):
        rule, fix = "the model's predictions must be finite", "look for NaN weights (diverged training)"
        raise UserError(rule, got="NaN or infinite logits", fix=fix)


def _repeat(model: nn.Module, images: Tensor, count: int) -> Tensor:
    """The draws folded into the batch at the input."""
    return _logits(_pass(model, images.repeat(count, *[1] * (images.dim() - 1))), count, len(images))


def _fan_out(model: nn.Module, images: Tensor, count: int) -> Tensor:
    """The draws folded into the batch at the first noise layer; what comes before sees every image once."""
    with set_on_all(model, "fan_out", count):
        return _logits(_pass(model, images), count, len(images))


def _pass(model: nn.Module, images: Tensor) -> Tensor:
    """The model's answer; batch normalisation in training mode does not learn from what is only asked."""
    norms = [m for m in model.modules() if m.training and isinstance(m, _NormBase)]
    own = [(m, m._buffers) for m in norms if not any(is_lazy(b) for b in m.buffers(recurse=False))]
    try:
        for norm, buffers in own:  # a copy learns; the backward pass may look at it later
            norm._buffers = {name: None if b is None else b.clone() for name, b in buffers.items()}
        output: Tensor = model(images)
    finally:
        for norm, buffers in own:
            norm._buffers = buffers
    return output


def _logits(output: Tensor, count: int, images: int) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != count * images:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"a Model maps {count * images} images to logits [{count * images}, classes]",
            got=got,
            fix="wrap the model in a module that returns its logits",
        )
    return output.view(count, images, -1)


# What was found out about a model: whether it can fan out, and what an image costs. Forgotten with the model.
_verdicts: weakref.WeakKeyDictionary[nn.Module, dict[object, bool]] = weakref.WeakKeyDictionary()
_costs: weakref.WeakKeyDictionary[nn.Module, dict[object, int]] = weakref.WeakKeyDictionary()


def _fans_out(model: nn.Module, images: Tensor, seed: int) -> bool:
    """May the batch grow at the first noise layer?

    Not where an earlier activation meets a later one (a skip connection around the first noise, a member of a
    committee without noise): the two would differ in size. And not in training mode, where dropout must draw for
    every copy and batch statistics see every copy. Rather than reason about architectures, try: two images under two
    draws must come out as they do when folded at the input.
    """
    modules = list(model.modules())
    if any(m.training for m in modules):
        return False
    key = (tuple(id(m) for m in modules), tuple(s.on for s in streams_of(model)))
    known = _verdicts.setdefault(model, {})
    if key not in known:
        known[key] = _same_either_way(model, images, seed)
    return known[key]


@torch.no_grad()
def _same_either_way(model: nn.Module, images: Tensor, seed: int) -> bool:
    pair = torch.cat([images[:1], images[-1:]])
    ids = torch.arange(2, device=images.device)
    results = []
    for fold in (_repeat, _fan_out):
        with stream(model, seed=seed, samples=ids.repeat(2), step=ids.repeat_interleave(2)):
            try:
                results.append(fold(model, pair, 2))
            except (RuntimeError, UserError):
                if fold is _repeat:
                    raise
                return False
    return torch.allclose(results[0], results[1], rtol=1e-4, atol=1e-4, equal_nan=True)


def _bytes_per_image(model: nn.Module, images: Tensor, seed: int) -> int:
    """Bytes of all activations of one image, both directions, by watching one pass."""
    key = tuple(images.shape[1:])
    known = _costs.setdefault(model, {})
    if key in known:
        return known[key]
    total = 0

    def count(module: nn.Module, args: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor):
            total += output.numel() * output.element_size()

    handles = [m.register_forward_hook(count) for m in model.modules()]
    try:
        with evaluating(model), torch.no_grad(), stream(model, seed=seed):
            model(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    known[key] = max(1, 2 * total)
    return known[key]
