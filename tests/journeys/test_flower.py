"""Flower shows each failing stage of a batch as FAILURE, with its reason code only."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from kombu import Connection

from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.settings import settings
from pipeline.vault import Vault
from sandbox.serve import free_port

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
SECRET = "canary-api-token"


class Refusing(BaseHTTPRequestHandler):
    """A Pipedrive that answers every request with 400."""

    def do_GET(self) -> None:
        body = b'{"success":false,"error":"canary-words-of-the-remote"}'
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Log nothing."""


@pytest.fixture
def refusing_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def flower(database: str, refusing_url: str, tmp_path: Path) -> Iterator[str]:
    """Run a worker and Flower with its login in a file, as in a container; yield Flower's address."""
    port, login = free_port(), tmp_path / "login"
    login.write_text("ana:secret\n")
    chosen = settings()
    environment = os.environ | {
        "DATABASE_URL": database,
        "REDIS_URL": chosen.redis_url or "",
        "BROKER_URL": chosen.broker_url or "",
        "SECRET_KEYS": ",".join(chosen.secret_keys),
        "PIPEDRIVE_API_URL": refusing_url,
        "FLOWER_UNAUTHENTICATED_API": "",
    }
    without = {
        name: value for name, value in environment.items() if name not in {"DATABASE_URL", "REDIS_URL", "SECRET_KEYS"}
    }
    watching = _celery(without | {"FLOWER_BASIC_AUTH_FILE": str(login)}, "flower", f"--port={port}")
    worker = _celery(environment, "worker", "-Q", "live,bulk,control", "-c", "1", "--without-mingle")
    try:
        url = f"http://127.0.0.1:{port}"
        _until(lambda: requests.get(f"{url}/api/workers?refresh=1", auth=("ana", "secret"), timeout=10).json())
        _until(lambda: _receives_events(url))
        yield url
    finally:
        for process in (worker, watching):
            _end(process)


def _receives_events(url: str) -> bool:
    """Return whether Flower has received a heartbeat of a worker: earlier events are lost."""
    found = requests.get(f"{url}/workers?json=1", auth=("ana", "secret"), timeout=10).json()["data"]
    return any(worker.get("status") for worker in found)


def test_shows_the_failing_stage_with_its_reason_and_nothing_of_the_record(flower: str) -> None:
    connector_key = _add_connector()

    shown = _until(lambda: _failed_pages_of_a_run(flower, connector_key))

    assert all("bad_request: batch" in task["exception"] for task in shown)
    everything = requests.get(f"{flower}/api/tasks", auth=("ana", "secret"), timeout=10).text
    assert "canary" not in everything


def _failed_pages_of_a_run(flower: str, connector_key: int) -> list[dict[str, Any]]:
    """Start a run, and wait ten seconds for its failed page: a broker keeps no event for a Flower that is reconnecting."""
    from pipeline.sync.runs import runs  # noqa: PLC0415 - Celery reads its settings when it is imported

    with suppress(runs.RunInProgress):
        runs.start_run(connector_key, Entity.PERSON, cause="test")
    try:
        return cast("list[dict[str, Any]]", _until(lambda: _failed_pages(flower), 10.0))
    except TimeoutError:
        return []


def _failed_pages(flower: str) -> list[dict[str, Any]]:
    """Other tasks may have failed before: no Pipedrive answers here."""
    found = requests.get(f"{flower}/api/tasks?state=FAILURE", auth=("ana", "secret"), timeout=10).json()
    return [task for task in found.values() if task["name"] == "incoming.extract"]


def test_needs_the_password(flower: str) -> None:
    assert requests.get(f"{flower}/api/tasks", timeout=10).status_code == 401
    assert requests.get(flower, timeout=10).status_code == 401


@pytest.mark.parametrize("path", ["/metrics", "/api/workers", "/api/task/types", "/workers", "/tasks", "/broker"])
def test_nothing_is_returned_without_the_password(flower: str, path: str) -> None:
    assert requests.get(f"{flower}{path}", timeout=10).status_code == 401
    assert requests.get(f"{flower}{path}", auth=("ana", "wrong"), timeout=10).status_code == 401
    assert requests.get(f"{flower}{path}", auth=("ana", "secret"), timeout=10).status_code == 200


def test_listens_on_its_own_machine_by_default(flower: str) -> None:
    port = int(flower.rpartition(":")[2])
    listening = {
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if line.split()[3] == "0A"
    }

    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


@pytest.mark.usefixtures("flower")
def test_a_ping_needs_the_broker_alone(tmp_path: Path) -> None:
    """The health check of beat's container has nothing else."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "celery", "-A", "pipeline", "inspect", "ping"],
        cwd=tmp_path,
        env={"PATH": os.defpath, "BROKER_URL": settings().broker_url or ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "pong" in done.stdout


def test_beat_ticks_with_the_broker_alone(database: str) -> None:
    """Neither the database nor a key is opened to it."""
    broker = settings().broker_url or ""
    kept_back = ("DATABASE_URL", "REDIS_URL", "SECRET_KEYS")
    environment = {name: value for name, value in os.environ.items() if name not in kept_back} | {"BROKER_URL": broker}
    beat = _celery(environment, "beat")
    try:
        with Connection(broker, transport_options={"global_keyprefix": "p2h:"}) as connection:
            queue = connection.SimpleQueue("control")
            message = queue.get(timeout=PATIENCE_S)
            message.ack()
            queue.clear()
            queue.close()
    finally:
        _end(beat)

    assert message.headers["task"].startswith("control.")


def _celery(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """Start it; what it prints is shown with a test that fails."""
    command = [sys.executable, "-m", "celery", "-A", "pipeline", *arguments]
    return subprocess.Popen(command, env=environment)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it as a deploy does. One that does not end is killed, so that it does not tick beside other tests."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def _until(ask: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Ask until there is an answer. Raises: TimeoutError."""
    deadline = time.monotonic() + patience_s
    pause = threading.Event()
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except requests.RequestException:
            pass
        pause.wait(0.2)
    raise TimeoutError("no answer")


def _add_connector() -> int:
    vault = Vault(settings().secret_keys)
    with transaction() as session:
        connector = connectors.Connector(id="a" * 24, name="refused", hull_organization="hull.test")
        session.add(connector)
        session.flush()
        for name in ("hull_secret", "pipedrive_api_token"):
            connectors.keep_credential(session, connector.key, name, vault.seal(connector.key, name, SECRET))
        connectors.add_settings(session, connector.key, {}, author="test")
        return connector.key
