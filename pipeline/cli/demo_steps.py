"""The steps of the demo and the checks after each: Hull's export is compared with Pipedrive's.

This module does not use the pipeline's internals: it edits records in the sandbox as users would, and checks the other
side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from db import failure as failures
from db import failure_filter
from db.connector import Connector
from db.failure_filter import FailureFilter
from db.id_mapping import mapping_counts
from db.session import transaction
from pipeline.cli import fetch
from pipeline.cli.fetch import read_run
from pipeline.cli.output import duration, echo
from pipeline.cli.verify import run_comparison
from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from pipeline.jobs.replays.start import replay_failure
from pipeline.local.example import Record, Remotes, codes_of
from pipeline.sync.runs.runs import RunInProgress, start_run
from pipeline.tasks.canvases import wake_control

PATIENCE_S = 20.0
"""How long a change may take to reach the other side before the check fails."""
POLL_S = 0.1
NAMES = {Entity.PERSON: "Persons", Entity.ORGANIZATION: "Organizations"}
COMPARED = {
    Entity.PERSON: {
        "pipedrive/name": "Name",
        "pipedrive/job_title": "Job title",
        "pipedrive/customer_number": "Customer number",
        "pipedrive/customer_since": "Customer since",
        "pipedrive/lead_score": "Lead score",
    },
    Entity.ORGANIZATION: {
        "name": "Name",
        "pipedrive/website": "Website",
        "pipedrive/health_score": "Health score",
        "pipedrive/founded_on": "Founded on",
    },
}
"""Attribute → name of the field that must have the same value."""


@dataclass(slots=True)
class DemoRun:
    """The running demo: its connector, its remote systems, and the failed checks."""

    connector: Connector
    remotes: Remotes
    broken: list[str] = field(default_factory=list)
    totals: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("read", "new", "links", "shells", "tokens"), 0)
    )

    def check(self, holds: object, words: str) -> None:
        """Print the result of a check; remember a failed one."""
        echo(f"   {'✓' if holds else '✗'} {words}")
        if not holds:
            self.broken.append(words)

    def fetch(self, entity: Entity, *, since: datetime | None = None) -> dict[str, Any]:
        """Run a fetch until it ends, showing its progress."""
        try:
            run_id = start_run(self.connector.key, entity, cause="demo", since=since)
        except RunInProgress as under_way:  # a schedule started it first, or it fills shells
            run_id = under_way.run_id
        fetch.watch([run_id])
        run = read_run(run_id)
        for name in self.totals:
            self.totals[name] += run[name]
        self.check(run["state"] == "done", f"run {run_id} is {run['state']} after {duration(run['took_s'])}")
        return run


def run_steps(demo: DemoRun, before_each: Callable[[], None]) -> None:
    """Run every step in turn; `before_each` may raise to end the demo."""
    for step in (
        fetch_persons,
        fetch_organizations,
        receive_webhook,
        fail_and_replay,
        send_change,
        delete_person,
        verify_all,
    ):
        before_each()
        step(demo)


def fetch_persons(demo: DemoRun) -> None:
    echo("1. A full fetch of Persons; no Organization is known yet, so shells (empty Accounts) are created for them")
    run = demo.fetch(Entity.PERSON)
    persons = demo.remotes.records(Entity.PERSON)
    shells = [each for each in demo.remotes.hull_records(Entity.ORGANIZATION) if _is_shell(each)]
    named = {person["org_id"] for person in persons.values() if person["org_id"]}
    echo(f"   {run['new']:,} Users created or found in Hull, {run['links']:,} linked to their Accounts")
    echo("   The sandbox has a few Persons and Organizations that were deleted; they are not fetched")
    compare(demo, Entity.PERSON)
    demo.check(
        len(shells) == len(named),
        f"{len(shells):,} shell Accounts were created for the Organizations that Persons reference",
    )


def fetch_organizations(demo: DemoRun) -> None:
    echo("2. A full fetch of Organizations fills the shells")
    run = demo.fetch(Entity.ORGANIZATION)
    left = sum(1 for each in demo.remotes.hull_records(Entity.ORGANIZATION) if _is_shell(each))
    echo(f"   {run['read']:,} Organizations read, {run['tokens']:,} API tokens of Pipedrive's daily budget")
    demo.check(left == 0, f"{left} shells are left" if left else "all shells are filled")
    compare(demo, Entity.ORGANIZATION)
    wake_control("resolve_hull_ids")  # beat would, within half a minute
    took_s = wait_until(lambda: not unresolved(demo))
    _check_arrival(demo, took_s, "the id map knows every User's and Account's id in Hull")


def unresolved(demo: DemoRun) -> int:
    """Return the number of delivered records without a known Hull id: the firehose returns no ids."""
    with transaction() as session:
        return sum(each.without_hull_id for each in mapping_counts(session, demo.connector.key))


def compare(demo: DemoRun, entity: Entity) -> None:
    """Compare Pipedrive's export with Hull's: every record, its compared fields, and its link."""
    codes = codes_of(demo.connector.key, entity)
    records = demo.remotes.records(entity)
    held = by_pipedrive_id(demo.remotes.hull_records(entity))
    missing = [pipedrive_id for pipedrive_id in records if pipedrive_id not in held]
    fields = {attribute: codes[name] for attribute, name in COMPARED[entity].items() if name in codes}
    wrong = [
        f"{entity.value} {pipedrive_id}: {attribute}"
        for pipedrive_id, record in records.items()
        if pipedrive_id in held
        for attribute, code in fields.items()
        if held[pipedrive_id].get(attribute) != value_of(record, code)
    ]
    values = len(records) * len(fields)
    demo.check(not missing, f"all {len(records):,} {NAMES[entity]} are in Hull" + _examples(missing))
    demo.check(not wrong, f"{values:,} values compared field by field, {len(wrong)} differ" + _examples(wrong))
    if entity is Entity.PERSON:
        unlinked = _unlinked(demo, records, held)
        demo.check(
            not unlinked, f"every User is linked to the right Account, {len(unlinked)} are not" + _examples(unlinked)
        )


def receive_webhook(demo: DemoRun) -> None:
    echo("3. A Person is edited in Pipedrive; its webhook arrives")
    pipedrive_id, title = _person_id(demo, 0), f"Head of Demonstrations {datetime.now(UTC):%H:%M:%S}"
    job_title = codes_of(demo.connector.key, Entity.PERSON)["Job title"]
    demo.remotes.edit_record(Entity.PERSON, pipedrive_id, {"custom_fields": {job_title: title}})
    took_s = wait_until(lambda: _user(demo, pipedrive_id).get("pipedrive/job_title") == title)
    _check_arrival(demo, took_s, f"Person {pipedrive_id}: the new job title is in Hull")


def fail_and_replay(demo: DemoRun) -> None:
    echo("4. A record without a valid update time becomes a failure; it is replayed after it is corrected")
    pipedrive_id, now = _person_id(demo, 1), datetime.now(UTC)
    record = demo.remotes.records(Entity.PERSON)[pipedrive_id]
    demo.remotes.put_record(Entity.PERSON, {**record, "update_time": "lately", "add_time": None})
    run = demo.fetch(Entity.PERSON, since=now)
    found = _failure(demo, pipedrive_id)
    demo.check(found is not None and run["failed"] == 1, f"Person {pipedrive_id} is stored as a failure")
    if found is None:
        return
    echo(f"   failure {found.id}, {found.reason}: {REASONS[found.reason].meaning}")
    saved = {**record, "name": "Ada Example", "update_time": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
    demo.remotes.put_record(Entity.PERSON, saved)
    with transaction() as session:
        replay_failure(session, found, by="demo", why="saved once more in Pipedrive")
    took_s = wait_until(lambda: _user(demo, pipedrive_id).get("pipedrive/name") == "Ada Example")
    _check_arrival(demo, took_s, f"Person {pipedrive_id}: corrected, replayed, and in Hull")
    demo.check(_failure(demo, pipedrive_id) is None, "no failure is open")


def send_change(demo: DemoRun) -> None:
    echo("5. A User is changed in Hull; the change is sent to Pipedrive")
    pipedrive_id, title = _person_id(demo, 2), f"Sent from Hull {datetime.now(UTC):%H:%M:%S}"
    job_title = codes_of(demo.connector.key, Entity.PERSON)["Job title"]
    user = _user(demo, pipedrive_id)
    demo.remotes.edit_hull_record(Entity.PERSON, user["id"], {"job_title": title})
    took_s = wait_until(lambda: value_of(demo.remotes.records(Entity.PERSON)[pipedrive_id], job_title) == title)
    _check_arrival(demo, took_s, f"User {user['id']}: the job title is in Pipedrive, Person {pipedrive_id}")
    took_s = wait_until(lambda: _user(demo, pipedrive_id).get("pipedrive/job_title") == title)
    _check_arrival(demo, took_s, "Pipedrive's answer was read back into Hull")


def delete_person(demo: DemoRun) -> None:
    echo("6. A Person is deleted in Pipedrive; its User stays and is marked")
    pipedrive_id = _person_id(demo, 3)
    hull_id = _user(demo, pipedrive_id)["id"]
    demo.remotes.delete_record(Entity.PERSON, pipedrive_id)
    took_s = wait_until(lambda: bool(_by_hull_id(demo, hull_id).get("pipedrive/deleted_at")))
    _check_arrival(demo, took_s, f"User {hull_id} is marked as deleted in Pipedrive")


def verify_all(demo: DemoRun) -> None:
    echo(
        "7. Pipedrive, Hull and the id map are compared, as `pipeline verify` does at any time; deleted records are left out"
    )
    _, report = run_comparison(demo.connector, None)
    records = sum(each.compared for each in report.entities)
    demo.check(report.drift == 0, f"{records:,} records compared in {report.seconds:.1f} s, {report.drift} differ")
    echo(f"   {report.tokens:,} API tokens")
    demo.totals["tokens"] += report.tokens


def wait_until(holds: Callable[[], bool], *, patience_s: float = PATIENCE_S) -> float | None:
    """Return the seconds until it was true; None if it never was."""
    begun = time.monotonic()
    while time.monotonic() - begun < patience_s:
        if holds():
            return time.monotonic() - begun
        time.sleep(POLL_S)
    return None


def by_pipedrive_id(held: list[Record]) -> dict[int, Record]:
    return {each["pipedrive/id"]: each for each in held if each.get("pipedrive/id") is not None}


def value_of(record: Record, code: str) -> Any:
    """Return the value of a standard or custom field."""
    custom = record.get("custom_fields") or {}
    return custom[code] if code in custom else record.get(code)


def _check_arrival(demo: DemoRun, took_s: float | None, words: str) -> None:
    demo.check(
        took_s is not None, f"{words} after {took_s:.1f} s" if took_s is not None else f"{words}: it did not happen"
    )


def _is_shell(account: Record) -> bool:
    """Return whether Hull has nothing but the Pipedrive id of an Account."""
    return account.get("pipedrive/id") is not None and account.get("name") is None


def _unlinked(demo: DemoRun, persons: dict[int, Record], users: dict[int, Record]) -> list[int]:
    accounts = {each["id"]: each.get("pipedrive/id") for each in demo.remotes.hull_records(Entity.ORGANIZATION)}
    return [
        pipedrive_id
        for pipedrive_id, person in persons.items()
        if pipedrive_id in users
        and person["org_id"]
        and accounts.get(users[pipedrive_id]["account_id"]) != person["org_id"]
    ]


def _person_id(demo: DemoRun, number: int) -> int:
    """Return the id of a Person that is in Hull, another one for each number."""
    return sorted(by_pipedrive_id(demo.remotes.hull_records(Entity.PERSON)))[number * 7]


def _user(demo: DemoRun, pipedrive_id: int) -> Record:
    return by_pipedrive_id(demo.remotes.hull_records(Entity.PERSON)).get(pipedrive_id, {})


def _by_hull_id(demo: DemoRun, hull_id: str) -> Record:
    return next((each for each in demo.remotes.hull_records(Entity.PERSON) if each["id"] == hull_id), {})


def _failure(demo: DemoRun, pipedrive_id: int) -> failures.Failure | None:
    with transaction() as session:
        found = failure_filter.find_failures(session, FailureFilter(connector_key=demo.connector.key), limit=100)
    return next((each for each in found if each.record_id == str(pipedrive_id)), None)


def _examples(items: list[Any]) -> str:
    return f": {', '.join(map(str, items[:3]))}{' …' if len(items) > 3 else ''}" if items else ""
