"""The intake process itself: unfinished bodies of strangers beside webhooks, and large bodies of strangers.

`python -m benchmarks.slow_senders` is the same in a larger size.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from benchmarks import processes
from db.session import transaction
from pipeline.local import programs
from pipeline.settings import Settings
from pipeline.web.server import allow_connections
from tests.integration.web.conftest import ACME, ORGANIZATION, SECRETS, RunningWeb, add_connector, basic, webhook

PATH = f"/webhooks/pipedrive/{ACME}/{SECRETS['webhook_path']}"
START_S = 60.0


@pytest.fixture
def intake(environment: Settings) -> Iterator[tuple[int, int]]:
    """(port, process) of an intake."""
    port = programs.free_port()
    named = {**os.environ, **programs.environment(environment)}
    process = subprocess.Popen(
        programs.served("intake", "127.0.0.1", port),
        env={name: value for name, value in named.items() if value is not None},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + START_S
        while status(port, "GET", "/healthz") != 200:
            assert time.monotonic() < deadline
        yield port, process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def status(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> int:
    """The status of one request; 0 without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def begin(port: int, path: str, length: int = 1000) -> socket.socket:
    """Open a request without sending its body."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=20)
    form = "Content-Type: application/x-www-form-urlencoded"
    opened.sendall(f"POST {path} HTTP/1.1\r\nHost: here\r\n{form}\r\nContent-Length: {length}\r\n\r\nid=1".encode())
    return opened


def test_unfinished_bodies_of_unauthenticated_senders_delay_nothing(
    running: RunningWeb, intake: tuple[int, int], environment: Settings
) -> None:
    port, _ = intake
    unfinished = [begin(port, path) for path in ("/batch", "/smart-notifier", PATH) for _ in range(20)]

    began = time.monotonic()
    answers = [status(port, "POST", PATH, json.dumps(webhook(f"e-{n}")).encode(), **basic()) for n in range(50)]
    took_s = time.monotonic() - began

    assert answers == [200] * 50
    assert len(running.deliveries()) == 50
    assert took_s < 8, "none of them waited for the deadline of a body"
    assert status(port, "GET", "/healthz") == 200
    for each in unfinished:
        each.close()


def test_who_has_no_credentials_is_refused_before_the_body_is_there(
    running: RunningWeb, intake: tuple[int, int]
) -> None:
    port, _ = intake

    answers = []
    for path in (PATH, "/smart-notifier", f"/batch?ship={ACME}&organization={ORGANIZATION}&secret=wrong"):
        with begin(port, path, length=20_000_000) as opened:
            answers.append(opened.recv(12).split()[1])

    assert answers == [b"401", b"400", b"413"]


def test_more_idle_connections_than_the_server_takes_by_default_hold_nothing_up(
    running: RunningWeb, intake: tuple[int, int]
) -> None:
    port, _ = intake
    allow_connections()
    idle = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(1_100)]

    began = time.monotonic()
    assert status(port, "POST", PATH, json.dumps(webhook()).encode(), **basic()) == 200

    assert time.monotonic() - began < 10, "an idle connection is closed after 30 s"
    for each in idle:
        each.close()


def test_large_bodies_of_unauthenticated_senders_take_no_memory(running: RunningWeb, intake: tuple[int, int]) -> None:
    port, process = intake
    body = b'{"notification_id":"n","messages":[' + b'{"a":{},"b":[1]},' * 1_200_000 + b"0]}"
    before_mb = processes.peak_mb(process)

    for _ in range(3):
        with suppress(OSError):
            status(port, "POST", "/smart-notifier", body, X_Hull_Smart_Notifier="true")

    assert processes.peak_mb(process) - before_mb < 32


def test_a_webhook_is_taken_in_the_moment_its_connector_is_made(
    running: RunningWeb, intake: tuple[int, int], environment: Settings
) -> None:
    port, _ = intake
    assert status(port, "POST", PATH, json.dumps(webhook()).encode(), **basic()) == 200
    other = "5f00000000000000000000b1"
    path = f"/webhooks/pipedrive/{other}/{SECRETS['webhook_path']}"
    assert status(port, "POST", path, json.dumps(webhook()).encode(), **basic()) == 401

    with transaction() as session:
        add_connector(session, environment, other, "other", SECRETS)

    assert status(port, "POST", path, json.dumps(webhook()).encode(), **basic()) == 200
