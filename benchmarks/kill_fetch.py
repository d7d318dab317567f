"""Kill all workers several times during a full fetch, then compare Hull with Pipedrive record by record.

    python -m benchmarks.kill_fetch --persons 100000 --kills 5

The check reads the remote systems' own exports: every Person and Organization is in Hull exactly once, with Pipedrive's values and
linked to its Organization, and every id mapping has Hull's id. Exit 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from typing import Any

from benchmarks import drill
from benchmarks.stage import FULL_HULL, Stage, stage, start_celery, start_worker

PATIENCE_S = 900.0
RAW_FIELDS = ("name", "owner_id", "visible_to")
"""Fields with the same value in Hull and in Pipedrive."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--organizations", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    sizes = {"persons": chosen.persons, "organizations": chosen.organizations}
    with stage(**sizes, hull=FULL_HULL, worker_processes=1, environment={"LEASE_S": "5"}) as running:
        os.killpg(running.roots["workers"], signal.SIGKILL)  # the drill starts its own
        beat = start_celery("beat")
        try:
            took_s, states = _fetch(running, chosen.kills, random.Random(chosen.seed))
            problems = compare(running)
        finally:
            drill.kill(beat)
    print(f"{chosen.kills} kills, {took_s:.0f} s, runs: {states}")
    for problem, count in problems.items():
        print(f"  {problem}: {count}")
    print("equal" if not problems else "NOT EQUAL")
    return 1 if problems else 0


def _fetch(running: Stage, kills: int, randomness: random.Random) -> tuple[float, dict[str, int]]:
    """Run a full fetch, and kill its workers now and then; return its seconds and the states of its runs."""
    from pipeline.domain.kinds import Entity
    from pipeline.sync.runs.runs import start_run

    worker = start_worker(2)
    started = time.monotonic()
    ids = [start_run(running.connector_key, entity, cause="drill") for entity in Entity]
    next_kill = time.monotonic() + 4
    states: list[str] = []
    while time.monotonic() - started < PATIENCE_S:
        time.sleep(0.1)
        if kills and time.monotonic() >= next_kill:
            kills -= 1
            drill.kill(worker)
            worker = start_worker(2)
            next_kill = time.monotonic() + randomness.uniform(3.0, 6.0)
        states = [row.state for row in drill.rows("SELECT state FROM runs WHERE id = ANY(:ids)", ids=ids)]
        open_ids = drill.scalar("SELECT count(*) FROM id_mappings WHERE hull_id IS NULL")
        if "running" not in states and not open_ids:
            break
    drill.kill(worker)
    return time.monotonic() - started, dict(Counter(states))


def compare(running: Stage) -> Counter[str]:
    """Return the differences between the two exports, and between Hull and the id map; empty without any."""
    problems: Counter[str] = Counter()
    accounts = _by_pipedrive_id(running, "account", problems)
    users = _by_pipedrive_id(running, "user", problems)
    account_ids = {account["id"]: pipedrive_id for pipedrive_id, account in accounts.items()}
    for entity, found in (("person", users), ("organization", accounts)):
        expected = 0
        for record in drill.export(running.pipedrive_url, entity):
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
    problems: Counter[str] = Counter()
    rows = drill.rows("SELECT entity, pipedrive_id, hull_id FROM id_mappings")
    for row in rows:
        if found[row.entity].get(row.pipedrive_id, {}).get("id") != row.hull_id:
            problems[f"{row.entity}: hull_id of the mapping differs"] += 1
    for entity, records in found.items():
        if sum(1 for row in rows if row.entity == entity) != len(records):
            problems[f"{entity}: mappings and records differ in number"] += 1
    return problems


def _by_pipedrive_id(running: Stage, kind: str, problems: Counter[str]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for record in drill.export(running.hull_url, kind):
        pipedrive_id = record.get("pipedrive/id")
        if pipedrive_id is None:
            continue
        if pipedrive_id in found:
            problems[f"{kind} doubled"] += 1
        found[pipedrive_id] = record
    return found


if __name__ == "__main__":
    sys.exit(main())
