"""A line for each model that is being audited, which says where its audit is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

from noiseopt.audit.running import Progress


class Shown:
    """Draws lines on `console`; where that is no terminal, one for each attack that has ended."""

    def __init__(self, console: Console, status: Status | None) -> None:
        self._console, self._status = console, status
        self._now: dict[str, str] = {}
        self._ended: set[tuple[str, str]] = set()

    def audited(self, model: str, at: Progress | None) -> None:
        """Where the audit of `model` is; None: over."""
        if at is None:
            self.over(model)
            return
        self._say(model, at.title, at.done, at.total, f"{at.left:,} of {at.images:,} left before")

    def certified(self, model: str, done: int, total: int) -> None:
        """How many of the images of `model` are certified."""
        self._say(model, "certificates", done, total, "")

    def over(self, model: str) -> None:
        """There is nothing more to say of `model`."""
        self._now.pop(model, None)

    def _say(self, model: str, title: str, done: int, total: int, rest: str) -> None:
        line = f"{model} · {title} · {done:,}/{total:,} images{f' · {rest}' if rest else ''}"
        if self._status is not None:
            self._now[model] = line
            self._status.update(Text("\n".join(self._now.values())))
        elif done == total and (model, title) not in self._ended:
            self._ended.add((model, title))
            self._console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def shown(console: Console) -> Iterator[Shown]:
    """A listener that draws on `console` inside the block."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield Shown(console, None)
        return
    with console.status("") as status:
        yield Shown(console, status)
