"""A field that cannot be carried over stays behind alone: kept, named, counted, listed and replayed as what it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from db import event_log
from db.event_log import EventFilter
from db.failure_filter import FailureFilter, find_failures
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.jobs.replays.preview import preview_failures
from pipeline.jobs.replays.preview_records import ReplayEffect
from pipeline.operations.events import describe_event
from pipeline.operations.failures import groups_of
from tests.journeys.hull_messages import ANN, fetch_everything, field_code, person, send_messages, user, writes
from tests.journeys.pipedrive_records import PAGE, age_records, create_records, raw_person
from tests.system import SyncSystem

NAME = {"hull": "name", "service": "name"}


def rows(system: SyncSystem, state: str = "open") -> list[tuple[Any, ...]]:
    found = system.rows(
        "SELECT direction, record_id, field, reason, attempts FROM failures WHERE kind = 'field' AND state = :s ORDER BY id",
        s=state,
    )
    return [tuple(row) for row in found]


def replay(system: SyncSystem, **chosen: Any) -> Any:
    from pipeline.jobs.replays import start  # noqa: PLC0415 - Celery reads its settings when it is imported

    with transaction() as session:
        wanted = FailureFilter(connector_key=system.connector_key, **chosen)
        made = start.begin(session, wanted, by="test", why="the option is there now")
    for _ in range(3):
        system.run_jobs()
        system.work()
        system.change_rows("UPDATE jobs SET due_at = now() WHERE state = 'due'")
    return system.rows("SELECT state FROM replay_items WHERE replay_id = :r ORDER BY id", r=made.id)


def test_a_run_counts_rejected_fields_of_synchronized_records(system: SyncSystem) -> None:
    create_records(system, persons=0, organizations=0)
    for number in range(1, PAGE + 3):
        system.company.put_raw("person", raw_person(id=number, emails=[], label_ids=[987_654], owner_id=[1]))
    age_records(system)

    run = system.fetch(Entity.PERSON)

    assert (run.state, run.new, run.failed, run.rejected_fields) == ("done", PAGE + 2, 0, 2 * (PAGE + 2))
    assert len(rows(system)) == 2 * (PAGE + 2)
    assert {each[:4] for each in rows(system) if each[1] == "1"} == {
        ("incoming", "1", "label_ids", "option_unknown"),
        ("incoming", "1", "owner_id", "wrong_type"),
    }
    with transaction() as session:
        groups = groups_of(session, FailureFilter(connector_key=system.connector_key, kind="field"))
    assert {(each.field, each.reason, each.count) for each in groups} == {
        ("label_ids", "option_unknown", PAGE + 2),
        ("owner_id", "wrong_type", PAGE + 2),
    }


def test_an_event_of_a_field_states_that_the_record_was_synchronized(system: SyncSystem) -> None:
    create_records(system, persons=0, organizations=0)
    system.company.put_raw("person", raw_person(id=7, label_ids=[987_654]))
    age_records(system)
    system.fetch(Entity.PERSON)

    with transaction() as session:
        rows = event_log.page_of_events(session, system.connector_key, EventFilter(entity=Entity.PERSON))
    assert [(each.outcome, each.field, each.words) for each in map(describe_event, rows)] == [
        ("error", "label_ids", "synchronized without this field"),
        ("success", None, "synchronized"),
    ]


def test_a_rejected_field_closes_when_it_is_synchronized_and_another_stays_open(
    system: SyncSystem,
) -> None:
    create_records(system, persons=0, organizations=0)
    system.company.put_raw("person", raw_person(id=7, label_ids=[987_654], owner_id=[1]))
    age_records(system)
    system.fetch(Entity.PERSON)
    first = rows(system)

    system.company.put_raw("person", raw_person(id=7, label_ids=[], owner_id=[1], update_time="2026-03-05T08:00:00Z"))
    system.fetch(Entity.PERSON, changed_only=True)

    assert {each[2] for each in first} == {"label_ids", "owner_id"}
    assert [(field, attempts) for _, _, field, _, attempts in rows(system)] == [("owner_id", 2)]
    assert [each[2] for each in rows(system, "replayed")] == ["label_ids"]


def test_what_stayed_behind_before_this_was_kept_is_kept_by_the_next_full_fetch(system: SyncSystem) -> None:
    create_records(system, persons=0, organizations=0)
    system.company.put_raw("person", raw_person(id=7, label_ids=[987_654]))
    age_records(system)
    system.fetch(Entity.PERSON)
    system.change_rows("DELETE FROM failures")

    run = system.fetch(Entity.PERSON, changed_only=True)

    assert (run.same, run.failed, run.rejected_fields) == (1, 0, 1)
    assert [each[2] for each in rows(system)] == ["label_ids"]


def test_a_field_on_its_way_to_pipedrive_is_replayed_from_the_newest_report(system: SyncSystem) -> None:
    create_records(system, persons=1, organizations=1)
    score, title = field_code(system, "person", "Lead score"), field_code(system, "person", "Job title")
    system.change_settings(
        outgoing_user_attributes=[NAME, {"hull": "score", "service": score}, {"hull": "job", "service": title}]
    )
    fetch_everything(system)
    send_messages(system, user(ANN, name="Ann", score="many", job="Countess"))
    ((_, made, body),) = writes(system)
    assert body == {"name": "Ann", "custom_fields": {title: "Countess"}}
    assert rows(system) == [("outgoing", ANN, score, "wrong_type", 1)]
    with transaction() as session:
        (open_one,) = find_failures(session, FailureFilter(connector_key=system.connector_key))
        assert preview_failures(session, [open_one])[open_one.id].kind is ReplayEffect.FAILS_AGAIN

    assert [each.state for each in replay(system, field=score)] == ["failed_again"]
    assert [each[:4] for each in rows(system)] == [("outgoing", ANN, score, "wrong_type")]
    system.change_settings(
        outgoing_user_attributes=[NAME, {"hull": "score_2", "service": score}, {"hull": "job", "service": title}]
    )
    send_messages(system, user(ANN, name="Ann", score_2="12", job="Countess", plan="x"))
    assert person(system, made)["custom_fields"][score] == 12
    assert rows(system) == []


def test_a_run_that_meets_a_record_again_while_it_catches_up_counts_its_fields_once(system: SyncSystem) -> None:
    create_records(system, persons=0, organizations=0)
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    system.company.put_raw("person", raw_person(id=7, label_ids=[987_654], update_time=now))

    run = system.fetch(Entity.PERSON)

    assert (run.state, run.phase, run.read, run.rejected_fields) == ("done", "catch_up", 1, 1)
