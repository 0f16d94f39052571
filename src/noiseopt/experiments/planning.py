"""From a recipe to its cells, and from a cell to the network it is about."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from noiseopt.data import DATASETS, Dataset, Split, split, split_off
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Defended, Measured, Measurement, Plan, Share, Training
from noiseopt.experiments.perturbations import OfTransfer
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.rows import Composite, Network, Row
from noiseopt.experiments.schema import FROM_DATA, SURROGATE, Column, Data
from noiseopt.experiments.store import digest
from noiseopt.experiments.warned import noise_warnings
from noiseopt.models import MODELS, build, origin
from noiseopt.saliency import boxed

_CHOICE = 0x3C6EF372FE94F82B
TRAINING_REVISION = 1
"""Raise it with a fix that changes what training comes to: a network of another revision is trained anew."""


def code_version() -> str:
    """The versions a measured number depends on."""
    return f"noiseopt {version('noiseopt')}, torch {torch.__version__}"


def chosen(pool: Dataset, source: Data) -> Dataset:
    """The images that the recipe is about: all of `pool`, or as many as `source` says, by a name that says so."""
    if source.images is None or source.images >= len(pool):
        return pool
    # Another stream than that of the split, which has the same seed.
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(source.split_seed ^ _CHOICE))
    rows = order[: source.images].sort().values
    return pool.subset(rows).named(f"{pool.name}, {source.images:,} images drawn from {len(pool):,}")


def check_original(pool: Dataset, source: Data) -> None:
    """Raises UserError where the recipe measures on the original test images, and `pool`, the whole of a set as it was
    found, is not all of it: then nobody can say which those are.
    """
    counts = DATASETS[source.name].counts if source.name else None
    if source.test == "original" and counts is not None and len(pool) != sum(counts):
        rule, got = f"test: original needs all of {source.name}, {sum(counts):,} images", f"{len(pool):,}"
        raise UserError(rule, got=got, fix="complete the files in --data-dir, or leave test: original out")


def divided(pool: Dataset, source: Data) -> Split:
    """The images as the recipe's `data` divides them; `test` is what it measures on."""
    counts = DATASETS[source.name].counts if source.name else None
    if source.test == "original" and counts is not None:
        rows = pool.ids < counts[0]
        parts = split_off(pool.subset(rows), pool.subset(~rows), source.split[:2], seed=source.split_seed)
    else:
        parts = split(pool, source.split, seed=source.split_seed)
    return replace(parts, test=parts.validation) if source.measure == "validation" else parts


def plan(recipe: Recipe, data: Split, *, device: torch.device) -> Plan:
    """The cells of `recipe` on these images; on the CPU a protocol may take fewer of them."""
    trainings: list[Training] = []
    shown: list[Training | Defended] = []
    surrogate = None
    if recipe.surrogate is not None:
        surrogate = _training(recipe, data, recipe.surrogate, SURROGATE, recipe.surrogate.seed)
        trainings.append(surrogate)
    for seed in recipe.seeds:
        made: dict[str, Training | Defended] = {}
        for row in recipe.rows:
            if isinstance(row, Composite):
                made[row.label] = Defended(row, tuple(made[label] for label in row.of), seed)
            else:
                before = made[row.after] if row.after else None
                assert before is None or isinstance(before, Training), "checked when the recipe was read"
                try:
                    made[row.label] = trained = _training(recipe, data, row, row.label, seed, after=before)
                except UserError as error:  # of a network of the user's own
                    raise error.about(row.label) from None
                trainings.append(trained)
        shown += [made[row.label] for row in recipe.rows if row.shown]
    measurements: list[Measured] = []
    # Rows inside perturbations: what is the same for all of them is then made once.
    for column, protocol in [(c, p) for c in recipe.columns for p in recipe.protocols_of(c)]:
        settings = recipe.evaluation.of(protocol)
        count = settings.count(available=len(data.test), on_cpu=device.type == "cpu")
        measured = data.test if count >= len(data.test) else data.test.span(0, count)
        for perturbation in column.perturbations:
            for subject in shown:
                states = recipe.evaluation.noise if subject.noisy else [False]
                measurements += [
                    _measurement(recipe, measured, subject, surrogate, column, protocol, perturbation, noise)
                    for noise in states
                ]
    measurements += _shares(recipe, data, shown, on_cpu=device.type == "cpu")
    return Plan(tuple(trainings), tuple(measurements))


def _shares(recipe: Recipe, data: Split, shown: Sequence[Training | Defended], *, on_cpu: bool) -> Iterator[Share]:
    """Of all rows, where the recipe asks for saliency and the images have boxes."""
    settings = recipe.saliency
    if settings is None:
        return
    measured = boxed(data.test, settings.count(on_cpu=on_cpu))
    if measured.boxes is None or not len(measured):
        return
    for subject in shown:
        for noise in recipe.evaluation.noise if subject.noisy else [False]:
            draws = settings.draws if noise else 1
            parts = {
                "row": subject.label,
                "model": subject.hash,
                "saliency": {"sigma": settings.sigma, "samples": settings.samples},
                "boxes": measured.boxes.tolist(),
                "noise": noise,
                "draws": draws,
                "seed": recipe.evaluation.seed,
            }
            yield Share(
                row=subject,
                noise=noise,
                draws=draws,
                images=len(measured),
                hash=digest(parts),
                data_hash=measured.hash,
                code=code_version(),
                settings=settings,
            )


