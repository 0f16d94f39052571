from __future__ import annotations

from collections.abc import Callable

from noiseopt.experiments import gallery
from noiseopt.experiments.recipe import Recipe, bundled, load
from tests.experiments.test_cells import dataset


def test_each_perturbation_is_shown_once_corruptions_at_their_middle() -> None:
    assert list(gallery._perturbations(load(bundled()["demo"]))) == [
        "clean",
        "FGSM",
        "L-BFGS",
        "PGD",
        "FGSM (strict)",
        "L-BFGS (strict)",
        "PGD (strict)",
        "gaussian noise 3",
        "impulse noise 3",
        "glass blur 3",
        "contrast 3",
        "transfer FGSM",
        "transfer L-BFGS",
        "transfer L-BFGS (strict)",
    ]


def test_attacks_are_crafted_on_the_learned_row(changed: Callable[..., Recipe]) -> None:
    assert gallery._attacked(changed()) == "MLPN"
    assert gallery._attacked(changed(("sigma: learned, init: 0.5", "sigma: 2"), ("label: MLPN", "label: X"))) == "X"
    plain = changed(("noise: {sigma: 1.0}", "noise: null"), ("noise: {sigma: learned, init: 0.5}", "noise: null"))
    assert gallery._attacked(plain) == "MLPN"


def test_the_images_are_of_different_classes() -> None:
    data = dataset()
    chosen = gallery._different(data)
    assert len(set(chosen)) == gallery.IMAGES
    assert set(data.labels[chosen].tolist()) == {0, 1, 2}
    assert gallery._different(data.span(0, 3)) == [0, 1, 2]
