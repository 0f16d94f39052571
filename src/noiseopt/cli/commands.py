"""The commands. Torch, and all else that is slow to load, is loaded inside the commands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noiseopt.cli.datasets import data_app
from noiseopt.cli.options import RUNS, DataDir, Device, RecipeName, RunsDir, Seed
from noiseopt.errors import UserError

if TYPE_CHECKING:
    from noiseopt.experiments.recipe import Recipe
    from noiseopt.experiments.run import Outcome

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")


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
    recipe = _seeded(_recipe("demo"), seed)
    if fresh:
        from noiseopt.experiments.folder import RunFolder

        RunFolder(runs_dir / recipe.name).remove()
    outcome = _run(recipe, runs_dir=runs_dir, data_dir=data_dir, device=device)
    _print_table(outcome.folder)
    typer.echo(f"Report: {_write_report(outcome.folder)}")
    _raise_first(outcome)


@app.command()
def train(
    recipe: RecipeName,
    seed: Seed = None,
    device: Device = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Train every row of a recipe, and the surrogate; a checkpoint after every epoch.

    Interrupted (Ctrl-C, a crash, a power cut), the same command goes on with the next epoch. Rows that are trained
    already are not trained again, unless the recipe has changed for them.

    Examples:

        noiseopt train mnist-mlpn --data-dir ~/data

        noiseopt train my-recipe.yaml --device cuda --seed 3
    """
    outcome = _run(_seeded(_recipe(recipe), seed), runs_dir=runs_dir, data_dir=data_dir, device=device, measuring=False)
    _raise_first(outcome)
    typer.echo(f"Trained: {outcome.folder}")
    typer.echo(f"Next: {_with_arguments('evaluate')}")


@app.command()
def evaluate(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|RUN", help="A recipe (file or name), or the folder of a run, such as runs/demo."
        ),
    ],
    seed: Seed = None,
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
    found = _run_folder(recipe, runs_dir)
    if found is None:
        chosen = _recipe(recipe)
    else:
        chosen, runs_dir = _recipe_of(found), found.parent
    outcome = _run(_seeded(chosen, seed), runs_dir=runs_dir, data_dir=data_dir, device=device, training=False)
    _print_table(outcome.folder)
    _raise_first(outcome)
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
    folder = _run_folder(run, runs_dir)
    if folder is None:
        raise UserError(f"there is no run {run}", fix=_runs_there(runs_dir))
    path = _write_report(folder, output)
    _print_table(folder)
    typer.echo(f"Report: {path}")


def _recipe(name: str) -> Recipe:
    """A recipe by the name of a bundled one, or by its path."""
    from noiseopt.experiments.recipe import bundled, load

    here = bundled()
    return load(here[name] if name in here and not Path(name).is_file() else Path(name).expanduser())


def _recipe_of(folder: Path) -> Recipe:
    """The recipe that a run holds, to go on in that very folder, whatever it was called when it began."""
    from noiseopt.experiments.folder import RunFolder
    from noiseopt.experiments.recipe import from_run

    recipe = from_run(RunFolder(folder).about().get("recipe"), place=f"{folder / 'run.json'} recipe")
    return recipe.model_copy(update={"name": folder.name})


def _seeded(recipe: Recipe, seed: int | None) -> Recipe:
    return recipe if seed is None else recipe.with_seed(seed)


def _run_folder(name: str, runs_dir: Path) -> Path | None:
    """The run of this name or path; None where there is none."""
    for folder in (Path(name).expanduser(), runs_dir / name):
        if (folder / "run.json").is_file():
            return folder if folder.name else folder.resolve()
    return None


def _runs_there(runs_dir: Path) -> str:
    names = sorted(found.parent.name for found in runs_dir.glob("*/run.json")) if runs_dir.is_dir() else []
    return f"name one of: {', '.join(names)}" if names else f"run `noiseopt demo` first ({runs_dir} holds no run)"


def _run(
    recipe: Recipe,
    *,
    runs_dir: Path,
    data_dir: Path | None,
    device: str | None,
    training: bool = True,
    measuring: bool = True,
) -> Outcome:
    from rich.console import Console

    from noiseopt.experiments.display import shown
    from noiseopt.experiments.run import Runner

    command = _spoken(sys.argv[1:])
    # Progress goes to stderr: what goes to stdout is worth keeping in a file.
    with shown(Console(stderr=True)) as listener:
        runner = Runner(recipe, runs_dir=runs_dir, data_dir=data_dir, device=device, command=command, listener=listener)
        return runner.run(training=training, measuring=measuring)


def _raise_first(outcome: Outcome) -> None:
    """After all that could be done was done and shown, the first failure decides the exit status."""
    for title, error in outcome.failures.items():
        if isinstance(error, UserError):
            raise UserError(f"{title}: {str(error).partition('; fix: ')[0]}", fix=str(error).rpartition("; fix: ")[2])
        raise error


def _print_table(folder: Path) -> None:
    from rich.console import Console

    from noiseopt.report import print_table

    print_table(folder, Console())


def _write_report(folder: Path, output: Path | None = None) -> Path:
    from noiseopt.report import write_report

    return write_report(folder, output=output)


def _spoken(arguments: Sequence[str]) -> str:
    return shlex.join(["noiseopt", *arguments])


def _with_arguments(command: str) -> str:
    """This command line with another command: the same options hold."""
    return _spoken([command, *(a for a in sys.argv[2:] if a != "--debug")])
