"""Pivots and lists of Records as what other programs take: CSV, Markdown, LaTeX, JSON and plain text."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from noiseopt.checkpoint import write_atomically
from noiseopt.errors import UserError
from noiseopt.report.layout import Column
from noiseopt.report.pivot import Line, Pivot
from noiseopt.report.selection import FIELDS, value_of
from noiseopt.report.sources import Source
from noiseopt.report.statistics import Estimate


def shown(number: Estimate, *, plus_minus: str = " ±", digits: int = 3) -> str:
    """`0.957 ±0.004`; without the interval where there is one seed; "" where there is no number."""
    if not number.known:
        return ""
    interval = f"{plus_minus}{number.half:.{digits}f}" if number.has_interval else ""
    return f"{number.mean:.{digits}f}{interval}"


def _state(noise: bool) -> str:
    return "on" if noise else "off"


def _head(table: Pivot) -> list[tuple[str, Callable[[Line], str]]]:
    """The columns that say which line it is: heading, and what stands there. The run only where there are several."""
    head: list[tuple[str, Callable[[Line], str]]] = [
        ("model", lambda line: line.model),
        ("protocol", lambda line: line.protocol),
        ("noise", lambda line: _state(line.noise)),
    ]
    several = len({line.run for line in table.lines}) > 1
    return [("run", lambda line: line.run), *head] if several else head


def as_csv(table: Pivot) -> str:
    """Three fields for each column: its mean, half the width of the interval, and the number of seeds."""
    keys = [column.key for column in table.columns]
    header = ["run", "model", "protocol", "noise"]
    header += [name for key in keys for name in (key, f"{key}_half_width", f"{key}_seeds")]
    rows = [
        [line.run, line.model, line.protocol, _state(line.noise)]
        + [text for key in keys for text in _fields(line.estimate(key))]
        for line in table.lines
    ]
    return _csv([header, *rows])


def _fields(number: Estimate) -> tuple[str, str, str]:
    if not number.known:
        return "", "", ""
    return f"{number.mean:.6f}", f"{number.half:.6f}" if number.has_interval else "", str(number.seeds)


def long_csv(sources: Sequence[Source]) -> str:
    """One line a Record with all its fields; `parameters` as JSON."""
    rows = [[_field(value_of(s, r, name)) for name in FIELDS] for s in sources for r in s.records]
    return _csv([list(FIELDS), *rows])


def _field(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, bool):
        return _state(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


def _csv(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def as_json(table: Pivot) -> str:
    """A list of cells, each with the number of every seed."""
    cells: list[dict[str, Any]] = []
    for line in table.lines:
        for key, by_seed in line.cells.items():
            number = line.estimate(key)
            known = {"mean": number.mean, "low": number.low, "high": number.high}
            cells.append(
                {"run": line.run, "model": line.model, "protocol": line.protocol, "noise": line.noise, "column": key}
                | {name: None if math.isnan(value) else value for name, value in known.items()}
                | {"seeds": {str(seed): value for seed, value in by_seed.items()}}
            )
    return json.dumps(cells, indent=1, ensure_ascii=False) + "\n"


def long_json(sources: Sequence[Source]) -> str:
    """A list of Records with all their fields, and the run that each is from."""
    records = [{"run": s.name, **r.model_dump(mode="json")} for s in sources for r in s.records]
    return json.dumps(_finite(records), indent=1, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_markdown(table: Pivot) -> str:
    """A pipe table, and what its numbers are."""
    head = _head(table)
    header = [name for name, _ in head] + [title_of(column, table.columns) for column in table.columns]
    rows = [[text(line) for _, text in head] + [shown(line.estimate(c.key)) for c in table.columns]
            for line in table.lines]  # fmt: skip
    return markdown_table(header, rows, left=len(head)) + f"\n{_foot(table)}\n"


def write_page(path: Path, page: str, pictures: Mapping[str, bytes]) -> Path:
    """Write a Markdown page, and its pictures (file name → PNG) to figures/ beside it.

    Raises UserError where that cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if pictures:
            (path.parent / "figures").mkdir(exist_ok=True)
        for name, png in pictures.items():
            write_atomically(path.parent / "figures" / name, png)
        write_atomically(path, page.encode())
    except OSError as error:
        raise UserError(f"{path} must be writable", got=str(error), fix="give another -o FILE") from None
    return path


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A pipe table; the first `left` columns are flush left, the others flush right."""
    rule = ["---" if place < left else "---:" for place in range(len(header))]
    return "".join(f"| {' | '.join(map(_in_a_cell, row))} |\n" for row in (header, rule, *rows))


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def title_of(column: Column, columns: Sequence[Column]) -> str:
    """A column's title, with its group where another column has the same title."""
    twins = [other for other in columns if other.title == column.title]
    return f"{column.title} ({column.group.lower()})" if len(twins) > 1 and column.group else column.title


