"""Flower behind the console's door: who sees it, who may press its buttons, and what passes either way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline import settings as settings_room
from pipeline.settings import settings
from pipeline.web.console import workers as module
from pipeline.web.console.workers import FlowerClient
from tests.integration.console.conftest import ConsoleClient
from tests.system import SyncSystem

POLL_S = 0.01
"""How long the fake may take to notice that it is to end."""
HOME = b"<title>Flower</title><script>\n  var autorefresh = 1;\n</script>"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class Fake:
    """A Flower that remembers what it was asked."""

    port: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = HOME
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def fake(system: SyncSystem) -> Iterator[Fake]:
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.asked.append((self.command, self.path, dict(self.headers), body))
            self.send_response(fake.status)
            for name, value in ({"Content-Type": "text/html"} | fake.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(fake.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(fake.body)

        do_POST = do_HEAD = do_GET  # noqa: N815 - the names the server looks for

        def log_message(self, *_arguments: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    fake.port = server.server_port
    settings_room.use(settings().replace(flower_port=fake.port, flower_basic_auth="operator:canary-flower"))
    module._flower = FlowerClient()
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


def test_flower_needs_a_login(fake: Fake, anonymous: ConsoleClient) -> None:
    answer = anonymous.get("/flower/")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/flower/")
    assert anonymous.client.post("/flower/api/worker/shutdown/w@h", headers=SAME_ORIGIN).status_code == 303
    assert fake.asked == []


def test_a_viewer_looks_and_flower_gets_its_own_login_and_nothing_of_ours(fake: Fake, viewer: ConsoleClient) -> None:
    answer = viewer.get("/flower/tasks?name=incoming.load&state=", Accept="text/html", Authorization="Bearer stolen")

    assert (answer.status_code, answer.data) == (200, HOME)
    ((method, path, headers, _),) = fake.asked
    assert (method, path) == ("GET", "/flower/tasks?name=incoming.load&state=")
    assert headers["Authorization"] == "Basic b3BlcmF0b3I6Y2FuYXJ5LWZsb3dlcg=="
    assert "Cookie" not in headers
    assert viewer.token not in str(headers)


def test_of_its_answer_only_what_is_needed_passes(fake: Fake, viewer: ConsoleClient) -> None:
    fake.headers = {
        "Set-Cookie": "session=mine",
        "Access-Control-Allow-Origin": "*",
        "WWW-Authenticate": "Basic",
        "Content-Security-Policy": "default-src *",
        "X-Frame-Options": "ALLOWALL",
        "ETag": '"1"',
    }

    answer = viewer.get("/flower/")

    assert "session=mine" not in str(answer.headers)
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "WWW-Authenticate" not in answer.headers
    assert (answer.headers["ETag"], answer.headers["X-Frame-Options"]) == ('"1"', "DENY")


def test_its_pages_may_run_its_own_files_and_reach_itself_alone(fake: Fake, viewer: ConsoleClient) -> None:
    policy = viewer.get("/flower/").headers["Content-Security-Policy"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}

    assert rules["default-src"] == ["'none'"]
    assert rules["connect-src"] == ["localhost/flower/", "localhost:8080/flower/"]
    assert "localhost/flower/static/" in rules["script-src"]
    assert not {"'unsafe-inline'", "'unsafe-eval'", "'self'"} & set(rules["script-src"])
    assert rules["frame-ancestors"] == ["'none'"]
    assert "unsafe" not in viewer.get("/").headers["Content-Security-Policy"]


def test_its_files_may_be_kept_and_its_pages_not(fake: Fake, viewer: ConsoleClient) -> None:
    assert viewer.get("/flower/static/js/flower.js?v=1").headers["Cache-Control"] == "private, max-age=3600"
    assert viewer.get("/flower/workers").headers["Cache-Control"] == "no-store"


def test_a_viewer_presses_nothing(fake: Fake, viewer: ConsoleClient) -> None:
    with capture_logs() as lines:
        answer = viewer.client.post("/flower/api/worker/pool/grow/worker@host", headers=SAME_ORIGIN)

    assert answer.status_code == 403
    assert [line["reason"] for line in lines if line["event"] == "console.refused"] == ["role"]
    assert fake.asked == []


def test_the_list_of_tasks_asks_by_post_and_is_for_viewers_too(
    fake: Fake, viewer: ConsoleClient, system: SyncSystem
) -> None:
    answer = viewer.client.post("/flower/tasks/datatable", data={"draw": "1"}, headers=SAME_ORIGIN)

    assert answer.status_code == 200
    assert [(method, path, body) for method, path, _, body in fake.asked] == [
        ("POST", "/flower/tasks/datatable", b"draw=1")
    ]
    assert system.rows("SELECT 1 FROM audit_log WHERE action LIKE 'flower%'") == []
    assert viewer.client.post("/flower/tasks/datatable").status_code == 403


def test_an_operator_presses_and_it_is_written_down(fake: Fake, operator: ConsoleClient, system: SyncSystem) -> None:
    answer = operator.client.post("/flower/api/worker/pool/grow/worker@host", data={"n": "1"}, headers=SAME_ORIGIN)

    assert answer.status_code == 200
    ((method, path, headers, body),) = fake.asked
    assert (method, path, body) == ("POST", "/flower/api/worker/pool/grow/worker@host", b"n=1")
    assert headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert not {"Origin", "Sec-Fetch-Site", "Referer"} & set(headers)
    assert system.rows("SELECT operator, action, subject FROM audit_log WHERE action LIKE 'flower%'") == [
        ("operator@acme.test", "flower.control", "api/worker/pool/grow/worker@host")
    ]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.test"},
    ],
)
def test_another_site_presses_nothing(fake: Fake, operator: ConsoleClient, headers: dict[str, str]) -> None:
    assert operator.client.post("/flower/api/task/revoke/1", headers=headers).status_code == 403
    assert fake.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "api/task/async-apply/control.sweep",
        "api/task/send-task/incoming.load",
        "api/task/apply/incoming.load",
        "api/task/abort/1",
    ],
)
def test_tasks_cannot_be_sent_through_flower(fake: Fake, admin: ConsoleClient, path: str) -> None:
    assert admin.client.post(f"/flower/{path}", headers=SAME_ORIGIN).status_code == 404
    assert fake.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "metrics", "healthcheck", "login", "logout", "static/../../secret", "static/%2e%2e/secret", "task/a%2fb",
        "worker/a%0d%0aHost:evil", "worker/x%00", "api/worker/shutdown/w", "http://evil.test/", "/evil.test/", "task/%5cx",
        "task/" + "x" * 400, "tasks?" + "q" * 9_000, "task/%252e%252e",
    ],
)  # fmt: skip
def test_what_is_not_listed_is_not_passed_on(fake: Fake, admin: ConsoleClient, path: str) -> None:
    assert admin.get(f"/flower/{path}").status_code in {404, 308}
    assert fake.asked == []


def test_hostile_names_travel_as_names(fake: Fake, viewer: ConsoleClient) -> None:
    viewer.get("/flower/worker/w%3Cscript%3E@h")
    viewer.get("/flower/task/..")

    assert {path for _, path, _, _ in fake.asked} == {"/flower/worker/w%3Cscript%3E@h"}


def test_other_methods_are_refused(fake: Fake, admin: ConsoleClient) -> None:
    for method in ("PUT", "DELETE", "PATCH"):
        assert admin.client.open("/flower/workers", method=method, headers=SAME_ORIGIN).status_code == 405
    assert fake.asked == []


@pytest.mark.parametrize(("status", "words"), [(401, "FLOWER_BASIC_AUTH"), (404, "--url-prefix"), (500, "with 500")])
def test_what_flower_cannot_answer_is_explained(fake: Fake, viewer: ConsoleClient, status: int, words: str) -> None:
    fake.status = status

    answer = viewer.get("/flower/")

    assert (answer.status_code, words in answer.text) == (502, True)
    assert "canary" not in answer.text


def test_redirects_of_flower_are_not_followed(fake: Fake, viewer: ConsoleClient) -> None:
    fake.status, fake.headers = 302, {"Location": "https://evil.test/"}

    answer = viewer.get("/flower/workers")

    assert (answer.status_code, "Location" in answer.headers) == (502, False)


def test_an_answer_without_end_is_cut_off(fake: Fake, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.web.console.workers.MAX_BYTES", 10)

    assert viewer.get("/flower/").status_code == 502


def test_a_flower_that_is_away_is_explained_and_not_waited_for_again(system: SyncSystem, viewer: ConsoleClient) -> None:
    settings_room.use(settings().replace(flower_url="http://127.0.0.1:1"))
    module._flower = FlowerClient()

    first, second = viewer.get("/flower/"), viewer.get("/flower/")

    assert first.status_code == second.status_code == 502
    assert "http://127.0.0.1:1/flower/" in first.text
    assert "celery -A pipeline flower" in first.text
    assert "a moment ago" in second.text


def test_the_address_without_its_end_leads_on(system: SyncSystem, viewer: ConsoleClient) -> None:
    assert viewer.get("/flower").headers["Location"] in {"/flower/", "http://localhost/flower/"}
