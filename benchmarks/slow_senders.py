"""Strangers try to block the intake and the web process; measure the effect on other clients.

    python -m benchmarks.slow_senders [--seconds 10] [--per-second 50] [--json]

PostgreSQL, the broker, `pipeline.web.intake` and `pipeline.web.app` run as in `pipeline up`. Each scene lasts some seconds, with
webhooks at a steady rate at the same time:

    unfinished 8, 100   bodies that are announced and never sent, to both processes
    logins              40 wrong passwords at the same moment, each of another name
    downloads           four log exports that are read at 20 kB a second
    notifications       20 MB of JSON, four at a time, without Hull's signature

Measured in every scene: the duration of webhooks, the number of stored ones, the slowest /healthz of both processes, and the
memory growth of the larger process. Exit 1 if a webhook is lost or takes a second, if /healthz takes 0.1 s, or if memory grows by
96 MB (hashing one password takes 64 MiB).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from sqlalchemy import text

from benchmarks import drill, load, processes

WARM_UP_S = 3.0
CONNECTOR_ID = "5f00000000000000000000ac"
SECRETS = {"webhook_path": "path", "webhook_user": "user", "webhook_password": "password", "hull_secret": "hull"}
PASSWORD = "a password of the drill"
WEBHOOK_S, HEALTH_S, GROWTH_MB = 1.0, 0.1, 96.0
"""Limits of a webhook's duration, of /healthz and of the memory growth."""
UNFINISHED = ("/login", "/auth", "/status", "/batch", "/smart-notifier")
INTAKE = ("/batch", "/smart-notifier")
LOGINS = 40
EVENTS = 60_000
EXPORTS, SLOW_BYTES_S = 4, 20_000
LARGE_BYTES = 20 * 1024 * 1024
START_S = 60.0


@dataclass(slots=True)
class Place:
    """The addresses and the processes."""

    web_url: str
    intake_url: str
    roots: list[int]
    connector_key: int = 0


@dataclass(slots=True)
class Health:
    """Requests /healthz of both processes repeatedly."""

    slowest_s: float = 0.0

    def watch(self, url: str, ended: threading.Event) -> None:
        while not ended.is_set():
            started = time.monotonic()
            with suppress(requests.RequestException):
                requests.get(f"{url}/healthz", timeout=10)
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            ended.wait(0.05)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--per-second", type=float, default=50.0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slow-senders-") as folder, place(Path(folder)) as here:
        found = measure(here, seconds=chosen.seconds, per_second=chosen.per_second)
    is_good = all(is_good_enough(each) for each in found)
    if chosen.json:
        print(json.dumps({"scenes": found, "ok": is_good}, indent=2))
    else:
        for each in found:
            drill.show(each, each["scene"])
        print("strangers cannot block it" if is_good else "STRANGERS CAN BLOCK IT")
    return 0 if is_good else 1


def is_good_enough(scene: dict[str, Any]) -> bool:
    """Return whether a scene stayed within the limits."""
    return bool(
        scene["not_stored"] == 0
        and scene["webhook_max_ms"] < 1000 * WEBHOOK_S
        and scene["healthz_max_ms"] < 1000 * HEALTH_S
        and scene["memory_growth_mb"] < GROWTH_MB
    )


def measure(here: Place, *, seconds: float, per_second: float) -> list[dict[str, Any]]:
    """Run every scene, and return the figures."""
    token = _session_of_viewer()
    path = _exported(here)
    scenes: dict[str, Callable[[], dict[str, Any]]] = {
        "quiet": partial(_nothing, seconds),
        "unfinished 8": partial(_unfinished, here, 8, seconds),
        "unfinished 100": partial(_unfinished, here, 100, seconds),
        "logins": partial(_logins, here),
        "downloads": partial(_downloads, here, seconds, path, token),
        "notifications": partial(_notifications, here),
    }
    scene(
        here, "warm-up", partial(_nothing, WARM_UP_S), seconds=WARM_UP_S, per_second=per_second
    )  # first requests import
    return [scene(here, name, strangers, seconds=seconds, per_second=per_second) for name, strangers in scenes.items()]


