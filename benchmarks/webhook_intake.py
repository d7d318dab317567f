"""Webhooks: how soon they are answered, whether one is lost, and how soon their values are in Hull.

    python -m benchmarks.webhook_intake [--persons 40000] [--seconds 20] [--burst 5000] [--json]

The processes are those of `make up` without Flower. Four loads, one after the other:

    200/s                   200 webhooks a second, each about another Person
    burst                   5,000 webhooks, as fast as 16 connections allow
    to Hull                 50 edits a second in the sandbox's Pipedrive, which delivers the webhooks itself
    to Hull, with a fetch   the same, while full fetches run one after the other
"""

from __future__ import annotations

import argparse
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import orjson
import requests

from benchmarks import drill, load, sink
from benchmarks.stage import Stage, stage
from sandbox import serve
from sandbox.company import Company
from sandbox.pipedrive.payload import payload

STEADY_PER_S, LIVE_PER_S = 200.0, 50.0
CONNECTIONS = 16
PATIENCE_S = 180.0
POLL_S = 0.2
SEED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=40_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--burst", type=int, default=5_000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    port, intake_port = serve.free_port(), serve.free_port()
    sizes = {"persons": chosen.persons, "organizations": chosen.persons // 10}
    own = {
        "PUBLIC_URL": f"http://127.0.0.1:{port}", "PORT": str(port),
        "INTAKE_URL": f"http://127.0.0.1:{intake_port}", "INTAKE_PORT": str(intake_port),
    }  # fmt: skip
    with (
        stage(**sizes, hull=sink.FACTORY, worker_processes=1, seed=SEED, environment=own) as running,
        processes(running),
    ):
        hook = subscribe(running)
        fetch(running)
        company = Company(seed=SEED, **sizes)
        first = int(STEADY_PER_S * chosen.seconds) + 1
        steady = webhook_bodies(company, "steady", range(1, first))
        burst = webhook_bodies(company, "burst", range(first, first + chosen.burst))
        flows: dict[str, Callable[[], dict[str, Any]]] = {
            "200/s": lambda: _take_in(running, hook, steady, per_second=STEADY_PER_S),
            "burst": lambda: _take_in(running, hook, burst, per_second=None),
            "to Hull": lambda: _to_hull(running, "quiet", chosen.seconds, between=lambda: None),
            "to Hull, with a fetch": lambda: _to_hull(running, "busy", chosen.seconds, between=_fetcher(running)),
        }
        for name, measure in flows.items():
            figures = {"load_average": round(os.getloadavg()[0], 1), **measure()}
            drill.show({"flow": name, **figures} if chosen.json else figures, name, as_json=chosen.json)


@contextmanager
def processes(running: Stage) -> Iterator[None]:
    """Run the processes of `make up` except Flower instead of the stage's worker."""
    from pipeline.tasks.app import app

    with drill.pipeline_processes(running, lambda name: name != "flower") as children:
        running.roots.update(children.pids())
        drill.wait_until(lambda: len(app.control.ping(timeout=0.5)) >= 2, 60, "the workers did not answer")
        yield


def subscribe(running: Stage) -> dict[str, str]:
    """Subscribe to webhooks; return the address and the headers with Pipedrive's credentials."""
    from pipeline.sync.connectors.webhooks import ensure_webhooks

    ensure_webhooks(running.connector_key)
    listed = requests.get(
        f"{running.pipedrive_url}/api/v1/webhooks", headers={"x-api-token": running.credentials.api_token}, timeout=10
    ).json()["data"][0]
    basic = b64encode(f"{listed['http_auth_user']}:{listed['http_auth_password']}".encode()).decode()
    return {"url": listed["subscription_url"], "Authorization": f"Basic {basic}", "Content-Type": "application/json"}


def webhook_bodies(company: Company, load_name: str, person_ids: range) -> list[bytes]:
    """Return a webhook about each of these Persons, with a mark in the name."""
    bodies: list[bytes] = []
    subscription = {"id": 1, "type": "general", "version": "2.0", "owner_id": 1}
    company.listeners[:] = [lambda event: bodies.append(orjson.dumps(payload(company, event, subscription)))]
    for number, person_id in enumerate(person_ids):
        company.edit_person(person_id, name=f"mark-{load_name}-{number}")
    return bodies


def _take_in(running: Stage, hook: dict[str, str], bodies: list[bytes], *, per_second: float | None) -> dict[str, Any]:
    headers = {name: value for name, value in hook.items() if name != "url"}
    cpu_before, before = running.cpu_s(), drill.scalar("SELECT count(*) FROM deliveries")
    sent = load.post_all(hook["url"], bodies, headers, per_second=per_second, connections=CONNECTIONS)
    kept = drill.scalar("SELECT count(*) FROM deliveries") - before
    marks = {mark.decode() for body in bodies for mark in sink.MARK.findall(body)}
    began = time.monotonic()
    arrived = _wait_for(running, marks)
    return {
        "webhooks": len(bodies),
        "statuses": dict(sent.statuses),
        "per_s": round(len(bodies) / sent.took_s),
        "p50_ms": sent.quantile_ms(0.5),
        "p99_ms": sent.quantile_ms(0.99),
        "max_ms": sent.quantile_ms(1.0),
        "not_kept": len(bodies) - kept,
        "never_in_hull": len(marks) - len(arrived),
        "all_in_hull_after_s": round(time.monotonic() - began, 1),
        "cpu_s": _spent(running, cpu_before),
    }


def _to_hull(running: Stage, name: str, seconds: int, *, between: Callable[[], object]) -> dict[str, Any]:
    """Measure from the storage of a delivery, a few milliseconds before its 2xx, until Hull has the value."""
    begun = drill.scalar("SELECT now()")
    cpu_before, batches_before = running.cpu_s(), drill.scalar("SELECT count(*) FROM batches WHERE queue = 'live'")
    marks = _edit(running, name, int(LIVE_PER_S * seconds), between)
    arrived = _wait_for(running, marks)
    rows = drill.rows("SELECT body, received_at FROM deliveries WHERE received_at >= :b", b=begun)
    stored: dict[str, datetime] = {}
    for body, received_at in rows:
        for mark in sink.MARK.findall(bytes(body)):
            stored.setdefault(mark.decode(), received_at)
    waits = load.Outcome(
        waits_s=[arrived[mark] - stored[mark].timestamp() for mark in marks & arrived.keys() & stored.keys()]
    )
    return {
        "edits": len(marks),
        "p50_ms": waits.quantile_ms(0.5),
        "p95_ms": waits.quantile_ms(0.95),
        "max_ms": waits.quantile_ms(1.0),
        "not_kept": len(marks - stored.keys()),
        "never_in_hull": len(marks - arrived.keys()),
        "live_batches": drill.scalar("SELECT count(*) FROM batches WHERE queue = 'live'") - batches_before,
        "cpu_s": _spent(running, cpu_before),
    }


def _edit(running: Stage, name: str, count: int, between: Callable[[], object]) -> set[str]:
    """Edit one Person after the other at a steady rate, like a user of Pipedrive; return the marks.

    Some Persons of the company are deleted, and cannot be edited.
    """
    begin, marks = time.monotonic(), set[str]()
    with requests.Session() as session:
        for number in range(count):
            time.sleep(max(0.0, begin + number / LIVE_PER_S - time.monotonic()))
            mark = f"mark-{name}-{number}"
            body = {"entity": "person", "id": number + 1, "fields": {"name": mark}}
            if session.post(f"{running.pipedrive_url}/__sandbox__/edit", json=body, timeout=10).ok:
                marks.add(mark)
            if number % int(LIVE_PER_S) == 0:
                between()
    return marks


def _fetcher(running: Stage) -> Callable[[], object]:
    """Return a function that starts a full fetch of Persons unless one is running."""
    from pipeline.domain.kinds import Entity
    from pipeline.sync.runs.runs import RunInProgress, start_run

    def keep_fetching() -> None:
        try:
            start_run(running.connector_key, Entity.PERSON, cause="benchmark")
        except RunInProgress:
            return

    return keep_fetching


def fetch(running: Stage) -> None:
    """Fetch everything once, so that webhooks are about known records."""
    from pipeline.domain.kinds import Entity
    from pipeline.sync.runs.runs import start_run

    drill.change_settings(running.connector_key, daily_tokens=0)
    for entity in Entity:
        start_run(running.connector_key, entity, cause="benchmark")
    running_runs = "SELECT count(*) FROM runs WHERE state = 'running'"
    drill.wait_until(lambda: not drill.scalar(running_runs), PATIENCE_S, "the fetches did not end")


def _wait_for(running: Stage, marks: set[str]) -> dict[str, float]:
    deadline, arrived = time.monotonic() + PATIENCE_S, dict[str, float]()
    while time.monotonic() < deadline and not marks <= arrived.keys():
        time.sleep(POLL_S)
        arrived = requests.get(f"{running.hull_url}/__sandbox__/arrivals", timeout=30).json()
    return {mark: arrived[mark] for mark in marks & arrived.keys()}


def _spent(running: Stage, before: dict[str, float]) -> dict[str, float]:
    return {part: round(spent - before[part], 1) for part, spent in running.cpu_s().items() if part != "workers"}


if __name__ == "__main__":
    main()
