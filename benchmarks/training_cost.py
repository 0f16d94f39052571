"""What a training step costs in every row of a recipe, over that of the first: the plain network.

Every row is trained as the recipe trains it, two short epochs at a time, in turn with all others; of each the second
counts (validation on few images included), and the medians over the rounds are compared. Rows that continue others or
are made of others are left out.

python -m benchmarks.training_cost leaderboard-mlp [--steps 40] [--rounds 7]
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import options, publish
from noiseopt import train
from noiseopt.allocation import keep_freed_memory
from noiseopt.cli.running import recipe_named
from noiseopt.data import Split, load
from noiseopt.experiments.planning import build_network, chosen, divided, training_arguments
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.rows import Row

VALIDATION = 128  # images: as few as make no difference


def seconds(recipe: Recipe, row: Row, data: Split, *, device: str) -> float:
    """A step's, in the second of two epochs from the start."""
    settings = recipe.training_of(row).model_copy(update={"epochs": 2, "steps": None})
    network, arguments = build_network(row, data.train, seed=0), training_arguments(row)
    trained_on = (
        len(data.train) if arguments["objective"] is None else arguments["objective"].trained_on(len(data.train))
    )
    steps = math.ceil(trained_on / settings.batch_size)
    return train(network, data, settings, seed=0, **arguments, device=device).epochs[-1].seconds / steps


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("recipe", help="a bundled recipe, or a YAML file")
    parser.add_argument("--steps", type=int, default=40, help="steps of an epoch")
    arguments = parser.parse_args()
    keep_freed_memory()
    recipe = recipe_named(arguments.recipe)
    pool = load(recipe.data.name or Path(str(recipe.data.path)), size=recipe.data.size)
    data = divided(chosen(pool, recipe.data), recipe.data)
    rows = [row for row in recipe.rows if isinstance(row, Row) and row.after is None and row.pool is None]
    size = recipe.training_of(rows[0]).batch_size
    data = replace(
        data, train=data.train.span(0, arguments.steps * size), validation=data.validation.span(0, VALIDATION)
    )
    found: dict[str, list[float]] = {row.label: [] for row in rows}
    for number in range(arguments.rounds or 7):
        for row in rows if number % 2 == 0 else reversed(rows):
            found[row.label].append(seconds(recipe, row, data, device=arguments.device))
        print(f"  round {number + 1}", flush=True)
    medians = {label: statistics.median(times) for label, times in found.items()}
    plain = medians[rows[0].label]
    table = [[label, 1e3 * median, median / plain] for label, median in medians.items()]
    title = f"A training step of each row of {recipe.name}, {size} images ({arguments.device})"
    publish("training_cost", title, ["row", "ms / step", "time / plain"], table, arguments.json)


if __name__ == "__main__":
    main()
