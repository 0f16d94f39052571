"""Loops compiled for CPUs by numba, on one thread or on as many as torch uses. Imports numba: import this lazily."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import FunctionType
from typing import Any

# Torch brings GNU OpenMP; the same layer here lets both share cores politely. Set before numba starts its threads.
os.environ.setdefault("NUMBA_THREADING_LAYER", "omp")

import numba
import torch


def both_ways(loop: Callable[..., None], **options: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    """`loop`, which has a `prange`, compiled for one thread and for many; cached on disk.

    `options` are those of `numba.njit`.
    """
    # numba's cache knows a function by its name, and would hand out one variant for the other.
    twin = FunctionType(loop.__code__, loop.__globals__, f"{loop.__name__}_parallel")
    twin.__qualname__, twin.__module__ = twin.__name__, loop.__module__
    return numba.njit(cache=True, **options)(loop), numba.njit(cache=True, parallel=True, **options)(twin)


def threads_for(elements: int, *, serial_below: int) -> int:
    """As many threads as torch uses, so that one setting governs both; 1 where waking them costs more than the work.

    Forked workers must call `torch.set_num_threads(1)`, as torch's own do: GNU OpenMP's threads do not survive a fork.
    """
    if elements < serial_below:
        return 1
    threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if threads > 1:
        numba.set_num_threads(threads)
    return threads
