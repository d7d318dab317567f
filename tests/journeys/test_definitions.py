"""The life of Pipedrive's field definitions: a new option, a renamed one, a new field, and what they had left behind."""

from __future__ import annotations

from typing import Any

from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Entity
from sandbox.company.fields import Field, Option
from tests.deliveries import deliver, listen
from tests.journeys.hull_messages import ANN, BEN, failures, fetch_everything, person, send_messages, user, writes
from tests.journeys.pipedrive_records import age_records, create_records
from tests.system import SyncSystem

NAME = {"hull": "name", "service": "name"}


def lead_source(system: SyncSystem) -> Field:
    return next(each for each in system.company.custom_fields("person") if each.name == "Lead source")


def mapped(system: SyncSystem) -> str:
    """Three Persons are in Hull, and the lead source travels both ways."""
    code = lead_source(system).code
    system.change_settings(
        incoming_user_attributes=[NAME, {"hull": "source", "service": code}],
        outgoing_user_attributes=[NAME, {"hull": "wanted_source", "service": code}],
    )
    create_records(system, persons=3, organizations=1)
    fetch_everything(system)
    return code


def new_option(system: SyncSystem, label: str) -> int:
    (added,) = system.company.add_options("person", lead_source(system), [label])
    return int(added.id)


def times_read(system: SyncSystem) -> int:
    return system.pipedrive.ledger.requests["fields"]


def definitions_away(system: SyncSystem, count: int | None = None) -> None:
    system.pipedrive.faults.add("/api/v2/personFields$", "status", status=503, count=count)


def a_while_later(system: SyncSystem, seconds: int = 15) -> None:
    """The burst is over; the definitions are as they were."""
    system.change_rows("UPDATE field_definitions SET refresh_began_at = now() - make_interval(secs => :s)", s=seconds)


def rejected(system: SyncSystem) -> list[tuple[str, str, str, str]]:
    rows = system.rows("SELECT kind, record_id, reason, direction FROM failures WHERE state = 'open' ORDER BY id")
    return [tuple(row) for row in rows]


def test_a_burst_of_new_options_leads_to_one_reading(system: SyncSystem) -> None:
    code = mapped(system)
    webhooks = listen(system)
    before = times_read(system)
    for number, label in enumerate(("Fair", "Radio", "Friend"), start=1):
        system.company.edit_person(number, custom_fields={code: new_option(system, label)})

    deliver(system, *webhooks)
    system.work()

    assert [system.users()[each].get("source") for each in (1, 2, 3)] == ["Fair", "Radio", "Friend"]
    assert times_read(system) == before + 1


def test_what_is_unknown_for_good_is_not_asked_about_with_every_record(system: SyncSystem) -> None:
    mapped(system)
    before = times_read(system)
    for plan in ("a", "b", "c"):
        a_while_later(system)
        send_messages(system, user(ANN, name="Ann", wanted_source="from nowhere", plan=plan))

    assert times_read(system) == before + 1
    a_while_later(system)
    send_messages(system, user(BEN, name="Ben", wanted_source="from elsewhere"))
    assert times_read(system) == before + 2


def test_an_option_added_after_the_report_is_written_without_another_report(system: SyncSystem) -> None:
    code = mapped(system)
    send_messages(system, user(ANN, name="Ann", wanted_source="Fair"), user(BEN, name="Ben", wanted_source="nowhere"))
    assert rejected(system) == [
        ("field", ANN, "option_unknown", "outgoing"),
        ("field", BEN, "option_unknown", "outgoing"),
    ]

    option = new_option(system, "Fair")
    a_while_later(system, 25)
    send_messages(system, user("e" * 24, name="Eve", wanted_source="Fair"))
    system.work()

    made = {body["name"]: entity_id for method, entity_id, body in writes(system) if method == "POST"}
    assert person(system, made["Ann"])["custom_fields"][code] == option
    assert rejected(system) == [("field", BEN, "option_unknown", "outgoing")]


