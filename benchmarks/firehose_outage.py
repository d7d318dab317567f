"""Creates while Hull's firehose is down: Persons that a salesperson makes meanwhile must not be made a second time.

    python -m benchmarks.firehose_outage --persons 20 [--json]

Real workers, after a full fetch. The sandbox's Hull answers 503 on its firehose, so nothing that comes in can be delivered.
Persons are made by hand in Pipedrive, and Hull reports Users with the same e-mails, one after the other: one of them immediately,
the others once the Persons are older than the overlap of two look-ups. Then the firehose comes back and all of it ends. Counts the
Persons of each e-mail in Pipedrive's own export. Exit 1 when one was made twice, or a report did not reach its Person.
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

from benchmarks.full_fetch import fetch
from benchmarks.outgoing import prepare
from benchmarks.stage import FULL_HULL, Stage, stage, start_celery

PAUSE_S = 70.0
"""Longer than the minute by which two look-ups overlap."""
PATIENCE_S = 300.0
POLL_S = 0.2
DOWN = {"path": "firehose", "kind": "status", "status": 503, "count": None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--known", type=int, default=200, help="Persons before the outage")
    parser.add_argument("--persons", type=int, default=20, help="Persons made by hand during the outage")
    parser.add_argument("--new", type=int, default=5, help="Users that no Person answers to")
    parser.add_argument("--pause", type=float, default=PAUSE_S, help="seconds between the first report and the others")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with stage(
        persons=chosen.known, organizations=0, hull=FULL_HULL, worker_processes=chosen.processes, burst_limit=80
    ) as running:
        beat = start_celery("beat")
        try:
            fetch(running, "first", changed_only=False)
            prepare(running)
            result = drill(running, chosen.persons, chosen.new, pause_s=chosen.pause)
        finally:
            os.killpg(beat.pid, signal.SIGKILL)
    if chosen.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:20} {value}" for name, value in result.items()))
    return 1 if result["doubled"] or result["missing"] or result["not_updated"] else 0


def drill(running: Stage, persons: int, new: int, *, pause_s: float) -> dict[str, Any]:
    """Play the outage, and count what it left behind."""
    before = _stats(running)
    started = time.monotonic()
    _order(f"{running.hull_url}/__sandbox__/faults", [DOWN])
    emails = [f"by-hand{number}@outage.example" for number in range(persons)]
    for number, email in enumerate(emails):
        fields = {"name": f"By Hand {number}", "emails": [{"value": email, "primary": True}]}
        _order(f"{running.pipedrive_url}/__sandbox__/create", {"entity": "person", "fields": fields})
    report(running, 0, emails[0])
    _wait_for_outgoing()
    time.sleep(pause_s)
    everybody = [*emails, *(f"new{number}@outage.example" for number in range(new))]
    for number, email in enumerate(everybody[1:], 1):
        report(running, number, email)
        _wait_for_outgoing()
    outage_s = time.monotonic() - started
    _order(f"{running.hull_url}/__sandbox__/faults", [])
    left = _wait_for_everything()
    found = Counter(_emails(running))
    names = _names(running)
    after = _stats(running)
    return {
        "persons_by_hand": persons,
        "users_reported": len(everybody),
        "outage_s": round(outage_s, 1),
        "until_settled_s": round(time.monotonic() - started - outage_s, 1),
        "doubled": sum(1 for email in everybody if found[email] > 1),
        "missing": sum(1 for email in everybody if not found[email]),
        "not_updated": sum(1 for number, email in enumerate(everybody) if _new_name(number) not in names[email]),
        "left_to_do": left,
        "failures": _failures(),
        "calls": {call: count - before.get(call, 0) for call, count in after.items() if count != before.get(call, 0)},
    }


def report(running: Stage, number: int, email: str) -> None:
    """Have Hull report one User, in a notification of its own."""
    from db import delivery as deliveries
    from db.session import transaction
    from pipeline.tasks import canvases

    user = {"id": f"d{number:023x}", "email": email, "name": _new_name(number)}
    message = {"user": user, "account": {}, "segments": [], "changes": {"user": {"name": [None, user["name"]]}}}
    body = {"notification_id": f"outage-{number}", "channel": "user:update", "messages": [message]}
    with transaction() as session:
        key = f"outage-{time.monotonic_ns()}"
        deliveries.keep_delivery(session, running.connector_key, "hull", key, orjson.dumps(body))
    canvases.wake_control("dispatch")


def _new_name(number: int) -> str:
    return f"Reported {number}"


_OUTGOING = text("""
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new' AND source = 'hull')
         + (SELECT count(*) FROM changes WHERE direction = 'outgoing')""")
_EVERYTHING = text("""
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new') + (SELECT count(*) FROM changes)
         + (SELECT count(*) FROM batches WHERE state IN ('ready', 'running'))""")


def _wait_for_outgoing() -> None:
    """Until nothing is left to be sent; what cannot be sent now is not waited for longer than a minute."""
    _wait(_OUTGOING, 60.0)


def _wait_for_everything() -> int:
    return _wait(_EVERYTHING, PATIENCE_S)


def _wait(query: Any, patience_s: float) -> int:
    from db.session import transaction

    started = time.monotonic()
    while True:
        with transaction() as session:
            left = int(session.execute(query).scalar_one())
        if not left or time.monotonic() - started > patience_s:
            return left
        time.sleep(POLL_S)


def _failures() -> dict[str, int]:
    from db.session import transaction

    query = text("SELECT direction || ' ' || reason AS what, count(*) FROM failures WHERE state = 'open' GROUP BY 1")
    with transaction() as session:
        return {row.what: row[1] for row in session.execute(query)}


def _persons(running: Stage) -> list[dict[str, Any]]:
    answer = requests.get(f"{running.pipedrive_url}/__sandbox__/export?entity=person", timeout=60)
    return [orjson.loads(line) for line in answer.iter_lines() if line]


def _emails(running: Stage) -> list[str]:
    return [each["value"] for person in _persons(running) for each in person["emails"]]


def _names(running: Stage) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for person in _persons(running):
        for each in person["emails"]:
            names.setdefault(each["value"], set()).add(person["name"])
    return names


def _stats(running: Stage) -> dict[str, int]:
    stats = requests.get(f"{running.pipedrive_url}/__sandbox__/stats", timeout=30).json()
    return dict(stats["requests"])


def _order(url: str, body: Any) -> None:
    requests.post(url, json=body, timeout=30).raise_for_status()


if __name__ == "__main__":
    sys.exit(main())
