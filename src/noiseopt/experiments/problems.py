"""What is wrong with a recipe, in one line: where, the rule, the value received, the fix."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from noiseopt.errors import UserError

Place = tuple[str | int, ...]
_OURS = "rule_of_ours"


class Part(BaseModel):
    """A part of a recipe: frozen, and a key it does not know is an error that names the nearest one it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, value: Any) -> Any:
        known_keys(value, cls.model_fields)
        if isinstance(value, Mapping):
            for key, given in value.items():
                # To Python True is 1; in a recipe `epochs: yes` is a slip.
                if isinstance(given, bool) and not _takes_bool(cls.model_fields[key].annotation):
                    broken(
                        "must not be true or false",
                        got=given,
                        fix="write the value, in quotes if it is a word",
                        at=(key,),
                    )
        return value


def _takes_bool(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_takes_bool(a) for a in get_args(annotation))
    return annotation not in (int, float)


def known_keys(value: Any, valid: Iterable[str], *, at: Place = ()) -> None:
    """Raises (inside a validator) for the first key of the mapping `value` that is not in `valid`."""
    valid = list(valid)
    for key in value if isinstance(value, Mapping) else ():
        if key not in valid:
            broken("is not a known key", fix=nearest(str(key), valid), at=(*at, str(key)))


def known_name(name: str, valid: Iterable[str], *, what: str, at: Place = ()) -> None:
    """Raises (inside a validator) where `name` is not in `valid`."""
    valid = list(valid)
    if name not in valid:
        broken(f"must name {what}", got=name, fix=nearest(name, valid), at=at)


def all_finite(value: Any, *, at: Place = ()) -> None:
    """Raises (inside a validator) for the first number in `value`, or in what it contains, that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        broken("must be finite", got=value, fix="write a number", at=at)
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str):
        inside = enumerate(value)
    for key, part in inside:
        all_finite(part, at=(*at, key if isinstance(key, int) else str(key)))


def broken(rule: str, *, got: object = None, fix: str, at: Place = ()) -> NoReturn:
    """Raises (inside a validator): "<place> <rule>; got ...; fix: ...". `at`: a place below the one validated."""
    raise PydanticCustomError(_OURS, "{rule}", {"rule": rule, "got": got, "fix": fix, "at": at})


def refused(error: UserError, *, at: Place = ()) -> NoReturn:
    """Raises (inside a validator) what the thing being made says against its settings."""
    broken(f"is refused: {error.rule}", fix=error.fix, at=at)


def nearest(word: str, valid: Iterable[str]) -> str:
    """`did you mean 'epochs'? valid: batch_size, epochs, ...`; without the question where nothing is like it."""
    valid = sorted(valid)
    if not valid:
        return "remove it: nothing is valid here"
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? valid: {', '.join(valid)}" if close else f"choose among {', '.join(valid)}"


def spell(place: Place) -> str:
    """`rows[0].training.lr`: counted from 0."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


def as_user_error(
    error: ValidationError, *, where: str, line_of: Callable[[Place], int | None] | None = None
) -> UserError:
    """The first problem of `error`, at its place in the file `where`."""
    problems = error.errors(include_url=False)
    first = problems[0]
    rule, got, fix = _explain(first)
    # Tags of unions (`<attack>`) are in pydantic's locations, though nobody wrote them.
    place = tuple(step for step in first["loc"] if not str(step).startswith("<"))
    place += tuple(first.get("ctx", {}).get("at", ()))
    line = line_of(place) if line_of else None
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    file = f"{where}:{line}" if line else where
    return UserError(f"{file}: {spell(place) or 'the recipe'} {rule}", got=got, fix=fix + more)


def _explain(problem: Any) -> tuple[str, object, str]:
    """(rule, value received or None, fix) of one pydantic problem."""
    kind, context, got = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == _OURS:
        return context["rule"], context["got"], context["fix"]
    if kind == "missing":
        return "is missing", None, "add it"
    if kind == "model_type" or kind == "dict_type":
        return "must be a mapping (key: value lines)", _shown(got), "indent its keys below it"
    if kind == "string_pattern_mismatch":
        return "must be of letters, digits, dots, dashes and underscores", _shown(got), "change this value"
    if kind in ("too_short", "too_long"):
        bound = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return f"must have {bound} entries", _shown(got), "change this list"
    rule = problem["msg"].split(", unable to parse")[0]
    for ours, theirs in (("must be", "Input should be"), ("must have", "Input should have")):
        rule = rule.replace(theirs, ours)
    return rule[0].lower() + rule[1:], _shown(got), "change this value"


def _shown(value: object) -> object:
    """None is a value here (an empty field of YAML), and worth telling."""
    return "nothing (null)" if value is None else value
