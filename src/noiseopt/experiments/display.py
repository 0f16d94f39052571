"""Draws the events of a run: live on a terminal, one line for each thing done elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from noiseopt.experiments.events import Began, Died, Ended, EpochDone, Event, Failed, Listener, Note, Planned


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
        self._left: Counter[str] = Counter()
        self._measured: dict[str, list[float]] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._line(_heading(event))
                self._trainings, self._trained = event.trainings, event.trained
                self._left = Counter(event.groups)
                if event.trained or event.measured:
                    have = f"{event.trained} of {event.trainings} models and {event.measured} of {event.measurements}"
                    self._line(f"already there: {have} numbers")
            case Ended(kind="train"):
                self._trained += 1
                place = f"[{self._trained}/{self._trainings}]"
                self._line(f"{place} trained {event.title}: {event.result} ({event.seconds:.1f} s)")
            case Ended(kind="measure"):
                self._measured.setdefault(event.group, []).append(event.seconds)
                self._one_less(event.group)
            case Failed():
                self._line(Text(f"failed: {event.title}: {event.reason}", style="red"))
                self._one_less(event.group)
            case Died():
                self._line(f"note: {_death(event)}")
            case Note():
                self._line(f"note: {event.text}")

    def flush(self) -> None:
        """The lines of the columns of which some is measured and some is not."""
        for group in list(self._measured):
            self._column(group)

    def _one_less(self, group: str) -> None:
        self._left[group] -= 1
        if self._left[group] == 0:
            self._column(group)

    def _column(self, group: str) -> None:
        if seconds := self._measured.pop(group, []):
            self._line(f"measured {group}: {len(seconds)} numbers ({sum(seconds):.1f} s)")

    def _line(self, text: str | Text) -> None:
        # A log file has no width: a line stays a line.
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


class _Live:
    """Two bars, and a line for each cell that is running; what is worth keeping scrolls by above them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}", justify="right"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[running]}", style="dim"),
            TextColumn("{task.fields[failed]}", style="red"),
            console=console,
            speed_estimate_period=24 * 3600,  # a cell may take an hour: all that have ended are reckoned with
        )
        self._tasks: dict[str, TaskID] = {}
        self._now: dict[str, dict[str, str]] = {"train": {}, "measure": {}, "gallery": {}}
        self._waiting: set[str] = {"train", "measure"}
        self._done: Counter[str] = Counter()
        self._total: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._live = Live(self, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> _Live:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        for running in self._now.values():
            running.clear()
        self._live.__exit__(None, None, None)

    def __call__(self, event: Event) -> None:
        match event:
            case Planned():
                self._print(_heading(event))
                self._total.update(train=event.trainings, measure=event.measurements)
                self._done.update(train=event.trained, measure=event.measured)
                self._add("train", "Training", event.epochs)
                self._add("measure", "Measuring", event.effort)
            case Began():
                if event.kind in self._waiting and event.kind in self._tasks:
                    self._waiting.remove(event.kind)
                    task = self._tasks[event.kind]
                    # The time left is reckoned from here, not from when the bar was first shown.
                    self._bars.reset(task, completed=int(self._bars.tasks[task].completed))
                self._now[event.kind][event.title] = ""
                self._count(event.kind)
            case EpochDone():
                self._now["train"][event.title] = (
                    f": epoch {event.epoch} of {event.epochs}, loss {event.loss:.3f}, validation {event.accuracy:.3f}"
                )
                self._bars.advance(self._tasks["train"])
            case Ended():
                if event.kind == "train":
                    self._print(Text(f"  {event.title}: {event.result} ({event.seconds:.1f} s)", style="dim"))
                self._over(event, done=1)
            case Failed():
                self._print(Text(f"  failed: {event.title}: {event.reason}", style="red"))
                self._over(event, failed=1)
            case Died():
                self._print(Text(f"  {_death(event)}", style="red"))
                self._over(event)
            case Note():
                self._print(Text(f"  {event.text}", style="dim"))

    def __rich__(self) -> Group:
        running = [title + more for cells in self._now.values() for title, more in cells.items()]
        room = max(1, self._console.height - 6)
        if len(running) > room:
            running = [*running[: room - 1], f"and {len(running) - room + 1} more"]
        if len(self._waiting) == 2:  # no cell has begun
            running = ["starting" if self._tasks else "reading the data"]
        return Group(self._bars, *(Text(f"  {line}", overflow="ellipsis", no_wrap=True) for line in running))

    def _add(self, kind: str, name: str, left: int) -> None:
        full = 0 if left else 1
        self._tasks[kind] = self._bars.add_task(
            name, total=left or full, completed=full, count="", running="", failed="", start=False
        )
        self._count(kind)

    def _over(self, event: Ended | Failed | Died, *, done: int = 0, failed: int = 0) -> None:
        self._now[event.kind].pop(event.title, None)
        self._done[event.kind] += done
        self._failed[event.kind] += failed
        if event.kind == "measure" and not isinstance(event, Died):
            self._bars.advance(self._tasks["measure"], event.effort)
        self._count(event.kind)

    def _count(self, kind: str) -> None:
        if kind not in self._tasks:
            return
        count = f"{self._done[kind]}/{self._total[kind]}"
        running, failed = len(self._now[kind]), self._failed[kind]
        self._bars.update(
            self._tasks[kind],
            count=count,
            running=f"{running} running" if running else "",
            failed=f"{failed} failed" if failed else "",
        )

    def _print(self, text: Text) -> None:
        self._live.console.print(text, highlight=False)


def _death(event: Died) -> str:
    return f"{event.title}: its worker was lost ({event.reason})"
