"""Where noise goes, how much of it, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise import inject, noise, sigmas, split_parameters, stream
from tests.noise.kinds import Residual, TransformerBlock


def test_where_selects(convnet: nn.Module, images: Tensor) -> None:
    def chosen(where: Any) -> list[str]:
        return list(sigmas(inject(convnet, example_input=images, where=where)))

    assert chosen("all") == ["0", "4", "6"]
    assert chosen("linear") == ["4", "6"]
    assert chosen("conv") == ["0"]
    assert chosen(["6", "0"]) == ["0", "6"]
    assert chosen(["[46]"]) == ["4", "6"]
    assert chosen(lambda name, m: isinstance(m, nn.Linear) and m.out_features == 5) == ["6"]


def test_last_convolution_of_each_block_by_pattern() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv2(self.conv1(x))

    net = nn.Sequential(nn.Sequential(Block(), Block()), Block())
    assert list(sigmas(inject(net, example_input=torch.rand(2, 3, 4, 4), where=["*.conv2"]))) == [
        "0.0.conv2",
        "0.1.conv2",
        "1.conv2",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"where": "dense"}, "where=['dense']"),
        ({"where": ["7"]}, "0 (Conv2d), 4 (Linear), 6 (Linear)"),
        ({"where": ["1"]}, "ReLU"),
        ({"where": []}, "at least one"),
        ({"where": lambda name, m: False}, "0 (Conv2d), 4 (Linear)"),
        ({"sigma": "learnt"}, "sigma='learned'"),
        ({"sigma": -1.0}, "at least 0"),
        ({"sigma": float("nan")}, "finite"),
        ({"sigma": [1.0, "much"]}, "finite"),
        ({"sigma": None}, "a number for each layer"),
        ({"init": "uniform"}, "published"),
        ({"init": float("inf")}, "finite"),
        ({"per": "pixel"}, "per='neuron'"),
    ],
)
def test_errors_say_rule_value_and_fix(convnet: nn.Module, images: Tensor, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        inject(convnet, example_input=images, **options)
    assert says in str(error.value)
    assert "fix:" in str(error.value)


def test_nothing_to_match_and_noise_twice_are_refused(convnet: nn.Module, images: Tensor) -> None:
    with pytest.raises(UserError, match="holds no Linear or convolution"):
        inject(nn.ReLU(), example_input=images)
    with pytest.raises(UserError, match="remove"):
        inject(inject(convnet, example_input=images), example_input=images)


def test_layers_that_are_never_called() -> None:
    """Attention uses out_proj's weights without calling it: "all" leaves it out and says so, by name it is an error."""
    with pytest.warns(UserWarning, match="out_proj"):
        inject(TransformerBlock(), example_input=torch.rand(2, 7, 8))
    with pytest.raises(UserError, match="must be called"):
        inject(TransformerBlock(), example_input=torch.rand(2, 7, 8), where=["block.self_attn.out_proj"])


def test_image_sizes_other_than_the_example(convnet: nn.Module) -> None:
    fully = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net = inject(fully, example_input=torch.rand(2, 1, 8, 8))
    with pytest.raises(UserError, match="per='channel'"):
        net(torch.rand(2, 1, 9, 9))
    for per, shape in (("channel", (4, 1, 1)), ("layer", (1, 1, 1))):
        net = inject(fully, example_input=torch.rand(2, 1, 8, 8), per=per)
        assert sigmas(net)["0"].shape == shape
        net(torch.rand(2, 1, 9, 9)).sum().backward()
        assert sigmas(net)["0"].grad.shape == shape  # type: ignore[union-attr]


def test_shared_sigma_has_the_summed_gradient(images: Tensor, convnet: nn.Module) -> None:
    whole, shared = (
        inject(convnet, example_input=images, where="conv", init=0.5, per=p) for p in ("neuron", "channel")
    )
    for net in (whole, shared):
        with stream(net, seed=1, samples=torch.arange(6)):
            net(images).square().sum().backward()
    expected = sigmas(whole)["0"].grad.sum((1, 2), keepdim=True)  # type: ignore[union-attr]
    torch.testing.assert_close(sigmas(shared)["0"].grad, expected)


