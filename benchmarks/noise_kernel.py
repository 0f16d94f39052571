"""How fast the noise itself is: normals per second, alone and fused, against torch.

python -m benchmarks.noise_kernel [--device cuda]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from benchmarks.harness import interleaved, options, publish
from noiseopt.noise.kernels import choose, force

ROWS, NEURONS = 128, 25_088


def main() -> None:
    arguments = options(__doc__).parse_args()
    device = torch.device(arguments.device)
    v = torch.rand(ROWS, NEURONS, device=device)
    scale = torch.rand(NEURONS, device=device)
    rows = torch.stack([torch.arange(ROWS, device=device), torch.zeros(ROWS, dtype=torch.int64, device=device)], 1)
    key = torch.tensor([1, 0, 0], device=device)
    compiled = choose(device)
    force("torch")
    reference = choose(device)
    force(None)

    variants: dict[str, Callable[[], object]] = {
        "torch.randn_like": lambda: torch.randn_like(v),
        "naive v + σ randn_like(v)": lambda: v + scale * torch.randn_like(v),
        f"{_name(compiled)}: add to v": lambda: compiled.add_(v, scale, rows, key),
        f"{_name(compiled)}: weighted sum": lambda: compiled.weighted_sum(v, rows, key, NEURONS),
        "floor: v += σ, no noise": lambda: v.add_(scale),
    }
    seconds = interleaved(variants, rounds=arguments.rounds or 30, device=arguments.device)
    slow = interleaved({"torch path: add to v": lambda: reference.add_(v, scale, rows, key)}, rounds=3, warmup=1)
    base = statistics.median(seconds["torch.randn_like"])
    held = {"torch.randn_like": 4, "naive v + σ randn_like(v)": 4}
    table = [
        [
            name,
            f"{v.numel() / statistics.median(times) / 1e6:.0f}",
            base / statistics.median(times),
            held.get(name, 0) * v.numel() / 1e6,
        ]
        for name, times in (seconds | slow).items()
    ]
    columns = ["what", "million neurons/s", "times torch.randn", "MB held for backward"]
    title = f"Noise for {ROWS} samples of {NEURONS:,} neurons ({arguments.device})"
    publish("noise_kernel", title, columns, table, arguments.json)


def _name(backend: object) -> str:
    return getattr(backend, "__name__", type(backend).__name__).rpartition(".")[2]


if __name__ == "__main__":
    main()
