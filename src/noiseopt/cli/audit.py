"""`noiseopt audit` and `noiseopt certify`: what is left of a run's models when everything has been tried."""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noiseopt.cli import running
from noiseopt.cli.options import RUNS, DataDir, Device, Images, OfSeeds, OnlyRows, RunsDir, Workers, counts, size
from noiseopt.errors import UserError

if TYPE_CHECKING:
    from noiseopt.audit import Verdict
    from noiseopt.audit.runs import Audited

MASKED = 3
"""Exit status of an audit that found masking."""

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run, or its name in --runs-dir.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON on stdout, and nothing else there.")]


def audit(
    run: RunName,
    eps: Annotated[
        float | None,
        typer.Option(
            metavar="SIZE",
            parser=size,
            help="Radius, pixels being in [0, 1], such as 8/255. By default 25/255 for grey images, 8/255 for colour.",
        ),
    ] = None,
    rows: OnlyRows = None,
    seeds: OfSeeds = None,
    images: Images = 1000,
    draws: Annotated[str, typer.Option(metavar="N,...", help="Draws of the gradients, rising.")] = "1,5,20,100",
    steps: Annotated[int, typer.Option(metavar="N", help="Of PGD.")] = 40,
    queries: Annotated[int, typer.Option(metavar="N", help="Of the black-box attack, for each image.")] = 500,
    votes: Annotated[int, typer.Option(metavar="N", help="Draws of the noise that decide each image.")] = 100,
    subset: Annotated[
        int, typer.Option(metavar="N", help="So many images see every attack that the checks compare.")
    ] = 100,
    autoattack: Annotated[
        bool, typer.Option("--autoattack", help="Also AutoAttack by its authors' library (slow).")
    ] = False,
    noise_off: Annotated[
        bool, typer.Option("--noise-off", help="Take the noise out first: what are the weights worth alone?")
    ] = False,
    workers: Workers = None,
    as_json: AsJson = False,
    device: Device = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Attack the trained models of a run in every way known here, and check whether the attacks could see.

    An image counts as robust only if it survives all of: EOT-PGD with more and more draws, APGD on two losses, Square,
    and attacks made on the same weights with the noise off. Then come the checks for masking, a sentence each.
    On a CPU, as many models at once as there are cores. Interrupted, the same command goes on. Writes RUN/audit/, which
    the report shows.

    Ends with status 0 where nothing was found, 3 where a check points to masking, 2 for an error that you can mend.

    Examples:

        noiseopt audit demo

        noiseopt audit runs/table3 --row "MLP+ (ReLU)" --seeds 0,1,2 --eps 0.1

        noiseopt audit runs/table4 --images 200 --autoattack --json > audit.json
    """
    from rich.console import Console

    from noiseopt.audit import Auditing
    from noiseopt.audit.display import shown
    from noiseopt.experiments.executors import suited

    audited = _audited(run, runs_dir, data_dir, device, images)
    settings = Auditing(
        eps=audited.usual_eps if eps is None else eps,
        draws=counts("draws", draws),
        steps=steps,
        queries=queries,
        votes=votes,
        subset=subset,
        autoattack=autoattack,
        seed=audited.seed,
    )
    networks = audited.networks(rows or [], counts("seeds", seeds) if seeds else None)
    with shown(Console(stderr=True)) as listener:
        verdicts = audited.audit(
            networks,
            settings,
            noise=not noise_off,
            executor=suited(device, workers=workers, at_most=len(networks)),
            batch_size=_BATCH,
            progress=lambda network, at: listener.audited(network.title, at),
        )
    if as_json:
        _print_json([verdict.as_dict() for verdict in verdicts])
    else:
        _print_verdicts(verdicts)
        typer.echo(f"Next: noiseopt report {shlex.quote(str(audited.path.parent))}")
    if any(verdict.masked for verdict in verdicts):
        raise typer.Exit(MASKED)


def certify(
    run: RunName,
    sigma: Annotated[
        float | None,
        typer.Option(
            metavar="SIZE",
            parser=size,
            help="Noise put in front, pixels being in [0, 1]. By default the model's own there.",
        ),
    ] = None,
    rows: OnlyRows = None,
    seeds: OfSeeds = None,
    images: Images = 500,
    draws: Annotated[int, typer.Option(metavar="N", help="Draws that bound the probability of the class.")] = 1000,
    alpha: Annotated[float, typer.Option(metavar="SHARE", help="How often a certificate may be wrong.")] = 0.001,
    as_json: AsJson = False,
    device: Device = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = RUNS,
) -> None:
    """Prove, for each test image, within which L2 distance the class cannot change: randomised smoothing.

    The model is asked under many draws of Gaussian noise on the image; the class that wins clearly is certain within a
    radius, and where none does it abstains. Interrupted, the same command goes on. Writes RUN/audit/.

    Examples:

        noiseopt certify demo --sigma 0.25

        noiseopt certify runs/table3 --row "MLP+ (ReLU)" --sigma 0.5 --draws 10000 --images 200
    """
    from rich.console import Console
    from rich.table import Table

    from noiseopt.audit.display import shown
    from noiseopt.certify import Certifying

    audited = _audited(run, runs_dir, data_dir, device, images)
    settings = Certifying(sigma=sigma, draws=draws, alpha=alpha, seed=audited.seed)
    found: list[dict[str, Any]] = []
    table = Table("model", "seed", "radius", "certified accuracy")
    with shown(Console(stderr=True)) as listener:
        for network in audited.networks(rows or [], counts("seeds", seeds) if seeds else None):
            progress = partial(listener.certified, network.title)
            try:
                certificates, records = audited.certify(network, settings, batch_size=_BATCH, progress=progress)
            except UserError as error:  # of which model? A run has rows with noise on the images, and rows without
                fix = f"{error.fix}; or choose rows with --row"
                raise UserError(f"{network.title}: {error.rule}", fix=fix) from error
            listener.over(network.title)
            found += [record.model_dump() for record in records]
            if not as_json:
                abstained = int((certificates.predicted == -1).sum())
                typer.echo(
                    f"{network.title}: σ = {certificates.sigma:.3g}, {draws:,} draws, wrong at most once in "
                    f"{1 / alpha:,.0f}; abstains on {abstained} of {len(certificates.predicted)} images"
                )
            for record in records:
                radius = f"{record.parameters['radius']:g}"
                table.add_row(record.model, str(record.model_seed), radius, record.describe())
    if as_json:
        _print_json(found)
    else:
        Console().print(table)


_BATCH = 100


def _audited(run: str, runs_dir: Path, data_dir: Path | None, device: str | None, images: int) -> Audited:
    from noiseopt.audit.runs import Audited

    folder = running.run_folder(run, runs_dir)
    if folder is None:
        raise UserError(f"there is no run {run}", fix=running.runs_there(runs_dir))
    command = running.spoken(sys.argv[1:])
    recipe = running.recipe_of(folder)
    return Audited(recipe, folder, data_dir=data_dir, device=device, images=images, command=command)


def _print_verdicts(verdicts: list[Verdict]) -> None:
    from rich.console import Console
    from rich.table import Table

    count = verdicts[0].accuracy.count
    table = Table("model", "seed", "clean", title=f"{count:,} test images", title_justify="left")
    table.add_column("audited, 95 %", no_wrap=True)
    for name in ("close votes", "masking"):
        table.add_column(name)
    for verdict in verdicts:
        record = verdict.accuracy
        found = "FOUND" if verdict.masked else "none"
        clean, undecided = f"{verdict.clean.value:.3f}", str(verdict.undecided)
        named = f"{record.model}, noise off" if verdict.noise_off else record.model
        table.add_row(named, str(record.model_seed), clean, record.describe(), undecided, found)
    Console().print(table)
    for verdict in verdicts:
        for check in verdict.findings:
            kind = "masking" if check.masking else "note"
            typer.echo(f"{kind}: {verdict.accuracy.model}, seed {verdict.accuracy.model_seed}: {check.sentence}")


def _print_json(models: list[dict[str, Any]]) -> None:
    typer.echo(json.dumps({"format": 1, "models": models}, indent=1, ensure_ascii=False, allow_nan=False))
