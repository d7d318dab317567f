"""The life of Pipedrive's field definitions: a new option, a renamed one, a new field, and what they had left behind."""

from __future__ import annotations

from typing import Any

from db import connector as connectors
from db.session import transaction
from pipeline.domain.kinds import Entity
from sandbox.company.fields import Field, Option
from tests.deliveries import deliver, listen
from tests.journeys.people import age, fill
from tests.journeys.told_by_hull import ANN, BEN, failures, know_everything, person, say, user, writes
from tests.world import World

NAME = {"hull": "name", "service": "name"}


def lead_source(world: World) -> Field:
    return next(each for each in world.company.custom_fields("person") if each.name == "Lead source")


def mapped(world: World) -> str:
    """Three Persons are in Hull, and the lead source travels both ways."""
    code = lead_source(world).code
    world.change_settings(
        incoming_user_attributes=[NAME, {"hull": "source", "service": code}],
        outgoing_user_attributes=[NAME, {"hull": "wanted_source", "service": code}],
    )
    fill(world, persons=3, organizations=1)
    know_everything(world)
    return code


def new_option(world: World, label: str) -> int:
    (added,) = world.company.add_options("person", lead_source(world), [label])
    return int(added.id)


def times_read(world: World) -> int:
    return world.pipedrive.ledger.requests["fields"]


def definitions_away(world: World, count: int | None = None) -> None:
    world.pipedrive.faults.add("/api/v2/personFields$", "status", status=503, count=count)


def a_while_later(world: World, seconds: int = 15) -> None:
    """The burst is over; the definitions are as they were."""
    world.change_rows("UPDATE field_definitions SET asked_at = now() - make_interval(secs => :s)", s=seconds)


def rejected(world: World) -> list[tuple[str, str, str, str]]:
    rows = world.rows("SELECT kind, record_id, reason, direction FROM failures WHERE state = 'open' ORDER BY id")
    return [tuple(row) for row in rows]


def test_a_burst_of_new_options_leads_to_one_reading(world: World) -> None:
    code = mapped(world)
    said = listen(world)
    before = times_read(world)
    for number, label in enumerate(("Fair", "Radio", "Friend"), start=1):
        world.company.edit_person(number, custom_fields={code: new_option(world, label)})

    deliver(world, *said)
    world.work()

    assert [world.users()[each].get("source") for each in (1, 2, 3)] == ["Fair", "Radio", "Friend"]
    assert times_read(world) == before + 1


def test_what_is_unknown_for_good_is_not_asked_about_with_every_record(world: World) -> None:
    mapped(world)
    before = times_read(world)
    for plan in ("a", "b", "c"):
        a_while_later(world)
        say(world, user(ANN, name="Ann", wanted_source="from nowhere", plan=plan))

    assert times_read(world) == before + 1
    a_while_later(world)
    say(world, user(BEN, name="Ben", wanted_source="from elsewhere"))
    assert times_read(world) == before + 2


def test_an_option_added_after_the_report_is_written_without_another_report(world: World) -> None:
    code = mapped(world)
    say(world, user(ANN, name="Ann", wanted_source="Fair"), user(BEN, name="Ben", wanted_source="nowhere"))
    assert rejected(world) == [
        ("field", ANN, "option_unknown", "outgoing"),
        ("field", BEN, "option_unknown", "outgoing"),
    ]

    option = new_option(world, "Fair")
    a_while_later(world, 25)
    say(world, user("e" * 24, name="Eve", wanted_source="Fair"))
    world.work()

    made = {body["name"]: entity_id for method, entity_id, body in writes(world) if method == "POST"}
    assert person(world, made["Ann"])["custom_fields"][code] == option
    assert rejected(world) == [("field", BEN, "option_unknown", "outgoing")]


