"""`pipeline doctor`: the workers, and counts and next steps under each heading of the guide."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.cli.troubleshooting import HEADINGS
from pipeline.operations import workers
from pipeline.operations.workers import WorkerNodes
from tests.command_line import Run
from tests.read_only import demoted_database
from tests.system import SyncSystem

WORKING = WorkerNodes(
    broker="ok",
    workers={"worker@here": ["live", "control"], "bulk@here": ["bulk"]},
    beats=["celerybeat@here"],
    waiting={"live": 0, "bulk": 0, "control": 0},
)


@pytest.fixture
def at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "inspect_nodes", lambda: WORKING)


def findings(run: Run, heading: str) -> list[dict[str, Any]]:
    answers = run("doctor", "acme", "--json").json["connectors"]["acme"]
    return next(list(each["findings"]) for each in answers if heading in each["heading"])


def bad(found: list[dict[str, Any]]) -> list[str]:
    return [f"{each['text']} → {each['next']}" for each in found if each["level"] == "bad"]


def test_answers_every_heading(system: SyncSystem, run: Run, at_work: None) -> None:
    result = run("doctor", "acme").out

    assert all(heading in result for heading in HEADINGS)


def test_a_missing_first_fetch_is_named_with_its_command(system: SyncSystem, run: Run, at_work: None) -> None:
    result = run("doctor", "acme")

    assert result.code == 1
    assert re.search(r"persons were never fully fetched\n.*pipeline fetch all acme --wait", result.out)


def test_exits_with_0_after_a_fetch(system: SyncSystem, run: Run, at_work: None) -> None:
    system.company.create_person(name="Ada")
    run("fetch", "all", "acme")
    system.work()

    assert run("doctor", "acme").code == 0


def test_shells_are_counted_and_old_ones_are_bad(system: SyncSystem, run: Run, at_work: None) -> None:
    acme = system.company.create_organization(name="Acme")["id"]
    system.company.create_person(name="Ada", org_id=acme)
    run("fetch", "persons", "acme")
    system.work()
    young = findings(run, "empty Accounts")
    system.rows("UPDATE id_mappings SET first_seen_at = now() - interval '2 hours' WHERE state = 'shell' RETURNING id")

    assert bad(young) == []
    assert "1 empty Account (" in young[-1]["text"]
    assert bad(findings(run, "empty Accounts")) == [
        "1 empty Account (known from Persons only), the oldest since 2 h ago → pipeline fetch organizations acme --wait"
    ]


def test_a_mapping_added_after_the_fetch_needs_another_fetch(system: SyncSystem, run: Run, at_work: None) -> None:
    run("fetch", "all", "acme")
    system.work()
    system.change_settings(incoming_user_attributes=[{"hull": "a", "service": "name"}])

    result = [each["text"] for each in findings(run, "any Pipedrive organization")]
    assert any(each.endswith("(version 1 → 2): mapped since then: a") for each in result)
    assert any(each.endswith("(version 1 → 2), no attribute was mapped") for each in result)


def test_empty_attributes_and_unknown_fields_are_bad(system: SyncSystem, run: Run, at_work: None) -> None:
    run("fetch", "all", "acme")
    system.work()
    system.change_settings(
        incoming_account_attributes=[], incoming_user_attributes=[{"hull": "a", "service": "e" * 40}]
    )
    found = bad(findings(run, "any Pipedrive organization"))

    assert any("incoming_account_attributes is empty" in each for each in found)
    assert any(f"no Person field '{'e' * 40}'" in each for each in found)


def test_a_paused_connector_is_bad_with_advice(system: SyncSystem, run: Run, at_work: None) -> None:
    system.rows("UPDATE connectors SET state = 'paused', pause_reason = 'unauthorized' RETURNING id")
    found = bad(findings(run, "any updates"))

    assert "pipeline connectors resume acme" in found[0]


def test_open_failures_come_with_their_replay(system: SyncSystem, run: Run, at_work: None) -> None:
    system.company.put_raw("person", {"id": 77, "name": "Nobody knows when"})
    run("fetch", "persons", "acme")
    system.work()
    found = bad(findings(run, "any updates"))

    assert "1 open failure, no_update_time" in found[0]
    assert "pipeline failures replay acme --reason no_update_time" in found[0]


def test_only_recent_errors_are_counted(system: SyncSystem, run: Run, at_work: None) -> None:
    system.company.put_raw("person", {"id": 77, "name": "Nobody knows when"})
    run("fetch", "persons", "acme")
    system.work()
    lately = findings(run, "any Pipedrive organization")
    system.change_rows("UPDATE sync_events SET at = now() - interval '30 hours'")
    later = findings(run, "any Pipedrive organization")

    texts = [[each["text"] for each in found if "no_update_time" in each["text"]] for found in (lately, later)]
    assert [len(each) for each in texts] == [1, 0]
    assert re.match(r"incoming.user.error \d+ times? in 24 h, no_update_time: The record has no", texts[0][0])


def test_a_fetch_in_flight_is_named(system: SyncSystem, run: Run, at_work: None) -> None:
    run("fetch", "persons", "acme")

    for heading in ("any Pipedrive organization", "any updates"):
        result = [each for each in findings(run, heading) if "in flight" in each["text"]]
        assert [each["next"] for each in result] == ["pipeline runs show acme 1"]


def test_a_webhook_that_is_missing_is_named(system: SyncSystem, run: Run, at_work: None) -> None:
    system.change_rows(
        "INSERT INTO webhook_subscriptions (connector_key, entity, state, recreated)"
        " VALUES (:c, 'person', 'missing', 0), (:c, 'organization', 'active', 2)",
        c=system.connector_key,
    )
    result = [each["text"] for each in findings(run, "any updates") if "webhook of" in each["text"]]

    assert result == [
        "webhook of organizations: active, last checked less than a minute ago, recreated 2 times so far",
        "webhook of persons: missing, last checked less than a minute ago",
    ]


def test_shows_how_up_to_date_hull_is(system: SyncSystem, run: Run, at_work: None) -> None:
    system.change_rows(
        "INSERT INTO watermarks (connector_key, entity, reached_at, complete_since, excepted)"
        " VALUES (:c, 'person', now() - interval '5 minutes', now() - interval '1 day', 3),"
        " (:c, 'organization', now() - interval '5 hours', now() - interval '1 day', 0)",
        c=system.connector_key,
    )
    found = {each["text"]: each for each in findings(run, "any updates")}

    assert found["persons: up to date as of 5 min ago, except 3"]["level"] == "ok"
    behind = found["organizations: up to date as of 5 h ago"]
    assert behind["next"].startswith("pipeline fetch organizations acme --since 20")


def test_a_spent_day_is_named(system: SyncSystem, run: Run, at_work: None) -> None:
    system.change_settings(daily_tokens=100, live_reserve=0.2)
    system.change_rows(
        "INSERT INTO token_ledger (connector_key, day, lane, operation, calls, tokens)"
        " VALUES (:c, (now() AT TIME ZONE 'UTC')::date, 'bulk', 'list', 9, 90)",
        c=system.connector_key,
    )

    result = [each for each in findings(run, "any updates") if "daily budget" in each["text"]]
    assert [each["level"] for each in result] == ["note"]
    assert result[0]["text"].startswith(
        "90 tokens of Pipedrive's daily budget are spent, 90.0% of 100: fetches wait until "
    )


def test_unreadable_organizations_are_listed_under_empty_accounts(system: SyncSystem, run: Run, at_work: None) -> None:
    system.company.put_raw("organization", {"id": 77, "name": "Nobody knows when"})
    run("fetch", "organizations", "acme")
    system.work()

    assert any("incoming.account.error" in each["text"] for each in findings(run, "empty Accounts"))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (WorkerNodes(broker="does not answer (OSError)", workers={}, beats=[], waiting={}), "check BROKER_URL"),
        (
            WorkerNodes(broker="ok", workers={}, beats=["celerybeat@x"], waiting={}),
            "no worker listens to live, bulk, control",
        ),
        (
            WorkerNodes(broker="ok", workers={"a": ["live", "control"]}, beats=[], waiting={}),
            "no worker listens to bulk",
        ),
        (WorkerNodes(broker="ok", workers=WORKING.workers, beats=[], waiting={}), "celery -A pipeline beat"),
    ],
)
def test_missing_processes_are_named(
    found: WorkerNodes, words: str, database: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "inspect_nodes", lambda: found)
    result = run("doctor")

    assert result.code == 1
    assert words in result.out


def test_overdue_work_is_reported(system: SyncSystem, run: Run, at_work: None) -> None:
    run("fetch", "persons", "acme")
    system.rows("UPDATE batches SET due_at = now() - interval '5 minutes' RETURNING id")

    assert "has been due for 5 min" in run("doctor").out


def test_inspects_the_broker(database: str) -> None:
    found = workers.inspect_nodes()

    assert found.broker == "ok"
    assert set(found.waiting) == {"live", "bulk", "control"}


def test_beat_does_not_count_as_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_count_messages", dict)
    monkeypatch.setattr(workers.app.control, "ping", lambda timeout: [{"celerybeat@here": {"ok": "pong"}}])
    monkeypatch.setattr(workers.app.control, "inspect", lambda timeout: SimpleNamespace(active_queues=dict))

    assert workers.inspect_nodes().beats == ["celerybeat@here"]
    assert not workers.any_worker_answers()


def test_a_read_only_database_is_bad(system: SyncSystem, run: Run, at_work: None) -> None:
    with demoted_database():
        result = run("doctor", "acme")

    assert result.code == 1
    assert "the database is read-only" in result.out