def scene(
    here: Place, name: str, strangers: Callable[[], dict[str, Any]], *, seconds: float, per_second: float
) -> dict[str, Any]:
    """Return what other clients measure while strangers act in another process."""
    health, ended = Health(), threading.Event()
    watching = [
        threading.Thread(target=health.watch, args=(url, ended), daemon=True) for url in {here.web_url, here.intake_url}
    ]
    before_mb = max(_resident_mb(root) for root in here.roots)
    peak = _Peak(here.roots)
    apart = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    apart.submit(time.monotonic).result()  # it takes a second to start
    attack = apart.submit(strangers)
    time.sleep(0.5)  # the strangers begin first
    for thread in watching:
        thread.start()
    bodies = [_webhook(name, number) for number in range(int(seconds * per_second))]
    basic = b64encode(f"{SECRETS['webhook_user']}:{SECRETS['webhook_password']}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/json"}
    url = f"{here.intake_url}/webhooks/pipedrive/{CONNECTOR_ID}/{SECRETS['webhook_path']}"
    sent = load.post_all(url, bodies, headers, per_second=per_second, connections=16)
    done = attack.result(120)
    apart.shutdown()
    ended.set()
    for thread in watching:
        thread.join(15)
    return {
        "scene": name,
        "webhooks": len(bodies),
        "statuses": dict(sent.statuses),
        "not_stored": len(bodies) - _stored(name),
        "webhook_p99_ms": sent.quantile_ms(0.99),
        "webhook_max_ms": sent.quantile_ms(1.0),
        "healthz_max_ms": round(1000 * health.slowest_s, 1),
        "memory_growth_mb": round(peak.end() - before_mb, 1),
        **done,
    }


def _nothing(seconds: float) -> dict[str, Any]:
    time.sleep(seconds)
    return {}


def _unfinished(here: Place, count: int, seconds: float) -> dict[str, Any]:
    """Send ten bytes of each body; open a closed connection again."""
    deadline, sockets = time.monotonic() + seconds, dict[int, socket.socket]()
    opened = 0
    while time.monotonic() < deadline:
        for number in range(count):
            path = UNFINISHED[number % len(UNFINISHED)]
            if number in sockets and not _is_closed(sockets[number]):
                continue
            with suppress(OSError):
                sockets[number] = _begin(here.intake_url if path in INTAKE else here.web_url, path)
                opened += 1
        time.sleep(0.1)
    for each in sockets.values():
        each.close()
    return {"connections": opened}


def _begin(url: str, path: str) -> socket.socket:
    parts = urlsplit(url)
    opened = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=5)
    form = "Content-Type: application/x-www-form-urlencoded"
    opened.sendall(
        f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{form}\r\nContent-Length: 1000\r\n\r\nname=admin".encode()
    )
    return opened


def _is_closed(opened: socket.socket) -> bool:
    opened.settimeout(0)
    try:
        return opened.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _logins(here: Place) -> dict[str, Any]:
    """Send all logins at the same moment."""
    statuses, start = Counter[int](), threading.Barrier(LOGINS)

    def log_in(number: int) -> None:
        start.wait(30)
        with suppress(requests.RequestException):
            form = {"name": f"unknown-{number}", "password": "wrong wrong wrong"}
            answer = requests.post(f"{here.web_url}/login", data=form, timeout=60)
            statuses[answer.status_code] += 1

    _in_parallel(partial(log_in, number) for number in range(LOGINS))
    return {"login_statuses": {str(status): count for status, count in statuses.items()}}


