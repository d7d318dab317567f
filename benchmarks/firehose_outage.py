"""Creates while Hull's firehose is unavailable: a Person that a salesperson creates in that time must not be created again.

    python -m benchmarks.firehose_outage --persons 20 [--json]

Real workers, after a full fetch. The sandbox's Hull answers 503 on its firehose, so nothing can be delivered to Hull. Persons are
created in Pipedrive, and Hull reports Users with the same e-mails, one after the other: one of them immediately, the others when
the Persons are older than the overlap of two look-ups. Then the firehose answers again, and all work finishes. The check counts
the Persons of each e-mail in Pipedrive's export. Exit 1 if one was created twice, or a report did not reach its Person.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from benchmarks import drill
from benchmarks.full_fetch import fetch
from benchmarks.outgoing import prepare
from benchmarks.stage import FULL_HULL, Stage, stage, start_celery

PAUSE_S = 70.0
"""Longer than the minute that two look-ups overlap."""
PATIENCE_S = 300.0
SENT_S = 60.0
"""How long to wait until nothing is left to send; during the outage some changes cannot be sent."""
FAULT = {"path": "firehose", "kind": "status", "status": 503, "count": None}
OUTGOING = """
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new' AND source = 'hull')
         + (SELECT count(*) FROM changes WHERE direction = 'outgoing')"""
FAILURES = "SELECT direction || ' ' || reason AS what, count(*) AS n FROM failures WHERE state = 'open' GROUP BY 1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--known", type=int, default=200, help="Persons before the outage")
    parser.add_argument("--persons", type=int, default=20, help="Persons created manually during the outage")
    parser.add_argument("--new", type=int, default=5, help="Users without a matching Person")
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
            result = run(running, chosen.persons, chosen.new, pause_s=chosen.pause)
        finally:
            drill.kill(beat)
    drill.show(result, as_json=chosen.json)
    return 1 if result["doubled"] or result["missing"] or result["not_updated"] else 0


def run(running: Stage, persons: int, new: int, *, pause_s: float) -> dict[str, Any]:
    """Run the outage, and count its results."""
    before = _calls(running)
    started = time.monotonic()
    drill.control(running.hull_url, "faults", [FAULT])
    emails = [f"by-hand{number}@outage.example" for number in range(persons)]
    for number, email in enumerate(emails):
        fields = {"name": f"By Hand {number}", "emails": [{"value": email, "primary": True}]}
        drill.control(running.pipedrive_url, "create", {"entity": "person", "fields": fields})
    _report(running, 0, emails[0])
    time.sleep(pause_s)
    everyone = [*emails, *(f"new{number}@outage.example" for number in range(new))]
    for number, email in enumerate(everyone[1:], 1):
        _report(running, number, email)
    outage_s = time.monotonic() - started
    drill.control(running.hull_url, "faults", [])
    _wait(drill.LEFT, PATIENCE_S)
    found: Counter[str] = Counter()
    names: dict[str, set[str]] = {}
    for person in drill.export(running.pipedrive_url, "person"):
        for each in person["emails"]:
            found[each["value"]] += 1
            names.setdefault(each["value"], set()).add(person["name"])
    after = _calls(running)
    return {
        "persons_by_hand": persons,
        "users_reported": len(everyone),
        "outage_s": round(outage_s, 1),
        "until_done_s": round(time.monotonic() - started - outage_s, 1),
        "doubled": sum(1 for email in everyone if found[email] > 1),
        "missing": sum(1 for email in everyone if not found[email]),
        "not_updated": sum(
            1 for number, email in enumerate(everyone) if _new_name(number) not in names.get(email, set())
        ),
        "left_to_do": drill.scalar(drill.LEFT),
        "failures": {row.what: row.n for row in drill.rows(FAILURES)},
        "calls": {call: count - before.get(call, 0) for call, count in after.items() if count != before.get(call, 0)},
    }


def _report(running: Stage, number: int, email: str) -> None:
    """Let Hull report one User, in a notification of its own, and wait until it is sent."""
    message = drill.user_message({"id": f"d{number:023x}", "email": email, "name": _new_name(number)})
    drill.notify(running.connector_key, f"outage-{time.monotonic_ns()}", [message])
    _wait(OUTGOING, SENT_S)


def _new_name(number: int) -> str:
    return f"Reported {number}"


def _wait(query: str, timeout_s: float) -> None:
    with suppress(TimeoutError):  # the result shows what is left
        drill.wait_until(lambda: not drill.scalar(query), timeout_s, "work is left")


def _calls(running: Stage) -> dict[str, int]:
    return dict(drill.control(running.pipedrive_url, "stats")["requests"])


if __name__ == "__main__":
    sys.exit(main())
