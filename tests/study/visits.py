"""How a participant's browser meets the server."""

from __future__ import annotations

import html
import re

from starlette.testclient import TestClient

from noiseopt.study.store import Answer, Store

ORIGIN = "http://study.example"


class Clock:
    """Seconds since 1970, as the server sees them."""

    time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


def fields(text: str) -> dict[str, str]:
    """The hidden fields of a page's first form."""
    return {
        name: html.unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text)
    }


def join(client: TestClient, **more: str) -> str:
    """Take part; returns the path of the personal link."""
    page = client.get("/")
    answer = client.post("/join", data={**fields(page.text), "agreed": "yes", **more})
    assert answer.status_code == 303
    return str(answer.headers["location"])


def say(client: TestClient, link: str, said: str, **more: str) -> int:
    """Answer the image at hand; the status of the reply."""
    form = {**fields(client.get(f"{link}/task").text), "answer": said, **more}
    return client.post(f"{link}/task", data=form).status_code


def given(store: Store) -> list[list[Answer]]:
    return list(store.answers().values())
