"""The command line. How a command ends is decided here: every outcome has an exit status, every error one line."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer

from noiseopt.cli.commands import app
from noiseopt.errors import UserError

BUG, USER, INTERRUPTED = 1, 2, 130
"""Exit statuses: a bug of ours, what the user can mend, Ctrl-C (as a shell reports it)."""


def main() -> None:
    """The entry point of `noiseopt`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show ° should not end a run
    # Before torch starts its threads: spinning ones are ten times slower beside busy neighbours.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    sys.exit(_status([a for a in arguments if a != "--debug"], debug=debug))


def _status(arguments: list[str], *, debug: bool) -> int:
    click_error = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
    try:
        status = app(arguments, prog_name="noiseopt", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:  # `noiseopt data list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        if debug:
            traceback.print_exc()
        return _say(str(error), USER)
    except Exception as error:
        if isinstance(error, click_error):
            return _say(_usage(error), USER)
        if debug:
            traceback.print_exc()
        sorry = f"sorry, this is a bug of ours: {type(error).__name__}: {error}"
        return _say(sorry if debug else f"{sorry}; run with --debug for the traceback", BUG)
    if status == INTERRUPTED:
        return _say("interrupted; the same command goes on", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _usage(error: Any) -> str:
    path = error.ctx.command_path if getattr(error, "ctx", None) else "noiseopt"
    message = str(error.format_message()).rstrip(".")
    return f"{message}; fix: see {path} --help"


def _say(message: str, status: int) -> int:
    """One line on stderr, red where the terminal has colours."""
    line = " ".join(message.split())
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    print(f"\033[31m{line}\033[0m" if colour else line, file=sys.stderr)
    return status
