"""The noise of other papers, and on pixels, on any model: each `(model, *, example_input, seed, options) → model`.

All of it follows `noiseopt.noise` and `noiseopt.stream` as `inject`'s does, so that K-draw predictions, EOT attacks and
training know of it; `docs/noise-zoo.md` says what each is, and where it differs from its paper.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from noiseopt.noise.zoo.activations import learn2perturb, pixels, rse, smoothing
from noiseopt.noise.zoo.covariance import CovarianceNoise, wca
from noiseopt.noise.zoo.weights import WeightNoise, pni

ZOO: dict[str, Callable[..., nn.Module]] = {
    "rse": rse,
    "smoothing": smoothing,
    "pixels": pixels,
    "pni": pni,
    "learn2perturb": learn2perturb,
    "wca": wca,
}
"""Name in a recipe → `(model, *, example_input, seed, **settings) → model`."""

TRAINED_BY: Mapping[str, Mapping[str, Any]] = {
    "pixels": {"objective": "entropy", "price": 0.3},  # chosen on validation images: docs/which-noise.md
    "learn2perturb": {"objective": "learn2perturb"},
    "wca": {"objective": "wca"},
}
"""Name → what its noise is trained by where a recipe does not say: the objective's name and its settings. The others:
the loss."""

__all__ = [
    "TRAINED_BY",
    "ZOO",
    "CovarianceNoise",
    "WeightNoise",
    "learn2perturb",
    "pixels",
    "pni",
    "rse",
    "smoothing",
    "wca",
]
