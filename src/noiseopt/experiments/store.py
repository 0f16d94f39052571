"""Records on disk: JSON lines, appended whole or not at all, each at the address of what determines it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from noiseopt.checkpoint import append_whole, write_atomically
from noiseopt.concepts import Record
from noiseopt.errors import UserError


def digest(value: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def address(*, recipe: str, data_hash: str, model_seed: int | None, code: str) -> str:
    """The content address of a Record: equal for two Records that must be equal.

    `recipe` is the hash of the part of the recipe that makes the number: the images trained on, the network, its noise
    and training, the perturbation, the state of the noise, draws and seeds.
    """
    return digest([recipe, data_hash, model_seed, code])


def part_of(whole: str, *, model: str | None, metric: str, perturbation: str, parameters: Mapping[str, Any]) -> str:
    """What stands as `recipe` in one Record of a measurement that makes many, such as an audit, of the hash `whole`.

    `model` is in it, as two rows of a recipe may have one network.
    """
    told = {"model": model, "metric": metric, "perturbation": perturbation, "parameters": parameters}
    return digest([whole, told])


def address_of(record: Record) -> str:
    """The address that a Record is found at."""
    return address(recipe=record.recipe, data_hash=record.data_hash, model_seed=record.model_seed, code=record.code)


class Store:
    """The Records of a run, in `records.jsonl`. Opening it repairs what a crash left behind.

    `repaired` says what was done to the file, None where nothing was. Every Record is on the disk when `add` returns.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises UserError where a line before the last is no Record, or the file cannot be read or written."""
        self._path = Path(path)
        self.repaired: str | None = None
        self._records: dict[str, Record] = {}
        try:
            data = self._path.read_bytes() if self._path.exists() else b""
            whole = self._mend(data)
        except OSError as error:
            raise _unusable(self._path, error) from error
        for number, line in enumerate(whole.splitlines(), start=1):
            record = _parsed(line)
            if record is None:
                rule = f"{self._path}:{number} must be a Record"
                fix = "remove that line; what it said is then measured again"
                raise UserError(rule, got=line[:80].decode(errors="replace"), fix=fix)
            self._records.setdefault(address_of(record), record)

    def _mend(self, data: bytes) -> bytes:
        """The whole lines of `data`. A process that was killed while it wrote leaves a last line without its end."""
        whole, _, torn = data.rpartition(b"\n")
        whole += b"\n" if whole else b""
        if not torn:
            return data
        if _parsed(torn) is not None:  # only its newline is missing
            append_whole(self._path, b"\n")
            self.repaired = f"{self._path.name}: the end of the last line was put back"
            return data + b"\n"
        os.truncate(self._path, len(whole))
        self.repaired = f"{self._path.name}: a torn last line was removed; its number is measured again"
        return whole

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, at: str) -> bool:
        return at in self._records

    @property
    def records(self) -> list[Record]:
        """In the order they were measured."""
        return list(self._records.values())

    def add(self, record: Record) -> None:
        """Append a Record; nothing happens if the store holds its address already.

        Raises:
            UserError: the disk is full, or the file cannot be written; the file then holds what it held before.
        """
        at = address_of(record)
        if at in self._records:
            return
        try:
            append_whole(self._path, record.model_dump_json().encode() + b"\n")
        except OSError as error:
            raise _unusable(self._path, error) from error
        self._records[at] = record

    def set_aside(self, current: Container[str], folder: Path) -> int:
        """Move Records at other addresses than `current` to `folder`/records.jsonl; returns how many.

        A recipe that was changed must not share a table with what it said before, and a number that took hours is not
        thrown away.
        """
        stale = {at: record for at, record in self._records.items() if at not in current}
        if stale:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise _unusable(folder, error) from error
            old = Store(folder / self._path.name)
            for record in stale.values():
                old.add(record)
            self._records = {at: record for at, record in self._records.items() if at not in stale}
            lines = (record.model_dump_json() + "\n" for record in self._records.values())
            write_atomically(self._path, "".join(lines).encode())
        return len(stale)


def _parsed(line: bytes) -> Record | None:
    try:
        return Record.model_validate_json(line)
    except ValidationError:
        return None


def _unusable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(
        f"{path} must be readable and writable", got=reason, fix="free space, or choose another --runs-dir"
    )
