"""A finished or growing run as published results: its Records, run.json and curves, without models or images."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from noiseopt.checkpoint import write_atomically
from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.report.models import curve_files, file_name
from noiseopt.report.sources import read


def publish(run: str | Path, folder: str | Path) -> Path:
    """Copy what others need of `run` to `folder`/<recipe>/, and return that.

    records.jsonl (whole lines only), run.json, and `curves/<row>-s<seed>.jsonl` for every model. Doing it again
    brings the copy up to date.

    Raises:
        UserError: no run, nothing measured or trained in it, or `folder` cannot be written.
    """
    source = read(run)
    curves = {file_name(place): place.path.read_bytes() for place in curve_files(source.folder, source.about)}
    if not curves and not source.records:
        fix = "run `noiseopt train` and `noiseopt evaluate` with its recipe first"
        raise UserError("a run must have Records or curves to publish", got=str(run), fix=fix)
    target = Path(folder) / Path(source.name).name
    if target.resolve() == source.folder.resolve():
        raise UserError("results are published to another folder than the run's", got=str(folder), fix="name another")
    try:
        (target / "curves").mkdir(parents=True, exist_ok=True)
        for stale in (target / "curves").glob("*.jsonl"):
            if stale.name not in curves:
                stale.unlink()
        if (source.folder / "records.jsonl").is_file():
            write_atomically(target / "records.jsonl", whole_lines((source.folder / "records.jsonl").read_bytes()))
        write_atomically(target / "run.json", (source.folder / "run.json").read_bytes())
        for name, text in curves.items():
            write_atomically(target / "curves" / name, whole_lines(text, of_records=False))
    except OSError as error:
        raise UserError(f"{target} must be writable", got=str(error), fix="name another folder") from None
    return target


def whole_lines(data: bytes, *, of_records: bool = True) -> bytes:
    """`data` without a torn last line, which a run that is at work or was killed leaves.

    `of_records`: a last line that lacks no more than its newline is whole.
    """
    whole, _, torn = data.rpartition(b"\n")
    whole += b"\n" if whole else b""
    if torn and of_records:
        try:
            Record.model_validate_json(torn)
        except ValidationError:
            return whole
        return whole + torn + b"\n"
    return whole
