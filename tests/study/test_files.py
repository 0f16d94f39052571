"""Simulation, export, texts and figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from pyarrow import parquet

from noiseopt.errors import UserError
from noiseopt.report.study import FILE, study_section
from noiseopt.report.study_figures import figure_files
from noiseopt.study import texts
from noiseopt.study.analysis import Group, analyse, collect
from noiseopt.study.export import ANSWERS, PARTICIPANTS, files
from noiseopt.study.folder import Study
from noiseopt.study.simulate import simulate
from noiseopt.study.store import Answer, Store


@pytest.fixture
def store(study: Study, tmp_path: Path) -> Any:
    store = Store(f"sqlite:///{tmp_path / 'a.sqlite'}", study=study.hash, places=study.places)
    yield store
    store.close()


@pytest.fixture
def data(study: Study, store: Store) -> dict[str, Any]:
    """The analysis of four simulated participants beside two networks, one of them always right."""
    simulate(study, store, count=4)
    truth = study.items.labels
    return analyse(
        study, collect(study, store), [Group("Nets", ("a", "b"), np.stack([truth, truth * 0]))], simulated=True
    )


def test_simulated_participants_fill_places_and_are_seeded(study: Study, store: Store, tmp_path: Path) -> None:
    assert simulate(study, store, count=4, seed=1) == 4
    again = Store(f"sqlite:///{tmp_path / 'b.sqlite'}", study=study.hash, places=study.places)
    assert simulate(study, again, count=99, seed=1) == study.places
    first, second = ([[a.answer for a in one] for one in s.answers().values()] for s in (store, again))
    assert first == second[:4]
    assert all(person.simulated and person.answered == study.length for person in again.participants())
    with pytest.raises(UserError, match="no place left"):
        simulate(study, again, count=1)
    again.close()


def test_nothing_is_simulated_among_people(study: Study, store: Store) -> None:
    store.claim(simulated=False)
    store.join(simulated=False)
    with pytest.raises(UserError, match="people have taken part"):
        simulate(study, store, count=1)


def test_the_export_holds_every_answer_in_both_formats(study: Study, store: Store) -> None:
    store.claim(simulated=False)
    _, joined = store.join(simulated=False)
    item = int(study.orders[0][0])
    store.answer(joined.id, Answer(0, item, int(study.items.labels[item]), 812.25, 3.5, True, 1_700_000_000.25))
    store.answer(joined.id, Answer(1, int(study.orders[0][1]), None, None, 0.0, False, 1_700_000_001.0))
    made = {name: make() for name, make in files(study, store).items()}
    assert sorted(made) == [
        "answers.csv", "answers.parquet", "codebook.md", "participants.csv", "participants.parquet"
    ]  # fmt: skip
    first, second = csv.DictReader(io.StringIO(made["answers.csv"].decode()))
    level = study.levels[study.items.levels[item]]
    assert first == {
        "study": "small",
        "simulated": "False",
        "participant": joined.code,
        "place": "0",
        "position": "0",
        "item": str(item),
        "set": level.key,
        "level": "" if level.value is None else str(level.value),
        "distortion": str(level.distortion),
        "source": str(study.items.sources[item]),
        "made_against": "",
        "label": study.classes[study.items.labels[item]],
        "answer": study.classes[study.items.labels[item]],
        "dont_know": "False",
        "correct": "True",
        "response_ms": "812.25",
        "page_delay_ms": "3.5",
        "away": "True",
        "answered_at": "2023-11-14T22:13:20.250+00:00",
    }
    assert (second["answer"], second["dont_know"], second["correct"], second["response_ms"]) == (
        "",
        "True",
        "False",
        "",
    )
    table = parquet.read_table(io.BytesIO(made["answers.parquet"]))
    rows = table.to_pylist()
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == [first, second]
    assert (rows[0]["correct"], rows[0]["response_ms"], rows[1]["answer"]) == (True, 812.25, None)
    (person,) = csv.DictReader(io.StringIO(made["participants.csv"].decode()))
    assert (person["participant"], person["answered"], person["finished"]) == (joined.code, "2", "False")
    book = made["codebook.md"].decode()
    assert all(f"| `{column}` |" in book for column in [*ANSWERS, *PARTICIPANTS])
    assert study.hash in book
    assert "SIMULATED" not in book


def test_a_simulated_export_says_so_in_every_file(study: Study, store: Store) -> None:
    simulate(study, store, count=1)
    for name, make in files(study, store).items():
        assert "SIMULATED" in name
        made = make()
        if name.endswith("parquet"):
            table = parquet.read_table(io.BytesIO(made))
            assert set(table["simulated"].to_pylist()) == {True}
            assert table.schema.metadata[b"simulated"].startswith(b"SIMULATED")
        elif name.endswith("csv"):
            assert {row["simulated"] for row in csv.DictReader(io.StringIO(made.decode()))} == {"True"}
        else:
            assert b"SIMULATED: these answers were made by a program" in made


def test_questions_are_columns(make_study: Callable[..., Study], tmp_path: Path) -> None:
    study = make_study(questions=[{"key": "sight", "text": "Do you wear glasses?", "choices": ["yes", "no"]}])
    store = Store(f"sqlite:///{tmp_path / 'q.sqlite'}", study=study.hash, places=study.places)
    store.claim(simulated=False)
    store.join(simulated=False, details={"sight": "no"})
    made = files(study, store)
    assert next(csv.DictReader(io.StringIO(made["participants.csv"]().decode())))["question_sight"] == "no"
    assert "Do you wear glasses?" in made["codebook.md"]().decode()
    store.close()


def test_every_language_says_everything() -> None:
    assert "en" in texts.languages()
    for language in texts.languages():
        assert texts.texts(language).say("progress", position=3, count=205)
    with pytest.raises(UserError, match="texts in this language"):
        texts.texts("../../etc/passwd")


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ({"a": "Bild {position}"}, "lacks the sentence b"),
        ({"a": "Bild {position}", "b": "Ja", "c": "x"}, "has no use for the sentence c"),
        ({"a": "Bild", "b": "Ja"}, "gaps of a must be those of en.yaml"),
        ({"a": "Bild {number}", "b": "Ja"}, "use position"),
    ],
)
def test_a_translation_is_checked_against_the_english(sentences: dict[str, str], message: str) -> None:
    english = {"a": "Image {position}", "b": "Yes"}
    assert texts.check({"a": "{position}. Bild", "b": "Ja"}, english, name="de.yaml")
    with pytest.raises(UserError, match=message):
        texts.check(sentences, english, name="de.yaml")


def test_figures_are_whole_pictures_that_say_what_is_simulated(data: dict[str, Any]) -> None:
    made = figure_files(data)
    assert sorted(made) == sorted(
        f"{name}-SIMULATED.{kind}" for name in ("figure8", "response-times", "confusion") for kind in ("svg", "png")
    )
    for name, picture in made.items():
        if name.endswith("svg"):
            said = " ".join(ElementTree.fromstring(picture).itertext())
            assert said.count("SIMULATED") >= 3, name  # the stamp, the title, the metadata
        else:
            assert picture.startswith(b"\x89PNG")
            assert len(picture) > 10_000
    people = figure_files(
        {**data, "simulated": False, "mark": "", "lines": [{**x, "title": "P"} for x in data["lines"]]}
    )
    assert "figure8.svg" in people
    assert b"SIMULATED" not in people["figure8.svg"]


def test_figure_8_names_its_lines(data: dict[str, Any]) -> None:
    said = " ".join(ElementTree.fromstring(figure_files(data)["figure8-SIMULATED.svg"]).itertext())
    for words in ("SIMULATED people:", "2 × Nets: Gaussian", "distortion: average change of a pixel"):
        assert words in said


def test_a_study_without_levels_has_figures_too(make_study: Callable[..., Study], tmp_path: Path) -> None:
    study = make_study(sets=[{"key": "natural", "title": "Natural", "count": 2}])
    store = Store(f"sqlite:///{tmp_path / 'n.sqlite'}", study=study.hash, places=study.places)
    simulate(study, store, count=1)
    data = analyse(study, collect(study, store), [], simulated=True)
    assert len(figure_files(data)) == 6
    store.close()


def test_the_report_shows_the_study_that_lies_in_its_run(data: dict[str, Any], tmp_path: Path) -> None:
    assert study_section(tmp_path) == ""
    (tmp_path / FILE).write_text(json.dumps({**data, "title": "<b>Reading</b>"}))
    section = study_section(tmp_path)
    assert "SIMULATED: People and networks on the same images" in section
    assert "<svg" in section
    assert "<b>Reading" not in section
    assert section.count("<tr>") == 1 + len(data["levels"])
    point = data["lines"][0]["points"][0]
    assert f"{100 * point['mean']:.1f} [{100 * point['low']:.1f}, {100 * point['high']:.1f}]" in section


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"format": 1}', '{"format": 1, "lines": 3}', "\x00"])
def test_a_broken_file_breaks_no_report(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    section = study_section(tmp_path)
    assert section == "" or "cannot be read" in section
