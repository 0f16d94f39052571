"""A finished or growing run as published results: its Records, run.json and curves, without models.

Nor are there images, but for a run of curves over distortions: what these look like is part of its result.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from noiseopt.checkpoint import write_atomically
from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.report.audit import current
from noiseopt.report.collect import SURROGATE
from noiseopt.report.models import curve_files, file_name
from noiseopt.report.sources import Source, read

GALLERY = ("gallery.safetensors", "gallery.json")
AUDIT = ("audit/audit.json", "audit/certificates.json", "audit/records.jsonl")


def publish(run: str | Path, folder: str | Path) -> Path:
    """Copy what others need of `run` to `folder`/<recipe>/, and return that.

    records.jsonl (whole lines only), run.json, `curves/<row>-s<seed>.jsonl` for every model of a seed that something
    was measured of (of all seeds, where nothing was measured), what `noiseopt audit` and `certify` found, and the
    gallery of a run that has curves over distortions. Doing it again brings the copy up to date.

    Raises:
        UserError: no run, nothing measured or trained in it, or `folder` cannot be written.
    """
    source = read(run)
    begun = {record.model_seed for record in source.records}
    places = curve_files(source.folder, source.about)
    wanted = [p for p in places if not begun or p.seed in begun or p.label == SURROGATE]
    curves = {file_name(place): place.path.read_bytes() for place in wanted}
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
        for name in GALLERY if source.layout.curves else ():
            if (source.folder / name).is_file():
                write_atomically(target / name, (source.folder / name).read_bytes())
        for name in AUDIT:
            if not (source.folder / name).is_file():
                (target / name).unlink(missing_ok=True)
            else:
                (target / name).parent.mkdir(exist_ok=True)
                text = (source.folder / name).read_bytes()
                write_atomically(target / name, whole_lines(text) if name.endswith(".jsonl") else _of_now(text, source))
        for name, text in curves.items():
            write_atomically(target / "curves" / name, whole_lines(text, of_records=False))
    except OSError as error:
        raise UserError(f"{target} must be writable", got=str(error), fix="name another folder") from None
    return target


def _of_now(text: bytes, source: Source) -> bytes:
    """An audit.json without the networks that the run no longer has; what cannot be read stays as it is."""
    try:
        told = json.loads(text)
        kept = current([dict(entry) for entry in told["models"]], source.about, [], what="audits")
    except (ValueError, TypeError, KeyError):
        return text
    if len(kept) == len(told["models"]):
        return text
    return f"{json.dumps({**told, 'models': kept}, indent=1, ensure_ascii=False)}\n".encode()


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