def as_latex(table: Pivot) -> str:
    """A `tabular` for the package booktabs, the groups of columns above their titles."""
    head = _head(table)
    lines = ["% needs \\usepackage{booktabs}", f"\\begin{{tabular}}{{{'l' * len(head)}{'c' * len(table.columns)}}}"]
    lines.append("\\toprule")
    groups, rules, place = [""] * len(head), [], len(head) + 1
    for name, members in groupby(table.columns, key=lambda column: column.group):
        width = len(list(members))
        groups.append(f"\\multicolumn{{{width}}}{{c}}{{{latex_escape(name)}}}")
        rules += [f"\\cmidrule(lr){{{place}-{place + width - 1}}}"] if name else []
        place += width
    if rules:
        lines += [" & ".join(groups) + r" \\", " ".join(rules)]
    titles = [name.capitalize() for name, _ in head] + [column.title for column in table.columns]
    lines += [" & ".join(map(latex_escape, titles)) + r" \\", "\\midrule"]
    for line in table.lines:
        cells = [shown(line.estimate(column.key), plus_minus=r" \pm ") for column in table.columns]
        texts = [latex_escape(text(line)) for _, text in head] + [f"${cell}$" if cell else "" for cell in cells]
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", f"% {_foot(table)}", ""])


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def latex_escape(text: str) -> str:
    """Text that LaTeX sets as it stands.

    >>> latex_escape("L_2 & 5 %")
    'L\\\\_2 \\\\& 5 \\\\%'
    """
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def as_text(table: Pivot, *, width: int) -> str:
    """Plain text for a terminal; where it is too wide, the columns follow each other in blocks."""
    head = _head(table)
    left = [[name, *(text(line) for line in table.lines)] for name, text in head]
    data = [[title_of(c, table.columns), *(shown(line.estimate(c.key)) for line in table.lines)] for c in table.columns]
    taken = sum(_widest(column) + 2 for column in left)
    blocks: list[list[list[str]]] = [[]]
    for column in data:
        if blocks[-1] and taken + sum(_widest(c) + 2 for c in [*blocks[-1], column]) > width + 2:
            blocks.append([])
        blocks[-1].append(column)
    return "\n".join(_block(left, block) for block in blocks) + f"\n{_foot(table)}\n"


def _block(left: list[list[str]], data: list[list[str]]) -> str:
    padded = [[text.ljust(_widest(column)) for text in column] for column in left]
    padded += [[text.rjust(_widest(column)) for text in column] for column in data]
    return "".join("  ".join(row).rstrip() + "\n" for row in zip(*padded, strict=True))


def _widest(column: Sequence[str]) -> int:
    return max(map(len, column))


def _foot(table: Pivot) -> str:
    curves = f" Curves are not in this table ({', '.join(table.left_out)}): the report draws them, --long lists them."
    return _about_seeds(table) + curves * bool(table.left_out)


def _about_seeds(table: Pivot) -> str:
    counts = sorted({len(by_seed) for line in table.lines for by_seed in line.cells.values()})
    if not counts:
        return "No column has been measured whole." if not table.left_out else "There is no column."
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if counts[-1] == 1:
        return "Accuracy from one training seed: there is no interval over seeds."
    alone = " A number without one is from a single seed." if counts[0] == 1 else ""
    return f"Accuracy, mean over {seeds} training seeds, ± half of its 95% t-interval over seeds.{alone}"
