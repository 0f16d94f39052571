"""The noise layer: knows its σ and when to draw; the mathematics is in `function`, the numbers in `kernels`."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks

from noiseopt.errors import UserError
from noiseopt.noise.function import AddNoise, memory_format
from noiseopt.noise.streaming import Stream

# Backward nodes that do not look at their own output, so that overwriting it cannot change a gradient.
_FORGETS_ITS_OUTPUT = frozenset({"AddmmBackward0", "MmBackward0", "ConvolutionBackward0", "MkldnnConvolutionBackward0"})


class NoiseLayer(nn.Module):
    """A layer that draws from its network's stream: what every kind of noise has in common.

    `sigma` is what there is to tell about its strength. Whether it draws is `stream.on` alone: see `noiseopt.noise`.
    """

    sigma: Tensor
    decays: ClassVar[bool] = False
    """Do parameters that are trained with the weights decay with them? That would be a pull towards no noise."""

    def __init__(self, *, index: int, stream: Stream) -> None:
        """`index`: number of the layer within `stream`, which all layers of a network share."""
        super().__init__()
        self.index = index
        self.stream = stream

    def place(self, count: int, device: torch.device) -> tuple[int, Tensor, Tensor]:
        """Where in the stream `count` rows are: how many copies of each are wanted, `rows` and `key`; counts the call.

        See `Stream`. Copies are wanted where this is the first layer with noise in a pass of several folded draws.
        """
        stream = self.stream
        if stream.keys.device != device:
            stream.to(device)
        fans_out = stream.fan_out > 1 and stream.rows is not None and count * stream.fan_out == len(stream.rows)
        copies = stream.fan_out if fans_out else 1
        return copies, stream.rows_for(count * copies, device), stream.next_key(self.index)


class GaussianNoise(NoiseLayer):
    """`v + |σ| ε + μ` on the pre-activations of one layer (Eq. 1 of Xiao et al.), an own draw for every sample.

    `sigma` is a parameter where it is learned and a buffer where it is fixed; `state_dict` holds it either way. It has
    one entry per neuron (`[out]` of a linear layer, `[C, *spatial]` of a feature map), per channel (`[C, 1, ...]`) or
    one for the layer (`[1, ...]`). Whether noise is drawn is `stream.on` alone: see `noiseopt.noise`.
    """

    mean: Tensor | None
    decays: ClassVar[bool] = True

    def __init__(
        self, sigma: Tensor, *, learned: bool, index: int, stream: Stream, mean: bool = False, batch_dim: int = 0
    ) -> None:
        """`index`: number of the layer within `stream`, which all layers of a network share. `batch_dim`: of what it is
        given, which dimension is the batch (1 for the sequences of torch's transformers).
        """
        super().__init__(index=index, stream=stream)
        self.batch_dim = batch_dim
        if learned:
            self.sigma = nn.Parameter(sigma)
        else:
            self.register_buffer("sigma", sigma)
        self.register_parameter("mean", nn.Parameter(torch.zeros_like(sigma)) if mean else None)

    @property
    def learned(self) -> bool:
        """Is σ trained?"""
        return isinstance(self.sigma, nn.Parameter)

    def forward(self, v: Tensor, *, producer: nn.Module | None = None) -> Tensor:
        """`v`: `Float[n, *features]` or a single sample's `Float[*features]`; the same shape comes back.

        `producer` is the module that made `v`, if it is known: some of their outputs may be overwritten.

        Raises:
            UserError: the features are not those that σ was made for.
        """
        stream = self.stream
        if not stream.on:
            return v
        if self.batch_dim and v.dim() > self.sigma.dim() + 1:
            return self._noisy(v.movedim(self.batch_dim, 0), producer).movedim(0, self.batch_dim)
        return self._noisy(v, producer)

    def _noisy(self, v: Tensor, producer: nn.Module | None) -> Tensor:
        stream = self.stream
        sigma = self.sigma
        if stream.keys.device != v.device:
            stream.to(v.device)
        single = v.dim() == sigma.dim()
        if single:
            v = v.unsqueeze(0)
        if v.shape[1:] != sigma.shape:
            sigma = self._expanded(v)
        copies = stream.fan_out
        if copies > 1 and stream.rows is not None and len(v) * copies == len(stream.rows):
            v = v.repeat(copies, *[1] * (v.dim() - 1))
        rows = stream.rows_for(len(v), v.device)
        key = stream.next_key(self.index)
        if torch.compiler.is_compiling():
            channels_last = memory_format(v, sigma.shape) is not torch.contiguous_format
            out = torch.ops.noiseopt.add_noise(v, sigma, rows, key, channels_last)
        else:
            out = AddNoise.apply(v, sigma, rows, key, not single and may_overwrite(v, producer))
        if self.mean is not None:
            out = out + self.mean
        return out.squeeze(0) if single else out

    def _expanded(self, v: Tensor) -> Tensor:
        """σ with an entry for every neuron of `v`, whatever it shares them by."""
        features = v.shape[v.dim() - self.sigma.dim() :]
        if features == self.sigma.shape:
            return self.sigma
        if any(have not in (1, want) for have, want in zip(self.sigma.shape, features, strict=True)):
            raise UserError(
                f"σ has one entry per neuron, for features of shape {tuple(self.sigma.shape)}",
                got=f"features of shape {tuple(features)}",
                fix="give images of the size of example_input, or inject with per='channel'",
            )
        return self.sigma.expand(features)

    def extra_repr(self) -> str:
        kind = "learned" if self.learned else "fixed"
        where = f", batch in dimension {self.batch_dim}" if self.batch_dim else ""
        return f"{tuple(self.sigma.shape)}, {kind}, mean |σ| {self.sigma.detach().abs().mean():.3g}{where}"


def may_overwrite(v: Tensor, producer: nn.Module | None) -> bool:
    """May noise be added into `v` itself?

    Only where the producer is a linear or convolution layer of torch's own, nothing else has seen `v` (no other hook
    ran before ours), and the backward pass of what made it needs its inputs and not its output. Leaves, views of
    other tensors and outputs of anything unknown are left alone: for a leaf autograd would refuse, for a view or a
    saved output it would refuse later, in the backward pass, or change a tensor that somebody still holds.
    """
    if type(producer) not in _OWN_OUTPUT or v._is_view():
        return False
    if len(producer._forward_hooks) > 1 or _global_forward_hooks:  # type: ignore[union-attr]
        return False
    if v.grad_fn is None:
        return not v.requires_grad
    return v.grad_fn.name() in _FORGETS_ITS_OUTPUT


_OWN_OUTPUT = frozenset(
    {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d}
)
