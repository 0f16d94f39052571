"""The pages as those meet them who should not: what they refuse, and what they never show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from noiseopt.study.folder import Study
from noiseopt.study.store import Store
from tests.study.visits import ORIGIN, Clock, fields, given, join, say

pytestmark = pytest.mark.xdist_group("study-databases")


@pytest.mark.parametrize(
    "path",
    [
        "/static/secrets.json",
        "/static/../secrets.json",
        "/static/..%2F..%2Fsecrets.json",
        "/static/%2e%2e/%2e%2e/folder.py",
        "/static//etc/passwd",
        "/static/",
        "/secrets.json",
        "/organiser/export/secrets.json",
        "/organiser/export/..%2Fsecrets.json",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_path_leads_out(client: TestClient, study: Study, path: str) -> None:
    for headers in ({}, {"Authorization": f"Bearer {study.secrets['organiser']}"}):
        assert client.get(path, headers=headers).status_code == 404


def test_the_organisers_page_wants_the_token(client: TestClient, study: Study, clock: Clock) -> None:
    login = client.get("/organiser")
    assert "participants" not in login.text
    form = fields(login.text)
    assert client.get("/organiser/export/answers.csv").status_code == 404
    assert client.post("/organiser/login", data={**form, "token": "guess"}).status_code == 403
    assert client.post("/organiser/login", data={**form, "token": ""}).status_code == 403
    assert client.post("/organiser/login", data={"token": study.secrets["organiser"]}).status_code == 400
    for cookie in ("", "x", "9999999999.", f"9999999999.{form['seal']}"):
        client.cookies.set("organiser", cookie, path="/organiser")
        assert "participants" not in client.get("/organiser").text
    client.cookies.clear()
    entered = client.post("/organiser/login", data={**form, "token": study.secrets["organiser"]})
    assert entered.status_code == 303
    assert {"HttpOnly", "SameSite=strict", "Path=/organiser"} <= set(entered.headers["set-cookie"].split("; "))
    page = client.get("/organiser")
    assert "0 of 0 participants have finished" in page.text
    assert client.get("/organiser/export/answers.csv").status_code == 200
    clock.time += 13 * 3600
    assert "participants" not in client.get("/organiser").text
    clock.time -= 13 * 3600
    client.post("/organiser/logout", data=fields(page.text))
    assert "participants" not in client.get("/organiser").text


def test_the_token_cannot_be_guessed_however_often(client: TestClient, study: Study) -> None:
    form = fields(client.get("/organiser").text)
    codes = [client.post("/organiser/login", data={**form, "token": str(n)}).status_code for n in range(12)]
    assert codes == [403] * 10 + [429] * 2
    right = {"Authorization": f"Bearer {study.secrets['organiser']}"}
    assert client.get("/organiser", headers=right).status_code == 429  # not even the right one, for a while


def test_a_script_fetches_the_export_with_the_token(client: TestClient, study: Study) -> None:
    say(client, join(client), "4")
    right = {"Authorization": f"Bearer {study.secrets['organiser']}"}
    for name in ("answers.csv", "answers.parquet", "participants.csv", "participants.parquet", "codebook.md"):
        assert client.get(f"/organiser/export/{name}", headers=right).status_code == 200
    assert client.get("/organiser/export/answers.csv", headers={"Authorization": "Bearer x"}).status_code == 404
    assert "1 participants" in client.get("/organiser", headers=right).text


def test_a_participant_has_no_way_to_the_organiser_or_to_others(client: TestClient) -> None:
    mine, other = join(client), join(client)
    for path in ("/organiser", "/organiser/export/answers.csv"):
        assert "participants" not in client.get(path).text
    page = client.get(mine).text
    assert other[3:] not in page
    # The image's page does not tell what it shows.
    task = re.sub(r"data:image/png;base64,[^\"]*", "", client.get(f"{mine}/task").text)
    assert "label" not in task.replace("<label", "").replace("</label", "")


EVIL = "<script>alert(1)</script>"


def test_no_text_becomes_markup(serving: Callable[..., Any]) -> None:
    client, store = serving(
        title=EVIL,
        organiser=EVIL,
        contact=EVIL,
        purpose=EVIL,
        questions=[{"key": "q", "text": EVIL, "choices": [EVIL]}],
    )
    link = join(client, **{"question-q": EVIL, "name": EVIL})
    (person,) = store.participants()
    assert person.details == {"q": EVIL}
    pages = [
        client.get("/"),
        client.get(link),
        client.get(f"{link}/task"),
        client.get(f"{link}/practice/2?answer={EVIL}"),
        client.get(f"{link}/ready?answer={EVIL}"),
        client.get(f"/{EVIL}"),
        client.get(f"/p/{EVIL}"),
    ]
    for page in pages:
        assert "<script>" not in page.text
        assert "text/html" in page.headers["content-type"]


def test_only_the_recipes_questions_and_choices_are_kept(serving: Callable[..., Any]) -> None:
    client, store = serving(questions=[{"key": "sight", "text": "Glasses?", "choices": ["yes", "no"]}])
    join(client, **{"question-sight": "no", "question-name": "Ann", "email": "a@b"})
    join(client, **{"question-sight": "sometimes"})
    assert [person.details for person in store.participants()] == [{"sight": "no"}, {}]


def test_every_reply_is_guarded(client: TestClient) -> None:
    link = join(client)
    replies = [client.get(path) for path in ("/", link, f"{link}/task", "/organiser", "/nothing", "/static/answer.js")]
    replies += [client.post("/join", data={"x": "y"}), client.post("/join", data={"x": "y" * 20_000})]
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "same-origin"
        assert reply.headers["x-frame-options"] == "DENY"
    assert [reply.headers["cache-control"] for reply in replies[:5]] == ["no-store"] * 5
    assert replies[-1].status_code == 413
    assert "server" not in replies[0].headers


def test_a_form_of_unknown_length_is_refused(client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        yield b"agreed=" + b"y" * 100

    reply = client.post("/join", content=endless(), headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 413


def test_cookies_are_the_sessions_alone(client: TestClient) -> None:
    page = client.get("/")
    (cookie,) = page.headers.get_list("set-cookie")
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Max-Age" not in cookie
    assert "Secure" in TestClient(client.app, base_url="https://study.example").get("/").headers["set-cookie"]
    link = join(client)
    for path in ("", "/task", "/practice/1"):
        assert "set-cookie" not in client.get(f"{link}{path}").headers


def test_who_withdraws_is_deleted(client: TestClient, store: Store) -> None:
    mine, other = join(client), join(client)
    for link in (mine, other):
        say(client, link, "4")
    seals = [fields(client.get(link).text)["seal"] for link in (mine, other)]
    assert client.post(f"{mine}/withdraw", data={"seal": seals[1]}).status_code == 400
    assert client.post(f"{mine}/withdraw", data={"seal": seals[0]}).status_code == 200
    assert client.get(mine).status_code == 404
    assert client.get(other).status_code == 200
    assert len(store.participants()) == len(given(store)) == 1


def test_a_closed_study_is_by_invitation(serving: Callable[..., Any]) -> None:
    client, store = serving(open=False)
    assert "personal link" in client.get("/").text
    assert client.post("/join", data={"agreed": "yes"}).status_code == 404
    link, person = store.join(simulated=False, invited=True)
    assert client.get(f"/p/{link}/task").status_code == 404  # not before the consent
    page = client.get(f"/p/{link}")
    assert client.post(f"/p/{link}/consent", data=fields(page.text)).status_code == 400
    assert client.post(f"/p/{link}/consent", data={"agreed": "yes"}).status_code == 400
    agreed = client.post(f"/p/{link}/consent", data={**fields(page.text), "agreed": "yes"})
    assert agreed.headers["location"] == f"/p/{link}"
    assert say(client, f"/p/{link}", "4") == 303
    assert list(store.answers()) == [person.id]


def test_when_all_places_are_taken_it_says_so(serving: Callable[..., Any]) -> None:
    client, _ = serving(participants=1)
    join(client)
    page = client.get("/")
    reply = client.post("/join", data={**fields(page.text), "agreed": "yes"})
    assert reply.status_code == 503
    assert "All places are taken" in reply.text


def test_a_dry_run_says_so_on_every_page_and_marks_who_joins(serving: Callable[..., Any]) -> None:
    client, store = serving(dry_run=True)
    link = join(client)
    for path in ("/", link, f"{link}/task", f"{link}/practice/1", f"{link}/ready", "/organiser", "/nothing"):
        assert "SIMULATED" in client.get(path).text
    (person,) = store.participants()
    assert person.simulated


def test_a_page_that_breaks_says_nothing_about_itself(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = join(client)

    def broken(link: str) -> None:
        raise RuntimeError("the secret way it works")

    monkeypatch.setattr(store, "find", broken)
    reply = TestClient(client.app, base_url=ORIGIN, raise_server_exceptions=False).get(link)
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert "Your saved answers are safe" in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/p/x/practice/one", "/p/x/practice/0", "/p/x/practice/99999999999999999999"])
def test_odd_numbers_are_nothing_at_this_address(client: TestClient, path: str) -> None:
    assert client.get(path.replace("/p/x", join(client))).status_code == 404


def test_the_server_does_without_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, noiseopt.study.server, noiseopt.study.store, noiseopt.study.export; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
