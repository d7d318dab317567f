"""Plans of new settings for every known record: their results, and how long they take.

python -m benchmarks.planning --persons 100000 [--json]

First a full fetch, then a notification for every User, so that both sides are known. Three plans: one more incoming attribute,
one more outgoing attribute, and both together. They are computed in this process, as in a worker. The last plan is applied:
`apply_s` is how long the operator waits; workers then process the records.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from benchmarks import drill, outgoing
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
        drill.show(each, each["plan"])


def _plan(running: Stage, name: str) -> dict[str, Any]:
    from db import connector as connectors
    from db.plan import SettingsPlan
    from db.session import transaction
    from pipeline.jobs.plans import compute, create

    with transaction() as session:
        document = dict(connectors.settings_in_force(session, running.connector_key).document)
    outgoing_row = {"hull": "phone", "service": drill.custom_text_field(running)}  # every report has it
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


if __name__ == "__main__":
    main()
