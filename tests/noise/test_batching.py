"""Whose noise is whose: layers that see the batch in another dimension, in another order, or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.evaluate import predict
from noiseopt.noise import ZOO, inject, noise, remove, sigmas, stream


class SequenceFirst(nn.Module):
    """torch's own transformer layer as it is by default: [length, batch, features]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(12, 8), nn.Linear(8, 5)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.block(self.embed(x.squeeze(1)).transpose(0, 1)).mean(0)
        scores: Tensor = self.head(features)
        return scores


class Prototypes(nn.Module):
    """A layer that is given a table of its own, and never the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 7))
        self.proj, self.fc = nn.Linear(7, 8), nn.Linear(144, 8)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.fc(x.flatten(1))
        return features @ self.proj(self.table).T


class Augmenting(nn.Module):
    """Both views of all images in one batch: first all images, then all mirrored ones."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        views = self.fc(torch.cat([x, x.flip(-1)]).flatten(1))
        return views[: len(x)] + views[len(x) :]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def in_batches_of(net: nn.Module, images: Tensor, size: int) -> Tensor:
    ids = torch.arange(len(images))
    pairs = zip(images.split(size), ids.split(size), strict=True)
    return torch.cat([predict(net, part, draws=3, samples=names) for part, names in pairs])


@pytest.mark.filterwarnings("ignore:no noise on")
@pytest.mark.parametrize("build", [inject, ZOO["rse"]])
def test_a_batch_in_the_second_dimension_is_followed(build: Callable[..., nn.Module], images: Tensor) -> None:
    net = build(SequenceFirst().eval(), example_input=images[:2], where="linear")
    whole = in_batches_of(net, images, len(images))
    for size in (1, 2, 5):
        torch.testing.assert_close(in_batches_of(net, images, size), whole)
    with noise(net, on=False):
        plain = net(images)
    assert (net(images) - plain).abs().min() > 0
    torch.testing.assert_close(remove(net)(images), plain)


@pytest.mark.filterwarnings("ignore:no noise on")
def test_a_batch_in_the_second_dimension_has_the_gradient_of_the_first(images: Tensor) -> None:
    """Every image alone, where the two cannot be told apart, and their sum."""
    net = inject(SequenceFirst().eval(), example_input=images[:2], init=0.5)
    level = sigmas(net)["block.linear1"]
    ids = torch.arange(len(images))
    with stream(net, seed=3, samples=ids):
        (together,) = torch.autograd.grad(net(images).square().sum(), level)
    alone = torch.zeros_like(level)
    for i in range(len(images)):
        with stream(net, seed=3, samples=ids[i : i + 1]):
            alone += torch.autograd.grad(net(images[i : i + 1]).square().sum(), level)[0]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert "batch in dimension 1" in repr(net.block.linear1)


def test_a_layer_that_never_sees_the_batch_is_left_out(images: Tensor) -> None:
    with pytest.warns(UserWarning, match="no noise on proj: what it returns does not grow with the batch"):
        net = inject(Prototypes(), example_input=images[:2]).eval()
    assert list(sigmas(net)) == ["fc"]
    for count in (4, 5, 6):  # 5 is the number of rows that `proj` is given, too
        assert predict(net, images[:count]).shape == (count, 5)
    for build in (inject, ZOO["pni"]):
        with pytest.raises(UserError, match="must grow with the batch; got 'proj'"):
            build(Prototypes(), example_input=images[:2], where=["proj"])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("build", [inject, ZOO["rse"], ZOO["wca"]])
def test_images_that_swap_their_noise_are_told(build: Callable[..., nn.Module], count: int, images: Tensor) -> None:
    options = {} if build is ZOO["wca"] else {"where": "linear"}
    with pytest.warns(UserWarning, match="depends on its place in the batch"):
        build(Augmenting(), example_input=images[:count], **options)


def test_nothing_is_told_where_nothing_is_wrong(convnet: nn.Module, images: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for build in (inject, *(ZOO[name] for name in ("pni", "rse", "wca", "learn2perturb", "pixels"))):
            build(convnet, example_input=images[:2])
        inject(convnet, example_input=images[:1], init=1e-6)
        inject(nn.Linear(144, 5), example_input=images[0].flatten())  # without a batch


class Recurrent(nn.Module):
    """torch's recurrent layer as it is by default: [length, batch, features] comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.lstm(x)[0][-1])
        return scores


class Padding(nn.Module):
    """The batch is filled up to eight inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.cat([x.flatten(1), x.new_zeros(8 - len(x), 144)])
        scores: Tensor = self.fc(whole)[: len(x)]
        return scores


@pytest.mark.filterwarnings("ignore:the noise of an image depends on its place")
@pytest.mark.parametrize(
    ("net", "shape", "names"),
    [
        (Recurrent(), (7, 2, 6), ["head"]),
        (nn.Sequential(nn.Linear(6, 4), nn.Flatten(0), nn.Linear(28, 3)), (7, 6), ["0", "2"]),  # one sample: a set
        (Padding(), (2, 1, 12, 12), ["fc"]),
    ],
)
def test_an_example_whose_batch_cannot_be_told_keeps_all_its_noise(
    net: nn.Module, shape: tuple[int, ...], names: list[str]
) -> None:
    example = torch.rand(shape)
    for where in ("all", names):
        assert list(sigmas(inject(net, example_input=example, where=where))) == names


def test_noise_that_leaves_no_numbers_is_not_told_to_swap(images: Tensor) -> None:
    class Logarithmic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(144, 5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.log(1.5 + 0.2 * self.fc(x.flatten(1)))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inject(Logarithmic(), example_input=images[:2], sigma=200.0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_noise_is_not_drawn_again_in_the_backward_pass(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = torch.utils.checkpoint.checkpoint(self.first, x, use_reentrant=reentrant)
            out: Tensor = self.last(hidden.relu())
            return out

    x = torch.ones(4, 8, requires_grad=True)
    net = inject(Checkpointed(), example_input=x[:2])
    with pytest.raises(UserError, match=r"in the forward pass alone.*checkpoint"):
        net(x).sum().backward()
    inject(Checkpointed(), example_input=x[:2], where=["last"])(x).sum().backward()
    if not reentrant:  # which the compiler does not take
        with pytest.raises(UserError, match=r"in the forward pass alone"):
            torch.compile(net, backend="aot_eager", fullgraph=True)(x).sum().backward()
