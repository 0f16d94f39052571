"""The low-pass filter is the paper's, and its noise is a noise layer like any other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from noiseopt.attacks import expected_gradient
from noiseopt.defences import Blur, low_pass
from noiseopt.errors import UserError
from noiseopt.models import build
from noiseopt.noise import draw_logits, has_noise, inject, noise, remove, seed, sigmas, split_parameters, stream

IMAGES = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(5)
IDS = torch.tensor([3, 90, 5, 6, 1])


def model() -> nn.Module:
    return build("lenet", seed=0).eval()


def draws(net: nn.Module, images: Tensor = IMAGES, samples: Tensor = IDS, **options: int) -> Tensor:
    with torch.no_grad():
        return torch.cat(list(draw_logits(net, images, draws=3, seed=7, samples=samples, **options)))


@pytest.mark.parametrize(
    ("kernel", "variance", "line"),
    [
        (7, 0.6, [5.531e-4, 3.5674e-2, 0.43460, 1.0]),  # e^-7.5, e^-3.333, e^-0.8333
        (5, 1.3, [3.1383e-2, 0.42085, 1.0]),
        (3, 7.0, [0.52582, 1.0]),
    ],
)
def test_the_papers_three_kernels(kernel: int, variance: float, line: list[float]) -> None:
    line = [*line, *reversed(line[:-1])]
    expected = torch.tensor(line).outer(torch.tensor(line))
    expected /= expected.sum()
    dot = torch.zeros(1, 2, 15, 15)
    dot[0, 1, 7, 7] = 1
    blurred = Blur(kernel, variance)(dot)
    assert not blurred[0, 0].any(), "channels do not mix"
    reach = kernel // 2
    middle = slice(7 - reach, 8 + reach)
    torch.testing.assert_close(blurred[0, 1, middle, middle], expected, rtol=1e-3, atol=1e-6)
    assert blurred.sum().item() == pytest.approx(1)


def test_a_blurred_image_stays_in_range_and_a_flat_one_as_it_is() -> None:
    blur = Blur(7, 0.6)
    flat = torch.full((2, 3, 4, 5), 0.7)
    torch.testing.assert_close(blur(flat), flat)
    blurred = blur(IMAGES.round())
    assert blurred.min() >= 0
    assert blurred.max() <= 1 + 1e-6
    assert blurred.std() < IMAGES.round().std()


def test_without_noise_it_is_the_model_on_blurred_images() -> None:
    net = low_pass(model(), kernel=5, variance=1.3)
    assert torch.equal(net(IMAGES), model()(Blur(5, 1.3)(IMAGES)))
    assert not has_noise(net)
    assert not sigmas(net)


def test_the_noise_is_normal_of_its_deviation_and_added_before_the_blur() -> None:
    identity = nn.Sequential(nn.Flatten())
    net = low_pass(identity, kernel=3, variance=7, noise=0.25).eval()
    with torch.no_grad():
        drawn = torch.cat(list(draw_logits(net, IMAGES, draws=200, seed=0))).view(200, 5, 28, 28)
    blur = Blur(3, 7)
    inner = (..., slice(1, -1), slice(1, -1))  # at the edge a pixel's noise comes back
    noise_part = (drawn - blur(IMAGES)[:, 0])[inner]
    line = blur.weights
    assert noise_part.mean().abs() < 0.003
    assert noise_part.std().item() == pytest.approx(0.25 * float(line.square().sum()), rel=0.01)
    # Neighbours share noise; images and draws do not.
    left, right = noise_part[..., :-1].flatten(), noise_part[..., 1:].flatten()
    assert torch.corrcoef(torch.stack([left, right]))[0, 1] > 0.5
    for one, other in ((noise_part[0, 0], noise_part[0, 1]), (noise_part[0, 0], noise_part[1, 0])):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].abs() < 0.2


def test_draws_differ_and_depend_on_the_sample_alone() -> None:
    net = low_pass(model(), noise=0.2)
    whole = draws(net)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)
    torch.testing.assert_close(draws(net, IMAGES[2:4], IDS[2:4]), whole[:, 2:4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(draws(net, memory=1), whole, rtol=1e-4, atol=1e-5)
    with noise(net, on=False):
        assert torch.equal(net(IMAGES), low_pass(model())(IMAGES))
        assert len(draws(net)) == 1
    with stream(net, seed=7, samples=IDS, step=1):
        torch.testing.assert_close(net(IMAGES), whole[1], rtol=1e-4, atol=1e-5)


def test_an_attack_averages_over_the_noise() -> None:
    net = low_pass(model(), noise=0.2)
    single = [expected_gradient(net, IMAGES, LABELS, draws=1, seed=0, samples=IDS, first_draw=k) for k in range(8)]
    assert not torch.allclose(single[0], single[1], rtol=1e-2)
    mean = expected_gradient(net, IMAGES, LABELS, draws=8, seed=0, samples=IDS)
    torch.testing.assert_close(mean, torch.stack(single).mean(0), rtol=1e-3, atol=1e-6)


def test_remove_takes_all_noise_out() -> None:
    net = low_pass(inject(model(), example_input=IMAGES[:1], sigma=0.4), noise=0.2)
    assert set(sigmas(net)) == {"low_pass", "model.conv1", "model.conv2", "model.full", "model.output"}
    assert split_parameters(net)[1] == [], "it is not learned"
    plain = remove(net)
    assert not has_noise(plain)
    assert torch.equal(plain(IMAGES), low_pass(model())(IMAGES))


def test_outside_a_stream_its_noise_and_the_models_start_from_the_seed() -> None:
    def outputs(start: int) -> Tensor:
        inner = inject(model(), example_input=IMAGES[:1], sigma=0.4, seed=0)
        return low_pass(inner, noise=0.2, seed=start)(IMAGES)

    assert torch.equal(outputs(4), outputs(4))
    assert not torch.allclose(outputs(4), outputs(5), atol=1e-2)
    net = low_pass(model(), noise=0.2, seed=4)
    first = net(IMAGES)
    assert not torch.equal(net(IMAGES), first)
    seed(net, 4)
    assert torch.equal(net(IMAGES), first)


def test_it_goes_where_the_model_is() -> None:
    net = low_pass(model().double(), noise=0.1)
    assert net(IMAGES.double()).dtype == torch.float64
    assert low_pass(model().train()).low_pass.training  # type: ignore[union-attr]
    half = low_pass(nn.Flatten(), noise=0.1).bfloat16()
    assert half(IMAGES.bfloat16()).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": 4}, "kernel must be an odd number"),
        ({"kernel": 1}, "kernel must be an odd number"),
        ({"kernel": 7.0}, "kernel must be an odd number"),
        ({"variance": 0}, "variance must be a positive number"),
        ({"variance": float("nan")}, "variance must be a positive number"),
        ({"noise": -0.1}, "noise must be a standard deviation"),
        ({"noise": "0.1"}, "noise must be a standard deviation"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        low_pass(model(), **options)  # type: ignore[arg-type]
