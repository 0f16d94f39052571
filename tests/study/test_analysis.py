from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noiseopt.errors import UserError
from noiseopt.study.analysing import analysed, as_json, files
from noiseopt.study.analysis import Group, analyse, collect
from noiseopt.study.create import create
from noiseopt.study.folder import Study
from noiseopt.study.recipe import StudyRecipe
from noiseopt.study.simulate import simulate
from noiseopt.study.store import Answer, Store
from tests.study.test_create import FOOLED


@pytest.fixture
def answers(study: Study, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """A store with people who said what a function of (position, truth) says."""
    stores: list[Store] = []

    def make(*people: Callable[[int, int], int | None], of: Study = study, images: int | None = None) -> Store:
        store = Store(f"sqlite:///{tmp_path}/{len(stores)}.sqlite", study=of.hash, places=of.places)
        stores.append(store)
        store.claim(simulated=False)
        for say in people:
            _, joined = store.join(simulated=False)
            order = of.orders[joined.place][:images]
            store.add(
                joined.id,
                [
                    Answer(p, int(item), say(p, int(of.items.labels[item])), 1000.0 + 100 * joined.place, 0, False, p)
                    for p, item in enumerate(order)
                ],
            )
        return store

    yield make
    for store in stores:
        store.close()


def right(_: int, truth: int) -> int:
    return truth


def wrong(_: int, truth: int) -> int:
    return (truth + 1) % 10


def silent(_: int, truth: int) -> None:
    return None


def means(data: dict[str, Any], title: str, role: str = "") -> list[float]:
    lines = [line for line in data["lines"] if (line["title"], line["role"]) == (title, role)]
    return [point["mean"] for line in lines for point in line["points"]]


def test_who_finishes_while_it_is_analysed_is_left_to_the_next_time(
    study: Study, answers: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = answers(right)
    _, last = store.join(simulated=False)
    order = [int(item) for item in study.orders[last.place]]
    said = [Answer(p, item, 0, 1000.0, 0, False, p) for p, item in enumerate(order)]
    store.add(last.id, said[:-1])
    said = said[-1:]
    for name in ("participants", "answers"):  # the last answer comes in after the first look at the store
        read = getattr(store, name)

        def then(read: Callable[[], Any] = read) -> Any:
            found = read()
            if said:
                store.add(last.id, [said.pop()])
            return found

        monkeypatch.setattr(store, name, then)
    assert len(collect(study, store).items) == 1


def test_accuracy_is_the_mean_of_the_participants_shares(study: Study, answers: Callable[..., Store]) -> None:
    data = analyse(study, collect(study, answers(right, right, wrong, silent)), [], simulated=False)
    assert means(data, "People") == [0.5, 0.5, 0.5]
    assert (data["participants"], data["left_out"], data["dont_know"]) == (4, 0, 0.25)
    assert data["lines"][0]["points"][0]["units"] == 4
    (natural, gaussian) = data["lines"]
    assert [point["distortion"] for point in natural["points"]] == [0.0]
    assert [point["distortion"] for point in gaussian["points"]] == [level.distortion for level in study.levels[1:]]


def test_levels_are_told_apart(study: Study, answers: Callable[..., Store]) -> None:
    levels = study.items.levels[study.orders[0]]

    def only_natural(position: int, truth: int) -> int:
        return truth if levels[position] == 0 else wrong(position, truth)

    data = analyse(study, collect(study, answers(only_natural)), [], simulated=False)
    assert means(data, "People") == [1, 0, 0]


def test_who_has_not_finished_is_left_out(study: Study, answers: Callable[..., Store]) -> None:
    store = answers(right)
    _, begun = store.join(simulated=False)
    store.answer(begun.id, Answer(0, int(study.orders[1][0]), 1, None, 0, False, 0))
    store.join(simulated=False, invited=True)
    data = analyse(study, collect(study, store), [], simulated=False)
    assert (data["participants"], data["left_out"]) == (1, 1)
    assert means(data, "People") == [1, 1, 1]
    with pytest.raises(UserError, match="nobody has finished"):
        collect(study, answers(right, images=3))


def test_confusion_counts_who_said_what(study: Study, answers: Callable[..., Store]) -> None:
    data = analyse(study, collect(study, answers(wrong, silent)), [], simulated=False)
    counts = np.array(data["confusion"][0]["counts"]["natural"])
    assert counts.shape == (10, 11)
    assert counts.sum() == 4
    assert np.trace(counts) == 0
    assert counts[:, 10].sum() == 2
    shown = study.items.labels[study.orders[0]][study.items.levels[study.orders[0]] == 0]
    assert all(counts[label, (label + 1) % 10] for label in shown)


def test_response_times_are_means_of_medians(study: Study, answers: Callable[..., Store]) -> None:
    data = analyse(study, collect(study, answers(right, right, right)), [], simulated=False)
    assert [point["mean"] for point in data["response_ms"]] == pytest.approx([1100.0] * 3)


def test_people_and_networks_are_compared_on_each_participants_images(
    study: Study, answers: Callable[..., Store]
) -> None:
    truth = study.items.labels
    group = Group("Nets", ("a", "b"), np.stack([truth, (truth + 1) % 10]))
    data = analyse(study, collect(study, answers(right, wrong, right)), [group], simulated=False)
    assert means(data, "Nets") == [0.5, 0.5, 0.5]
    assert [d["mean"] for d in data["differences"]] == pytest.approx([2 / 3 - 0.5] * 3)
    assert {d["units"] for d in data["differences"]} == {3}
    assert data["confusion"][1]["title"] == "Nets"
    assert np.trace(np.array(data["confusion"][1]["counts"]["gaussian"])) == 3 * 4


@pytest.fixture(scope="module")
def against(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Study, Store, Path]]:
    """A study against two networks, with simulated participants."""
    folder = tmp_path_factory.mktemp("analysis") / "study"
    study = create(StudyRecipe.model_validate(FOOLED), output=folder, runs_dir=run, device="cpu")
    store = Store(study.database, study=study.hash, places=study.places)
    simulate(study, store, count=4)
    yield study, store, run
    store.close()


def asked(against: tuple[Study, Store, Path], **options: Any) -> dict[str, Any]:
    study, store, run = against
    given = {"more": (), "runs_dir": run, "data_dir": None, "device": "cpu", **options}
    return analysed(study, store, **given)


def test_networks_see_the_pixels_that_people_saw(against: tuple[Study, Store, Path]) -> None:
    study, _, run = against
    data = asked(against)
    from noiseopt.study.networks import TrainedRun

    trained = TrainedRun("tiny", runs_dir=run, data_dir=None, device="cpu")
    import torch

    expected = []
    for network in trained.networks("MLP", None):
        model = trained.model(network).eval()
        with torch.no_grad():
            said = model(torch.from_numpy(study.items.pixels).float() / 255).argmax(1).numpy()
        hit = said == study.items.labels
        at = [order[study.items.levels[order] == 0] for order in study.orders]
        expected.append(np.mean([hit[items].mean() for items in at]))
    assert means(data, "MLP")[0] == pytest.approx(np.mean(expected))


def test_a_network_that_was_attacked_is_told_apart_from_the_others(against: tuple[Study, Store, Path]) -> None:
    data = asked(against)
    own, others = means(data, "MLP", "attacked"), means(data, "MLP", "transfer")
    # What fools both is in the set "fooled", whose noise was made without a network.
    assert len(own) == len(others) == 2
    assert own[1] < others[1]
    assert len(means(data, "MLP")) == 3


def test_what_a_simulation_makes_says_so_everywhere(against: tuple[Study, Store, Path]) -> None:
    data = asked(against)
    made = files(data)
    assert sorted(made) == ["accuracy-SIMULATED.csv", "analysis-SIMULATED.json"]
    assert {line["title"] for line in data["lines"]} == {"SIMULATED people", "MLP"}
    rows = list(csv.DictReader(io.StringIO(made["accuracy-SIMULATED.csv"].decode())))
    assert {row["simulated"] for row in rows} == {"True"}
    assert len(rows) == sum(len(line["points"]) for line in data["lines"])
    assert as_json(data).startswith(b"{")


def test_other_runs_can_stand_beside_and_networks_can_be_left_out(against: tuple[Study, Store, Path]) -> None:
    assert {line["title"] for line in asked(against, networks=False)["lines"]} == {"SIMULATED people"}
    twice = asked(against, more=["tiny"])
    assert len(twice["confusion"]) == 3
    with pytest.raises(UserError, match="there is no run elsewhere"):
        asked(against, more=["elsewhere"])


def test_networks_alone_are_asked_about_all_images_and_nothing_is_said_of_people(
    run: Path, tmp_path: Path, against: tuple[Study, Store, Path]
) -> None:
    from noiseopt.report.study_figures import about, figure_files

    study = create(StudyRecipe.model_validate(FOOLED), output=tmp_path / "study", runs_dir=run, device="cpu")
    store = Store(study.database, study=study.hash, places=study.places)
    data = asked((study, store, run), people=False)
    assert {line["who"] for line in data["lines"]} == {"networks"}
    assert (data["participants"], data["simulated"], data["dont_know"]) == (0, False, None)
    assert data["differences"] == data["contrasts"] == data["response_ms"] == []
    # The simulated participants of the other study filled all its places: networks saw the same there.
    both = asked(against)
    assert [line for line in both["lines"] if line["who"] == "networks"] == data["lines"]
    names = {*files(data), *figure_files(data)}
    assert names == {
        *("accuracy-networks-only.csv", "analysis-networks-only.json"),
        *(f"{name}-networks-only.{kind}" for name in ("figure8", "confusion") for kind in ("svg", "png")),
    }
    assert "nobody asked" in about(data)
    assert "SIMULATED" not in as_json(data).decode()
    with pytest.raises(UserError, match="names no networks"):
        asked((study, store, run), people=False, networks=False)
    store.close()


def test_sets_with_as_many_levels_are_contrasted(
    make_study: Callable[..., Study], answers: Callable[..., Store]
) -> None:
    sets = [
        {"key": key, "title": key, "count": 2, "perturbation": {"gaussian": levels}}
        for key, levels in (("a", [0.1, 0.2]), ("b", [0.3, 0.4]), ("c", [0.1, 0.2, 0.3]))
    ]
    study = make_study(sets=sets)
    keys = [[study.levels[n].key for n in study.items.levels[order]] for order in study.orders]

    def person(place: int) -> Callable[[int, int], int]:
        return lambda position, truth: truth if keys[place][position] == "a" else wrong(position, truth)

    data = analyse(study, collect(study, answers(person(0), person(1), of=study)), [], simulated=False)
    assert [(c["set"], c["minus"], c["mean"]) for c in data["contrasts"]] == [("a", "b", 1.0)]
