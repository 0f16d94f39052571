"""A model from its name, or from an import path, with a seed and options."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from noiseopt.errors import UserError
from noiseopt.models.lenet import lenet
from noiseopt.models.networks import cnn, mlp
from noiseopt.models.resnet import resnet18, resnet34

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    # What the transfer attack of the MNIST tables is computed on: 784-300-150-10, ReLU.
    "surrogate_mlp": partial(mlp, hidden=(300, 150)),
    "lenet": lenet,
    "resnet18": resnet18,
    "resnet34": resnet34,
}


def build(name: str, *, seed: int, **options: Any) -> nn.Module:
    """A new model, its random weights a function of `seed` alone; torch's global generators are left as they
    were.

    Args:
        name: a key of `MODELS`, or `package.module:function` (see `load_external`).
        seed: in [0, 2⁶³).
        options: keyword arguments of that model's function.

    Raises:
        UserError: unknown name or option (with the nearest that exists), or an option out of range.
    """
    if ":" in name:
        return load_external(name, seed=seed, **options)
    if name not in MODELS:
        raise UserError(
            "a model is one of " + ", ".join(MODELS) + ", or your own as package.module:function",
            got=name,
            fix=_nearest(name, MODELS),
        )
    make = MODELS[name]
    _check_options(name, make, options)
    with _seeded(seed):
        return make(**options)


def load_external(path: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """The model that your own function or class returns: images in [0, 1] → logits, normalisation inside.

    The folder you are in is put on the import path, as `python` itself does for a script.

    Args:
        path: `package.module:function`.
        seed: what torch's generator is seeded with around the call.
        options: keyword arguments of the function.

    Raises:
        UserError: no such module or function, an error inside it, or something else than an `nn.Module` came
        back.
    """
    module_name, _, function_name = path.partition(":")
    if not module_name or not function_name.isidentifier():
        raise UserError(
            "a model of your own is named package.module:function",
            got=path,
            fix="write e.g. my_nets:make_net",
        )
    module = _import(module_name)
    make = getattr(module, function_name, None)
    if not callable(make):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise UserError(
            f"{module_name} has no function of this name",
            got=function_name,
            fix=_nearest(function_name, names),
        )
    _check_options(path, make, options)
    try:
        with _seeded(seed):
            model = make(**options)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} must build a model", got=_said(error), fix="mend the function") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{path} must return a torch.nn.Module", got=type(model), fix="return the network")
    return model


def _import(name: str) -> Any:
    # Stays there: the module may import its neighbours later, when the model runs.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(
                f"there is no module {error.name} on the import path",
                got=name,
                fix=f"run from the folder that holds it (this is {os.getcwd()}), or install it",
            ) from None
        fix = f"install {error.name}, or mend the import"
        raise UserError(f"{name} could not be imported", got=_said(error), fix=fix) from error
    except Exception as error:
        raise UserError(f"{name} could not be imported", got=_said(error), fix="mend the module") from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's generator, where parameters are born, and give it back afterwards as it was."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError("a seed must be an integer in [0, 2^63)", got=seed, fix="pass seed=0")
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the GPUs too, which fork_rng does not give back here.
        torch.default_generator.manual_seed(seed)
        yield


def _check_options(name: str, make: Callable[..., Any], options: dict[str, Any]) -> None:
    """Every option must be a keyword argument of `make`, and all that `make` requires must be there."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except ValueError:  # a callable written in C may not tell
        return
    known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for option in options:
            if option not in known:
                raise UserError(
                    f"{name} has no option of this name; its options are: {', '.join(known) or 'none'}",
                    got=option,
                    fix=_nearest(option, known),
                )
    for p in parameters:
        if p.default is p.empty and p.name in known and p.name not in options:
            raise UserError(f"{name} requires the option {p.name}", fix=f"pass {p.name}=...")


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if close:
        return f"did you mean {close[0]}?"
    return f"use one of {', '.join(names[:10])}" if names else "leave it out"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
