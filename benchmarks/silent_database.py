"""The database host dies silently while a worker and a web process run, and another host takes its address.

    python -m benchmarks.silent_database [--rounds 3] [--patience-s 60] [--json]

A proxy before PostgreSQL becomes silent: open connections stay open, and their packets are acknowledged, so that neither
keepalives nor TCP time-outs detect it. Three seconds later new connections are served; the old ones stay silent. Measured from
the start of the silence: the time until a worker sweeps again, the time until the web process answers from the database again,
and the slowest answers of `/healthz` and `/readyz`. Exit 1 if anything takes too long.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import Engine, create_engine, make_url, text

from benchmarks import drill
from benchmarks.tcp_proxy import TcpProxy

RECOVERY_S, HEALTH_S, READY_S = 30.0, 3.0, 5.0
"""Maximum times of a recovery, an answer of /healthz and an answer of /readyz."""
SILENT_S = 3.0
START_S = 90.0
GIVE_UP_S = 5.0
"""Time-out of the web process's clients, as of load balancers."""
USERS = 6
"""Parallel clients that request a page with database queries."""


@dataclass(slots=True)
class Place:
    """The running parts. `database` connects to PostgreSQL without the proxy."""

    proxy: TcpProxy
    database: Engine
    web_url: str


@dataclass(slots=True)
class Watch:
    """Requests one address repeatedly. slowest_s  the slowest answer since `restart`, time-outs included"""

    url: str
    every_s: float
    slowest_s: float = 0.0
    answered_at: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with requests.Session() as session:
            while not self._ended.wait(self.every_s):
                started = time.monotonic()
                with suppress(requests.RequestException):
                    if session.get(self.url, timeout=GIVE_UP_S).status_code == requests.codes.ok:
                        self.answered_at = started
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)

    def restart(self) -> None:
        self.slowest_s = 0.0

    def end(self) -> None:
        self._ended.set()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience-s", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="silent-database-") as folder, _place(Path(folder)) as place:
        rounds = [_round(place, chosen.patience_s) for _ in range(chosen.rounds)]
    is_good = all(_is_good(each) for each in rounds)
    if chosen.json:
        print(json.dumps({"rounds": rounds, "ok": is_good}, indent=2))
    else:
        for number, each in enumerate(rounds, 1):
            print(f"round {number}: " + ", ".join(f"{name} {_seconds(value)}" for name, value in each.items()))
        print("recovers in time" if is_good else "DOES NOT RECOVER IN TIME")
    return 0 if is_good else 1


def _is_good(found: dict[str, float | None]) -> bool:
    bounds = {"worker_s": RECOVERY_S, "web_s": RECOVERY_S, "healthz_s": HEALTH_S, "readyz_s": READY_S}
    return all((value := found[name]) is not None and value <= most for name, most in bounds.items())


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


def _round(place: Place, patience_s: float) -> dict[str, float | None]:
    """Return the seconds of one silence; None if there was no recovery within the patience."""
    health, ready = Watch(f"{place.web_url}/healthz", 0.1), Watch(f"{place.web_url}/readyz", 0.5)
    users = [Watch(f"{place.web_url}/metrics", 0.05) for _ in range(USERS)]
    threads = [threading.Thread(target=each.run, daemon=True) for each in (health, ready, *users)]
    for thread in threads:
        thread.start()
    ticking = threading.Event()
    threading.Thread(target=_tick, args=(ticking,), daemon=True).start()
    drill.wait_until(lambda: _swept(place) and all(user.answered_at for user in users), START_S, "not started")
    for each in (health, ready):
        each.restart()
    place.proxy.silence()
    silent_at, swept = time.monotonic(), _swept(place)
    time.sleep(SILENT_S)
    place.proxy.replace()
    replaced_at = time.monotonic()
    back: dict[str, float | None] = {"worker_s": None, "web_s": None}
    while None in back.values() and time.monotonic() - silent_at < patience_s:
        time.sleep(0.1)
        if back["worker_s"] is None and _swept(place) != swept:
            back["worker_s"] = round(time.monotonic() - silent_at, 1)
        if back["web_s"] is None and min(user.answered_at for user in users) > replaced_at:
            back["web_s"] = round(time.monotonic() - silent_at, 1)
    ticking.set()
    for each in (health, ready, *users):
        each.end()
    for thread in threads:
        thread.join(2 * GIVE_UP_S)
    return back | {"healthz_s": round(health.slowest_s, 2), "readyz_s": round(ready.slowest_s, 2)}


def _tick(ended: threading.Event) -> None:
    """Send sweeps instead of beat."""
    from pipeline.tasks.app import app

    while not ended.wait(0.5):
        app.send_task("control.sweep", expires=10)


def _swept(place: Place) -> Any:
    """Return when a worker last swept, by the database's clock; it is stored every five seconds."""
    with place.database.connect() as connection:
        return connection.scalar(text("SELECT at FROM heartbeats WHERE name = 'sweep'"))


@contextmanager
def _place(folder: Path) -> Iterator[Place]:
    """Run PostgreSQL behind the proxy, Redis, one worker and one web process."""
    from pipeline.local.programs import free_port, served
    from pipeline.settings import Settings, use

    with ExitStack() as stack:
        found = stack.enter_context(drill.own_servers(folder))
        direct = make_url(found.database_url or "")
        proxy = stack.enter_context(TcpProxy(f"{direct.query['host']}/.s.PGSQL.5432"))
        url = direct.set(host="127.0.0.1", port=proxy.port).difference_update_query(["host"])
        os.environ |= {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "REDIS_URL": found.redis_url or "",
            "BROKER_URL": found.broker_url or "",
        }
        use(Settings.from_env(os.environ))
        from db.migrate import migrate

        database = create_engine(direct)
        migrate(database)
        stack.callback(database.dispose)
        port = free_port()
        for command in (_worker(), served("app", "127.0.0.1", port)):
            stack.callback(drill.kill, drill.start(command))
        yield Place(proxy, database, f"http://127.0.0.1:{port}")


def _worker() -> list[str]:
    queues = ["worker", "-Q", "live,bulk,control", "-c", "2", "--without-gossip", "--without-mingle", "-l", "warning"]
    return [sys.executable, "-m", "celery", "-q", "-A", "pipeline", *queues]


if __name__ == "__main__":
    sys.exit(main())
