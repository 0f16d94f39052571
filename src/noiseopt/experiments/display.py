"""Draws the events of a run: live on a terminal, one line for each thing done elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from noiseopt.experiments.events import Began, Ended, EpochDone, Event, Failed, Listener, Note, Planned


@contextmanager
def shown(console: Console) -> Iterator[Listener]:
    """A listener that draws on `console` inside the block."""
    if not console.is_terminal or console.is_dumb_terminal:
        plain = _Plain(console)
        yield plain
        plain.flush()
        return
    with _Live(console) as live:
        yield live


def _heading(event: Planned) -> Text:
    return Text.assemble((event.name, "bold"), f" · {event.about}")


class _Plain:
    """A line when a model is trained, when a column is measured, and when something fails."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._trainings = self._trained = 0
        self._group, self._cells, self._seconds = "", 0, 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._line(_heading(event))
                self._trainings, self._trained = event.trainings, event.trained
                if event.trained or event.measured:
                    have = f"{event.trained} of {event.trainings} models and {event.measured} of {event.measurements}"
                    self._line(f"already there: {have} numbers")
            case Ended(kind="train"):
                self._trained += 1
                place = f"[{self._trained}/{self._trainings}]"
                self._line(f"{place} trained {event.title}: {event.result} ({event.seconds:.1f} s)")
            case Ended(kind="measure"):
                if event.group != self._group:
                    self.flush()
                self._group = event.group
                self._cells, self._seconds = self._cells + 1, self._seconds + event.seconds
            case Failed():
                self._line(Text(f"failed: {event.title}: {event.reason}", style="red"))
            case Note():
                self._line(f"note: {event.text}")

    def flush(self) -> None:
        """The line of the column that was being measured."""
        if self._cells:
            self._line(f"measured {self._group}: {self._cells} numbers ({self._seconds:.1f} s)")
        self._cells, self._seconds = 0, 0.0

    def _line(self, text: str | Text) -> None:
        # A log file has no width: a line stays a line.
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


class _Live:
    """Two bars, and the line of the cell that is running; what is worth keeping scrolls by above them."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", justify="right"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[failed]}", style="red"),
            console=console,
        )
        self._now = Text("  reading the data", overflow="ellipsis", no_wrap=True)
        self._live = Live(Group(self._bars, self._now), console=console, refresh_per_second=8, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._waiting: set[str] = set()
        self._done: dict[str, int] = {"train": 0, "measure": 0}
        self._total: dict[str, int] = {"train": 0, "measure": 0}
        self._failed: dict[str, int] = {"train": 0, "measure": 0}

    def __enter__(self) -> _Live:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._now.plain = ""
        self._live.__exit__(None, None, None)

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._print(_heading(event))
                self._total = {"train": event.trainings, "measure": event.measurements}
                self._done = {"train": event.trained, "measure": event.measured}
                self._add("train", "Training", total=event.epochs or 1, completed=0 if event.epochs else 1)
                self._add("measure", "Measuring", total=event.measurements, completed=event.measured)
            case Began():
                if event.kind in self._waiting:
                    self._waiting.remove(event.kind)
                    task = self._tasks[event.kind]
                    # The time left is reckoned from here, not from when the bar was first shown.
                    self._bars.reset(task, completed=int(self._bars.tasks[task].completed))
                self._now.plain = f"  {event.title}"
            case EpochDone():
                self._now.plain = (
                    f"  {event.title}: epoch {event.epoch} of {event.epochs}, loss {event.loss:.3f}, "
                    f"validation {event.accuracy:.3f}"
                )
                self._bars.advance(self._tasks["train"])
            case Ended():
                if event.kind == "train":
                    self._print(Text(f"  {event.title}: {event.result} ({event.seconds:.1f} s)", style="dim"))
                self._count(event.kind, done=1)
            case Failed():
                self._print(Text(f"  failed: {event.title}: {event.reason}", style="red"))
                self._count(event.kind, failed=1)
            case Note():
                self._print(Text(f"  {event.text}", style="dim"))

    def _add(self, kind: str, name: str, *, total: int, completed: int) -> None:
        self._tasks[kind] = self._bars.add_task(
            name, total=total, completed=completed, count="", failed="", start=False
        )
        self._count(kind)

    def _count(self, kind: str, *, done: int = 0, failed: int = 0) -> None:
        if kind not in self._tasks:
            return
        self._done[kind] += done
        self._failed[kind] += failed
        if kind == "measure":
            self._bars.advance(self._tasks[kind], done + failed)
        failures = f"{self._failed[kind]} failed" if self._failed[kind] else ""
        count = f"{self._done[kind]}/{self._total[kind]}"
        self._bars.update(self._tasks[kind], count=count, failed=failures)

    def _print(self, text: Text) -> None:
        self._live.console.print(text, highlight=False)
