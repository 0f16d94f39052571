"""A finished or growing run as published results: its Records, run.json and curves, without models.

Nor are there images, but for a run of curves over distortions: what these look like is part of its result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from noiseopt.checkpoint import write_atomically
from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.experiments.store import part_of
from noiseopt.report.audit import current
from noiseopt.report.collect import SURROGATE
from noiseopt.report.models import curve_files, file_name
from noiseopt.report.sources import Source, read

GALLERY = ("gallery.safetensors", "gallery.json")
# The Records last: which of them count, the others say.
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
        audits: list[dict[str, Any]] | None = []
        for name in AUDIT:
            if not (source.folder / name).is_file():
                (target / name).unlink(missing_ok=True)
                continue
            (target / name).parent.mkdir(exist_ok=True)
            text = (source.folder / name).read_bytes()
            if name.endswith(".jsonl"):
                text = whole_lines(text) if audits is None else _of_audits(whole_lines(text), audits)
            else:
                text, entries = _of_now(text, source)
                audits = None if audits is None or entries is None else [*audits, *entries]
            write_atomically(target / name, text)
        for name, text in curves.items():
            write_atomically(target / "curves" / name, whole_lines(text, of_records=False))
    except OSError as error:
        raise UserError(f"{target} must be writable", got=str(error), fix="name another folder") from None
    return target


def _of_now(text: bytes, source: Source) -> tuple[bytes, list[dict[str, Any]] | None]:
    """An audit.json without the networks that the run no longer has, and its entries; None: it cannot be read, and
    stays.
    """
    try:
        told = json.loads(text)
        kept = current([dict(entry) for entry in told["models"]], source.about, [], what="audits")
    except (ValueError, TypeError, KeyError):
        return text, None
    if len(kept) == len(told["models"]):
        return text, kept
    return f"{json.dumps({**told, 'models': kept}, indent=1, ensure_ascii=False)}\n".encode(), kept


def _of_audits(lines: bytes, entries: Sequence[Mapping[str, Any]]) -> bytes:
    """The Records of these audits and certificates: those of one that was since made anew would stand beside them, and
    nothing would tell them apart. Where an entry (of an older version) names no hash, its network's stay.
    """
    hashes: dict[object, list[str | None]] = {}
    for entry in entries:
        column = "certified" if "certified" in entry else "audit"
        hashes.setdefault((column, entry.get("model"), entry.get("model_seed")), []).append(entry.get("hash"))

    def stays(line: bytes) -> bool:
        record = Record.model_validate_json(line)
        told = record.model_dump(include={"model", "metric", "perturbation", "parameters"})
        made = hashes.get((record.column, record.model, record.model_seed), [])
        return None in made or any(part_of(one, **told) == record.recipe for one in made if one)

    try:
        return b"".join(line for line in lines.splitlines(keepends=True) if stays(line))
    except ValidationError:
        return lines


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
