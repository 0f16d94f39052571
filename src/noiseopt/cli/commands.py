"""The commands. Torch, and all else that is slow to load, is loaded inside the commands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from noiseopt.cli import running
from noiseopt.cli.audit import audit, certify
from noiseopt.cli.datasets import data_app
from noiseopt.cli.options import (
    RUNS,
    Address,
    DataDir,
    Device,
    ExecutorName,
    GpusPerCell,
    RecipeName,
    RunsDir,
    Seed,
    Workers,
    executor,
)
from noiseopt.cli.reproduce import reproduce
from noiseopt.cli.results import leaderboard, publish, replication, results
from noiseopt.cli.search import search
from noiseopt.cli.study import study_app
from noiseopt.errors import UserError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")
app.add_typer(study_app, name="study")


@app.callback(invoke_without_command=True)
def _noiseopt(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. May stand anywhere on the line.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Learnable noise for any PyTorch model: train it, attack it as hard as it deserves, report the truth.

    Start with `noiseopt demo`. An experiment is a recipe, a YAML file; what was interrupted goes on with the same
    command.
    """
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"noiseopt {installed('noiseopt')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@app.command()
def demo(
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the earlier demo and begin again.")] = False,
    seed: Seed = None,
    device: Device = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Train three small networks, attack them, and show the table: about a minute on a laptop.

    The plain network, one with fixed noise and one with learned noise, on 5,000 MNIST digits that need no download, as
    in Table 3 of the paper. Writes `runs/demo/report.html`.

    Examples:

        noiseopt demo

        noiseopt demo --fresh --seed 7
    """
    recipe = running.recipe_named("demo", seed=seed)
    if fresh:
        from noiseopt.experiments.folder import RunFolder

        RunFolder(runs_dir / recipe.name).remove()
    outcome = running.run(recipe, runs_dir=runs_dir, data_dir=data_dir, device=device)
    running.print_table(outcome.folder)
    typer.echo(f"Report: {running.write_report(outcome.folder)}")
    running.raise_first(outcome)


@app.command()
def train(
    recipe: RecipeName,
    seed: Seed = None,
    workers: Workers = None,
    executor_name: ExecutorName = None,
    address: Address = None,
    gpus_per_cell: GpusPerCell = None,
    device: Device = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Train every row of a recipe, and the surrogate; a checkpoint after every epoch.

    Interrupted (Ctrl-C, a crash, a power cut), the same command goes on with the next epoch. Rows that are trained
    already are not trained again, unless the recipe has changed for them.

    Examples:

        noiseopt train table3 --data-dir ~/data --workers auto

        noiseopt train my-recipe.yaml --device cuda --seed 3
    """
    outcome = running.run(
        running.recipe_named(recipe, seed=seed),
        runs_dir=runs_dir,
        data_dir=data_dir,
        device=device,
        executor=executor(executor_name, workers, address, gpus_per_cell),
        measuring=False,
    )
    running.raise_first(outcome)
    typer.echo(f"Trained: {outcome.folder}")
    typer.echo(f"Next: {running.with_arguments('evaluate')}")


@app.command()
def evaluate(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN", help="A recipe (file or name), or the folder of a run, such as runs/demo."
        ),
    ],
    seed: Seed = None,
    workers: Workers = None,
    executor_name: ExecutorName = None,
    address: Address = None,
    gpus_per_cell: GpusPerCell = None,
    device: Device = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Measure every column of a recipe on every trained row, with the noise on and off, and print the table.

    Each number is written down as soon as it is measured, and is not measured again.

    Examples:

        noiseopt evaluate my-recipe.yaml

        noiseopt evaluate runs/demo
    """
    found = running.run_folder(recipe, runs_dir)
    if found is None:
        chosen = running.recipe_named(recipe, seed=seed)
    else:
        chosen, runs_dir = running.recipe_of(found, seed=seed), found.parent
    outcome = running.run(
        chosen,
        runs_dir=runs_dir,
        data_dir=data_dir,
        device=device,
        executor=executor(executor_name, workers, address, gpus_per_cell),
        training=False,
    )
    running.print_table(outcome.folder)
    running.raise_first(outcome)
    typer.echo(f"Next: noiseopt report {shlex.quote(str(outcome.folder))}")


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its name in --runs-dir.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; report.html in the run's folder."),
    ] = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Write a run as one HTML page that needs no network, and print its table.

    Examples:

        noiseopt report demo

        noiseopt report runs/demo -o ~/demo.html
    """
    folder = running.run_folder(run, runs_dir)
    if folder is None:
        raise UserError(f"there is no run {run}", fix=running.runs_there(runs_dir))
    path = running.write_report(folder, output)
    running.print_table(folder)
    typer.echo(f"Report: {path}")


app.command()(audit)
app.command()(certify)
app.command()(reproduce)
app.command()(search)
app.command()(results)
app.command()(publish)
app.command()(replication)
app.command()(leaderboard)
