"""torch's own DistributedDataParallel around an injected network: the noise and the gradients of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

_WORKER = """
import os, sys, torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from noiseopt.noise import inject, sigmas, stream
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.set_num_threads(1)
torch.manual_seed(0)
plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
net = inject(plain, example_input=torch.rand(2, 1, 6, 6))
images, ids = torch.rand(8, 1, 6, 6), torch.arange(8)
if world > 1:
    torch.distributed.init_process_group("gloo")
    net = DistributedDataParallel(net)
with stream(net, seed=3, samples=ids[rank::world], step=5):
    net(images[rank::world]).square().mean().backward()
automatic = net(images[:1]).detach()
if world > 1:
    everyone = [torch.empty_like(automatic) for _ in range(world)]
    torch.distributed.all_gather(everyone, automatic)
    assert not torch.equal(everyone[0], everyone[1]), "two ranks drew the same automatic noise"
if rank == 0:
    torch.save({name: s.grad for name, s in sigmas(net).items()}, sys.argv[1])
if world > 1:
    torch.distributed.destroy_process_group()
"""


def _run(world: int, path: Path) -> dict[str, torch.Tensor]:
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 20_000)}
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, str(path)], env={**os.environ, **shared, "RANK": str(rank)})
        for rank in range(world)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * world
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


def test_two_processes_draw_the_noise_of_one(tmp_path: Path) -> None:
    one, two = _run(1, tmp_path / "1.pt"), _run(2, tmp_path / "2.pt")
    assert list(one) == list(two) == ["0", "3"]
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-5, atol=1e-7)
