"""Perturbed images that are the same for every model are made once, and held against all of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from noiseopt.concepts import Perturbation, sample_ids
from noiseopt.evaluate import describe
from noiseopt.experiments.cells import Measurement

_LIMIT = 512 * 2**20  # bytes of images kept


class Remembered:
    """A perturbation that does not look at the model, and remembers what it made of each batch."""

    def __init__(self, perturbation: Perturbation) -> None:
        self._perturbation = perturbation
        self.name, self._parameters = describe(perturbation)
        self._made: dict[bytes, Tensor] = {}
        self._bytes = 0

    def parameters(self) -> dict[str, Any]:
        return dict(self._parameters)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        key = sample_ids(samples, images).cpu().numpy().tobytes()
        if key in self._made:
            return self._made[key]
        made = self._perturbation(model, images, labels, samples=samples)
        self._bytes += made.numel() * made.element_size()
        if self._bytes <= _LIMIT:
            self._made[key] = made
        return made


class Workbench:
    """The perturbation at hand. Cells come in the order of their perturbations, so one is enough."""

    def __init__(self) -> None:
        self._of: object = None
        self._perturbation: Perturbation | None = None

    def perturbation(self, cell: Measurement, surrogate: nn.Module | None, *, seed: int) -> Perturbation:
        """What `cell` measures under; the same object for the cells that share it."""
        of = (cell.perturbation, cell.surrogate)
        if self._perturbation is None or self._of != of:
            made = cell.perturbation.build(surrogate=surrogate, seed=seed)
            self._of, self._perturbation = of, Remembered(made) if cell.perturbation.shared else made
        return self._perturbation
