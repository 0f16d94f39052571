"""Evaluation: stated noise, K-draw mean prediction, an interval, and numbers that do not depend on batches."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from noiseopt.concepts import Record, clean, wilson_interval
from noiseopt.data import Dataset
from noiseopt.errors import UserError
from noiseopt.evaluate import describe, evaluate, predict
from noiseopt.noise import draw_logits, has_noise


@pytest.mark.parametrize("batch_size", [1, 7, 128, 1000])
def test_predictions_do_not_depend_on_the_batch(net: nn.Module, data: Dataset, batch_size: int) -> None:
    net.eval()
    images = data.images.float() / 255
    whole = predict(net, images, draws=5, seed=2, samples=data.ids)
    parts = [
        predict(net, i, draws=5, seed=2, samples=s)
        for i, s in zip(images.split(batch_size), data.ids.split(batch_size), strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat(parts).argmax(1), whole.argmax(1))
    assert evaluate(net, data, draws=5, batch_size=batch_size, seed=2) == evaluate(net, data, draws=5, seed=2)


_PREDICT = """
import sys, torch
from torch import nn
from noiseopt.evaluate import predict
from noiseopt.noise import inject
torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
net = inject(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)),
             example_input=torch.rand(2, 1, 8, 8), init=0.3)
images = torch.rand(400, 1, 8, 8)
first, last = int(sys.argv[2]), int(sys.argv[3])
out = predict(net, images[first:last], draws=3, samples=torch.arange(first, last))
torch.save(out, sys.argv[4])
"""


def test_predictions_do_not_depend_on_threads_or_processes(tmp_path: object) -> None:
    results = []
    for number, (threads, first, last) in enumerate([(1, 0, 400), (2, 0, 400), (2, 0, 150), (1, 150, 400)]):
        path = f"{tmp_path}/{number}.pt"
        subprocess.run(
            [sys.executable, "-c", _PREDICT, str(threads), str(first), str(last), path],
            check=True,
            env=dict(os.environ),
        )
        results.append(torch.load(path, weights_only=True))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.cat(results[2:]), results[0], rtol=1e-5, atol=1e-5)


def test_prediction_is_the_mean_of_the_draws(net: nn.Module) -> None:
    images = torch.rand(5, 1, 8, 8)
    net.eval()
    draws = torch.cat(list(draw_logits(net, images, draws=9, seed=4)))
    torch.testing.assert_close(predict(net, images, draws=9, seed=4), draws.softmax(-1).mean(0))


def test_noise_is_as_stated_for_attack_and_prediction(net: nn.Module, data: Dataset) -> None:
    seen = []

    def watching(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        seen.append((has_noise(model), model.training))
        return images

    net.train()
    on = evaluate(net, data, watching, draws=3)
    off = evaluate(net, data, watching, draws=3, noise=False)
    assert seen == [(True, False), (False, False)]
    assert (on.noise, on.draws) == (True, 3)
    assert (off.noise, off.draws) == (False, 1)
    assert net.training  # as it was
    assert has_noise(net)
    assert on.value != off.value


def test_a_plain_model_is_never_called_noisy(data: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    record = evaluate(model, data)
    assert (record.noise, record.draws, record.count, record.data) == (False, 1, 300, "random")
    images = data.images.float() / 255
    correct = (model(images).argmax(1) == data.labels).sum().item()
    assert record.value == correct / 300
    assert (record.low, record.high) == wilson_interval(correct, 300)
    assert evaluate(model, (images, data.labels)).value == record.value
    assert evaluate(model, (data.images, data.labels)).value == record.value


def test_samples_reach_the_perturbation(net: nn.Module, data: Dataset) -> None:
    got = []

    def keyed(model: nn.Module, images: Tensor, labels: Tensor, *, samples: Tensor | None = None) -> Tensor:
        assert samples is not None
        got.append(samples)
        return images

    evaluate(net, data, keyed, batch_size=64, draws=1)
    assert torch.equal(torch.cat(got), data.ids)


def test_what_cannot_be_measured_is_refused(data: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(UserError, match="the model's classes, 0 to 2; got 0 to 3"):
        evaluate(model, data)
    with pytest.raises(UserError, match="at least one image"):
        evaluate(model, (torch.rand(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(UserError, match="batch_size must be"):
        evaluate(model, data, batch_size=0)
    with pytest.raises(UserError, match="at least one image"):
        predict(model, torch.rand(0, 1, 8, 8))
    with pytest.raises(UserError, match="one tensor of their shape"):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), data, lambda m, x, y: x[:, :, :4])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(4, 1, 8, 8), torch.tensor([1]), "one for each image"),
        (torch.rand(4, 1, 8, 8), torch.tensor([[1]] * 4), "one for each image"),
        (torch.rand(4, 1, 8, 8), torch.tensor([1, 2, -1, 0]), "classes, 0 to 3; got -1 to 2"),
        (torch.rand(4, 1, 8, 8) * 255, torch.tensor([1, 2, 3, 0]), r"must be in \[0, 1\]"),
        (torch.full((4, 1, 8, 8), torch.nan), torch.tensor([1, 2, 3, 0]), r"must be in \[0, 1\]"),
    ],
)
def test_clean_images_are_held_to_the_rules_of_attacked_ones(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), (images, labels))


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (10, 10), (3, 10), (950, 1000), (1, 1)])
def test_wilson_interval_is_scipys(correct: int, count: int) -> None:
    expected = stats.binomtest(correct, count).proportion_ci(method="wilson")
    assert wilson_interval(correct, count) == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_descriptions() -> None:
    assert describe(clean) == ("clean", {})

    class Silent:
        def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
            return images

    assert describe(Silent()) == ("Silent", {})  # type: ignore[arg-type]


def test_a_record_is_one_json_line(data: Dataset) -> None:
    record = evaluate(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), data)
    line = record.model_dump_json()
    assert "\n" not in line
    assert Record.model_validate_json(line) == record
    with pytest.raises(ValueError):
        record.value = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("data", [[torch.rand(2, 1, 4, 4)], torch.rand(2, 1, 4, 4), ([[0.5]], [0]), iter(())])
def test_other_data_than_images_with_labels_are_refused(data: Any) -> None:
    with pytest.raises(UserError, match="two tensors, images and labels"):
        evaluate(nn.Flatten(), data)


def test_predictions_that_are_no_numbers_are_refused(net: nn.Module, data: Dataset) -> None:
    with torch.no_grad():
        net[-1].weight[0] = torch.nan  # type: ignore[union-attr, operator]
    for on in (True, False):
        with pytest.raises(UserError, match="must be finite; got NaN"):
            evaluate(net, data, noise=on, draws=2)
