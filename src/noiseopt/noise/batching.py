"""Whose noise is whose: where the batch is in what a layer returns, and whether every image keeps its own noise."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from noiseopt.errors import NoiseWarning
from noiseopt.noise.modes import evaluating
from noiseopt.noise.select import call, outputs
from noiseopt.noise.streaming import noise, stream

_SLIGHT = 0.01  # of the noise's effect: what the order of a sum may change


def batch_dims(
    model: nn.Module,
    chosen: Mapping[str, nn.Module],
    example: Any,
    calls: Mapping[str, Sequence[Tensor]],
    result: Any,
) -> dict[str, int | None]:
    """The dimension of each layer's output that grows with the batch; None: it has nothing of the batch.

    Tried with the example, which `calls` and `result` come of, and with twice the example; 0, the usual one, where that
    does not say: where what the model returns does not grow either, the example's first dimension is not the batch.
    """
    usual: dict[str, int | None] = dict.fromkeys(chosen, 0)
    try:
        twice, count = _doubled(example)
        more, more_result = outputs(model, chosen, twice) if count else ({}, None)
    except Exception:  # whatever a model of the user's raises where an example is not made for this
        return usual
    once, both = _first(result), _first(more_result)
    if once is None or both is None or once.dim() == 0 or both.shape != (2 * len(once), *once.shape[1:]):
        return usual
    known = [name for name in chosen if len(calls[name]) == len(more[name])]
    return usual | {name: _grown(calls[name], more[name]) for name in known}


def _grown(calls: Sequence[Tensor], more: Sequence[Tensor]) -> int | None:
    found: set[int | None] = set()
    for once, twice in zip(calls, more, strict=True):
        if once.dim() != twice.dim():
            return 0
        dims = [dim for dim, (few, many) in enumerate(zip(once.shape, twice.shape, strict=True)) if many == 2 * few]
        # Of one size and yet another: a batch that is filled up to some size.
        same = once.shape == twice.shape and torch.allclose(once, twice, rtol=1e-4, atol=1e-6)
        found.add(dims[0] if dims else None if same else 0)
    return found.pop() if len(found) == 1 else 0


def _first(result: Any) -> Tensor | None:
    """The first tensor of what a model returns."""
    if isinstance(result, Mapping):
        result = list(result.values())
    leaves = result if isinstance(result, list | tuple) else [result]
    return next((leaf for leaf in leaves if isinstance(leaf, Tensor)), None)


def warn_of_places(net: nn.Module, example: Any) -> None:
    """Warn where an image's noise depends on its place in the batch: then its prediction depends on the batch's size.

    The example alone and twice in one batch, under the same noise, must come out alike.
    """
    try:
        twice, count = _doubled(example)
        if not count:
            return
        ids = torch.arange(count)
        with evaluating(net), torch.no_grad(), torch.random.fork_rng():
            with noise(net, on=False):
                plain, plain_twice = call(net, example), call(net, twice)
            if not all(isinstance(out, Tensor) and out.is_floating_point() for out in (plain, plain_twice)):
                return
            if plain_twice.shape != torch.cat([plain, plain]).shape:
                return
            # Without noise a batch of another size may be computed in another order, on a GPU less precisely.
            scale, drift = plain.abs().max(), (plain_twice - torch.cat([plain, plain])).abs().max()
            if not drift <= 0.01 * scale:
                return  # the batch matters without noise too
            with stream(net, seed=0, samples=ids):
                noisy = call(net, example)
            with stream(net, seed=0, samples=ids.repeat(2)):
                noisy_twice = call(net, twice)
    except Exception:  # as above
        return
    if noisy_twice.shape != plain_twice.shape or not bool(torch.isfinite(torch.cat([noisy, noisy_twice])).all()):
        return
    slight = _SLIGHT * (noisy - plain).abs().max() + 10 * drift + 1e-5 * scale
    if (noisy_twice - torch.cat([noisy, noisy])).abs().max() > slight:
        warnings.warn(
            "the noise of an image depends on its place in the batch, so its prediction does on the batch's size: some "
            "layer with noise is not given the images one after another; choose others, or put the batch first",
            NoiseWarning,
            stacklevel=3,
        )


def _doubled(example: Any) -> tuple[Any, int]:
    """The example twice in one batch, and how many there are in the example; 0: that cannot be said."""
    leaves = list(example.values()) if isinstance(example, Mapping) else example
    leaves = list(leaves) if isinstance(leaves, list | tuple) else [leaves]
    count = next((len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 0), 0)

    def twice(leaf: Any) -> Any:
        batched = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == count
        return torch.cat([leaf, leaf]) if batched else leaf

    if isinstance(example, Mapping):
        return {key: twice(leaf) for key, leaf in example.items()}, count
    if isinstance(example, list | tuple):
        return [twice(leaf) for leaf in example], count
    return twice(example), count
