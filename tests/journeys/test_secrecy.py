"""Canaries: no secret and no value of a record leaves PostgreSQL by a log line, an error's words or a failure's reason."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen, notify
from tests.journeys.people import age
from tests.journeys.test_bad_records import raw
from tests.logs import written
from tests.world import API_TOKEN, HULL_SECRET, World

EMAIL = "canary.lovelace@example.com"
NAME = "Canary Lovelace"
PHONE = "+372 5551 9876"
SECRETS = (API_TOKEN, HULL_SECRET)
VALUES = (EMAIL, "canary.lovelace", NAME, "Lovelace", PHONE, "5551 9876")

WORDS: list[str] = []
"""What Celery and Flower are told of stages that failed."""


@pytest.fixture
def watched(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> World:
    """A world with a canary in it, where every StageFailed is written down."""
    stage = world.module("sync.stage")
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
        world.company.create_person(name=NAME, emails=emails, phones=phones)
    age(world)
    return world


def all_fetched(world: World) -> None:
    for entity in Entity:
        world.fetch(entity)


def bad_records(world: World) -> None:
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
        world.company.put_raw("person", raw(**canary | {"id": 10 + number} | members))
    world.fetch(Entity.PERSON)


def refusals_in_pipedrives_words(world: World) -> None:
    body = {"success": False, "error": f'"{NAME}" is not allowed: {EMAIL}, {PHONE}', "error_info": f"token {API_TOKEN}"}
    fault = world.pipedrive.faults.add("/api/v2/persons$", "status", status=400, body=body, count=2)
    world.fetch(Entity.PERSON)
    fault.count = 0


def refusals_without_quotes(world: World) -> None:
    body = {
        "success": False,
        "error": f"Person {NAME} ({NAME.upper()}) is not allowed",
        "errors": {NAME: [f"is {NAME.lower()}, {PHONE}"]},
    }
    world.pipedrive.faults.add("/api/v2/persons$", "status", status=400, body=body, count=2)
    world.fetch(Entity.PERSON)


def broken_pages(world: World) -> None:
    for kind, options in (
        ("truncated", {}),
        ("html", {}),
        ("not_json", {}),
        ("status", {"status": 503, "body": {"error": NAME}}),
    ):
        world.pipedrive.faults.add("/api/v2/persons$", kind, **options)  # type: ignore[arg-type]
        world.fetch(Entity.PERSON)
        for _ in range(3):
            world.later()
            world.work()


def hull_refusing(world: World) -> None:
    world.hull_app.extensions["hull_faults"].replace(
        [{"path": "firehose", "kind": "status", "status": 400, "count": None}]
    )
    world.fetch(Entity.PERSON)


def defects(world: World) -> None:
    incoming = world.module("tasks.incoming")
    real = incoming.transform_batch

    def break_down(_batch: Any) -> None:
        raise ValueError(f"{NAME} {EMAIL} {HULL_SECRET}")

    incoming.transform_batch = break_down
    try:
        world.fetch(Entity.PERSON)
    finally:
        incoming.transform_batch = real


def a_database_that_refuses(world: World) -> None:
    world.change_rows("ALTER TABLE identifiers ADD CONSTRAINT no_canaries CHECK (value NOT LIKE 'canary%')")
    try:
        world.fetch(Entity.PERSON)
    finally:
        world.change_rows("ALTER TABLE identifiers DROP CONSTRAINT no_canaries")


def webhooks(world: World) -> None:
    world.fetch(Entity.PERSON)
    said = listen(world)
    world.company.edit_person(1, name=f"{NAME} II", phones=[])
    deliver(world, *said, {"meta": {"entity": "person", "action": NAME, "entity_id": EMAIL}}, f'{{"{NAME}": '.encode())
    world.work()


def outgoing(world: World) -> None:
    world.change_settings(
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}, {"hull": "tel", "service": "phone"}]
    )
    world.fetch(Entity.PERSON)
    world.module("sync.changes.hull_ids").resolve(world.connector_key)
    body = {"success": False, "error": f"name '{NAME} III' is taken by {EMAIL}"}
    world.pipedrive.faults.add("/persons/1$", "status", method="PATCH", status=400, body=body)
    world.pipedrive.faults.add("/persons/2$", "status", method="PATCH", status=503, body=body)
    for number in (1, 2):
        user = world.users()[number]
        notify(
            world, {"user": {**user, "nickname": f"{NAME} III", "tel": {"x": PHONE}}, "segments": []}, key=f"n{number}"
        )
    world.work()


def credentials_gone(world: World) -> None:
    world.change_rows("UPDATE credentials SET ciphertext = 'x' WHERE name = 'hull_secret'")
    world.fetch(Entity.PERSON)


TROUBLE: list[Callable[[World], None]] = [
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
    watched: World,
    trouble: Callable[[World], None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with written("debug") as lines:
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
    assert {place: hits for place, said in places.items() if (hits := canaries_in(said))} == {}


def canaries_in(text: str) -> set[str]:
    return {canary for canary in (*SECRETS, *VALUES) if re.search(re.escape(canary), text, re.IGNORECASE)}


def test_the_canaries_would_be_seen(watched: World) -> None:
    """The negative control: where values may stand, they are found."""
    bad_records(watched)

    kept = watched.rows("SELECT value FROM identifiers")
    assert canaries_in(str(kept)) >= {EMAIL}
    assert canaries_in(f"x {NAME.upper()} y") >= {NAME}


def test_credentials_are_sealed_in_the_database(watched: World) -> None:
    rows = watched.rows("SELECT name, ciphertext FROM credentials")

    assert len(rows) == 2
    assert not any(secret.encode() in bytes(row.ciphertext) for row in rows for secret in SECRETS)
