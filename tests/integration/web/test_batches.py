"""Hull's older way to send a selection: it names a file, a worker fetches it, and every record in it is sent by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from db.failure_filter import find_failures
from db.session import transaction
from pipeline import connections, settings
from pipeline.domain.json_text import read_lenient
from pipeline.jobs import exports
from pipeline.jobs.replays.start import replay_failure
from pipeline.settings import Settings
from pipeline.sync.changes.dispatch import coalesce_deliveries
from tests.integration.web.conftest import ACME, ORGANIZATION, SECRETS, RunningWeb
from tests.wsgi_adapter import session_for

CREDENTIALS = {"ship": ACME, "organization": ORGANIZATION, "secret": SECRETS["hull_secret"]}
STORE = "http://127.0.0.1:9199"
URL = f"{STORE}/extract.json?X-Signature=canary-signature"
USERS = [{"id": f"{number:024x}", "email": f"canary{number}@acme.test", "segment_ids": ["s1"]} for number in range(250)]


class Killed(BaseException):
    """The worker is gone in the middle of it: no handler runs."""


class Storage:
    """Where Hull puts its files. `after` is how many records it gives before it breaks off by raising `trouble`."""

    def __init__(self) -> None:
        self.lines: list[bytes] = [json.dumps(user).encode() for user in USERS]
        self.status = "200 OK"
        self.headers: list[tuple[str, str]] = [("ETag", "one")]
        self.after: int | None = None
        self.trouble: BaseException = Killed()
        self.asked: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        self.asked.append(f"{environ['HTTP_HOST']}{environ['PATH_INFO']}")
        start_response(self.status, self.headers)
        return self._pieces()

    def _pieces(self) -> Iterator[bytes]:
        for number, line in enumerate(self.lines):
            if number == self.after:
                self.after = None
                raise self.trouble
            yield line + b"\n"


@pytest.fixture
def storage() -> Iterator[Storage]:
    made = Storage()
    connections.use_http(lambda: session_for({STORE: made, "https://files.hullapp.test": made}))
    yield made
    connections.use_http(None)


@pytest.fixture(autouse=True)
def listed(running: RunningWeb, environment: Settings) -> Iterator[None]:
    settings.use(environment.replace(hull_export_hosts=("127.0.0.1:9199", "files.hullapp.test")))
    yield
    settings.use(environment)


def send(
    running: RunningWeb, route: str = "/batch", query: dict[str, str] | None = None, **changed: Any
) -> TestResponse:
    body = {
        "connector": {"id": ACME, "private_settings": {"access_token": "canary-access"}},
        "url": URL,
        "format": "json",
        "object_type": "user_report",
        "users_segments": [{"id": "s1", "name": "VIP", "type": "users_segment", "query": {"a": 1}}],
        "accounts_segments": [{"id": "s1", "name": "Whales", "type": "accounts_segment"}],
    }
    body = {name: value for name, value in {**body, **changed}.items() if value is not ...}
    return running.client.post(route, query_string=CREDENTIALS | (query or {}), json=body)


def changes(running: RunningWeb) -> dict[str, Any]:
    rows = running.rows("SELECT record_id, direction, entity, payload, revision FROM changes ORDER BY record_id")
    return {row.record_id: (row.entity, read_lenient(bytes(row.payload)), row.revision) for row in rows}


def events(running: RunningWeb) -> list[tuple[str, str | None]]:
    return [(row.event, row.reason) for row in running.rows("SELECT event, reason FROM sync_events ORDER BY id")]


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "A selection that Hull sends as a file is sent in the same way.",
)
def test_every_user_of_the_file_is_sent_by_hand(running: RunningWeb, storage: Storage) -> None:
    answer = send(running, query={"segment_id": "s2", "source": "connector"})
    requests_before = list(storage.asked)
    running.run_jobs()

    assert (answer.status_code, answer.text, requests_before, running.woken) == (200, "ok", [], ["dispatch"])
    found = changes(running)
    assert list(found) == [user["id"] for user in USERS]
    assert found[USERS[3]["id"]] == (
        "person",
        {
            "user": USERS[3],
            "account": {},
            "segments": [{"id": "s1", "name": "VIP", "type": "users_segment"}, {"id": "s2"}],
            "is_export": True,
        },
        1,
    )
    assert [tuple(row) for row in running.rows("SELECT state, secret FROM jobs")] == [("done", None)]


def test_accounts_have_a_route_of_their_own(running: RunningWeb, storage: Storage) -> None:
    account = {"id": "a" * 24, "domain": "acme.test", "segment_ids": ["s1"]}
    storage.lines = [json.dumps(account).encode()]

    send(running, "/batch-accounts", object_type=...)
    running.run_jobs()

    segments = [{"id": "s1", "name": "Whales", "type": "accounts_segment"}]
    message = {"account": account, "account_segments": segments, "is_export": True}
    assert changes(running) == {"a" * 24: ("organization", message, 1)}


def test_a_file_of_rows_is_read_as_well(running: RunningWeb, storage: Storage) -> None:
    storage.lines = [b"id,email,account.id", b"u1,a@acme.test,a1", b"u2,,"]

    send(running, format="csv")
    running.run_jobs()

    found = {name: message for name, (_, message, _) in changes(running).items()}
    assert (found["u1"]["user"], found["u1"]["account"]) == ({"id": "u1", "email": "a@acme.test"}, {"id": "a1"})
    assert found["u2"]["user"] == {"id": "u2"}


def test_a_notification_that_came_later_is_newer_than_the_file(running: RunningWeb, storage: Storage) -> None:
    send(running)
    later = {"channel": "user:update", "messages": [{"user": {**USERS[0], "email": "later@acme.test"}}]}
    running.change_rows("UPDATE jobs SET created_at = now() - interval '10 s'")
    running.change_rows(
        "INSERT INTO deliveries (connector_key, source, key, body) VALUES (:key, 'hull', 'n', :body)",
        key=running.acme,
        body=json.dumps(later).encode(),
    )
    with transaction() as session:
        coalesce_deliveries(session)

    running.run_jobs()

    assert changes(running)[USERS[0]["id"]][1]["user"]["email"] == "later@acme.test"


def test_the_same_file_asked_for_twice_is_fetched_once(running: RunningWeb, storage: Storage) -> None:
    assert [send(running).text for _ in range(3)] == ["ok"] * 3

    running.run_jobs()
    running.run_jobs()

    assert len(running.rows("SELECT 1 FROM jobs")) == 1
    assert {row.revision for row in running.rows("SELECT revision FROM changes")} <= {1, 2}


def test_a_broken_line_is_named_and_the_others_go_on(running: RunningWeb, storage: Storage) -> None:
    storage.lines[1:1] = [b"canary: no json", b'["canary"]', b'{"email": "canary@acme.test"}', b""]

    send(running)
    with capture_logs() as lines:
        assert running.run_jobs() == []

    assert len(changes(running)) == len(USERS)
    expected = [("outgoing.user.error", "export_line_broken")] * 2 + [("outgoing.user.error", "no_hull_id")]
    assert events(running) == expected
    [job] = [line for line in lines if line["event"] == "outgoing.job.success"]
    assert (job["records"], job["broken"], job["lines"]) == (250, 3, 253)
    assert "canary" not in repr(lines) + str(running.rows("SELECT detail FROM sync_events"))


def test_a_file_of_rubbish_does_not_flood_the_events(running: RunningWeb, storage: Storage) -> None:
    storage.lines = [b"rubbish"] * 350

    send(running)
    running.run_jobs()

    found = events(running)
    assert len(found) == exports.NAMED + 1
    assert found[-1] == ("outgoing.job.error", "export_line_broken")
    assert "250 more" in running.rows("SELECT detail FROM sync_events ORDER BY id DESC LIMIT 1")[0].detail


REFUSED = [
    "http://169.254.169.254/latest/meta-data",
    "https://169.254.169.254/latest/meta-data",
    "http://127.0.0.1:9200/x",
    "https://10.0.0.7/x",
    "https://evil.test/x",
    "http://files.hullapp.test/x",
    "https://files.hullapp.test@evil.test/x",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_is_not_listed_is_rejected_immediately(running: RunningWeb, storage: Storage, url: str) -> None:
    answer = send(running, url=url)

    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]) == (400, "export_host_refused")
    assert events(running) == [("outgoing.job.error", "export_host_refused")]
    assert (storage.asked, running.rows("SELECT 1 FROM jobs")) == ([], [])


@pytest.mark.parametrize("address", ["10.0.0.7", "169.254.169.254", "127.0.0.1", "::1", "::ffff:10.0.0.7", None])
def test_a_listed_host_that_leads_inside_is_not_called(
    running: RunningWeb, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    """And fails as a host does that has no address at all."""
    monkeypatch.setattr("pipeline.clients.ssrf.addresses", lambda _host, _port: [address] if address else [])
    monkeypatch.setattr(socket, "create_connection", None)
    send(running, url="https://files.hullapp.test/extract.json")

    assert running.run_jobs() == ["remote_unreachable"]

    assert changes(running) == {}


def test_a_listed_host_is_called(running: RunningWeb, storage: Storage) -> None:
    send(running, url="https://files.hullapp.test/extract.json")

    assert running.run_jobs() == []

    assert storage.asked == ["files.hullapp.test/extract.json"]


def test_a_redirect_is_not_followed(running: RunningWeb, storage: Storage) -> None:
    storage.status, storage.headers = "302 Found", [("Location", "http://169.254.169.254/")]
    send(running)

    assert running.run_jobs() == ["export_host_refused"]

    assert len(storage.asked) == 1


MALFORMED: list[dict[str, Any]] = [
    {"url": ...},
    {"url": 7},
    {"url": ""},
    {"format": ...},
    {"format": "xml"},
    {"format": ["json"]},
    {"url": "https://files.hullapp.test/" + "x" * 10_000},
]


@pytest.mark.parametrize("changed", MALFORMED)
def test_a_request_that_makes_no_sense_is_refused_by_name(running: RunningWeb, changed: dict[str, Any]) -> None:
    answer = send(running, **changed)

    assert answer.json is not None
    assert answer.status_code == 400
    assert answer.json["error"] in {"export_malformed", "export_host_refused"}
    assert len(events(running)) == 1
    assert running.rows("SELECT 1 FROM jobs") == []


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"url": NaN}', b'{"a":' * 60 + b"1" + b"}" * 60])
def test_a_body_that_is_none_is_refused(running: RunningWeb, body: bytes) -> None:
    answer = running.client.post("/batch", query_string=CREDENTIALS, data=body)

    assert (answer.status_code, answer.json and bool(answer.json["error"])) == (400, True)


def test_a_body_that_is_too_large_is_refused(running: RunningWeb) -> None:
    answer = running.client.post("/batch", query_string=CREDENTIALS, data=b" " * (5 * 1024 * 1024 + 1))

    assert answer.status_code == 413


@pytest.mark.parametrize("route", ["/batch", "/batch-accounts"])
@pytest.mark.parametrize("changed", [{"secret": "wrong"}, {"organization": "x"}, {"ship": ""}])
def test_wrong_credentials_do_nothing(running: RunningWeb, route: str, changed: dict[str, str]) -> None:
    answer = send(running, route, query=changed)

    assert (answer.status_code, answer.json and answer.json["error"]) == (401, "unauthorized")
    assert running.rows("SELECT 1 FROM jobs") == []


def due_again(running: RunningWeb) -> None:
    """As when the lease of a killed worker has run out."""
    running.change_rows("UPDATE jobs SET due_at = now()")


def test_a_broken_connection_is_tried_again(running: RunningWeb, storage: Storage) -> None:
    storage.after, storage.trouble = 120, ConnectionResetError()
    send(running)

    assert running.run_jobs() == ["remote_unavailable"]
    due_again(running)
    assert running.run_jobs() == []

    assert len(changes(running)) == 250


def test_a_file_that_is_gone_is_a_failure_that_can_be_replayed(running: RunningWeb, storage: Storage) -> None:
    storage.status = "403 Forbidden"
    send(running)
    assert running.run_jobs() == ["export_gone"]
    with transaction() as session:
        [failure] = find_failures(session)
        replay_failure(session, failure, by="ada", why="it is back")
    storage.status = "200 OK"

    assert running.run_jobs() == []

    assert len(changes(running)) == 250
    with transaction() as session:
        assert find_failures(session) == []


@pytest.mark.parametrize("length", [[], [("Content-Length", "28000")]])
def test_nothing_of_a_file_beyond_the_limit_is_sent(
    running: RunningWeb, storage: Storage, monkeypatch: pytest.MonkeyPatch, length: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(exports, "MAX_BYTES", 15_000)
    storage.headers += length
    send(running)

    assert running.run_jobs() == ["export_too_large"]

    assert changes(running) == {}


def test_it_is_given_up_after_hours(running: RunningWeb, storage: Storage) -> None:
    send(running)
    running.change_rows("UPDATE jobs SET created_at = now() - interval '1 day'")

    assert running.run_jobs() == ["export_gone"]
    assert storage.asked == []


def test_the_address_and_values_are_stored_nowhere_in_plain_text(
    running: RunningWeb, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as lines:
        send(running)
        kept = running.rows("SELECT * FROM jobs")
        storage.after, storage.trouble = 120, ConnectionResetError(URL)
        running.run_jobs()
        storage.status = "500 Oh"
        due_again(running)
        running.run_jobs()

    output = capsys.readouterr()
    places = [
        lines,
        kept,
        output.out,
        output.err,
        running.rows("SELECT * FROM failures"),
        running.rows("SELECT * FROM sync_events"),
    ]
    assert "canary" not in repr(places)
    assert [line["event"] for line in lines] == ["remote.silent", "job.retry", "job.retry"]
