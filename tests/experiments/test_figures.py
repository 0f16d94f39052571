"""The figures of a recipe, and what its gallery shows of a curve."""

from __future__ import annotations

from typing import Any

import pytest

from noiseopt.errors import UserError
from noiseopt.experiments import gallery
from noiseopt.experiments.recipe import bundled, from_dict, from_run, load

CURVE = {
    "key": "sign",
    "curve": True,
    "perturbations": [{"noise": "sign", "distortion": {"from": 0, "to": 0.2, "count": 9}}],
}


def recipe(**changes: Any) -> Any:
    plain = {
        "name": "x",
        "data": {"name": "mnist-mini"},
        "rows": [{"label": "a", "model": "mlp"}, {"label": "b", "model": "mlp", "member": 1, "shown": False}],
        "columns": [CURVE, {"key": "clean", "perturbations": ["clean"]}],
    }
    return from_dict(plain | changes, place="recipe")


def test_figures_go_into_the_layout_and_come_back() -> None:
    figure = {"title": "T", "rows": ["a"], "columns": ["sign"]}
    made = recipe(figures=[figure])
    layout = made.as_dict()["table"]
    assert layout["figures"] == [figure]
    assert ([c["key"] for c in layout["columns"]], [c["key"] for c in layout["curves"]]) == (["clean"], ["sign"])
    assert from_run(made.as_dict(), place="run.json") == made
    assert recipe().as_dict()["table"]["figures"] == []


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ({"rows": ["c"], "columns": ["sign"]}, r"figures\[0\].rows\[0\] must name a row that is shown; got c;"),
        ({"rows": ["b"], "columns": ["sign"]}, r"rows\[0\] must name a row that is shown; got b;"),
        ({"rows": ["a"], "columns": ["clean"]}, r"columns\[0\] must name a column with curve: true; got clean;"),
        ({"rows": ["a", "a"], "columns": ["sign"]}, r"rows\[1\] is the same as entry 0"),
        ({"rows": [], "columns": ["sign"]}, r"rows must have at least 1"),
        ({"row": ["a"], "columns": ["sign"]}, r"row is not a known key.*did you mean 'rows'"),
    ],
)
def test_a_figure_of_what_is_not_there_is_refused(figure: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(figures=[{"title": "T", **figure}])


def test_the_second_papers_figures_show_every_row_that_is_shown() -> None:
    figures = load(bundled()["ulicny-figures"]).figures
    shown = {row.label for row in load(bundled()["ulicny-figures"]).rows if row.shown}
    assert {row for figure in figures for row in figure.rows} == shown
    assert max(len(figure.rows) for figure in figures) <= 7


def test_the_gallery_shows_a_curve_at_a_few_distortions() -> None:
    shown = gallery._perturbations(recipe())
    assert list(shown) == ["clean", *(f"sign noise, distortion {d:g}" for d in (0.05, 0.1, 0.15, 0.2))]
    short = {**CURVE, "perturbations": [{"noise": "sign", "distortion": d} for d in (0, 0.1)]}
    assert list(gallery._perturbations(recipe(columns=[short]))) == ["clean", "sign noise, distortion 0.1"]


def test_kinds_of_noise_are_shown_at_equal_distortions() -> None:
    shown = [p for p in gallery._perturbations(load(bundled()["ulicny-figures"])).values() if hasattr(p, "noise")]
    levels = {kind: [p.distortion for p in shown if p.noise == kind and p.draws == 1] for kind in ("sign", "gaussian")}
    assert levels["sign"] == levels["gaussian"]
    assert len(levels["sign"]) == 4
    assert levels["sign"][-1] == 0.25
