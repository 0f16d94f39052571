"""Compile the CPU loops now, into numba's cache on disk, so that no run waits for them: `python -m noiseopt.warm`.

Part of `make`'s installation. Nothing breaks without it: each loop is compiled when it is first used.
"""

from __future__ import annotations

import torch
from torch import nn

from noiseopt import SigmaAdam, corruptions, inject, split_parameters


def main() -> None:
    """Call every loop once as it is used: narrow and wide layers, small batches (one thread) and large (all)."""
    for batch in (2, 600):
        images = torch.rand(batch, 1, 28, 28)
        for name in corruptions.CORRUPTIONS:
            corruptions.Corruption(name, severity=5)(nn.Identity(), images, torch.zeros(batch))
        for neurons in (100, 2000):
            net = inject(nn.Sequential(nn.Flatten(), nn.Linear(784, neurons)), example_input=images[:2])
            net(images).sum().backward()
            SigmaAdam(split_parameters(net)[1]).step()


if __name__ == "__main__":
    main()
