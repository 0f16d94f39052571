"""The stream of noise: its statistics, what a draw depends on, and that all backends draw the same."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise import inject, noise, seed, sigmas, stream, turn
from noiseopt.noise.kernels import choose, fits, reference
from noiseopt.streams import philox

CPU = torch.device("cpu")


def _rows(samples: int, step: int = 0, first: int = 0) -> Tensor:
    ids = torch.arange(first, first + samples)
    return torch.stack([ids, torch.full_like(ids, step)], dim=1)


def _draw(samples: int, neurons: int, *, seed: int = 0, layer: int = 0, call: int = 0, step: int = 0) -> np.ndarray:
    out = torch.zeros(samples, neurons)
    choose(CPU).add_(out, torch.ones(neurons), _rows(samples, step), torch.tensor([seed, layer, call]))
    return out.numpy()


def test_philox_matches_the_published_vectors() -> None:
    """Known answers of Random123 for philox4x32-10."""
    for counter, key, want in [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]:
        got = philox(tuple(torch.tensor(c) for c in counter), key)  # type: ignore[arg-type]
        assert tuple(int(word) for word in got) == want


def test_polynomials_are_as_close_as_they_say() -> None:
    horner = np.polynomial.polynomial.polyval
    f, s = np.linspace(-0.25, 0.5, 100_001), np.linspace(-0.5, 0.5, 100_001)
    assert np.abs(f * horner(f, fits.LOG1P) - np.log1p(f)).max() < 2e-7
    assert np.abs(s * horner(s * s, fits.SIN) - np.sin(np.pi * s)).max() < 2e-7
    assert np.abs(horner(s * s, fits.COS) - np.cos(np.pi * s)).max() < 2e-7


@pytest.mark.parametrize("neurons", [1, 63, 64, 100, 1023, 1024, 1025, 2500])
def test_backends_draw_the_same(neurons: int) -> None:
    rows, key = _rows(5, step=9, first=4_000_000_000), torch.tensor([2**62 + 12345, 7, 3])
    fast, slow = torch.zeros(5, neurons), torch.zeros(5, neurons)
    choose(CPU).add_(fast, torch.ones(neurons), rows, key)
    reference.add_(slow, torch.ones(neurons), rows, key)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=2e-6)
    g = torch.randn(5, neurons, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        choose(CPU).weighted_sum(g, rows, key, neurons),
        reference.weighted_sum(g, rows, key, neurons),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scale_shorter_than_the_row_repeats(backend: str, dtype: torch.dtype) -> None:
    rows, key = _rows(3), torch.tensor([1, 0, 0])
    scale = torch.rand(7, dtype=dtype)
    short, long = torch.zeros(3, 21, dtype=dtype), torch.zeros(3, 21, dtype=dtype)
    choose(CPU).add_(short, scale, rows, key)
    choose(CPU).add_(long, scale.repeat(3), rows, key)
    assert torch.equal(short, long)
    g = torch.randn(3, 21, dtype=dtype)
    whole = choose(CPU).weighted_sum(g, rows, key, 21)
    torch.testing.assert_close(choose(CPU).weighted_sum(g, rows, key, 7), whole.view(3, 7).sum(0))


def test_statistics_of_ten_million_draws() -> None:
    z = _draw(10_000, 1_000).ravel().astype(np.float64)
    n = z.size
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    beyond = 2 * stats.norm.sf(4)
    assert abs((np.abs(z) > 4).sum() - n * beyond) < 4 * math.sqrt(n * beyond)
    assert 5 < np.abs(z).max() < 6.7


def test_no_correlation_between_neurons_samples_steps_layers_calls_or_seeds() -> None:
    """|z| < 4 over 50 lags. The seeds are fixed, so that this passes or fails for good, and not by chance."""
    z = _draw(500, 2_000)

    def score(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.astype(np.float64) * b).sum() / math.sqrt(a.size))

    scores = [score(z[:, :-lag], z[:, lag:]) for lag in range(1, 51)]
    scores += [score(z[:-lag], z[lag:]) for lag in range(1, 51)]
    for step in range(1, 51):
        scores.append(score(z, _draw(500, 2_000, step=step)))
    for other in range(1, 21):
        scores.append(score(z, _draw(500, 2_000, seed=other)))
        scores.append(score(z, _draw(500, 2_000, seed=other << 32)))
        scores.append(score(z, _draw(500, 2_000, layer=other)))
        scores.append(score(z, _draw(500, 2_000, call=other)))
    assert max(map(abs, scores)) < 4
    assert abs(np.mean(np.square(scores)) - 1) < 5 * math.sqrt(2 / len(scores))
    squares = [score((z[:, :-lag] ** 2 - 1) / 2, z[:, lag:] ** 2 - 1) for lag in (1, 16, 32, 48, 64, 1024)]
    assert max(map(abs, squares)) < 4


def test_raw_bits_are_balanced_and_unrelated() -> None:
    """Every bit of the words behind the normals is a fair coin, and neighbours agree half of the time."""
    lane = torch.arange(16 * 200)
    state = list(philox((lane, lane * 0 + 3, lane * 0, lane * 0), 99))
    words = torch.stack([reference._next(state) for _ in range(256)], 1).flatten()
    bits = (words[:, None] >> torch.arange(32)) & 1
    n = len(words)
    assert ((bits.double().mean(0) - 0.5).abs() < 4.5 * 0.5 / math.sqrt(n)).all()
    agree = (bits[1:] == bits[:-1]).double().mean(0)
    assert ((agree - 0.5).abs() < 4.5 * 0.5 / math.sqrt(n)).all()


def test_a_draw_belongs_to_its_sample(backend: str, convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images[:2]).eval()
    ids = torch.tensor([5, 900, 17, 3, 4_000_000_000, 0])
    with stream(net, seed=3, samples=ids, step=4):
        whole = net(images)
    for order in ([3, 1], [5, 4, 3, 2, 1, 0], [2]):
        with stream(net, seed=3, samples=ids[order], step=4):
            torch.testing.assert_close(net(images[order]), whole[order], rtol=1e-5, atol=1e-6)


def test_a_draw_depends_on_everything_it_is_keyed_by(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images[:2]).eval()
    image, ids = images[:1], torch.zeros(1, dtype=torch.int64)
    seen = []
    for number, sample, step in itertools.product((0, 1, 2**40), (0, 1), (0, 1)):
        with stream(net, seed=number, samples=ids + sample, step=step):
            seen += [net(image), net(image)]  # the second call in a block draws anew
    assert min((a - b).abs().max() for a, b in itertools.combinations(seen, 2)) > 1e-4


def test_automatic_noise_is_fresh_and_seeded(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images[:2], seed=1)
    first, second = net(images), net(images)
    assert not torch.equal(first, second)
    seed(net, 1)
    assert torch.equal(net(images), first)
    assert torch.equal(net(images), second)
    assert not torch.equal(first[0], inject(convnet, example_input=images[:2], seed=2)(images)[0])


def test_switch_nests_and_survives_exceptions(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images[:2])
    plain = convnet(images)
    with noise(net, on=False):
        assert torch.equal(net(images), plain)
        with noise(net, on=True):
            assert not torch.equal(net(images), plain)
        assert torch.equal(net(images), plain)
        with pytest.raises(ZeroDivisionError), noise(net, on=True):
            raise ZeroDivisionError
        assert torch.equal(net(images), plain)
    for mode in (net.train(), net.eval()):
        assert not torch.equal(mode(images), plain)
    with noise(convnet, on=False), stream(convnet, seed=0):  # a plain network is left as it is
        assert torch.equal(convnet(images), plain)


def test_stream_restores_and_refuses(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images[:2], seed=1)
    expected = [net(images) for _ in range(2)]
    seed(net, 1)
    assert torch.equal(net(images), expected[0])
    with pytest.raises(UserError), stream(net, seed=8, samples=torch.arange(6), step=1):
        net(images[:, :, :5])
    assert torch.equal(net(images), expected[1])
    for wrong in (
        {"seed": -1},
        {"seed": 0, "samples": torch.rand(3)},
        {"seed": 0, "samples": torch.arange(3), "step": torch.arange(2)},
        {"seed": 0, "samples": torch.arange(3), "step": -1},
        {"seed": 0, "step": 3},
    ):
        with pytest.raises(UserError), stream(net, **wrong):  # type: ignore[arg-type]
            pass
    for number in (-1, 2**32):
        with pytest.raises(UserError, match="turn"), turn(net, number):
            pass


def test_a_committee_shares_no_noise(convnet: nn.Module, images: Tensor) -> None:
    one = inject(convnet, example_input=images[:2])
    committee = nn.ModuleList([one, inject(convnet, example_input=images[:2])])
    with stream(committee, seed=4, samples=torch.arange(6)):
        a, b = (member(images) for member in committee)
    assert (a - b).abs().min() > 0
    with stream(one, seed=4, samples=torch.arange(6)):
        assert torch.equal(one(images), a)


_THREADS = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from noiseopt.noise.kernels import choose
rows = torch.stack([torch.arange(64), torch.zeros(64, dtype=torch.int64)], 1)
v = torch.zeros(64, 5000); key = torch.tensor([3, 1, 0])
choose(v.device).add_(v, torch.ones(5000), rows, key)
s = choose(v.device).weighted_sum(v, rows, key, 5000)
sys.stdout.write(str(hash(v.numpy().tobytes() + s.numpy().tobytes())))
"""


def test_threads_change_nothing() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    results = {
        subprocess.run(
            [sys.executable, "-c", _THREADS, threads], capture_output=True, check=True, env=environment
        ).stdout
        for threads in ("1", "2")
    }
    assert len(results) == 1


def test_a_forked_child_may_draw() -> None:
    """GNU OpenMP does not survive a fork: with one torch thread, as in torch's own workers, the kernel starts none."""
    v, rows, key = torch.zeros(64, 5000), _rows(64), torch.tensor([3, 1, 0])
    choose(CPU).add_(v, torch.ones(5000), rows, key)
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        again = torch.zeros(64, 5000)
        choose(CPU).add_(again, torch.ones(5000), rows, key)
        os._exit(0 if np.array_equal(again.numpy(), v.numpy()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_sigmas_are_live(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images[:2], init=1e-30)
    with stream(net, seed=0, samples=torch.arange(6)):
        assert torch.equal(net(images), convnet(images))
    with torch.no_grad():
        sigmas(net)["6"].fill_(2.0)
    assert (net(images) - convnet(images)).abs().min() > 0
