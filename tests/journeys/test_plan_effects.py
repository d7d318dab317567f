"""A plan, the number to confirm, what is sent, the log and Pipedrive's own calls agree on every User and Account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.journeys.hull_messages import account, fetch_everything, field_code, send_messages, user
from tests.journeys.outgoing_effects import Outcome, plan_and_apply, send_again
from tests.journeys.pipedrive_records import create_records
from tests.journeys.planning import NICKNAME
from tests.prepared import prepared
from tests.system import SyncSystem, default_settings

Document = dict[str, Any]
NAME_OF_ACCOUNT = {"hull": "name", "service": "name"}
BASE: Document = default_settings() | {
    "outgoing_user_attributes": [NICKNAME],
    "outgoing_account_attributes": [NAME_OF_ACCOUNT],
    "account_claims": [{"hull": "domain", "service": "website"}],
    "synchronized_user_segments": ["vip"],
    "synchronized_account_segments": ["vip"],
}


def key(number: int) -> str:
    """Hull id number so many; they are looked at in this order."""
    return f"{number:024x}"


@pytest.fixture
@prepared
def known(system: SyncSystem) -> SyncSystem:
    """Twelve Persons and five Organizations, known on both sides, under settings that send those of one segment."""
    system.change_settings(**BASE)
    create_records(system, persons=12, organizations=5)
    fetch_everything(system)
    return system


def joined(system: SyncSystem, entity: Entity = Entity.PERSON) -> dict[int, str]:
    rows = system.rows("SELECT pipedrive_id, hull_id FROM id_mappings WHERE entity = :e ORDER BY 1", e=entity)
    return {row.pipedrive_id: row.hull_id for row in rows}


def unknown_in_hull(system: SyncSystem, *pipedrive_ids: int) -> None:
    """These Persons, or all, are joined to no User, as if they had never been brought to Hull."""
    chosen = list(pipedrive_ids or range(1, 100))
    system.change_rows(
        "UPDATE id_mappings SET hull_id = NULL, resolve_at = NULL WHERE entity = 'person' AND pipedrive_id = ANY(:ids)",
        ids=chosen,
    )


def some_reported(system: SyncSystem, segments: tuple[str, ...] = ("lead",)) -> None:
    """Hull reports most Users: known ones, new ones, ones that nothing identifies, and Accounts of each kind."""
    ids = joined(system)
    send_messages(
        system, *(user(ids[n], segments=segments, nickname=f"Nick {n}", email=f"p{n}@example.com") for n in range(1, 6))
    )
    send_messages(system, *(user(ids[n], segments=segments, nickname=f"Person {n}") for n in (6, 7)))
    send_messages(
        system, *(user(key(n), segments=segments, nickname=f"New {n}", email=f"new{n}@new.test") for n in range(1, 6))
    )
    send_messages(system, user(key(6), segments=segments, nickname="No E-mail"))
    send_messages(system, user(key(7), segments=segments))
    accounts = joined(system, Entity.ORGANIZATION)
    send_messages(system, *(account(accounts[n], segments=segments, name=f"Renamed {n}") for n in (1, 2)))
    send_messages(
        system, *(account(key(n), segments=segments, name=f"Co {n}", domain=f"co{n}.example") for n in (21, 22))
    )


# Each makes a situation, and returns the settings that are planned then.


def segment_added(system: SyncSystem) -> Document:
    some_reported(system)
    return BASE | {"synchronized_user_segments": ["vip", "lead"], "synchronized_account_segments": ["vip", "lead"]}


def segment_removed(system: SyncSystem) -> Document:
    some_reported(system, ("vip",))
    return BASE | {"synchronized_user_segments": ["other"]}


def mapping_added(system: SyncSystem) -> Document:
    ids, score = joined(system), field_code(system, "person", "Lead score")
    send_messages(system, *(user(ids[n], nickname=f"Person {n}", points=n) for n in range(1, 6)))
    send_messages(system, *(user(ids[n], nickname=f"Person {n}") for n in (6, 7)))
    return BASE | {"outgoing_user_attributes": [NICKNAME, {"hull": "points", "service": score}]}


def mapping_removed(system: SyncSystem) -> Document:
    some_reported(system, ("vip",))
    return BASE | {"outgoing_user_attributes": []}


def null_policy_changed(system: SyncSystem) -> Document:
    ids, score = joined(system), field_code(system, "person", "Lead score")
    row = {"hull": "points", "service": score}
    system.change_settings(outgoing_user_attributes=[NICKNAME, row | {"on_null": "ignore"}])
    send_messages(system, *(user(ids[n], nickname=f"Person {n}", points=n) for n in range(1, 6)))
    send_messages(system, *(user(ids[n], nickname=f"Person {n}", points=None) for n in range(1, 4)))
    return BASE | {"outgoing_user_attributes": [NICKNAME, row]}


def owner_changed(system: SyncSystem) -> Document:
    ids = joined(system)
    row = {"hull": "pipedrive/name", "service": "name"}
    system.change_settings(outgoing_user_attributes=[row | {"owner": "pipedrive"}])
    send_messages(system, *(user(ids[n], **{"pipedrive/name": f"Hull's {n}"}) for n in range(1, 5)))
    return BASE | {"outgoing_user_attributes": [row]}


def direction_added(system: SyncSystem) -> Document:
    ids, score = joined(system), field_code(system, "person", "Lead score")
    for n in range(1, 4):
        system.company.edit_person(n, custom_fields={score: n})
    system.fetch(Entity.PERSON)
    send_messages(system, *(user(ids[n], nickname=f"Person {n}", points=10 * n) for n in range(1, 6)))
    row = {"hull": "points", "service": score}
    return BASE | {
        "outgoing_user_attributes": [NICKNAME, row],
        "incoming_user_attributes": [*BASE["incoming_user_attributes"], {"hull": "pipedrive/points", "service": score}],
    }


def custom_fields(system: SyncSystem) -> Document:
    ids = joined(system)
    found = {
        name: field_code(system, "person", name)
        for name in ("Customer since", "Lead source", "Interests", "Credit limit")
    }
    send_messages(
        system,
        *(
            user(
                ids[n],
                nickname=f"Person {n}",
                since="2026-05-01",
                source=("Inbound", "Nowhere")[n % 2],
                likes=["Events", "Chess"][: n % 3],
                limit=n * 10,
            )
            for n in range(1, 8)
        ),
    )
    rows = zip(("since", "source", "likes", "limit"), found.values(), strict=True)
    return BASE | {
        "outgoing_user_attributes": [NICKNAME, *({"hull": hull, "service": service} for hull, service in rows)]
    }


def only_unknown_options(system: SyncSystem) -> Document:
    ids, source = joined(system), field_code(system, "person", "Lead source")
    send_messages(system, *(user(ids[n], nickname=f"Person {n}", source="Nowhere") for n in range(1, 5)))
    return BASE | {"outgoing_user_attributes": [NICKNAME, {"hull": "source", "service": source}]}


def links_switched_on(system: SyncSystem) -> Document:
    ids = joined(system)
    accounts = joined(system, Entity.ORGANIZATION)
    beside = {"account_segments": [{"id": "vip", "name": "vip"}]}
    acme = {"id": key(31), "name": "Acme", "domain": "acme.example"}
    org4 = {"id": key(32), "name": "Org 4", "domain": "org4.test.example.com"}
    org1 = {"id": accounts[1], "name": "Org 1"}
    send_messages(system, *(user(ids[n], nickname=f"Person {n}", account=acme, **beside) for n in (1, 2)))
    send_messages(system, *(user(ids[n], nickname=f"Person {n}", account=org1, **beside) for n in (3, 4)))
    send_messages(system, user(ids[5], nickname="Person 5", account=org4, **beside))
    send_messages(
        system, user(ids[6], nickname="Changed", account={"id": key(33), "name": "Left"}, account_segments=[])
    )
    send_messages(system, user(ids[7], nickname="Person 7"))
    return BASE | {"link_users_in_service": True}


def links_of_new_users(system: SyncSystem) -> Document:
    beside = {"account_segments": [{"id": "lead", "name": "lead"}], "segments": ("lead",)}
    acme = {"id": key(31), "name": "Acme", "domain": "acme.example"}
    send_messages(
        system,
        *(user(key(n), nickname=f"New {n}", email=f"n{n}@new.test", account=acme, **beside) for n in range(1, 6)),
    )
    return BASE | {
        "link_users_in_service": True,
        "synchronized_user_segments": ["vip", "lead"],
        "synchronized_account_segments": ["vip", "lead"],
    }


def one_claim_twice(system: SyncSystem) -> Document:
    lead = {"segments": ("lead",)}
    send_messages(system, *(user(key(n), nickname=f"New {n}", email="same@new.test", **lead) for n in (1, 2, 3)))
    send_messages(system, *(user(key(n), nickname=f"New {n}", email=f"n{n}@new.test", **lead) for n in (4, 5)))
    send_messages(system, *(account(key(n), name=f"Co {n}", domain="co.example", **lead) for n in (21, 22)))
    return BASE | {"synchronized_user_segments": ["lead"], "synchronized_account_segments": ["lead"]}


def one_record_for_two(system: SyncSystem) -> Document:
    lead = {"segments": ("lead",)}
    send_messages(system, *(user(key(n), nickname=f"New {n}", email="p1@example.com", **lead) for n in (1, 2, 3)))
    send_messages(system, *(user(key(n), nickname=f"Person {n}", email=f"p{n}@example.com", **lead) for n in (4, 5)))
    send_messages(system, user(key(6), nickname="Other", email="p6@example.com", **lead))
    unknown_in_hull(system)
    return BASE | {"synchronized_user_segments": ["lead"]}


def in_conflict(system: SyncSystem) -> Document:
    ids = joined(system)
    lead = {"segments": ("lead",)}
    send_messages(system, user(ids[1], nickname="Two", anonymous_ids=["pipedrive:1", "pipedrive:2"], **lead))
    send_messages(system, user(key(1), nickname="Taken", email="p3@example.com", **lead))
    send_messages(system, user(ids[4], nickname="Fine", **lead))
    return BASE | {"synchronized_user_segments": ["lead"]}


def deleted_persons(system: SyncSystem) -> Document:
    ids = joined(system)
    lead = {"segments": ("lead",)}
    send_messages(system, *(user(ids[n], nickname=f"Back {n}", email=f"p{n}@example.com", **lead) for n in (1, 2, 3)))
    for n in (1, 2):
        system.company.delete_person(n)
    fetch_everything(system)
    return BASE | {"synchronized_user_segments": ["lead"], "ignore_deleted_users": False}


def deleted_persons_ignored(system: SyncSystem) -> Document:
    return deleted_persons(system) | {"ignore_deleted_users": True}


def shared_hosts(system: SyncSystem) -> Document:
    lead = {"segments": ("lead",)}
    send_messages(system, *(account(key(n), name=f"Site {n}", domain="facebook.com", **lead) for n in (21, 22)))
    send_messages(system, account(key(23), name="Shop", domain="shop.myshopify.com", **lead))
    send_messages(system, account(key(24), name="Org 1", domain="org1.test.example.com", **lead))
    return BASE | {"synchronized_account_segments": ["lead"]}


def claims_in_two_records(system: SyncSystem) -> Document:
    """Two Persons give one e-mail; a third User would be given the e-mail of another's Person."""
    ids = joined(system)
    system.company.create_person(name="Double", emails=[{"value": "p8@example.com", "primary": True}])
    fetch_everything(system)
    lead = {"segments": ("lead",)}
    send_messages(system, user(key(1), nickname="Which", email="p8@example.com", **lead))
    send_messages(system, user(ids[2], nickname="Person 2", email="p3@example.com", **lead))
    send_messages(system, user(ids[4], nickname="Moves", email="p5@example.com", **lead))
    unknown_in_hull(system, 8, 13)
    return BASE | {"synchronized_user_segments": ["lead"]}


