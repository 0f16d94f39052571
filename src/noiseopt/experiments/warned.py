"""Warnings about noise, said as a run says things and not as Python does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from noiseopt.errors import NoiseWarning


@contextmanager
def noise_warnings(say: Callable[[str], None] | None) -> Iterator[None]:
    """Inside the block `say` is given every `NoiseWarning`, in words (None: nobody is); other warnings go their way."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    for warning in found:
        if not issubclass(warning.category, NoiseWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif say is not None:
            say(str(warning.message))
