"""Could the attacks see? Each check is a sentence; those that fail say why a robust accuracy is not to be believed.

Attacks are compared on the same images, the subset that all of them attacked whatever came before, by McNemar's exact
test: a difference is one where it is of 2 % of the images at least, and would come of chance once in a hundred times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from noiseopt.audit import steps
from noiseopt.audit.ledger import Ledger
from noiseopt.audit.probes import Slopes
from noiseopt.audit.settings import Auditing
from noiseopt.audit.steps import Kind, Step
from noiseopt.chances import clopper_pearson, sign_test

_CHANCE, _SHARE, _LEAST = 0.01, 0.02, 2
_LEFT = 0.02
"""Of the images may be left at a large radius, or be without a gradient, before that is a finding."""


@dataclass(frozen=True)
class Check:
    """One check and what it found. `masking`: would it mean that the model hides its gradient?"""

    name: str
    found: bool
    sentence: str
    masking: bool = True
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All that the checks look at."""

    settings: Auditing
    kind: Kind
    hidden_randomness: bool
    shared_draws: bool
    slopes: Slopes | None
    """None where there is no gradient."""
    ledger: Ledger
    subset: Tensor
    """`Bool[N]`."""
    made: dict[str, Step]

    @property
    def images(self) -> int:
        return int(self.subset.sum())

    def left(self, key: str) -> int:
        """Images of the subset that survive the attack; those that are wrong without one have not."""
        alive = self.ledger.asked(key) & ~self.ledger.fell(key) & self.subset
        return int(alive.sum())

    def compare(self, strong: str, weak: str) -> dict[str, Any] | None:
        """Does `weak` fool more than `strong`, which should be stronger? None where either was not made."""
        if strong not in self.made or weak not in self.made:
            return None
        asked = self.ledger.asked(strong) & self.ledger.asked(weak) & self.subset
        by_strong, by_weak = self.ledger.fell(strong) & asked, self.ledger.fell(weak) & asked
        more, fewer = int((by_weak & ~by_strong).sum()), int((by_strong & ~by_weak).sum())
        return {
            "strong": strong,
            "weak": weak,
            "left": [self.left(strong), self.left(weak)],
            "images": self.images,
            "more": more,
            "fewer": fewer,
            "p": sign_test(more, fewer),
        }


def is_difference(compared: dict[str, Any]) -> bool:
    """More than chance, and more than a few images?"""
    enough = compared["more"] - compared["fewer"] >= max(_LEAST, _SHARE * compared["images"])
    return bool(enough and compared["p"] <= _CHANCE)


def checks_of(evidence: Evidence) -> list[Check]:
    """Every check that can be made, those of the model first, then those of the attacks."""
    return [*_of_the_model(evidence), *_of_the_attacks(evidence)]


def _of_the_model(e: Evidence) -> Iterator[Check]:
    if e.kind.gradient:
        yield Check("gradient", False, "The loss has a gradient in the images.")
    else:
        rest = "with the noise off, and without gradients" if e.kind.gradient_off and e.kind.noisy else "without it"
        says = f"The model detaches its gradient, or is not differentiable: it was only attacked {rest}."
        yield Check("gradient", True, says)
    yield Check(
        "randomness",
        e.hidden_randomness,
        "Predictions change from call to call though the noise is the same: the model draws random numbers of its own, "
        "which no attack here could average over. Make them a noise layer."
        if e.hidden_randomness
        else "With the same noise, the model says the same.",
    )
    if e.kind.noisy:
        yield Check(
            "draws",
            e.shared_draws,
            "All draws of the noise are one and the same: a mean over many is a mean over one, for the attacks and for "
            "the verdict."
            if e.shared_draws
            else "Every draw of the noise is another.",
        )
    if e.slopes is not None and e.slopes.images:
        yield from _of_slopes(e.slopes)


def _of_slopes(found: Slopes) -> Iterator[Check]:
    numbers = {"images": found.images, "zero": found.zero, "true": found.true}
    low, _ = clopper_pearson(found.zero, found.images, level=0.98)
    says = f"The gradient is exactly 0 on {found.zero} of {found.images} images"
    tail = ": no attack by gradients can move them. Are the logits very large?" if low > _LEFT else "."
    yield Check("vanishing", low > _LEFT, f"{says}{tail}", numbers=numbers)
    if sloped := found.images - found.zero:
        _, high = clopper_pearson(found.true, sloped, level=0.98)
        wrong = high < 0.5 or (sloped <= 6 and found.true == 0)
        says = f"A small step changes the loss as the gradient says on {found.true} of {sloped} images"
        tail = ": it is the gradient of something else." if wrong else "."
        yield Check("slope", wrong, f"{says}{tail}", numbers=numbers)


def _of_the_attacks(e: Evidence) -> Iterator[Check]:
    ladder = steps.ladder(e.settings, e.kind)
    best = ladder[-1]
    many = steps.longer(e.settings)[-1]
    usual = f"pgd-{e.settings.usual}" if e.kind.noisy else "pgd-1"
    if len(ladder) > 1:
        yield from _weaker(e, "more-draws", best, ladder[0])
    yield from _weaker(e, "more-steps", usual, steps.ONE_STEP)
    if steps.FAR in e.made:
        yield _far(e)
    yield from _weaker(e, "black-box", best, steps.SQUARE)
    yield from _weaker(e, "noise-off", best, steps.NOISE_OFF)
    # Not masking, but the number is then an upper limit, and more effort would find less.
    if len(ladder) > 1:
        yield from _weaker(e, "draws-converged", ladder[-2], best, masking=False)
    yield from _weaker(e, "steps-converged", usual, many, masking=False)


def _weaker(e: Evidence, name: str, strong: str, weak: str, *, masking: bool = True) -> Iterator[Check]:
    compared = e.compare(strong, weak)
    if compared is None:
        return
    found = is_difference(compared)
    one, two = (f"{e.made[key].title}: {e.left(key)}" for key in (strong, weak))
    sound, unsound = _SAYS[name]
    tail = " The difference may be chance." if not found and e.left(weak) < e.left(strong) else ""
    said = f"{unsound if found else sound}. Left of {e.images}: {one}; {two}.{tail}"
    yield Check(name, found, said, masking, compared)


_SAYS = {
    "more-draws": ("More draws do not make the attack weaker", "More draws make the attack weaker"),
    "more-steps": ("More steps do not make the attack weaker", "More steps make the attack weaker"),
    "black-box": ("The black box does not beat the white box", "The black box beats the white box"),
    "noise-off": (
        "Attacks made with the noise off do not beat those made with it on",
        "Attacks made with the noise off beat those made with it on",
    ),
    "draws-converged": (
        "Accuracy does not keep falling with more draws",
        "Accuracy keeps falling with more draws: the verdict is an upper limit",
    ),
    "steps-converged": (
        "Accuracy does not keep falling with more steps",
        "Accuracy keeps falling with more steps: the verdict is an upper limit",
    ),
}
"""What a comparison says where it is as it should be, and where it is not."""


def _far(e: Evidence) -> Check:
    left = e.left(steps.FAR)
    low, _ = clopper_pearson(left, e.images, level=0.98)
    found = low > _LEFT
    numbers = {"left": left, "images": e.images, "eps": e.settings.far}
    says = f"At radius {e.settings.far:g}, where any image can be made plain grey, {left} of {e.images} are left"
    tail = ": the attack does not find what is there." if found else "."
    return Check("large-radius", found, f"{says}{tail}", numbers=numbers)
