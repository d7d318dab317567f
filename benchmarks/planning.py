"""Plans of new settings over every known record: what they find, and how long they take.

python -m benchmarks.planning --persons 100000 [--json]

A full fetch first, then a notification for every User, so that both sides are known. Three plans: one more incoming attribute,
one more outgoing attribute, and both at once. Computed in this process, as a worker would; the last one is applied: `apply_s` is
how long the person waits, before workers carry out what it says.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import requests

from benchmarks import outgoing
from benchmarks.full_fetch import fetch
from benchmarks.stage import Stage, stage

INCOMING = {"hull": "pipedrive/visible", "service": "visible_to"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with stage(persons=chosen.persons, organizations=0) as running:
        fetch(running, "first", changed_only=False)
        outgoing.prepare(running)
        outgoing.send(running, "as they are", list(outgoing.as_they_are(running)), 0)
        found = [_plan(running, name) for name in ("incoming", "outgoing", "both")]
    if chosen.json:
        print(json.dumps(found))
        return
    for each in found:
        print("\n".join([f"\n{each['plan']}", *(f"  {name:18} {value}" for name, value in each.items())]))


def _plan(running: Stage, name: str) -> dict[str, Any]:
    from db import connector as connectors
    from db.plan import SettingsPlan
    from db.session import transaction
    from pipeline.jobs.plans import compute, create

    with transaction() as session:
        document = dict(connectors.settings_in_force(session, running.connector_key).document)
    outgoing_row = {"hull": "phone", "service": _text_field(running)}  # every report says something of it
    for direction, row in (("incoming", INCOMING), ("outgoing", outgoing_row)):
        if name in (direction, "both"):
            document[f"{direction}_user_attributes"] = [*document[f"{direction}_user_attributes"], row]
    begun = time.monotonic()
    with transaction() as session:
        plan_id = create.make_plan(session, running.connector_key, document, author="benchmark", force=True).id
    compute.compute_now(plan_id, float("inf"))
    wall_s = time.monotonic() - begun
    with transaction() as session:
        plan = session.get_one(SettingsPlan, plan_id)
    return {
        "plan": name,
        "state": plan.state,
        "examined": plan.examined,
        "wall_s": round(wall_s, 2),
        "records_per_s": round(plan.examined / wall_s),
        "tokens": plan.tokens,
        **({"apply_s": _apply(plan_id)} if name == "both" else {}),
    }


def _apply(plan_id: int) -> float:
    from db.session import transaction
    from pipeline.jobs.plans import apply

    begun = time.monotonic()
    with transaction() as session:
        applied = apply.apply(session, plan_id, author="benchmark", confirmed=-1)
    assert applied.left_out == 0
    return round(time.monotonic() - begun, 2)


def _text_field(running: Stage) -> str:
    headers = {"x-api-token": running.credentials.api_token}
    answer = requests.get(f"{running.pipedrive_url}/api/v2/personFields?limit=500", headers=headers, timeout=30).json()
    return next(
        str(each["field_code"])
        for each in answer["data"]
        if each["is_custom_field"] and each["field_type"] == "varchar"
    )


if __name__ == "__main__":
    main()
