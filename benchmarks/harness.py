"""What every benchmark shares: interleaved medians, a table, a JSON file that says how it was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from noiseopt.allocation import keep_freed_memory

OUT = Path(__file__).parent / "out"


def interleaved(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 3, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each variant, `rounds` times in turn: a neighbour's burst hits all variants, not one.

    The order within a round alternates, so that none always runs in the cache that another left; and memory is kept
    when freed, as in training, so that none pays for pages that another gave back.
    """
    keep_freed_memory()

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    for work in variants.values():
        for _ in range(warmup):
            timed(work)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        order = list(variants) if number % 2 == 0 else list(reversed(variants))
        for name in order:
            seconds[name].append(timed(variants[name]))
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], numerator: str, denominator: str) -> float:
    """The ratio of the medians."""
    return statistics.median(seconds[numerator]) / statistics.median(seconds[denominator])


def options(description: str | None) -> argparse.ArgumentParser:
    """`--json`, `--rounds` and `--device`, which every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, default=None, help="where to write the result")
    parser.add_argument("--rounds", type=int, default=None, help="rounds of the interleaved measurement")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return parser


def publish(name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: Path | None) -> None:
    """Print the table and write it as JSON, with the machine's description."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row])
    console.print(table)
    path = path or OUT / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "benchmark": name,
        "title": title,
        "rows": [dict(zip(columns, row, strict=True)) for row in rows],
        "machine": machine(),
    }
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "noiseopt": version("noiseopt"),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
