"""The rows of a recipe: networks that are trained, and what defences make of them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Discriminator, Field, Tag, create_model, field_serializer, model_validator
from torch import nn

from noiseopt.defences import DEFENCES
from noiseopt.errors import UserError
from noiseopt.experiments import reading
from noiseopt.experiments.adversary import Adversary
from noiseopt.experiments.noises import AnyNoise
from noiseopt.experiments.perturbations import OfAttack
from noiseopt.experiments.problems import Part, all_finite, broken, known_keys, known_name, refused
from noiseopt.models import MODELS
from noiseopt.train import Training

Seed = Annotated[int, Field(ge=0, lt=2**63)]


_fields: Any = {name: (field.annotation, field) for name, field in Training.model_fields.items()}
TrainingSettings: Any = create_model(
    "TrainingSettings",
    __base__=Part,
    __doc__="Settings of `noiseopt.train.Training`; one that is left out comes from the level above.",
    **_fields,
)


class Network(Part):
    """A network, and what its training does differently from the recipe's `training`."""

    model: str
    options: dict[str, Any] = Field(default_factory=dict)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    adversary: Adversary | None = Field(
        None, description="adversarial training: every batch is replaced by its examples, or paired with them"
    )

    @model_validator(mode="after")
    def _model_exists(self) -> Network:
        if ":" not in self.model:
            known_name(self.model, MODELS, what="a model or package.module:function", at=("model",))
            known_keys(self.options, inspect.signature(MODELS[self.model]).parameters, at=("options",))
        all_finite(self.options, at=("options",))
        return self

    @field_serializer("training")
    def _only_what_was_given(self, training: Any) -> dict[str, Any]:
        given: dict[str, Any] = training.model_dump(mode="json", exclude_unset=True)
        return given


class Row(Network):
    """A row of the table: a network, with noise or without."""

    label: str = Field(min_length=1, max_length=80)
    noise: AnyNoise | None = None
    member: int = Field(default=0, ge=0, lt=1_000_000, description="number among networks that differ by seed alone")
    after: str | None = Field(default=None, description="label of an earlier row, from whose weights training goes on")
    pool: OfAttack | None = Field(
        default=None, description="with `after`: train on the adversarial examples of all that went before, too"
    )
    shown: bool = Field(default=True, description="false: trained, for other rows, and not measured")


class OfDefence(Part):
    """A defence by name; every other key is a setting of that defence."""

    model_config = ConfigDict(extra="allow")

    defence: str

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, value: Any) -> Any:
        """Takes the place of the check of a Part with fixed keys."""
        value = {"defence": value} if isinstance(value, str) else value
        if not isinstance(value, Mapping) or not isinstance(value.get("defence", ""), str):
            return value
        if "defence" in value:
            known_name(value["defence"], DEFENCES, what="a defence", at=("defence",))
            parameters = inspect.signature(DEFENCES[value["defence"]]).parameters.values()
            known_keys(value, ["defence", *(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)])
        return {key: reading.number(setting) for key, setting in value.items()}

    @property
    def adds_noise(self) -> bool:
        return bool((self.model_extra or {}).get("noise"))

    def build(self, *models: nn.Module) -> nn.Module:
        """The defended model."""
        return DEFENCES[self.defence](*models, **(self.model_extra or {}))


class Composite(Part):
    """A row of the table that is not trained: what a defence makes of other rows."""

    label: str = Field(min_length=1, max_length=80)
    of: list[str] = Field(min_length=1, description="labels of earlier rows, in the order that the defence takes them")
    defence: OfDefence
    shown: bool = True
    noise: None = None

    @model_validator(mode="after")
    def _can_be_made(self) -> Composite:
        parameters = inspect.signature(DEFENCES[self.defence.defence]).parameters.values()
        taken = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
        if taken not in (0, len(self.of)):  # 0: any number
            rule = f"must list {taken} row{'s' * (taken > 1)} for {self.defence.defence}"
            broken(rule, got=len(self.of), fix="see noiseopt.defences", at=("of",))
        try:
            self.defence.build(*(nn.Identity() for _ in self.of))
        except UserError as error:
            refused(error, at=("defence",))
        return self


def _row_kind(value: Any) -> str:
    composite = isinstance(value, Composite) or (isinstance(value, Mapping) and "of" in value)
    return "<composite>" if composite else "<row>"


OfRow = Annotated[Annotated[Row, Tag("<row>")] | Annotated[Composite, Tag("<composite>")], Discriminator(_row_kind)]
"""Any row of a recipe."""


class Surrogate(Network):
    """The network that transfer attacks are crafted on: plain, trained apart, with a seed of its own."""

    seed: Seed = 1000
