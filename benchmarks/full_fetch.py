"""Full fetch: records per second, CPU by process, memory and tokens; then again, sending only changed records.

python -m benchmarks.full_fetch --persons 100000 --organizations 20000 [--hull full] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from benchmarks import drill
from benchmarks.stage import FULL_HULL, SINK, Stage, stage

POLL_S = 0.2
LIMIT_S = 900.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--organizations", type=int, default=20_000)
    parser.add_argument("--hull", choices=("sink", "full"), default="sink")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with stage(
        persons=chosen.persons,
        organizations=chosen.organizations,
        hull=SINK if chosen.hull == "sink" else FULL_HULL,
        worker_processes=chosen.processes,
    ) as running:
        results = [
            fetch(running, "full fetch", changed_only=False),
            fetch(running, "nothing changed", changed_only=True),
        ]
    if chosen.json:
        print(json.dumps(results))
    else:
        for result in results:
            drill.show(result, result["flow"])


def fetch(running: Stage, name: str, *, changed_only: bool) -> dict[str, Any]:
    """Run a full fetch of both entities, and return its figures."""
    from db.run import Run
    from db.session import transaction
    from pipeline.domain.kinds import Entity
    from pipeline.sync.runs.runs import start_run

    sent_before, cpu_before, started = _messages(running), running.cpu_s(), time.monotonic()
    ids = [start_run(running.connector_key, entity, cause="benchmark", changed_only=changed_only) for entity in Entity]
    while time.monotonic() - started < LIMIT_S:
        with transaction() as session:
            runs = [session.get_one(Run, run_id) for run_id in ids]
        if all(run.state != "running" for run in runs):
            break
        time.sleep(POLL_S)
    waited_s = time.monotonic() - started
    ended = max(run.finished_at for run in runs if run.finished_at)
    wall_s = (ended - min(run.started_at for run in runs)).total_seconds()
    records = sum(run.new + run.changed + run.same for run in runs)
    cpu = {part: spent - cpu_before[part] for part, spent in running.cpu_s().items()}
    return {
        "flow": name,
        "states": sorted({run.state for run in runs}),
        "records": records,
        "wall_s": round(wall_s, 2),
        "waited_s": round(waited_s, 2),
        "records_per_s": round(records / wall_s),
        "hull_messages": _messages(running) - sent_before,
        "tokens_per_1000": round(1000 * sum(run.tokens for run in runs) / records, 2),
        "cpu_us_per_record": {part: round(1e6 * spent / records) for part, spent in cpu.items()},
        "worker_peak_mb": round(running.worker_peak_mb()),
    }


def _messages(running: Stage) -> int:
    return int(drill.control(running.hull_url, "stats")["messages"])


if __name__ == "__main__":
    main()
