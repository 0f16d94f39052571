"""MLPN on all of MNIST with the paper's settings (30 epochs, Adam 1e-3, L2 1e-4, batch 128): seconds and accuracy.

python -m benchmarks.mlpn_mnist [--data-dir DIR] [--activation sigmoid]
"""

from __future__ import annotations

import time

from benchmarks.harness import options, publish
from noiseopt import Training, evaluate, inject, train
from noiseopt.data import load, split
from noiseopt.models import build


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--activation", action="append", choices=["relu", "sigmoid"])
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    data = split(load("mnist", data_dir=arguments.data_dir), seed=0)
    rows = []
    for activation in arguments.activation or ["relu", "sigmoid"]:
        images, _, _ = data.train.span(0, 2).batch(data.train.labels[:2] * 0)
        net = inject(build("mlp", seed=0, activation=activation), example_input=images, init="published")
        started = time.perf_counter()
        train(net, data, Training(epochs=arguments.epochs), seed=0, device=arguments.device)
        seconds = time.perf_counter() - started
        record = evaluate(net, data.test, noise=False)
        rows.append([f"MLPN ({activation})", arguments.epochs, f"{seconds:.1f}", record.describe()])
    columns = ["network", "epochs", "seconds", "clean accuracy, noise off"]
    publish("mlpn_mnist", f"MLPN on {len(data.train):,} MNIST images", columns, rows, arguments.json)


if __name__ == "__main__":
    main()
