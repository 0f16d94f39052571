"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch starts its threads: spinning makes two test processes on two cores crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "Agg")

_SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def _missing(reason: str) -> None:
    """A skip where a thing is missing; a failure in CI, which has everything."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must have this: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets: NOISEOPT_DATA, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("NOISEOPT_DATA", _SHARED))
    if not (folder / "mnist").is_dir():
        _missing(f"no data sets in {folder}: set NOISEOPT_DATA to a folder with mnist/, usps/ and so on")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium to look at pages with."""
    import shutil

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        _missing("no chromium on PATH: install your system's chromium package to run the browser tests")
        raise AssertionError
    return path
