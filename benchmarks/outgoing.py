"""Outgoing: updates and creates a second, CPU by process, tokens; the same with nothing changed, and under a burst limit.

python -m benchmarks.outgoing --persons 4000 --updates 4000 --creates 2000 [--limit 80] [--json]
python -m benchmarks.outgoing --persons 100000 --export --limit 20 [--json]

`--export` sends every Person's User, one in a hundred of them changed, as Hull does when all Users are sent by hand.
Hull's notifications are laid into the table of deliveries as the web process lays them there, 100 messages to each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import orjson
import requests
from sqlalchemy import text

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

Message = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--persons", type=int, default=4_000)
    parser.add_argument("--updates", type=int, default=4_000)
    parser.add_argument("--creates", type=int, default=2_000)
    parser.add_argument("--limit", type=int, default=0, help="calls in two seconds that Pipedrive allows; 0 is without")
    parser.add_argument("--export", action="store_true", help="send all of them by hand, one in a hundred changed")
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
            print("\n".join([f"\n{result['flow']}", *(f"  {name:18} {value}" for name, value in result.items())]))


def _flows(running: Stage, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    known = _known(running, min(chosen.updates, chosen.persons))
    return [
        send(running, "updates", list(_updates(known, "a")), chosen.limit),
        send(running, "unchanged", list(_updates(known, "a")), chosen.limit),
        send(running, "creates", list(_creates(chosen.creates)), chosen.limit),
    ]


def _export(running: Stage, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Twice: of the first, one in a hundred is changed; of the second, nobody is."""
    messages = list(as_they_are(running))
    for message in messages[::CHANGED_ONE_IN]:
        message["user"]["name"] += " II"
    return [send(running, flow, messages, chosen.limit) for flow in ("export", "export again")]


def prepare(running: Stage) -> None:
    """Outgoing attributes and segments, and a Hull id for every Person, as if the resolver had been there."""
    from db import connector as connectors
    from db.session import transaction

    with transaction() as session:
        now = connectors.settings_in_force(session, running.connector_key).document
        more = {"outgoing_user_attributes": MAPPED[:2], "synchronized_user_segments": ["ALL"]}
        connectors.add_settings(session, running.connector_key, now | more, author="benchmark")
        session.execute(text("UPDATE id_mappings SET hull_id = lpad(to_hex(pipedrive_id), 24, '0'), resolve_at = NULL"))


def _known(running: Stage, count: int) -> list[str]:
    from db.session import transaction

    query = text("SELECT hull_id FROM id_mappings WHERE connector_key = :c ORDER BY pipedrive_id LIMIT :n")
    with transaction() as session:
        return list(session.scalars(query, {"c": running.connector_key, "n": count}))


def _updates(hull_ids: list[str], mark: str) -> Iterator[Message]:
    for hull_id in hull_ids:
        user = {"id": hull_id, "name": f"Renamed {mark} {hull_id[-6:]}", "phone": f"+372 {int(hull_id, 16):08}"}
        yield {"user": user, "account": {}, "segments": [], "changes": {"user": {"name": ["x", user["name"]]}}}


def as_they_are(running: Stage) -> Iterator[Message]:
    """What Hull says of every Person when it holds what Pipedrive holds."""
    url = f"{running.pipedrive_url}/__sandbox__/export?entity=person"
    with requests.get(url, stream=True, timeout=600) as response:
        for line in response.iter_lines():
            person = orjson.loads(line)
            phone = next((each["value"] for each in person["phones"] if each["primary"]), None)
            user = {"id": f"{person['id']:024x}", "name": person["name"], "phone": phone}
            yield {"user": user, "account": {}, "segments": [], "changes": {}}


def _creates(count: int) -> Iterator[Message]:
    for number in range(count):
        user = {"id": f"c{number:023x}", "email": f"new{number}@fresh.example", "name": f"New Person {number}"}
        yield {"user": user, "account": {}, "segments": [], "changes": {"user": {"name": [None, user["name"]]}}}


def send(running: Stage, flow: str, messages: list[Message], limit: int) -> dict[str, Any]:
    """Hand the messages over, wait until all were carried out, and say what it took."""
    from pipeline.tasks import canvases

    _deliver(running, flow, messages)
    before, cpu_before, started = _stats(running), running.cpu_s(), time.monotonic()
    canvases.wake_control("dispatch")
    _wait(started)
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
    from db import delivery as deliveries
    from db.session import transaction

    with transaction() as session:
        for at in range(0, len(messages), PER_NOTIFICATION):
            body = {"notification_id": f"{flow}-{at}", "channel": "user:update", "is_export": flow.startswith("export")}
            body["messages"] = messages[at : at + PER_NOTIFICATION]
            key = f"{flow}-{time.monotonic_ns()}-{at}"
            deliveries.keep_delivery(session, running.connector_key, "hull", key, orjson.dumps(body))


_LEFT = text("""
    SELECT (SELECT count(*) FROM deliveries WHERE state = 'new') + (SELECT count(*) FROM changes)
         + (SELECT count(*) FROM batches WHERE state IN ('ready', 'running') AND direction = 'outgoing')""")


def _wait(started: float) -> None:
    from db.session import transaction

    while time.monotonic() - started < LIMIT_S:
        with transaction() as session:
            if not session.execute(_LEFT).scalar_one():
                return
        time.sleep(POLL_S)
    raise TimeoutError(f"not done after {LIMIT_S:g} s")


def _stats(running: Stage) -> dict[str, int]:
    """What Pipedrive answered, what it refused for being too many, and the tokens it counted."""
    stats = requests.get(f"{running.pipedrive_url}/__sandbox__/stats", timeout=30).json()
    refused = stats["statuses"].get("429", 0)
    return {
        "answered": sum(stats["statuses"].values()) - refused,
        "refused": refused,
        "tokens": stats["tokens_total"],
    }


if __name__ == "__main__":
    main()
