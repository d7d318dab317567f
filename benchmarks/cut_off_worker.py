"""Disconnect a worker from PostgreSQL, but not from Pipedrive, while it creates Persons; another worker takes over its work.

python -m benchmarks.cut_off_worker --runs 5 [--creates 400] [--lease 3] [--limit 24] [--json]

The other worker is ready before the cut, so that it takes over the batch as soon as the lease has ended. The pace is so low that
a worker that checks its lease only after each group of writes would still send then. The check counts the Persons in Pipedrive's
export: each new User must be there exactly once. Exit 1 otherwise, or if nothing was taken over during the creates.
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
from collections.abc import Callable
from typing import Any

from benchmarks import drill
from benchmarks.full_fetch import fetch
from benchmarks.outgoing import prepare
from benchmarks.stage import FULL_HULL, Stage, stage, start_celery, start_worker
from benchmarks.tcp_proxy import TcpProxy

PATIENCE_S = 300.0
POLL_S = 0.2
SWEEP_S = "0.5"
"""So that the batch of the disconnected worker is found as soon as its lease has ended."""
OTHER = "other"
GROUP = 64
"""Number of writes that a worker once sent between two checks of its lease; the cut is at the start of such a group."""
BEGUN = 4
WORKER = ("worker", "-Q", "live,bulk,control", "-c", "1", "--without-gossip", "--without-mingle")
BUSY = 20
"""After so many creates the first worker surely has the batch, and the other one may start."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--creates", type=int, default=400)
    parser.add_argument("--lease", type=float, default=3.0, help="seconds of a lease")
    parser.add_argument(
        "--limit", type=int, default=24, help="calls in two seconds that Pipedrive allows; two workers need at least 16"
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
        os.killpg(running.roots["workers"], signal.SIGKILL)  # the drill starts its own
        beat = start_celery("beat")
        try:
            results = [_run(running, number, chosen.creates) for number in range(1, chosen.runs + 1)]
        finally:
            drill.kill(beat)
    holds = all(not each["doubled"] and not each["missing"] and each["taken_over_after_s"] for each in results)
    if chosen.json:
        print(json.dumps({"runs": results, "holds": holds}))
    else:
        for each in results:
            print("  ".join(f"{name} {value}" for name, value in each.items()))
        print("each was created once" if holds else "NOT EACH WAS CREATED ONCE")
    return 0 if holds else 1


def _run(running: Stage, number: int, creates: int) -> dict[str, Any]:
    mark = f"run{number}x{time.time_ns()}"
    other: subprocess.Popen[bytes] | None = None
    with TcpProxy(_server()) as proxy:
        cut_off = _start(f"postgresql+psycopg2://{_url().username}@127.0.0.1:{proxy.port}/{_url().database}")
        try:
            users = drill.add_users(
                running, [f"{mark}-{number}@fresh.example" for number in range(creates)], name="New"
            )
            messages = [drill.user_message({"id": user["id"], "email": user["email"], "name": "New"}) for user in users]
            drill.notify(running.connector_key, mark, messages)  # one notification, so one batch creates them all
            _until(lambda: _made(running, mark).total() >= BUSY, "no creates")
            other = start_celery(*WORKER, "-n", f"{OTHER}{number}@%h")
            _until(lambda: _is_ready(f"{OTHER}{number}@"), "no other worker")
            _until(lambda: _made(running, mark).total() % GROUP in range(BEGUN, BEGUN + 8), "no group began")
            owner = _owner()
            if owner is None:
                raise TimeoutError("the batch was released before the cut")
            proxy.silence()
            at_cut, cut_at = _made(running, mark).total(), time.monotonic()
            _until(lambda: _owner() not in (owner, None), "no worker took over the batch")
            taken_over_s, at_take_over = time.monotonic() - cut_at, _made(running, mark).total()
            _until(lambda: not drill.left_to_do(), "not done")
            took_s = time.monotonic() - cut_at
            time.sleep(1.0)
            made = _made(running, mark)
        finally:
            drill.kill(cut_off)
            if other is not None:
                drill.kill(other)
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


OWNER = """
    SELECT lease_token FROM batches
     WHERE direction = 'outgoing' AND stage = 'load' AND state = 'running' ORDER BY id LIMIT 1"""


def _owner() -> Any:
    """Return the lease token of the batch that creates the records."""
    return drill.scalar(OWNER)


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


def _made(running: Stage, mark: str) -> Counter[str]:
    """Return e-mail → number of Persons with it, of this run."""
    found: Counter[str] = Counter()
    for person in drill.export(running.pipedrive_url, "person"):
        for each in person.get("emails") or []:
            if str(each.get("value", "")).startswith(mark):
                found[each["value"]] += 1
    return found


def _until(condition: Callable[[], bool], message: str) -> None:
    drill.wait_until(condition, PATIENCE_S, message)


if __name__ == "__main__":
    sys.exit(main())
