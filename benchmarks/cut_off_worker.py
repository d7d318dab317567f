"""Cuts a worker off from PostgreSQL, not from Pipedrive, in the middle of its creates; another worker takes its work over.

python -m benchmarks.cut_off_worker --runs 5 [--creates 400] [--lease 3] [--limit 24] [--json]

The other worker is ready before the cut, so that it takes the batch over as soon as the lease has ended, and the pace is so low
that a worker that only looks at its lease after each handful still sends then. Counts the Persons of Pipedrive's own export: each
of the new Users stands there exactly once. Exit 1 otherwise, or where nothing was taken over in mid creates.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import requests
from sqlalchemy import text

from benchmarks.full_fetch import fetch
from benchmarks.outgoing import prepare
from benchmarks.stage import FULL_HULL, Stage, stage, start_celery, start_worker
from benchmarks.tcp_proxy import TcpProxy

PATIENCE_S = 300.0
POLL_S = 0.2
SWEEP_S = "0.5"
"""The batch of the worker that was cut off is found as soon as its lease has ended."""
OTHER = "other"
HANDFUL = 64
"""So many writes a worker once sent between two looks at its lease; the cut comes when such a handful has just begun."""
BEGUN = 4
WORKER = ("worker", "-Q", "live,bulk,control", "-c", "1", "--without-gossip", "--without-mingle")
BUSY = 20
"""So many creates prove that the worker to be cut off has the batch; only then may the other one start."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--creates", type=int, default=400)
    parser.add_argument("--lease", type=float, default=3.0, help="seconds; the longer, the longer each run")
    parser.add_argument(
        "--limit", type=int, default=24, help="calls in two seconds that Pipedrive allows; two workers need 16 and more"
    )
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with stage(
        persons=200,
        organizations=0,
        hull=FULL_HULL,
        worker_processes=1,
        burst_limit=chosen.limit,
        environment={"LEASE_S": str(chosen.lease), "SWEEP_S": SWEEP_S},
    ) as running:
        fetch(running, "first", changed_only=False)
        prepare(running)
        os.killpg(running.roots["workers"], signal.SIGKILL)  # the drill brings its own
        beat = start_celery("beat")
        try:
            results = [_run(running, number, chosen.creates) for number in range(1, chosen.runs + 1)]
        finally:
            os.killpg(beat.pid, signal.SIGKILL)
    holds = all(not each["doubled"] and not each["missing"] and each["taken_over_after_s"] for each in results)
    if chosen.json:
        print(json.dumps({"runs": results, "holds": holds}))
    else:
        for each in results:
            print("  ".join(f"{name} {value}" for name, value in each.items()))
        print("each stands there once" if holds else "NOT EACH STANDS THERE ONCE")
    return 0 if holds else 1


def _run(running: Stage, number: int, creates: int) -> dict[str, Any]:
    mark = f"run{number}x{time.time_ns()}"
    other: subprocess.Popen[bytes] | None = None
    with TcpProxy(_server()) as proxy:
        cut_off = _start(f"postgresql+psycopg2://{_url().username}@127.0.0.1:{proxy.port}/{_url().database}")
        try:
            _deliver(running, mark, creates)
            _until(lambda: _made(running, mark).total() >= BUSY, "no creates")
            other = start_celery(*WORKER, "-n", f"{OTHER}{number}@%h")
            _until(lambda: _is_ready(f"{OTHER}{number}@"), "no other worker")
            _until(lambda: _made(running, mark).total() % HANDFUL in range(BEGUN, BEGUN + 8), "no handful began")
            owner = _owner()
            if owner is None:
                raise TimeoutError("the batch was given back before the cut")
            proxy.silence()
            at_cut, cut_at = _made(running, mark).total(), time.monotonic()
            _until(lambda: _owner() not in (owner, None), "nobody took the batch over")
            taken_over_s, at_take_over = time.monotonic() - cut_at, _made(running, mark).total()
            _until(lambda: not _left(), "not done")
            took_s = time.monotonic() - cut_at
            time.sleep(1.0)
            made = _made(running, mark)
        finally:
            os.killpg(cut_off.pid, signal.SIGKILL)
            if other is not None:
                os.killpg(other.pid, signal.SIGKILL)
    return {
        "run": number,
        "made_at_cut": at_cut,
        "made_at_take_over": at_take_over,
        "taken_over_after_s": round(taken_over_s, 1) if at_take_over < creates else None,
        "made": len(made),
        "doubled": made.total() - len(made),
        "missing": creates - len(made),
        "done_after_s": round(took_s, 1),
    }


