from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiseopt.report.collect import Curve, Sigma
from noiseopt.report.figures import _spread, curve_panel, sigma_maps, sigma_panel
from noiseopt.report.svg import canvas, to_svg


def curve(row: str, values: list[float], seed: int = 0) -> Curve:
    numbers = tuple(values)
    names = ("train_loss", "validation_loss", "validation_accuracy")
    return Curve(row, seed, tuple(range(1, len(values) + 1)), dict.fromkeys(names, numbers))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


def ids(svg: str) -> list[str]:
    return re.findall(r'\bid="([^"]*)"', svg)


def test_every_line_is_named_at_its_end() -> None:
    svg = curve_panel([curve("a", [3.0, 2.0]), curve("b", [3.0, 2.0])], "train_loss", rows=["a", "b"])
    assert {"a", "b"} <= set(texts(svg))
    assert "a 2 after epoch 2; b 2 after epoch 2" in ElementTree.fromstring(svg).attrib["aria-label"]


def test_seeds_of_a_row_share_a_label() -> None:
    svg = curve_panel([curve("a", [3.0, 2.0]), curve("a", [3.0, 1.0], seed=1)], "train_loss", rows=["a"])
    assert texts(svg).count("a") == 1


@pytest.mark.parametrize("values", [[math.nan, 1.0, math.nan], [1.0], [2.0, math.inf], [0.0, 1e9], [5.0, 1e-5]])
def test_odd_curves_are_drawn(values: list[float]) -> None:
    assert "a" in texts(curve_panel([curve("a", values)], "train_loss", rows=["a"]))


def test_a_curve_without_a_number_is_no_panel() -> None:
    assert curve_panel([curve("a", [math.nan, math.nan])], "train_loss", rows=["a"]) == ""


def test_ids_are_unique_across_figures_and_every_reference_is_met() -> None:
    sigma = Sigma("m", 0, {"fc": (np.ones(5), np.arange(5.0)), "conv": (np.ones((4, 6, 6)), np.ones((4, 6, 6)) * 0.5)})
    figures = [
        curve_panel([curve("a", [1.0, 2.0])], "train_loss", rows=["a"]),
        curve_panel([curve("a", [1.0, 2.0])], "validation_loss", rows=["a"]),
        sigma_panel(sigma, "fc", name="one"),
        sigma_panel(sigma, "fc", name="two"),
        sigma_maps(sigma, "conv", name="three"),
    ]
    every = [name for svg in figures for name in ids(svg)]
    assert len(every) == len(set(every))
    for svg in figures:
        wanted = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)\)", svg)
        assert wanted
        assert set(wanted) <= set(ids(svg))


def test_svg_loads_nothing_and_takes_its_colours_and_font_from_the_page() -> None:
    svg = curve_panel([curve("a", [1.0, 2.0])], "train_loss", rows=["a"])
    assert "http" not in svg
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert "xmlns" not in svg
    assert "var(--ink)" in svg
    assert "var(--series-1)" in svg
    assert not re.search(r"#0[0-9]0[0-9][0-9a-f]{2}\b", svg), "a stand-in colour was left"
    assert "font-family" not in svg
    assert "DejaVu" not in svg


def test_labels_are_escaped_and_never_markup_or_mathematics() -> None:
    row = '<script>alert("$x$")'
    svg = curve_panel([curve(row, [1.0, 2.0])], "train_loss", rows=[row])
    assert "<script" not in svg
    assert any(text.startswith("<script>") for text in texts(svg))


def test_figures_are_the_same_every_time() -> None:
    one, two = (curve_panel([curve("a", [1.0, 2.0])], "train_loss", rows=["a"]) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (np.ones(4), np.ones(4)),
        (-np.ones(4), np.zeros(4)),
        (np.array([1.0, np.nan]), np.array([np.nan, np.nan])),
        (np.array(0.5), np.array(0.25)),
    ],
)
def test_odd_noise_levels_are_drawn(before: np.ndarray, after: np.ndarray) -> None:
    svg = sigma_panel(Sigma("m", 0, {"fc": (before, after)}), "fc", name="x")
    assert any(text.startswith("before: mean") for text in texts(svg))


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_heat_maps_show_the_mean_and_a_few_channels(channels: int) -> None:
    after = np.stack([np.full((5, 5), float(c)) for c in range(channels)])
    svg = sigma_maps(Sigma("m", 0, {"conv": (after, after)}), "conv", name="x")
    titles = [text for text in texts(svg) if text.startswith(("mean of", "channel"))]
    assert titles[0] == "mean of channels"
    assert len(titles) == len(set(titles)) == min(channels, 4)
    if channels == 8:
        assert titles[1:] == ["channel 0: least", "channel 4: middle", "channel 7: most"]


def test_drawing_leaves_matplotlibs_settings_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with canvas(10, 10) as figure:
        to_svg(figure, name="x", label="x")
    assert dict(matplotlib.rcParams) == before


def test_the_report_is_imported_without_matplotlib() -> None:
    code = "import sys, noiseopt.report; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12).map(sorted), st.floats(0.01, 0.08))
def test_labels_are_spread_in_order_apart_and_inside(wanted: list[float], gap: float) -> None:
    placed = _spread(wanted, gap)
    assert len(placed) == len(wanted)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(placed))
    assert placed[0] >= 0
    assert placed[-1] <= 1 + 1e-9


@given(st.floats(0, 1))
def test_a_label_with_room_stays_where_it_belongs(place: float) -> None:
    assert _spread([place], 0.1) == [place]
