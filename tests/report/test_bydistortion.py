from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from noiseopt.concepts import Record
from noiseopt.report import export, print_table
from noiseopt.report.bydistortion import Span, all_panels, drawings, span_numbers
from noiseopt.report.curve_findings import finding
from noiseopt.report.findings import headline
from noiseopt.report.layout import Layout, layout_of
from noiseopt.report.pivot import pivot
from noiseopt.report.settings import settings
from noiseopt.report.sources import Cell, Source, numbers, plain_rows, read, tabled
from noiseopt.report.statistics import estimate
from noiseopt.report.table import tables_of
from tests.report.synthetic import write_published
from tests.report.ulicny import HALF, about_of, curve_records, record, table_records

COLUMN = {"key": "sign", "title": "Sign noise", "group": "White box"}


def layout(rows: list[str], **more: Any) -> Layout:
    return layout_of({"table": {"rows": rows, "columns": [], "curves": [COLUMN], **more}}, [], [])


def point(row: str, distortion: float, error: float, *, seed: int = 0, **more: Any) -> Record:
    settings = {"eps": 1.9 * distortion, "distortion": distortion, "draws": 1, "seed": 0}
    made = record(row, seed, "sign", "paper", 1 - error, perturbation="sign_noise", parameters=settings)
    return made.model_copy(update=more)


def test_one_seed_has_the_records_own_interval_and_several_have_one_over_seeds() -> None:
    one = drawings([point("a", 0.1, 0.3)], layout(["a"]))[0].panels[0].lines[0]
    (only,) = one.points
    assert (only.error, one.seeds) == (pytest.approx(0.3), (0,))
    made = point("a", 0.1, 0.3)
    assert (only.low, only.high) == pytest.approx((1 - made.high, 1 - made.low))
    errors = [0.3, 0.34, 0.32]
    several = [point("a", 0.1, error, seed=seed) for seed, error in enumerate(errors)]
    line = drawings(several, layout(["a"]))[0].panels[0].lines[0]
    expected = estimate(errors)
    assert line.seeds == (0, 1, 2)
    assert (line.points[0].error, line.points[0].low) == pytest.approx((expected.mean, expected.low))


def test_intervals_stay_within_0_and_1() -> None:
    wide = [point("a", 0.1, 0.02), point("a", 0.1, 0.9, seed=1)]
    (found,) = drawings(wide, layout(["a"]))[0].panels[0].lines[0].points
    assert (found.low, found.high) == (0.0, 1.0)


def test_a_seed_that_is_still_being_measured_does_not_make_the_mean_jump() -> None:
    records = [point("a", d, 0.2) for d in (0.0, 0.1, 0.2)] + [point("a", 0.0, 0.9, seed=1)]
    line = drawings(records, layout(["a"]))[0].panels[0].lines[0]
    assert line.seeds == (0,)
    assert [p.error for p in line.points] == pytest.approx([0.2] * 3)


def test_what_is_measured_again_counts_once_and_what_is_no_number_not_at_all() -> None:
    records = [point("a", 0.1, 0.2), point("a", 0.1, 0.4), point("a", 0.2, 0.5, value=math.nan)]
    line = drawings(records, layout(["a"]))[0].panels[0].lines[0]
    assert [(p.distortion, p.error) for p in line.points] == [(0.1, pytest.approx(0.4))]


def test_lines_say_the_state_of_the_noise_only_where_there_are_two() -> None:
    records = [point("a", 0.1, 0.2, noise=True), point("a", 0.1, 0.3, noise=False), point("b", 0.1, 0.3, noise=True)]
    panel = drawings(records, layout(["a", "b"]))[0].panels[0]
    assert [line.name for line in panel.lines] == ["a, noise on", "a, noise off", "b"]


