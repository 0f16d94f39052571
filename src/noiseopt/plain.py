"""Any value as plain ones, for JSON: to tell whether it is what it was, and to name what changed."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_DEEPEST = 4
_KNOWN = ("torch", "noiseopt", "numpy", "builtins")  # whose source is their version's


def plain(value: object, *, depth: int = 0) -> Any:
    """Numbers and strings as they are; the contents of tensors, arrays and functions as hashes; a data class, a
    `functools.partial` or an object of yours by its name and settings. A torch module, and what is deeper than four
    levels, is a name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return _hash(f"{value.dtype} {list(value.shape)}", value.detach().cpu().contiguous().view(-1))
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)} {_digest(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes | complex | torch.dtype | torch.device | torch.Size):
        return repr(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if depth >= _DEEPEST or isinstance(value, nn.Module):
        return name

    def within(part: object) -> Any:
        return plain(part, depth=depth + 1)

    if isinstance(value, dict):
        return {str(key): within(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [within(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, map(within, value)))
    if isinstance(value, partial):
        return {"name": within(value.func), "args": within(value.args), "keywords": within(value.keywords)}
    if inspect.ismethod(value):
        return {"name": _with_source(name, value), "of": within(value.__self__)}
    if isinstance(value, type) or inspect.isroutine(value):
        return _with_source(name, value)
    if _is_known(type(value)) and not _has_fields(value):
        return name
    if _has_fields(value):
        settings = {f.name: within(getattr(value, f.name)) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
    else:
        settings = {key: within(one) for key, one in getattr(value, "__dict__", {}).items() if not key.startswith("_")}
    return {"name": _with_source(name, type(value)), **settings}


def parts_of(model: nn.Module) -> dict[str, str]:
    """Every module by its name, as it prints itself: what a network is, whatever its weights are at the moment."""
    parts = {}
    for name, module in model.named_modules():
        said = module.extra_repr()
        learned = said.partition(", mean |σ|")[0] if ", learned" in said else said  # σ moves, as weights do
        parts[name or "(whole)"] = f"{type(module).__qualname__}({learned})"
    return parts


def _with_source(name: str, code: Any) -> str:
    """The name, and the hash of what it does where that is the user's own and can be read."""
    if _is_known(code):
        return name
    try:
        return f"{name} {_digest(inspect.getsource(code).encode())}"
    except (OSError, TypeError):
        return name


def _is_known(code: Any) -> bool:
    return (getattr(code, "__module__", None) or "builtins").partition(".")[0] in _KNOWN


def _has_fields(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _hash(about: str, flat: Tensor) -> str:
    data = flat.view(torch.uint8) if flat.dtype not in (torch.bool, torch.uint8) else flat.to(torch.uint8)
    return f"{about} {_digest(data.numpy().tobytes())}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