def own_seed(network: Network, seed: int) -> int:
    """Of one training: members of a committee differ by it."""
    return seed + network.member * 1_000_003 if isinstance(network, Row) else seed


def _training(
    recipe: Recipe, data: Split, network: Network, label: str, seed: int, *, after: Training | None = None
) -> Training:
    settings = recipe.training_of(network)
    of_its_own = own_seed(network, seed)
    parts: dict[str, Any] = {
        "train": data.train.hash,
        "validation": data.validation.hash,
        "test": data.test.hash if recipe.curves.test else None,
        "model": network.model,
        "options": network.options,
        # A setting that is not there changes nothing: so an option that is added later leaves old cells as they are.
        "noise": network.noise.model_dump(exclude_none=True) if isinstance(network, Row) and network.noise else None,
        "training": settings.model_dump(exclude_none=True),
        "curves": recipe.curves.model_dump(),
        "seed": of_its_own,
    }
    if ":" in network.model and not network.model.startswith("noiseopt."):
        # Your own function may be another tomorrow under the same name: the files that it is in, what it builds, and
        # the weights that this starts with (of a file, perhaps), are part of it.
        start = partial(build_network, network, data.train, seed=of_its_own)
        parts["source"] = origin(start, network.model.partition(":")[0])
    if TRAINING_REVISION > 1:
        parts["revision"] = TRAINING_REVISION
    if recipe.precision != "float32":
        parts["precision"] = recipe.precision
    if network.adversary is not None:
        parts["adversary"] = network.adversary.fingerprint()
    if after is not None:
        assert isinstance(network, Row)
        parts |= {"after": after.hash, "pool": network.pool.fingerprint() if network.pool else None}
    images = len(data.train) * (2 + len(after.needs) if after and pooled(network) else 1)
    if isinstance(network, Row) and network.noise is not None:
        images = network.noise.objective.build().trained_on(images)
    return Training(network, label, seed, settings.epochs_on(images), digest(parts), of_its_own, after)


def pooled(network: Network) -> bool:
    """Is it trained on its predecessors' adversarial examples, too?"""
    return isinstance(network, Row) and network.pool is not None


def _measurement(
    recipe: Recipe,
    measured: Dataset,
    subject: Training | Defended,
    surrogate: Training | None,
    column: Column,
    protocol: str,
    perturbation: Any,
    noise: bool,
) -> Measurement:
    transfers = isinstance(perturbation, OfTransfer)
    assert surrogate is not None or not transfers, "checked when the recipe was read"
    evaluation = recipe.evaluation
    draws = evaluation.of(protocol).draws if noise else 1
    parts = {
        "row": subject.label,
        "model": subject.hash,
        "surrogate": surrogate.hash if surrogate and transfers else None,
        "perturbation": perturbation.fingerprint(),
        "column": column.key,
        "protocol": protocol,
        "noise": noise,
        "draws": draws,
        "seed": evaluation.seed,
    }
    return Measurement(
        row=subject,
        surrogate=surrogate if transfers else None,
        column=column,
        perturbation=perturbation,
        protocol=protocol,
        noise=noise,
        draws=draws,
        images=len(measured),
        hash=digest(parts),
        data_hash=measured.hash,
        code=code_version(),
    )


def build_network(
    network: Network, images: Dataset, *, seed: int, warn: Callable[[str], None] | None = None
) -> nn.Module:
    """The network as it is before training: for these images and classes, with its noise.

    `warn` is given what there is to say about where the noise went; it need be said once only of every row.

    Raises:
        UserError: an option is out of range, or the noise finds no layer.
    """
    options = dict(network.options)
    shape = tuple(images.images.shape[1:])
    if network.model in MODELS:
        known = inspect.signature(MODELS[network.model]).parameters
        settled = dict(zip(FROM_DATA, (shape[0], list(shape[1:]), len(images.classes)), strict=True))
        options = {name: value for name, value in settled.items() if name in known} | options
    model = build(network.model, seed=seed, **options)
    if not isinstance(network, Row) or network.noise is None:
        return model
    with noise_warnings(warn):
        return network.noise.into(model, example_input=torch.zeros(2, *shape), seed=seed)


def training_arguments(network: Network) -> dict[str, Any]:
    """What `noiseopt.train` is told besides the settings: σ's objective, and the adversary."""
    noise = network.noise if isinstance(network, Row) else None
    adversary = network.adversary
    return {
        "objective": noise.objective.build() if noise else None,
        "perturbation": adversary.build(surrogate=None, seed=0) if adversary else None,
        "paired": adversary.paired if adversary else None,
    }
