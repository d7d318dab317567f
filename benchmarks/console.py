"""The console with ten million events: how long the server takes for every page.

    python -m benchmarks.console [--events 10000000] [--mappings 1000000] [--failures 200000] [--rounds 5] [--json]

A real fetch of a few thousand records is multiplied inside PostgreSQL until there are as many mappings, snapshots, claims and
events as requested, with the events spread over thirty days, and as many failures of forty causes and deliveries. Then each page
is requested in this process, as from the web process, without cached answers. Exit 1 if a page takes longer than 200 ms in any
round except the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from flask.testing import FlaskClient

from benchmarks import drill
from benchmarks.full_fetch import fetch
from benchmarks.stage import stage

PERSONS, ORGANIZATIONS, DAYS = 4_000, 1_000, 30
STRIDE = 1_000_000
"""Difference between the Pipedrive ids of one copy and the next."""
BOUND_MS = 200.0

COPIES = """
    INSERT INTO {table} ({columns}) SELECT {values} FROM {table} t CROSS JOIN generate_series(1, :copies) AS n
     WHERE t.connector_key = :key AND {mine}"""


FAILURES = """
    INSERT INTO failures (connector_key, kind, subject, direction, entity, record_id, stage, reason, detail, field, fingerprint,
                          created_at)
    SELECT :key, 'record', 'incoming:person:' || n, 'incoming', 'person', n::text, 'transform', 'wrong_type',
           'field ' || n % 40, 'field_' || n % 40, left(md5((n % 40)::text), 16),
           now() - random() * :days * interval '1 day'
      FROM generate_series(1, :number) AS n"""
DELIVERIES = """
    INSERT INTO deliveries (connector_key, source, key, body, state, received_at)
    SELECT :key, CASE WHEN n % 3 = 0 THEN 'hull' ELSE 'pipedrive' END, 'bench-' || n, '{}', 'processed',
           now() - (:number - n)::float / :number * :days * interval '1 day'
      FROM generate_series(1, :number) AS n"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--mappings", type=int, default=1_000_000)
    parser.add_argument("--failures", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with stage(persons=PERSONS, organizations=ORGANIZATIONS) as running:
        fetch(running, "to begin with", changed_only=False)
        built = build(running.connector_key, chosen.mappings, chosen.events, chosen.failures)
        found = measure(chosen.rounds)
    if chosen.json:
        print(json.dumps({"built": built, "pages": found}))
    else:
        _show(built, found)
    return 1 if any(page["slowest_ms"] > BOUND_MS for page in found) else 0


def build(key: int, mappings: int, events: int, failures: int) -> dict[str, Any]:
    """Multiply the rows inside the database; return their numbers, and how long it took."""
    from sqlalchemy import text

    from db.session import engine, transaction
    from db.sync_event import make_partitions

    begun = time.monotonic()
    with transaction() as session:
        make_partitions(session, datetime.now(UTC).date() - timedelta(days=DAYS), DAYS + 7)
    known = drill.scalar("SELECT count(*) FROM id_mappings WHERE connector_key = :k", k=key)
    logged = drill.scalar("SELECT count(*) FROM sync_events WHERE connector_key = :k", k=key)
    last = drill.scalar("SELECT max(id) FROM sync_events")
    copies = max(0, mappings // known - 1)
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        for statement in _copies(events_each=max(1, events // (logged * (copies + 1)))):
            connection.execute(text(statement), {"key": key, "copies": copies, "last": last})
        for statement in (FAILURES, DELIVERIES):
            connection.execute(text(statement), {"key": key, "number": failures, "days": DAYS})
        connection.execute(text("ANALYZE"))
        counts = {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608 - names of ours
            for table in ("id_mappings", "snapshots", "identifiers", "sync_events", "failures", "deliveries")
        }
    return {**counts, "took_s": round(time.monotonic() - begun)}


def _copies(events_each: int) -> list[str]:
    """Return statements that multiply mappings, snapshots, identifiers, and then events: `events_each` per record."""
    moved = f"t.pipedrive_id + n * {STRIDE}"
    mine = f"t.pipedrive_id < {STRIDE}"
    mapping = (
        "connector_key",
        "entity",
        "pipedrive_id",
        "hull_id",
        "state",
        "version",
        "digest",
        "delivered",
        "matched_by",
    )
    return [
        COPIES.format(
            table="id_mappings",
            columns=", ".join(mapping),
            values=", ".join(
                {"pipedrive_id": moved, "hull_id": "t.hull_id || '-' || n"}.get(name, f"t.{name}") for name in mapping
            ),
            mine=mine,
        ),
        COPIES.format(
            table="snapshots",
            columns="connector_key, entity, side, record_id, version, payload",
            values=f"t.connector_key, t.entity, t.side, (t.record_id::bigint + n * {STRIDE})::text, t.version, t.payload",
            mine="t.side = 'pipedrive' AND length(t.record_id) < 7",
        ),
        COPIES.format(
            table="identifiers",
            columns="connector_key, entity, kind, value, role, pipedrive_id",
            values=f"t.connector_key, t.entity, t.kind, t.value || '-' || n, t.role, {moved}",
            mine=mine,
        ),
        *_event_copies(events_each, moved, mine),
    ]


def _event_copies(each: int, moved: str, mine: str) -> list[str]:
    """Return statements for events: one in twenty is a skip, one in a hundred an error, one in ten outgoing; each has one change.

    Their ids are in the order of their times.
    """
    columns = "at, connector_key, event, entity, reason, pipedrive_id, run_id, batch_id, settings_version, cause, before, after"
    days = DAYS / each
    diff = "convert_to(json_build_object('pipedrive/name', '{} name of ' || d.moved)::text, 'UTF8')"
    return [
        f"""
        INSERT INTO sync_events ({columns})
        SELECT d.moment, d.connector_key,
               CASE WHEN d.kind < 0.01 THEN replace(d.event, 'success', 'error') WHEN d.kind < 0.06 THEN
                    replace(d.event, 'success', 'skip') WHEN d.kind < 0.16 THEN replace(d.event, 'incoming', 'outgoing')
                    ELSE d.event END,
               d.entity, CASE WHEN d.kind < 0.01 THEN 'wrong_type' WHEN d.kind < 0.06 THEN 'no_identity' END,
               d.moved, d.run_id, d.batch_id, d.settings_version, d.cause, {diff.format("old")}, {diff.format("new")}
          FROM (SELECT t.*, {moved} AS moved, random() AS kind,
                       now() - ({days * (each - turn - 1)} + random() * {days}) * interval '1 day' AS moment
                  FROM sync_events t CROSS JOIN generate_series(0, :copies) AS n
                 WHERE t.connector_key = :key AND {mine} AND t.event LIKE 'incoming.%.success' AND t.id <= :last
                 ORDER BY moment) d
        """  # noqa: S608 - numbers of ours
        for turn in range(each)
    ]


def measure(rounds: int) -> list[dict[str, Any]]:
    """Request every page of a connector, and those of one record, event, run and failure; return their times."""
    client = _visitor()
    found = []
    for rule, path in _paths():
        answers = [_request(client, path) for _ in range(rounds + 1)]
        times = [took_ms for took_ms, _ in answers]
        found.append(
            {
                "page": rule,
                "status": answers[0][1],
                "first_ms": round(times[0], 1),
                "median_ms": round(statistics.median(times[1:]), 1),
                "slowest_ms": round(max(times[1:]), 1),
            }
        )
    return sorted(found, key=lambda page: -page["slowest_ms"])


def _visitor() -> FlaskClient:
    from db.operator import Operator
    from db.session import transaction
    from pipeline.accounts import operators
    from pipeline.web.app import create_app

    with transaction() as session:
        operator = Operator(name="benchmark", password_hash="not a password", role="admin")  # noqa: S106
        session.add(operator)
        session.flush()
        token = operators.open_session(session, operator)
    client = create_app(wake=lambda: None).test_client()
    client.set_cookie("session", token)
    return client


def _request(client: FlaskClient, path: str) -> tuple[float, int]:
    """Request a page; return (milliseconds, status)."""
    from pipeline.operations.cached_answers import forget_all

    forget_all()
    begun = time.perf_counter()
    answer = client.get(path)
    took_ms = (time.perf_counter() - begun) * 1000
    if answer.status_code >= 500:
        raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:200]}")
    return took_ms, answer.status_code


def _paths() -> list[tuple[str, str]]:
    """Return (rule, address) of every page, with the ids of existing rows."""
    from pipeline.web.app import create_app

    person = drill.scalar("SELECT min(pipedrive_id) FROM id_mappings WHERE entity = 'person'")
    run = drill.scalar("SELECT max(id) FROM runs")
    known = {
        "name": "bench",
        "connector": "bench",
        "entity": "person",
        "pipedrive_id": person,
        "event_id": drill.scalar("SELECT max(id) FROM sync_events"),
        "run_id": run,
        "id": run,
        "batch_id": drill.scalar("SELECT max(id) FROM batches") or 1,
        "hull_id": drill.scalar("SELECT max(hull_id) FROM id_mappings WHERE entity = 'person'") or "none",
        "version": 1,
        "failure_id": drill.scalar("SELECT max(id) FROM failures") or 1,
        "fingerprint": drill.scalar("SELECT min(fingerprint) FROM failures") or "0" * 16,
        "replay_id": 1,
        "plan_id": 1,
        "delivery_id": drill.scalar("SELECT max(id) FROM deliveries") or 1,
        "section": "users-in",
        "step": "first-fetch",
    }
    found = []
    app = create_app(wake=lambda: None)
    with app.test_request_context():
        for rule in sorted(app.url_map.iter_rules(), key=lambda each: each.rule):
            is_ours = rule.endpoint.startswith(("console.", "api.")) and not rule.rule.startswith("/flower")
            is_page = is_ours and "GET" in (rule.methods or ())
            if is_page and rule.arguments <= set(known):
                values = {name: known[name] for name in rule.arguments}
                found.append((rule.rule, app.url_for(rule.endpoint, **values)))
    filters = ("outcome=error", "direction=outgoing", "reason=wrong_type", f"record={person}", f"run={run}")
    return found + [("/c/<name>/logs?" + each.partition("=")[0], f"/c/bench/logs?{each}") for each in filters]


def _show(built: dict[str, Any], found: list[dict[str, Any]]) -> None:
    print(", ".join(f"{name} {count:,}" for name, count in built.items()))
    print(f"{'page':60} {'first':>9} {'median':>9} {'slowest':>9}  (ms)")
    for page in found:
        aside = "" if page["status"] == 200 else f"  answered {page['status']}"
        print(f"{page['page']:60} {page['first_ms']:9.1f} {page['median_ms']:9.1f} {page['slowest_ms']:9.1f}{aside}")


if __name__ == "__main__":
    sys.exit(main())
