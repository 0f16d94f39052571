"""Noise layers as children of a model's own modules: how they are put there, found, called and taken out."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise.layer import NoiseLayer

_CHILD = "noise"  # name of the noise layer inside the module that it belongs to


class Behind(nn.Sequential):
    """A model, `model`, behind noise on what it is given, `input`: so that its own modules stay as they are."""

    names: ClassVar[str] = "model."
    """Where the names of the model's own tensors begin."""

    def __init__(self, model: nn.Module, layer: NoiseLayer) -> None:
        before = nn.Sequential()
        before.add_module(_CHILD, layer)
        super().__init__(OrderedDict(input=before.train(model.training), model=model))
        self.training = model.training


def attach(module: nn.Module, layer: NoiseLayer, hook: Any) -> None:
    """`layer` as the child `noise` of `module`, called by `hook`: one of `to_output`, `to_input`, `to_weights`.

    Raises UserError where the module has something of that name.
    """
    if hasattr(module, _CHILD):
        rule, got = f"a layer that gets noise must have no {_CHILD!r} of its own", type(module).__name__
        raise UserError(rule, got=f"a {got} that has one", fix="rename it, or leave the layer out of where")
    module.add_module(_CHILD, layer)
    if hook is to_input:
        module.register_forward_pre_hook(hook)
    else:
        module.register_forward_hook(hook)


def without_noise(model: nn.Module) -> nn.Module:
    """A copy of a model that may be given noise. Raises UserError where it has some, or cannot be copied."""
    if any(isinstance(m, NoiseLayer) for m in model.modules()):
        raise UserError("a model gets noise once", got="a model with noise", fix="noiseopt.remove(net) first")
    return _copied(model)


def remove(net: nn.Module) -> nn.Module:
    """A copy of `net` without any noise: the plain architecture, the trained weights kept."""
    plain = _copied(net)
    for _, module, _ in noisy_modules(plain):
        delattr(module, _CHILD)
        hooks: Any
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for number, hook in list(hooks.items()):
                if hook in (to_output, to_input, to_weights):
                    del hooks[number]
    return plain.get_submodule("model") if isinstance(plain, Behind) else plain


def continue_from(model: nn.Module, trained: nn.Module) -> None:
    """Give `model` the weights of `trained`, a network that differs by its noise alone.

    Noise that `trained` has not, or has otherwise, is as at its start, and so is noise that is not learned. Raises
    UserError where a weight has no partner.
    """
    fixed, kept = _fixed(trained), _fixed(model)
    before: dict[str, Tensor] = {name: value for name, value in trained.state_dict().items() if name not in fixed}
    plain = {name.removeprefix(Behind.names): value for name, value in before.items()}
    found: dict[str, Tensor] = {}
    own = model.state_dict()
    noises = [f"{name}.{_CHILD}.".removeprefix(".") for name, _, _ in noisy_modules(model)]
    for name, value in own.items():
        if name in kept:
            continue
        known = before.get(name, plain.get(name.removeprefix(Behind.names)))
        if known is not None and known.shape == value.shape:
            found[name] = known
        elif not any(name.startswith(noise) for noise in noises):
            rule = "a network that goes on after another must be the same but for its noise"
            raise UserError(rule, got=f"{name} has no partner", fix="give both rows the same model and options")
    model.load_state_dict(own | found)


def _fixed(net: nn.Module) -> set[str]:
    """Names of the tensors that say how strong noise is which is not learned."""
    return {
        f"{name}.{_CHILD}.{buffer}".removeprefix(".")
        for name, _, layer in noisy_modules(net)
        for buffer, _ in layer.named_buffers()
    }


def noisy_modules(net: nn.Module) -> Iterator[tuple[str, nn.Module, NoiseLayer]]:
    """(name, module, its noise layer) for every module that has one."""
    # DistributedDataParallel and torch.compile put the model one name deeper; the layers' own names stay the same.
    for name, module in net.named_modules():
        layer = module._modules.get(_CHILD)
        if isinstance(layer, NoiseLayer):
            for wrapper in ("module.", "_orig_mod."):
                name = name.removeprefix(wrapper)
            yield name, module, layer


def undecayed(net: nn.Module) -> list[nn.Parameter]:
    """What is trained with the weights of `net` and free of their decay: the strength of other papers' noise."""
    return [p for _, _, layer in noisy_modules(net) if not layer.decays for p in layer.parameters()]


def to_output(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Forward hook: the noise is added to what `module` returns."""
    layer = module._modules[_CHILD]
    assert layer is not None
    noisy: Tensor = layer(output, producer=module)
    return noisy


def to_input(module: nn.Module, args: Any) -> Any:
    """Forward pre-hook: the noise is added to what `module` is given."""
    layer = module._modules[_CHILD]
    assert layer is not None
    return (layer(args[0]), *args[1:])


def to_weights(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Forward hook: the noise is added to the weights of `module`, a linear function of its input."""
    layer = module._modules[_CHILD]
    assert layer is not None
    noisy: Tensor = layer(output, producer=module, given=args[0])
    return noisy


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise UserError(
            "the model must survive copy.deepcopy",
            got=f"{type(error).__name__}: {error}",
            fix="mend that, or build it anew",
        ) from error
