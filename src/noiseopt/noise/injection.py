"""Noise into any model, and out again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from noiseopt.errors import NoiseWarning, UserError
from noiseopt.noise.attaching import attach, noisy_modules, to_output, without_noise
from noiseopt.noise.batching import batch_dims, warn_of_places
from noiseopt.noise.layer import GaussianNoise
from noiseopt.noise.select import Where, outputs, select
from noiseopt.noise.streaming import Stream

Levels = str | float | Sequence[float] | Mapping[str, float]
INITS = ("published", "normal", "xavier")
SHARINGS = ("neuron", "channel", "layer")


def inject(
    model: nn.Module,
    *,
    example_input: Any,
    where: Where = "all",
    sigma: Levels = "learned",
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
        sigma: "learned", or a number: fixed noise of this standard deviation (the papers' "+" models use 1.0). Or a
            number for each layer: a list of them in the model's order ([3, 1, 0]), or a mapping from names or patterns
            ({"hidden1": 3, "conv*": 1}), where a name goes before a pattern. A layer with 0, or not named, is left
            without.
        init: where learned σ starts: "published" (what the authors' code does: N(0, 1) for linear layers,
            Xavier-normal for feature maps), "normal" (N(0, 1)), "xavier" (Xavier-normal), or a number.
        per: one σ per "neuron" (the papers), per "channel" (images of any size), or one per "layer".
        mean: also learn a mean for every σ (off in the papers' experiments); it trains with the weights.
        seed: of σ's start and of the noise itself: two networks with the same seed have the same noise, so give the
            members of an ensemble of your own a seed each (`noiseopt.defences.committee` sees to it).

    Raises:
        UserError: nothing matched (lists what could have), a layer was not used in the example pass, or not on the
            batch, it is used at several shapes that one σ per neuron cannot serve, it has something named `noise`
            already, the model already holds noise or does not take the example, or the numbers in sigma are not one
            for each layer.

    Warns (`noiseopt.errors.NoiseWarning`) where some layers are left without noise, and where an image's noise depends
    on its place in the batch.
    """
    sigma, init = _number(sigma), _number(init)
    _check_options(sigma, init, per)
    net = without_noise(model)
    chosen, shapes, dims = layers_in_use(net, where, example_input)
    learned = sigma == "learned"
    levels = {} if learned else _levels(sigma, chosen)
    if not isinstance(sigma, str | int | float):
        chosen = {name: module for name, module in chosen.items() if levels[name] > 0}
    shared = Stream(layers=len(chosen), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for index, (name, module) in enumerate(chosen.items()):
        size = _sigma_shape(name, module, shapes[name], per)
        start = _start(size, module, init, generator) if learned else torch.full(size, levels[name])
        start = like_weights(start, module)
        layer = GaussianNoise(start, learned=learned, index=index, stream=shared, mean=mean, batch_dim=dims[name])
        attach(module, layer, to_output)
    warn_of_places(net, example_input)
    return net


def layers_in_use(
    net: nn.Module, where: Where, example_input: Any
) -> tuple[dict[str, nn.Module], dict[str, list[torch.Size]], dict[str, int]]:
    """What `where` chooses and the example pass gives the batch: by name the modules, the shapes of their outputs, and
    the dimension of these that is the batch's.

    Raises UserError where nothing is left, or where a layer that was named is never called, or never with the batch.
    """
    chosen = select(net, where)
    calls, result = outputs(net, chosen, example_input)
    shapes = {name: [out.shape for out in outs] for name, outs in calls.items()}
    unused = [name for name, outs in calls.items() if not outs]
    if unused and (len(unused) == len(chosen) or not isinstance(where, str)):
        raise UserError(
            "a layer that gets noise must be called by the model's forward pass",
            got=", ".join(unused),
            fix="leave it out of where, or give an example_input that reaches it",
        )
    if unused:
        attention = any(isinstance(chosen[name], NonDynamicallyQuantizableLinear) for name in unused)
        why = " (nn.MultiheadAttention computes its projections itself, so none of them has noise)" if attention else ""
        text = f"no noise on {', '.join(unused)}: never called by the example forward pass{why}"
        warnings.warn(text, NoiseWarning, stacklevel=3)
    chosen = {name: module for name, module in chosen.items() if calls[name]}
    dims = batch_dims(net, chosen, example_input, calls, result)
    # The noise of such a layer would be one for all images and draws: nothing to take a mean over.
    without = [name for name, dim in dims.items() if dim is None]
    if without and (len(without) == len(chosen) or not isinstance(where, str)):
        rule, got = "what a layer with noise returns must grow with the batch", ", ".join(map(repr, without))
        raise UserError(rule, got=got, fix="leave it out of where")
    if without:
        text = f"no noise on {', '.join(without)}: what it returns does not grow with the batch"
        warnings.warn(text, NoiseWarning, stacklevel=3)
    followed = {name: dim for name, dim in dims.items() if dim is not None}
    return {name: chosen[name] for name in followed}, shapes, followed


def like_weights(values: Tensor, module: nn.Module) -> Tensor:
    """`values` where the module's weights are; in double precision where they are, else in single."""
    weight = next(module.parameters())
    return values.to(device=weight.device, dtype=weight.dtype if weight.dtype == torch.float64 else torch.float32)


def sigmas(net: nn.Module) -> dict[str, Tensor]:
    """σ by the name of the layer that carries it: the live tensors (learned or fixed), `{}` for a plain model."""
    return {name: layer.sigma for name, _, layer in noisy_modules(net)}


def split_parameters(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(weights, σ): every parameter of `net` in exactly one of two lists, for an optimiser each.

    Learned means are weights. A network with fixed noise, or with none, has an empty second list.
    """
    learned = [layer.sigma for _, _, layer in noisy_modules(net) if isinstance(layer.sigma, nn.Parameter)]
    known = {id(p) for p in learned}
    return [p for p in net.parameters() if id(p) not in known], learned


def _check_options(sigma: Levels, init: str | float, per: str) -> None:
    if not isinstance(sigma, str | float | Sequence | Mapping):
        got, fix = type(sigma).__name__, "sigma=1.0 or sigma=[3, 1, 0]"
        raise UserError("sigma must be 'learned', a number, or a number for each layer", got=got, fix=fix)
    if isinstance(sigma, str):
        if sigma != "learned":
            raise UserError("sigma must be 'learned' or a number", got=sigma, fix="sigma='learned' or sigma=1.0")
    else:
        for level in [sigma] if isinstance(sigma, float) else _numbers(sigma):
            if not (isinstance(level, Real) and 0 <= level < math.inf):
                raise UserError("a fixed sigma must be finite and at least 0", got=level, fix="sigma=1.0")
    if isinstance(init, str):
        if init not in INITS:
            raise UserError(f"init must be one of {', '.join(INITS)}, or a number", got=init, fix="init='published'")
    elif not (isinstance(init, Real) and math.isfinite(init)):
        raise UserError("init must be a finite number, or a word", got=repr(init), fix="init=0.1")
    elif sigma == "learned" and not torch.tensor(init, dtype=torch.float32):
        raise UserError("a learned σ must not start at 0, where it has no gradient", got=init, fix="init=0.1")
    if per not in SHARINGS:
        raise UserError(f"per must be one of {', '.join(SHARINGS)}", got=per, fix="per='neuron'")


def _number(value: Any) -> Any:
    """A float where it is one number of any kind."""
    return float(value) if isinstance(value, Real) or (isinstance(value, Tensor) and value.dim() == 0) else value


def _numbers(sigma: Sequence[float] | Mapping[str, float]) -> Sequence[float]:
    return list(sigma.values()) if isinstance(sigma, Mapping) else list(sigma)


def _named(name: str, sigma: Mapping[str, float]) -> float:
    """The σ of one layer in a mapping whose order means nothing."""
    if name in sigma:
        return float(sigma[name])
    found = {float(level) for pattern, level in sigma.items() if fnmatchcase(name, pattern)}
    if len(found) > 1:
        fix = f"give {name!r} a number of its own"
        raise UserError("the patterns in sigma must agree about a layer", got=sorted(found), fix=fix)
    return found.pop() if found else 0.0


def _levels(sigma: Levels, chosen: Mapping[str, nn.Module]) -> dict[str, float]:
    """The fixed σ of every chosen layer."""
    assert not isinstance(sigma, str)
    names = ", ".join(chosen)
    if isinstance(sigma, Mapping):
        for pattern in sigma:
            if not any(fnmatchcase(name, pattern) for name in chosen):
                raise UserError("every name in sigma must match a layer", got=pattern, fix=f"choose from: {names}")
        levels = {name: _named(name, sigma) for name in chosen}
    elif isinstance(sigma, int | float):
        return {name: float(sigma) for name in chosen}
    else:
        if len(sigma) != len(chosen):
            fix = f"one for each of: {names}"
            raise UserError("sigma must have a number for every layer", got=f"{len(sigma)} numbers", fix=fix)
        levels = {name: float(value) for name, value in zip(chosen, sigma, strict=True)}
    if not any(levels.values()):
        raise UserError("sigma must be above 0 in some layer", got=list(levels.values()), fix="leave the noise out")
    return levels


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
