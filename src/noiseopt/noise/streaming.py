"""Which random numbers a network's noise layers draw, and whether they draw any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.streams import MASK32

# Processes of a data-parallel run that set no sample ids still draw different numbers.
_SAMPLES_PER_RANK = 1 << 24
_NO_BACKWARD_PASS = -1


class Stream:
    """What the noise layers of one network share: the switch, and the place in the stream of random numbers.

    The place is plain tensors, so that a compiled or CUDA step reads the numbers where they are and never waits:
    `rows` (`Int64[B, 2]`: sample and step of every row of the batch; None: row b is sample b of step 0) and `keys`
    (`Int64[layers, 3]`: seed, layer, and how often the layer drew since `rows` was set). `turn`: see the function.
    """

    def __init__(self, *, layers: int, seed: int) -> None:
        self.on = True
        self.fan_out = 1
        self.turn = 0
        self.rows: Tensor | None = None
        self.keys = torch.tensor([[seed, layer, 0] for layer in range(layers)])
        self._automatic: Tensor | None = None

    def to(self, device: torch.device) -> None:
        """Follow the network to its device."""
        self.keys = self.keys.to(device)
        self.rows = None if self.rows is None else self.rows.to(device)

    def seeded(self, seed: int) -> Tensor:
        """`keys` as they are before any draw, under another seed."""
        layers = torch.arange(len(self.keys), device=self.keys.device)
        return torch.stack([torch.full_like(layers, seed), layers, torch.zeros_like(layers)], dim=1)

    def next_key(self, layer: int) -> Tensor:
        """`Int64[3]`: (seed, layer, call), and the call is counted."""
        if torch.compiler.is_compiling():
            return torch.ops.noiseopt.next_key(self.keys, layer)
        refuse_in_backward()
        if self.keys.device.type == "cpu":
            # The same by way of numpy: tensor operations would cost as much as the noise of a small layer.
            keys = self.keys.numpy()
            key = torch.from_numpy(keys[layer].copy())
            keys[layer, 2] += 1
            return key
        key = self.keys[layer].clone()
        self.keys[layer, 2] += 1
        return key

    def rows_for(self, count: int, device: torch.device) -> Tensor:
        """`Int64[B, 2]` for a layer whose output has `count` rows.

        A layer may see a multiple of the batch (tokens flattened into it, sample-major): B then stays the batch. Any
        other number leaves no way to tell whose row is whose: the rows are numbered, so the noise is still independent,
        but belongs to the place in the batch.
        """
        if self.rows is not None and count % len(self.rows) == 0:
            return self.rows
        if self._automatic is None or len(self._automatic) != count or self._automatic.device != device:
            self._automatic = _numbered(count, device)
        if self.rows is None:
            return self._automatic
        return self._automatic + torch.stack([torch.zeros_like(self.rows[0, 1]), self.rows[0, 1]])


def refuse_in_backward() -> None:
    """Raises UserError inside a backward pass: the call is counted already, so it would be other noise than before."""
    if torch._C._current_graph_task_id() != _NO_BACKWARD_PASS:
        rule = "noise must be drawn in the forward pass alone: drawn again in the backward pass it is another"
        got = "a forward pass inside a backward pass, as activation checkpointing makes one"
        fix = "checkpoint parts without noise only, or switch it off there (noiseopt.noise)"
        raise UserError(rule, got=got, fix=fix)


def _numbered(count: int, device: torch.device) -> Tensor:
    first = 0
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        first = torch.distributed.get_rank() * _SAMPLES_PER_RANK
    samples = torch.arange(first, first + count, device=device)
    return torch.stack([samples, torch.zeros_like(samples)], dim=1)


def streams_of(net: nn.Module) -> list[Stream]:
    """The streams of a network: none for a plain one, one for an injected one, several for a committee of those."""
    found: dict[int, Stream] = {}
    seen: set[int] = set()
    left = [net]
    while left:  # as net.modules() walks, which would take a fifth of a small network's step
        module = left.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        candidate = module.__dict__.get("stream")
        if isinstance(candidate, Stream):
            found[id(candidate)] = candidate
        left += [child for child in reversed(module._modules.values()) if child is not None]
    return list(found.values())


@contextmanager
def set_on_all(net: nn.Module, name: str, value: object) -> Iterator[None]:
    """Inside the block the attribute `name` of every stream of `net` is `value`; nests, and restores on exceptions."""
    streams = streams_of(net)
    before = [getattr(s, name) for s in streams]
    try:
        for s in streams:
            setattr(s, name, value)
        yield
    finally:
        for s, was in zip(streams, before, strict=True):
            setattr(s, name, was)


def noise(net: nn.Module, *, on: bool) -> AbstractContextManager[None]:
    """Switch all the noise in `net` on or off inside the block; nests, and restores on exceptions.

    A network without noise is left as it is. This is the only switch: `train()` and `eval()` do not touch the noise.
    """
    return set_on_all(net, "on", on)


def turn(net: nn.Module, number: int) -> AbstractContextManager[None]:
    """Inside the block the noise that all samples share is that of turn `number`, in [0, 2³²); outside it is turn 0.

    An attack that is made at every step of a training is the same attack every time: same seed, same draws. Noise of
    the samples is fresh nevertheless where these are named anew, as `train` does in every epoch; noise of the weights
    knows no samples, and would be the same for ever.

    Raises:
        UserError: `number` is out of range.
    """
    if not 0 <= number <= MASK32:
        raise UserError("a turn must lie in [0, 2^32)", got=number, fix="count turns from 0")
    return set_on_all(net, "turn", number)


def has_noise(net: nn.Module) -> bool:
    """Does `net` hold any noise that is switched on?"""
    return any(s.on for s in streams_of(net))


@contextmanager
def stream(net: nn.Module, *, seed: int, samples: Tensor | None = None, step: int | Tensor = 0) -> Iterator[None]:
    """Inside the block row i of the batch is sample `samples[i]` at step `step`: the noise is a function of these.

    The same (seed, sample, step) gives the same noise whatever the batch size, the order, the number of threads or the
    process. A layer used several times in the block draws anew every time. Restores the earlier place on exit, also on
    exceptions; a network without noise is left as it is.

    Args:
        net: any module; all the noise inside it follows.
        seed: in [0, 2⁶³).
        samples: `Int64[B]`, identities modulo 2³² of the batch's rows; None: row b is sample b, for any batch.
        step: training step or number of the draw, in [0, 2³²), one for all rows or `Int64[B]`.

    Raises:
        UserError: out of range, or `samples` and `step` of different lengths.
    """
    streams = streams_of(net)
    if not 0 <= seed < 2**63:
        raise UserError("a noise seed must lie in [0, 2^63)", got=seed, fix="pass a non-negative int")
    rows = _rows(samples, step) if streams else None
    before = [(s.rows, s.keys) for s in streams]
    try:
        for number, s in enumerate(streams):
            s.rows = None if rows is None else rows.to(s.keys.device)
            s.keys = s.seeded(_member_seed(seed, number))
        yield
    finally:
        for s, (old_rows, old_keys) in zip(streams, before, strict=True):
            s.rows, s.keys = old_rows, old_keys


def _member_seed(seed: int, number: int) -> int:
    """Members of a committee must not share their noise: each has its own seed, the first the seed itself."""
    return (seed + number * 0x632BE59BD9B4E019) % 2**63


def _rows(samples: Tensor | None, step: int | Tensor) -> Tensor | None:
    if samples is None:
        if isinstance(step, Tensor) or step != 0:
            raise UserError(
                "a step needs the samples it is for",
                got=f"step={step}, samples=None",
                fix="pass samples=ids too",
            )
        return None
    if samples.dim() != 1 or samples.dtype != torch.int64 or len(samples) == 0:
        raise UserError(
            "samples must be a non-empty Int64[B]",
            got=f"{samples.dtype} of shape {tuple(samples.shape)}",
            fix="pass the images' indices, e.g. torch.arange(len(images))",
        )
    if isinstance(step, int):
        if not 0 <= step <= MASK32:
            raise UserError("a step must lie in [0, 2^32)", got=step, fix="count steps from 0")
        step = torch.full_like(samples, step)
    elif step.shape != samples.shape:
        raise UserError(
            "step must have one entry for each sample",
            got=f"{tuple(step.shape)} for {tuple(samples.shape)} samples",
            fix="pass an int, or Int64[B]",
        )
    return torch.stack([samples, step.to(samples.device)], dim=1)


def seed(net: nn.Module, value: int) -> None:
    """Start the automatic noise of `net` (outside any `stream` block) afresh from a seed: same seed, same numbers."""
    for number, s in enumerate(streams_of(net)):
        s.keys = s.seeded(_member_seed(value, number))
