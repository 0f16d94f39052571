"""Shows what was measured: a run directory becomes one self-contained HTML page, or a table on a terminal.

The report reads Records, curves, noise levels and example images from files. It never imports models, attacks
or training, so that a finished run can be shown anywhere.
"""

from noiseopt.report.page import write_report
from noiseopt.report.terminal import print_table

__all__ = ["print_table", "write_report"]