def _downloads(here: Place, seconds: float, path: str, token: str) -> dict[str, Any]:
    """Download the same log four times over a slow connection."""
    deadline = time.monotonic() + seconds
    read = [0] * EXPORTS

    def download(number: int) -> None:
        parts = urlsplit(here.web_url)
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as opened:
            opened.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nCookie: session={token}\r\n\r\n".encode())
            while time.monotonic() < deadline:
                with suppress(TimeoutError):
                    read[number] += len(opened.recv(SLOW_BYTES_S // 10))
                time.sleep(0.1)

    _in_parallel(partial(download, number) for number in range(EXPORTS))
    return {"read_kb": [each // 1024 for each in read]}


def _notifications(here: Place) -> dict[str, Any]:
    """Send large bodies with a notification's headers and an invalid signature."""
    headers = {
        "X-Hull-Smart-Notifier": "true",
        "X-Hull-Smart-Notifier-Signature": "a.b.c",
        "X-Hull-Smart-Notifier-Signature-Version": "v1",
        "X-Hull-Smart-Notifier-Signature-Public-Key-Url": "https://stranger.example/key",
        "Content-Type": "application/json",
    }
    pairs = b'{"a":{},"b":[1]},'
    body = b'{"notification_id":"n","messages":[' + pairs * (LARGE_BYTES // len(pairs) - 10) + b"0]}"
    statuses = Counter[str]()

    def send() -> None:
        for _ in range(3):
            try:
                answer = requests.post(f"{here.intake_url}/smart-notifier", data=body, headers=headers, timeout=60)
                statuses[str(answer.status_code)] += 1
            except requests.RequestException:
                statuses["hung up"] += 1  # before the body was sent

    _in_parallel([send] * 4)
    return {"notification_statuses": dict(statuses)}


def _in_parallel(works: Iterable[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _webhook(name: str, number: int) -> bytes:
    event = f"{name}-{number}"
    meta = {
        "action": "change", "entity": "person", "entity_id": str(number + 1), "id": event, "version": "2.0",
        "company_id": "1", "timestamp": "2026-01-01T00:00:00.000Z", "user_id": "1", "attempt": 1,
    }  # fmt: skip
    return json.dumps({"meta": meta, "data": {"id": number + 1, "name": "x" * 1500}, "previous": {}}).encode()


def _stored(name: str) -> int:
    return int(drill.scalar("SELECT count(*) FROM deliveries WHERE key LIKE :key", key=f"{name}-%"))


def _session_of_viewer() -> str:
    from db.operator import find_operator
    from db.session import transaction
    from pipeline.accounts import operators
    from pipeline.domain.kinds import Role
    from tests import accounts

    with transaction() as session:
        known = find_operator(session, "viewer")
    viewer = known or accounts.add("viewer", PASSWORD, Role.VIEWER)
    with transaction() as session:
        return operators.open_session(session, viewer)


def _exported(here: Place) -> str:
    """Write the log export, and return the path of its file."""
    from db.connector import Connector
    from db.event_log import EventFilter
    from db.log_export import find_export
    from db.session import transaction
    from pipeline.jobs import log_exports
    from pipeline.jobs.log_exports import CSV
    from pipeline.jobs.runtime import run_job

    with transaction() as session:
        connector = session.get_one(Connector, here.connector_key)
        export = log_exports.enqueue(session, connector, CSV, EventFilter(), None, by="drill")
        job_id = session.execute(text("SELECT id FROM jobs WHERE kind = 'log_export'")).scalar_one()
    while True:
        run_job(job_id, None)
        with transaction() as session:
            found = find_export(session, here.connector_key, export.id)
        if found is not None and found.is_ready:
            return f"/c/acme/exports/{export.id}/file"


class _Peak:
    """The largest resident memory of the processes, read ten times a second."""

    def __init__(self, roots: list[int]) -> None:
        self._roots, self._most, self._ended = roots, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> float:
        self._ended.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            self._most = max(self._most, *(_resident_mb(root) for root in self._roots))


def _resident_mb(root: int) -> float:
    """Return the memory of the largest process of a tree."""
    return max(processes.resident_mb(pid) for pid in processes.tree(root))


@contextmanager
def place(folder: Path) -> Iterator[Place]:
    """Run PostgreSQL, the broker, the intake and the web process, with a connector and its log."""
    from pipeline.local import programs
    from pipeline.settings import Settings, use

    with ExitStack() as stack:
        found = stack.enter_context(drill.own_servers(folder, LOG_LEVEL="error", HULL_KEY_HOSTS="keys.example"))
        urls = {"DATABASE_URL": found.database_url, "REDIS_URL": found.redis_url, "BROKER_URL": found.broker_url}
        os.environ |= {name: url or "" for name, url in urls.items()}
        use(Settings.from_env(os.environ))
        from db.migrate import migrate
        from db.session import engine
        from pipeline.environment import begin

        begin()

        migrate(engine())
        ports = {module: programs.free_port() for module in ("app", "intake")}
        started = [drill.start(programs.served(module, "127.0.0.1", port)) for module, port in ports.items()]
        for process in started:
            stack.callback(drill.kill, process)
        here = Place(
            f"http://127.0.0.1:{ports['app']}", f"http://127.0.0.1:{ports['intake']}", [each.pid for each in started]
        )
        here.connector_key = _add_connector()
        for url in (here.web_url, here.intake_url):
            drill.wait_for_url(f"{url}/healthz", START_S)
        yield here


def _add_connector() -> int:
    """Add a connector with its secrets and a log of EVENTS; return its key."""
    from db.connector import Connector, add_settings, keep_credential
    from db.session import transaction
    from db.sync_event import make_partitions
    from pipeline.settings import settings
    from pipeline.vault import Vault

    with transaction() as session:
        make_partitions(session, datetime.now(UTC).date(), 2)
        connector = Connector(id=CONNECTOR_ID, name="acme", hull_organization="acme.hullapp.test")
        session.add(connector)
        session.flush()
        vault = Vault(settings().secret_keys)
        for name, secret in SECRETS.items():
            keep_credential(session, connector.key, name, vault.seal(connector.key, name, secret))
        add_settings(session, connector.key, {}, author="drill")
        session.execute(
            text("""INSERT INTO sync_events (connector_key, event, entity, pipedrive_id, detail, cause)
                    SELECT :key, 'incoming.user.success', 'person', n, repeat('x', 200), 'fetch'
                      FROM generate_series(1, :events) AS n"""),
            {"key": connector.key, "events": EVENTS},
        )
        return connector.key


if __name__ == "__main__":
    sys.exit(main())
