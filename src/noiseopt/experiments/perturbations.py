"""What a recipe may write where a perturbation is wanted, and the Perturbation that comes of it.

```yaml
clean
{corruption: gaussian_noise, severity: 3}
{attack: pgd, eps: 25/255, step_size: 5/255, steps: 10, random_start: false}
{transfer: {attack: fgsm, eps: 0.1}}      # crafted on the recipe's surrogate
{noise: sign, distortion: 0.1}            # of this distortion over all the images (Eq. 2 of Uličný et al.)
```
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_serializer, model_validator
from torch import Tensor, nn

from noiseopt.attacks import ATTACKS, Transfer, sign_at
from noiseopt.concepts import Perturbation, clean
from noiseopt.corruptions import CORRUPTIONS, Corruption, random_noise_at
from noiseopt.errors import UserError
from noiseopt.experiments.problems import Part, all_finite, broken, known_keys, known_name, refused
from noiseopt.experiments.reading import number


@dataclass(frozen=True)
class Scene:
    """The model, its noise as it is to be, and all the images that a number is about: what some perturbations are
    made for. `images`: `Float[N, C, H, W]` in [0, 1]; `labels`, `samples`: `Int64[N]`.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    samples: Tensor


class Clean(Part):
    """The images as they are. Written as the word `clean`."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {} if value == "clean" else value

    @model_serializer
    def _as_word(self) -> str:
        return "clean"

    shared: ClassVar = True
    """Are the perturbed images the same for every model?"""
    curve: ClassVar = None
    """What is equal for perturbations that share most of the work on a model; None where they share nothing."""

    @property
    def title(self) -> str:
        return "clean"

    def build(self, *, surrogate: nn.Module | None, seed: int, scene: Scene | None = None) -> Perturbation:
        return clean

    def fingerprint(self) -> Any:
        """Plain values that determine what `build` returns; the seed and the surrogate apart."""
        return "clean"


class OfCorruption(Part):
    """A common corruption at one of its five severities."""

    shared: ClassVar = True
    curve: ClassVar = None

    corruption: str
    severity: Annotated[int, Field(strict=True, ge=1, le=5)]

    @model_validator(mode="after")
    def _exists(self) -> OfCorruption:
        known_name(self.corruption, CORRUPTIONS, what="a corruption")
        return self

    @property
    def title(self) -> str:
        return f"{self.corruption.replace('_', ' ')} {self.severity}"

    def build(self, *, surrogate: nn.Module | None, seed: int, scene: Scene | None = None) -> Perturbation:
        return Corruption(self.corruption, severity=self.severity, seed=seed)

    def fingerprint(self) -> Any:
        return {"corruption": self.corruption, "severity": self.severity}


class OfAttack(Part):
    """An attack by name; every other key is a setting of that attack, checked by the attack itself."""

    model_config = ConfigDict(extra="allow")
    shared: ClassVar = False
    curve: ClassVar = None

    attack: str

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, value: Any) -> Any:
        """Takes the place of the check of a Part with fixed keys."""
        if not isinstance(value, Mapping) or not isinstance(value.get("attack", ""), str):
            return value
        if "attack" not in value:
            slip = difflib.get_close_matches("attack", [k for k in value if isinstance(k, str)], n=1, cutoff=0.7)
            known_keys(slip and {slip[0]: ""}, ["attack"])
            return value
        known_name(value["attack"], ATTACKS, what="an attack")
        signature = inspect.signature(ATTACKS[value["attack"]])
        known_keys(value, ["attack", *signature.parameters])
        settings = {key: number(setting) for key, setting in value.items() if key != "attack"}
        for name, parameter in signature.parameters.items():
            if parameter.default is parameter.empty and name not in settings:
                broken(f"needs the setting {name}", fix=f"add {name}: ...")
        for name, setting in settings.items():
            all_finite(setting, at=(name,))
        try:
            ATTACKS[value["attack"]](**settings)
        except UserError as error:
            refused(error)
        except (TypeError, ValueError, OverflowError) as error:
            broken(f"is refused: {error}", fix="change its settings")
        return {"attack": value["attack"], **settings}

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def title(self) -> str:
        return {"fgsm": "FGSM", "pgd": "PGD", "lbfgs": "L-BFGS"}.get(self.attack, self.attack)

    def build(self, *, surrogate: nn.Module | None, seed: int, scene: Scene | None = None) -> Perturbation:
        # A seed that is written in the recipe goes before.
        own = {"seed": seed} if "seed" in inspect.signature(ATTACKS[self.attack]).parameters else {}
        return ATTACKS[self.attack](**(own | self.settings))

    def fingerprint(self) -> Any:
        # The attack's own account, defaults included: if a default changes, so does the number.
        made: Any = self.build(surrogate=None, seed=0)
        return {"attack": self.attack, **made.parameters()}


class OfTransfer(Part):
    """An attack crafted on the recipe's surrogate, held against every row."""

    shared: ClassVar = True
    curve: ClassVar = None

    transfer: OfAttack

    @property
    def title(self) -> str:
        return f"transfer {self.transfer.title}"

    def build(self, *, surrogate: nn.Module | None, seed: int, scene: Scene | None = None) -> Perturbation:
        assert surrogate is not None, "a recipe with a transfer column has a surrogate"
        return Transfer(self.transfer.build(surrogate=None, seed=seed), surrogate)

    def fingerprint(self) -> Any:
        return {"transfer": self.transfer.fingerprint()}


