"""Kill a training on MNIST at random moments, start it again each time, and compare the bits with an unharmed run.

    python benchmarks/kill_resume.py --data-dir DIR [--kills 10] [--epochs 12] [--seed 0]

Prints what it measured as one JSON line; exits with status 1 where any bit of weights, σ or optimiser state differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from noiseopt import checkpoint
from noiseopt.data import load, split
from noiseopt.models import build
from noiseopt.noise import inject
from noiseopt.train import Training, train


def child(options: argparse.Namespace, run_dir: str) -> subprocess.Popen[bytes]:
    arguments = ["--data-dir", options.data_dir, "--epochs", str(options.epochs), "--train", run_dir]
    return subprocess.Popen([sys.executable, __file__, *arguments])


def train_here(options: argparse.Namespace) -> None:
    """What the children do: the paper's MLPN."""
    data = split(load("mnist", data_dir=options.data_dir), seed=0)
    net = inject(build("mlp", seed=0, activation="sigmoid"), example_input=torch.rand(1, 1, 28, 28))
    train(net, data, Training(epochs=options.epochs), run_dir=options.train, device="cpu")


def curves(run_dir: Path) -> list[dict[str, float]]:
    path = run_dir / "curves.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(options: argparse.Namespace, folder: Path) -> bool:
    started = time.perf_counter()
    if child(options, str(folder / "whole")).wait() != 0:
        raise SystemExit("the unharmed run failed")
    wall = time.perf_counter() - started
    epoch = sum(line["seconds"] for line in curves(folder / "whole")) / options.epochs
    startup = wall - epoch * options.epochs

    rng, kills, begun_anew, done_at_kill = random.Random(options.seed), 0, 0, []
    while kills < options.kills:
        process = child(options, str(folder / "killed"))
        try:
            process.wait(rng.uniform(startup / 2, startup + 2 * epoch))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            done_at_kill.append(len(curves(folder / "killed")))
        else:  # it was through before its time came
            begun_anew += 1
            shutil.rmtree(folder / "killed")
    if child(options, str(folder / "killed")).wait() != 0:
        raise SystemExit("the run could not go on")

    whole, _ = checkpoint.load(folder / "whole" / "checkpoint.safetensors")
    killed, _ = checkpoint.load(folder / "killed" / "checkpoint.safetensors")
    differing = [name for name in whole if name not in killed or not torch.equal(whole[name], killed[name])]
    epochs = [int(line["epoch"]) for line in curves(folder / "killed")]
    result = {
        "kills": kills,
        "epochs_done_at_each_kill": done_at_kill,
        "begun_anew": begun_anew,
        "tensors": len(whole),
        "differing": differing,
        "curves_agree": epochs == list(range(1, options.epochs + 1)),
        "startup_seconds": round(startup, 1),
        "epoch_seconds": round(epoch, 2),
        "validation_accuracy": curves(folder / "killed")[-1]["validation_accuracy"],
    }
    print(json.dumps(result))
    return not differing and bool(result["curves_agree"]) and whole.keys() == killed.keys()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True, help="folder with mnist/")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train_here(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if measure(options, Path(folder)) else 1)


if __name__ == "__main__":
    main()
