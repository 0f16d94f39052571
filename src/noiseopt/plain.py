"""Any value as plain ones, for JSON: to tell whether it is what it was, and to name what changed."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_DEEPEST, _LONGEST = 4, 50
_VERSIONED = {"torch", "noiseopt", "numpy", "builtins", *sys.stdlib_module_names}  # whose code is their version's
_OF_MODULES = vars(nn.Module()).keys()


def plain(value: object, *, depth: int = 0) -> Any:
    """Numbers and strings as they are; tensors, arrays and long lists as hashes; a function by its name, its source and
    what it has bound; an object of yours by its name, its source, its fields and public attributes (`_x` is state).

    What is deeper than four levels, a torch module, and an object of the standard library, is a name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return tensor_digest(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)} {_digest(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, np.generic):
        found = value.item()
        return found if isinstance(found, bool | int | float | str) else repr(value)
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, bytes | complex | range | PurePath | torch.dtype | torch.device | torch.Size):
        return repr(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if depth >= _DEEPEST or isinstance(value, nn.Module):
        return name

    def within(part: object) -> Any:
        return plain(part, depth=depth + 1)

    if isinstance(value, Mapping):
        return _short({str(key): within(one) for key, one in value.items()})
    if isinstance(value, Sequence):
        return _short([within(one) for one in value])
    if isinstance(value, Set):
        return _short(sorted(json.dumps(within(one), sort_keys=True) for one in value))
    if isinstance(value, partial):
        return {"name": within(value.func), "args": within(value.args), "keywords": within(value.keywords)}
    if inspect.ismethod(value):
        return {"name": _with_source(name, value), "of": within(value.__self__)}
    if isinstance(value, type) or inspect.isroutine(value):
        bound = _bound(value) if isinstance(value, FunctionType) and not is_versioned(value) else {}
        return {"name": _with_source(name, value), "bound": within(bound)} if bound else _with_source(name, value)
    is_data = dataclasses.is_dataclass(value)
    fields = {f.name for f in dataclasses.fields(value)} if is_data else set()  # type: ignore[arg-type]
    if not is_versioned(type(value)):
        slots = (one for kind in type(value).__mro__ for one in _listed(getattr(kind, "__slots__", ())))
        fields |= {one for one in (*getattr(value, "__dict__", ()), *slots) if not one.startswith("_")}
    settings = {one: within(getattr(value, one)) for one in sorted(fields) if hasattr(value, one)}
    named = _with_source(name, type(value))
    return {"name": named, **settings} if settings or is_data else named


def parts_of(model: nn.Module) -> dict[str, str]:
    """Every module by its name, by its kind and how it was set: what a network is, whatever it has learned by now.

    How it was set is what it prints; but a kind of yours may print what it learns, and noise that learns does.
    """
    parts = {}
    for name, module in model.named_modules():
        learns = any(p.requires_grad for p in module.parameters(recurse=False))
        settles = type(module).__module__.startswith("torch.nn.") or not learns
        parts[name or "(whole)"] = f"{type(module).__qualname__}({module.extra_repr() if settles else 'learned'})"
    return parts


def printed(model: nn.Module) -> str:
    """The model as it prints, without the addresses of what is in it."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(model))


def attributes_of(module: nn.Module) -> dict[str, object]:
    """What a module keeps besides tensors, submodules, hooks and its mode: `self.levels = 255`."""
    return {name: value for name, value in vars(module).items() if name not in _OF_MODULES}


def is_versioned(code: Any) -> bool:
    """Is a function, a class or a module of torch, noiseopt, numpy or Python, so that a version says what it does?"""
    return (getattr(code, "__module__", None) or "builtins").partition(".")[0] in _VERSIONED


def tensor_digest(tensor: Tensor) -> str:
    """Type, shape, and a hash of the contents; of a tensor that has none (meta, not initialised yet) only these."""
    about = f"{tensor.dtype} {'lazy' if nn.parameter.is_lazy(tensor) else list(tensor.shape)}"
    if tensor.is_meta or nn.parameter.is_lazy(tensor):
        return about
    data = tensor.detach()
    if data.layout != torch.strided:
        data = data.to_dense()
    data = data.resolve_conj().resolve_neg().cpu().contiguous().flatten()
    return f"{about} {_digest((data.view(torch.uint8) if data.numel() else data.byte()).numpy().tobytes())}"


def _digest(data: bytes) -> str:
    """Sixteen hexadecimal digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def _with_source(name: str, code: Any) -> str:
    """The name, and the hash of what it does where that is the user's own and can be read."""
    if is_versioned(code):
        return name
    try:
        return f"{name} {_digest(inspect.getsource(code).encode())}"
    except (OSError, TypeError):
        return name


def _bound(function: FunctionType) -> dict[str, object]:
    """Defaults and what a function closes over: alike in their source, two functions may differ in these."""
    closed: dict[str, object] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing in it yet
            closed[name] = cell.cell_contents
    named = {"defaults": function.__defaults__, "keywords": function.__kwdefaults__, "closure": closed}
    return {name: value for name, value in named.items() if value}


def _listed(slots: object) -> Sequence[str]:
    return (slots,) if isinstance(slots, str) else tuple(slots)  # type: ignore[arg-type]


def _short(value: Any) -> Any:
    """Itself, or the hash of what would fill pages."""
    return value if len(value) <= _LONGEST else f"{len(value)} items {_digest(json.dumps(value).encode())}"
