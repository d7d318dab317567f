"""Canaries: no secret and no value of a record leaves PostgreSQL by a log line, an error's words or a failure's reason."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen, notify
from tests.journeys.pipedrive_records import age_records, raw_person
from tests.logs import captured_log
from tests.system import API_TOKEN, HULL_SECRET, SyncSystem

EMAIL = "canary.lovelace@example.com"
NAME = "Canary Lovelace"
PHONE = "+372 5551 9876"
SECRETS = (API_TOKEN, HULL_SECRET)
VALUES = (EMAIL, "canary.lovelace", NAME, "Lovelace", PHONE, "5551 9876")

WORDS: list[str] = []
"""What Celery and Flower receive about failed stages."""


@pytest.fixture
def watched(system: SyncSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> SyncSystem:
    """A system with a canary in it, where every StageFailed is written down."""
    stage = system.module("sync.stage")
    WORDS.clear()

    class Overheard(stage.StageFailed):  # type: ignore[misc]
        def __init__(self, words: str) -> None:
            WORDS.append(words)
            super().__init__(words)

    monkeypatch.setattr(stage, "StageFailed", Overheard)
    caplog.set_level(logging.DEBUG)
    emails = [{"value": EMAIL, "primary": True}]
    phones = [{"value": PHONE, "primary": True}]
    for _ in range(2):  # the second one wants the first one's claim
        system.company.create_person(name=NAME, emails=emails, phones=phones)
    age_records(system)
    return system


def all_fetched(system: SyncSystem) -> None:
    for entity in Entity:
        system.fetch(entity)


def bad_records(system: SyncSystem) -> None:
    canary = {"name": NAME, "emails": [{"value": EMAIL, "primary": True}]}
    for number, members in enumerate(
        (
            {"update_time": None, "add_time": None},
            {"name": [NAME], "owner_id": [NAME]},
            {"name": f"{NAME}\x00"},
            {"name": f"{NAME}\ud800"},
            {"name": NAME * 10_000},
            {"label_ids": [NAME]},
            {"emails": [{"value": f"{NAME} {PHONE}", "primary": True}]},
            {"org_id": NAME, "add_time": NAME},
            {"id": NAME},
        )
    ):
        system.company.put_raw("person", raw_person(**canary | {"id": 10 + number} | members))
    system.fetch(Entity.PERSON)


def refusals_in_pipedrives_words(system: SyncSystem) -> None:
    body = {"success": False, "error": f'"{NAME}" is not allowed: {EMAIL}, {PHONE}', "error_info": f"token {API_TOKEN}"}
    fault = system.pipedrive.faults.add("/api/v2/persons$", "status", status=400, body=body, count=2)
    system.fetch(Entity.PERSON)
    fault.count = 0


def refusals_without_quotes(system: SyncSystem) -> None:
    body = {
        "success": False,
        "error": f"Person {NAME} ({NAME.upper()}) is not allowed",
        "errors": {NAME: [f"is {NAME.lower()}, {PHONE}"]},
    }
    system.pipedrive.faults.add("/api/v2/persons$", "status", status=400, body=body, count=2)
    system.fetch(Entity.PERSON)


def broken_pages(system: SyncSystem) -> None:
    for kind, options in (
        ("truncated", {}),
        ("html", {}),
        ("not_json", {}),
        ("status", {"status": 503, "body": {"error": NAME}}),
    ):
        system.pipedrive.faults.add("/api/v2/persons$", kind, **options)  # type: ignore[arg-type]
        system.fetch(Entity.PERSON)
        for _ in range(3):
            system.end_pauses()
            system.work()


def hull_refusing(system: SyncSystem) -> None:
    system.hull_app.extensions["hull_faults"].replace(
        [{"path": "firehose", "kind": "status", "status": 400, "count": None}]
    )
    system.fetch(Entity.PERSON)


def defects(system: SyncSystem) -> None:
    incoming = system.module("tasks.incoming")
    real = incoming.transform_batch

    def break_down(_batch: Any) -> None:
        raise ValueError(f"{NAME} {EMAIL} {HULL_SECRET}")

    incoming.transform_batch = break_down
    try:
        system.fetch(Entity.PERSON)
    finally:
        incoming.transform_batch = real


def a_database_that_refuses(system: SyncSystem) -> None:
    system.change_rows("ALTER TABLE identifiers ADD CONSTRAINT no_canaries CHECK (value NOT LIKE 'canary%')")
    try:
        system.fetch(Entity.PERSON)
    finally:
        system.change_rows("ALTER TABLE identifiers DROP CONSTRAINT no_canaries")


def webhooks(system: SyncSystem) -> None:
    system.fetch(Entity.PERSON)
    webhooks = listen(system)
    system.company.edit_person(1, name=f"{NAME} II", phones=[])
    deliver(
        system, *webhooks, {"meta": {"entity": "person", "action": NAME, "entity_id": EMAIL}}, f'{{"{NAME}": '.encode()
    )
    system.work()


def outgoing(system: SyncSystem) -> None:
    system.change_settings(
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}, {"hull": "tel", "service": "phone"}]
    )
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    body = {"success": False, "error": f"name '{NAME} III' is taken by {EMAIL}"}
    system.pipedrive.faults.add("/persons/1$", "status", method="PATCH", status=400, body=body)
    system.pipedrive.faults.add("/persons/2$", "status", method="PATCH", status=503, body=body)
    for number in (1, 2):
        user = system.users()[number]
        notify(
            system, {"user": {**user, "nickname": f"{NAME} III", "tel": {"x": PHONE}}, "segments": []}, key=f"n{number}"
        )
    system.work()


def credentials_gone(system: SyncSystem) -> None:
    system.change_rows("UPDATE credentials SET ciphertext = 'x' WHERE name = 'hull_secret'")
    system.fetch(Entity.PERSON)


TROUBLE: list[Callable[[SyncSystem], None]] = [
    all_fetched,
    bad_records,
    refusals_in_pipedrives_words,
    refusals_without_quotes,
    broken_pages,
    hull_refusing,
    defects,
    a_database_that_refuses,
    webhooks,
    outgoing,
    credentials_gone,
]


@pytest.mark.parametrize("trouble", TROUBLE)
def test_nothing_is_given_away(
    watched: SyncSystem,
    trouble: Callable[[SyncSystem], None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with captured_log("debug") as lines:
        trouble(watched)

    out, err = capfd.readouterr()
    places = {
        "log lines": str(lines),
        "what libraries log": caplog.text,
        "output": out + err,
        "Celery": str(WORDS),
        "failures": str(watched.rows("SELECT subject, reason, detail, field, fingerprint, exchange FROM failures")),
        "events": str(watched.rows("SELECT event, reason, detail, cause FROM sync_events")),
        "runs": str(watched.rows("SELECT reason FROM runs")),
        "deliveries": str(watched.rows("SELECT state, reason FROM deliveries")),
        "connectors": str(watched.rows("SELECT name, state, pause_reason FROM connectors")),
    }
    assert lines
    assert {place: hits for place, webhooks in places.items() if (hits := canaries_in(webhooks))} == {}


def canaries_in(text: str) -> set[str]:
    return {canary for canary in (*SECRETS, *VALUES) if re.search(re.escape(canary), text, re.IGNORECASE)}


def test_the_canaries_would_be_seen(watched: SyncSystem) -> None:
    """The negative control: values are found where they are allowed."""
    bad_records(watched)

    kept = watched.rows("SELECT value FROM identifiers")
    assert canaries_in(str(kept)) >= {EMAIL}
    assert canaries_in(f"x {NAME.upper()} y") >= {NAME}


def test_credentials_are_sealed_in_the_database(watched: SyncSystem) -> None:
    rows = watched.rows("SELECT name, ciphertext FROM credentials")

    assert len(rows) == 2
    assert not any(secret.encode() in bytes(row.ciphertext) for row in rows for secret in SECRETS)
