"""The expected gradient: right, over the draws it says, and without a trace in the model."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as torch_cross_entropy

from noiseopt.attacks import cross_entropy, expected_gradient, expected_loss
from noiseopt.errors import UserError
from noiseopt.noise import draw_logits, inject, noise
from noiseopt.noise.streaming import streams_of

MANY = torch.arange(100, 112)


def test_cross_entropy_is_torchs() -> None:
    logits = (5 * torch.randn(50, 7, dtype=torch.float64)).requires_grad_()
    labels = torch.arange(50) % 7
    ours, theirs = cross_entropy(logits, labels), torch_cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours.sum(), logits), torch.autograd.grad(theirs.sum(), logits), rtol=1e-9, atol=1e-12
    )


def test_cross_entropy_keeps_its_digits_where_the_model_is_sure() -> None:
    logits = torch.tensor([[30.0, 0.0, -1.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    others = torch.tensor([0.0, -1.0], dtype=torch.float64).sub(30).exp()
    torch.testing.assert_close(loss.double(), others.sum()[None], rtol=1e-6, atol=0)
    expected = torch.cat([-others.sum()[None], others])[None]
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-6, atol=0)
    assert torch_cross_entropy(logits, torch.tensor([0])) == 0, "or this test shows nothing"


@pytest.mark.parametrize("draws", [1, 4])
def test_half_precision_inside_hides_no_gradient(images: Tensor, draws: int) -> None:
    class Halved(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.half()).float()

    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 8), nn.Tanh(), nn.Linear(8, 4))
    example = images.float()
    with torch.no_grad():
        labels = net(example).argmax(1)
        net[3].weight *= 200  # type: ignore[operator]  # so sure that 1 - p_y is below what half precision has
        net[3].bias *= 200  # type: ignore[operator]
        net.half().float()
    half = Halved(copy.deepcopy(net).half())
    if draws > 1:
        half, net = (inject(m, example_input=example, where=[n], sigma=0.01) for m, n in ((half, "net.3"), (net, "3")))
    about = {"draws": draws, "seed": 0}
    full, found = (expected_loss(m.eval(), example, labels, **about).gradient for m in (net, half))  # type: ignore[arg-type]
    assert (full.flatten(1).abs().amax(1) < 6e-8).any(), "the test is of such images"
    assert (found.flatten(1) != 0).any(1).all()
    large = full.abs() > 0.2 * full.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    assert torch.equal(found.sign()[large], full.sign()[large])


def test_images_that_see_one_another_have_the_whole_gradient() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8, track_running_stats=False)  # of the batch, in eval mode too
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), norm, nn.ReLU(), nn.Linear(8, 4)).eval()
    images = torch.rand(8, 1, 4, 4)
    with torch.no_grad():
        net[4].weight *= 20  # type: ignore[operator]
        labels = net(images).argmax(1)
    labels[0] = (labels[0] + 1) % 4  # one image is far from sure, the others are sure
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(torch_cross_entropy(net(leaf), labels, reduction="sum"), leaf)
    torch.testing.assert_close(expected_gradient(net, images, labels, draws=1, seed=0), expected)


def test_gradient_of_a_plain_model_is_autograds(mlp: nn.Module, images: Tensor, labels: Tensor) -> None:
    leaf = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(torch_cross_entropy(mlp(leaf), labels, reduction="sum"), leaf)
    torch.testing.assert_close(expected_gradient(mlp, images, labels, draws=3, seed=1), expected)


def test_gradient_of_k_draws_is_the_mean_of_k_gradients(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    of = partial(expected_gradient, noisy, images, labels, seed=3, samples=MANY)
    single = [of(draws=1, first_draw=10 + k) for k in range(6)]
    assert not torch.allclose(single[0], single[1], rtol=1e-3), "the draws must differ"
    torch.testing.assert_close(of(draws=6, first_draw=10), torch.stack(single).mean(dim=0))


def test_the_mean_is_of_the_loss_and_of_the_probabilities(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    seen = expected_loss(noisy, images, labels, draws=5, seed=3, samples=MANY)
    with torch.no_grad():
        logits = torch.cat(list(draw_logits(noisy, images, draws=5, seed=3, samples=MANY)))
    torch.testing.assert_close(seen.probabilities, logits.softmax(-1).mean(0))
    losses = torch_cross_entropy(logits.flatten(0, 1), labels.repeat(5), reduction="none")
    torch.testing.assert_close(seen.loss, losses.view(5, -1).mean(0))
    assert torch.equal(seen.fooled(labels), logits.softmax(-1).mean(0).argmax(1) != labels)


def test_chunks_do_not_matter(
    noisy: nn.Module, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = expected_loss(noisy, images, labels, draws=7, seed=0)
    chunks: list[int] = []

    def one_at_a_time(*args: object, **settings: object) -> object:
        for logits in draw_logits(*args, **settings, memory=1):  # type: ignore[arg-type]
            chunks.append(len(logits))
            yield logits

    monkeypatch.setattr("noiseopt.attacks.gradient.draw_logits", one_at_a_time)
    parts = expected_loss(noisy, images, labels, draws=7, seed=0)
    assert chunks == [1] * 7
    torch.testing.assert_close(parts.gradient, whole.gradient)
    torch.testing.assert_close(parts.loss, whole.loss)


def test_an_image_has_the_same_gradient_in_any_batch(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    of = partial(expected_gradient, noisy, draws=4, seed=5)
    whole = of(images, labels, samples=MANY)
    order = torch.tensor([7, 2, 9])
    torch.testing.assert_close(of(images[order], labels[order], samples=MANY[order]), whole[order])


def test_the_model_is_left_as_it_was(noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    weights = list(noisy.parameters())
    weights[0].requires_grad_(False)
    weights[1].grad = torch.ones_like(weights[1])
    asks = [weight.requires_grad for weight in weights]
    state = copy.deepcopy(noisy.state_dict())
    with noise(noisy, on=False):
        noisy.train()
        expected_gradient(noisy, images, labels, draws=3, seed=0)
        assert noisy.training
        assert not any(stream.on for stream in streams_of(noisy))
    assert [weight.requires_grad for weight in weights] == asks
    assert all(torch.equal(state[name], tensor) for name, tensor in noisy.state_dict().items())
    assert torch.equal(weights[1].grad, torch.ones_like(weights[1]))
    assert all(weight.grad is None for weight in weights if weight is not weights[1])


def test_the_model_is_left_as_it_was_by_an_exception(images: Tensor, labels: Tensor) -> None:
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            assert not self.weight.requires_grad, "weights are frozen meanwhile"
            raise RuntimeError("broken")

    model = nn.Sequential(nn.Flatten(), Broken(36, 4))
    with pytest.raises(RuntimeError, match="broken"):
        expected_gradient(model, images, labels, draws=1, seed=0)
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(mode: type, noisy: nn.Module, images: Tensor, labels: Tensor) -> None:
    expected = expected_gradient(noisy, images, labels, draws=2, seed=0, samples=MANY)
    with mode():
        inside = expected_gradient(noisy, images.clone(), labels.clone(), draws=2, seed=0, samples=MANY.clone())
    torch.testing.assert_close(inside, expected)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1)[:, :4]


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.exp().expand(len(x), 4) + 0 * torch.ones(len(x), 1, requires_grad=True)


class Root(nn.Module):
    """A gradient of infinity times 0 at every pixel that is 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (0 * x.flatten(1)[:, :8].sqrt()).view(len(x), 4, 2).sum(dim=2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Detached(), "differentiable"),
        (Constant(), "differentiable"),
        (Root(), "NaN"),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 1).double()), "classes ≥ 2"),
        (nn.Sequential(nn.Flatten(), nn.Linear(36, 2).double()), "labels must be classes"),
    ],
)
def test_errors_tell_the_fix(model: nn.Module, message: str, images: Tensor) -> None:
    labels = torch.arange(12) % 4
    with pytest.raises(UserError, match=message) as error:
        expected_gradient(model, images, labels, draws=1, seed=0)
    assert "fix: " in str(error.value)
