"""A WSGI app that answers from a list and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import requests


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    body: bytes | Exception | Iterable[bytes] = b"{}"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def json_answer(value: Any, status: int = 200, **headers: str) -> Answer:
    """An answer of JSON; `x_ratelimit_limit="80"` becomes the header `x-ratelimit-limit`."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status=status, body=json.dumps(value).encode(), headers={"Content-Type": "application/json", **named})


def data(value: Any, cursor: str | None = None) -> Answer:
    return json_answer({"success": True, "data": value, "additional_data": {"next_cursor": cursor}})


HTML = Answer(
    status=403,
    body=b"<!DOCTYPE html><html><head><title>Attention, ada@acme.test</title></head></html>",
    headers={"Content-Type": "text/html; charset=UTF-8"},
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class CannedApp:
    """Gives its answers in turn, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked.append(
            Asked(
                method=environ["REQUEST_METHOD"],
                path=environ["PATH_INFO"],
                query={name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()},
                headers={
                    name.removeprefix("HTTP_").lower().replace("_", "-"): value
                    for name, value in environ.items()
                    if name.startswith("HTTP_") or name == "CONTENT_TYPE"
                },
                body=environ["wsgi.input"].read(),
            )
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer.body, Exception):
            raise answer.body
        start_response(
            f"{answer.status} {HTTPStatus(answer.status).phrase if answer.status < 520 else 'Edge'}",
            list(answer.headers.items()),
        )
        return [answer.body] if isinstance(answer.body, bytes) else answer.body


LOST = Answer(body=requests.ReadTimeout("read timed out with url: /x?term=ada@acme.test"))
"""The connection broke while the answer was awaited."""
