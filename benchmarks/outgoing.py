"""Outgoing work: updates and creates per second, CPU by process, tokens; also without changes, and under a burst limit.

python -m benchmarks.outgoing --persons 4000 --updates 4000 --creates 2000 [--limit 80] [--json]
python -m benchmarks.outgoing --persons 100000 --export --limit 20 [--json]

`--export` sends the User of every Person, one in a hundred of them changed, as Hull does when all Users are sent manually.
Hull's notifications are stored in the table of deliveries as by the web process, with 100 messages each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import drill
from benchmarks.full_fetch import fetch
from benchmarks.stage import Stage, stage

PER_NOTIFICATION = 100
POLL_S = 0.1
LIMIT_S = 600.0
CHANGED_ONE_IN = 100
WINDOW_S = 2.0
MAPPED = [
    {"hull": "name", "service": "name"},
    {"hull": "phone", "service": "phone"},
    {"hull": "job", "service": "label_ids"},
]

LEFT = """
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new') + (SELECT count(*) FROM changes)
         + (SELECT count(*) FROM batches WHERE state IN ('ready', 'running') AND direction = 'outgoing')"""
"""How much is left without the read-backs."""

Message = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=4_000)
    parser.add_argument("--updates", type=int, default=4_000)
    parser.add_argument("--creates", type=int, default=2_000)
    parser.add_argument(
        "--limit", type=int, default=0, help="calls in two seconds that Pipedrive allows; 0 for no limit"
    )
    parser.add_argument("--export", action="store_true", help="send all Users manually, one in a hundred changed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with stage(
        persons=chosen.persons,
        organizations=0,
        worker_processes=chosen.processes,
        burst_limit=chosen.limit,
    ) as running:
        fetch(running, "first", changed_only=False)
        prepare(running)
        results = _export(running, chosen) if chosen.export else _flows(running, chosen)
    if chosen.json:
        print(json.dumps(results))
    else:
        for result in results:
            drill.show(result, result["flow"])


def _flows(running: Stage, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    known = _known(running, min(chosen.updates, chosen.persons))
    return [
        send(running, "updates", list(_updates(known, "a")), chosen.limit),
        send(running, "unchanged", list(_updates(known, "a")), chosen.limit),
        send(running, "creates", list(_creates(chosen.creates)), chosen.limit),
    ]


def _export(running: Stage, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Send all Users twice: the first time one in a hundred is changed, the second time none."""
    messages = list(as_they_are(running))
    for message in messages[::CHANGED_ONE_IN]:
        message["user"]["name"] += " II"
    return [send(running, flow, messages, chosen.limit) for flow in ("export", "export again")]


def prepare(running: Stage) -> None:
    """Set outgoing attributes and segments, and give every Person a Hull id."""
    drill.change_settings(
        running.connector_key, outgoing_user_attributes=MAPPED[:2], synchronized_user_segments=["ALL"]
    )
    drill.execute("UPDATE id_mappings SET hull_id = lpad(to_hex(pipedrive_id), 24, '0'), resolve_at = NULL")


def _known(running: Stage, count: int) -> list[str]:
    query = "SELECT hull_id FROM id_mappings WHERE connector_key = :c ORDER BY pipedrive_id LIMIT :n"
    return [row.hull_id for row in drill.rows(query, c=running.connector_key, n=count)]


def _updates(hull_ids: list[str], mark: str) -> Iterator[Message]:
    for hull_id in hull_ids:
        user = {"id": hull_id, "name": f"Renamed {mark} {hull_id[-6:]}", "phone": f"+372 {int(hull_id, 16):08}"}
        yield drill.user_message(user, "x")


def as_they_are(running: Stage) -> Iterator[Message]:
    """Yield Hull's report of every Person, with Pipedrive's values."""
    for person in drill.export(running.pipedrive_url, "person"):
        phone = next((each["value"] for each in person["phones"] if each["primary"]), None)
        user = {"id": f"{person['id']:024x}", "name": person["name"], "phone": phone}
        yield {"user": user, "account": {}, "segments": [], "changes": {}}


def _creates(count: int) -> Iterator[Message]:
    for number in range(count):
        user = {"id": f"c{number:023x}", "email": f"new{number}@fresh.example", "name": f"New Person {number}"}
        yield drill.user_message(user)


def send(running: Stage, flow: str, messages: list[Message], limit: int) -> dict[str, Any]:
    """Store the messages, wait until all are processed, and return the figures."""
    from pipeline.tasks import canvases

    _deliver(running, flow, messages)
    before, cpu_before, started = _stats(running), running.cpu_s(), time.monotonic()
    canvases.wake_control("dispatch")
    drill.wait_until(lambda: not drill.scalar(LEFT), LIMIT_S, "not done", every_s=POLL_S)
    wall_s = time.monotonic() - started
    cpu = {part: spent - cpu_before[part] for part, spent in running.cpu_s().items()}
    after = _stats(running)
    calls = after["answered"] - before["answered"]
    count = len(messages)
    return {
        "flow": flow,
        "records": count,
        "wall_s": round(wall_s, 2),
        "records_per_s": round(count / wall_s),
        "calls": calls,
        "too_many": after["refused"] - before["refused"],
        "share_of_limit": round(calls / wall_s * WINDOW_S / limit, 3) if limit else None,
        "tokens_per_record": round((after["tokens"] - before["tokens"]) / count, 2),
        "cpu_us_per_record": {part: round(1e6 * spent / count) for part, spent in cpu.items()},
        "worker_peak_mb": round(running.worker_peak_mb()),
    }


def _deliver(running: Stage, flow: str, messages: list[Message]) -> None:
    for at in range(0, len(messages), PER_NOTIFICATION):
        drill.keep_notification(
            running.connector_key,
            f"{flow}-{time.monotonic_ns()}-{at}",
            messages[at : at + PER_NOTIFICATION],
            is_export=flow.startswith("export"),
        )


def _stats(running: Stage) -> dict[str, int]:
    """Return Pipedrive's numbers of answers, of refusals by its limits, and of tokens."""
    stats = drill.control(running.pipedrive_url, "stats")
    refused = stats["statuses"].get("429", 0)
    return {
        "answered": sum(stats["statuses"].values()) - refused,
        "refused": refused,
        "tokens": stats["tokens_total"],
    }


if __name__ == "__main__":
    main()
