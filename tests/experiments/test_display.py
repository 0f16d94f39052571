from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.text import Text

from noiseopt.experiments.display import _Live, shown
from noiseopt.experiments.events import Began, Died, Ended, EpochDone, Event, Failed, Note, Planned

LONG = "contrast 5 (strict) on A row with quite a long label, of sixty letters and more, noise off, seed 0"
EVENTS: list[Event] = [
    Planned("tiny", "images, 32 to train on; cpu", 2, 1, 5, 1, 2, {"white box PGD": 2, "contrast": 2}, 40),
    Note("records.jsonl: a torn last line was removed"),
    Began("train", "MLP [bold], seed 0"),
    EpochDone("MLP [bold], seed 0", 1, 2, 0.5, 0.75),
    EpochDone("MLP [bold], seed 0", 2, 2, 0.25, 0.8),
    Ended("train", "MLP [bold], seed 0", "loss 0.250", 1.25),
    Began("measure", "PGD on MLP"),
    Began("measure", LONG),
    Ended("measure", "PGD on MLP", "0.500", 1.0, "white box PGD", 10),
    Failed("measure", LONG, "it cannot be done", "contrast", 10),
    Began("measure", "contrast on MLP+"),
    Began("measure", "PGD on MLP+"),
    Died("measure", "PGD on MLP+", "killed by signal 9"),
    Began("measure", "PGD on MLP+"),
    Ended("measure", "PGD on MLP+", "0.500", 0.5, "white box PGD", 10),
    Ended("measure", "contrast on MLP+", "0.500", 0.25, "contrast", 10),
    Began("gallery", "example images"),
    Ended("gallery", "example images", "8 images", 0.1),
]


def drawn(console: Console) -> str:
    with shown(console) as listener:
        for event in EVENTS:
            listener(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_there_is_one_plain_line_for_each_thing_done() -> None:
    lines = drawn(Console(file=io.StringIO(), width=40)).splitlines()
    assert lines == [
        "tiny · images, 32 to train on; cpu",
        "already there: 1 of 2 models and 1 of 5 numbers",
        "note: records.jsonl: a torn last line was removed",
        "[2/2] trained MLP [bold], seed 0: loss 0.250 (1.2 s)",
        f"failed: {LONG}: it cannot be done",
        "note: PGD on MLP+: its worker was lost (killed by signal 9)",
        "measured white box PGD: 2 numbers (1.5 s)",
        "measured contrast: 1 numbers (0.2 s)",
    ]


def test_a_column_that_was_not_finished_has_its_line_at_the_end() -> None:
    console = Console(file=io.StringIO(), width=40)
    with shown(console) as listener:
        for event in EVENTS[:9]:
            listener(event)
    assert console.file.getvalue().splitlines()[-1] == "measured white box PGD: 1 numbers (1.0 s)"  # type: ignore[attr-defined]


def test_every_cell_that_runs_has_a_line_as_far_as_there_is_room() -> None:
    console = Console(file=io.StringIO(), width=80, height=10, force_terminal=True, color_system=None)
    live = _Live(console)
    listed = lambda: [line.plain.strip() for line in live.__rich__().renderables if isinstance(line, Text)]  # noqa: E731
    assert listed() == ["reading the data"]
    live(EVENTS[0])
    assert listed() == ["starting"]
    for name in "abc":
        live(Began("train", name))
    live(EpochDone("b", 1, 2, 0.5, 0.75))
    assert listed() == ["a", "b: epoch 1 of 2, loss 0.500, validation 0.750", "c"]
    live(Died("train", "a", "killed by signal 9"))
    live(Failed("train", "c", "wrong"))
    assert listed() == ["b: epoch 1 of 2, loss 0.500, validation 0.750"]
    for name in "defgh":
        live(Began("train", name))
    assert listed()[1:] == ["d", "e", "and 3 more"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_on_a_terminal_no_line_is_wider_than_it(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn(console)).replace("\r", "\n")
    assert max(map(len, text.splitlines())) <= width
    assert "Training" in text
    assert "Measuring" in text
    flat = " ".join(text.split())
    assert "MLP [bold], seed 0: loss 0.250 (1.2 s)" in flat
    assert "it cannot be done" in flat
    assert "1 failed" in text or width == 40
    assert "2 running" in text or width == 40
    assert "its worker was lost" in flat
    assert "epoch 2 of 2, loss 0.250" in flat or width < 80


def interrupted(console: Console) -> None:
    with shown(console) as listener:
        listener(EVENTS[0])
        raise KeyboardInterrupt


def test_an_exception_passes_and_the_cursor_comes_back() -> None:
    file = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        interrupted(Console(file=file, width=80, force_terminal=True))
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in drawn(Console(file=io.StringIO(), force_terminal=True, color_system=None))
