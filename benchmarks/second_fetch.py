"""A second full fetch of the same records takes no longer than the first, even without autovacuum.

python -m benchmarks.second_fetch [--persons 100000] [--organizations 0] [--autovacuum off|on] [--most 1.3] [--json]

Both fetches send everything. Exit 1 if the second took more than `--most` times the first, by the clock and by CPU: on a shared
machine the clock alone is not reliable.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from sqlalchemy import text

from benchmarks import drill
from benchmarks.full_fetch import fetch
from benchmarks.stage import stage

FLOWS = ("first fetch", "second fetch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=100_000)
    parser.add_argument("--organizations", type=int, default=0)
    parser.add_argument("--autovacuum", choices=("off", "on"), default="off")
    parser.add_argument("--most", type=float, default=1.3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with stage(persons=chosen.persons, organizations=chosen.organizations) as running:
        set_autovacuum(chosen.autovacuum)
        results = [fetch(running, flow, changed_only=False) for flow in FLOWS]
        analysed = tables_analysed()
    found = {"autovacuum": chosen.autovacuum, "tables_analysed": analysed, **_ratios(*results), "flows": results}
    if chosen.json:
        print(json.dumps(found))
    else:
        _show(found)
    is_done = all(result["states"] == ["done"] for result in results)
    sys.exit(0 if is_done and min(found["wall"], found["cpu"]) <= chosen.most else 1)


def set_autovacuum(choice: str) -> None:
    """Switch autovacuum for the whole server, which belongs to the benchmark."""
    from db.session import engine

    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"ALTER SYSTEM SET autovacuum = {choice}"))
        connection.execute(text("SELECT pg_reload_conf()"))


def tables_analysed() -> int:
    """Return the number of tables with statistics: 0 with autovacuum off."""
    query = "SELECT count(*) FROM pg_stat_user_tables WHERE last_analyze IS NOT NULL OR last_autoanalyze IS NOT NULL"
    return int(drill.scalar(query))


def _ratios(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    """Return the ratio of the second to the first, per record: by the clock, by CPU, and by PostgreSQL's CPU."""

    def of(result: dict[str, Any]) -> dict[str, float]:
        cpu = result["cpu_us_per_record"]
        wall_us = (
            1e6 * result["waited_s"] / result["records"]
        )  # with the search for deletions, which ends after the run
        return {"wall": wall_us, "cpu": sum(cpu.values()), "cpu_postgres": cpu["postgres"]}

    before, after = of(first), of(second)
    return {name: round(after[name] / max(1.0, before[name]), 2) for name in before}


def _show(found: dict[str, Any]) -> None:
    for flow in found["flows"]:
        print(f"\n{flow['flow']}: {flow['records']} records in {flow['waited_s']} s, {flow['records_per_s']} a second")
        print(f"  CPU µs per record: {flow['cpu_us_per_record']}")
    print(f"\nautovacuum {found['autovacuum']}, {found['tables_analysed']} tables analysed")
    print(
        f"second to first: {found['wall']} by the clock, {found['cpu']} by CPU, {found['cpu_postgres']} by PostgreSQL's CPU"
    )


if __name__ == "__main__":
    main()
