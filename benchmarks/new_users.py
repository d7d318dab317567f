"""Create new Users at Pipedrive's real pace, with webhooks, and check that each Person is created once.

    python -m benchmarks.new_users [--users 900] [--limit 20] [--kills 0] [--seed 1] [--json]

Hull reports Users that Pipedrive does not know. Each is created there, within `--limit` calls in two seconds, while the webhooks
of the created Persons arrive and Hull's ids are resolved. Then every User changes once more. With `--kills` all workers are killed
that often, and started again. The check reads the two remote systems and the id map. Exit 1 if a Person is missing or exists
twice, if a mapping is in conflict or has a wrong Hull id, or if there is a Failure.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import drill
from benchmarks.stage import FULL_HULL, Stage, stage, start_celery, start_worker
from pipeline.local.interrupts import Interrupts
from sandbox import serve

KNOWN = 50
"""Persons that exist before, so that the first fetch has records."""
PER_NOTIFICATION = 100
PROCESSES = 2
PATIENCE_S = 1_800.0
POLL_S = 0.5
RESOLVE_EVERY_S = 5.0
"""How often Hull's ids are requested: more often than by beat, so that a round surely runs while records are created."""
FIRST_KILL_S, BETWEEN_KILLS_S = 6.0, (6.0, 14.0)


class Workers:
    """The group of workers, which is killed as a whole and started again."""

    def __init__(self, kills: int, seed: int, interrupts: Interrupts) -> None:
        self.left = self.planned = kills
        self._random = random.Random(seed)
        self._interrupts = interrupts
        self._worker = start_worker(PROCESSES)
        self._next = float("inf")

    def begin(self) -> None:
        """Start the time until the first kill."""
        self._next = time.monotonic() + FIRST_KILL_S

    def check(self) -> None:
        """Kill the workers if that is due. Raises: KeyboardInterrupt after SIGTERM or Ctrl-C."""
        self._interrupts.check()
        if self.left and time.monotonic() >= self._next:
            self.left -= 1
            self.end()
            self._worker = start_worker(PROCESSES)
            self._next = time.monotonic() + self._random.uniform(*BETWEEN_KILLS_S)

    def end(self) -> None:
        drill.kill(self._worker)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=900)
    parser.add_argument("--limit", type=int, default=20, help="calls in two seconds that Pipedrive allows")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    port = serve.free_port()
    own = {"PUBLIC_URL": f"http://127.0.0.1:{port}", "PORT": str(port), "LEASE_S": "5"}
    with (
        drill.ended_by_signals() as interrupts,
        stage(
            persons=KNOWN,
            organizations=0,
            hull=FULL_HULL,
            worker_processes=1,
            burst_limit=chosen.limit,
            environment=own,
        ) as running,
        _processes(running, Workers(chosen.kills, chosen.seed, interrupts)) as workers,
    ):
        result = _run(running, workers, chosen)
    drill.show(result, as_json=chosen.json)
    return 1 if result["wrong"] else 0


def _run(running: Stage, workers: Workers, chosen: argparse.Namespace) -> dict[str, Any]:
    from pipeline.domain.kinds import Entity
    from pipeline.sync.connectors.webhooks import ensure_webhooks
    from pipeline.sync.runs.runs import start_run

    for entity in Entity:
        start_run(running.connector_key, entity, cause="drill")
    _wait(workers, resolved=False)
    mapped = [{"hull": "name", "service": "name"}]
    drill.change_settings(running.connector_key, outgoing_user_attributes=mapped, synchronized_user_segments=["ALL"])
    ensure_webhooks(running.connector_key)
    users = drill.add_users(running, [f"new{number}@fresh.example" for number in range(chosen.users)])
    workers.begin()
    began = time.monotonic()
    _notify(running, "created", users)
    _wait(workers)
    created_s = time.monotonic() - began
    _notify(running, "changed", [{**user, "name": f"{user['name']} II"} for user in users])
    _wait(workers)
    figures = {
        "users": len(users),
        "kills": workers.planned - workers.left,
        "created_after_s": round(created_s),
        "changed_after_s": round(time.monotonic() - began - created_s),
        "load_average": round(os.getloadavg()[0], 1),
    }
    return figures | _check(running, {str(user["email"]): user["id"] for user in users})


@contextmanager
def _processes(running: Stage, workers: Workers) -> Iterator[Workers]:
    """Run the web process, beat and a group of workers instead of the stage's worker."""
    from pipeline.settings import settings

    os.killpg(running.roots["workers"], signal.SIGKILL)
    beat = start_celery("beat")
    children = drill.new_children()
    try:
        drill.start_programs(children, lambda name: name == "web")
        drill.wait_for_url(settings().public_url)
        yield workers
    finally:
        drill.kill(beat)
        workers.end()
        children.stop()


def _notify(running: Stage, flow: str, users: list[dict[str, Any]]) -> None:
    for at in range(0, len(users), PER_NOTIFICATION):
        messages = [drill.user_message(user, "x") for user in users[at : at + PER_NOTIFICATION]]
        drill.notify(running.connector_key, f"{flow}-{at}", messages)


def _wait(workers: Workers, *, resolved: bool = True) -> None:
    """Return when no work is left; Failures are not waited for. Raises: TimeoutError."""
    from pipeline.tasks import canvases

    deadline, quiet, tick = time.monotonic() + PATIENCE_S, 0, 0.0
    while quiet < 6:
        if time.monotonic() > deadline:
            raise TimeoutError(f"still at work: {drill.left_to_do()} left, {drill.scalar(drill.UNRESOLVED)} unresolved")
        workers.check()
        if time.monotonic() >= tick:
            canvases.wake_control("resolve_hull_ids")
            tick = time.monotonic() + RESOLVE_EVERY_S
        time.sleep(POLL_S)
        quiet = 0 if drill.left_to_do(*([drill.UNRESOLVED] if resolved else [])) else quiet + 1


def _check(running: Stage, users: dict[str, str]) -> dict[str, Any]:
    """Compare the remote systems and the id map; `wrong` counts every problem."""
    found: Counter[str] = Counter()
    people = list(drill.export(running.pipedrive_url, "person"))
    by_email: dict[str, list[int]] = {}
    for person in people:
        for email in person["emails"]:
            by_email.setdefault(email["value"], []).append(person["id"])
    in_hull = {user["id"]: user for user in drill.export(running.hull_url, "user")}
    mapped = {row.hull_id: row.pipedrive_id for row in drill.rows("SELECT hull_id, pipedrive_id FROM id_mappings")}
    for email, hull_id in users.items():
        ids = by_email.get(email, [])
        found["missing"] += not ids
        found["doubled"] += max(0, len(ids) - 1)
        found["not_mapped"] += len(ids) == 1 and mapped.get(hull_id) != ids[0]
        found["not_in_hull"] += len(ids) == 1 and in_hull.get(hull_id, {}).get("pipedrive/id") != ids[0]
    found["not_changed"] = sum(1 for person in people if person["name"] in users)
    found["users_lost"] = len(users.keys() - {str(user.get("email")) for user in in_hull.values()})
    states = Counter(
        {row.state: row.n for row in drill.rows("SELECT state, count(*) AS n FROM id_mappings GROUP BY state")}
    )
    failures = drill.rows("SELECT reason, count(*) AS n FROM failures WHERE state = 'open' GROUP BY reason")
    reasons = {row.reason: row.n for row in failures}
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


if __name__ == "__main__":
    sys.exit(main())
