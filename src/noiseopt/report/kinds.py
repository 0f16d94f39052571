"""What a row of a recipe is, in words: its kind of noise, whose examples it was trained on, how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noiseopt.report.layout import mapping

KINDS = {
    "none": "no noise",
    "fixed": "one fixed σ",
    "allocation": "a fixed σ for each layer",
    "learned": "learned σ",
    "paper": "noise of other papers",
    "made": "made of other rows",
}
"""What a method does about noise, and the words for it, in the order of the legend."""


def kind_of(row: Mapping[str, Any]) -> str:
    """The key of KINDS that a recipe's row belongs to."""
    if row.get("of"):
        return "made"
    noise = mapping(row.get("noise"))
    if not noise:
        return "none"
    if "kind" in noise:
        return "learned" if noise["kind"] == "pixels" else "paper"
    sigma = noise.get("sigma", "learned")
    if sigma == "learned":
        return "learned"
    return "allocation" if isinstance(sigma, list | dict) else "fixed"


def length_of(training: Mapping[str, Any]) -> str:
    """How long a recipe or a row of it trains, in words; "" where it does not say (a row: as long as the others)."""
    for unit in ("steps", "epochs"):
        if isinstance(count := training.get(unit), int):
            return f"{count:,} {unit if count != 1 else unit[:-1]}"
    return ""


def adversary_of(row: Mapping[str, Any], recipe: Mapping[str, Mapping[str, Any]]) -> str:
    """What attacks the images that the row was trained on, or those that it goes on after or is made of.

    Rows of the same name are partners of the same adversarial training. `recipe`: by label.
    """
    names = [_attack(mapping(row[key])) for key in ("adversary", "pool") if row.get(key) is not None]
    earlier = [*(row.get("of") or []), *([row["after"]] if row.get("after") else [])]
    names += [adversary_of(recipe[label], recipe) for label in earlier if label in recipe]
    return " and ".join(dict.fromkeys(filter(None, names)))


def _attack(settings: Mapping[str, Any]) -> str:
    loss, attack = settings.get("loss"), str(settings.get("attack", "?")).upper().replace("_", " ")
    share = 0.5 if settings.get("share") is None else float(settings["share"])
    name = {"trades": "TRADES", "mixed": f"{share:.0%} {attack}"}.get(str(loss), attack)
    name += f"-{settings['steps']}" if settings.get("steps") else ""
    name += f" with β {settings['beta']:g}" if settings.get("beta") is not None else ""
    return name + (f", {255 * float(settings['eps']):.3g}/255" if settings.get("eps") else "")