def match_key_changed(system: SyncSystem) -> Document:
    number = field_code(system, "person", "Customer number")
    for n in range(1, 5):
        system.company.edit_person(n, custom_fields={number: f"C{n}"})
    system.fetch(Entity.PERSON)
    lead, ids = {"segments": ("lead",)}, joined(system)
    send_messages(system, *(user(ids[n], nickname=f"New {n}", external_id=f"C{n}", **lead) for n in range(1, 5)))
    send_messages(system, *(user(key(n), nickname=f"New {n}", external_id=f"C{n}", **lead) for n in (5, 6)))
    unknown_in_hull(system)
    return BASE | {
        "user_claims": [{"hull": "external_id", "service": number}],
        "synchronized_user_segments": ["lead"],
    }


def sync_key_added(system: SyncSystem) -> Document:
    some_reported(system)
    return BASE | {
        "user_sync_key": field_code(system, "person", "Customer number"),
        "synchronized_user_segments": ["lead"],
    }


SITUATIONS: list[Callable[[SyncSystem], Document]] = [
    segment_added,
    segment_removed,
    mapping_added,
    mapping_removed,
    null_policy_changed,
    owner_changed,
    direction_added,
    custom_fields,
    only_unknown_options,
    links_switched_on,
    links_of_new_users,
    one_claim_twice,
    one_record_for_two,
    in_conflict,
    deleted_persons,
    deleted_persons_ignored,
    shared_hosts,
    claims_in_two_records,
    match_key_changed,
    sync_key_added,
]


