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
    """Training mode inside the block; afterwards every module has the mode that it had."""
    with _restored(model):
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
