"""Freed memory is kept: the same block comes back without new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, sys
import torch
from noiseopt.allocation import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
torch.set_num_threads(1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.empty(32 * 2**18).fill_(1)
before = faults()
for _ in range(20):
    torch.empty(32 * 2**18).fill_(1)  # 32 MB
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc takes the advice")
def test_a_freed_block_is_found_again_with_its_pages() -> None:
    def faults(how: str) -> int:
        run = subprocess.run([sys.executable, "-c", PAGES, how], capture_output=True, text=True, check=True)
        return int(run.stdout)

    kept, returned = faults("kept"), faults("returned")
    assert kept < 20 * 32 * 2**20 // 4096 / 100
    # Huge pages make the number of faults of the other way uncertain, but not as small as that.
    assert returned > 10 * kept
