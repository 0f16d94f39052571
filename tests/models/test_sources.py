"""Which files are your model's own."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from noiseopt.models import origin, sources_of

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


def test_a_name_deeper_than_its_path_and_a_file_that_is_gone(write: Write, tmp_path: Path) -> None:
    write("nets_f.py", "")
    spec = importlib.util.spec_from_file_location(".".join("abcdefghijklmnopqrst"), tmp_path / "nets_f.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    assert [name for name, _ in sources_of(spec.name)] == [spec.name]
    importlib.import_module("nets_f")
    (tmp_path / "nets_f.py").unlink()
    assert sources_of("nets_f") == []


def test_what_is_run_as_a_module_of_a_package(write: Write, tmp_path: Path) -> None:
    write("app_g/__init__.py", "")
    write("app_g/act.py", "ACT = 1\n")
    said = "from noiseopt.models import sources_of\nprint([name for name, _ in sources_of('__main__')])\n"
    write("app_g/run.py", f"from .act import ACT\n{said}")
    found = subprocess.run(
        [sys.executable, "-m", "app_g.run"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "['__main__', 'app_g', 'app_g.act']"


class Odd(nn.Module):
    """Weights that are drawn by numpy, are not there yet, or have no numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = nn.Parameter(torch.from_numpy(np.random.default_rng().random(3)))
        self.later = nn.LazyLinear(3)
        self.register_buffer("sparse", torch.eye(3).to_sparse())
        self.register_buffer("absent", torch.empty(3, device="meta"))
        self.register_buffer("kept", torch.tensor([1.0, -1.0]))


def test_the_origin_is_of_what_comes_out_alike_each_time() -> None:
    one, other = origin(Odd, __name__), origin(Odd, __name__)
    assert one == other
    assert one[2] == {"kept": "[2] 1 0"}