def test_protocols_of_one_curve_are_panels_of_their_own() -> None:
    records = [point("a", 0.1, 0.2), point("a", 0.1, 0.6, protocol="strict")]
    panels = drawings(records, layout(["a"]))[0].panels
    assert [panel.title for panel in panels] == ["Sign noise (paper)", "Sign noise (strict)"]


def test_figures_are_the_recipes_and_without_them_one_for_each_curve() -> None:
    records = curve_records(every=25)
    recipe = about_of("ulicny-figures")["recipe"]
    found = drawings(records, layout_of(recipe, records, []))
    assert [(d.title, len(d.panels)) for d in found] == [
        ("Figures 3 and 4: dropout", 2),
        ("Figures 5 and 6: pre-processing", 3),
        ("Figure 7: committees", 1),
        ("What the two papers say together", 3),
    ]
    assert [line.row for line in found[0].panels[0].lines] == ["No method", "Dropout on the input", "Dropout"]
    recipe["table"]["figures"] = []
    plain = drawings(records, layout_of(recipe, records, []))
    assert [d.title for d in plain] == ["Sign noise", "Gaussian noise", "Sign noise, gradients averaged over 20 draws"]
    assert [line.row for line in plain[0].panels[0].lines] == list(HALF)


def test_a_figure_without_a_measured_row_is_left_out() -> None:
    figures = [{"title": title, "rows": [title], "columns": ["sign"]} for title in ("a", "b")]
    found = drawings([point("b", 0.1, 0.2)], layout(["a", "b"], figures=figures))
    assert [drawing.title for drawing in found] == ["b"]


@pytest.mark.parametrize("odd", ["x", [3], [{"title": "t"}], {"title": "t"}])
def test_odd_figures_in_run_json_leave_the_default(odd: Any) -> None:
    found = drawings([point("a", 0.1, 0.2)], layout(["a"], figures=odd))
    assert [drawing.title for drawing in found] == ["Sign noise"]


# Curves are in no table.


@pytest.fixture
def mixed(tmp_path: Path) -> Source:
    """A column and a curve in one run."""
    about = about_of("ulicny-figures")
    table = about["recipe"]["table"]
    table["columns"] = [{"key": "dist0.1", "title": "dist=0.1", "group": "White box"}]
    rows = ["No method", "Low-pass filter"]
    table["rows"] = rows
    records = [r for r in table_records(rows=rows) if r.column == "dist0.1" and r.protocol == "paper"]
    return read(write_published(tmp_path, about, [*records, *curve_records(every=10, rows=rows)]))


def test_a_curve_is_no_stray_column_and_in_no_table(mixed: Source) -> None:
    assert [column.key for column in mixed.layout.columns] == ["dist0.1"]
    (table,) = tables_of(mixed.records, mixed.layout)
    assert {key for lines in table.rows.values() for line in lines for key in line.cells} == {"dist0.1"}
    text = headline(mixed.about, mixed.layout, [table], all_panels(mixed.records, mixed.layout))
    assert "dist=0.1" in text.finding
    assert "sign" not in text.finding.lower()
    assert {cell.column for cell in numbers(tabled(mixed))} == {"dist0.1"}


