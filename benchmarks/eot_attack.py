"""EOT attacks: PGD with 10 steps and 20 draws a step, against torchattacks and foolbox on the same model and images.

All three see the model with its noise on, drawn afresh for every call, and must succeed alike: the accuracy that they
leave is measured in the same way, over 20 draws. The peers are optional:

pip install foolbox; pip install --no-deps torchattacks; pip install requests tqdm scipy

python -m benchmarks.eot_attack
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import interleaved, options, publish
from noiseopt import Training, evaluate, inject, train
from noiseopt.attacks import PGD
from noiseopt.data import load, split
from noiseopt.models import build

STEPS, DRAWS = 10, 20
NETWORKS: dict[str, tuple[str, str, int, int]] = {
    # name: model, where the noise goes, images, rounds
    "MLP, noise on all layers": ("mlp", "all", 256, 5),
    "CNN, noise on the linear layers": ("cnn", "linear", 32, 3),
    "CNN, noise on all layers": ("cnn", "all", 32, 3),
}
EPS, STEP = 25 / 255, 5 / 255


def attacks(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The same attack by each library."""
    ours = PGD(eps=EPS, step_size=STEP, steps=STEPS, draws=DRAWS)
    found: dict[str, Callable[[], Tensor]] = {"noiseopt": lambda: ours(net, images, labels)}
    try:
        import torchattacks

        peer = torchattacks.EOTPGD(net, eps=EPS, alpha=STEP, steps=STEPS, eot_iter=DRAWS)
        found["torchattacks"] = lambda: peer(images, labels)
    except ImportError:
        print("torchattacks is not installed: left out")
    try:
        import foolbox

        wrapped = foolbox.models.ExpectationOverTransformationWrapper(
            foolbox.PyTorchModel(net, bounds=(0, 1), device=images.device), n_steps=DRAWS
        )
        attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS)
        found["foolbox"] = lambda: attack(wrapped, images, labels, epsilons=EPS)[1]
    except ImportError:
        print("foolbox is not installed: left out")
    return found


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data-dir", default=None, help="folder with MNIST; default: NOISEOPT_DATA, else mnist-mini")
    arguments = parser.parse_args()
    data = split(load("mnist-mini"), seed=0)
    rows: list[list[Any]] = []
    for name, (model, where, count, rounds) in NETWORKS.items():
        images, labels, _ = data.test.batch(torch.arange(count))
        net = inject(build(model, seed=0), example_input=images[:2], where=where, init=0.5)
        train(net, data, Training(epochs=5), seed=0)
        net.to(arguments.device).eval()
        images, labels = images.to(arguments.device), labels.to(arguments.device)
        variants = attacks(net, images, labels)
        left = {key: evaluate(net, (work(), labels), draws=20, seed=1).value for key, work in variants.items()}
        seconds = interleaved(variants, rounds=arguments.rounds or rounds, warmup=0, device=arguments.device)
        ours = statistics.median(seconds["noiseopt"])
        for key, times in seconds.items():
            rate = count / statistics.median(times)
            rows.append([name, key, rate, statistics.median(times) / ours, f"{left[key]:.3f}"])
    columns = ["network", "library", "images/s", "noiseopt is faster by", "accuracy left"]
    title = f"PGD, ε = 25/255, {STEPS} steps, {DRAWS} draws a step ({arguments.device})"
    publish("eot_attack", title, columns, rows, arguments.json)


if __name__ == "__main__":
    main()
