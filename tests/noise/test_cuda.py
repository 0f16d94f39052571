"""The Triton kernels draw what the reference draws: in Triton's interpreter everywhere, on a GPU where there is one.

Triton reads TRITON_INTERPRET once, when it is imported, and then runs nothing else: hence a process of its own for each
place. In it pytest collects the functions of this module called `check_...`, the same ones for both.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from noiseopt.noise import inject, sigmas, stream
from noiseopt.noise.function import AddNoise
from noiseopt.noise.kernels import choose, force, reference
from tests.conftest import _missing

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")

on_gpu = pytest.mark.skipif(INTERPRETED, reason="needs a GPU")


def _alone(*args: str, interpret: bool, cache: Path) -> subprocess.CompletedProcess[str]:
    if not sys.platform.startswith("linux"):
        pytest.skip("Triton is made for Linux")
    if importlib.util.find_spec("triton") is None:
        _missing("no triton: pip install triton")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "TRITON_"))}
    mine = {"TRITON_INTERPRET": "1"} if interpret else {}
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**inherited, **mine, "TRITON_CACHE_DIR": str(cache)},
    )


@pytest.mark.parametrize(
    "place",
    [
        "interpreter",
        pytest.param("gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")),
    ],
)
def test_all_checks(place: str, tmp_path: Path) -> None:
    pytest_options = ["-o", "python_functions=check_*", "-p", "no:xdist", "-p", "no:cacheprovider"]
    done = _alone("-m", "pytest", __file__, *pytest_options, interpret=place == "interpreter", cache=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


_COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from noiseopt.noise.kernels import cuda

def ptx(kernel, constants, **types):
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "*i64") for name in names}
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n in names if signature[n][0] in "*i" and n != "batch"}
    source = ASTSource(kernel, signature, {(names.index(n),): value for n, value in constants.items()}, aligned)
    return compile(source, target=GPUTarget("cuda", 90, 32), options=cuda._OPTIONS).asm["ptx"]

integers = {"batch": "i32", "neurons": "i32", "size": "i32"}
add = ptx(cuda._add, {"PERIODIC": False, "ROWS": 8, "LANES": 16}, v="*fp32", scale="*fp32", **integers)
assert "ld.global.v4" in add and "st.global.v4" in add, "16-byte accesses"
assert "fma.rn.f32" in add, "fused multiply-adds"
assert ".local" not in add, "no stack"
assert "ld.global.v4" in ptx(cuda._sum, {"ROWS": 16, "LANES": 16}, g="*fp32", sums="*fp32", **integers)
ptx(cuda._add, {"PERIODIC": True, "ROWS": 32, "LANES": 1, "neurons": 1}, v="*fp64", scale="*fp64", **integers)
tensors, numbers = ("sigma", "grad", "h", "v"), ("beta1", "beta2", "rate", "correction", "eps")
types = dict.fromkeys(tensors, "*fp32") | dict.fromkeys(numbers, "fp32")
ptx(cuda._equation_7, {"SIZE": 256}, count="i32", **types)
"""


def test_compiles_for_hopper_without_one(tmp_path: Path) -> None:
    """The interpreter forgives what the compiler does not; and the accesses are as wide as the module says."""
    done = _alone("-c", _COMPILE, interpret=False, cache=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def cuda() -> ModuleType:
    from noiseopt.noise.kernels import cuda

    return cuda


@pytest.fixture
def forced(cuda: ModuleType) -> Iterator[None]:
    """Triton also for tensors on the CPU, where its interpreter takes them."""
    force("triton")
    assert choose(DEVICE) is cuda
    yield
    force(None)


def _rows(samples: int, first: int = 4_000_000_000) -> Tensor:
    ids = torch.arange(first, first + samples, device=DEVICE)
    return torch.stack([ids, ids % 5], dim=1)


def _key(seed: int = 2**62 + 12345, layer: int = 7, call: int = 3) -> Tensor:
    return torch.tensor([seed, layer, call], device=DEVICE)


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def _compare(cuda: ModuleType, batch: int, neurons: int, dtype: torch.dtype) -> None:
    rows, key = _rows(batch), _key()
    fast, slow, scale = _random(batch, neurons, dtype=dtype), _random(batch, neurons, dtype=dtype), _random(neurons)
    cuda.add_(fast, scale.to(dtype), rows, key)
    reference.add_(slow, scale.to(dtype), rows, key)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=4e-6)
    g = _random(batch, neurons, dtype=dtype)
    sums = cuda.weighted_sum(g, rows, key, neurons)
    assert sums.dtype == dtype
    torch.testing.assert_close(
        sums, reference.weighted_sum(g, rows, key, neurons), rtol=1e-5, atol=2e-6 * batch**0.5 + 5e-7 * batch
    )


