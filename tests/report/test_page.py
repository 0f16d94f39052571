from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.report import write_report
from noiseopt.report.page import duration
from noiseopt.report.views import data_uri

VOID = {"meta", "img", "link", "br", "hr", "input", "col"}


class Page(HTMLParser):
    """The text, tags and attributes of a page; fails on a tag closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> Page:
    run = make_run(tmp_path_factory.mktemp("page") / "run")
    return Page(write_report(run).read_text())


def test_the_report_goes_into_the_run_or_where_it_is_told(run_dir: Path, tmp_path: Path) -> None:
    assert write_report(run_dir) == run_dir / "report.html"
    other = write_report(str(run_dir), output=tmp_path / "new" / "page.html")
    assert other.read_text() == (run_dir / "report.html").read_text()
    assert [path.name for path in other.parent.iterdir()] == ["page.html"]


def test_an_output_that_cannot_be_written_is_the_users_error(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the report must be written to a file"):
        write_report(run_dir, output=tmp_path)


def test_the_page_holds_every_section(page: Page) -> None:
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert ids == ["accuracy", "training", "noise", "gallery", "made"]
    for words in (
        "MLP on MNIST",
        "6 models trained on mnist (50,000 images); measured on 500 test images.",
        "Protocol paper , beside the paper's table 3",
        "Protocol strict",
        "White-box attacks were crafted on MLPN (sigmoid).",
        "PGD (strict)",
        "Held fixed in training, the same before and after: MLP+ (ReLU) (σ = 1), MLP+ (sigmoid) (σ = 1).",
        "noiseopt run mnist-mlp --seed 0 --images 500",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "12 min 4 s",
        "torch 2.13.0",
        "ε = 25/255, step size = 5/255, steps = 10, random start = no, EOT draws = 20",
        "severities 1, 2, 3, 4, 5",
        "3 February 2026, 14:05 UTC",
    ):
        assert words in page.text


def test_the_papers_numbers_stand_once_and_beside_its_protocol(page: Page) -> None:
    # 0.568 and 0.105 stand in the paper's table 3 and are nowhere near the made-up numbers.
    assert page.text.count("0.568") == page.text.count("0.105") == 1


def test_intervals_stand_under_their_values(page: Page) -> None:
    assert len(re.findall(r"0\.\d{3} \.\d{3}–(?:\.|1\.)\d{3}", page.text)) >= 200


def test_the_page_loads_nothing(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "poster", "data", "action", "xlink:href"}:
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "#"))
            elif name != "content":
                assert "://" not in (value or "")
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_style_sheet_loads_nothing(run_dir: Path) -> None:
    text = write_report(run_dir).read_text()
    assert "@import" not in text
    assert set(re.findall(r"url\(\s*['\"]?([^)#'\"]*)", text)) <= {""}


def test_ids_are_unique_and_links_are_met(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"] for _, a in page.tags if (a.get("href") or "").startswith("#")]
    assert {str(link)[1:] for link in links} <= set(ids)


def test_figures_and_images_are_named(page: Page) -> None:
    plots = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(plots) == 3 + 2 * 3  # curves, and three layers of each MLPN
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 8 * 3
    assert all(image["alt"] for image in images)
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert tables == sum(tag == "caption" for tag, _ in page.tags)


def test_wrong_answers_are_marked_by_more_than_colour(page: Page) -> None:
    wrong = sum(tag == "td" and attributes.get("class") == "wrong" for tag, attributes in page.tags)
    assert wrong > 0
    assert page.text.count("✗") == wrong


def test_what_comes_from_files_is_escaped(tmp_path: Path, make_run: Callable[..., Path]) -> None:
    evil = "<script>alert(1)</script>\"'&"
    run = make_run(tmp_path / "run", rows=[evil.replace("/", "-"), "MLPN <b>"], title=evil, epochs=2)
    about = json.loads((run / "run.json").read_text())
    about |= {"command": evil, "device": evil, "recipe_name": evil, "started": evil, "versions": {evil: evil}}
    about["data"] |= {"name": evil, "hash": evil}
    about["recipe"]["table"]["columns"][0] |= {"title": evil}
    about["recipe"]["table"]["columns"][1] |= {"group": evil}
    (run / "run.json").write_text(json.dumps(about))
    gallery = json.loads((run / "gallery.json").read_text())
    (run / "gallery.json").write_text(json.dumps({**gallery, "classes": [evil] * 10}))
    (run / "records.jsonl").write_text((run / "records.jsonl").read_text() + evil)
    text = write_report(run).read_text()
    assert "<script" not in text
    assert "MLPN <b>" not in text
    page = Page(text)
    assert page.text.count("<script>alert(1)</script>") > 20


@pytest.mark.parametrize("missing", ["records.jsonl", "models", "gallery.safetensors", "gallery.json", "everything"])
def test_a_run_with_parts_missing_still_reports(run_dir: Path, missing: str) -> None:
    for name in ["records.jsonl", "models", "gallery.safetensors"] if missing == "everything" else [missing]:
        path = run_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Page(write_report(run_dir).read_text())
    assert "MLP on MNIST" in page.text
    said = {
        "records.jsonl": "Nothing has been measured yet.",
        "models": "No training curves were written.",
        "gallery.safetensors": "This run has no gallery of images.",
        "gallery.json": "The gallery cannot be read",
        "everything": "No noise levels were written",
    }
    assert said[missing] in page.text


def test_the_barest_run_reports(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    page = Page(write_report(tmp_path).read_text())
    assert "This run has not finished" in page.text
    assert tmp_path.name in page.text


def test_a_run_with_odd_values_in_run_json_reports(run_dir: Path) -> None:
    odd = {"recipe": [], "data": {"counts": 3}, "versions": "x", "seconds": "soon", "started": 5, "seed": {}}
    (run_dir / "run.json").write_text(json.dumps(odd))
    assert "MLPN (ReLU)" in Page(write_report(run_dir).read_text()).text


def test_nan_values_and_missing_cells_report(run_dir: Path, make_record: Callable[..., Record]) -> None:
    records = [
        make_record(0.5, model="MLP (ReLU)", column="clean"),
        make_record(float("nan"), model="MLP (ReLU)", column="pgd"),
    ]
    (run_dir / "records.jsonl").write_text("\n".join(record.model_dump_json() for record in records))
    text = Page(write_report(run_dir).read_text()).text
    assert "n/a" in text
    assert "–" in text
    assert "nan" not in text.lower().replace("(nan)", "")
    assert "Not measured yet: MLP (sigmoid), MLP+ (ReLU)" in text


def test_seeds_show_their_range(run_dir: Path, make_record: Callable[..., Record]) -> None:
    records = [make_record(v, model="MLP (ReLU)", column="clean", model_seed=s) for s, v in ((0, 0.5), (1, 0.7))]
    (run_dir / "records.jsonl").write_text("\n".join(record.model_dump_json() for record in records))
    text = Page(write_report(run_dir).read_text()).text
    assert "seeds .500–.700" in text
    assert "each from 2 seeds" in text


@pytest.mark.parametrize("channels", [1, 3])
def test_images_survive_the_data_uri(channels: int, tmp_path: Path) -> None:
    import base64
    import io

    image = np.linspace(0, 1, channels * 20).reshape(channels, 4, 5)
    data = base64.b64decode(data_uri(image).removeprefix("data:image/png;base64,"))
    back = np.asarray(Image.open(io.BytesIO(data))).reshape(4, 5, channels).transpose(2, 0, 1)
    np.testing.assert_allclose(back / 255, image, atol=0.5 / 255)


@pytest.mark.parametrize(
    ("seconds", "text"), [(8.31, "8.3 s"), (59.99, "60.0 s"), (724, "12 min 4 s"), (11100, "3 h 5 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_stand_out_from_the_paper(theme: int) -> None:
    """WCAG 2.2: text at 4.5 to 1 and lines at 3 to 1, in the light theme and in the dark one."""
    from noiseopt.report import page

    css = (Path(page.__file__).parent / "report.css").read_text()
    block = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)[theme]
    colours = {name: _luminance(value) for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)}
    assert len(colours) >= 12
    for name, least in {"ink": 7, "muted": 4.5, "wrong": 4.5, **{f"series-{i}": 3 for i in range(1, 7)}}.items():
        for paper in ("paper", "tint"):
            dark, light = sorted([colours[name], colours[paper]])
            assert (light + 0.05) / (dark + 0.05) >= least, (name, paper)