def test_the_rest_of_a_live_batch_goes_on_while_the_definitions_cannot_be_read(world: World) -> None:
    code = mapped(world)
    said = listen(world)
    definitions_away(world)
    world.company.edit_person(1, custom_fields={code: new_option(world, "Fair")})
    world.company.edit_person(2, name="Two of them")

    deliver(world, *said)
    world.work()

    assert world.users()[2]["name"] == "Two of them"
    assert rejected(world) == [("field", "1", "option_unknown", "incoming")]
    world.pipedrive.faults.replace([])
    a_while_later(world)
    said.clear()
    world.company.edit_person(3, custom_fields={code: new_option(world, "Radio")})
    deliver(world, *said)
    world.work()
    assert [world.users()[each].get("source") for each in (1, 3)] == ["Fair", "Radio"]
    assert rejected(world) == []


def test_a_renamed_option_reaches_hull_with_the_next_full_fetch_and_is_written_by_its_new_name(world: World) -> None:
    code = mapped(world)
    field = lead_source(world)
    first, second = field.options[:2]
    for number in (1, 2):
        world.company.edit_person(number, custom_fields={code: first.id})
    age(world)
    world.fetch(Entity.PERSON)
    world.company.change_field(
        "person", field, options=(Option(id=first.id, label="Word of mouth"), *field.options[1:])
    )

    a_while_later(world)
    world.fetch(Entity.PERSON, changed_only=True)
    world.work()

    assert [world.users()[each].get("source") for each in (1, 2)] == ["Word of mouth"] * 2
    third = world.users()[3]
    say(world, user(third["id"], **{**third, "wanted_source": "Word of mouth"}))
    assert person(world, 3)["custom_fields"][code] == first.id
    assert second.id != first.id


def test_a_renamed_option_is_noticed_within_the_hour_and_reaches_records_that_nobody_edits(world: World) -> None:
    code = mapped(world)
    field = lead_source(world)
    first = field.options[0]
    world.company.edit_person(1, custom_fields={code: first.id})
    age(world)
    world.fetch(Entity.PERSON)
    world.company.change_field(
        "person", field, options=(Option(id=first.id, label="Word of mouth"), *field.options[1:])
    )
    world.change_rows("UPDATE field_definitions SET fetched_at = now() - interval '61 min', asked_at = NULL")
    said = listen(world)
    world.company.edit_person(3, name="Three")
    deliver(world, *said)
    world.work()

    assert world.users()[1]["source"] == "Word of mouth"
    runs = world.rows("SELECT kind, cause, state, tokens FROM runs ORDER BY id DESC LIMIT 1")
    assert [tuple(each) for each in runs] == [("backfill", "definitions", "done", 0)]


def test_a_field_made_a_moment_ago_can_be_mapped(world: World) -> None:
    mapped(world)
    made = world.company.add_field("person", name="Shoe size", kind="double", labels=[])
    with transaction() as session:
        connector = connectors.get_connector(session, world.connector_key)
        now = connectors.settings_in_force(session, world.connector_key).document
    rows: list[Any] = [*now["incoming_user_attributes"], {"hull": "shoe", "service": made.code}]

    world.module("sync.connectors.settings_change").change_settings(
        connector, now | {"incoming_user_attributes": rows}, "test"
    )

    world.company.edit_person(1, custom_fields={made.code: 43})
    world.fetch(Entity.PERSON, changed_only=True)
    assert world.users()[1]["shoe"] == 43


def test_users_sent_before_the_field_list_was_read_lose_no_field(world: World) -> None:
    code = mapped(world)
    world.change_rows("DELETE FROM field_definitions")
    label = lead_source(world).options[0].label

    say(world, user(ANN, name="Ann", wanted_source=label))

    ((_, _, body),) = [each for each in writes(world) if each[0] == "POST"]
    assert body["custom_fields"] == {code: lead_source(world).options[0].id}
    assert failures(world) == []


def test_an_answer_without_any_field_is_not_believed(world: World) -> None:
    code = mapped(world)
    world.pipedrive.faults.add("/api/v2/personFields$", "rewrite", find=r"\[.*\]", put="[]", count=None)
    world.company.edit_person(1, custom_fields={code: new_option(world, "Fair")})
    world.fetch(Entity.PERSON, changed_only=True)

    kept = world.rows("SELECT jsonb_array_length(rows) AS fields FROM field_definitions WHERE entity = 'person'")
    assert kept[0].fields > 5
