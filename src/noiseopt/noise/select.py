"""Which modules of a model get noise: `where`, and what an example forward pass says about them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from noiseopt.errors import UserError
from noiseopt.noise.modes import evaluating

Where = str | Sequence[str] | Callable[[str, nn.Module], bool]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "all": (nn.Linear, *_CONVOLUTIONS),
    "linear": (nn.Linear,),
    "conv": _CONVOLUTIONS,
}


def select(model: nn.Module, where: Where) -> dict[str, nn.Module]:
    """The modules that `where` names, in the model's order; a module registered under two names appears once.

    Raises:
        UserError: nothing matched, or one of the names or patterns did not; says what could have.
    """
    named = dict(model.named_modules())
    candidates = {name: m for name, m in named.items() if isinstance(m, KINDS["all"])}
    if isinstance(where, str):
        if where not in KINDS:
            raise UserError(
                "where must be 'all', 'linear', 'conv', a list of module names or patterns, or a predicate",
                got=where,
                fix=f"write where=[{where!r}] if this is a module's name",
            )
        chosen = {name: m for name, m in named.items() if isinstance(m, KINDS[where])}
    elif callable(where):
        chosen = {name: m for name, m in named.items() if where(name, m)}
        _check_kinds(chosen)
    else:
        chosen = {}
        for pattern in where:
            hits = {name: m for name, m in named.items() if fnmatchcase(name, pattern)}
            # A pattern such as "layer4.*" means the layers in there, not the blocks around them.
            if pattern not in named:
                hits = {name: m for name, m in hits.items() if name in candidates}
            if not hits:
                raise UserError(
                    "every name in where must match a module", got=pattern, fix=_suggest(pattern, candidates)
                )
            chosen.update(hits)
        _check_kinds(chosen)
        chosen = {name: m for name, m in named.items() if name in chosen}
    if not chosen:
        raise UserError(
            "where must match at least one Linear or convolution layer",
            got=where,
            fix=_suggest("", candidates),
        )
    return chosen


def _check_kinds(chosen: Mapping[str, nn.Module]) -> None:
    for name, module in chosen.items():
        if not isinstance(module, KINDS["all"]):
            inside = any(isinstance(m, KINDS["all"]) for m in module.modules())
            raise UserError(
                "noise goes on Linear, Conv1d/2d/3d and ConvTranspose1d/2d/3d layers",
                got=f"{name!r}, a {type(module).__name__}",
                fix=f"choose those in it, {name + '.*'!r}" if inside and name else "choose layers of these kinds",
            )


def _suggest(pattern: str, candidates: Mapping[str, nn.Module]) -> str:
    if not candidates:
        return "none: this model holds no Linear or convolution layer that could carry noise"
    nearest = difflib.get_close_matches(pattern, candidates, n=3)
    start = f"did you mean {' or '.join(map(repr, nearest))}? " if nearest else ""
    listed = [f"{name or '(the model itself)'} ({type(m).__name__})" for name, m in candidates.items()]
    more = f", and {len(listed) - 30} more" if len(listed) > 30 else ""
    return f"{start}choose from: {', '.join(listed[:30])}{more}"


def call(model: nn.Module, example: Any) -> Any:
    """`model` on an example: a tuple or list is its positional arguments; a mapping is its keyword arguments where
    `forward` takes its keys by name, else one argument; anything else is one argument.
    """
    if isinstance(example, tuple | list):
        return model(*example)
    if isinstance(example, Mapping):
        parameters = inspect.signature(model.forward).parameters
        if all(key in parameters for key in example):
            return model(**example)
    return model(example)


def outputs(model: nn.Module, chosen: Mapping[str, nn.Module], example: Any) -> tuple[dict[str, list[Tensor]], Any]:
    """What the chosen modules return, one for each call, and what the model does, in a forward pass without a trace.

    It runs without gradients, in eval mode (batch statistics must not move, dropout must not draw) and without touching
    the global random state.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in chosen}
    handles = []
    for name, module in chosen.items():

        def record(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            if not isinstance(output, Tensor):
                raise UserError(
                    "a layer that gets noise must return a tensor",
                    got=f"{name!r}: {type(output).__name__}",
                    fix="leave it out",
                )
            found[name].append(output)

        handles.append(module.register_forward_hook(record))
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng():
            result = call(model, example)
    except UserError:
        raise
    except Exception as error:  # whatever a model of the user's raises
        told = f"{example.dtype} {list(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
        rule, got = f"the model must take its example input, {told}", f"{type(error).__name__}: {error}"
        raise UserError(rule, got=got, fix="give a batch that it takes, or mend the model") from error
    finally:
        for handle in handles:
            handle.remove()
    return found, result
