"""A file of Hull's is downloaded and read in slices: wherever a worker dies, whatever the server can, each record comes once."""

from __future__ import annotations

import gzip as gzip_format
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline import connections, settings
from pipeline.jobs import exports, runtime
from pipeline.settings import Settings
from pipeline.transform.exports import PIECE_BYTES, unpack
from sandbox.hull.app import create_app
from tests.integration.web.conftest import ACME, ORGANIZATION, SECRETS, RunningWeb
from tests.integration.web.test_batches import CREDENTIALS, changes, due_again
from tests.wsgi_adapter import session_for

STORE = "http://127.0.0.1:9199"
USERS = 320
CHUNK = 1_000
"""Bytes of one piece as the network brings it."""


class Killed(BaseException):
    """The worker is gone in the middle of it: no handler runs."""


@dataclass
class Storage:
    """The sandbox's Hull behind a network that brings CHUNK bytes at a time.

    breaks_after  bytes after which each answer raises `trouble`
    """

    app: Any
    breaks_after: float = math.inf
    trouble: Callable[[], BaseException] = Killed
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    sent: int = 0
    drop: tuple[str, ...] = ()
    ignores_condition: bool = False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        self.asked.append((environ.get("HTTP_RANGE"), environ.get("HTTP_IF_RANGE")))
        if self.ignores_condition:
            environ.pop("HTTP_IF_RANGE", None)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, [each for each in headers if each[0].lower() not in self.drop], exc_info)

        body = b"".join(self.app(environ, start))
        return self._pieces(body)

    def _pieces(self, body: bytes) -> Iterator[bytes]:
        for at in range(0, len(body), CHUNK):
            if at >= self.breaks_after:
                raise self.trouble()
            self.sent += len(body[at : at + CHUNK])
            yield body[at : at + CHUNK]

    def make(self, **order: Any) -> dict[str, Any]:
        answer = self.app.test_client().post("/__sandbox__/files", json={"entity": "user", **order})
        assert answer.status_code == 200
        return dict(answer.json)


@pytest.fixture(scope="module")
def hull() -> Any:
    return create_app(
        connector_id=ACME, secret=SECRETS["hull_secret"], organization=ORGANIZATION, users=USERS, accounts=20
    )


