from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from noiseopt.report import write_report
from noiseopt.report.bydistortion import Drawing, drawings
from noiseopt.report.collect import Gallery, read_gallery
from noiseopt.report.figures import spread
from noiseopt.report.grid import grid_of, grid_png, short
from noiseopt.report.layout import layout_of
from noiseopt.report.plots import _HEIGHT, _WIDTH, caption, drawing_png, how, panel_svg, rows_of
from tests.report.synthetic import write_published
from tests.report.ulicny import HALF, about_of, curve_records, write_gallery


@pytest.fixture(scope="module")
def figures() -> list[Drawing]:
    records = curve_records(every=10)
    return drawings(records, layout_of(about_of("ulicny-figures")["recipe"], records, []))


def labels(svg: str) -> list[tuple[float, float, str]]:
    """(x, y, text) of every text of a plot, in its own units."""
    found = []
    for element in ElementTree.fromstring(svg).iter("text"):
        moved = re.search(r"translate\(([\d.-]+) ([\d.-]+)\)", element.get("transform", ""))
        x, y = moved.groups() if moved else (element.get("x", "nan"), element.get("y", "nan"))
        found.append((float(x), float(y), element.text or ""))
    return found


def test_every_line_is_named_beside_the_plot_and_no_name_covers_another(figures: list[Drawing]) -> None:
    for number, figure in enumerate(figures):
        for panel in figure.panels:
            svg = panel_svg(panel, order=rows_of(figure), name=f"f{number}")
            at_right = sorted((y, text) for x, y, text in labels(svg) if x > 0.6 * _WIDTH and not text.startswith("0."))
            at_right = [entry for entry in at_right if not entry[1].startswith("distortion")]
            words = " ".join(text for _, text in at_right).split()
            assert sorted(words) == sorted(" ".join(line.name for line in panel.lines).split())
            assert all(b[0] - a[0] >= 12 for a, b in pairwise(at_right))
            assert at_right[0][0] > 9
            assert at_right[-1][0] < _HEIGHT - 20


def test_what_is_drawn_is_said_aloud(figures: list[Drawing]) -> None:
    figure = figures[0]
    said = ElementTree.fromstring(panel_svg(figure.panels[0], order=rows_of(figure), name="x")).attrib["aria-label"]
    assert said.startswith("Error by distortion, Sign noise. At a distortion of 0.227: No method 97 %; ")


def test_a_row_has_one_colour_in_all_panels_of_a_figure(figures: list[Drawing]) -> None:
    figure = figures[-1]
    for panel in figure.panels:
        svg = panel_svg(panel, order=rows_of(figure), name="x")
        colours = dict.fromkeys(re.findall(r"var\(--series-\d\)", svg))
        assert list(colours) == [f"var(--series-{i})" for i in range(1, 6)]


def test_a_seventh_line_is_told_apart_by_its_dashes(figures: list[Drawing]) -> None:
    svg = panel_svg(figures[1].panels[0], order=rows_of(figures[1]), name="x")
    assert len(rows_of(figures[1])) == 7
    assert svg.count("stroke-dasharray") == 2  # the line and its leader
    assert "stroke-dasharray" not in panel_svg(figures[0].panels[0], order=rows_of(figures[0]), name="x")


