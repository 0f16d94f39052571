"""Small steps take one thread, large ones torch's own number, and nothing stays changed."""

from __future__ import annotations

import pytest
import torch

from noiseopt.models import build
from noiseopt.threads import _multiply_adds, threads_that_fit, using_threads


def test_multiply_adds_are_those_of_the_layers() -> None:
    image = torch.rand(1, 1, 28, 28)
    assert _multiply_adds(build("mlp", seed=0), image) == 784 * 100 + 100 * 50 + 50 * 10
    convolutions = 28 * 28 * 32 * 9 + 14 * 14 * 64 * 32 * 9
    assert _multiply_adds(build("cnn", seed=0), image) == convolutions + 3136 * 128 + 128 * 10


@pytest.mark.parametrize(("name", "batch_size", "count"), [("mlp", 128, 1), ("mlp", 5000, 2), ("cnn", 128, 2)])
def test_small_steps_take_one_thread(name: str, batch_size: int, count: int) -> None:
    model = build(name, seed=0)
    with using_threads(2):
        assert threads_that_fit(model, torch.rand(2, 1, 28, 28), batch_size=batch_size) == count
    assert not any(m._forward_hooks for m in model.modules())


def test_the_number_is_restored_also_after_an_error() -> None:
    before = torch.get_num_threads()
    with using_threads(3):
        assert torch.get_num_threads() == 3
    with pytest.raises(ZeroDivisionError), using_threads(3):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
