"""The noise of other papers: one contract for all of it, and each formula against autograd of what is written."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise import ZOO, draw_logits, has_noise, inject, noise, remove, sigmas, split_parameters, stream
from noiseopt.noise.kernels import reference

MLP = ("flatten", "hidden", "relu", "output")
OPTIONS: dict[str, dict[str, Any]] = {
    "rse": {"where": "all", "first": 0.4, "inner": 0.3},
    "smoothing": {"sigma": 0.3},
    "pixels": {"init": 0.3},
    "pni": {"alpha": 0.6},
    "learn2perturb": {"init": 0.5},
    "wca": {"init": 0.8},
}


def plain(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "mlp":
        layers = [nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4)]
    else:
        layers = [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)]
    return nn.Sequential(*layers)


def images(count: int = 6) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def noisy(kind: str, body: str = "mlp", **options: Any) -> nn.Module:
    return ZOO[kind](plain(body), example_input=images(2), seed=3, **{**OPTIONS[kind], **options})


every = pytest.mark.parametrize("kind", list(ZOO))
both = pytest.mark.parametrize("body", ["mlp", "cnn"])


@every
@both
def test_without_its_noise_it_is_the_plain_model(kind: str, body: str) -> None:
    model = plain(body)
    names = list(model.state_dict())
    net = ZOO[kind](model, example_input=images(2), **OPTIONS[kind])
    assert list(model.state_dict()) == names
    assert has_noise(net)
    assert sigmas(net)
    with noise(net, on=False):
        assert torch.equal(net(images()), model(images()))
    assert torch.equal(remove(net)(images()), model(images()))
    assert not has_noise(remove(net))
    noisy_output = net(images())
    assert noisy_output.shape == model(images()).shape
    assert not torch.equal(noisy_output, model(images()))
    assert not torch.equal(noisy_output, net(images()))
    added = {name for name in net.state_dict() if "noise." in name}
    assert {name.removeprefix("model.") for name in net.state_dict()} - added == set(names)
    weights, levels = split_parameters(net)
    assert len({id(p) for p in [*weights, *levels]}) == len(list(net.parameters()))
    with pytest.raises(UserError, match="gets noise once"):
        inject(net, example_input=images(2))


@every
@both
def test_a_draw_depends_on_no_batch(kind: str, body: str) -> None:
    net, x = noisy(kind, body), images()
    ids, steps = torch.tensor([5, 0, 9, 2, 7, 1]), torch.tensor([4, 1, 4, 0, 1, 4])
    with stream(net, seed=11, samples=ids, step=steps):
        whole = net(x)
    for i in range(len(x)):
        with stream(net, seed=11, samples=ids[i : i + 1], step=int(steps[i])):
            torch.testing.assert_close(net(x[i : i + 1])[0], whole[i], rtol=1e-4, atol=1e-5)
    with stream(net, seed=11, samples=ids, step=steps + 1):
        assert not torch.allclose(net(x), whole, atol=1e-3)
    with stream(net, seed=12, samples=ids, step=steps):
        assert not torch.allclose(net(x), whole, atol=1e-3)


@every
@both
@pytest.mark.parametrize("training", [False, True])
def test_folded_draws_are_the_draws_one_by_one(kind: str, body: str, training: bool) -> None:
    net, x, ids = noisy(kind, body).train(training), images(), torch.arange(6) + 40
    folded = torch.cat(list(draw_logits(net, x, draws=5, seed=2, samples=ids, first_draw=3)))
    for k in range(5):
        with stream(net, seed=2, samples=ids, step=3 + k):
            torch.testing.assert_close(folded[k], net(x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(folded[0], folded[1], atol=1e-3)


def normals(layer: Any, places: list[list[int]], count: int) -> Tensor:
    key = layer.stream.keys[layer.index].clone()
    key[2] = 0
    return reference.normals(torch.tensor(places), key, count)


def test_pni_is_the_written_formula() -> None:
    net, x = noisy("pni"), images().requires_grad_()
    hidden, output = net[1], net[3]  # type: ignore[index]
    ids, steps = torch.arange(6), torch.tensor([7, 2, 7, 2, 2, 7])
    delta = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    inputs = [x, *net.parameters()]
    with stream(net, seed=1, samples=ids, step=steps):
        out = net(x)
        noises = [
            {k: normals(m.noise, [[0, k]], m.weight.numel()).view_as(m.weight).float() for k in (2, 7)}
            for m in (hidden, output)
        ]
    found = torch.autograd.grad(out, inputs, delta)
    rows = []
    for i, k in enumerate(steps.tolist()):
        h = x[i].flatten()
        for module, drawn in zip((hidden, output), noises, strict=True):
            spread = module.weight.detach().double().std(correction=0).float()
            weight = module.weight + module.noise.alpha * spread * drawn[k]
            h = F.linear(h, weight, module.bias)
            h = h.relu() if module is hidden else h
        rows.append(h)
    expected = torch.stack(rows)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    for have, want in zip(found, torch.autograd.grad(expected, inputs, delta), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-5)


def test_pni_on_a_convolution_is_a_convolution_with_other_weights() -> None:
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="reflect")
    net = ZOO["pni"](nn.Sequential(conv, nn.Flatten()), example_input=torch.rand(2, 4, 8, 8), alpha=0.5)
    x, layer = torch.rand(3, 4, 8, 8), net[0].noise  # type: ignore[index,union-attr]
    with stream(net, seed=1, samples=torch.arange(3), step=4):
        out = net(x)
        drawn = normals(layer, [[0, 4]], conv.weight.numel()).view_as(conv.weight).float()
    with torch.no_grad():
        conv.weight += 0.5 * conv.weight.std(correction=0) * drawn
    torch.testing.assert_close(out, conv(x).flatten(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [None, 3])
def test_wca_is_the_written_formula(rank: int | None) -> None:
    net, x, ids = noisy("wca", rank=rank), images(), torch.arange(6) + 2
    layer: Any = net[3].noise  # type: ignore[index,union-attr]
    with torch.no_grad():
        layer.factor.add_(torch.randn(layer.factor.shape, generator=torch.Generator().manual_seed(1)))
    delta = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    parameters = list(net.parameters())
    with stream(net, seed=1, samples=ids, step=9):
        out = net(x)
        width = layer.factor.shape[1]
        epsilon = normals(layer, [[int(i), 9] for i in ids], width).float()
    used = layer.factor.tril() if rank is None else layer.factor
    hidden = net[1](x.flatten(1)).relu()  # type: ignore[index]
    expected = F.linear(hidden + epsilon @ used.T, net[3].weight, net[3].bias)  # type: ignore[index,arg-type]
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    found = torch.autograd.grad(out, parameters, delta)
    for have, want in zip(found, torch.autograd.grad(expected, parameters, delta), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(layer.sigma, (used @ used.T).diagonal().sqrt().detach())


def test_rse_is_noise_on_what_every_layer_is_given() -> None:
    net, x, ids = noisy("rse", "cnn", where="conv"), images(), torch.arange(6)
    assert list(sigmas(net)) == ["0"]
    net = noisy("rse", "cnn")
    with stream(net, seed=1, samples=ids, step=0):
        out = net(x)
        places = [[int(i), 0] for i in ids]
        before, later = (net[i].noise for i in (0, 3))  # type: ignore[index,union-attr]
        first = x + 0.4 * normals(before, places, 36).view_as(x).float()
        hidden = net[0]._conv_forward(first, net[0].weight, net[0].bias).relu().flatten(1)  # type: ignore[index,union-attr,operator]
        hidden = hidden + 0.3 * normals(later, places, 108).float()
    torch.testing.assert_close(out, F.linear(hidden, net[3].weight, net[3].bias), rtol=1e-4, atol=1e-5)  # type: ignore[index,arg-type]


def test_smoothing_is_noise_on_the_pixels() -> None:
    model, x, ids = plain("mlp"), images(), torch.arange(6)
    net = ZOO["smoothing"](model, example_input=x, sigma=0.25)
    assert list(sigmas(net)) == ["input"]
    with stream(net, seed=1, samples=ids, step=0):
        out = net(x)
        drawn = normals(net[0].noise, [[int(i), 0] for i in ids], 36).view_as(x).float()  # type: ignore[index,union-attr]
    torch.testing.assert_close(out, model(x + 0.25 * drawn), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("per", "shape"), [("neuron", (1, 6, 6)), ("channel", (1, 1, 1)), ("layer", (1, 1, 1))])
def test_noise_on_pixels_is_smoothing_whose_sigma_is_learned(per: str, shape: tuple[int, ...]) -> None:
    x, ids = images(), torch.arange(6)
    fixed = ZOO["smoothing"](plain("mlp"), example_input=x, sigma=0.2, seed=3)
    net = ZOO["pixels"](plain("mlp"), example_input=x, init=0.2, per=per, seed=3)
    weights, levels = split_parameters(net)
    assert [tuple(level.shape) for level in levels] == [shape]
    assert len(weights) == 4
    with stream(fixed, seed=1, samples=ids, step=0), stream(net, seed=1, samples=ids, step=0):
        torch.testing.assert_close(net(x), fixed(x))
        net(x).square().sum().backward()
    assert levels[0].grad is not None
    assert bool((levels[0].grad != 0).any())


@pytest.mark.parametrize("kind", ["smoothing", "pixels"])
def test_without_noise_in_front_it_is_ones_own_model_again(kind: str) -> None:
    model = plain("cnn")
    back = remove(noisy(kind, "cnn"))
    assert type(back) is type(model)
    assert list(back.state_dict()) == list(model.state_dict())
    again = ZOO[kind](back, example_input=images(2))
    assert list(again.state_dict()) == list(noisy(kind, "cnn").state_dict())


def test_tokens_of_a_sample_share_its_weights() -> None:
    torch.manual_seed(0)
    net = ZOO["pni"](nn.Linear(5, 3), example_input=torch.rand(2, 4, 5), alpha=1.0)
    x = torch.rand(2, 4, 5)
    with stream(net, seed=1, samples=torch.arange(2), step=torch.tensor([0, 1])):
        tokens = net(x)
    with stream(net, seed=1, samples=torch.arange(2), step=torch.tensor([0, 1])):
        torch.testing.assert_close(net(x.flatten(0, 1)).view(2, 4, 3), tokens)
    assert net(torch.rand(5)).shape == (3,)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("rse", {"first": -1}, "first must be"),
        ("rse", {"where": "conv"}, "at least one"),
        ("smoothing", {"sigma": float("nan")}, "sigma must be"),
        ("pixels", {"init": 0}, "init must be a finite number above 0"),
        ("pixels", {"per": "row"}, "per must be one of"),
        ("pni", {"alpha": "much"}, "alpha must be"),
        ("wca", {"rank": 8}, "below 8"),
        ("learn2perturb", {"init": -0.1}, "init must be"),
        ("learn2perturb", {"init": 0}, "init must be a finite number above 0"),
        ("wca", {"init": 0.0}, "init must be a finite number above 0"),
    ],
)
def test_options_out_of_range_are_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        noisy(kind, **options)


def test_weight_noise_goes_on_no_transposed_convolution() -> None:
    with pytest.raises(UserError, match="ConvTranspose2d"):
        ZOO["pni"](nn.Sequential(nn.ConvTranspose2d(1, 2, 3)), example_input=torch.rand(1, 1, 4, 4))


@every
def test_a_copy_is_on_its_own(kind: str) -> None:
    net = noisy(kind)
    other = copy.deepcopy(net)
    before = {name: s.detach().clone() for name, s in sigmas(net).items()}
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(3)
    assert all(torch.equal(s, before[name]) for name, s in sigmas(net).items())
    if kind == "pni":
        assert all(bool((s > 8.9 * before[name]).all()) for name, s in sigmas(other).items())
    fresh = noisy(kind)
    fresh.load_state_dict(net.state_dict())
    with stream(net, seed=1, samples=torch.arange(6)), stream(fresh, seed=1, samples=torch.arange(6)):
        assert torch.equal(net(images()), fresh(images()))