@pytest.mark.parametrize(
    ("batch", "neurons", "rows_per_program"),
    [
        (5, 1, 32),
        (5, 63, 8),
        (5, 64, 8),
        (5, 65, 8),
        (5, 200, 16),
        (5, 512, 8),
        (5, 513, 8),
        (5, 1024, 8),
        (5, 1025, 16),
        (5, 2500, 8),
        (1, 5, 16),
        (33, 10, 16),
    ],
)
def check_draws_are_the_references(
    cuda: ModuleType, monkeypatch: pytest.MonkeyPatch, batch: int, neurons: int, rows_per_program: int
) -> None:
    """For every cut that `_rows_per_program` may choose, full or not, also on shapes too small for it to choose so."""
    monkeypatch.setattr(cuda, "_rows_per_program", lambda *_, **__: rows_per_program)
    _compare(cuda, batch, neurons, torch.float64 if neurons in (63, 10) else torch.float32)


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("batch", "neurons"), [(128, 10), (100_000, 300), (128, 65_536), (1_000, 20_000), (3, 1_000_001)]
)
def check_large_draws_are_the_references(cuda: ModuleType, batch: int, neurons: int, dtype: torch.dtype) -> None:
    _compare(cuda, batch, neurons, dtype)


def check_seeds_samples_and_steps_have_all_their_bits(cuda: ModuleType) -> None:
    """All that a draw is keyed by, one after another, at the upper end of its range."""
    rows, seen = _rows(2), []
    for seed in (0, 1, 2**32, 2**63 - 1):
        for layer, call, first in ((0, 0, 0), (2**16 - 1, 2**16 - 1, 0), (0, 0, 2**32 - 2)):
            rows, key = _rows(2, first), _key(seed, layer, call)
            v, want = torch.zeros(2, 8, device=DEVICE), torch.zeros(2, 8, device=DEVICE)
            cuda.add_(v, torch.ones(8, device=DEVICE), rows, key)
            reference.add_(want, torch.ones(8, device=DEVICE), rows, key)
            torch.testing.assert_close(v, want, rtol=1e-5, atol=2e-6)
            seen.append(v)
    assert torch.pdist(torch.stack(seen).flatten(1)).min() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1, 7])
