"""From the words of a command line to a run, and from a run to what is printed."""

from __future__ import annotations

import difflib
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from noiseopt.errors import UserError

if TYPE_CHECKING:
    from noiseopt.experiments.executors import Executor
    from noiseopt.experiments.recipe import Recipe
    from noiseopt.experiments.run import Outcome


def recipe_named(name: str, *, seed: int | None = None) -> Recipe:
    """A recipe by the name of a bundled one, or by its path; from another seed, where one is given."""
    from noiseopt.experiments.recipe import bundled, load

    here = bundled()
    if re.fullmatch(r"[\w-]{1,80}", name) and name not in here and not Path(name).exists():
        fix = f"use a YAML file, or a bundled one: {', '.join(here)}"
        close = difflib.get_close_matches(name, here, n=1)
        raise UserError("there is no recipe of this name", got=name, fix=f"did you mean {close[0]}?" if close else fix)
    recipe = load(here[name] if name in here and not Path(name).is_file() else Path(name).expanduser())
    return seeded(recipe, seed)


def recipe_of(folder: Path, *, seed: int | None = None) -> Recipe:
    """The recipe that a run holds, to go on in that very folder, whatever it was called when it began."""
    from noiseopt.experiments.folder import RunFolder
    from noiseopt.experiments.recipe import from_run

    about = RunFolder(folder).about()
    if "recipe" not in about:
        fix = "run its recipe again, which writes it anew"
        raise UserError(f"{folder / 'run.json'} must be readable JSON and hold the run's recipe", fix=fix)
    recipe = from_run(about["recipe"], place=f"{folder / 'run.json'} recipe")
    return seeded(recipe.model_copy(update={"name": folder.name}), seed)


def seeded(recipe: Recipe, seed: int | None) -> Recipe:
    """The recipe from this seed; None: as it is."""
    return recipe if seed is None else recipe.with_seed(seed)


def run_folder(name: str, runs_dir: Path) -> Path | None:
    """The run of this name or path; None where there is none."""
    for folder in (Path(name).expanduser(), runs_dir / name):
        if (folder / "run.json").is_file():
            return folder if folder.name else folder.resolve()
    return None


def runs_there(runs_dir: Path) -> str:
    """What to do where there is no such run: the fix of an error."""
    names = sorted(found.parent.name for found in runs_dir.glob("*/run.json")) if runs_dir.is_dir() else []
    return f"name one of: {', '.join(names)}" if names else f"run `noiseopt demo` first ({runs_dir} holds no run)"


def run(
    recipe: Recipe,
    *,
    runs_dir: Path,
    data_dir: Path | None,
    device: str | None,
    executor: Executor | None = None,
    training: bool = True,
    measuring: bool = True,
    seeds: Collection[int] | None = None,
) -> Outcome:
    """Run a recipe's cells, and show how it goes."""
    from rich.console import Console

    from noiseopt.experiments.display import shown
    from noiseopt.experiments.run import Runner

    # Progress goes to stderr: what goes to stdout is worth keeping in a file.
    with shown(Console(stderr=True)) as listener:
        runner = Runner(
            recipe,
            runs_dir=runs_dir,
            data_dir=data_dir,
            device=device,
            executor=executor,
            command=spoken(sys.argv[1:]),
            listener=listener,
        )
        return runner.run(training=training, measuring=measuring, seeds=seeds)


def raise_first(outcome: Outcome) -> None:
    """After all that could be done was done and shown, the first failure decides the exit status."""
    for title, error in outcome.failures.items():
        if isinstance(error, UserError):
            raise error.about(title) from error
        raise error


def print_table(folder: Path) -> None:
    """The table of a run, on stdout."""
    from rich.console import Console

    from noiseopt.report import print_table

    print_table(folder, Console())


def write_report(folder: Path, output: Path | None = None) -> Path:
    """The page of a run; returns its file."""
    from noiseopt.report import write_report

    return write_report(folder, output=output)


def spoken(arguments: Sequence[str]) -> str:
    """A command line as one would type it."""
    return shlex.join(["noiseopt", *arguments])


def with_arguments(command: str) -> str:
    """This command line with another command: the same options hold."""
    _, *others = (argument for argument in sys.argv[1:] if argument != "--debug")
    return spoken([command, *others])
