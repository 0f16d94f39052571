from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from noiseopt.concepts import Record
from noiseopt.report.collect import collect
from noiseopt.report.findings import Headline, headline
from noiseopt.report.layout import layout_of
from noiseopt.report.table import tables_of

Make = Callable[..., Record]
PLAIN, NOISY = {"model": "MLP (ReLU)"}, {"model": "MLPN (ReLU)", "noise": True, "draws": 20}


def of(records: Sequence[Record]) -> Headline:
    layout = layout_of(None, records, [])
    return headline({}, layout, tables_of(records, layout))


def study(make_record: Make, *, plain: float, single: float | None, averaged: float | None) -> Headline:
    records = []
    for protocol, eot, value in (("paper", 1, single), ("strict", 20, averaged)):
        if value is not None:
            shared = {"column": "pgd", "protocol": protocol}
            records.append(make_record(plain, **shared, **PLAIN))
            records.append(make_record(value, parameters={"draws": eot}, **shared, **NOISY))
    return of(records)


def test_a_gain_that_eot_takes_away_is_said_to_go_away(make_record: Make) -> None:
    text = study(make_record, plain=0.2, single=0.5, averaged=0.22).finding
    assert text.startswith("The gain goes away")
    assert "50.0%" in text
    assert "22.0%" in text
    assert "20.0%" in text
    assert "500 images" in text
    assert "no longer higher" in text


def test_a_gain_that_eot_turns_into_a_loss_is_said_to_be_lower(make_record: Make) -> None:
    assert "which is lower" in study(make_record, plain=0.4, single=0.6, averaged=0.1).finding


def test_a_gain_that_holds_under_eot_is_a_gain(make_record: Make) -> None:
    text = study(make_record, plain=0.2, single=0.6, averaged=0.5).finding
    assert "that is a gain, and it holds without EOT too" in text
    assert "averages 20 noise draws (EOT)" in text


def test_a_gain_without_eot_is_not_called_robustness(make_record: Make) -> None:
    text = study(make_record, plain=0.2, single=0.6, averaged=None).finding
    assert "may not be robustness" in text


def test_draws_that_no_record_states_are_not_claimed(make_record: Make) -> None:
    records = [make_record(0.6, column="fgsm", **NOISY), make_record(0.2, column="fgsm", **PLAIN)]
    text = of(records).finding
    assert "that is a gain. The Records do not state how many noise draws each gradient saw." in text
    assert "one noise draw" not in text


def test_without_white_box_the_lowest_column_is_told(make_record: Make) -> None:
    records = [make_record(v, column=c, **NOISY) for c, v in (("clean", 0.9), ("contrast", 0.5))]
    text = of(records).finding
    assert "of 500 images under Contrast; there is no plain model to compare it with." in text


def test_overlapping_intervals_show_no_difference(make_record: Make) -> None:
    text = study(make_record, plain=0.2, single=0.21, averaged=0.22).finding
    assert "the intervals or the seeds overlap, so no difference is shown" in text


def test_a_loss_is_called_a_loss(make_record: Make) -> None:
    assert "that is a loss" in study(make_record, plain=0.6, single=0.3, averaged=0.2).finding


def test_the_interval_and_sample_size_are_those_of_the_record(make_record: Make) -> None:
    text = of([make_record(0.5, count=80, low=0.39, high=0.61, column="pgd", **NOISY)]).finding
    assert "50.0% [39.0 to 61.0] of 80 images under PGD" in text


def test_without_a_plain_model_the_same_model_without_noise_is_compared(make_record: Make) -> None:
    records = [
        make_record(0.5, column="pgd", parameters={"draws": 20}, **NOISY),
        make_record(0.1, column="pgd", model="MLPN (ReLU)"),
    ]
    text = of(records).finding
    assert "for MLPN (ReLU) with its noise off" in text
    assert "that is a gain" in text


def test_every_comparison_is_counted_once(make_record: Make) -> None:
    records = [
        make_record(v, column=c, protocol=p, **row)
        for row, values in ((PLAIN, (0.5, 0.5, 0.5)), (NOISY, (0.9, 0.1, 0.5)))
        for (c, p), v in zip((("pgd", "paper"), ("pgd", "strict"), ("clean", "")), values, strict=True)
    ]
    assert "In all 3 comparisons of the two: higher in 1, lower in 1, no difference shown in 1." in of(records).basis


def test_of_several_plain_models_the_one_of_the_same_kind_is_compared(make_record: Make) -> None:
    records = [
        make_record(0.1, column="pgd", model="MLP (ReLU)"),
        make_record(0.3, column="pgd", model="MLP (sigmoid)"),
        make_record(0.5, column="pgd", model="MLPN (sigmoid)", noise=True, draws=20),
    ]
    assert "against 30.0%" in of(records).finding


def test_the_attack_that_hurts_most_is_chosen(make_record: Make) -> None:
    records = [make_record(v, column=c, **NOISY) for c, v in (("fgsm", 0.4), ("pgd", 0.1), ("contrast", 0.05))]
    assert "under PGD" in of(records).finding


@pytest.mark.parametrize("records", [[], [math.nan]])
def test_nothing_measured_is_said(records: list[float], make_record: Make) -> None:
    assert of([make_record(v, column="pgd", **NOISY) for v in records]).finding == "Nothing has been measured yet."


def test_plain_models_alone_get_a_plain_sentence(make_record: Make) -> None:
    text = of([make_record(v, column=c, **PLAIN) for c, v in (("clean", 0.9), ("pgd", 0.1))]).finding
    assert text.startswith("MLP (ReLU) is right on 10.0%")
    assert "no noisy model was measured" in text


def test_what_was_trained_comes_from_run_json(run_dir: Path) -> None:
    run = collect(run_dir)
    trained = headline(run.about, run.layout, tables_of(run.records, run.layout)).trained
    assert trained == "6 models trained on mnist (50,000 images); measured on 500 test images."
    early = headline({"data": [], "seed": None}, run.layout, []).trained
    assert early == "0 of 6 models measured so far."
