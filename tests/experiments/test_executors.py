"""The same cells in this process, in several, and on a Ray cluster: the same Records, whatever dies meanwhile."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from noiseopt import checkpoint
from noiseopt.concepts import Record
from noiseopt.errors import UserError
from noiseopt.experiments.events import Began, Died, EpochDone, Event
from noiseopt.experiments.executors import Executor, InProcess, OnRay, Processes, chosen, cores, node
from noiseopt.experiments.recipe import Recipe
from noiseopt.experiments.run import Outcome, Runner
from noiseopt.experiments.store import Store, address_of
from noiseopt.train import Training, train
from tests.training.common import digits, noisy

# A network whose process is killed, as the kernel does where memory is short, in the middle of its training.
DEADLY = """
import os, pathlib, signal
from torch import nn

class Deadly(nn.Linear):
    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        flag = pathlib.Path(__file__).with_name("died")
        if self.calls == 8 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)

def make():
    return nn.Sequential(nn.Flatten(), Deadly(64, 3))
"""


def run(
    recipe: Recipe, folder: Path, executor: Executor, listener: Callable[[Event], None] = lambda event: None
) -> tuple[Outcome, list[Event], list[Record]]:
    """The outcome, the events, and the Records in an order of their own; each stands in the file once."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        listener(event)

    outcome = Runner(recipe, runs_dir=folder, device="cpu", executor=executor, listener=listen).run()
    path = folder / "tiny" / "records.jsonl"
    records = Store(path).records
    assert len(path.read_text().splitlines()) == len(records)
    return outcome, events, sorted(records, key=address_of)


def test_processes_give_the_same_records_though_one_is_killed_and_a_cell_fails(
    changed: Callable[..., Recipe],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = tmp_path_factory.mktemp("own")
    (own / "deadly_net.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(own))
    recipe = changed(
        ("model: mlp, options: {hidden: [8]}}", "model: 'deadly_net:make'}"),
        ("noise: {sigma: 1.0}", "noise: {sigma: 1.0}, training: {lr: 1e+30, optimizer: sgd}"),
    )
    outcome, events, records = run(recipe, tmp_path / "two", Processes(2))
    assert (outcome.trained, outcome.measured) == (3, 15)
    assert [(e.kind, e.title, e.reason) for e in events if isinstance(e, Died)] == [
        ("train", "MLP, seed 0", "killed by signal 9")
    ]
    # It went on where it was: its first epoch was not run again.
    epochs = [e.epoch for e in events if isinstance(e, EpochDone) and e.title == "MLP, seed 0"]
    assert epochs == [1, 2]
    assert list(outcome.failures) == ["MLP+, seed 0"]
    assert isinstance(outcome.failures["MLP+, seed 0"], UserError)
    assert not multiprocessing.active_children()
    assert records == run(recipe, tmp_path / "one", InProcess())[2]


def test_leaving_ends_the_processes(tiny: Recipe, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Began):
            assert multiprocessing.active_children()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, tmp_path, Processes(1), interrupt)
    assert not multiprocessing.active_children()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes with one CPU each; the second may be taken away."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.xdist_group("ray")
def test_a_ray_cluster_gives_the_same_records_though_a_node_is_lost(
    changed: Callable[..., Recipe], tmp_path: Path, cluster: Any
) -> None:
    recipe = changed(("epochs: 2", "epochs: 60"))
    node = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    at_work: set[str] = set()

    def take_the_node_away(event: Event) -> None:
        nonlocal node
        if isinstance(event, EpochDone):
            at_work.add(event.title)
        if node is not None and len(at_work) == 2:  # at once, so one of them is on that node
            cluster.remove_node(node, allow_graceful=False)
            node = None

    outcome, events, records = run(recipe, tmp_path / "ray", OnRay(address=cluster.address), take_the_node_away)
    assert node is None
    assert any(isinstance(e, Died) for e in events)
    for title in at_work:  # what was on that node went on from its checkpoint
        epochs = [e.epoch for e in events if isinstance(e, EpochDone) and e.title == title]
        assert epochs == sorted(set(epochs))
    assert (outcome.trained, outcome.measured, outcome.failures) == (4, 25, {})
    assert records == run(recipe, tmp_path / "one", InProcess())[2]


def test_a_node_sends_files_in_the_order_in_which_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whoever finds the last of them finds the others of the same epoch."""
    written: list[str] = []
    write = checkpoint.write_atomically
    monkeypatch.setattr(
        checkpoint, "write_atomically", lambda path, *a: (written.append(Path(path).name), write(path, *a))
    )
    train(noisy(), digits(), Training(epochs=1), run_dir=tmp_path)
    assert tuple(written[-3:]) == node._FILES


def test_options_mean_an_executor() -> None:
    options: dict[str, Any] = {"workers": None, "address": None, "gpus_per_cell": None}
    assert chosen(None, **options) == InProcess()
    assert chosen(None, **options | {"workers": 1}) == InProcess()
    assert chosen(None, **options | {"workers": 3}) == Processes(3)
    assert chosen(None, **options | {"workers": 0}) == Processes(cores())
    assert chosen("processes", **options) == Processes(cores())
    assert chosen("processes", **options | {"workers": 1}) == Processes(1)
    assert chosen("ray", **options | {"gpus_per_cell": 0.25}) == OnRay(0, None, 0.25)
    assert chosen(None, **options | {"address": "auto", "workers": 7}) == OnRay(7, "auto", 0.0)
    with pytest.raises(UserError, match="one worker; got auto"):
        chosen("inprocess", **options | {"workers": 0})
    with pytest.raises(UserError, match="--address is for a Ray cluster"):
        chosen("processes", **options | {"address": "auto"})


def test_where_ray_is_missing_its_installation_is_told(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noiseopt.experiments.executors.cluster.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Ray is not installed; fix: pip install 'noiseopt\[ray\]'"):
        run(tiny, tmp_path, OnRay())
