"""Simulate a busy hour of a company: edits, creations, deletions and merges all the time, and every kind of fault once.

    python -m benchmarks.hour [--persons 20000] [--edits-per-s 10] [--minutes 60] [--speed 6] [--seed 1] [--json]

At speed 6 the hour takes ten minutes: a sales team acts six times as often, and Pipedrive's retries, bans and delays, the outage
and the pauses between webhook checks are six times as short. The pipeline's own margins (5 s before a walk, 60 s of overlap, 60 s
before a change counts as missed) are not shortened, so the shortest interval of incremental fetches is two minutes. A tenth of
the webhooks is lost, a tenth arrives twice, and all arrive in another order. The web process is down for ten minutes. The token is
revoked once, and a user authorizes the app again.

Throughout, a witness that reads only the two remote systems checks each watermark. Exit 1 if a watermark was wrong, if anything
differs at the end, or if `pipeline verify` misses one of ten planted differences.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from benchmarks import drill, journal
from benchmarks.hour_records import explain
from benchmarks.hour_system import HourSystem, processes
from benchmarks.hour_witness import Witness
from benchmarks.stage import FULL_HULL, stage
from sandbox import serve
from sandbox.pipedrive.oauth import Client

OUTAGE_MIN, INTERVAL_S, CHECKED_EVERY_S = 10.0, 300.0, 900.0
SHORTEST_INTERVAL_S = 120.0
"""Changes within the minute before a walk are never reported as a gap, so more frequent walks would report none."""
RETRY_AFTER_S, BAN_S, DELAY_S = (3.0, 30.0, 150.0), 1_800.0, 60.0
FRESH_S = 65.0
"""Age of a delivery from which `verify` reports a record that Hull's search does not show."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=20_000)
    parser.add_argument("--edits-per-s", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--speed", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--patience-s", type=float, default=900.0, help="maximum time until no work is left")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    port, app = serve.free_port(), Client()
    own = {"PUBLIC_URL": f"http://127.0.0.1:{port}", "PORT": str(port), "PIPEDRIVE_CLIENT_ID": app.id}
    own |= {"PIPEDRIVE_CLIENT_SECRET": app.secret}
    sizes = {"persons": chosen.persons, "organizations": chosen.persons // 5}
    with (
        drill.ended_by_signals() as interrupts,
        stage(
            **sizes, hull=FULL_HULL, pipedrive=journal.FACTORY, worker_processes=1, seed=chosen.seed, environment=own
        ) as running,
        processes(running, chosen.patience_s, interrupts) as home,
    ):
        result = {"persons": chosen.persons, "minutes": chosen.minutes, "speed": chosen.speed, "seed": chosen.seed}
        result |= _run(home, Witness(running), chosen)
    drill.show(result, as_json=chosen.json)
    return 1 if result["failed_checks"] else 0


def _run(home: HourSystem, witness: Witness, chosen: argparse.Namespace) -> dict[str, Any]:
    home.mark_deletions()
    home.authorize()
    home.fetch_all()
    home.schedule(max(SHORTEST_INTERVAL_S, INTERVAL_S / chosen.speed))
    witness.strange = witness.unlike(time.time())
    home.tick("ensure_webhooks")
    home.wait_until_idle()
    home.trouble(chosen.seed, RETRY_AFTER_S, BAN_S, DELAY_S, chosen.speed)
    witness.watch()
    began = time.monotonic()
    outage = _live(home, chosen)
    acted = home.pipedrive("team", {"rate": 0})["counts"]
    home.stop_trouble()
    ended = time.monotonic()
    home.wait_until_idle()
    home.fetch_all()
    home.wait_until_idle()
    took_s = time.monotonic() - ended
    time.sleep(FRESH_S)
    witness.stop()
    unlike, one_side = witness.unlike(time.time()), witness.on_one_side()
    doubted = {entity: unlike[entity] | one_side[entity] for entity in unlike}
    for entity, _, ids in witness.false:
        doubted[entity] |= set(ids)
    explained = explain(witness, doubted)
    named = home.gaps_between(outage[0], time.time())
    return _checked(home, witness, unlike, one_side, named) | {
        "explained": explained,
        "load_average": round(os.getloadavg()[0], 1),
        "wall_s": round(ended - began),
        "actions": sum(acted.values()),
        "by_kind": acted,
        "deliveries": home.pipedrive("deliveries")["counts"],
        "outage_s": round(outage[1] - outage[0]),
        "gap_reports": home.gap_reports(),
        "gap_reports_since_the_outage": named,
        "converged_after_s": round(took_s),
        "tokens": home.tokens(),
        "recreated_webhooks": home.recreated(),
    }


def _live(home: HourSystem, chosen: argparse.Namespace) -> tuple[float, float]:
    """Run the hour; return when the outage began and ended, in seconds since the epoch."""
    whole_s = 60 * chosen.minutes / chosen.speed
    outage_s = min(60 * OUTAGE_MIN / chosen.speed, whole_s / 6)
    home.pipedrive("team", {"rate": chosen.edits_per_s * chosen.speed, "seed": chosen.seed})
    checks = CHECKED_EVERY_S / chosen.speed
    home.wait(whole_s / 3, checks)
    outage_from = time.time()
    home.stop_web()
    home.wait(outage_s, checks)
    home.start_web()
    outage_to = time.time()
    home.wait(whole_s / 6, checks)
    home.pipedrive("oauth", {"now": "revoke"})
    home.wait(whole_s / 20, checks)
    home.authorize()
    home.wait(whole_s - outage_s - whole_s * (1 / 3 + 1 / 6 + 1 / 20), checks)
    return outage_from, outage_to


def _checked(
    home: HourSystem,
    witness: Witness,
    unlike: dict[str, set[int]],
    one_side: dict[str, set[int]],
    named: dict[str, dict[str, int]],
) -> dict[str, Any]:
    first = home.verify()
    planted = home.plant(witness)
    found = home.verify(repair=True)
    home.wait_until_idle()
    time.sleep(FRESH_S)
    last = home.verify()
    failed = {
        "a watermark was wrong": bool(witness.false),
        "the witness saw no watermark move": not witness.claims,
        "Hull differs from Pipedrive": any(unlike.values()) or any(one_side.values()),
        "no gap report after the outage": not named,
        "verify found differences": bool(first["findings"]),
        "verify did not find exactly the planted differences": sorted(found["findings"]) != sorted(planted),
        "a repair left differences": bool(last["findings"]),
    }
    return {
        "failed_checks": [name for name, has_failed in failed.items() if has_failed],
        "watermarks_witnessed": dict(witness.claims),
        "watermarks_false": [(entity, str(moment), ids[:20]) for entity, moment, ids in witness.false],
        "witness_troubles": dict(witness.troubles),
        "different_from_the_start": {entity: len(ids) for entity, ids in witness.strange.items()},
        "unlike": {entity: sorted(ids)[:20] for entity, ids in unlike.items()},
        "on_one_side": {entity: sorted(ids)[:20] for entity, ids in one_side.items()},
        "verify": first,
        "planted_and_found": f"{len(set(planted) & set(found['findings']))} of {len(planted)}",
        "verify_of_the_planted": found,
        "verify_after_repair": last,
    }


if __name__ == "__main__":
    sys.exit(main())
