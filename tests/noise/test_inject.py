"""Where noise goes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise import inject, noise, sigmas, stream
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


def test_a_layer_with_something_named_noise_keeps_it(images: Tensor) -> None:
    class Dropping(nn.Linear):
        def __init__(self) -> None:
            super().__init__(144, 5)
            self.noise = nn.Dropout(0.9)

    net = nn.Sequential(nn.Flatten(), Dropping())
    with pytest.raises(UserError, match="no 'noise' of its own; got a Dropping"):
        inject(net, example_input=images)


def test_an_example_that_the_model_does_not_take_is_told(convnet: nn.Module, images: Tensor) -> None:
    with pytest.raises(UserError, match=r"its example input, torch.float32 .*; got RuntimeError: .*channels"):
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
