from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from noiseopt.concepts import Record, wilson_interval
from noiseopt.report.layout import layout_of
from noiseopt.report.table import Table, pool, tables_of

Make = Callable[..., Record]


def tables(records: Sequence[Record]) -> list[Table]:
    return tables_of(records, layout_of(None, records, []))


def test_one_record_keeps_its_own_interval(make_record: Make) -> None:
    cell = pool([make_record(0.25, low=0.1, high=0.4)])
    assert (cell.value, cell.low, cell.high, cell.count) == (0.25, 0.1, 0.4, 500)


def test_severities_are_averaged_and_every_image_counts_once(make_record: Make) -> None:
    records = [make_record(0.9 - 0.1 * s, parameters={"severity": s}) for s in range(1, 6)]
    cell = pool(records)
    assert cell.value == pytest.approx(0.6)
    assert cell.severities == (1, 2, 3, 4, 5)
    assert (cell.low, cell.high) == wilson_interval(300, 500)


def test_a_record_measured_twice_counts_once_with_its_later_value(make_record: Make) -> None:
    first, again = (make_record(value, parameters={"severity": 1}) for value in (0.2, 0.8))
    assert pool([first, again]).value == 0.8


def test_perturbations_of_one_column_are_averaged(make_record: Make) -> None:
    records = [make_record(v, parameters={"eps": e}) for e, v in ((0.1, 0.5), (0.2, 0.3))]
    assert pool(records).value == pytest.approx(0.4)
    assert pool([make_record(v, perturbation=p) for p, v in (("fgsm", 0.5), ("pgd", 0.1))]).value == pytest.approx(0.3)


def test_seeds_are_averaged_and_kept_apart(make_record: Make) -> None:
    cell = pool([make_record(value, model_seed=seed) for seed, value in enumerate((0.6, 0.7, 0.8))])
    assert cell.value == pytest.approx(0.7)
    assert cell.seed_values == (0.6, 0.7, 0.8)


def test_nan_spreads_to_its_cell_and_never_is_the_best(make_record: Make) -> None:
    bad = [make_record(v, model="a", column="pgd", parameters={"severity": s}) for s, v in ((1, 0.9), (2, math.nan))]
    good = make_record(0.3, model="b", column="pgd")
    (table,) = tables([*bad, good])
    assert not table.rows["a"][0].cells["pgd"].known
    assert math.isnan(table.rows["a"][0].cells["pgd"].low)
    assert table.best("pgd") == 0.3
    assert math.isnan(table.best("none"))


def test_protocols_are_apart_and_a_record_without_one_stands_in_each(make_record: Make) -> None:
    records = [
        make_record(0.9, model="m", column="clean"),
        make_record(0.5, model="m", column="pgd", protocol="strict"),
        make_record(0.7, model="m", column="pgd", protocol="paper"),
    ]
    paper, strict = tables(records)
    assert (paper.protocol, strict.protocol) == ("paper", "strict")
    for table, value in ((paper, 0.7), (strict, 0.5)):
        cells = table.rows["m"][0].cells
        assert (cells["clean"].value, cells["pgd"].value) == (0.9, value)


def test_noise_on_stands_before_noise_off(make_record: Make) -> None:
    (table,) = tables([make_record(0.5 + 0.1 * noise, model="m", column="pgd", noise=noise) for noise in (False, True)])
    assert [line.noise for line in table.rows["m"]] == [True, False]


def test_draws_are_never_averaged_with_each_other(make_record: Make) -> None:
    noisy = {"model": "m", "noise": True, "draws": 20}
    (table,) = tables(
        [
            make_record(0.9, column="clean", **noisy),
            make_record(0.6, column="pgd", parameters={"draws": 1}, **noisy),
            make_record(0.2, column="pgd", parameters={"draws": 20}, **noisy),
        ]
    )
    single, averaged = table.rows["m"]
    assert (single.detail, single.cells["pgd"].value, single.cells["clean"].value) == ("no EOT", 0.6, 0.9)
    assert (averaged.detail, averaged.cells["pgd"].value) == ("EOT 20", 0.2)
    assert "clean" not in averaged.cells


def test_prediction_draws_are_lines_of_their_own(make_record: Make) -> None:
    (table,) = tables(
        [make_record(v, model="m", column="clean", noise=True, draws=k) for k, v in ((1, 0.7), (20, 0.9))]
    )
    assert [(line.detail, line.cells["clean"].value) for line in table.rows["m"]] == [
        ("1 draw", 0.7),
        ("20 draws", 0.9),
    ]


def test_other_metrics_stay_out_of_the_table(make_record: Make) -> None:
    assert tables([make_record(0.1, metric="distortion")]) == []
