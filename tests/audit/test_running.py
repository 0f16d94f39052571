"""The audit as a whole: what it finds, what it lets pass, and that it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noiseopt import UserError, evaluate, predict
from noiseopt.attacks import PGD
from noiseopt.audit import Auditing, Verdict, audit, running
from noiseopt.data import Dataset
from noiseopt.noise import noise, remove


def found(verdict: Verdict) -> set[str]:
    return {check.name for check in verdict.findings if check.masking}


@pytest.fixture(scope="module")
def verdicts(plain: nn.Module, noisy: nn.Module, test_images: Dataset) -> dict[str, Verdict]:
    from tests.audit.conftest import SMALL

    settings = Auditing(eps=0.06, **SMALL)
    return {"plain": audit(plain, test_images, settings), "noisy": audit(noisy, test_images, settings)}


@pytest.mark.parametrize("name", ["plain", "noisy"])
def test_an_honest_model_passes(verdicts: dict[str, Verdict], name: str) -> None:
    verdict = verdicts[name]
    assert not verdict.masked, verdict.findings
    assert 0.1 < verdict.accuracy.value < verdict.clean.value - 0.1
    assert verdict.accuracy.low < verdict.accuracy.value < verdict.accuracy.high


def test_without_its_noise_a_model_is_audited_as_its_weights_are(noisy: nn.Module, test_images: Dataset) -> None:
    from tests.audit.conftest import SMALL

    settings = Auditing(eps=0.06, **SMALL)
    off, plain = audit(noisy, test_images, settings, noise=False), audit(remove(noisy), test_images, settings)
    assert (off.noise_off, off.noisy) == (True, False)
    assert (plain.noise_off, plain.noisy) == (False, False)
    assert off.accuracy == plain.accuracy
    assert [replace(line, seconds=0) for line in off.lines] == [replace(line, seconds=0) for line in plain.lines]
    assert not audit(remove(noisy), test_images, settings, noise=False).noise_off, "it had none"


def test_it_is_as_strict_as_its_strictest_attack(
    verdicts: dict[str, Verdict], noisy: nn.Module, test_images: Dataset
) -> None:
    verdict = verdicts["noisy"]
    one = evaluate(noisy, test_images, PGD(eps=0.06, step_size=0.006, steps=20, draws=12), draws=30)
    assert verdict.accuracy.value <= one.value + 1e-9
    left = [line.left for line in verdict.lines if line.left is not None]
    assert left == sorted(left, reverse=True)
    assert left[-1] == round(verdict.accuracy.value * len(test_images))
    assert sum(line.fell for line in verdict.lines if line.key == "clean") == len(test_images) - left[0]


@pytest.mark.parametrize(
    ("name", "checks"),
    [
        ("scaled logits", {"vanishing", "large-radius"}),
        ("detached noise", {"gradient"}),
        ("misleading noise", {"slope", "noise-off"}),
        ("one draw", {"draws"}),
        ("own noise", {"randomness"}),
    ],
)
def test_it_finds_what_hides_the_gradient(
    masked: Callable[[str], nn.Module], name: str, checks: set[str], small: Auditing, test_images: Dataset
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        verdict = audit(masked(name), test_images, small)
    assert verdict.masked
    assert checks <= found(verdict)


def test_masking_does_not_raise_the_verdict(
    plain: nn.Module, masked: Callable[[str], nn.Module], small: Auditing, test_images: Dataset
) -> None:
    # What hides the gradient from PGD hides nothing from all that is tried; and the black box sees it.
    small, scaled = replace(small, eps=0.08, subset=80), masked("scaled logits")
    honest, verdict = audit(plain, test_images, small), audit(scaled, test_images, small)
    assert verdict.accuracy.value <= honest.accuracy.value + 0.03
    attacked = evaluate(scaled, test_images, PGD(eps=0.08, step_size=0.008, steps=20))
    assert attacked.value > honest.accuracy.value + 0.15
    assert "black-box" in found(verdict) - found(honest)


@pytest.mark.parametrize("name", ["plain", "noisy"])
def test_the_batch_does_not_matter(
    verdicts: dict[str, Verdict], name: str, small: Auditing, test_images: Dataset, request: pytest.FixtureRequest
) -> None:
    again = audit(request.getfixturevalue(name), test_images, small, batch_size=33)
    assert told(again) == told(verdicts[name])


def told(verdict: Verdict) -> Any:
    """What a verdict says, without how long it took."""
    said = verdict.as_dict()
    said["attacks"] = [{**line, "seconds": 0} for line in said["attacks"]]
    return json.loads(json.dumps(said))


def test_stopped_anywhere_it_goes_on_and_says_the_same(
    noisy: nn.Module, small: Auditing, test_images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, images = replace(small, queries=5, subset=20), test_images.span(0, 40)
    whole = audit(noisy, images, small)
    asked: list[int] = []
    counted = running.vote

    def count(model: nn.Module, images: Tensor, *rest: Any, **options: Any) -> Any:
        asked.append(len(images))
        if len(asked) in stops:
            raise KeyboardInterrupt
        return counted(model, images, *rest, **options)

    monkeypatch.setattr(running, "vote", count)
    stops = {2, 9, 25}
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            audit(noisy, images, small, folder=tmp_path, batch_size=10)
    (journal,) = tmp_path.glob("*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-7])  # killed in the middle of a line
    resumed = audit(noisy, images, small, folder=tmp_path, batch_size=17)
    assert told(resumed) == told(whole)
    stops, before = set(), len(asked)
    assert told(audit(noisy, images, small, folder=tmp_path)) == told(whole)
    assert len(asked) == before, "nothing is attacked a second time"


def test_other_settings_and_other_weights_start_afresh(
    plain: nn.Module, noisy: nn.Module, small: Auditing, test_images: Dataset, tmp_path: Path
) -> None:
    small, images = replace(small, queries=2, steps=2, apgd_steps=2, subset=4), test_images.span(0, 8)
    for model, settings in ((plain, small), (noisy, small), (plain, replace(small, eps=0.1)), (plain, small)):
        audit(model, images, settings, folder=tmp_path)
    assert len(list(tmp_path.glob("*.jsonl"))) == 3


def test_the_model_is_left_as_it_was(noisy: nn.Module, small: Auditing, test_images: Dataset) -> None:
    small, images = replace(small, queries=2, steps=2, apgd_steps=2, subset=4), test_images.span(0, 8)
    noisy.train()
    with noise(noisy, on=False):
        verdict = audit(noisy, images, small)
        assert verdict.noisy, "it looks at the model with its noise on"
    assert noisy.training
    noisy.eval()


def test_tensors_do_as_well_as_a_data_set(plain: nn.Module, small: Auditing, test_images: Dataset) -> None:
    small, images = replace(small, queries=2, steps=4, apgd_steps=4, subset=10), test_images.span(0, 20)
    expected = audit(plain, images, small)
    pixels, labels, _ = images.batch(torch.arange(20))
    for given in (pixels, images.images):
        found = audit(plain, (given, labels), small)
        assert found.clean.value == expected.clean.value
        assert abs(found.accuracy.value - expected.accuracy.value) <= 0.05  # other identities, other random starts


def test_the_clean_number_is_the_vote(verdicts: dict[str, Verdict], noisy: nn.Module, test_images: Dataset) -> None:
    images, labels, ids = test_images.batch(torch.arange(len(test_images)))
    mean = float((predict(noisy, images, draws=30, samples=ids).argmax(dim=1) == labels).float().mean())
    assert verdicts["noisy"].clean.value == pytest.approx(mean, abs=0.03)
    assert verdicts["noisy"].clean.draws == 30
    assert verdicts["plain"].clean.draws == 1


def test_records_say_what_was_measured(verdicts: dict[str, Verdict]) -> None:
    records = verdicts["noisy"].records
    assert {r.metric for r in records} == {"audited accuracy", "accuracy so far", "accuracy on the subset"}
    assert len({r.recipe for r in records}) == len(records)
    assert all(r.noise and r.protocol == "audit" and r.data_hash for r in records)
    far = [r for r in records if r.parameters.get("eps") == 0.5]
    assert [r.metric for r in far] == ["accuracy on the subset"]


def test_two_classes_have_no_logit_ratio(small: Auditing) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    images = torch.rand(10, 1, 6, 6)
    verdict = audit(model, (images, model(images).argmax(dim=1)), replace(small, queries=3, subset=5))
    assert {"apgd-ce", "square"} <= {line.key for line in verdict.lines}
    assert "apgd-dlr" not in {line.key for line in verdict.lines}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps must be a positive number"),
        ({"eps": 8}, "divide by 255"),
        ({"eps": 0.1, "draws": ()}, "draws must rise"),
        ({"eps": 0.1, "draws": (5, 1)}, "draws must rise"),
        ({"eps": 0.1, "queries": 0}, "queries must be an integer"),
        ({"eps": 0.1, "votes": 2.5}, "votes must be an integer"),
    ],
)
def test_wrong_settings_get_an_error_that_helps(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Auditing(**options)


def test_wrong_data_gets_an_error_that_helps(plain: nn.Module, small: Auditing, test_images: Dataset) -> None:
    with pytest.raises(UserError, match="at least one image"):
        audit(plain, test_images.span(0, 0), small)
    images, labels, _ = test_images.batch(torch.arange(4))
    with pytest.raises(UserError, match="classes"):
        audit(plain, (images, labels + 10), small)


def test_without_the_library_autoattack_is_an_error_that_helps(
    plain: nn.Module, small: Auditing, test_images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError, match=r'pip install "noiseopt\[audit\]"'):
        audit(plain, test_images, replace(small, autoattack=True))
