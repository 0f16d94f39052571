"""`noiseopt data`: the data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noiseopt.cli.options import DataDir

if TYPE_CHECKING:
    from noiseopt.data import Dataset

data_app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
NameOrPath = Annotated[
    str, typer.Argument(metavar="NAME|PATH", help="A data set's name, or a folder or archive of your own images.")
]


@data_app.callback(invoke_without_command=True)
def _data(context: typer.Context) -> None:
    """List the data sets, look at one, or download one."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)


@data_app.command("list")
def data_list() -> None:
    """The data sets that are known by name.

    Example:

        noiseopt data list
    """
    from noiseopt.data import DATASETS

    width = max(map(len, DATASETS))
    for name, source in DATASETS.items():
        typer.echo(f"{name:<{width}}  {source.about}")


@data_app.command("info")
def data_info(name: NameOrPath, data_dir: DataDir = None) -> None:
    """How many images of what size and which classes; downloads the data set where it is not at hand.

    Examples:

        noiseopt data info mnist-mini

        noiseopt data info ~/photos.zip
    """
    dataset = _load(name, data_dir)
    channels, height, width = dataset.images.shape[1:]
    counts = dataset.labels.bincount(minlength=len(dataset.classes)).tolist()
    typer.echo(f"name     {dataset.name}")
    typer.echo(f"images   {len(dataset):,} of {height}×{width} pixels, {'grey' if channels == 1 else 'RGB'}")
    listed = ", ".join(f"{c} ({n:,})" for c, n in zip(dataset.classes[:12], counts, strict=False))
    more = f" and {len(dataset.classes) - 12} more" if len(dataset.classes) > 12 else ""
    typer.echo(f"classes  {len(dataset.classes)}: {listed}{more}")
    typer.echo(f"sha256   {dataset.hash}")


@data_app.command("fetch")
def data_fetch(name: NameOrPath, data_dir: DataDir = None) -> None:
    """Download a data set into the cache, and check it. A second time it finds it there.

    Examples:

        noiseopt data fetch mnist
    """
    typer.echo(f"{_load(name, data_dir)!r} is ready")


def _load(name: str, data_dir: Path | None) -> Dataset:
    from noiseopt.data import load

    return load(name, data_dir=data_dir)