def _is_ready(name: str) -> bool:
    from pipeline.tasks.app import app

    return any(node.startswith(name) for answer in app.control.ping(timeout=1.0) or () for node in answer)


_OWNER = text("""
    SELECT lease_token FROM batches
     WHERE direction = 'outgoing' AND stage = 'load' AND state = 'running' ORDER BY id LIMIT 1""")


def _owner() -> Any:
    """The token under which the creates are made now."""
    from db.session import transaction

    with transaction() as session:
        return session.execute(_OWNER).scalar_one_or_none()


def _start(url: str) -> subprocess.Popen[bytes]:
    """A worker that reaches PostgreSQL by that URL, and everything else as this process does."""
    from pipeline.settings import settings

    found = settings()
    chosen = {
        "DATABASE_URL": url,
        "REDIS_URL": found.redis_url or "",
        "BROKER_URL": found.broker_url or "",
        "SECRET_KEYS": ",".join(found.secret_keys),
    }
    os.environ |= chosen
    try:
        return start_worker(1)
    finally:
        for name in chosen:
            del os.environ[name]


def _url() -> Any:
    from db.session import engine

    return engine().url


def _server() -> str | tuple[str, int]:
    host, port = str(_url().query.get("host") or _url().host), _url().port or 5432
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def _deliver(running: Stage, mark: str, creates: int) -> None:
    """One notification, so that one batch makes them all."""
    from db import delivery as deliveries
    from db.session import transaction
    from pipeline.tasks import canvases

    messages = [
        {
            "user": {"id": user["id"], "email": user["email"], "name": "New"},
            "account": {},
            "segments": [],
            "changes": {"user": {"name": [None, "New"]}},
        }
        for user in _users(running, mark, creates)
    ]
    with transaction() as session:
        body = orjson.dumps({"notification_id": mark, "channel": "user:update", "messages": messages})
        deliveries.keep_delivery(session, running.connector_key, "hull", mark, body)
    canvases.wake_control("dispatch")


def _users(running: Stage, mark: str, creates: int) -> list[dict[str, Any]]:
    """Users that Hull knows: it tells, too, whose a Person is that the cut-off worker made."""
    from db.session import transaction
    from pipeline.wiring import open_connector

    emails = [f"{mark}-{number}@fresh.example" for number in range(creates)]
    with transaction() as session:
        hull = open_connector(session, running.connector_key).hull
    hull.post_batches([hull.writer().user_traits({"email": email}, {"name": "New"}) for email in emails], size=500)
    answer = requests.get(f"{running.hull_url}/__sandbox__/export?entity=user", timeout=60)
    users = [orjson.loads(line) for line in answer.iter_lines() if line]
    return [user for user in users if str(user.get("email", "")).startswith(mark)]


def _made(running: Stage, mark: str) -> Counter[str]:
    """E-mail → Persons that carry it, of this run."""
    found: Counter[str] = Counter()
    for person in _persons(running):
        for each in person.get("emails") or []:
            if str(each.get("value", "")).startswith(mark):
                found[each["value"]] += 1
    return found


def _persons(running: Stage) -> Iterator[dict[str, Any]]:
    url = f"{running.pipedrive_url}/__sandbox__/export?entity=person"
    with requests.get(url, stream=True, timeout=60) as answer:
        for line in answer.iter_lines():
            if line:
                yield orjson.loads(line)


_LEFT = text("""
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new') + (SELECT count(*) FROM changes)
         + (SELECT count(*) FROM batches WHERE state IN ('ready', 'running'))""")


def _left() -> int:
    from db.session import transaction

    with transaction() as session:
        return int(session.execute(_LEFT).scalar_one())


def _until(is_so: Callable[[], bool], otherwise: str) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > ends_at:
            raise TimeoutError(f"{otherwise} within {PATIENCE_S:g} s")
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
