"""How near a ResNet's training step comes to what the device can do: images/s, plain and with noise.

The roofline is measured between the steps, in the same number format: the fastest run of a matrix product or of a large
convolution, whichever library is better on this machine. (The steps are medians, so a neighbour's burst lowers their
share.) Floating-point operations are those of convolutions and matrix products, forward and backward, of the plain
network, counted by torch; noise, batch normalisation and the optimisers count as time and not as work.

python -m benchmarks.resnet_step [--device cuda] [--bf16] [--compile] [--model resnet34] [--batch 512]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import interleaved, options, publish
from benchmarks.noise_step import RESNET_A, naive, step_of
from noiseopt import inject
from noiseopt.models import build

MODELS = {"resnet18": (32, 10), "resnet34": (64, 200)}  # image size, classes


def operations(net: nn.Module, images: Tensor) -> int:
    """Floating-point operations of a forward and a backward pass, a multiply-add being two."""
    with FlopCounterMode(display=False) as counter:
        net(images).sum().backward()
    net.zero_grad()
    return counter.get_total_flops()


def ceilings(dtype: torch.dtype, device: str) -> dict[str, tuple[Callable[[], object], int]]:
    """What the libraries do best, and its floating-point operations: a matrix product, a 3×3 convolution."""
    size, images = (8192, 512) if device == "cuda" else (1024, 16)
    one, other = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    pictures, kernels = (
        torch.rand(count, 256, side, side, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
        for count, side in ((images, 16), (256, 3))
    )
    return {
        f"matrix product, {size} × {size}": (lambda: one @ other, 2 * size**3),
        "3×3 convolution, 256 channels": (
            lambda: nn.functional.conv2d(pictures, kernels, padding=1),
            2 * images * 256 * 256 * 9 * 16 * 16,
        ),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--model", choices=list(MODELS), default="resnet18")
    parser.add_argument("--batch", type=int, default=None, help="images in a step; default 32, on a GPU 512")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks")
    arguments = parser.parse_args()
    device, on_gpu = arguments.device, arguments.device == "cuda"
    batch = arguments.batch or (512 if on_gpu else 32)
    image_size, classes = MODELS[arguments.model]
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # the plain step and the roofline may both use TF32
        torch.backends.cudnn.allow_tf32 = True

    images = torch.rand(batch, 3, image_size, image_size).contiguous(memory_format=torch.channels_last).to(device)
    labels = torch.randint(0, classes, (batch,)).to(device)
    plain = build(arguments.model, seed=0)
    learned = inject(plain, example_input=torch.zeros(2, 3, image_size, image_size), where=RESNET_A, init=0.1)
    fixed = inject(plain, example_input=torch.zeros(2, 3, image_size, image_size), where=RESNET_A, sigma=1.0)
    nets = {"plain": plain, "A+": fixed, "AN": learned, "AN, naive": naive(plain, learned)}
    work = operations(plain.to(device).train(), images[:2]) * batch / 2

    best = ceilings(torch.bfloat16 if arguments.bf16 else torch.float32, device)
    variants: dict[str, Callable[[], object]] = {name: ceiling for name, (ceiling, _) in best.items()}
    for name, net in nets.items():
        net = net.to(device).train()
        if arguments.compile:
            net.compile()
        variants[name] = step_of(net, images, labels, bf16=arguments.bf16)
    rounds = arguments.rounds or (30 if on_gpu else 7)
    seconds = interleaved(variants, rounds=rounds, warmup=5 if on_gpu else 1, device=device)

    rates = {name: count / min(seconds[name]) for name, (_, count) in best.items()}
    roofline = max(rates.values())
    median = {name: statistics.median(times) for name, times in seconds.items()}
    rows = []
    for name in nets:
        rate = work / median[name]
        relative = median[name] / median["plain"]
        rows.append([name, batch / median[name], median[name] * 1e3, relative, rate / 1e12, f"{rate / roofline:.1%}"])
    for name, rate in rates.items():
        rows.append([name, "", min(seconds[name]) * 1e3, "", rate / 1e12, f"{rate / roofline:.1%}"])
    columns = ["step", "images/s", "ms", "time / plain", "TFLOP/s", "of the roofline"]
    place = "cuda" if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    number_format = "bf16" if arguments.bf16 else "TF32" if on_gpu else "float32"
    how = f"{place}, {number_format}{', compiled' * arguments.compile}"
    title = f"A training step of {arguments.model}, {batch} images, {work / batch / 1e9:.2f} GFLOP an image ({how})"
    publish("resnet_step", title, columns, rows, arguments.json)


if __name__ == "__main__":
    main()
