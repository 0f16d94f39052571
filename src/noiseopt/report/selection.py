"""Choosing Records by any of their fields: `model=MLPN (sigmoid)`, `noise=on`, `parameters.severity=3`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.report.sources import Source

FIELDS = ("run", *Record.model_fields)
_WORDS = {True: ("on", "true", "yes"), False: ("off", "false", "no")}


def select(sources: Sequence[Source], conditions: Iterable[str]) -> list[Source]:
    """The sources with those of their Records that meet all `conditions`, each `field=value`.

    A field that stands in several conditions may have any of their values. `run` is the source's name; a dot goes
    into the settings of the perturbation: `parameters.eps=0.1`.

    Raises:
        UserError: no such field, or no Record with that value (with the nearest that there is).
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        field, sign, value = condition.partition("=")
        field, value = field.strip(), value.strip()
        if not sign:
            raise UserError("--where must be FIELD=VALUE", got=condition, fix="--where protocol=strict")
        _known_value(sources, _known_field(sources, field), value)
        wanted.setdefault(field, []).append(value)

    def chosen(source: Source, record: Record) -> bool:
        return all(
            any(_same(value_of(source, record, field), value) for value in values) for field, values in wanted.items()
        )

    kept = [replace(source, records=tuple(r for r in source.records if chosen(source, r))) for source in sources]
    if not any(source.records for source in kept):
        every = " and ".join(f"{field}={' or '.join(values)}" for field, values in wanted.items())
        raise UserError("no Record meets all conditions together", got=every, fix="leave one out")
    return kept


def value_of(source: Source, record: Record, field: str) -> Any:
    """What a field holds; None where a Record has no such setting."""
    if field == "run":
        return source.name
    first, *inner = field.split(".")
    value = getattr(record, first)
    for key in inner:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def as_word(value: object) -> str:
    """A value as it is written in a condition."""
    if isinstance(value, bool):
        return _WORDS[value][0]
    return "" if value is None else str(value)


def _same(value: object, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted.lower() in _WORDS[value]
    if isinstance(value, int | float):
        try:
            return float(wanted) == value
        except ValueError:
            return False
    return as_word(value) == wanted


def _known_field(sources: Sequence[Source], field: str) -> str:
    first = field.partition(".")[0]
    settings = {f"parameters.{path}" for s in sources for r in s.records for path in _paths(r.parameters)}
    known = settings if first == "parameters" and "." in field else set(FIELDS) - {"parameters"}
    if field not in known:
        raise UserError(
            f"there is no field {field}", fix=_nearest(field, [*sorted(known, key=_order)], what="choose from")
        )
    return field


def _order(field: str) -> tuple[int, str]:
    return (FIELDS.index(field) if field in FIELDS else len(FIELDS), field)


def _known_value(sources: Sequence[Source], field: str, value: str) -> None:
    values = {as_word(found): found for s in sources for r in s.records if (found := value_of(s, r, field)) is not None}
    if not any(_same(found, value) for found in values.values()):
        raise UserError(f"no Record has {field}={value}", fix=_nearest(value, sorted(values), what="there is"))


def _nearest(word: str, known: Sequence[str], *, what: str) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not close:  # the same letters in another case are nearer than they look to difflib
        close = [name for name in known if name.lower().startswith(word.lower()[:4])][:1] if word else []
    if close:
        return f"did you mean {close[0]}?"
    listed = ", ".join(name or '""' for name in known[:12])
    return f"{what} {listed}{', ...' if len(known) > 12 else ''}"


def _paths(parameters: dict[str, Any], within: str = "") -> Iterator[str]:
    for key, value in parameters.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{within}{key}.")
        else:
            yield f"{within}{key}"