def test_the_terminal_says_that_curves_are_in_the_report(mixed: Source) -> None:
    out = StringIO()
    print_table(mixed.folder, Console(file=out, width=100))
    said = " ".join(out.getvalue().split())
    assert "Curves by distortion (Sign noise, Gaussian noise," in said
    assert "drawn in the report" in said
    (mixed.folder / "records.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in curve_records(every=50)))
    out = StringIO()
    print_table(mixed.folder, Console(file=out, width=100))
    assert "No accuracy has been measured" not in out.getvalue()


def test_results_leave_curves_out_and_say_so(mixed: Source) -> None:
    table = pivot([mixed])
    assert [column.key for column in table.columns] == ["dist0.1"]
    assert table.left_out == ("sign", "gaussian", "sign_eot")
    assert "Curves are not in this table (sign, gaussian, sign_eot)" in export.as_markdown(table)
    assert "sign" not in export.as_csv(table)


def test_one_distortion_that_was_chosen_is_a_column(mixed: Source) -> None:
    level = next(r.parameters["distortion"] for r in mixed.records if r.column == "gaussian" and r.value < 0.9)
    chosen = tuple(r for r in mixed.records if r.column == "gaussian" and r.parameters["distortion"] == level)
    table = pivot([replace(mixed, records=chosen)], whole_columns=False)
    assert [column.title for column in table.columns] == ["Gaussian noise"]
    assert table.left_out == ()
    assert {line.model: line.cells["gaussian"][0] for line in table.lines} == {r.model: r.value for r in chosen}


def test_a_strength_that_was_solved_for_does_not_set_rows_apart() -> None:
    found = numbers(table_records())
    assert {cell.model for cell in found if cell.column == "dist0.1"} == {r.model for r in table_records()}
    assert found[Cell("DAE", "paper", False, "dist0.1")].keys() == {0, 1, 2}


def test_a_row_made_of_others_is_plain_only_if_it_was_never_noisy(tmp_path: Path) -> None:
    source = read(write_published(tmp_path, about_of("ulicny-table2"), table_records()))
    plain = plain_rows(source)
    assert {"DAE", "Standard committee", "No method"} <= plain
    assert not {"Low-pass filter", "Low-pass filter + dropout"} & plain


def test_settings_give_the_range_of_what_was_solved_for(mixed: Source) -> None:
    said = {line["name"]: line["text"] for line in settings(mixed.records, mixed.layout)}
    assert said["dist=0.1"].startswith("EOT draws = 1, seed = 0; distortion 0.1; ε solved for: 0.17 to 0.1")
    assert "distortions 0 to 0.227 (10 of them)" in said["Gaussian noise"]
    assert len(settings(mixed.records, mixed.layout)) == 4


# What is computed from curves.


def test_a_span_is_the_mean_accuracy_over_its_distortions() -> None:
    records = [point("a", d, e, seed=s) for s in (0, 1) for d, e in ((0.0, 0.1), (0.1, 0.3), (0.2, 0.8))]
    records.append(point("b", 0.0, 0.1))  # the rest is still to come
    found = span_numbers(records, layout(["a", "b"]), ["sign:0-0.15", "clean", "other:0-1"])
    assert found == {Cell("a", "paper", False, "sign:0-0.15"): {0: pytest.approx(0.8), 1: pytest.approx(0.8)}}


def test_spans_are_told_from_columns() -> None:
    assert Span.of("sign:0-0.15") == Span("sign", 0.0, 0.15)
    assert Span.of("dist0.1") is None
    assert Span.of("a-b") is None


def test_the_headline_is_about_the_strongest_white_box_curve() -> None:
    records = curve_records(every=25)
    found = layout_of(about_of("ulicny-figures")["recipe"], records, [])
    sentence, basis = finding(all_panels(records, found))
    assert sentence.startswith(
        "Under “Sign noise, gradients averaged over 20 draws”, Committee of models trained on adv."
    )
    assert sentence.endswith("for No method.")
    assert "of 16 " in basis
    assert "one training seed" in basis


def test_a_row_that_was_hardly_measured_yet_wins_nothing() -> None:
    records = [point("good", d, 0.1 + d) for d in (0.0, 0.2, 0.4)] + [point("bad", 0.0, 0.05)]
    sentence, basis = finding(all_panels(records, layout(["good", "bad"])))
    assert "good has the lowest error averaged over distortions of 0 to 0.4: 30.0 %." in sentence
    assert "the row of 1 with" in basis


def test_a_noisy_winner_without_eot_is_no_robustness() -> None:
    records = [point("a", 0.1, 0.5), point("b", 0.1, 0.2, noise=True)]
    sentence, _ = finding(all_panels(records, layout(["a", "b"])))
    assert "b has the lowest error" in sentence
    assert "may not be robustness" in sentence
