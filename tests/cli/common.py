"""What tests of the command line share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Invoke = Callable[..., tuple[int, str, str]]


def model_folder(run: Path, label: str, *, seed: int = 0) -> Path:
    """Where the model is, as run.json says."""
    listed = {(m["label"], m["seed"]): m["folder"] for m in json.loads((run / "run.json").read_text())["models"]}
    return (run / listed[label, seed]).resolve()


def last_line(err: str) -> str:
    return err.rstrip("\n").rpartition("\n")[2]
