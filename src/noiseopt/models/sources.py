"""The text of your own code behind a model: the file that it is in, and those of yours that this one imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
