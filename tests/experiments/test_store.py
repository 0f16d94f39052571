from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.experiments.store import Store, address_of, digest


def record(number: int, **changes: Any) -> Record:
    values = {"value": 0.5, "count": 2, "low": 0.1, "high": 0.9, "noise": False, "draws": 1, "recipe": f"r{number}"}
    return Record(**{**values, **changes})


def test_what_is_added_is_there_after_reopening(tmp_path: Path) -> None:
    store = Store(tmp_path / "records.jsonl")
    records = [record(n, parameters={"eps": 0.1, "text": "ü\n"}) for n in range(3)]
    for r in records:
        store.add(r)
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 3
    again = Store(tmp_path / "records.jsonl")
    assert again.records == records
    assert again.repaired is None
    assert address_of(records[0]) in again
    assert address_of(record(9)) not in again


def test_an_address_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "records.jsonl")
    store.add(record(1))
    store.add(record(1, value=0.75))  # the same cell again: what it was is kept
    assert [r.value for r in Store(tmp_path / "records.jsonl").records] == [0.5]
    for other in ({"data_hash": "d"}, {"model_seed": 1}, {"code": "other"}, {"recipe": "x"}):
        store.add(record(1, **other))
    assert len(Store(tmp_path / "records.jsonl")) == 5


def test_a_line_torn_at_any_byte_is_repaired(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = [r.model_dump_json().encode() + b"\n" for r in (record(1), record(2))]
    for kept in range(len(lines[1])):
        path.write_bytes(lines[0] + lines[1][:kept])
        store = Store(path)
        whole = kept == len(lines[1]) - 1  # everything but the newline
        assert [r.recipe for r in store.records] == (["r1", "r2"] if whole else ["r1"])
        assert (store.repaired is None) == (kept == 0)
        assert path.read_bytes() == (lines[0] + lines[1] if whole else lines[0])
        store.add(record(3))
        assert Store(path).repaired is None
        assert Store(path).records[-1].recipe == "r3"


def test_a_file_that_was_only_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"metric":"acc')
    assert Store(path).records == []
    assert path.read_bytes() == b""


def test_a_damaged_line_before_the_last_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(record(1).model_dump_json() + "\nnonsense\n" + record(2).model_dump_json() + "\n")
    with pytest.raises(UserError, match=r"records\.jsonl:2 must be a Record; got nonsense; fix: remove that line"):
        Store(path)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    store = Store(path)
    store.add(record(1))
    before = path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))
    with pytest.raises(UserError, match="disk is full"):
        store.add(record(2))
    monkeypatch.undo()
    assert path.read_bytes() == before
    store.add(record(2))
    assert [r.recipe for r in Store(path).records] == ["r1", "r2"]


def test_a_place_that_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be readable and writable"):
        Store(tmp_path)
    with pytest.raises(UserError, match="must be readable and writable"):
        Store(tmp_path / "missing" / "records.jsonl").add(record(1))


def _append(path: str, first: int) -> None:
    store = Store(path)
    for number in range(first, first + 50):
        store.add(record(number))


def test_two_processes_may_append(tmp_path: Path) -> None:
    path = str(tmp_path / "records.jsonl")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append, args=(path, first)) for first in (0, 1000)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(Store(path)) == 100


def test_other_records_are_set_aside_and_not_lost(tmp_path: Path) -> None:
    store = Store(tmp_path / "records.jsonl")
    for number in range(4):
        store.add(record(number))
    keep = {address_of(record(1)), address_of(record(3))}
    assert store.set_aside(keep, tmp_path / "old") == 2
    assert store.set_aside(keep, tmp_path / "old") == 0
    assert [r.recipe for r in Store(tmp_path / "records.jsonl").records] == ["r1", "r3"]
    assert [r.recipe for r in Store(tmp_path / "old" / "records.jsonl").records] == ["r0", "r2"]


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, {"c": 2.5}]}) == digest({"b": [1, {"c": 2.5}], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest([1, 2]) != digest([2, 1])
