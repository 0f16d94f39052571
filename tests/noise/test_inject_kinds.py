"""`inject` on any model: a copy that runs, trains, is saved and is given back."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from noiseopt.noise import GaussianNoise, SigmaAdam, inject, noise, remove, sigmas, split_parameters, stream
from tests.noise.kinds import KINDS, run, scalar


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[nn.Module, Any, set[str]]:
    torch.manual_seed(0)
    build, example, names = KINDS[request.param]
    return build(), example, names


@pytest.mark.filterwarnings("ignore:no noise on block.self_attn.out_proj", "ignore:Lazy modules")
def test_every_kind_of_model_injects_trains_and_round_trips(
    kind: tuple[nn.Module, Any, set[str]], tmp_path: Path
) -> None:
    model, example, names = kind
    untouched = [(m, m.training) for m in model.modules()]
    net = inject(model, example_input=example, init=0.3)
    assert set(sigmas(net)) == names
    assert not any(isinstance(m, GaussianNoise) for m in model.modules())
    assert all(m.training == mode for m, mode in untouched)
    run(model, example)  # a lazy model becomes concrete, as its copy did

    # It trains: both optimisers, every σ gets a gradient, and moves, and stays non-negative.
    weights, learned = split_parameters(net)
    assert len(weights) == len(list(model.parameters()))
    assert len(learned) == len(names)
    optimizer, sigma_optimizer = torch.optim.Adam(weights, lr=1e-3), SigmaAdam(learned, lr=1e-2)
    before = {name: s.detach().clone() for name, s in sigmas(net).items()}
    for _ in range(3):
        scalar(run(net, example)).backward()
        optimizer.step(), sigma_optimizer.step()
        optimizer.zero_grad(), sigma_optimizer.zero_grad()
    for name, s in sigmas(net).items():
        assert (s != before[name]).any()
        assert (s >= 0).all()

    # It travels: deepcopy, state_dict and safetensors give the same numbers.
    net.eval()
    save_model(net, tmp_path / "net.safetensors")
    fresh = inject(kind[0], example_input=example)
    load_model(fresh, tmp_path / "net.safetensors")
    results = []
    for version in (net, copy.deepcopy(net), fresh.eval()):
        with stream(version, seed=5), torch.no_grad():
            results.append(scalar(run(version, example)))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])

    # And it goes: the plain architecture with the trained weights.
    plain = remove(net)
    assert list(plain.state_dict()) == list(model.state_dict())
    with noise(net, on=False), torch.no_grad():
        assert torch.equal(scalar(run(plain, example)), scalar(run(net, example)))
    assert sigmas(net)
    assert not sigmas(plain)


def test_a_copy_has_a_switch_and_a_stream_of_its_own(images: Tensor, convnet: nn.Module) -> None:
    net = inject(convnet, example_input=images)
    other = copy.deepcopy(net)
    with noise(net, on=False):
        assert not torch.equal(other(images), convnet(images))
    with stream(net, seed=9, samples=torch.arange(6)):
        assert not torch.equal(net(images), other(images))


def test_pickled_by_torch_save_and_weights_only_load(images: Tensor, convnet: nn.Module) -> None:
    net = inject(convnet, example_input=images)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    net.load_state_dict(torch.load(buffer, weights_only=True))


def test_autocast_trains_in_bfloat16(images: Tensor, convnet: nn.Module) -> None:
    net = inject(convnet, example_input=images, init=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16), stream(net, seed=0, samples=torch.arange(6)):
        out = net(images)
        out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    half = {name: s.grad for name, s in sigmas(net).items()}
    net.zero_grad()
    with stream(net, seed=0, samples=torch.arange(6)):
        net(images).square().sum().backward()
    for name, s in sigmas(net).items():
        assert half[name].dtype == torch.float32  # type: ignore[union-attr]
        assert (half[name] - s.grad).norm() < 0.05 * s.grad.norm()  # type: ignore[operator,union-attr]
