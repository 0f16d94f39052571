"""Attacks: Perturbations that climb the gradient of the model's loss.

Each is a frozen dataclass: settings at construction, then `attack(model, images, labels, samples=ids) → images`.
Each has a `name` and `parameters()`, its settings as JSON values, for the Record.
"""

from __future__ import annotations

from collections.abc import Callable

from noiseopt.attacks.gradient import Expectation, cross_entropy, expected_gradient, expected_loss
from noiseopt.attacks.lbfgs import LBFGS
from noiseopt.attacks.projected_gradient import FGSM, PGD
from noiseopt.attacks.transfer import Transfer
from noiseopt.concepts import Perturbation

# Transfer is not here: it is made of an attack and a model, not of settings.
ATTACKS: dict[str, Callable[..., Perturbation]] = {"fgsm": FGSM, "pgd": PGD, "lbfgs": LBFGS}
"""Attacks by name; each takes its settings as keywords."""

__all__ = [
    "ATTACKS",
    "FGSM",
    "LBFGS",
    "PGD",
    "Expectation",
    "Transfer",
    "cross_entropy",
    "expected_gradient",
    "expected_loss",
]
