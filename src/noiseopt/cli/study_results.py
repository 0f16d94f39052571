"""`noiseopt study export`, `analyse`, `size` and `delete`: what comes of a study, and what goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noiseopt.cli.options import RUNS, DataDir, Device, RunsDir
from noiseopt.errors import UserError

if TYPE_CHECKING:
    from noiseopt.study.folder import Study
    from noiseopt.study.store import Store

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The study's folder, such as studies/figure8.")]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="NOISEOPT_STUDY_DATABASE",
        help="Where the answers are: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME. By default a SQLite file "
        "in the study's folder.",
    ),
]


def export(
    folder: Folder,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to; FOLDER/export by default.")
    ] = None,
    database: Database = None,
) -> None:
    """Write answers and participants as CSV and Parquet, with a codebook.

    Examples:

        noiseopt study export studies/figure8 -o ~/figure8
    """
    from noiseopt.study.export import files

    study, store = opened(folder, database)
    _write(output or folder / "export", {name: made() for name, made in files(study, store).items()})


def analyse(
    folder: Folder,
    into: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Put figure 8 into the report of this run; may be repeated."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Add every row that the report of this run shows; may be repeated."),
    ] = None,
    people_only: Annotated[bool, typer.Option("--people-only", help="Ask no network.")] = False,
    networks_only: Annotated[
        bool, typer.Option("--networks-only", help="Ask networks alone, about all images made for participants.")
    ] = False,
    database: Database = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = RUNS,
    device: Device = None,
) -> None:
    """Compare those who have finished with trained networks on the same images: figure 8, and all numbers.

    Writes FOLDER/analysis: JSON, a table as CSV, and figures as SVG and PNG.

    Examples:

        noiseopt study analyse studies/figure8 --into ulicny-figure8

        noiseopt study analyse studies/figure8 --network ulicny-table2

        noiseopt study analyse studies/figure8 --networks-only
    """
    from noiseopt.cli import running
    from noiseopt.study import analysing

    if people_only and networks_only:
        raise UserError("an analysis is of people, of networks, or of both", fix="leave out one of the two options")
    study, store = opened(folder, database)
    data = analysing.analysed(
        study,
        store,
        more=network or (),
        people=not networks_only,
        networks=not people_only,
        runs_dir=runs_dir,
        data_dir=data_dir,
        device=device,
        told=lambda text: typer.echo(text, err=True),
    )
    from noiseopt.report.study import FILE
    from noiseopt.report.study_figures import figure_files

    _write(folder / "analysis", {**analysing.files(data), **figure_files(data)})
    for name in into or ():
        run = running.run_folder(name, runs_dir)
        if run is None:
            raise UserError(f"there is no run {name}", fix=running.runs_there(runs_dir))
        _write(run, {FILE: analysing.as_json(data)})
        typer.echo(f"Next: noiseopt report {run}")


def size(
    difference: Annotated[
        list[float] | None,
        typer.Option(metavar="D", help="Of accuracy, 0.05 for 5 points; may be repeated."),
    ] = None,
    accuracy: Annotated[float, typer.Option(metavar="P", help="About where the two levels are.")] = 0.9,
    images: Annotated[int, typer.Option(metavar="N", min=1, help="Of each level.")] = 15,
    sd: Annotated[
        float | None, typer.Option(metavar="S", help="Of a person's difference, as a pilot found it, instead.")
    ] = None,
    power: Annotated[float, typer.Option(metavar="P", help="The probability that the difference is found.")] = 0.8,
) -> None:
    """How many participants it takes to find a difference between two levels (paired t-test, two-sided, at 5 %).

    Examples:

        noiseopt study size --difference 0.05 --accuracy 0.9 --images 15
    """
    from noiseopt.study.intervals import needed, spread

    chosen = spread(accuracy, images) if sd is None else sd
    source = f"chance alone at an accuracy of {accuracy:g} over {images} images" if sd is None else "as given"
    typer.echo(f"Standard deviation of a person's difference: {chosen:.3f} ({source})")
    for d in difference or (0.1, 0.05, 0.02):
        count = needed(d, sd=chosen, power_wanted=power)
        typer.echo(f"{count:>7,} participants for a difference of {d:g}")


def delete(
    folder: Folder,
    participant: Annotated[str, typer.Option(metavar="CODE", help="As on the organiser's page, such as abcd-efgh.")],
    database: Database = None,
) -> None:
    """Delete a participant and all their answers, for good. What was exported or analysed before is not changed.

    Examples:

        noiseopt study delete studies/figure8 --participant abcd-efgh
    """
    _, store = opened(folder, database)
    typer.echo(f"Deleted {participant} with {store.delete(participant)} answers; run analyse and export anew")


def opened(folder: Path, database: str | None) -> tuple[Study, Store]:
    """A study and its answers."""
    from noiseopt.study.folder import Study
    from noiseopt.study.store import Store

    study = Study(folder)
    return study, Store(database or study.database, study=study.hash, places=study.places)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
            typer.echo(f"Wrote {folder / name}")
    except OSError as error:
        raise UserError(f"the folder {folder} must be writable", got=str(error), fix="give another --output") from None
