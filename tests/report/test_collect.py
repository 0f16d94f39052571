from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.report.collect import collect


def test_a_whole_run_is_read(run_dir: Path) -> None:
    run = collect(run_dir)
    assert run.notes == []
    assert len(run.records) == len((run_dir / "records.jsonl").read_text().splitlines())
    assert [curve.row for curve in run.curves] == list(run.layout.rows)
    assert run.curves[0].epochs == tuple(range(1, 13))
    assert [sigma.row for sigma in run.sigmas] == [row for row in run.layout.rows if "+" in row or "MLPN" in row]
    assert run.gallery is not None
    assert run.gallery.images.shape == (8, 3, 1, 28, 28)
    assert set(run.gallery.predictions) == set(run.layout.rows)


def test_layers_keep_the_order_of_the_model(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    run = collect(make_run(tmp_path / "cnn", rows=["CNN", "CNN-AN"], conv=True, paper="4"))
    assert list(run.sigmas[0].layers) == ["features.conv1", "features.conv2", "fc1", "fc2"]


def test_models_are_where_run_json_says(run_dir: Path) -> None:
    (run_dir / "models" / "MLP+ (ReLU)-s0").rename(run_dir.parent / "1f2e")
    about = json.loads((run_dir / "run.json").read_text())
    listed = [
        {"label": "MLP+ (ReLU)", "seed": 7, "folder": "../1f2e"},
        {"label": "MLPN (ReLU)", "seed": 0, "folder": "../gone"},
        {"label": "MLP (ReLU)", "seed": 0, "folder": "models/MLP (ReLU)-s0"},
    ]
    (run_dir / "run.json").write_text(json.dumps({**about, "models": listed}))
    run = collect(run_dir)
    assert [(curve.row, curve.seed) for curve in run.curves] == [("MLP (ReLU)", 0), ("MLP+ (ReLU)", 7)]
    assert [(sigma.row, sigma.seed) for sigma in run.sigmas] == [("MLP+ (ReLU)", 7)]
    assert run.notes == []


@pytest.mark.parametrize("content", [None, "", "[1]", '{"seed": 0', "\xff"])
def test_a_folder_without_a_readable_run_json_is_the_users_error(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if content is not None:
        (folder / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match="fix: "):
        collect(folder)


def test_no_folder_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a run directory must exist"):
        collect(tmp_path / "nowhere")


def test_a_torn_last_line_is_left_out_and_noted(run_dir: Path) -> None:
    path = run_dir / "records.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[0][:40])
    run = collect(run_dir)
    assert len(run.records) == len(whole.splitlines())
    assert any("torn" in note for note in run.notes)


def test_broken_lines_in_the_middle_are_left_out_and_noted(run_dir: Path) -> None:
    path = run_dir / "records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "]{", '{"value": 1}', "[]", *lines[1:]]))
    run = collect(run_dir)
    assert len(run.records) == len(lines)
    assert sum("not JSON" in note for note in run.notes) == 2
    assert any("1 line(s) are no Records" in note for note in run.notes)


def test_nan_is_read_as_nan_whether_written_as_nan_or_null(run_dir: Path, make_record: Callable[..., Record]) -> None:
    record = make_record(math.nan, model="MLP (ReLU)", column="clean")
    null = record.model_dump_json()
    assert '"value":null' in null
    (run_dir / "records.jsonl").write_text(null + "\n" + json.dumps(record.model_dump()) + "\n")
    run = collect(run_dir)
    assert len(run.records) == 2
    assert all(math.isnan(r.value) for r in run.records)
    assert any("NaN" in note for note in run.notes)


def test_missing_parts_become_notes(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "models")
    for name in ("records.jsonl", "gallery.safetensors", "gallery.json"):
        (run_dir / name).unlink()
    run = collect(run_dir)
    assert run.records == run.curves == run.sigmas == ()
    assert run.gallery is None
    assert len(run.notes) == 2


def test_an_unfinished_run_says_so(run_dir: Path) -> None:
    about = json.loads((run_dir / "run.json").read_text())
    del about["seconds"]
    (run_dir / "run.json").write_text(json.dumps(about))
    assert any("not finished" in note for note in collect(run_dir).notes)


def test_broken_tensors_become_notes(run_dir: Path) -> None:
    (run_dir / "gallery.safetensors").write_bytes(b"\x08\x00")
    (run_dir / "models" / "MLPN (ReLU)-s0" / "sigma.safetensors").write_bytes(b"")
    run = collect(run_dir)
    assert run.gallery is None
    assert "MLPN (ReLU)" not in {sigma.row for sigma in run.sigmas}
    assert len(run.notes) == 2


def test_a_gallery_that_does_not_fit_together_is_left_out(run_dir: Path) -> None:
    about = json.loads((run_dir / "gallery.json").read_text())
    (run_dir / "gallery.json").write_text(json.dumps({**about, "perturbations": ["clean"]}))
    run = collect(run_dir)
    assert run.gallery is None
    assert any("gallery cannot be read" in note for note in run.notes)


def test_an_epoch_written_twice_counts_once_and_odd_values_are_nan(run_dir: Path) -> None:
    path = run_dir / "models" / "MLP (ReLU)-s0" / "curves.jsonl"
    again = {"epoch": 12, "train_loss": 7.0, "validation_loss": "?", "validation_accuracy": None}
    path.write_text(path.read_text() + json.dumps(again) + "\n")
    curve = collect(run_dir).curves[0]
    assert curve.epochs == tuple(range(1, 13))
    assert curve.values["train_loss"][-1] == 7.0
    assert math.isnan(curve.values["validation_loss"][-1])


def test_a_noise_level_without_its_start_is_left_out(run_dir: Path) -> None:
    path = run_dir / "models" / "MLPN (ReLU)-s0" / "sigma.safetensors"
    save_file({"after/fc1": np.ones(3, np.float32)}, path)
    assert "MLPN (ReLU)" not in {sigma.row for sigma in collect(run_dir).sigmas}


def test_failures_are_told_and_the_surrogate_is_no_row(run_dir: Path) -> None:
    about = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**about, "failures": {"PGD on MLP": "out of memory"}}))
    shutil.copytree(run_dir / "models" / "MLP (ReLU)-s0", run_dir / "models" / "surrogate-s1000")
    run = collect(run_dir)
    assert run.notes == ["Failed: PGD on MLP: out of memory"]
    assert [curve.row for curve in run.curves] == list(run.layout.rows)


def test_a_recipe_without_columns_lacks_no_records(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"columns": []}, "seconds": 1.0}))
    assert collect(tmp_path).notes == []
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"columns": [{"key": "clean"}]}, "seconds": 1.0}))
    assert any("records.jsonl" in note for note in collect(tmp_path).notes)
