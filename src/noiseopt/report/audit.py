"""The audit of a run's models, as the page shows it; read from `<run>/audit`, which `noiseopt audit` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noiseopt.report.layout import mapping

FOLDER = "audit"


def audit_view(
    folder: Path, rows: Sequence[str], notes: list[str], *, about: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """What the page shows of the run in `folder`; None where nothing was audited.

    `rows`: the models in their order. `about`: run.json, which says what networks the run now has. `notes` is told
    what could not be read or is of other networks.
    """

    def order(entry: dict[str, Any]) -> tuple[float, ...]:
        label, eps = str(entry["model"]), mapping(entry.get("settings")).get("eps", 0)
        off = is_noise_off(entry)
        return rows.index(label) if label in rows else len(rows), entry["model_seed"] or 0, eps, off

    audits = current(entries_of(folder / FOLDER / "audit.json", notes), about or {}, notes, what="audits")
    certificates = entries_of(folder / FOLDER / "certificates.json", notes)
    certificates = current(certificates, about or {}, notes, what="certificates")
    audited = [_model(entry) for entry in sorted(audits, key=order)]
    certified = _certificates(sorted(certificates, key=order))
    if not audited and certified is None:
        return None
    many = len({model["radius"] for model in audited}) > 1
    return {"models": audited, "many_radii": many, "how": _how(audited), "certificates": certified}


def is_noise_off(entry: Mapping[str, Any]) -> bool:
    """Had the model noise that was taken out for its audit?"""
    return entry.get("noise_off") is True


def current(
    entries: Sequence[dict[str, Any]], about: Mapping[str, Any], notes: list[str], *, what: str
) -> list[dict[str, Any]]:
    """Those of networks that the run has now, by its run.json; a note says how many are of others.

    Where run.json (of an older version) or the entry names no hash, nothing can be told, and the entry stays.
    """
    listed = about.get("networks")
    now = {(one["label"], one["seed"]): one["hash"] for one in listed} if isinstance(listed, list) else None
    kept = []
    for entry in entries:
        key = (entry["model"], entry["model_seed"])
        if now is None or (key in now and entry.get("cell", now[key]) == now[key]):
            kept.append(entry)
    if gone := len(entries) - len(kept):
        notes.append(f"{gone} {what} of networks that the run no longer has were left out: make them again")
    return kept


def entries_of(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The models that an audit.json or certificates.json tells of, complete; none where it cannot be read."""
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        entries = [dict(entry) for entry in found["models"]]
        for entry in entries:
            _check(entry)
        return entries
    except (OSError, ValueError, TypeError, KeyError) as error:
        notes.append(f"{FOLDER}/{path.name} cannot be read: {error!r}")
        return []


def _check(entry: dict[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError where something that is shown is missing."""
    if "certified" in entry:
        _certificates([entry])
    else:
        _how([_model(entry)])


def _model(entry: dict[str, Any]) -> dict[str, Any]:
    audited, images = mapping(entry["audited"]), int(entry["images"])
    checks = [mapping(check) for check in entry["checks"]]
    findings = [
        {"kind": "Masking" if check["masking"] else "Note", "sentence": str(check["sentence"])}
        for check in checks
        if check["found"]
    ]
    undecided = int(audited["undecided"])
    return {
        "label": f"{entry['model']}, noise off" if is_noise_off(entry) else str(entry["model"]),
        "seed": entry["model_seed"],
        "radius": f"{255 * float(mapping(entry['settings'])['eps']):.3g}/255",
        "masked": bool(entry["masked"]),
        "clean": _share(float(entry["clean"]["value"])),
        "audited": _share(float(audited["value"])),
        "interval": f"{_share(float(audited['low']))} to {_share(float(audited['high']))}",
        "undecided": f"{undecided:,}",
        "images": images,
        "subset": int(entry["subset"]),
        "findings": findings,
        "checks": [
            {"state": _state(check), "found": bool(check["found"]), "sentence": str(check["sentence"])}
            for check in checks
        ],
        "attacks": list(_attacks(entry["attacks"], images, int(entry["subset"]))),
        "settings": mapping(entry["settings"]),
        "noisy": bool(entry["noisy"]),
    }


def _state(check: dict[str, Any]) -> str:
    if not check["found"]:
        return "passed"
    return "masking" if check["masking"] else "note"


def _attacks(lines: list[Any], images: int, subset: int) -> Iterator[dict[str, Any]]:
    for line in map(mapping, lines):
        left, alone = line["left"], line["subset"]
        yield {
            "title": str(line["title"]),
            "tried": f"{int(line['tried']):,}",
            "fell": f"{int(line['fell']):,}",
            "left": "" if left is None else _share(int(left) / images),
            "bar": None if left is None else round(100 * int(left) / images, 1),
            "alone": "" if alone is None else _share(int(alone) / subset),
            "seconds": f"{float(line['seconds']):,.1f}",
        }


def _how(models: list[dict[str, Any]]) -> str:
    """How the numbers came about, where all models were audited alike; else what they have in common."""
    told = "An image counts as robust only if it survives every attack that was made."
    settings = [{**model["settings"], "eps": None, "seed": None} for model in models]
    if not settings or any(other != settings[0] for other in settings):
        return told
    first, radii = settings[0], {float(model["settings"]["eps"]) for model in models}
    counts = {f"{model['images']:,}" for model in models}
    images = f" on {counts.pop()} test images" if len(counts) == 1 else ""
    votes = f" A model with noise is decided by {first['votes']:,} votes of the noise for each image."
    noisy = votes if any(model["noisy"] for model in models) else ""
    radius = " or ".join(f"{eps:.3g} ({255 * eps:.3g}/255)" for eps in sorted(radii))
    return f"{told} L∞ radius {radius}{images}.{noisy}"


def _certificates(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not entries:
        return None
    radii = sorted({float(point["radius"]) for entry in entries for point in entry["certified"]})
    lines = []
    for entry in entries:
        known = {float(point["radius"]): point for point in entry["certified"]}
        cells = [
            {"value": _share(float(known[r]["value"])), "hint": f"{known[r]['low']:.3f} to {known[r]['high']:.3f}"}
            if r in known
            else {"value": "", "hint": ""}
            for r in radii
        ]
        lines.append(
            {
                "label": str(entry["model"]),
                "seed": entry["model_seed"],
                "sigma": f"{float(entry['sigma']):g}{' in front' if entry.get('in_front') else ''}",
                "abstained": _share(int(entry["abstained"]) / int(entry["images"])),
                "cells": cells,
            }
        )
    draws, images = ({f"{int(entry[key]):,}" for entry in entries} for key in ("draws", "images"))
    how = "Certified accuracy: the share of images whose class is right and cannot change within the radius (L2)"
    if len(draws) == len(images) == 1:
        how = f"{how}; {draws.pop()} draws for each of {images.pop()} images"
    alphas = {float(entry["alpha"]) for entry in entries}
    if len(alphas) == 1:
        how = f"{how}; each certificate is wrong with a probability of at most {alphas.pop():g}"
    return {"radii": [f"{r:g}" for r in radii], "lines": lines, "how": f"{how}."}


def _share(value: float) -> str:
    """Three digits, as in the tables of accuracy."""
    return f"{value:.3f}"
