"""A run's folder: what it holds, who may write to it, and what of it belongs to another recipe."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noiseopt import checkpoint
from noiseopt.errors import UserError
from noiseopt.experiments.cells import Training

RUN_FILES = ("run.json", "records.jsonl", "gallery.safetensors", "gallery.json", "report.html", ".lock")
RUN_FOLDERS = ("models", "set-aside")


class RunFolder:
    """`<runs_dir>/<name>`, as the report reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside_folder = path / "set-aside"

    @contextmanager
    def open(self) -> Iterator[None]:
        """Make the folder and keep every other noiseopt out of it meanwhile.

        Raises:
            UserError: it cannot be made or written, or another process is at work in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"the folder {self.path} must be writable", got=reason, fix="choose another --runs-dir"
            ) from None
        with lock:
            if sys.platform != "win32":
                import fcntl

                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    rule = f"another noiseopt is at work in {self.path}"
                    raise UserError(rule, fix="wait for it, or choose another --runs-dir") from None
            yield

    def remove(self) -> None:
        """Remove what a run writes, and nothing else.

        Raises:
            UserError: a file could not be removed.
        """
        try:
            for name in RUN_FILES:
                (self.path / name).unlink(missing_ok=True)
            for name in RUN_FOLDERS:
                if (self.path / name).is_dir():
                    shutil.rmtree(self.path / name)
        except OSError as error:
            raise UserError(f"{self.path} could not be emptied", got=str(error), fix="remove it by hand") from None

    def about(self) -> dict[str, Any]:
        """What run.json says; {} where there is none (yet)."""
        try:
            about = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

    @contextmanager
    def described(self, about: dict[str, Any], failures: Mapping[str, Exception]) -> Iterator[None]:
        """Write run.json when the block begins, and again when it ends: with the time that was worked, over all
        the times this recipe was run, as `seconds`. It stays null where the block is left by an exception.
        """
        known = self.about()
        before = 0.0
        if known.get("recipe") == about["recipe"]:
            about |= {"started": known.get("started", about["started"])}
            before = float(known.get("seconds") or known.get("seconds_so_far") or 0)
        clock = time.perf_counter()

        def write(seconds: float | None, worked: float) -> None:
            failed = {title: str(error) for title, error in failures.items()}
            text = json.dumps({**about, "seconds": seconds, "seconds_so_far": worked, "failures": failed}, indent=2)
            checkpoint.write_atomically(self.path / "run.json", f"{text}\n".encode())

        write(None, before)
        finished = False
        try:
            yield
            finished = True
        finally:
            worked = round(before + time.perf_counter() - clock, 3)
            write(worked if finished else None, worked)

    def epochs_done(self, cell: Training) -> int:
        """How many epochs of this very cell have been run; 0 where there is no checkpoint, or one of another."""
        state = self._state(cell)
        return len(state["curves"]) if state and state["identity"].get("about.cell") == cell.hash else 0

    def set_aside(self, cell: Training) -> bool:
        """Make room for `cell` where the model in its folder is of another one; says whether it was."""
        state = self._state(cell)
        if state is None or state["identity"].get("about.cell") == cell.hash:
            return False
        old = str(state["identity"].get("about.cell"))[:12]
        target = self.set_aside_folder / f"{cell.folder}-{old}"
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.path / cell.folder).rename(target)
        return True

    def checkpoint(self, cell: Training) -> Path:
        return self.path / cell.folder / "checkpoint.safetensors"

    def _state(self, cell: Training) -> dict[str, Any] | None:
        if not self.checkpoint(cell).exists():
            return None
        return checkpoint.load(self.checkpoint(cell))[1]
