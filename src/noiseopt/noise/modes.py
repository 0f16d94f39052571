"""Eval mode or training mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; afterwards every module has the mode that it had, also those frozen on their own."""
    with _restored(model):
        model.eval()
        yield


@contextmanager
def learning(model: nn.Module) -> Iterator[None]:
    """Training mode inside the block; afterwards every module has the mode that it had.

    A model that is in training mode stays as it is: what was put in eval mode on its own, such as a batch normalisation
    whose averages shall not move, is frozen on purpose.
    """
    with _restored(model):
        if not model.training:
            model.train()
        yield


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
