"""Which papers are replicated, and what the document of each is made of: papers.yaml."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from noiseopt.errors import UserError


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Section(_Part):
    """A part of the document; `recipes`: whose results it shows, the first of them that is there."""

    kind: Literal["table", "claims", "training", "why", "figures", "images", "saliency"]
    title: str
    table: str = Field("", description="of kind table: its number in paper.yaml")
    called: str = Field("", description="of kind table: what readers call it")
    recipes: list[str] = []
    tested: bool = Field(True, description="are claims tested on these numbers? Not on curves that another section has")


class Paper(_Part):
    """A paper's document. The texts are Markdown as it stands there."""

    heading: str
    about: str
    claims: str = Field(description="the file of its claims, beside this one")
    scale: Literal["accuracy", "error"]
    noise_off: bool = Field(description="are the numbers with the noise off shown, too?")
    protocols: dict[str, str]
    intervals: str
    rules: str
    sections: list[Section]

    @property
    def recipes(self) -> list[str]:
        """Whose results make this document."""
        return list(dict.fromkeys(name for section in self.sections for name in section.recipes))

    @property
    def tables(self) -> dict[str, str]:
        """Number in paper.yaml → recipe."""
        return {section.table: section.recipes[0] for section in self.sections if section.kind == "table"}


@cache
def papers() -> dict[str, Paper]:
    """Every paper by its name."""
    text = files("noiseopt").joinpath("report", "papers.yaml").read_text(encoding="utf-8")
    return {name: Paper.model_validate(paper) for name, paper in yaml.safe_load(text).items()}


def paper_of(recipes: Collection[str], *, folder: str) -> Paper:
    """The paper whose recipes are among `recipes`.

    Raises:
        UserError: there is none, or there are those of several papers.
    """
    found = [paper for paper in papers().values() if set(paper.recipes) & set(recipes)]
    if len(found) == 1:
        return found[0]
    every = "; or ".join(", ".join(f"{name}/" for name in paper.recipes) for paper in papers().values())
    raise UserError(
        f"a folder of published results holds those of one paper: {every}",
        got=f"{folder}, with {', '.join(sorted(recipes)) or 'no results'}",
        fix="fill it with `noiseopt publish runs/table3 DIR`" if not found else "publish each paper to its own folder",
    )


def prints_errors(number: str) -> bool:
    """Has the paper errors where a table of ours has accuracies?"""
    return any(paper.scale == "error" and number in paper.tables for paper in papers().values())


def called(number: str) -> str:
    """What a table of paper.yaml is called: `3`, or `2 of Uličný et al.`; "" for one that there is not."""
    sections = (section for paper in papers().values() for section in paper.sections)
    return next((section.called for section in sections if number and section.table == number), number)
