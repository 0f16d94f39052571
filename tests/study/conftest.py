"""A study of real digits, databases of both kinds, and a server to meet in a browser."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from noiseopt.data import load
from noiseopt.study.create import create
from noiseopt.study.folder import Study
from noiseopt.study.recipe import StudyRecipe
from noiseopt.study.server import Desk, create_app
from noiseopt.study.store import Store
from tests.study.visits import ORIGIN, Clock

SMALL: dict[str, Any] = {
    "name": "small",
    "title": "Reading digits",
    "data": {"name": "mnist-mini", "part": "all"},
    "participants": 6,
    "dont_know": True,
    "sets": [
        {"key": "natural", "title": "Natural", "count": 2},
        {"key": "gaussian", "title": "Gaussian noise", "count": 2, "perturbation": {"gaussian": [0.2, 0.6]}},
    ],
    "practice": [{"count": 1}, {"count": 1, "perturbation": {"gaussian": 0.3}}],
}
"""Six images for each of six participants."""

_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]


@pytest.fixture(scope="session")
def make_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Study]]:
    """Makes a study like `SMALL`, with other values; each in a folder of its own."""

    def make(**changes: Any) -> Study:
        folder = tmp_path_factory.mktemp("study")
        recipe = StudyRecipe.model_validate({**SMALL, **changes})
        return create(recipe, output=folder / "study", runs_dir=folder, device="cpu")

    with pytest.MonkeyPatch.context() as patch:
        # The same digits are read but once.
        patch.setattr("noiseopt.study.create.load", cache(load))
        yield make


@pytest.fixture(scope="session")
def study(make_study: Callable[..., Study]) -> Study:
    return make_study()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """A real PostgreSQL server; empties its database, and tells its address."""
    if not _POSTGRES:
        _missing("no PostgreSQL server: install your system's postgresql package to run these tests on it, too")
    # Not below pytest's folders, which are closed to all other users.
    folder = Path(tempfile.mkdtemp(prefix="noiseopt-postgres-"))
    user: list[str] = []
    if os.getuid() == 0:  # the server refuses to be root
        user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    data, log = str(folder / "data"), str(folder / "log")

    def call(program: str, *arguments: str) -> None:
        command = [*user, str(_POSTGRES[0] / program), *arguments]
        # Not through a pipe: the server would hold it open.
        with (folder / "said").open("w+") as said:
            quiet: Any = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said, "timeout": 60}
            done = subprocess.run(command, cwd=folder, **quiet)
            said.seek(0)
            assert done.returncode == 0, said.read()

    call("initdb", "-D", data, "-U", "study", "--auth=trust", "--no-sync", "-E", "UTF8")
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    call("pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start")
    call("createdb", "-h", str(folder), "-U", "study", "answers")
    address = f"postgresql://study@/answers?host={folder}"

    def fresh() -> str:
        import psycopg

        # Much faster than a new database, which is a thousand files.
        with psycopg.connect(address, options="-c lock_timeout=10s") as connection:
            connection.execute("drop schema public cascade; create schema public")
        return address

    yield fresh
    call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"CI must have this: {reason}")
    pytest.skip(reason)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database: each test that asks for one runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'answers.sqlite'}"
    fresh: Callable[[], str] = request.getfixturevalue("postgres")
    return fresh()


@pytest.fixture
def store(study: Study, database: str) -> Iterator[Store]:
    """No answers yet to `study`."""
    store = Store(database, study=study.hash, places=study.places)
    yield store
    store.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serves a study on loopback, as `noiseopt study serve` does; tells its address."""
    import uvicorn

    from noiseopt.study.server import Desk, create_app

    running: list[tuple[uvicorn.Server, threading.Thread, Store]] = []

    def start(study: Study, *, dry_run: bool = False) -> str:
        path = tmp_path / f"{len(running)}.sqlite"
        store = Store(f"sqlite:///{path}", study=study.hash, places=study.places)
        config = uvicorn.Config(
            create_app(Desk(study, store, dry_run=dry_run)), port=0, log_level="warning", lifespan="off"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread, store))
        while not server.started:
            time.sleep(0.02)
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    yield start
    for server, thread, store in running:
        server.should_exit = server.force_exit = True
        thread.join(10)
        store.close()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs with one run, `tiny`: two small networks on real digits, barely trained."""
    from noiseopt.experiments.recipe import loads
    from noiseopt.experiments.run import Runner

    folder = tmp_path_factory.mktemp("runs")
    recipe = loads(TINY)
    Runner(recipe, runs_dir=folder, device="cpu").run(measuring=False)
    return folder


TINY = """
name: tiny
data: {name: mnist-mini, split: [5, 1, 1], split_seed: 0}
training: {epochs: 2, batch_size: 64, lr: 3e-3}
rows: [{label: MLP, model: mlp, options: {hidden: [32]}}]
columns: [{key: clean, perturbations: [clean]}]
seeds: [0, 1]
"""


@pytest.fixture
def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(study: Study, store: Store, clock: Clock) -> Desk:
    return Desk(study, store, dry_run=False, now=clock)


@pytest.fixture
def client(desk: Desk) -> TestClient:
    return TestClient(create_app(desk), base_url=ORIGIN, follow_redirects=False)


@pytest.fixture
def serving(make_study: Callable[..., Study], tmp_path: Any) -> Iterator[Callable[..., tuple[TestClient, Store]]]:
    """A client of a study with other values."""
    stores: list[Store] = []

    def make(*, dry_run: bool = False, **changes: Any) -> tuple[TestClient, Store]:
        made = make_study(**changes)
        stores.append(Store(f"sqlite:///{tmp_path}/{len(stores)}.sqlite", study=made.hash, places=made.places))
        app = create_app(Desk(made, stores[-1], dry_run=dry_run))
        return TestClient(app, base_url=ORIGIN, follow_redirects=False), stores[-1]

    yield make
    for store in stores:
        store.close()
