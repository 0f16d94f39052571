"""`noiseopt reproduce`: whole tables and figures, as fast as the machine allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from noiseopt.cli import running
from noiseopt.cli.options import RUNS, Address, DataDir, Device, ExecutorName, GpusPerCell, RunsDir, Workers, executor
from noiseopt.errors import UserError

if TYPE_CHECKING:
    from noiseopt.experiments.run import Outcome


def reproduce(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Bundled recipes, such as table3, or YAML files.")
    ],
    seeds: Annotated[
        str | None, typer.Option(metavar="N,...", help="Run only these of the recipe's seeds; the others stay.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            help="Run on this data set, instead of the recipe's. Results go to a folder of their own, RECIPE-NAME.",
        ),
    ] = None,
    only_training: Annotated[bool, typer.Option("--only-training", help="Train; measure another time.")] = False,
    workers: Workers = None,
    executor_name: ExecutorName = None,
    address: Address = None,
    gpus_per_cell: GpusPerCell = None,
    device: Device = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Train and measure all of a table or figure, print it, and write its report.

    On a CPU with a worker for each core, on GPUs with one for each GPU, unless told otherwise. What is done already is
    not done again, and networks that several recipes train are trained once; interrupted, the same command goes on.

    Examples:

        noiseopt reproduce table3

        noiseopt reproduce table3 figure3 --seeds 0,1

        noiseopt reproduce table5 --data cifar10-jpeg

        noiseopt reproduce table4 --executor ray --address auto --gpus-per-cell 0.25
    """
    chosen = _seeds(seeds)
    # A mistake in the last is told before the first is run.
    recipes = [recipe.with_data(data) if data else recipe for recipe in map(running.recipe_named, names)]
    from noiseopt.experiments.executors import suited
    from noiseopt.experiments.run import check_seeds

    for recipe in recipes:
        check_seeds(recipe, chosen)
    told = (executor_name, workers, address, gpus_per_cell)
    crew = suited(device) if told == (None,) * 4 else executor(*told)
    outcomes: list[Outcome] = []
    for recipe in recipes:
        outcome = running.run(
            recipe,
            runs_dir=runs_dir,
            data_dir=data_dir,
            device=device,
            executor=crew,
            measuring=not only_training,
            seeds=chosen,
        )
        outcomes.append(outcome)
        if only_training:
            typer.echo(f"Trained: {outcome.folder}")
            continue
        running.print_table(outcome.folder)
        typer.echo(f"Report: {running.write_report(outcome.folder)}")
    for outcome in outcomes:
        running.raise_first(outcome)


def _seeds(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UserError("--seeds must be whole numbers with commas", got=text, fix="write --seeds 0,1") from None
