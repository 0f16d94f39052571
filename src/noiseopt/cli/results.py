"""`noiseopt results`, `publish`, `replication`, `leaderboard`: what was measured, for programs, people and the docs."""

from __future__ import annotations

import shlex
import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from noiseopt.errors import UserError


class Format(StrEnum):
    """How the numbers are written."""

    table = "table"
    csv = "csv"
    markdown = "markdown"
    latex = "latex"
    json = "json"


def results(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Runs or published results, such as results/mnist.")
    ],
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=VALUE", help="Only Records with this value; may be given several times."),
    ] = None,
    format_: Annotated[Format | None, typer.Option("--format", help="By default table; with --long, csv.")] = None,
    long: Annotated[bool, typer.Option("--long", help="One line a Record with all its fields: csv or json.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file, not to the terminal.")
    ] = None,
) -> None:
    """Choose measured numbers, and print or export them: means over seeds with 95% intervals, or every Record.

    What cannot be computed is blank. A field is one of a Record's (model, column, protocol, noise, model_seed, ...),
    run, or a setting of the perturbation, such as parameters.severity. The same field twice: either value.

    Examples:

        noiseopt results runs/demo

        noiseopt results results/mnist --where run=table3 --where protocol=strict --where noise=on --format latex

        noiseopt results results/mnist --where "model=MLPN (sigmoid)" --long -o mlpn.csv
    """
    from noiseopt.report import export
    from noiseopt.report.pivot import pivot
    from noiseopt.report.selection import select
    from noiseopt.report.sources import read_all

    form = format_ or (Format.csv if long else Format.table)
    if long and form not in (Format.csv, Format.json):
        raise UserError("--long is written as csv or json", got=form.value, fix="--long --format csv")
    sources = read_all(folders)
    for source in sources:
        for note in source.notes:
            if "Record" in note or "records.jsonl:" in note:
                typer.echo(f"Note: {source.name}: {note}", err=True)
    sources = select(sources, where or [])
    if long:
        text = export.long_csv(sources) if form is Format.csv else export.long_json(sources)
    else:
        within = ("perturbation", "parameters")
        table = pivot(sources, whole_columns=not any(w.startswith(within) for w in where or []))
        writers = {
            Format.table: lambda: export.as_text(table, width=shutil.get_terminal_size((120, 24)).columns),
            Format.csv: lambda: export.as_csv(table),
            Format.markdown: lambda: export.as_markdown(table),
            Format.latex: lambda: export.as_latex(table),
            Format.json: lambda: export.as_json(table),
        }
        text = writers[form]()
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output.expanduser(), text)


def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/table3.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where results are kept, such as results/mnist.")],
) -> None:
    """Copy a run's Records, its run.json, its audits and its models' curves to a folder of its own in DIR.

    Again, it brings the copy up to date.

    Example:

        noiseopt publish runs/table3 results/mnist
    """
    from noiseopt.report.publish import publish as copy

    typer.echo(f"Published: {copy(run.expanduser(), folder.expanduser())}")


def replication(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Published results, such as results/mnist.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The page; its pictures go to figures/ beside it."),
    ] = Path("docs/replication.md"),
) -> None:
    """Write published results beside the numbers of their paper as a Markdown page, with a verdict on every claim.

    What was not measured yet is said so. The same results give the same page.

    Examples:

        noiseopt replication results/mnist -o docs/replication.md

        noiseopt replication results/ulicny -o docs/replication-ulicny.md
    """
    from noiseopt.report.replication import write_replication

    command = f"noiseopt replication {shlex.quote(str(folder))} -o {shlex.quote(str(output))}"
    path = write_replication(folder.expanduser(), output.expanduser(), command=command)
    typer.echo(f"Written: {path}")


def leaderboard(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Published and audited results, such as results/leaderboard.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The page; its pictures go to figures/ beside it."),
    ] = Path("docs/leaderboard.md"),
) -> None:
    """Write published runs as a leaderboard, a Markdown page: clean against audited accuracy, and what training costs.

    Rows that were not audited yet are named. The same results give the same page.

    Example:

        noiseopt leaderboard results/leaderboard -o docs/leaderboard.md
    """
    from noiseopt.report.leaderboard import write_leaderboard

    command = f"noiseopt leaderboard {shlex.quote(str(folder))} -o {shlex.quote(str(output))}"
    path = write_leaderboard(folder.expanduser(), output.expanduser(), command=command)
    typer.echo(f"Written: {path}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} must be writable", got=str(error), fix="give another -o FILE") from None
    typer.echo(f"Written: {path}", err=True)
