"""Noise into any model, and out again."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise.layer import GaussianNoise
from noiseopt.noise.select import Where, output_shapes, select
from noiseopt.noise.streaming import Stream

INITS = ("published", "normal", "xavier")
SHARINGS = ("neuron", "channel", "layer")
_CHILD = "noise"  # name of the noise layer inside the module that it belongs to


def inject(
    model: nn.Module,
    *,
    example_input: Any,
    where: Where = "all",
    sigma: str | float = "learned",
    init: str | float = "published",
    per: str = "neuron",
    mean: bool = False,
    seed: int = 0,
) -> nn.Module:
    """A copy of `model` with Gaussian noise on the pre-activations of the chosen layers (Xiao et al., Eq. 1).

    Names, types and weights of the model's own modules stay as they are; every chosen layer gets a child `noise`, so
    that `state_dict` gains `<layer>.noise.sigma` and nothing else changes. The noise is on, in training and in
    evaluation alike, until `noise(net, on=False)` says otherwise.

    Args:
        model: any module; it is not changed.
        example_input: one small batch, from which the layers' shapes are read: a tensor; a tuple or list of positional
            arguments; a mapping (keyword arguments where `forward` takes its keys by name, else one argument).
        where: "all" Linear and convolution layers, the output layer included; "linear"; "conv"; a list of module
            names or glob patterns ("layer4.*"); or a predicate `(name, module) -> bool`.
        sigma: "learned", or a number: fixed noise of this standard deviation (the papers' "+" models use 1.0).
        init: where learned σ starts: "published" (what the authors' code does: N(0, 1) for linear layers,
            Xavier-normal for feature maps), "normal" (N(0, 1)), "xavier" (Xavier-normal), or a number.
        per: one σ per "neuron" (the papers), per "channel" (images of any size), or one per "layer".
        mean: also learn a mean for every σ (off in the papers' experiments); it trains with the weights.
        seed: of σ's start and of the noise itself.


    Raises:
        UserError: nothing matched (lists what could have), a layer was not used in the example pass, it is used at
            several shapes that one σ per neuron cannot serve, or the model already holds noise.
    """
    _check_options(sigma, init, per)
    if any(isinstance(m, GaussianNoise) for m in model.modules()):
        raise UserError("a model gets noise once", got="a model with noise", fix="noiseopt.remove(net) first")
    net = _copied(model)
    chosen = select(net, where)
    shapes = output_shapes(net, chosen, example_input)
    unused = [name for name, calls in shapes.items() if not calls]
    if unused and (len(unused) == len(chosen) or not isinstance(where, str)):
        raise UserError(
            "a layer that gets noise must be called by the model's forward pass",
            got=", ".join(unused),
            fix="leave it out of where, or give an example_input that reaches it",
        )
    if unused:
        # For instance nn.MultiheadAttention uses its out_proj's weights and never calls it.
        warnings.warn(f"no noise on {', '.join(unused)}: never called by the example forward pass", stacklevel=2)
    chosen = {name: module for name, module in chosen.items() if shapes[name]}
    shared = Stream(layers=len(chosen), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for index, (name, module) in enumerate(chosen.items()):
        size = _sigma_shape(name, module, shapes[name], per)
        start = _start(size, module, init, generator) if sigma == "learned" else torch.full(size, float(sigma))
        weight = next(module.parameters())
        dtype = weight.dtype if weight.dtype == torch.float64 else torch.float32
        layer = GaussianNoise(
            start.to(device=weight.device, dtype=dtype),
            learned=sigma == "learned",
            index=index,
            stream=shared,
            mean=mean,
        )
        module.add_module(_CHILD, layer)
        module.register_forward_hook(_apply)
    return net


def remove(net: nn.Module) -> nn.Module:
    """A copy of `net` without any noise: the plain architecture, the trained weights kept."""
    plain = _copied(net)
    for _, module, _ in _noisy(plain):
        delattr(module, _CHILD)
        for number, hook in list(module._forward_hooks.items()):
            if hook is _apply:
                del module._forward_hooks[number]
    return plain


def sigmas(net: nn.Module) -> dict[str, Tensor]:
    """σ by the name of the layer that carries it: the live tensors (learned or fixed), `{}` for a plain model."""
    return {name: layer.sigma for name, _, layer in _noisy(net)}


def split_parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(weights, σ): every parameter of `net` in exactly one of two lists, for an optimiser each.

    Learned means are weights. A network with fixed noise, or with none, has an empty second list.
    """
    learned = [layer.sigma for _, _, layer in _noisy(net) if isinstance(layer.sigma, nn.Parameter)]
    known = {id(p) for p in learned}
    return [p for p in net.parameters() if id(p) not in known], learned


def _noisy(net: nn.Module) -> Iterator[tuple[str, nn.Module, GaussianNoise]]:
    # DistributedDataParallel and torch.compile put the model one name deeper; the layers' own names stay the same.
    for name, module in net.named_modules():
        layer = module._modules.get(_CHILD)
        if isinstance(layer, GaussianNoise):
            for wrapper in ("module.", "_orig_mod."):
                name = name.removeprefix(wrapper)
            yield name, module, layer


def _apply(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    layer = module._modules[_CHILD]
    assert isinstance(layer, GaussianNoise)
    return layer(output, producer=module)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise UserError(
            "the model must survive copy.deepcopy",
            got=f"{type(error).__name__}: {error}",
            fix="mend that, or build it anew",
        ) from error


def _check_options(sigma: str | float, init: str | float, per: str) -> None:
    if isinstance(sigma, str):
        if sigma != "learned":
            raise UserError("sigma must be 'learned' or a number", got=sigma, fix="sigma='learned' or sigma=1.0")
    elif not (math.isfinite(sigma) and sigma >= 0):
        raise UserError("a fixed sigma must be finite and at least 0", got=sigma, fix="sigma=1.0")
    if isinstance(init, str):
        if init not in INITS:
            raise UserError(f"init must be one of {', '.join(INITS)}, or a number", got=init, fix="init='published'")
    elif not math.isfinite(init):
        raise UserError("init must be finite", got=init, fix="init=0.1")
    if per not in SHARINGS:
        raise UserError(f"per must be one of {', '.join(SHARINGS)}", got=per, fix="per='neuron'")


def _is_convolution(module: nn.Module) -> bool:
    return not isinstance(module, nn.Linear)


def _sigma_shape(name: str, module: nn.Module, calls: list[torch.Size], per: str) -> torch.Size:
    if not _is_convolution(module):
        return torch.Size([calls[0][-1] if per != "layer" else 1])
    dims = 1 + len(module.kernel_size)  # type: ignore[arg-type]  # channels and space; a batch dimension may be absent
    features = {shape[-dims:] for shape in calls}
    if per == "channel":
        return torch.Size([calls[0][-dims], *[1] * (dims - 1)])
    if per == "layer":
        return torch.Size([1] * dims)
    if len(features) > 1:
        raise UserError(
            "a layer used at several image sizes cannot have one σ per neuron",
            got=f"{name!r} at {sorted(tuple(f) for f in features)}",
            fix="per='channel' or per='layer'",
        )
    return features.pop()


def _start(size: torch.Size, module: nn.Module, init: str | float, generator: torch.Generator) -> Tensor:
    if not isinstance(init, str):
        return torch.full(size, float(init))
    if init == "normal" or (init == "published" and not _is_convolution(module)) or len(size) < 2:
        return torch.randn(size, generator=generator)
    return nn.init.xavier_normal_(torch.empty(size), generator=generator)