def test_the_rest_of_a_live_batch_continues_while_the_definitions_cannot_be_read(system: SyncSystem) -> None:
    code = mapped(system)
    webhooks = listen(system)
    definitions_away(system)
    system.company.edit_person(1, custom_fields={code: new_option(system, "Fair")})
    system.company.edit_person(2, name="Two of them")

    deliver(system, *webhooks)
    system.work()

    assert system.users()[2]["name"] == "Two of them"
    assert rejected(system) == [("field", "1", "option_unknown", "incoming")]
    system.pipedrive.faults.replace([])
    a_while_later(system)
    webhooks.clear()
    system.company.edit_person(3, custom_fields={code: new_option(system, "Radio")})
    deliver(system, *webhooks)
    system.work()
    assert [system.users()[each].get("source") for each in (1, 3)] == ["Fair", "Radio"]
    assert rejected(system) == []


def test_a_renamed_option_reaches_hull_with_the_next_full_fetch_and_is_written_by_its_new_name(
    system: SyncSystem,
) -> None:
    code = mapped(system)
    field = lead_source(system)
    first, second = field.options[:2]
    for number in (1, 2):
        system.company.edit_person(number, custom_fields={code: first.id})
    age_records(system)
    system.fetch(Entity.PERSON)
    system.company.change_field(
        "person", field, options=(Option(id=first.id, label="Word of mouth"), *field.options[1:])
    )

    a_while_later(system)
    system.fetch(Entity.PERSON, changed_only=True)
    system.work()

    assert [system.users()[each].get("source") for each in (1, 2)] == ["Word of mouth"] * 2
    third = system.users()[3]
    send_messages(system, user(third["id"], **{**third, "wanted_source": "Word of mouth"}))
    assert person(system, 3)["custom_fields"][code] == first.id
    assert second.id != first.id


def test_a_renamed_option_reaches_unedited_records_within_an_hour(system: SyncSystem) -> None:
    code = mapped(system)
    field = lead_source(system)
    first = field.options[0]
    system.company.edit_person(1, custom_fields={code: first.id})
    age_records(system)
    system.fetch(Entity.PERSON)
    system.company.change_field(
        "person", field, options=(Option(id=first.id, label="Word of mouth"), *field.options[1:])
    )
    system.change_rows("UPDATE field_definitions SET fetched_at = now() - interval '61 min', refresh_began_at = NULL")
    webhooks = listen(system)
    system.company.edit_person(3, name="Three")
    deliver(system, *webhooks)
    system.work()

    assert system.users()[1]["source"] == "Word of mouth"
    runs = system.rows("SELECT kind, cause, state, tokens FROM runs ORDER BY id DESC LIMIT 1")
    assert [tuple(each) for each in runs] == [("backfill", "definitions", "done", 0)]


def test_a_field_made_a_moment_ago_can_be_mapped(system: SyncSystem) -> None:
    mapped(system)
    made = system.company.add_field("person", name="Shoe size", kind="double", labels=[])
    with transaction() as session:
        connector = connectors.get_connector(session, system.connector_key)
        now = connectors.settings_in_force(session, system.connector_key).document
    rows: list[Any] = [*now["incoming_user_attributes"], {"hull": "shoe", "service": made.code}]

    system.module("sync.connectors.settings_change").change_settings(
        connector, now | {"incoming_user_attributes": rows}, "test"
    )

    system.company.edit_person(1, custom_fields={made.code: 43})
    system.fetch(Entity.PERSON, changed_only=True)
    assert system.users()[1]["shoe"] == 43


def test_users_sent_before_the_field_list_was_read_lose_no_field(system: SyncSystem) -> None:
    code = mapped(system)
    system.change_rows("DELETE FROM field_definitions")
    label = lead_source(system).options[0].label

    send_messages(system, user(ANN, name="Ann", wanted_source=label))

    ((_, _, body),) = [each for each in writes(system) if each[0] == "POST"]
    assert body["custom_fields"] == {code: lead_source(system).options[0].id}
    assert failures(system) == []


def test_an_answer_without_any_field_is_not_believed(system: SyncSystem) -> None:
    code = mapped(system)
    system.pipedrive.faults.add("/api/v2/personFields$", "rewrite", find=r"\[.*\]", put="[]", count=None)
    system.company.edit_person(1, custom_fields={code: new_option(system, "Fair")})
    system.fetch(Entity.PERSON, changed_only=True)

    kept = system.rows("SELECT jsonb_array_length(rows) AS fields FROM field_definitions WHERE entity = 'person'")
    assert kept[0].fields > 5
