"""One malformed record: it is reported with a reason and a next step, and the others of its page arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from pipeline.domain.reasons import REASONS
from tests.journeys.pipedrive_records import OMITTED, PAGE, age_records, create_records, raw_person
from tests.logs import captured_log
from tests.system import API_TOKEN, SyncSystem

EXTERNAL_ID = [{"hull": "email", "service": "email"}, {"hull": "external_id", "service": "name"}]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no id", raw_person(id=OMITTED), "no_id"),
    ("an id of null", raw_person(id=None), "no_id"),
    ("an id that is true", raw_person(id=True), "no_id"),
    ("an id that is text", raw_person(id="abc"), "no_id"),
    ("an id of a list", raw_person(id=[1]), "no_id"),
    ("a fractional id", raw_person(id=1.5), "no_id"),
    ("a whole number as float", raw_person(id=10.0), "no_id"),
    ("no time at all", raw_person(update_time=None, add_time=None), "no_update_time"),
    ("times that are numbers", raw_person(update_time=1, add_time=2), "no_update_time"),
    ("a time nobody can read", raw_person(update_time="yesterday", add_time="never"), "no_update_time"),
]

GOES_WITHOUT: list[tuple[str, dict[str, Any], str, str]] = [
    ("no name", raw_person(name=OMITTED), "field_missing", "pipedrive/name"),
    ("a name that is a list", raw_person(name=["Odd"]), "wrong_type", "pipedrive/name"),
    ("a name that is an object", raw_person(name={"first": "Odd"}), "wrong_type", "pipedrive/name"),
    ("e-mails that are no list", raw_person(emails=7), "wrong_type", "pipedrive/email"),
    ("an e-mail that is none", raw_person(emails=[{"value": "not one", "primary": True}]), "wrong_type", "email"),
    ("an owner that is no id", raw_person(owner_id=[1]), "wrong_type", "pipedrive/owner_id"),
    ("an add time that is no time", raw_person(add_time="yesterday"), "wrong_type", "pipedrive/add_time"),
    ("a name of 1 MB", raw_person(name="x" * 1_000_000), "too_long", "pipedrive/name"),
    ("a name with a NUL", raw_person(name="Od\x00d"), "unusable_text", "pipedrive/name"),
    ("a name with half a surrogate pair", raw_person(name="Od\ud800d"), "unusable_text", "pipedrive/name"),
    ("an unknown label", raw_person(label_ids=[987_654]), "option_unknown", "pipedrive/label_ids"),
    ("an organization that is no id", raw_person(org_id="Acme"), "wrong_type", "account_id"),
]

GOES_WHOLE = [
    ("a null name", raw_person(name=None)),
    ("empty lists", raw_person(emails=[], phones=[])),
    ("e-mails of null", raw_person(emails=None)),
    ("markup", raw_person(name="<script>alert(1)</script>{{7*7}}'; DROP TABLE persons; --")),
    ("right to left, zero width, emoji", raw_person(name="\u202eOdd\u200b \U0001f9d1\u200d\U0001f680")),
    ("unmapped fields of any kind", raw_person(surprise={"deep": [[[[[{}]]]]]}, other="\x00")),
    ("ten thousand unmapped items", raw_person(surprise=list(range(10_000)))),
    ("custom fields that are a list", raw_person(custom_fields=[])),
    ("an add time alone", raw_person(update_time=None)),
]


def by_name(case: Any) -> str | None:
    return case if isinstance(case, str) else None


def neighbours(system: SyncSystem) -> None:
    create_records(system, persons=5, organizations=0)
    age_records(system)


@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "A record that cannot be read does not stop the others.",
)
@pytest.mark.parametrize(("what", "record", "reason"), REFUSED, ids=by_name)
def test_a_record_that_cannot_be_read_is_kept_whole(
    system: SyncSystem, what: str, record: dict[str, Any], reason: str
) -> None:
    neighbours(system)
    system.company.put_raw("person", record)

    run = system.fetch(Entity.PERSON)

    assert run.state == "done"
    assert sorted(system.users()) == [1, 2, 3, 4, 5]
    reported = {event[:2] for event in system.events() if event[1] is not None}
    assert reported == {("incoming.user.error", reason)}
    failures = system.rows("SELECT reason, kind, stage, state FROM failures")
    assert [tuple(failure) for failure in failures] == [(reason, "record", "transform", "open")]
    assert REASONS[reason].advice


@pytest.mark.parametrize(("what", "record", "reason", "lost"), GOES_WITHOUT, ids=by_name)
def test_a_value_that_cannot_be_read_stays_behind_alone(
    system: SyncSystem, what: str, record: dict[str, Any], reason: str, lost: str
) -> None:
    neighbours(system)
    system.company.put_raw("person", record)

    run = system.fetch(Entity.PERSON)

    assert run.state == "done"
    assert sorted(system.users()) == [1, 2, 3, 4, 5, 10]
    assert system.users()[10].get(lost) is None
    reported = [event for event in system.events() if event[1] is not None]
    assert set(reported) == {("incoming.user.error", reason, 10)}
    assert system.rows("SELECT 1 FROM failures WHERE kind = 'batch'") == []


@pytest.mark.parametrize(("what", "record"), GOES_WHOLE, ids=by_name)
def test_what_is_only_unusual_arrives(system: SyncSystem, what: str, record: dict[str, Any]) -> None:
    neighbours(system)
    system.company.put_raw("person", record)

    run = system.fetch(Entity.PERSON)

    assert (run.state, run.failed, run.new) == ("done", 0, 6)
    assert system.users()[10].get("pipedrive/name") == record["name"]
    assert [event for event in system.events() if event[1] is not None] == []


@pytest.mark.parametrize("bad", ["Od\x00d", "Od\ud800d", "x" * 300, ["a"], {"b": 1}, True])
def test_a_claim_that_cannot_be_one_stays_behind(system: SyncSystem, bad: Any) -> None:
    system.change_settings(user_claims=EXTERNAL_ID, incoming_user_attributes=[])
    neighbours(system)
    system.company.put_raw("person", raw_person(name=bad))

    run = system.fetch(Entity.PERSON)

    assert run.state == "done"
    assert sorted(system.users()) == [1, 2, 3, 4, 5, 10]
    assert system.users()[10].get("external_id") is None
    assert system.rows("SELECT 1 FROM failures WHERE kind = 'batch'") == []


def test_one_record_may_be_wrong_in_many_ways(system: SyncSystem) -> None:
    neighbours(system)
    system.company.put_raw("person", raw_person(name=["x"], owner_id=[], add_time="?", emails=7, label_ids="x"))

    system.fetch(Entity.PERSON)

    assert sorted(system.users()) == [1, 2, 3, 4, 5, 10]
    details = {
        row.detail.split(":")[0] for row in system.rows("SELECT detail FROM sync_events WHERE reason = 'wrong_type'")
    }
    assert {"name", "owner_id", "add_time", "email"} <= details


@pytest.mark.guide(
    "Email as an identifier",
    "If two Persons share an e-mail, the first one holds it, and the other is identified only by its Pipedrive id.",
)
def test_duplicate_e_mails_make_two_users_and_one_claim(system: SyncSystem) -> None:
    for name in ("Ada", "Ada again"):
        system.company.create_person(name=name, emails=[{"value": "ada@example.com", "primary": True}])

    run = system.fetch(Entity.PERSON)

    users = system.users()
    assert (run.new, run.failed) == (2, 0)
    assert [users[1].get("email"), users[2].get("email")] == ["ada@example.com", None]
    reported = system.rows("SELECT event, pipedrive_id, detail FROM sync_events WHERE reason = 'duplicate_claim'")
    assert [tuple(row) for row in reported] == [("incoming.user.skip", 2, "email: held by person 1")]


@pytest.mark.parametrize("walk", ["ascending", "descending"])
@pytest.mark.parametrize("wrong", [True, -1, 0, "abc", None])
def test_a_wrong_id_ends_no_walk_early(system: SyncSystem, wrong: Any, walk: str) -> None:
    """The walks meet by ids: one record with a wrong id must not make them believe that they have met."""
    create_records(system, persons=4 * PAGE, organizations=0)
    age_records(system)
    record = system.company.record("person", 2 if walk == "ascending" else 4 * PAGE - 2)
    assert record is not None
    at = record["id"]
    put_at(system, at, {**record, "id": wrong})

    run = system.fetch(Entity.PERSON)

    assert run.state == "done"
    assert sorted(system.users()) == [number for number in range(1, 4 * PAGE + 1) if number != at]


def put_at(system: SyncSystem, at: int, record: dict[str, Any]) -> None:
    """Let the company list this body where the record of that id belongs."""
    with system.company.lock:
        system.company.store.connection.execute(
            "UPDATE person SET body = ?, raw = 1 WHERE id = ?", (json.dumps(record).encode(), at)
        )


def missing(system: SyncSystem) -> list[tuple[str, int | None, str]]:
    rows = system.rows("SELECT event, pipedrive_id, detail FROM sync_events WHERE reason = 'field_missing' ORDER BY id")
    return [(row.event, row.pipedrive_id, row.detail.partition(":")[0]) for row in rows]


def test_a_field_that_the_company_does_not_have_is_left_out_and_logged_once(system: SyncSystem) -> None:
    gone = "a" * 40
    system.change_settings(
        incoming_user_attributes=[{"hull": "name", "service": "name"}, {"hull": "old", "service": gone}]
    )
    create_records(system, persons=3 * PAGE, organizations=0)

    with captured_log() as lines:
        run = system.fetch(Entity.PERSON)

    assert (run.state, run.new) == ("done", 3 * PAGE)
    assert system.users()[7]["name"] == "Person 7"
    assert missing(system) == [("incoming.user.error", None, gone)]
    reported = [line for line in lines if line.get("reason") == "field_missing"]
    assert [(line["event"], line["field"]) for line in reported] == [("incoming.user.error", gone)]
    assert "mapping" in reported[0]["advice"]


def test_a_field_deleted_in_pipedrive_is_logged_once_and_keeps_its_value_in_hull(system: SyncSystem) -> None:
    code = next(field.code for field in system.company.custom_fields("person") if field.name == "Customer number")
    system.change_settings(
        incoming_user_attributes=[{"hull": "name", "service": "name"}, {"hull": "number", "service": code}]
    )
    for number in range(1, 6):
        system.company.create_person(name=f"Person {number}", custom_fields={code: f"C-{number}"})
    age_records(system)
    system.fetch(Entity.PERSON)
    system.change_rows("UPDATE field_definitions SET fetched_at = now() - interval '1 h'")

    system.pipedrive.test_client().delete(f"/api/v2/personFields/{code}", headers={"x-api-token": API_TOKEN})
    for number in range(1, 6):
        system.company.edit_person(number, name=f"Edited {number}")
    run = system.fetch(Entity.PERSON, changed_only=True)

    assert run.changed == 5
    assert missing(system) == [("incoming.user.error", None, code)]
    assert {user["name"]: user["number"] for user in system.users().values()} == {
        f"Edited {number}": f"C-{number}" for number in range(1, 6)
    }


def test_an_option_added_a_moment_ago_is_looked_up_before_it_is_called_unknown(system: SyncSystem) -> None:
    """However young the field definitions are: an id that they do not know is newer than they are."""
    code = next(field.code for field in system.company.custom_fields("person") if field.name == "Lead source")
    system.change_settings(incoming_user_attributes=[{"hull": "source", "service": code}])
    neighbours(system)
    system.fetch(Entity.PERSON)
    headers = {"x-api-token": API_TOKEN}
    client = system.pipedrive.test_client()
    added = client.post(f"/api/v2/personFields/{code}/options", json=[{"label": "Fair"}], headers=headers).get_json()
    system.company.edit_person(3, custom_fields={code: added["data"][0]["id"]})
    run = system.fetch(Entity.PERSON, changed_only=True)

    assert (run.state, run.failed, run.rejected_fields) == ("done", 0, 0)
    assert system.users()[3].get("source") == "Fair"


def test_records_without_custom_fields_lose_none_and_make_no_errors(system: SyncSystem) -> None:
    codes = [field.code for field in system.company.custom_fields("person")][:8]
    system.change_settings(
        incoming_user_attributes=[{"hull": f"x/{at}", "service": each} for at, each in enumerate(codes)]
    )
    system.company.create_person(name="Ada", custom_fields={codes[0]: "Countess"})
    age_records(system)
    system.fetch(Entity.PERSON)
    field = system.users()[1]["x/0"]
    whole = dict(system.company.record("person", 1) or {})
    for nothing in (None, OMITTED):
        changed = {**whole, "update_time": "2026-11-01T10:00:00Z", "custom_fields": nothing}
        system.company.put_raw("person", {key: value for key, value in changed.items() if value is not OMITTED})
        system.fetch(Entity.PERSON)

    assert (field, system.users()[1]["x/0"]) == ("Countess", "Countess")
    assert [event for event in system.events() if event[0].endswith("error")] == []


def test_several_fields_with_one_cause_are_logged_once_for_the_record(system: SyncSystem) -> None:
    codes = [field.code for field in system.company.custom_fields("person")][:8]
    system.change_settings(
        incoming_user_attributes=[{"hull": f"x/{at}", "service": each} for at, each in enumerate(codes)]
    )
    system.company.put_raw("person", raw_person(custom_fields={codes[0]: "Countess"}))
    system.fetch(Entity.PERSON)

    (detail,) = [row.detail for row in system.rows("SELECT detail FROM sync_events WHERE reason = 'field_missing'")]
    assert detail == f"{', '.join(codes[1:])}: not part of the record"


@pytest.mark.guide(
    "I get empty Accounts",
    "If Accounts are empty after that, look for incoming.account.error and incoming.user.error: a value that"
    " cannot be used is named there.",
)
@pytest.mark.parametrize("entity", Entity)
def test_a_value_that_cannot_be_read_is_named_by_its_field(system: SyncSystem, entity: Entity) -> None:
    system.company.put_raw(entity.value, {"id": 1, "name": ["Acme"], "update_time": "2026-01-01T00:00:00Z"})

    system.fetch(entity)

    named = system.rows("SELECT event, reason FROM sync_events WHERE detail LIKE 'name:%'")
    assert [tuple(row) for row in named] == [(f"incoming.{entity.hull}.error", "wrong_type")]


@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "Look for incoming.user.error, incoming.user.skip, incoming.account.error and incoming.account.skip in "
    "the logs. Each has a reason and the next step.",
)
@pytest.mark.defect(21, "That a record was left out, and why, was logged where nobody looks.")
@pytest.mark.parametrize("entity", Entity)
def test_the_log_names_each_reason_and_the_next_step(system: SyncSystem, entity: Entity) -> None:
    system.company.put_raw(entity.value, {"id": 1, "update_time": None, "add_time": None})
    own = (
        {"emails": [{"value": "a@x.test", "primary": True}]}
        if entity is Entity.PERSON
        else {"website": "https://acme.com"}
    )
    for name in "ab":
        system.company.create(entity.value, {"name": name, **own})

    with captured_log("info") as lines:
        system.fetch(entity)

    found = {(line["event"], line["reason"], bool(line["advice"])) for line in lines if "advice" in line}
    assert {
        (f"incoming.{entity.hull}.error", "no_update_time", True),
        (f"incoming.{entity.hull}.skip", "duplicate_claim", True),
    } <= found
