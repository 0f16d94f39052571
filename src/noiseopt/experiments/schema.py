"""The parts of a recipe: what may be written where, and within which bounds."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, create_model, field_serializer, model_validator

from noiseopt.data import DATASETS
from noiseopt.experiments import reading
from noiseopt.experiments.perturbations import OfPerturbation, OfTransfer
from noiseopt.experiments.problems import Part, broken, known_keys, known_name
from noiseopt.models import MODELS
from noiseopt.train import Training

Number = Annotated[float, BeforeValidator(reading.number)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Protocol = Literal["paper", "strict"]
SURROGATE = "surrogate"
FROM_DATA = ("in_channels", "image_size", "classes")
"""Options of a model that the data set settles, where the recipe does not."""


def slug(label: str) -> str:
    """A folder's name for a row: `MLP+ (sigmoid)` → `mlp-plus-sigmoid`."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("+", " plus ")).strip("-")


def _word_or_number(*words: str, above: float) -> PlainValidator:
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

    return PlainValidator(check)


def _patterns(value: Any) -> str | list[str]:
    if isinstance(value, str) or (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
        return value
    broken("must be all, linear, conv or a list of layer names", got=value, fix="write where: all")


class Data(Part):
    """Which images: a data set by `name`, or your own by `path`; pooled, then split by ratios."""

    name: str | None = None
    path: str | None = Field(None, min_length=1, description="relative to the recipe's folder")
    size: Annotated[int, Field(ge=1)] | None = Field(None, description="scale your own images to size × size")
    split: list[Annotated[Number, Field(gt=0)]] = Field([5, 1, 1], min_length=3, max_length=3)
    split_seed: Seed = 0

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if (self.name is None) == (self.path is None):
            broken("needs either name or path", fix="name a data set, or give the path of your own")
        if self.name is not None:
            known_name(self.name, DATASETS, what="a data set", at=("name",))
            if self.size is not None:
                broken("is for your own images", fix="leave it out: a named data set has its size", at=("size",))
        return self


_fields: Any = {name: (field.annotation, field) for name, field in Training.model_fields.items()}
TrainingSettings: Any = create_model(
    "TrainingSettings",
    __base__=Part,
    __doc__="Settings of `noiseopt.train.Training`; one that is left out comes from the level above.",
    **_fields,
)


class Noise(Part):
    """Noise on the pre-activations, as `noiseopt.inject` takes it."""

    where: Annotated[Any, PlainValidator(_patterns)] = "all"
    sigma: Annotated[str | float, _word_or_number("learned", above=0)] = "learned"
    init: Annotated[str | float, _word_or_number("published", "normal", "xavier", above=0)] = "published"
    per: Literal["neuron", "channel", "layer"] = "neuron"
    mean: bool = False


class Network(Part):
    """A network, and what its training does differently from the recipe's `training`."""

    model: str
    options: dict[str, Any] = Field(default_factory=dict)
    training: TrainingSettings = Field(default_factory=TrainingSettings)

    @model_validator(mode="after")
    def _model_exists(self) -> Network:
        if ":" not in self.model:
            known_name(self.model, MODELS, what="a model or package.module:function", at=("model",))
            known_keys(self.options, inspect.signature(MODELS[self.model]).parameters, at=("options",))
        return self

    @field_serializer("training")
    def _only_what_was_given(self, training: Any) -> dict[str, Any]:
        given: dict[str, Any] = training.model_dump(mode="json", exclude_unset=True)
        return given


class Row(Network):
    """A row of the table: a network, with noise or without."""

    label: str = Field(min_length=1, max_length=80)
    noise: Noise | None = None


class Surrogate(Network):
    """The network that transfer attacks are crafted on: plain, trained apart, with a seed of its own."""

    seed: Seed = 1000


class Column(Part):
    """A column of the table: the mean over its perturbations. A key may appear once for each protocol."""

    key: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=80)
    title: str = ""
    group: Literal["", "White box", "Black box"] = ""
    protocol: Protocol | None = Field(None, description="of this column, where it is not the recipe's")
    perturbations: list[OfPerturbation] = Field(min_length=1)

    @property
    def transfers(self) -> bool:
        return any(isinstance(p, OfTransfer) for p in self.perturbations)


class Evaluation(Part):
    """How every cell is measured."""

    draws: int = Field(default=20, ge=1, description="noise draws averaged for a prediction")
    noise: list[bool] = Field(default=[True, False], min_length=1, description="a plain row has one state")
    images: Annotated[int, Field(ge=1)] | None = Field(default=None, description="only so many test images")
    seed: Seed = 0


class Curves(Part):
    """What the training curves show."""

    noise: bool = Field(default=False, description="is the noise on when the validation images are measured?")
    test: bool = Field(default=False, description="measure the test images after every epoch, too?")


def _as_word(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Table(Part):
    """How the report lays the numbers out."""

    paper: Annotated[Literal["3", "4", "5", "6"] | None, BeforeValidator(_as_word)] = None
    """The number of the paper's table to stand beside."""
