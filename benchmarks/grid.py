"""A grid of eight equal trainings (an MLPN of table 3 on MNIST, from eight seeds): two workers against one, in
wall-clock time.

    NOISEOPT_DATA=DIR python -m benchmarks.grid [--epochs 8] [--rounds 1]

On two free cores two workers must need at most 0.65 of the time of one, the start of their processes included.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from benchmarks import harness
from noiseopt.experiments.executors import Processes
from noiseopt.experiments.recipe import Recipe, bundled, load
from noiseopt.experiments.run import Runner

CELLS, BAR = 8, 0.65


def recipe(epochs: int) -> Recipe:
    table = load(bundled()["table3"])
    row = next(row for row in table.rows if row.label == "MLPN (sigmoid)")
    settings = table.training.model_copy(update={"epochs": epochs})
    changes = {"rows": [row], "columns": [], "surrogate": None, "seeds": list(range(CELLS)), "training": settings}
    return table.model_copy(update=changes)


def finish(workers: int, epochs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(recipe(epochs), runs_dir=Path(folder), device="cpu", executor=Processes(workers))
        outcome = runner.run(measuring=False)
        if (outcome.trained, outcome.failures) != (CELLS, {}):
            raise SystemExit(f"the grid did not finish: {outcome}")


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    variants = {f"{n} worker{'s' * (n > 1)}": lambda n=n: finish(n, options.epochs) for n in (1, 2)}
    seconds = harness.interleaved(variants, rounds=options.rounds or 1, warmup=0)
    ratio = harness.ratio(seconds, "2 workers", "1 worker")
    rows = [[name, CELLS, options.epochs, min(times), ratio, BAR] for name, times in seconds.items()]
    title = f"{CELLS} trainings of {options.epochs} epochs"
    columns = ("workers", "cells", "epochs", "seconds (best)", "ratio of medians, 2 to 1", "bar")
    harness.publish("grid", title, columns, rows, options.json)
    sys.exit(0 if ratio <= BAR else 1)


if __name__ == "__main__":
    main()
