"""The attacks of an audit, from cheap to strong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from noiseopt.attacks import APGD, FGSM, PGD, Square
from noiseopt.audit.library import Library
from noiseopt.audit.settings import Auditing
from noiseopt.concepts import Perturbation, clean

_FAR_STEPS = 20  # at a radius where everything falls at once, or not at all
CLEAN, ONE_STEP, NOISE_OFF, SQUARE, FAR = "clean", "one-step", "noise-off", "square", "far"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One attack of an audit, made on the images that have survived so far.

    `noise`: is the noise on while it is made? It is always on when it is judged. `gradient`: does it need one? `probe`:
    also on those of the subset that have fallen, to be compared. `counts`: does an image that falls here count as
    fallen? Where the radius is another one it does not, and only the subset is attacked.
    """

    key: str
    title: str
    attack: Perturbation
    noise: bool = True
    gradient: bool = True
    probe: bool = False
    counts: bool = True


@dataclass(frozen=True)
class Kind:
    """What of a model decides which attacks can be made on it."""

    noisy: bool
    classes: int
    gradient: bool
    """Has it a gradient as it is?"""
    gradient_off: bool
    """And with its noise off?"""


def ladder(settings: Auditing, kind: Kind) -> list[str]:
    """The keys of PGD by its draws, the fewest first."""
    return [_pgd_key(draws) for draws in (settings.draws if kind.noisy else (1,))]


def longer(settings: Auditing) -> list[str]:
    """The keys of PGD by its steps, the fewest first, all with the same draws."""
    return [f"steps-{10 if settings.steps > 10 else 2}", f"steps-{5 * settings.steps // 2}"]


def steps_of(settings: Auditing, kind: Kind) -> list[Step]:
    """The attacks that can be made on a model of this kind, in the order in which they are made."""
    made = [Step(key=CLEAN, title="no attack", attack=clean, gradient=False, probe=True), *_attacks(settings, kind)]
    return [
        step
        for step in made
        if (kind.noisy or step.noise)
        and (not step.gradient or (kind.gradient if step.noise else kind.gradient_off))
        and not (isinstance(step.attack, APGD) and step.attack.loss == "dlr" and kind.classes < 3)
    ]


def _attacks(settings: Auditing, kind: Kind) -> Iterator[Step]:
    eps, seed = settings.eps, settings.seed
    usual = settings.usual if kind.noisy else 1
    averaged = f", {usual} draws" if kind.noisy else ""

    def pgd(steps: int, draws: int) -> PGD:
        return PGD(eps=eps, step_size=eps / min(10, steps), steps=steps, draws=draws, seed=seed)

    def apgd(loss: str, draws: int) -> APGD:
        return APGD(
            eps=eps, loss=loss, steps=settings.apgd_steps, restarts=settings.restarts, draws=draws, seed=seed
        )  # fmt: skip

    off = "made with the noise off"
    pgd_title = f"PGD, {settings.steps} steps"
    yield Step(key=NOISE_OFF, title=f"{pgd_title}, {off}", attack=pgd(settings.steps, 1), noise=False, probe=True)
    yield Step(key=ONE_STEP, title=f"one step{averaged}", attack=FGSM(eps=eps, draws=usual, seed=seed), probe=True)
    short, long = longer(settings)
    few, many = (int(key.split("-")[1]) for key in (short, long))
    yield Step(key=short, title=f"PGD, {few} steps{averaged}", attack=pgd(few, usual), probe=True)
    rungs = settings.draws if kind.noisy else (1,)
    for draws in rungs:
        if draws <= usual:
            yield _rung(pgd_title, draws, kind, pgd(settings.steps, draws))
    yield Step(key="apgd-ce-off", title=f"APGD, cross-entropy, {off}", attack=apgd("cross_entropy", 1), noise=False)
    yield Step(key="apgd-dlr-off", title=f"APGD, logit ratio, {off}", attack=apgd("dlr", 1), noise=False)
    yield Step(key="apgd-ce", title=f"APGD, cross-entropy{averaged}", attack=apgd("cross_entropy", usual))
    yield Step(key="apgd-dlr", title=f"APGD, logit ratio{averaged}", attack=apgd("dlr", usual))
    yield Step(key=long, title=f"PGD, {many} steps{averaged}", attack=pgd(many, usual), probe=True)
    for draws in rungs:
        if draws > usual:
            yield _rung(pgd_title, draws, kind, pgd(settings.steps, draws))
    yield Step(
        key=SQUARE,
        title=f"Square, {settings.queries} queries{f' of {usual} draws' if kind.noisy else ''}",
        attack=Square(eps=eps, queries=settings.queries, draws=usual, seed=seed),
        gradient=False,
        probe=True,
    )
    yield Step(
        key=FAR,
        title=f"APGD, cross-entropy{averaged}, radius {settings.far:g}",
        attack=APGD(eps=settings.far, steps=min(_FAR_STEPS, settings.apgd_steps), draws=usual, seed=seed),
        probe=True,
        counts=False,
    )
    if settings.autoattack:
        yield Step(
            key="autoattack-standard",
            title=f"AutoAttack standard{f', {off}' if kind.noisy else ''}",
            attack=Library(version="standard", eps=eps, seed=seed, classes=kind.classes),
            noise=not kind.noisy,
        )
        if kind.noisy:
            library = Library(version="rand", eps=eps, draws=usual, seed=seed, classes=kind.classes)
            yield Step(key="autoattack-rand", title="AutoAttack rand", attack=library)


def _rung(title: str, draws: int, kind: Kind, attack: PGD) -> Step:
    said = f", {draws} draw{'s' if draws > 1 else ''}" if kind.noisy else ""
    return Step(key=_pgd_key(draws), title=f"{title}{said}", attack=attack, probe=True)


def _pgd_key(draws: int) -> str:
    return f"pgd-{draws}"
