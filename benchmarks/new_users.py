"""New Users at Pipedrive's real pace, webhooks immediate: whether any is made twice, ends in conflict, or fails.

    python -m benchmarks.new_users [--users 900] [--limit 20] [--kills 0] [--seed 1] [--json]

Hull tells of Users that Pipedrive does not know; every one is made there, within `--limit` calls in two seconds, while the webhooks
of those made already arrive and Hull's ids are resolved. Then every User changes once more. With `--kills` all workers are killed
so often on the way, and started again. Looks at the two remote systems and at the id map. Exit 1 when a Person was doubled or is
missing, when a mapping is in conflict or not joined, or when there is a Failure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import requests
from sqlalchemy import text

from benchmarks.stage import FULL_HULL, Stage, stage, start_celery, start_worker
from sandbox import serve

KNOWN = 50
"""Persons that are there before: a first fetch has something to fetch."""
PER_NOTIFICATION = 100
PROCESSES = 2
PATIENCE_S = 1_800.0
POLL_S = 0.5
RESOLVE_EVERY_S = 5.0
"""Hull's ids are asked for more often than beat does: what a round may meet in the making is met for certain."""
FIRST_KILL_S, BETWEEN_KILLS_S = 6.0, (6.0, 14.0)
MAPPED = [{"hull": "name", "service": "name"}]

LEFT = """
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new') + (SELECT count(*) FROM changes)
         + (SELECT count(*) FROM batches WHERE state IN ('ready', 'running', 'waiting'))
         + (SELECT count(*) FROM runs WHERE state = 'running')"""
UNRESOLVED = "SELECT count(*) FROM id_mappings WHERE hull_id IS NULL AND state <> 'conflict'"


class Workers:
    """The one group of workers, which is killed whole and started again."""

    def __init__(self, kills: int, seed: int) -> None:
        self.left = self.asked = kills
        self._dice = random.Random(seed)
        self._worker = start_worker(PROCESSES)
        self._next = float("inf")

    def begin(self) -> None:
        """The kills begin to count from now on."""
        self._next = time.monotonic() + FIRST_KILL_S

    def look(self) -> None:
        """Kill, if that is due."""
        if self.left and time.monotonic() >= self._next:
            self.left -= 1
            self.end()
            self._worker = start_worker(PROCESSES)
            self._next = time.monotonic() + self._dice.uniform(*BETWEEN_KILLS_S)

    def end(self) -> None:
        os.killpg(self._worker.pid, signal.SIGKILL)
        self._worker.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=900)
    parser.add_argument("--limit", type=int, default=20, help="calls in two seconds that Pipedrive allows")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # who is told to end ends its processes first
    port = serve.free_port()
    own = {"PUBLIC_URL": f"http://127.0.0.1:{port}", "PORT": str(port), "LEASE_S": "5"}
    with (
        stage(
            persons=KNOWN,
            organizations=0,
            hull=FULL_HULL,
            worker_processes=1,
            burst_limit=chosen.limit,
            environment=own,
        ) as running,
        _processes(running, chosen.kills, chosen.seed) as workers,
    ):
        result = _run(running, workers, chosen)
    print(json.dumps(result) if chosen.json else "\n".join(f"{name:20} {value}" for name, value in result.items()))
    return 1 if result["wrong"] else 0


def _run(running: Stage, workers: Workers, chosen: argparse.Namespace) -> dict[str, Any]:
    from pipeline.domain.kinds import Entity
    from pipeline.sync.connectors.webhooks import ensure_webhooks
    from pipeline.sync.runs.runs import start_run

    for entity in Entity:
        start_run(running.connector_key, entity, cause="drill")
    _settle(workers, resolved=False)
    _prepare(running)
    ensure_webhooks(running.connector_key)
    users = _add_users(running, chosen.users)
    workers.begin()
    began = time.monotonic()
    _tell(running, "made", users)
    _settle(workers)
    made_s = time.monotonic() - began
    _tell(running, "changed", [{**user, "name": f"{user['name']} II"} for user in users])
    _settle(workers)
    figures = {
        "users": len(users),
        "kills": workers.asked - workers.left,
        "made_after_s": round(made_s),
        "changed_after_s": round(time.monotonic() - began - made_s),
        "load_average": round(os.getloadavg()[0], 1),
    }
    return figures | _judge(running, {str(user["email"]): user["id"] for user in users})


@contextmanager
def _processes(running: Stage, kills: int, seed: int) -> Iterator[Workers]:
    """Web process, beat and a group of workers, instead of the stage's worker."""
    from pipeline.local import programs
    from pipeline.local.children import Children
    from pipeline.settings import settings

    os.killpg(running.roots["workers"], signal.SIGKILL)
    children = Children(lambda name, line: print(line, file=sys.stderr) if name == "up" else None)
    workers = Workers(kills, seed)
    beat: subprocess.Popen[bytes] | None = None
    try:
        beat = start_celery("beat")
        started = programs.pipeline_programs(settings(), host=programs.LOOPBACK, flower_login="")
        children.start(next(program for program in started if program.name == "web"))
        _wait_for(settings().public_url)
        yield workers
    finally:
        if beat is not None:
            os.killpg(beat.pid, signal.SIGKILL)
            beat.wait()
        workers.end()
        children.stop()


