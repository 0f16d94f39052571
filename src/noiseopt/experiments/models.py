"""The trained models of a run, built anew and filled from their checkpoints; the last few are kept."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from noiseopt import checkpoint
from noiseopt.data import Dataset
from noiseopt.experiments.cells import Training, build_network
from noiseopt.experiments.folder import RunFolder

_KEPT = 8


class TrainedModels:
    """Cell → its trained model, on `device`."""

    def __init__(self, folder: RunFolder, images: Dataset, device: torch.device) -> None:
        """`images`: some of the data set, for shapes and classes."""
        self._folder, self._images, self._device = folder, images, device
        self._models: OrderedDict[str, nn.Module] = OrderedDict()

    def __getitem__(self, cell: Training) -> nn.Module:
        """Raises UserError where the checkpoint is missing, damaged or of another network."""
        if cell.folder not in self._models:
            model = build_network(cell.network, self._images, seed=cell.seed)
            checkpoint.load_model(self._folder.checkpoint(cell), model)
            self._models[cell.folder] = model.to(self._device)
            if len(self._models) > _KEPT:
                self._models.popitem(last=False)
        self._models.move_to_end(cell.folder)
        return self._models[cell.folder]