@pytest.mark.parametrize("slice_of", [500, 2])
@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda each: each.__name__)
def test_the_effect_on_every_record_is_as_planned(
    known: SyncSystem, situation: Callable[[SyncSystem], Document], slice_of: int
) -> None:
    document = situation(known)
    outcome = plan_and_apply(known, document, slice_of=slice_of)
    agree(outcome)
    left = send_again(known, outcome.planned)
    assert {record: (seen.act, seen.written) for record, seen in left.items() if seen.created or seen.updated} == {}


def agree(outcome: Outcome) -> None:
    """Compare record by record, then the counts."""
    planned = {record: act for record, act in outcome.planned.items() if act not in ("same", "skip")}
    seen = {record: each.act for record, each in outcome.seen.items() if each.act != "same"}
    for record in outcome.acts("lookup"):
        assert seen.get(record) in ("create", "update", "match"), (record, seen.get(record))
        seen[record] = "lookup"
    assert seen == planned
    for record in outcome.acts("create", "lookup", "update", "link"):
        written, expected = outcome.seen[record].written, outcome.fields[record]
        expected = {name: value for name, value in expected.items() if not str(value).startswith("the Organization ")}
        if (
            outcome.planned[record] == "lookup"
        ):  # the values of a record that is created; one that is matched needs fewer
            expected = {name: value for name, value in expected.items() if name in written}
        assert {name: written.get(name) for name in expected} == expected, record
        assert written.keys() - expected.keys() <= {"org_id"}, record
    counts = Counter((entity, act) for (entity, _), act in outcome.planned.items())
    planned_counts = outcome.plan.counts
    for entity in Entity:
        for act in ("create", "lookup", "update", "link", "match", "error", "same", "skip"):
            assert planned_counts.get(f"outgoing.{entity}.act.{act}", 0) == counts[entity, act], (entity, act)
    incoming = sum(
        planned_counts.get(f"incoming.{entity}.act.{act}", 0)
        for entity in Entity
        for act in ("update", "link", "resend")
    )
    assert outcome.touched == len(outcome.acts("update", "link", "lookup")) + incoming
    through = outcome.acts("create", "update", "link", "match", "lookup")
    assert outcome.applied.sent == len(through)
    assert {record for record, each in outcome.seen.items() if each.success} == through - outcome.acts("match")
