"""What an audit came to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from noiseopt.audit.checks import Check
from noiseopt.audit.settings import Auditing
from noiseopt.concepts import Record


@dataclass(frozen=True)
class Line:
    """One attack: how many images were tried, how many fell, and what was left when all attacks so far had been made.

    `subset`: what this attack alone leaves of the subset; None where it did not see all of it. `twin`: of the images
    tried, those that the model with its noise off gets right; None where that was not looked at.
    """

    key: str
    title: str
    tried: int
    fell: int
    left: int | None
    subset: int | None
    twin: int | None
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """The outcome for one model. `noisy`: has it noise? `noise_off`: had it some, that was taken out for the audit?

    `hash`: of the weights, the images, the settings and the code; the address of each of `records` is made with it.
    `accuracy`: the Record of the share of images that survived every attack. `undecided`: of the survivors, those whose
    vote was too close for its draws to be certain of, under one attack at least. `checks`: what was looked at, and
    whether it points to masking.
    """

    settings: Auditing
    hash: str
    noisy: bool
    clean: Record
    accuracy: Record
    undecided: int
    subset: int
    lines: tuple[Line, ...]
    checks: tuple[Check, ...]
    records: tuple[Record, ...]
    noise_off: bool = False

    @property
    def masked(self) -> bool:
        """Does any check point to masking? Then `accuracy` is not to be believed."""
        return any(check.found and check.masking for check in self.checks)

    @property
    def findings(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.found)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for audit.json."""
        accuracy = self.accuracy
        return {
            "model": accuracy.model,
            "model_seed": accuracy.model_seed,
            "data": accuracy.data,
            "data_hash": accuracy.data_hash,
            "code": accuracy.code,
            "settings": self.settings.as_dict(),
            "hash": self.hash,
            "noisy": self.noisy,
            "noise_off": self.noise_off,
            "images": accuracy.count,
            "clean": _number(self.clean),
            "audited": _number(accuracy) | {"undecided": self.undecided},
            "subset": self.subset,
            "attacks": [asdict(line) for line in self.lines],
            "checks": [asdict(check) for check in self.checks],
            "masked": self.masked,
        }


def _number(record: Record) -> dict[str, float]:
    return {"value": record.value, "low": record.low, "high": record.high}