class OfNoise(Part):
    """Noise of an asked distortion: the signs of the model's gradient, or Gaussian."""

    noise: Literal["sign", "gaussian"]
    distortion: Annotated[float, Field(ge=0, lt=1)]
    draws: Annotated[int, Field(strict=True, ge=1)] = 1

    @model_validator(mode="after")
    def _draws_are_of_gradients(self) -> OfNoise:
        if self.noise == "gaussian" and self.draws != 1:
            broken(
                "is for sign noise: Gaussian noise has no gradient", got=self.draws, fix="leave it out", at=("draws",)
            )
        return self

    @property
    def shared(self) -> bool:
        return self.noise == "gaussian"

    @property
    def curve(self) -> Any:
        # The signs do not depend on the distortion.
        return None if self.shared else ["sign", self.draws]

    @property
    def title(self) -> str:
        return f"{self.noise} noise, distortion {self.distortion:g}"

    def build(self, *, surrogate: nn.Module | None, seed: int, scene: Scene | None = None) -> Perturbation:
        assert scene is not None, "noise of a distortion is made for given images"
        if self.noise == "gaussian":
            return random_noise_at(self.distortion, scene.images, seed=seed, samples=scene.samples)
        about: dict[str, Any] = {"draws": self.draws, "seed": seed, "samples": scene.samples}
        return sign_at(self.distortion, scene.model, scene.images, scene.labels, **about)

    def fingerprint(self) -> Any:
        return {"noise": self.noise, "distortion": self.distortion, "draws": self.draws}


_KINDS = ("attack", "corruption", "transfer", "noise")


def _kind(value: Any) -> str | None:
    """The tag of the class that `value` is meant for; a slip in its first word is left for that class to find."""
    if isinstance(value, Part):
        return next(tag for tag, kind in _TAGS.items() if isinstance(value, kind))
    if value == "clean":
        return "<clean>"
    keys = [key for key in value if isinstance(key, str)] if isinstance(value, Mapping) else []
    for key in keys:
        if close := difflib.get_close_matches(key, _KINDS, n=1, cutoff=0.7):
            return f"<{close[0]}>"
    return None


_TAGS = {
    "<clean>": Clean,
    "<corruption>": OfCorruption,
    "<attack>": OfAttack,
    "<transfer>": OfTransfer,
    "<noise>": OfNoise,
}
OfPerturbation = Annotated[
    Annotated[Clean, Tag("<clean>")]
    | Annotated[OfCorruption, Tag("<corruption>")]
    | Annotated[OfAttack, Tag("<attack>")]
    | Annotated[OfTransfer, Tag("<transfer>")]
    | Annotated[OfNoise, Tag("<noise>")],
    Discriminator(
        _kind,
        custom_error_type="kind_of_perturbation",
        custom_error_message="must be clean, or begin with attack:, corruption:, noise: or transfer:",
    ),
]
"""Any perturbation of a recipe."""
