"""Kills the whole worker group again and again during a full fetch, then compares Hull with Pipedrive record by record.

    python -m benchmarks.kill_fetch --persons 100000 --kills 5

Looks at the remote systems' own exports, not at our tables: every Person and Organization stands in Hull exactly once, with
the values Pipedrive shows, linked to its Organization; and every id mapping carries the id Hull gave. Exit 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import requests

from benchmarks.stage import FULL_HULL, Stage, stage, start_celery, start_worker

PATIENCE_S = 900.0
RAW_FIELDS = ("name", "owner_id", "visible_to")
"""Fields whose value Hull must hold as Pipedrive spells it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--organizations", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    sizes = {"persons": chosen.persons, "organizations": chosen.organizations}
    with stage(**sizes, hull=FULL_HULL, worker_processes=1, environment={"LEASE_S": "5"}) as running:
        os.killpg(running.roots["workers"], signal.SIGKILL)  # the drill brings its own
        beat = start_celery("beat")
        try:
            took_s, swept = _fetch_under_fire(running, chosen.kills, random.Random(chosen.seed))
            problems = compare(running)
        finally:
            os.killpg(beat.pid, signal.SIGKILL)
    print(f"{chosen.kills} kills, {took_s:.0f} s, runs: {swept}")
    for problem, count in problems.items():
        print(f"  {problem}: {count}")
    print("equal" if not problems else "NOT EQUAL")
    return 1 if problems else 0


def _fetch_under_fire(running: Stage, kills: int, dice: random.Random) -> tuple[float, dict[str, Any]]:
    from sqlalchemy import text

    from db.session import transaction
    from pipeline.domain.kinds import Entity
    from pipeline.sync.runs.runs import start_run

    worker = start_worker(2)
    started = time.monotonic()
    ids = [start_run(running.connector_key, entity, cause="drill") for entity in Entity]
    next_kill = time.monotonic() + 4
    while time.monotonic() - started < PATIENCE_S:
        time.sleep(0.1)
        if kills and time.monotonic() >= next_kill:
            kills -= 1
            worker = _kill_and_restart(worker)
            next_kill = time.monotonic() + dice.uniform(3.0, 6.0)
        with transaction() as session:
            states = session.execute(text("SELECT state FROM runs WHERE id = ANY(:ids)"), {"ids": ids}).scalars().all()
            open_ids = session.execute(text("SELECT count(*) FROM id_mappings WHERE hull_id IS NULL")).scalar_one()
        if all(state != "running" for state in states) and not open_ids:
            break
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    return time.monotonic() - started, dict(Counter(states))


def _kill_and_restart(worker: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    return start_worker(2)


def compare(running: Stage) -> Counter[str]:
    """What differs between the two exports, and between Hull and the id map; empty when nothing does."""
    problems: Counter[str] = Counter()
    accounts = _by_pipedrive_id(running, "account", problems)
    users = _by_pipedrive_id(running, "user", problems)
    account_ids = {account["id"]: pipedrive_id for pipedrive_id, account in accounts.items()}
    for entity, found in (("person", users), ("organization", accounts)):
        expected = 0
        for record in _lines(f"{running.pipedrive_url}/__sandbox__/export?entity={entity}"):
            expected += 1
            there = found.get(record["id"])
            if there is None:
                problems[f"{entity} missing in Hull"] += 1
                continue
            for field in RAW_FIELDS:
                if there.get(f"pipedrive/{field}") != record.get(field):
                    problems[f"{entity}.{field} differs"] += 1
            linked = account_ids.get(there.get("account_id")) if entity == "person" else None
            if entity == "person" and linked != record.get("org_id"):
                problems["link differs"] += 1
        if expected != len(found):
            problems[f"{entity}: {len(found)} in Hull, {expected} in Pipedrive"] += 1
    problems.update(_compare_id_map({"person": users, "organization": accounts}))
    return problems


def _compare_id_map(found: dict[str, dict[int, dict[str, Any]]]) -> Counter[str]:
    from sqlalchemy import text

    from db.session import transaction

    problems: Counter[str] = Counter()
    with transaction() as session:
        rows = session.execute(text("SELECT entity, pipedrive_id, hull_id FROM id_mappings")).all()
    for row in rows:
        if found[row.entity].get(row.pipedrive_id, {}).get("id") != row.hull_id:
            problems[f"{row.entity}: hull_id of the mapping differs"] += 1
    for entity, records in found.items():
        if sum(1 for row in rows if row.entity == entity) != len(records):
            problems[f"{entity}: mappings and records differ in number"] += 1
    return problems


def _by_pipedrive_id(running: Stage, kind: str, problems: Counter[str]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for record in _lines(f"{running.hull_url}/__sandbox__/export?entity={kind}"):
        pipedrive_id = record.get("pipedrive/id")
        if pipedrive_id is None:
            continue
        if pipedrive_id in found:
            problems[f"{kind} doubled"] += 1
        found[pipedrive_id] = record
    return found


def _lines(url: str) -> Iterator[dict[str, Any]]:
    with requests.get(url, stream=True, timeout=300) as answer:
        for line in answer.iter_lines():
            if line:
                yield orjson.loads(line)


if __name__ == "__main__":
    sys.exit(main())
