from __future__ import annotations

from collections.abc import Callable

import pytest

from noiseopt.concepts import Record
from noiseopt.report.layout import COLUMNS, layout_of, paper_tables, paper_value


def test_the_papers_tables_are_whole() -> None:
    tables = paper_tables()
    assert {number: len(table["rows"]) for number, table in tables.items()} == {
        "3": 6,
        "4": 5,
        "5": 5,
        "6": 5,
        "ulicny-2": 9,
    }
    for number, table in tables.items():
        columns = ["dist0", "dist0.1", "dist0.2"] if number == "ulicny-2" else list(COLUMNS)
        for row in table["rows"].values():
            assert list(row) == columns
            assert all(0 < value < 1 for value in row.values())


@pytest.mark.parametrize(
    ("table", "row", "column", "value"),
    [
        # Numbers that section 4 of the paper repeats in its text.
        ("3", "MLPN (sigmoid)", "fgsm", 0.336),
        ("3", "MLP (sigmoid)", "lbfgs", 0.324),
        ("4", "CNN-MLPN", "gaussian_noise", 0.995),
        ("5", "ResNet18-AN", "transfer_lbfgs", 0.613),
        ("6", "ResNet34", "pgd", 0.019),
    ],
)
def test_the_papers_numbers_are_those_of_its_text(table: str, row: str, column: str, value: float) -> None:
    layout = layout_of({"table": {"paper": table}}, [], [])
    assert paper_value(layout, row, column) == value


def test_a_table_that_is_not_the_papers_has_no_paper_values() -> None:
    assert paper_value(layout_of({"table": {"paper": None}}, [], []), "MLP (ReLU)", "clean") is None
    assert paper_value(layout_of({"table": {"paper_table": 3}}, [], []), "MLP (ReLU)", "clean") == 0.948


def test_records_add_rows_and_columns_that_the_recipe_does_not_name(
    make_record: Callable[..., Record],
) -> None:
    recipe = {"table": {"rows": ["a"], "columns": [{"key": "pgd", "title": "PGD-40", "group": "White box"}]}}
    records = [make_record(0.5, model="b", column="my_attack"), make_record(0.5, model="a", column="fgsm")]
    layout = layout_of(recipe, records, [])
    assert layout.rows == ("a", "b")
    assert [(column.key, column.group) for column in layout.columns] == [
        ("pgd", "White box"),
        ("fgsm", "White box"),
        ("my_attack", ""),
    ]
    assert layout.columns[0].title == "PGD-40"


@pytest.mark.parametrize("recipe", [None, "x", {}, {"table": 3}, {"table": {"rows": "ab", "columns": [1]}}])
def test_an_odd_recipe_leaves_the_records_to_speak(recipe: object, make_record: Callable[..., Record]) -> None:
    layout = layout_of(recipe, [make_record(0.5, model="m", perturbation="clean")], [])
    assert layout.rows == ("m",)
    assert [column.key for column in layout.columns] == ["clean"]