def _wait_for(url: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            requests.get(url, timeout=10)
        except requests.ConnectionError:
            time.sleep(POLL_S)
        else:
            return
    raise TimeoutError("the web process does not answer")


def _prepare(running: Stage) -> None:
    """What is sent, and of whom."""
    from db import connector as connectors
    from db.session import transaction

    with transaction() as session:
        now = connectors.settings_in_force(session, running.connector_key).document
        more = {"outgoing_user_attributes": MAPPED, "synchronized_user_segments": ["ALL"]}
        connectors.add_settings(session, running.connector_key, now | more, author="drill")


def _add_users(running: Stage, count: int) -> list[dict[str, Any]]:
    """Users whom Hull has by itself, as it reports them."""
    from db.session import transaction
    from pipeline.wiring import open_connector

    with transaction() as session:
        hull = open_connector(session, running.connector_key).hull
    emails = [f"new{number}@fresh.example" for number in range(count)]
    hull.post_batches([hull.writer().user_traits({"email": email}, {"name": email}) for email in emails], size=500)
    return [user for user in _lines(f"{running.hull_url}/__sandbox__/export?entity=user") if user["email"] in emails]


def _tell(running: Stage, flow: str, users: Sequence[dict[str, Any]]) -> None:
    """Lay Hull's notifications into the table of deliveries, as the web process does."""
    from db import delivery as deliveries
    from db.session import transaction
    from pipeline.tasks import canvases

    with transaction() as session:
        for at in range(0, len(users), PER_NOTIFICATION):
            messages = [
                {"user": user, "account": {}, "segments": [], "changes": {"user": {"name": ["x", user["name"]]}}}
                for user in users[at : at + PER_NOTIFICATION]
            ]
            body = {"notification_id": f"{flow}-{at}", "channel": "user:update", "messages": messages}
            deliveries.keep_delivery(session, running.connector_key, "hull", f"{flow}-{at}", orjson.dumps(body))
    canvases.wake_control("dispatch")


def _settle(workers: Workers, *, resolved: bool = True) -> None:
    """Return once nothing is left to do; what failed for good is not waited for. Raises: TimeoutError."""
    from pipeline.tasks import canvases

    until, quiet, tick = time.monotonic() + PATIENCE_S, 0, 0.0
    while quiet < 6:
        if time.monotonic() > until:
            raise TimeoutError(f"still at work: {_ask(LEFT)} left, {_ask(UNRESOLVED)} unresolved")
        workers.look()
        if time.monotonic() >= tick:
            canvases.wake_control("resolve_hull_ids")
            tick = time.monotonic() + RESOLVE_EVERY_S
        time.sleep(POLL_S)
        quiet = quiet + 1 if not _ask(LEFT) and not (resolved and _ask(UNRESOLVED)) else 0


def _judge(running: Stage, users: dict[str, str]) -> dict[str, Any]:
    """What the remote systems and the id map hold; `wrong` counts everything that should not be."""
    found: Counter[str] = Counter()
    people = _lines(f"{running.pipedrive_url}/__sandbox__/export?entity=person")
    held: dict[str, list[int]] = {}
    for person in people:
        for email in person["emails"]:
            held.setdefault(email["value"], []).append(person["id"])
    in_hull = {user["id"]: user for user in _lines(f"{running.hull_url}/__sandbox__/export?entity=user")}
    mapped = {row.hull_id: row.pipedrive_id for row in _rows("SELECT hull_id, pipedrive_id FROM id_mappings")}
    for email, hull_id in users.items():
        ids = held.get(email, [])
        found["missing"] += not ids
        found["doubled"] += max(0, len(ids) - 1)
        found["not_joined"] += len(ids) == 1 and mapped.get(hull_id) != ids[0]
        found["not_in_hull"] += len(ids) == 1 and in_hull.get(hull_id, {}).get("pipedrive/id") != ids[0]
    found["not_changed"] = sum(1 for person in people if person["name"] in users)
    found["users_lost"] = len(users.keys() - {str(user.get("email")) for user in in_hull.values()})
    states = Counter({row.state: row.n for row in _rows("SELECT state, count(*) AS n FROM id_mappings GROUP BY state")})
    reasons = {
        row.reason: row.n
        for row in _rows("SELECT reason, count(*) AS n FROM failures WHERE state = 'open' GROUP BY reason")
    }
    problems = {name: count for name, count in found.items() if count}
    return {
        "persons": len(people),
        "states": dict(states),
        "conflicts": states["conflict"],
        "doubled": found["doubled"],
        "failures": reasons,
        "problems": problems,
        "wrong": states["conflict"] + sum(reasons.values()) + sum(problems.values()),
    }


def _rows(query: str) -> Sequence[Any]:
    from db.session import transaction

    with transaction() as session:
        return session.execute(text(query)).all()


def _ask(query: str) -> int:
    return int(_rows(query)[0][0])


def _lines(url: str) -> list[dict[str, Any]]:
    with requests.get(url, timeout=300) as answer:
        return [orjson.loads(line) for line in answer.content.splitlines() if line]


if __name__ == "__main__":
    sys.exit(main())
