"""The noise of a row: `inject`'s, with what its σ is learned by, or that of another paper by its name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, PlainValidator, Tag, model_validator
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.experiments import reading
from noiseopt.experiments.perturbations import OfAttack
from noiseopt.experiments.problems import Part, all_finite, broken, known_keys, known_name, refused
from noiseopt.noise import OBJECTIVES, TRAINED_BY, ZOO, SigmaObjective, inject


def _word_or_number(*words: str, above: float) -> Callable[[Any], str | float]:
    # A union would report one problem for each member.
    def check(value: Any) -> str | float:
        value = reading.number(value)
        if isinstance(value, str) and value in words:
            return value
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        if not usable or not above < value < sys.float_info.max:
            listed = ", ".join(words)
            broken(f"must be {listed} or a number above {above:g}", got=value, fix=f"write {words[0]}")
        return float(value)

    return check


_one_level = _word_or_number("learned", above=0)


def _patterns(value: Any) -> str | list[str]:
    if isinstance(value, str) or (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
        return value
    broken("must be all, linear, conv or a list of layer names", got=value, fix="write where: all")


def _levels(value: Any) -> Any:
    """σ: "learned", a number above 0, or a number for each layer, 0 for none."""
    many = list(value.values()) if isinstance(value, Mapping) else value
    if not isinstance(many, list):
        return _one_level(value)
    numbers = [reading.number(entry) for entry in many]
    usable = [isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < sys.float_info.max for n in numbers]
    named = not isinstance(value, Mapping) or all(isinstance(name, str) for name in value)
    if not (numbers and all(usable) and named):
        broken("must have a number of at least 0 for each layer", got=value, fix="write sigma: [3, 1, 0]")
    levels = [float(n) for n in numbers]  # type: ignore[arg-type]
    return dict(zip(value, levels, strict=True)) if isinstance(value, Mapping) else levels


class Objective(Part):
    """What σ minimises (`noiseopt.noise.OBJECTIVES`); every other key is a setting of that objective."""

    model_config = ConfigDict(extra="allow")

    objective: str = "loss"
    examples: OfAttack | None = Field(default=None, description="adversarial: what σ's loss is of")

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, value: Any) -> Any:
        """Takes the place of the check of a Part with fixed keys."""
        value = {"objective": value} if isinstance(value, str) else value
        if not isinstance(value, Mapping) or not isinstance(value.get("objective", "loss"), str):
            return value
        value = {key: setting for key, setting in value.items() if setting is not None}
        name = value.get("objective", "loss")
        known_name(name, OBJECTIVES, what="an objective of σ", at=("objective",))
        known_keys(value, ["objective", *inspect.signature(OBJECTIVES[name]).parameters])
        return {key: reading.number(setting) for key, setting in value.items()}

    @model_validator(mode="after")
    def _makes_one(self) -> Objective:
        try:
            self.build()
        except UserError as error:
            refused(error)
        except TypeError as error:
            broken(f"is refused: {error}", fix="change its settings")
        return self

    def build(self) -> SigmaObjective:
        """The objective itself."""
        settings: dict[str, Any] = dict(self.model_extra or {})
        if self.examples is not None:
            settings["examples"] = self.examples.build(surrogate=None, seed=0)
        return OBJECTIVES[self.objective](**settings)


class Noise(Part):
    """Noise on the pre-activations, as `noiseopt.inject` takes it; and what its σ is learned by."""

    where: Annotated[Any, PlainValidator(_patterns)] = "all"
    sigma: Annotated[Any, PlainValidator(_levels)] = "learned"
    init: Annotated[str | float, PlainValidator(_word_or_number("published", "normal", "xavier", above=0))] = (
        "published"
    )
    per: Literal["neuron", "channel", "layer"] = "neuron"
    mean: bool = False
    objective: Objective = Objective()

    @model_validator(mode="after")
    def _objective_has_something_to_learn(self) -> Noise:
        if self.sigma != "learned" and self.objective != Objective():
            fix = "write sigma: learned, or leave the objective out"
            broken("is of learned noise", got=self.objective.objective, fix=fix, at=("objective",))
        if self.objective.objective == "wca":
            broken("is of the noise of that name", got="wca", fix="write kind: wca", at=("objective",))
        return self

    @property
    def learned(self) -> bool:
        """Is its strength trained?"""
        return bool(self.sigma == "learned")

    def into(self, model: nn.Module, *, example_input: Tensor, seed: int) -> nn.Module:
        """The model with this noise."""
        return inject(model, example_input=example_input, seed=seed, **self.model_dump(exclude={"objective"}))


class OfZoo(Part):
    """The noise of another paper (`noiseopt.noise.ZOO`), by `kind`; every other key is a setting of it."""

    model_config = ConfigDict(extra="allow")

    kind: str
    objective: Objective = Objective()

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, value: Any) -> Any:
        """Takes the place of the check of a Part with fixed keys. All settings are written out, defaults too."""
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            return value
        kind = value["kind"]
        known_name(kind, ZOO, what="a kind of noise", at=("kind",))
        parameters = list(inspect.signature(ZOO[kind]).parameters.values())
        settings = {p.name: p.default for p in parameters if p.name not in ("model", "example_input", "seed")}
        known_keys(value, ["kind", "objective", *settings])
        own = {"objective": dict(TRAINED_BY[kind])} if kind in TRAINED_BY else {}
        settings |= {key: reading.number(setting) for key, setting in value.items()}
        all_finite({key: setting for key, setting in settings.items() if key != "objective"})
        return own | {key: setting for key, setting in settings.items() if setting is not None}

    @model_validator(mode="after")
    def _objective_has_something_to_learn(self) -> OfZoo:
        name = self.objective.objective
        of_sigma = self.kind in ("learn2perturb", "pixels") and name != "wca"
        if not of_sigma and name not in ("loss", self.kind):
            fix = "leave the objective out"
            broken(f"has no part in how {self.kind} is trained", got=name, fix=fix, at=("objective",))
        return self

    @property
    def learned(self) -> bool:
        """Is its strength trained?"""
        return self.kind not in ("rse", "smoothing")

    def into(self, model: nn.Module, *, example_input: Tensor, seed: int) -> nn.Module:
        """The model with this noise."""
        return ZOO[self.kind](model, example_input=example_input, seed=seed, **(self.model_extra or {}))


def _noise_kind(value: Any) -> str:
    return "<zoo>" if isinstance(value, OfZoo) or (isinstance(value, Mapping) and "kind" in value) else "<noise>"


AnyNoise = Annotated[Annotated[Noise, Tag("<noise>")] | Annotated[OfZoo, Tag("<zoo>")], Discriminator(_noise_kind)]
"""The noise of a row."""
