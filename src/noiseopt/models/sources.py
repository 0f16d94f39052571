"""Your own code behind a model: the file that it is in, those of yours that this one imports, and what they build."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from noiseopt.plain import printed

_NOT_YOURS = {"site-packages", "dist-packages"}
_OURS = "noiseopt"


def sources_of(name: str) -> list[tuple[str, bytes]]:
    """(module, text of its file) of the imported module `name` and of what it imports from beside it, by name.

    Beside it: in the folder that holds its outermost package, but no installed package. Only what is imported by now
    counts, so ask when the model is built. A module without a file (typed into an interpreter, built in) has no text.
    """
    start = _file(sys.modules.get(name))
    if start is None:
        return []
    up = _name(name).count(".") + (start.name == "__init__.py")
    root = start.parents[min(up, len(start.parents) - 1)]
    found: dict[str, bytes] = {}
    left = [name]
    while left:
        module = left.pop()
        file = _file(sys.modules.get(module))
        if module in found or file is None or (file != start and _is_apart(file, root)):
            continue
        try:
            found[module] = file.read_bytes()
        except OSError:
            continue
        left += _imports(_name(module), found[module], package=file.name == "__init__.py")
    return sorted(found.items())


def origin(make: Callable[[], nn.Module], module: str) -> list[Any]:
    """What makes a network what it is before any training, as plain values: the files of `module`, how it prints, and
    the weights that it starts with, which may come from a file; but those that `make` draws anew each time.
    """
    net, again = make(), make()
    files = [(name, hashlib.sha256(text).hexdigest()) for name, text in sources_of(module)]
    other = _outlines(again)
    return [files, printed(net), {name: line for name, line in _outlines(net).items() if other.get(name) == line}]


def _outlines(net: nn.Module) -> dict[str, str]:
    """Of every parameter and buffer the shape, root mean square and mean, so rounded that all machines agree."""
    found = {}
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if nn.parameter.is_lazy(tensor) or tensor.is_meta or tensor.layout != torch.strided or tensor.is_complex():
            continue
        values = tensor.detach().double()
        size = values.square().mean().sqrt().item() if values.numel() else 0.0
        mean = round(values.mean().item() / size, 3) + 0.0 if size else 0.0  # + 0: there is one zero
        found[name] = f"{list(tensor.shape)} {size:.4g} {mean:g}"
    return found


def _name(module: str) -> str:
    """`package.module` of what is run by `python -m`, which is loaded as `__main__`."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return spec.name if module == "__main__" and spec else module


def _file(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).absolute() if file and file.endswith(".py") else None


def _is_apart(file: Path, root: Path) -> bool:
    """Is it not from beside the first, or installed?"""
    return root not in file.parents or bool(_NOT_YOURS & set(file.parts))


def _imports(module: str, text: bytes, *, package: bool) -> Iterator[str]:
    """Names of modules that `text` may import, anywhere in it; those that are none are not found later."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _outwards(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + package]
                base = ".".join([*above, *filter(None, [node.module])])
            yield from _outwards(base)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _outwards(name: str) -> Iterator[str]:
    """a.b.c, a.b, a: the packages around a module run first."""
    parts = name.split(".")
    if parts[0] != _OURS:
        yield from (".".join(parts[:end]) for end in range(len(parts), 0, -1))