def test_starts() -> None:
    wide = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 64, 2000))
    example = torch.rand(2, 1, 8, 8)
    published = sigmas(inject(wide, example_input=example, init="published"))
    assert published["2"].std().item() == pytest.approx(1, abs=0.1)
    # Xavier-normal of [64, 8, 8]: fan in 8·8, fan out 64·8.
    assert published["0"].std().item() == pytest.approx((2 / (64 + 512)) ** 0.5, rel=0.1)
    normal = sigmas(inject(wide, example_input=example, init="normal"))
    assert normal["0"].std().item() == pytest.approx(1, abs=0.1)
    fixed = inject(wide, example_input=example, sigma=1.0)
    assert (sigmas(fixed)["0"] == 1).all()
    assert split_parameters(fixed)[1] == []
    one, two = (sigmas(inject(wide, example_input=example, seed=s))["0"] for s in (1, 2))
    assert not torch.equal(one, two)


def test_learned_mean_is_a_weight(convnet: nn.Module, images: Tensor) -> None:
    net = inject(convnet, example_input=images, mean=True)
    weights, learned = split_parameters(net)
    assert len(learned) == 3
    assert len(weights) == len(list(convnet.parameters())) + 3
    net(images).sum().backward()
    assert all(p.grad is not None for p in weights)


def test_single_samples_and_extra_dimensions() -> None:
    net = inject(nn.Linear(4, 3), example_input=torch.rand(2, 4), init=1.0)
    for shape in ((4,), (1, 4), (5, 4), (5, 7, 4), (2, 5, 7, 4)):
        x = torch.zeros(shape)
        with noise(net, on=False):
            plain = net(x)
        added = net(x) - plain
        assert added.shape == (*shape[:-1], 3)
        assert len(added.unique()) > 0.9 * added.numel()  # an own draw everywhere


def test_global_random_state_and_batch_statistics_are_left_alone() -> None:
    model = Residual()
    before = model.norm.running_mean.clone()  # type: ignore[union-attr]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    net = inject(model, example_input=torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(net.norm.running_mean, before)  # type: ignore[union-attr,arg-type]


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 5), features=st.integers(1, 70), inner=st.integers(1, 4))
def test_any_shape(batch: int, features: int, inner: int) -> None:
    net = inject(nn.Linear(2, features), example_input=torch.rand(1, 2), init=0.5)
    x = torch.rand(batch, inner, 2)
    with stream(net, seed=0, samples=torch.arange(batch)):
        whole = net(x)
    for b in range(batch):
        with stream(net, seed=0, samples=torch.tensor([b])):
            torch.testing.assert_close(net(x[b : b + 1]), whole[b : b + 1], rtol=1e-5, atol=1e-6)


# One number for each layer -------------------------------------------------------------------------------------------