@pytest.mark.parametrize(("number", "panels"), [(0, 2), (1, 3), (2, 1)])
def test_documents_get_two_panels_to_a_line(figures: list[Drawing], number: int, panels: int) -> None:
    figure = figures[number]
    assert len(figure.panels) == panels
    with Image.open(io.BytesIO(drawing_png(figure))) as picture:
        across, down = picture.size[0] / (2 * _WIDTH), picture.size[1] / (2 * (_HEIGHT + 20))
    assert (across, down) == (min(2, panels), (panels + 1) // 2)
    assert drawing_png(figure) == drawing_png(figure)


def test_bands_are_explained() -> None:
    layout = layout_of(about_of("ulicny-figures")["recipe"], [], [])
    one, three = (drawings(curve_records(seeds=s, every=25), layout)[0] for s in ((0,), (0, 1, 2)))
    assert how(one).startswith("One training seed. Bands are the 95 % interval (Wilson) for the choice of 10,000")
    assert (
        how(three)
        == "Lines are means over 3 training seeds, bands their 95 % t-intervals over seeds (10,000 test images)."
    )
    rows = [line for line in three.panels[0].lines if line.row != "Dropout"]
    mixed = Drawing(
        "m", (three.panels[0].__class__(**{**vars(three.panels[0]), "lines": (*rows, one.panels[0].lines[2])}),)
    )
    assert "means over 3 training seeds" in how(mixed)
    assert "of a line from one seed" in how(mixed)
    assert caption(one.panels[0]) == "Sign noise: error, %"


def test_labels_of_any_height_are_spread_in_order() -> None:
    assert spread([0.5, 0.5, 0.5], [0.0, 0.2, 0.3]) == pytest.approx([1 / 3, 1 / 3 + 0.2, 1 / 3 + 0.3])
    assert spread([0.9, 0.9], [0.0, 0.3]) == pytest.approx([0.7, 1.0])
    assert spread([], []) == []


# Figure 1


def gallery_of(folder: Path) -> Gallery:
    write_gallery(folder, ["No method", "Dropout"])
    found = read_gallery(folder, [])
    assert found is not None
    return found


def test_the_grid_has_each_kind_once_by_rising_distortion(tmp_path: Path) -> None:
    gallery = gallery_of(tmp_path)
    grid = grid_of(gallery)
    assert grid is not None
    assert [(kind.name, kind.levels) for kind in grid.kinds] == [
        ("Sign noise", (0.0631313, 0.12, 0.19, 0.25)),
        ("Gaussian noise", (0.0631313, 0.12, 0.19, 0.25)),
    ]
    np.testing.assert_array_equal(grid.clean, gallery.images[0])
    np.testing.assert_array_equal(grid.kinds[1].images[2], gallery.images[7])


def test_a_gallery_of_attacks_has_no_grid(tmp_path: Path) -> None:
    gallery = gallery_of(tmp_path)
    names = tuple(name.partition(",")[0] for name in gallery.perturbations)
    assert grid_of(Gallery(**{**vars(gallery), "perturbations": names})) is None


def test_noise_that_is_strict_only_is_shown(tmp_path: Path) -> None:
    gallery = gallery_of(tmp_path)
    names = tuple(
        name.replace("sign noise", "other") if "(strict)" not in name else name for name in gallery.perturbations
    )
    grid = grid_of(Gallery(**{**vars(gallery), "perturbations": names}))
    assert grid is not None
    assert [kind.name for kind in grid.kinds] == ["Other", "Gaussian noise", "Sign noise (strict)"]


def test_the_grid_shows_the_very_pixels(tmp_path: Path) -> None:
    grid = grid_of(gallery_of(tmp_path))
    assert grid is not None
    with Image.open(io.BytesIO(grid_png(grid, images=3))) as picture:
        pixels = np.asarray(picture.convert("L"), float) / 255
    # Below the headings; at 144 dots per inch, four of them for a pixel.
    shown = pixels[82 : 80 + 112 : 4, 2:112:4]
    np.testing.assert_allclose(shown, grid.clean[0, 0], atol=0.01)
    assert pixels.shape[0] == 2 * (40 + 3 * 59 - 3)


def test_titles_are_rounded() -> None:
    assert short("sign noise, distortion 0.0631313 (strict)") == "sign noise, distortion 0.0631 (strict)"
    assert short("FGSM") == "FGSM"


def test_the_report_draws_figures_and_grid(tmp_path: Path) -> None:
    target = write_published(tmp_path, about_of("ulicny-figures"), curve_records(every=20))
    write_gallery(target, list(HALF))
    page = write_report(target).read_text()
    assert re.findall(r'<section id="(\w+)">', page) == ["distortion", "training", "noise", "gallery", "made"]
    assert page.count('class="plot"') == 9
    assert page.count("<h3>Figure") == 3
    assert page.count('alt="3, gaussian noise, 0.12"') == 1
    assert "Nothing has been measured yet" not in page
    assert "16 models trained on mnist (55,000 images); measured on 1,000 to 10,000 test images." in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', page)} <= set(ids)
