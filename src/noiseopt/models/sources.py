"""Your own code behind a model: the file that it is in, those of yours that this one imports, and what they build."""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

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
    if _NOT_YOURS & set(start.parts):
        return [(name, start.read_bytes())]
    root = start.parents[name.count(".") + (start.name == "__init__.py")]
    found: dict[str, bytes] = {}
    left = [name]
    while left:
        module = left.pop()
        file = _file(sys.modules.get(module))
        if module in found or file is None or root not in file.parents or _installed(file, root):
            continue
        try:
            found[module] = file.read_bytes()
        except OSError:
            continue
        left += _imports(module, found[module], package=file.name == "__init__.py")
    return sorted(found.items())


def origin(net: nn.Module, module: str) -> list[Any]:
    """What makes `net` the network that it is before any training, as plain values: the files of `module`, how it
    prints itself, and of every parameter and buffer the shape, root mean square and mean, so rounded that all machines
    agree.
    """

    def outline(tensor: Tensor) -> str:
        values = tensor.detach().double()
        size = values.square().mean().sqrt().item() if values.numel() else 0.0
        return f"{list(tensor.shape)} {size:.4g} {values.mean().item() / size if size else 0.0:.3f}"

    files = [(name, hashlib.sha256(text).hexdigest()) for name, text in sources_of(module)]
    tensors = {name: outline(tensor) for name, tensor in [*net.named_parameters(), *net.named_buffers()]}
    return [files, re.sub(r" at 0x[0-9a-fA-F]+", "", str(net)), tensors]


def _file(module: ModuleType | None) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file and file.endswith(".py") else None


def _installed(file: Path, root: Path) -> bool:
    return bool(_NOT_YOURS & set(file.relative_to(root).parts))


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
