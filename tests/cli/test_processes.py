from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from noiseopt.experiments.store import Store
from tests.cli.common import Invoke, last_line, model_folder
from tests.experiments.conftest import TINY


def start(here: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "noiseopt.cli", *arguments],
        cwd=here,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if found():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("it did not come")


def curves(here: Path) -> list[str]:
    """The lines of the MLP's curves."""
    try:
        return (model_folder(here / "runs/tiny", "MLP") / "curves.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []


def descendants(pid: int) -> set[int]:
    """The processes below `pid`, and theirs."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return {*children, *(below for child in children for below in descendants(child))}


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_command_goes_on(invoke: Invoke, here: Path, how: signal.Signals, workers: int) -> None:
    text = TINY.replace("options: {hidden: [8]}}", "options: {hidden: [8]}, training: {epochs: 80}}", 1)
    (here / "tiny.yaml").write_text(text, encoding="utf-8")
    command = ("train", "tiny.yaml", "--device", "cpu", "--workers", str(workers))
    process = start(here, *command)
    wait_for(lambda: bool(curves(here)), process)
    below = descendants(process.pid)
    assert len(below) >= (workers if workers > 1 else 0)
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: to the workers too
    else:
        process.send_signal(how)
    _, err = process.communicate(timeout=60)  # also: until nobody holds its stderr any more
    assert "Traceback" not in err
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert last_line(err) == "interrupted; the same command goes on"
    else:
        assert process.returncode == -signal.SIGKILL
    for _ in range(1000):
        if not any(map(lives, below)):
            break
        time.sleep(0.01)
    assert not any(map(lives, below))
    (here / "runs/tiny/records.jsonl").write_text('{"metric": "accu')  # as a kill while writing leaves it
    assert 1 <= len(curves(here)) < 80
    # One worker goes on with what two have begun, too.
    status, _, err = invoke(
        *(command if how is signal.SIGINT else command[:-1]), *([] if how is signal.SIGINT else "1")
    )
    assert status == 0, err
    assert workers == 2 or "already there: 1 of 4 models" in err
    assert "torn last line" in err
    assert [json.loads(line)["epoch"] for line in curves(here)] == list(range(1, 81))
    assert len(Store(here / "runs/tiny/records.jsonl")) == 0


def test_a_closed_pipe_is_no_error(here: Path) -> None:
    command = f"{sys.executable} -m noiseopt.cli data list | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=here, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.stdout.startswith("mnist ")
