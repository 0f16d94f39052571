"""Images per second of the four corruptions against imagecorruptions-imaug, at the same parameters.

python -m benchmarks.corruptions [--images N] [--json PATH]

The peer takes one 8-bit image at a time, and its severities are those of ImageNet; here it is given the parameters of
CIFAR-10-C (`peer`), its code unchanged. Ours takes a batch of floats, once by the function and once by `Corruption`,
whose draws belong to the sample.
"""

from __future__ import annotations

import dataclasses
import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from imagecorruptions import corruptions as imagecorruptions
from PIL import Image

from benchmarks.harness import interleaved, options, publish
from noiseopt.corruptions import CORRUPTIONS, Corruption, severities

PEER_IMAGES = 50  # a loop over images costs the same for each


def peer(name: str, parameters: Sequence[Any] | None = None) -> Callable[..., Any]:
    """imagecorruptions' function with other `parameters` for severity 1 to 5 (by default CIFAR-10-C's).

    The table of severities is a constant of the function's code; this replaces the constant and nothing else.
    """
    function = getattr(imagecorruptions, name)
    table = parameters or getattr(severities, name.upper()).small
    table = tuple(dataclasses.astuple(row) if dataclasses.is_dataclass(row) else row for row in table)  # type: ignore[arg-type]
    constants = function.__code__.co_consts
    (old,) = (c for c in constants if isinstance(c, tuple) and len(c) == 5)
    code = function.__code__.replace(co_consts=tuple(table if c is old else c for c in constants))
    return FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)


def load_images(count: int) -> tuple[np.ndarray, str]:
    """`UInt8[count, 32, 32, 3]` and where they come from."""
    folder = Path(os.environ.get("NOISEOPT_DATA", "")) / "cifar-10-batches-bin"
    file = folder / "data_batch_1.bin"
    if "NOISEOPT_DATA" in os.environ and file.is_file():
        records = np.frombuffer(file.read_bytes(), np.uint8)
        records = records[: len(records) // 3073 * 3073].reshape(-1, 3073)[:, 1:]
        if len(records) >= count:
            images = records[:count].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            return np.ascontiguousarray(images), "CIFAR-10"
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), "random images"


def measure(name: str, severity: int, images: np.ndarray, *, rounds: int) -> dict[str, float]:
    """Images per second of the peer, of the function and of the Perturbation."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).contiguous()
    ids, labels, model = torch.arange(len(batch)), torch.zeros(len(batch), dtype=torch.int64), torch.nn.Identity()
    theirs, function = peer(name), CORRUPTIONS[name]
    generator, perturbation = torch.Generator().manual_seed(0), Corruption(name, severity=severity)
    sample = images[:PEER_IMAGES]

    def loop() -> None:
        for image in sample:
            np.uint8(theirs(Image.fromarray(image), severity))

    seconds = interleaved(
        {
            "peer": loop,
            "function": lambda: function(batch, severity=severity, generator=generator),
            "perturbation": lambda: perturbation(model, batch, labels, samples=ids),
        },
        rounds=rounds,
    )
    counts = {"peer": len(sample), "function": len(batch), "perturbation": len(batch)}
    return {variant: counts[variant] / statistics.median(times) for variant, times in seconds.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=1000, help="how many images make our batch")
    arguments = parser.parse_args(argv)
    images, source = load_images(arguments.images)
    columns = ["corruption", "peer, images/s", "function, images/s", "× peer", "Corruption, images/s", "× peer again"]
    rows: list[list[Any]] = []
    ratios: dict[str, list[float]] = {"function": [], "perturbation": []}
    for name in CORRUPTIONS:
        for severity in range(1, 6):
            speed = measure(name, severity, images, rounds=arguments.rounds or 9)
            times = {variant: speed[variant] / speed["peer"] for variant in ratios}
            for variant in ratios:
                ratios[variant].append(times[variant])
            rows.append(
                [
                    f"{name} {severity}",
                    round(speed["peer"]),
                    round(speed["function"]),
                    times["function"],
                    round(speed["perturbation"]),
                    times["perturbation"],
                ]
            )
    means = [math.exp(statistics.fmean(map(math.log, ratios[variant]))) for variant in ratios]
    rows.append(["geometric mean", "", "", means[0], "", means[1]])
    title = f"Corruptions of 32×32 colour images ({source}): batches of {len(images)}, peer imagecorruptions-imaug"
    publish("corruptions", title, columns, rows, arguments.json)


if __name__ == "__main__":
    main()
