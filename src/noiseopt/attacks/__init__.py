"""Attacks: Perturbations that climb the gradient of the model's loss.

Each is a frozen dataclass: settings at construction, then `attack(model, images, labels, samples=ids) → images`.
Each has a `name` and `parameters()`, its settings as JSON values, for the Record.
"""

from __future__ import annotations

from collections.abc import Callable

from noiseopt.attacks.gradient import Expectation, cross_entropy, expected_gradient, expected_loss
from noiseopt.attacks.lbfgs import LBFGS
from noiseopt.attacks.projected_gradient import FGSM, PGD
from noiseopt.attacks.sign_noise import SignNoise, SignThenGradient, sign_at, sign_curve
from noiseopt.attacks.transfer import Transfer
from noiseopt.concepts import Perturbation

# Transfer and SignNoise are not here: they are made of models and images, not of settings.
ATTACKS: dict[str, Callable[..., Perturbation]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "lbfgs": LBFGS,
    "sign_then_gradient": SignThenGradient,
}
"""Attacks by name; each takes its settings as keywords."""

__all__ = [
    "ATTACKS",
    "FGSM",
    "LBFGS",
    "PGD",
    "Expectation",
    "SignNoise",
    "SignThenGradient",
    "Transfer",
    "cross_entropy",
    "expected_gradient",
    "expected_loss",
    "sign_at",
    "sign_curve",
]
