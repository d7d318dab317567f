"""Doctor: counts and the next step under each heading of the guide, and whether anybody works."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli import machinery
from pipeline.cli.machinery import Machinery
from pipeline.cli.troubleshooting import HEADINGS
from tests.world import World

from .conftest import Run

WORKING = Machinery(
    broker="ok",
    workers={"worker@here": ["live", "control"], "bulk@here": ["bulk"]},
    beats=["celerybeat@here"],
    waiting={"live": 0, "bulk": 0, "control": 0},
)


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machinery, "look", lambda: WORKING)


def findings(run: Run, heading: str) -> list[dict[str, Any]]:
    answers = run("doctor", "acme", "--json").json["connectors"]["acme"]
    return next(list(each["findings"]) for each in answers if heading in each["heading"])


def bad(found: list[dict[str, Any]]) -> list[str]:
    return [f"{each['text']} → {each['next']}" for each in found if each["level"] == "bad"]


def test_answers_every_heading(world: World, run: Run, at_work: None) -> None:
    said = run("doctor", "acme").out

    assert all(heading in said for heading in HEADINGS)


def test_nothing_fetched_is_named_with_the_command_that_fetches(world: World, run: Run, at_work: None) -> None:
    said = run("doctor", "acme")

    assert said.code == 1
    assert re.search(r"persons were never fetched in full\n.*pipeline fetch persons acme --wait", said.out)


def test_all_is_well_after_a_fetch(world: World, run: Run, at_work: None) -> None:
    world.company.create_person(name="Ada")
    run("fetch", "all", "acme")
    world.work()

    assert run("doctor", "acme").code == 0


def test_shells_are_counted_and_old_ones_are_bad(world: World, run: Run, at_work: None) -> None:
    acme = world.company.create_organization(name="Acme")["id"]
    world.company.create_person(name="Ada", org_id=acme)
    run("fetch", "persons", "acme")
    world.work()
    young = findings(run, "empty Accounts")
    world.rows("UPDATE id_mappings SET first_seen_at = now() - interval '2 hours' WHERE state = 'shell' RETURNING id")

    assert bad(young) == []
    assert "1 Accounts are empty" in young[-1]["text"]
    assert bad(findings(run, "empty Accounts")) == [
        "1 Accounts are empty (known from Persons only), the oldest since 2 h ago → "
        "pipeline fetch organizations acme --wait"
    ]


def test_a_mapping_made_after_the_fetch_asks_for_another(world: World, run: Run, at_work: None) -> None:
    run("fetch", "all", "acme")
    world.work()
    world.change_settings(incoming_user_attributes=[{"hull": "a", "service": "name"}])

    assert any(
        "the settings have changed since" in each["text"] for each in findings(run, "any Pipedrive organization")
    )


def test_empty_attributes_and_unknown_fields_are_bad(world: World, run: Run, at_work: None) -> None:
    run("fetch", "all", "acme")
    world.work()
    world.change_settings(incoming_account_attributes=[], incoming_user_attributes=[{"hull": "a", "service": "e" * 40}])
    found = bad(findings(run, "any Pipedrive organization"))

    assert any("incoming_account_attributes is empty" in each for each in found)
    assert any(f"no Person field '{'e' * 40}'" in each for each in found)


def test_a_paused_connector_says_what_to_do(world: World, run: Run, at_work: None) -> None:
    world.rows("UPDATE connectors SET state = 'paused', pause_reason = 'unauthorized' RETURNING id")
    found = bad(findings(run, "any updates"))

    assert "pipeline connectors resume acme" in found[0]


def test_open_failures_come_with_their_replay(world: World, run: Run, at_work: None) -> None:
    world.company.put_raw("person", {"id": 77, "name": "Nobody knows when"})
    run("fetch", "persons", "acme")
    world.work()
    found = bad(findings(run, "any updates"))

    assert "1 failures are open, no_update_time" in found[0]
    assert "pipeline failures replay --connector acme --reason no_update_time" in found[0]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Machinery(broker="does not answer (OSError)", workers={}, beats=[], waiting={}), "check BROKER_URL"),
        (
            Machinery(broker="ok", workers={}, beats=["celerybeat@x"], waiting={}),
            "no worker listens to live, bulk, control",
        ),
        (Machinery(broker="ok", workers={"a": ["live", "control"]}, beats=[], waiting={}), "no worker listens to bulk"),
        (Machinery(broker="ok", workers=WORKING.workers, beats=[], waiting={}), "celery -A pipeline beat"),
    ],
)
def test_says_who_is_missing(
    found: Machinery, words: str, database: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machinery, "look", lambda: found)
    said = run("doctor")

    assert said.code == 1
    assert words in said.out


def test_work_that_nobody_takes_is_noticed(world: World, run: Run, at_work: None) -> None:
    run("fetch", "persons", "acme")
    world.rows("UPDATE batches SET due_at = now() - interval '5 minutes' RETURNING id")

    assert "has been due for 5 min" in run("doctor").out


def test_looking_at_a_broker(database: str) -> None:
    found = machinery.look()

    assert found.broker == "ok"
    assert set(found.waiting) == {"live", "bulk", "control"}


def test_beat_alone_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machinery, "_waiting", dict)
    monkeypatch.setattr(machinery.app.control, "ping", lambda timeout: [{"celerybeat@here": {"ok": "pong"}}])
    monkeypatch.setattr(machinery.app.control, "inspect", lambda timeout: SimpleNamespace(active_queues=dict))

    assert machinery.look().beats == ["celerybeat@here"]
    assert not machinery.anybody_works()
