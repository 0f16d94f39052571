"""What came of training, as Markdown and pictures: Figure 3, and the rows that train σ otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noiseopt.report.export import markdown_table, shown
from noiseopt.report.layout import COLUMNS, column_key
from noiseopt.report.models import Epochs, row_labels
from noiseopt.report.pictures import curves_picture, sigma_layers, sigma_picture
from noiseopt.report.sources import Numbers, Source, number_of, plain_rows
from noiseopt.report.statistics import Estimate, estimate
from noiseopt.report.table import PROTOCOLS, attack_draws

KINDS = ("MLP", "MLP+", "MLPN")
LEVEL = 0.9
"""The accuracy that "epochs until" waits for."""


def section(curves: Sequence[Epochs], pictures: dict[str, bytes]) -> Iterator[str]:
    """Figure 3, for ReLU as in the paper, and for sigmoid."""
    if not curves:
        yield "Not measured yet.\n"
        return
    yield (
        f"Lines are means over seeds, bands their range. Validation and test images were measured with the noise "
        f"{_validation_noise(curves)}; the training loss is of the training steps, noise on.\n"
    )
    for activation in ("ReLU", "sigmoid"):
        names = {f"{kind} ({activation})": kind for kind in KINDS}
        png = curves_picture(curves, names)
        yield f"### {activation}{', as in the paper' if activation == 'ReLU' else ''}\n"
        if not png:
            yield "Not measured yet.\n"
            continue
        file = f"figure3-{activation.lower()}.png"
        pictures[file] = png
        yield f"![Training loss, validation loss and accuracy by epoch, {activation}](figures/{file})\n"
        yield _speed(curves, names)


def _validation_noise(curves: Sequence[Epochs]) -> str:
    states = {bool(line["validation_noise"]) for c in curves for line in c.lines if "validation_noise" in line}
    return " or ".join("on" if state else "off" for state in sorted(states, reverse=True)) or "state not recorded"


def _speed(curves: Sequence[Epochs], names: Mapping[str, str]) -> str:
    accuracy = (
        "test_accuracy" if any("test_accuracy" in line for c in curves for line in c.lines) else "validation_accuracy"
    )
    keys = ("train_loss", "validation_loss", accuracy)
    words = [key.replace("_", " ").replace("train ", "training ") for key in keys]
    header = ["", *(f"{word}, mean of epochs" for word in words), *(f"{word}, at the end" for word in words)]
    rows = []
    for row, name in names.items():
        found = [curve for curve in curves if curve.label == row]
        longest = max((len(curve.lines) for curve in found), default=0)
        whole = [curve for curve in found if len(curve.lines) == longest]
        series = [[[_number(line.get(key)) for line in curve.lines] for curve in whole] for key in keys]
        means = [shown(_over_seeds(math.fsum(v) / len(v) for v in one)) for one in series]
        ends = [shown(_over_seeds(v[-1] for v in one)) for one in series]
        rows.append([name, *means, *ends, _reached(series[2])])
    return markdown_table([*header, f"epochs until {words[2]} ≥ {LEVEL:.2f}"], rows)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _over_seeds(values: Any) -> Estimate:
    return estimate([value for value in values if not math.isnan(value)])


def _reached(accuracies: Sequence[Sequence[float]]) -> str:
    """The mean first epoch at which the level was reached; which seeds never did is said, not averaged away."""
    first = [next((epoch for epoch, value in enumerate(v, start=1) if value >= LEVEL), None) for v in accuracies]
    there = [epoch for epoch in first if epoch is not None]
    if not first:
        return ""
    if len(there) < len(first):
        return f"never in {len(first) - len(there)} of {len(first)} seeds"
    return shown(estimate(there), digits=1)


def why(source: Source | None, found: Numbers, curves: Sequence[Epochs], pictures: dict[str, bytes]) -> Iterator[str]:
    """Accuracy of the rows of the recipe `why`, against one draw and against many, and what became of σ."""
    if source is None or not (found or curves):
        yield "Not measured yet.\n"
        return
    rows = row_labels(source.about) or list(source.layout.rows)
    plain = plain_rows(source)
    columns = [(key, protocol) for key in ("clean", "fgsm", "pgd") for protocol in PROTOCOLS]
    measured = {(cell.column, cell.protocol) for cell in found}
    columns = [column for column in columns if column in measured]
    layers = sigma_layers(curves)
    header = ["", *(_heading(source, *column) for column in columns), *(f"σ of {layer}" for layer in layers)]
    table = []
    for row in rows:
        cells = [number_of(found, row, key, protocol=p, noise=True, plain=plain) for key, p in columns]
        sigmas = [estimate(_last_sigma(curves, row, layer)) for layer in layers]
        table.append([row, *(shown(estimate(cell.values())) for cell in cells), *map(shown, sigmas)])
    yield "Accuracy with the noise on; σ is the mean of a layer after the last epoch, over the same seeds.\n"
    yield markdown_table(header, table)
    blank = [line[0] for line in table if not any(line[1 : 1 + len(columns)])]
    if blank:
        yield f"Not measured yet: {', '.join(blank)}.\n"
    png = sigma_picture(curves, {row: row for row in rows})
    if png:
        pictures["sigma.png"] = png
        yield "Mean σ of each layer by epoch; lines are means over seeds, bands their range.\n"
        yield "![Mean σ of each layer by epoch, for every way to train it](figures/sigma.png)\n"


def _heading(source: Source, key: str, protocol: str) -> str:
    """`PGD, EOT-20`: the column, and how many draws stand behind it under this protocol."""
    records = [r for r in source.records if column_key(r) == key and r.protocol in ("", protocol) and r.noise]
    title = COLUMNS[key].title
    if key == "clean":
        draws = max((record.draws for record in records), default=1)
        return f"{title}, {draws} draw{'s' * (draws != 1)}"
    draws = max((attack_draws(record) or 1 for record in records), default=1)
    return f"{title}, EOT-{draws}" if draws > 1 else f"{title}, 1 draw"


def _last_sigma(curves: Sequence[Epochs], row: str, layer: str) -> list[float]:
    found = [curve for curve in curves if curve.label == row]
    longest = max((len(curve.lines) for curve in found), default=0)
    last = [curve.lines[-1].get("sigma") for curve in found if len(curve.lines) == longest]
    return [sigma[layer]["mean"] for sigma in last if isinstance(sigma, dict) and layer in sigma]
