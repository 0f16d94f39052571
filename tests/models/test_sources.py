"""Which files are your model's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noiseopt.models import sources_of

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def file(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        importlib.invalidate_caches()

    yield file
    for name in set(sys.modules) - before:
        del sys.modules[name]


def names(module: str) -> list[str]:
    importlib.import_module(module)
    return [name for name, _ in sources_of(module)]


def test_what_it_imports_from_beside_it_counts_with_all_that_this_imports(write: Write) -> None:
    write("nets_a.py", "import math, torch\nfrom nets_b import act\n\ndef late():\n    import nets_d.parts\n")
    write("nets_b.py", "import nets_c as other\nact = 1\n")
    write("nets_c.py", "import nets_a\n")
    write("nets_d/__init__.py", "")
    write("nets_d/parts.py", "from . import more\nfrom .more import x\n")
    write("nets_d/more.py", "x = 1\n")
    write("nets_unrelated.py", "")
    importlib.import_module("nets_unrelated")
    assert names("nets_a") == ["nets_a", "nets_b", "nets_c"]
    importlib.import_module("nets_a").late()
    assert names("nets_a") == ["nets_a", "nets_b", "nets_c", "nets_d", "nets_d.more", "nets_d.parts"]
    assert dict(sources_of("nets_a"))["nets_c"] == b"import nets_a\n"
    assert names("nets_d.parts") == ["nets_d", "nets_d.more", "nets_d.parts"]


def test_an_installed_package_counts_by_the_one_file(write: Write) -> None:
    write("site-packages/installed_net.py", "import installed_more\n")
    write("site-packages/installed_more.py", "")
    sys.path.insert(0, str(Path(sys.path[0]) / "site-packages"))
    try:
        write("nets_e.py", "import installed_net\n")
        assert names("nets_e") == ["nets_e"]
        assert names("installed_net") == ["installed_net"]
    finally:
        sys.path.pop(0)


def test_what_has_no_file_has_no_text() -> None:
    assert sources_of("sys") == []
    assert sources_of("no_such_module") == []