def levels(net: nn.Module) -> dict[str, float]:
    return {name: s.flatten()[0].item() for name, s in sigmas(net).items()}


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        ([3, 1, 0], {"0": 3.0, "4": 1.0}),
        ((0, 0.5, 2), {"4": 0.5, "6": 2.0}),
        ({"4": 2, "*": 1}, {"0": 1.0, "4": 2.0, "6": 1.0}),
        ({"6": 0.5}, {"6": 0.5}),
        ({"[04]": 1, "4": 0}, {"0": 1.0}),
    ],
)
def test_a_layer_has_the_sigma_that_it_was_given(
    convnet: nn.Module, images: Tensor, sigma: Any, expected: dict[str, float]
) -> None:
    net = inject(convnet, example_input=images, sigma=sigma)
    assert levels(net) == expected
    one = inject(convnet, example_input=images, sigma=1.0, seed=3)
    each = inject(convnet, example_input=images, sigma=[1, 1, 1], seed=3)
    assert torch.equal(one(images), each(images))


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        ([3, 1], "one for each of: 0, 4, 6"),
        ({"5": 1}, "choose from: 0, 4, 6"),
        ([0, 0, 0], "above 0 in some layer"),
        ([1, -1, 1], "at least 0"),
        ({"[04]": 1, "[46]": 2}, "agree about a layer"),
    ],
)
def test_numbers_that_fit_no_layers_are_refused(convnet: nn.Module, images: Tensor, sigma: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        inject(convnet, example_input=images, sigma=sigma)


@pytest.mark.parametrize("sigma", ["learned", 0.7])
@pytest.mark.parametrize(
    ("per", "shapes"),
    [
        ("neuron", [(4, 12, 12), (10,), (5,)]),
        ("channel", [(4, 1, 1), (10,), (5,)]),
        ("layer", [(1, 1, 1), (1,), (1,)]),
    ],
)
def test_what_shares_a_sigma_is_per(
    convnet: nn.Module, images: Tensor, sigma: Any, per: str, shapes: list[tuple[int, ...]]
) -> None:
    net = inject(convnet, example_input=images, sigma=sigma, init=0.7, per=per, seed=2)
    assert [tuple(s.shape) for s in sigmas(net).values()] == shapes
    free = inject(convnet, example_input=images, sigma=sigma, init=0.7, per="neuron", seed=2)
    torch.testing.assert_close(net(images), free(images))  # the same noise, whoever shares its σ
    if sigma == "learned":
        for one in (net, free):
            with stream(one, seed=1, samples=torch.arange(len(images))):
                one(images).square().sum().backward()
        for shared, own in zip(sigmas(net).values(), sigmas(free).values(), strict=True):
            assert shared.grad is not None
            assert own.grad is not None
            torch.testing.assert_close(shared.grad, own.grad.sum_to_size(shared.shape), rtol=1e-3, atol=1e-4)


def test_a_layer_with_something_named_noise_keeps_it(images: Tensor) -> None:
    class Dropping(nn.Linear):
        def __init__(self) -> None:
            super().__init__(144, 5)
            self.noise = nn.Dropout(0.9)

    net = nn.Sequential(nn.Flatten(), Dropping())
    with pytest.raises(UserError, match="no 'noise' of its own; got a Dropping"):
        inject(net, example_input=images)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (0, "must not start at 0"),
        (torch.tensor(0.0), "must not start at 0"),
        (1e-60, "must not start at 0"),
        (None, "a finite number, or a word; got None"),
        (float("nan"), "a finite number, or a word; got nan"),
    ],
)
def test_a_learned_sigma_starts_where_it_has_a_gradient(
    convnet: nn.Module, images: Tensor, init: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        inject(convnet, example_input=images, init=init)
    assert inject(convnet, example_input=images, init=torch.tensor(0.5))[0].noise.sigma.mean() == 0.5  # type: ignore


def test_an_example_that_the_model_does_not_take_is_told(convnet: nn.Module, images: Tensor) -> None:
    with pytest.raises(UserError, match=r"the model must take example_input; got RuntimeError: .*channels"):
        inject(convnet, example_input=images.repeat(1, 3, 1, 1))


def test_what_a_global_hook_keeps_stays_as_it_was(images: Tensor) -> None:
    net = inject(nn.Sequential(nn.Flatten(), nn.Linear(144, 5)), example_input=images, sigma=1.0)
    kept: list[Tensor] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: kept.append(output) if isinstance(module, nn.Linear) else None
    )
    try:
        net(images)
    finally:
        handle.remove()
    assert isinstance(net[1], nn.Linear)
    torch.testing.assert_close(kept[0], nn.functional.linear(images.flatten(1), net[1].weight, net[1].bias))


def test_a_block_is_no_layer_and_what_is_in_it_is_suggested(images: Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(144, 5), nn.ReLU()))
    with pytest.raises(UserError, match=r"noise goes on Linear.*'1', a Sequential; fix: choose those in it, '1\.\*'"):
        inject(net, example_input=images, where=["1"])
    assert list(sigmas(inject(net, example_input=images, where=["1.*"]))) == ["1.0"]
    with pytest.raises(UserError, match=r"'1\.1', a ReLU; fix: choose layers of these kinds"):
        inject(net, example_input=images, where=["1.1"])
