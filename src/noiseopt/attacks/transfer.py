"""Black-box attacks: crafted on another model than the one under attack."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from noiseopt.concepts import Model, Perturbation, perturbed
from noiseopt.noise.modes import evaluating


@dataclass(frozen=True)
class Transfer:
    """An attack crafted on `surrogate`, whatever model it is then held against (Papernot et al. 2016).

    `attack`: any Perturbation. `surrogate`: a Model, used in eval mode and never changed; images visit its device and
    come back.
    """

    attack: Perturbation
    surrogate: Model = field(repr=False)

    @property
    def name(self) -> str:
        return "transfer"

    def parameters(self) -> dict[str, Any]:
        """The attack's name and settings, and the surrogate's type, size and the SHA-256 of its weights."""
        settings = self.attack.parameters() if hasattr(self.attack, "parameters") else {}
        name = getattr(self.attack, "name", getattr(self.attack, "__name__", type(self.attack).__name__))
        return {"attack": name, **settings, "surrogate": _describe(self.surrogate)}

    def __call__(self, model: Model, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        """`images` (`Float[N, C, H, W]` in [0, 1]) and `labels` (`Int64[N]`) → the images attacked."""
        weight = next(self.surrogate.parameters(), None)
        device = images.device if weight is None else weight.device
        samples = None if samples is None else samples.to(device)
        with evaluating(self.surrogate):  # in train mode batch normalisation would learn from every attack
            attacked = perturbed(self.attack, self.surrogate, images.to(device), labels.to(device), samples=samples)
        return attacked.to(images.device)


def _describe(model: Model) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    count = sum(parameter.numel() for parameter in model.parameters())
    return {"type": type(model).__name__, "parameters": count, "weights": digest.hexdigest()[:16]}
