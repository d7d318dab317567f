"""Outages of Pipedrive (503) and of Hull's firehose (500) while there is much work; all work continues automatically afterwards.

    python -m benchmarks.outage --seconds 600 [--persons 3000] [--json]

During Pipedrive's outage a full fetch and new Users of Hull wait; during the firehose's outage, another full fetch. The result has
the number of failed calls, and how long after the outage everything was done. Exit 1 if a Failure is open, a run stopped, or the
two sides differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from benchmarks import drill
from benchmarks.kill_fetch import compare
from benchmarks.outgoing import MAPPED
from benchmarks.stage import FULL_HULL, Stage, stage, start_celery

INVENTED = "person: hull_id of the mapping differs"
"""The new Users have ids of this drill; the sandbox's Hull gives them other ids."""
EXPECTED = {"too_long"}
"""Reasons of fields that are left out without an outage too: texts of the sandbox's company that are too long for Hull."""
PATIENCE_S = 600.0
POLL_S = 0.5
PIPEDRIVE = {"path": "/api/", "kind": "status", "status": 503, "count": None}
FIREHOSE = {"path": "firehose", "kind": "status", "status": 500, "count": None}
FAILURES = "SELECT kind = 'field' AS of_field, reason, count(*) AS n FROM failures WHERE state = 'open' GROUP BY 1, 2"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="length of each outage")
    parser.add_argument("--persons", type=int, default=3_000)
    parser.add_argument("--organizations", type=int, default=600)
    parser.add_argument("--users", type=int, default=100, help="new Users of Hull during Pipedrive's outage")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    sizes = {"persons": chosen.persons, "organizations": chosen.organizations}
    with stage(**sizes, hull=FULL_HULL, worker_processes=2) as running:
        beat = start_celery("beat")
        try:
            drill.change_settings(
                running.connector_key,
                outgoing_user_attributes=MAPPED[:2],
                synchronized_user_segments=["ALL"],
            )
            results = [
                _run(running, "pipedrive", running.pipedrive_url, PIPEDRIVE, chosen.seconds, users=chosen.users),
                _run(running, "firehose", running.hull_url, FIREHOSE, chosen.seconds, users=0),
            ]
            problems = compare(running)
            problems[INVENTED] -= chosen.users
            problems = +problems
        finally:
            drill.kill(beat)
    holds = not problems and all(_has_recovered(each) for each in results)
    if chosen.json:
        print(json.dumps({"outages": results, "problems": dict(problems), "holds": holds}))
    else:
        for each in results:
            drill.show(each, each["remote"])
        for problem, count in problems.items():
            print(f"  {problem}: {count}")
        print("all work continued automatically" if holds else "NOT ALL WORK CONTINUED AUTOMATICALLY")
    return 0 if holds else 1


def _has_recovered(result: dict[str, Any]) -> bool:
    return not result["failures"] and result["fields_left"].keys() <= EXPECTED and result["runs"] == {"done": 2}


def _run(running: Stage, remote: str, url: str, fault: dict[str, Any], seconds: float, *, users: int) -> dict[str, Any]:
    from pipeline.domain.kinds import Entity
    from pipeline.sync.runs.runs import start_run

    drill.control(url, "faults", [fault])
    ids = [start_run(running.connector_key, entity, cause="drill") for entity in Entity]
    if users:
        new = [
            {"id": f"f{number:023x}", "email": f"during{number}@fresh.example", "name": f"During {number}"}
            for number in range(users)
        ]
        drill.notify(running.connector_key, "outage", [drill.user_message(user) for user in new])
    ends_at = time.monotonic() + seconds
    failed: dict[str, int] = {}
    while time.monotonic() < ends_at:
        time.sleep(POLL_S)
        failed = {row.remote: row.failures for row in drill.rows("SELECT remote, failures FROM outages")} or failed
    during = _runs(ids)
    drill.control(url, "faults", [])
    ended = time.monotonic()
    with suppress(TimeoutError):  # the result shows what is left
        drill.wait_until(lambda: not drill.left_to_do(drill.UNRESOLVED), PATIENCE_S, "work is left", every_s=POLL_S)
    failures = drill.rows(FAILURES)
    return {
        "remote": remote,
        "outage_s": seconds,
        "failed_calls": failed,
        "runs_during_outage": during,
        "done_after_s": round(time.monotonic() - ended, 1),
        "runs": _runs(ids),
        "failures": {row.reason: row.n for row in failures if not row.of_field},
        "fields_left": {row.reason: row.n for row in failures if row.of_field},
    }


def _runs(ids: list[int]) -> dict[str, int]:
    return dict(Counter(row.state for row in drill.rows("SELECT state FROM runs WHERE id = ANY(:ids)", ids=ids)))


if __name__ == "__main__":
    sys.exit(main())
