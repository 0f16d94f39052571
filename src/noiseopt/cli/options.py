"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a bundled recipe: demo, mnist-mlpn.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Train from this seed, instead of the recipe's. Results go to a folder of their own, NAME-seedN.",
    ),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, ... By default the GPU, where there is one.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        envvar="NOISEOPT_DATA",
        help="Folder with the data sets' files. Without it they are downloaded.",
    ),
]
RunsDir = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for results.")]
RUNS = Path("runs")
