"""Lets Pipedrive answer 503 for a while, then Hull's firehose 500, while there is much to do; everything goes on by itself.

python -m benchmarks.outage --seconds 600 [--persons 3000] [--json]

During Pipedrive's outage a full fetch and new Users of Hull wait, during the firehose's another full fetch. At the end no Failure
may be open, no run stopped, and both sides equal. Says how many calls were made meanwhile, and how long after the
outage everything was done. Exit 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from typing import Any

import orjson
import requests
from sqlalchemy import text

from benchmarks.kill_fetch import compare
from benchmarks.outgoing import MAPPED
from benchmarks.stage import FULL_HULL, Stage, stage, start_celery

INVENTED = "person: hull_id of the mapping differs"
"""The new Users are the drill's own: the sandbox's Hull makes others of them, under ids of its own."""
VALUES = {"too_long"}
"""Why fields of the sandbox's company stay behind, whether anything is out or not: texts longer than Hull takes."""
PATIENCE_S = 600.0
POLL_S = 0.5
PIPEDRIVE = {"path": "/api/", "kind": "status", "status": 503, "count": None}
FIREHOSE = {"path": "firehose", "kind": "status", "status": 500, "count": None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long each of the two is out")
    parser.add_argument("--persons", type=int, default=3_000)
    parser.add_argument("--organizations", type=int, default=600)
    parser.add_argument("--users", type=int, default=100, help="new Users of Hull during Pipedrive's outage")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    sizes = {"persons": chosen.persons, "organizations": chosen.organizations}
    with stage(**sizes, hull=FULL_HULL, worker_processes=2) as running:
        beat = start_celery("beat")
        try:
            _map(running)
            results = [
                _out(running, "pipedrive", running.pipedrive_url, PIPEDRIVE, chosen.seconds, users=chosen.users),
                _out(running, "firehose", running.hull_url, FIREHOSE, chosen.seconds, users=0),
            ]
            problems = compare(running)
            problems[INVENTED] -= chosen.users
            problems = +problems
        finally:
            os.killpg(beat.pid, signal.SIGKILL)
    holds = not problems and all(_went_on(each) for each in results)
    document = {"outages": results, "problems": dict(problems), "holds": holds}
    if chosen.json:
        print(json.dumps(document))
    else:
        for each in results:
            print("\n".join([f"\n{each['remote']}", *(f"  {name:20} {value}" for name, value in each.items())]))
        for problem, count in problems.items():
            print(f"  {problem}: {count}")
        print("everything went on by itself" if holds else "NOT EVERYTHING WENT ON BY ITSELF")
    return 0 if holds else 1


def _went_on(result: dict[str, Any]) -> bool:
    return not result["failures"] and result["fields_left"].keys() <= VALUES and result["runs"] == {"done": 2}


def _out(running: Stage, remote: str, url: str, fault: dict[str, Any], seconds: float, *, users: int) -> dict[str, Any]:
    from pipeline.domain.kinds import Entity
    from pipeline.sync.runs.runs import start_run

    _order(url, [fault])
    ids = [start_run(running.connector_key, entity, cause="drill") for entity in Entity]
    if users:
        _deliver(running, users)
    ends_at = time.monotonic() + seconds
    seen = Counter[str]()
    while time.monotonic() < ends_at:
        time.sleep(POLL_S)
        seen = _outages() or seen
    held = _figures(ids)
    _order(url, [])
    ended = time.monotonic()
    while time.monotonic() - ended < PATIENCE_S and _left():
        time.sleep(POLL_S)
    after = _figures(ids)
    return {
        "remote": remote,
        "out_s": seconds,
        "calls_that_failed": dict(seen),
        "runs_meanwhile": held["runs"],
        "done_after_s": round(time.monotonic() - ended, 1),
        "runs": after["runs"],
        "failures": after["failures"],
        "fields_left": after["fields"],
    }


def _map(running: Stage) -> None:
    from db import connector as connectors
    from db.session import transaction

    with transaction() as session:
        now = connectors.settings_in_force(session, running.connector_key).document
        more = {"outgoing_user_attributes": MAPPED[:2], "synchronized_user_segments": ["ALL"]}
        connectors.add_settings(session, running.connector_key, now | more, author="benchmark")


def _order(url: str, faults: list[dict[str, Any]]) -> None:
    requests.post(f"{url}/__sandbox__/faults", json=faults, timeout=30).raise_for_status()


def _deliver(running: Stage, users: int) -> None:
    from db import delivery as deliveries
    from db.session import transaction
    from pipeline.tasks import canvases

    messages = [
        {
            "user": {
                "id": f"f{number:023x}",
                "email": f"meanwhile{number}@fresh.example",
                "name": f"Meanwhile {number}",
            },
            "account": {},
            "segments": [],
            "changes": {"user": {"name": [None, "x"]}},
        }
        for number in range(users)
    ]
    with transaction() as session:
        body = orjson.dumps({"notification_id": "outage", "channel": "user:update", "messages": messages})
        deliveries.keep_delivery(session, running.connector_key, "hull", "outage", body)
    canvases.wake_control("dispatch")


_LEFT = text("""
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new') + (SELECT count(*) FROM changes)
         + (SELECT count(*) FROM batches WHERE state IN ('waiting', 'ready', 'running'))
         + (SELECT count(*) FROM id_mappings WHERE hull_id IS NULL)""")


def _left() -> int:
    from db.session import transaction

    with transaction() as session:
        return int(session.execute(_LEFT).scalar_one())


def _outages() -> Counter[str]:
    """Remote system → calls that failed so far; nothing where the version under test keeps no such rows."""
    from db.session import transaction

    with transaction() as session:
        if session.execute(text("SELECT to_regclass('outages')")).scalar_one() is None:
            return Counter()
        return Counter(
            {row.remote: row.failures for row in session.execute(text("SELECT remote, failures FROM outages"))}
        )


def _figures(run_ids: list[int]) -> dict[str, Any]:
    from db.session import transaction

    with transaction() as session:
        states = session.execute(text("SELECT state FROM runs WHERE id = ANY(:ids)"), {"ids": run_ids}).scalars()
        runs = dict(Counter(states))
        rows = session.execute(
            text(
                "SELECT kind = 'field' AS of_field, reason, count(*) AS n FROM failures WHERE state = 'open' GROUP BY 1, 2"
            )
        ).all()
        failures = {row.reason: row.n for row in rows if not row.of_field}
        fields = {row.reason: row.n for row in rows if row.of_field}
        return {"runs": runs, "failures": failures, "fields": fields}


if __name__ == "__main__":
    sys.exit(main())