def check_a_short_scale_repeats(cuda: ModuleType, size: int, dtype: torch.dtype) -> None:
    rows, key, scale = _rows(3), _key(), _random(size, dtype=dtype)
    short, long = torch.zeros(3, 21, dtype=dtype, device=DEVICE), torch.zeros(3, 21, dtype=dtype, device=DEVICE)
    cuda.add_(short, scale, rows, key)
    cuda.add_(long, scale.repeat(21 // size), rows, key)
    assert torch.equal(short, long)
    g = _random(3, 21, dtype=dtype)
    whole = reference.weighted_sum(g, rows, key, 21)
    torch.testing.assert_close(cuda.weighted_sum(g, rows, key, size), whole.view(-1, size).sum(0), rtol=1e-5, atol=1e-5)


def check_strides_of_inputs_do_not_matter(cuda: ModuleType) -> None:
    one, rows, key = torch.full((1,), 2.0, device=DEVICE), _rows(3), _key()
    v, want = torch.zeros(3, 9, device=DEVICE), torch.zeros(3, 9, device=DEVICE)
    cuda.add_(v, one.expand(9), torch.stack([rows, rows], dim=2)[:, :, 0], torch.stack([key, key], dim=1)[:, 0])
    cuda.add_(want, torch.full((9,), 2.0, device=DEVICE), rows, key)
    assert torch.equal(v, want)


def check_a_draw_belongs_to_its_row(cuda: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the rest of the batch, its order, and how it is cut into programs."""
    rows, key, scale = _rows(5), _key(), _random(130)
    whole = torch.zeros(5, 130, device=DEVICE)
    cuda.add_(whole, scale, rows, key)
    for order, rows_per_program in (([4, 3, 2, 1, 0], 8), ([2], 2), ([1, 3], 16)):
        monkeypatch.setattr(cuda, "_rows_per_program", lambda *_, n=rows_per_program, **__: n)
        part = torch.zeros(len(order), 130, device=DEVICE)
        cuda.add_(part, scale, rows[order], key)
        torch.testing.assert_close(part, whole[order], rtol=0, atol=1e-6)


def check_the_same_twice(cuda: ModuleType) -> None:
    batch, neurons = (5, 64) if INTERPRETED else (500, 5_000)
    g, rows, key = _random(batch, neurons), _rows(batch), _key()
    sums = [cuda.weighted_sum(g, rows, key, neurons) for _ in range(2)]
    assert torch.equal(*sums)


def check_an_empty_batch(cuda: ModuleType) -> None:
    v = torch.zeros(0, 9, device=DEVICE)
    cuda.add_(v, torch.ones(9, device=DEVICE), _rows(0), _key())
    assert torch.equal(cuda.weighted_sum(v, _rows(0), _key(), 3), torch.zeros(3, device=DEVICE))


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("in_place", [False, True])
def check_add_noise(in_place: bool) -> None:
    rows, key, sigma = _rows(6), _key(), _random(3, 4, 5).requires_grad_()
    v, delta = _random(6, 3, 4, 5), _random(6, 3, 4, 5)
    noise = reference.normals(rows, key, 60).view_as(v)
    want = v + sigma.detach().abs() * noise
    out = AddNoise.apply(v, sigma, rows, key, in_place)
    out.backward(delta)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=4e-6)
    torch.testing.assert_close(sigma.grad, sigma.sign() * (delta * noise).sum(0), rtol=1e-5, atol=2e-5)


@pytest.mark.usefixtures("forced")
def check_gradients_of_both_orders() -> None:
    rows, key = _rows(2), _key()
    v, sigma = _random(2, 2, dtype=torch.float64).requires_grad_(), _random(2, dtype=torch.float64).requires_grad_()

    def squared(v: Tensor, sigma: Tensor) -> Tensor:
        return AddNoise.apply(v, sigma, rows, key, False).square()

    assert torch.autograd.gradcheck(squared, (v, sigma), fast_mode=True)
    assert torch.autograd.gradgradcheck(squared, (v, sigma), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1,), (40, 30)])
def check_sigma_steps_are_the_references(cuda: ModuleType, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    mine, theirs = ([_random(*shape, dtype=dtype), *torch.zeros(2, *shape, dtype=dtype, device=DEVICE)] for _ in "ab")
    for step in (1, 2, 3):
        grad = torch.stack([_random(*shape, dtype=dtype) + step] * 2, dim=-1)[..., 0]  # not contiguous
        for backend, (sigma, h, v) in ((cuda, mine), (reference, theirs)):
            backend.sigma_step(sigma, grad, h, v, lr=0.1, betas=(0.8, 0.99), eps=1e-8, step=step)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@on_gpu
def check_a_captured_graph_reads_the_key_anew(cuda: ModuleType) -> None:
    """Nothing waits for the device, and a replay takes rows and key from where they are."""
    rows, key, scale, source = _rows(64), _key(), _random(3000), _random(64, 3000)
    v = torch.empty_like(source)

    def step() -> Tensor:
        v.copy_(source)
        cuda.add_(v, scale, rows, key)
        return cuda.weighted_sum(v, rows, key, 3000)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()  # compiles
    torch.cuda.current_stream().wait_stream(side)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for call in (3, 4):
        key[2] = call
        graph.replay()
        noised, sums = v.clone(), captured.clone()
        assert torch.equal(sums, step())
        assert torch.equal(noised, v)


@on_gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def check_a_compiled_network_equals_eager(mode: str, convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet.to(DEVICE), example_input=images.to(DEVICE), init=0.5)
    compiled = torch.compile(net, mode=mode)
    for step in range(4):
        results = []
        for version in (compiled, net):
            net.zero_grad()
            with stream(version, seed=3, samples=torch.arange(6, device=DEVICE), step=step):
                out = version(images.to(DEVICE))
                out.square().sum().backward()
            results.append([out.detach().clone(), *(s.grad.clone() for s in sigmas(net).values())])  # type: ignore[union-attr]
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)
