"""The pages as participants and the organiser meet them: what they store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from noiseopt.study.folder import Study
from noiseopt.study.server import Desk
from noiseopt.study.store import Store
from tests.study.visits import ORIGIN, Clock, fields, given, join, say

pytestmark = pytest.mark.xdist_group("study-databases")


def test_a_whole_participant(client: TestClient, store: Store, study: Study, clock: Clock) -> None:
    link = join(client)
    assert client.get(link).status_code == 200
    assert "You said 7; it was" in client.get(f"{link}/practice/2?answer=7").text
    for position in range(study.length):
        clock.time += 10
        page = client.get(f"{link}/task").text
        clock.time += 2
        form = {**fields(page), "answer": "none" if position == 3 else str(position), "ms": "1234.5"}
        if position == 2:
            form["away"] = "yes"
        reply = client.post(f"{link}/task", data=form)
        assert reply.headers["location"] == f"{link}/{'thanks' if position == 5 else 'task'}"
    assert "All 6 answers are saved" in client.get(f"{link}/thanks").text
    (answers,) = given(store)
    assert [answer.answer for answer in answers] == [0, 1, 2, None, 4, 5]
    assert [answer.item for answer in answers] == study.orders[0].tolist()
    assert [answer.away for answer in answers] == [False, False, True, False, False, False]
    assert {answer.response_ms for answer in answers} == {1234.5}
    assert [answer.page_delay_ms for answer in answers] == pytest.approx([0, *[10_000] * 5])
    assert client.get(f"{link}/task").headers["location"] == f"{link}/thanks"
    assert client.get(link).headers["location"] == f"{link}/thanks"
    (person,) = store.participants()
    assert not person.simulated


def test_an_answer_that_comes_twice_or_late_is_stored_once(client: TestClient, store: Store) -> None:
    link = join(client)
    form = fields(client.get(f"{link}/task").text)
    for said in "4559":
        assert client.post(f"{link}/task", data={**form, "answer": said}).status_code == 303
    assert say(client, link, "7") == 303
    assert client.post(f"{link}/task", data={**form, "answer": "1"}).status_code == 303  # replayed
    assert [[answer.answer for answer in answers] for answers in given(store)] == [[4, 7]]


def test_nobody_answers_for_another_or_ahead(client: TestClient, store: Store) -> None:
    mine, other = join(client), join(client)
    form = {**fields(client.get(f"{mine}/task").text), "answer": "4"}
    assert client.post(f"{other}/task", data=form).status_code == 400  # somebody else's form
    for change in (
        {"position": "1"},
        {"position": "-1"},
        {"position": "0 "},
        {"issued": "0"},
        {"seal": ""},
        {"seal": "A" * 43},
        {"answer": "10"},
        {"answer": "-1"},
        {"answer": ""},
        {"answer": "1; drop table answers"},
    ):
        assert client.post(f"{mine}/task", data={**form, **change}).status_code == 400, change
    assert client.post(f"{mine}/task", data={"answer": "4"}).status_code == 400
    assert given(store) == []
    assert client.post(f"{mine}/task", data=form).status_code == 303


def test_don_t_know_is_refused_where_the_recipe_has_it_not(serving: Callable[..., Any]) -> None:
    client, store = serving(dont_know=False)
    link = join(client)
    assert say(client, link, "none") == 400
    assert given(store) == []
    assert "know" not in client.get(f"{link}/task").text


@pytest.mark.parametrize(
    ("ms", "kept"), [("1500", 1500.0), ("2900", 2900.0), ("3001", None), ("-1", None), ("0", None)]
)
def test_a_response_time_that_the_servers_clock_contradicts_is_not_kept(
    client: TestClient, store: Store, clock: Clock, ms: str, kept: float | None
) -> None:
    link = join(client)
    form = {**fields(client.get(f"{link}/task").text), "answer": "4", "ms": ms}
    clock.time += 2  # and a second for clocks that differ
    client.post(f"{link}/task", data=form)
    assert given(store)[0][0].response_ms == kept


@pytest.mark.parametrize("ms", ["", "nan", "inf", "1e999", "soon", "1_0é"])
def test_what_is_no_response_time_is_none(client: TestClient, store: Store, ms: str) -> None:
    assert say(client, join(client), "4", ms=ms) == 303
    assert given(store)[0][0].response_ms is None


def test_no_form_from_elsewhere(client: TestClient, store: Store) -> None:
    page = client.get("/")
    form = {**fields(page.text), "agreed": "yes"}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ORIGIN + ".evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        assert client.post("/join", data=form, headers=headers).status_code == 403
    assert client.post("/join", data={**form, "seal": "forged"}).status_code == 400
    client.cookies.clear()
    assert client.post("/join", data=form).status_code == 400  # another browser's form
    client.cookies.set("session", "mine")
    assert client.post("/join", data=form).status_code == 400
    assert store.participants() == []


def test_no_consent_no_participant(client: TestClient, store: Store) -> None:
    reply = client.post("/join", data=fields(client.get("/").text))
    assert reply.status_code == 400
    assert "please tick the box" in reply.text
    assert store.participants() == []


def test_links_cannot_be_guessed_however_often(client: TestClient) -> None:
    link = join(client)
    for guess in ("x", "a" * 32, link[3:-1], link[3:].swapcase(), "%27%20or%201=1", "..%2f..%2fsecrets.json", "é"):
        assert client.get(f"/p/{guess}").status_code == 404, guess
    for path in ("task", "practice/1", "ready", "thanks"):
        assert client.get(f"/p/{'a' * 32}/{path}").status_code == 404
    codes = [client.get(f"/p/{number:032d}").status_code for number in range(25)]
    assert codes == sorted(codes)
    assert set(codes) == {404, 429}  # and then no more


def test_a_guesser_is_slowed_down_and_then_forgiven_and_nobody_else_is(
    client: TestClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = [0.0]
    monkeypatch.setattr(desk.mistakes, "_now", lambda: time[0])
    link = join(client)
    while client.get("/p/guess").status_code == 404:
        pass
    assert client.get("/p/guess").status_code == 429
    assert client.get(link).status_code == 200
    time[0] = 60.0
    assert client.get("/p/guess").status_code == 404