@pytest.fixture
def storage(
    hull: Any, running: RunningWeb, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    made = Storage(hull)
    connections.use_http(lambda: session_for({STORE: made}))
    settings.use(environment.replace(hull_export_hosts=("127.0.0.1:9199",)))
    monkeypatch.setattr(exports, "PIECE_BYTES", 4_000)
    yield made
    connections.use_http(None)
    settings.use(environment)


def send(running: RunningWeb, file: dict[str, Any], form: str = "json") -> None:
    body = {"url": STORE + file["path"], "format": form, "object_type": "user_report"}
    assert running.client.post("/batch", query_string=CREDENTIALS, json=body).text == "ok"


def states(running: RunningWeb) -> list[str]:
    return [row.state for row in running.rows("SELECT state FROM jobs ORDER BY id")]


def finish(running: RunningWeb, *, most: int = 400) -> int:
    """Let workers carry it out until it has ended; returns how many tasks that took."""
    for task in range(most):
        if states(running) != ["due"]:
            return task
        due_again(running)
        running.run_jobs()
    raise AssertionError(f"not ended after {most} tasks")


def everything_once(running: RunningWeb) -> None:
    found = changes(running)
    assert len(found) == USERS
    assert {revision for _, _, revision in found.values()} == {1}
    assert states(running) == ["done"]
    assert running.rows("SELECT 1 FROM export_files UNION ALL SELECT 1 FROM export_pieces") == []


FORMS = [("json", False), ("json", True), ("csv", False), ("csv", True)]


@pytest.mark.parametrize(("form", "gzip"), FORMS)
def test_a_file_is_read_in_every_form(running: RunningWeb, storage: Storage, form: str, gzip: bool) -> None:
    send(running, storage.make(format=form, gzip=gzip), form)

    assert finish(running) == 1

    everything_once(running)
    assert storage.asked == [(None, None)]


@pytest.mark.parametrize(("form", "gzip"), FORMS)
@pytest.mark.parametrize("kind", [Killed, ConnectionResetError])
def test_a_broken_download_continues_where_it_ended(
    running: RunningWeb, storage: Storage, form: str, gzip: bool, kind: Callable[[], BaseException]
) -> None:
    file = storage.make(format=form, gzip=gzip)
    send(running, file, form)
    storage.breaks_after, storage.trouble = 9_000, kind

    for _ in range(400):
        if states(running) != ["due"]:
            break
        due_again(running)
        try:
            running.run_jobs()
        except Killed:
            continue

    everything_once(running)
    assert len(storage.asked) >= file["bytes"] // 9_000
    assert all(asked is not None and condition is not None for asked, condition in storage.asked[1:])
    assert storage.sent <= 2 * file["bytes"]


@pytest.mark.parametrize(("form", "gzip"), FORMS)
def test_a_killed_export_continues_after_the_last_committed_record(
    running: RunningWeb, storage: Storage, monkeypatch: pytest.MonkeyPatch, form: str, gzip: bool
) -> None:
    file = storage.make(format=form, gzip=gzip)
    send(running, file, form)
    write, written = exports.coalesce_messages, []

    def write_and_die(*args: Any, **named: Any) -> None:
        write(*args, **named)
        written.append(1)
        if len(written) in (1, 3, 5):
            raise Killed  # behind the writes, before the commit

    monkeypatch.setattr(exports, "coalesce_messages", write_and_die)
    for _ in range(3):
        with pytest.raises(Killed):
            running.run_jobs()
        due_again(running)
    before = len(changes(running))
    finish(running)

    assert before == 200
    everything_once(running)
    assert (len(storage.asked), storage.sent) == (1, file["bytes"])  # downloaded once


def test_killed_before_the_job_has_ended_the_file_is_not_fetched_again(
    running: RunningWeb, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(running, storage.make())

    def die(*_args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runtime.jobs, "end", die)
        with pytest.raises(Killed):
            running.run_jobs()
    finish(running)

    everything_once(running)
    assert len(storage.asked) == 1
    assert [row.progress for row in running.rows("SELECT progress FROM jobs")] == [USERS]


@pytest.mark.parametrize(("form", "gzip"), FORMS)
def test_a_file_that_takes_longer_than_a_slice_ends(
    running: RunningWeb, storage: Storage, monkeypatch: pytest.MonkeyPatch, form: str, gzip: bool
) -> None:
    """Each look at the clock is ten seconds later: a slice reads some pieces of the file, or writes some records."""
    file = storage.make(format=form, gzip=gzip)
    clock = Clock(10.0)
    monkeypatch.setattr(exports, "time", clock)
    monkeypatch.setattr(exports, "time", clock)
    monkeypatch.setattr(runtime, "time", clock)
    monkeypatch.setattr(exports, "CHUNK", 20)
    send(running, file, form)

    tasks = finish(running)

    assert tasks > 4
    everything_once(running)
    assert storage.sent <= 2 * file["bytes"]


class Clock:
    """The time of one module: each look at it is later than the one before. The rest of the process keeps the real one."""

    def __init__(self, step_s: float) -> None:
        self.now, self.step_s = time.monotonic(), step_s

    def monotonic(self) -> float:
        self.now += self.step_s
        return self.now

    time = staticmethod(time.time)


@pytest.mark.parametrize("drop", [(), ("etag",), ("content-range",)])
def test_a_file_that_changed_is_read_from_its_beginning(
    running: RunningWeb, storage: Storage, drop: tuple[str, ...]
) -> None:
    """Also if the server ignores the condition, or omits the header that identifies the file."""
    file = storage.make(format="csv")
    send(running, file)
    storage.breaks_after, storage.trouble = 9_000, ConnectionResetError
    running.run_jobs()
    storage.make(format="json", number=file["number"])
    storage.breaks_after, storage.ignores_condition, storage.drop = math.inf, bool(drop), drop
    finish(running)

    everything_once(running)


@pytest.mark.parametrize("gzip", [False, True])
def test_a_server_without_ranges_sends_the_whole_again(running: RunningWeb, storage: Storage, gzip: bool) -> None:
    file = storage.make(ranges=False, gzip=gzip)
    send(running, file)
    storage.breaks_after, storage.trouble = 9_000, ConnectionResetError
    assert running.run_jobs() == ["remote_unavailable"]
    storage.breaks_after = math.inf

    finish(running)

    everything_once(running)
    assert storage.sent == 9_000 + file["bytes"]


def test_a_file_that_is_too_slow_for_a_server_without_ranges_is_a_failure_by_name(
    running: RunningWeb, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(running, storage.make(ranges=False))
    monkeypatch.setattr(exports, "time", Clock(10.0))

    finish(running, most=20)

    assert states(running) == ["failed"]
    assert [row.reason for row in running.rows("SELECT reason FROM failures")] == ["export_too_slow"]
    assert changes(running) == {}


def test_a_storage_that_does_not_answer_is_waited_for(running: RunningWeb, storage: Storage) -> None:
    """As for any remote system, a wait is no attempt: what is down for an hour needs no person."""
    send(running, storage.make())
    storage.app.test_client().post("/__sandbox__/faults", json=[{"path": "^/exports/", "kind": "status", "count": 12}])
    for _ in range(12):
        due_again(running)
        assert running.run_jobs() == ["remote_unavailable"]
    waits = running.rows("SELECT waits_for FROM jobs")
    known = running.rows("SELECT remote FROM outages")

    finish(running)

    assert ([row.waits_for for row in waits], [row.remote for row in known]) == (["files"], ["files"])
    assert running.rows("SELECT 1 FROM outages") == []
    everything_once(running)


def test_a_compressed_file_is_read_in_small_pieces() -> None:
    text = b"0" * (20 * PIECE_BYTES)
    packed = (
        gzip_format.compress(text[: 10 * PIECE_BYTES]) + gzip_format.compress(text[10 * PIECE_BYTES :]) + b"\0" * 512
    )

    pieces = list(unpack([packed[:1], packed[1:900], packed[900:]], max_bytes=len(text)))

    assert b"".join(pieces) == text
    assert max(map(len, pieces)) <= PIECE_BYTES
