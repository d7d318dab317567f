"""A plan previews what new settings would do, and applying it does exactly that: field by field, in both directions."""

from __future__ import annotations

from typing import Any

import pytest

from db.plan import SettingsPlan
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.journeys.hull_messages import (
    field_code,
    person,
    pipedrive_id_of,
    send_messages,
    user,
    writes,
)
from tests.journeys.pipedrive_records import create_records
from tests.journeys.planning import (
    FIRST_NAME,
    NICKNAME,
    apply,
    changes_of,
    hundred,
    items,
    known,
    planned,
    with_more,
)
from tests.system import SyncSystem, default_settings

__all__ = ["hundred", "known"]


def test_hull_receives_the_planned_fields(known: SyncSystem) -> None:
    before = known.users()
    tokens = known.pipedrive.ledger.stats()["requests_total"]
    plan = planned(known, with_more("incoming_user_attributes", FIRST_NAME))

    assert (plan.state, plan.counts["incoming.person.act.update"]) == ("ready", 6)
    expected = {item.pipedrive_id: changes_of(item) for item in items(plan)}
    assert known.pipedrive.ledger.stats()["requests_total"] == tokens
    apply(known, plan)
    known.work()

    after = known.users()
    assert expected == {
        key: {
            name: (before[key].get(name), value)
            for name, value in user.items()
            if before[key].get(name) != value and name.startswith("pipedrive/")
        }
        for key, user in after.items()
    }
    assert known.pipedrive.ledger.stats()["requests_total"] == tokens


def test_pipedrive_receives_the_planned_fields(known: SyncSystem) -> None:
    ids = {row.pipedrive_id: row.hull_id for row in known.rows("SELECT * FROM id_mappings WHERE entity = 'person'")}
    send_messages(
        known, *(user(hull_id, nickname=f"Nick {key}") for key, hull_id in ids.items()), user("f" * 24, nickname="New")
    )
    known.pipedrive.ledger.mutations.clear()

    plan = planned(known, default_settings() | {"outgoing_user_attributes": [NICKNAME]})
    expected = {
        (item.pipedrive_id, tuple((name, after) for name, (_, after) in changes_of(item).items()))
        for item in items(plan)
    }
    apply(known, plan)
    known.work()

    assert expected == {
        (key if method == "PATCH" else None, tuple(body.items())) for method, key, body in writes(known)
    }
    assert plan.counts["outgoing.person.act.update"] == 6
    assert plan.counts["outgoing.person.act.create"] == 1


@pytest.fixture
def reported(known: SyncSystem) -> dict[int, str]:
    """Hull has reported all six Users, each with a nickname of its own. Pipedrive id → Hull id."""
    ids = {row.pipedrive_id: row.hull_id for row in known.rows("SELECT * FROM id_mappings WHERE entity = 'person'")}
    send_messages(known, *(user(hull_id, nickname=f"Nick {key}") for key, hull_id in ids.items()))
    known.pipedrive.ledger.mutations.clear()
    return ids


WITH_NAMES = default_settings() | {"outgoing_user_attributes": [NICKNAME]}


def test_users_of_a_new_segment_are_planned(known: SyncSystem) -> None:
    known.change_settings(synchronized_user_segments=["other"], outgoing_user_attributes=[NICKNAME])
    send_messages(known, user("e" * 24, nickname="Eve", email="eve@acme.test"))

    plan = planned(known, WITH_NAMES | {"synchronized_user_segments": ["vip"]})

    assert [(item.record_id, item.act, changes_of(item)["name"]) for item in items(plan)] == [
        ("e" * 24, "create", (None, "Eve"))
    ]
    assert writes(known) == []


def test_users_that_hull_never_reported_are_counted_as_unknown(known: SyncSystem) -> None:
    plan = planned(known, WITH_NAMES)

    assert plan.counts["outgoing.person.act.unknown"] == 6
    assert plan.counts["outgoing.person.reason.unknown.never_seen"] == 6


def test_creates_need_a_look_up_while_the_index_is_old(known: SyncSystem) -> None:
    known.change_settings(synchronized_user_segments=["other"], outgoing_user_attributes=[NICKNAME])
    send_messages(
        known,
        user("e" * 24, nickname="Eve", email="eve@acme.test"),
        user("f" * 24, nickname="Fay", email="fay@acme.test"),
    )
    known.change_rows(
        "UPDATE watermarks SET reached_at = now() - interval '1 day', complete_since = now() - interval '1 day'"
    )
    known.change_rows("UPDATE watermarks SET listed_at = now() - interval '1 day'")

    plan = planned(known, WITH_NAMES | {"synchronized_user_segments": ["vip"]})

    assert plan.counts["outgoing.person.reason.lookup.index_stale"] == 2
    assert "outgoing.person.act.create" not in plan.counts
    assert [(each.touched, each.number) for each in known.module("jobs.plans.apply").reaches(plan)] == [(0, 2)]
    made = known.company.create_person(name="Fay", emails=[{"value": "fay@acme.test", "primary": True}])
    assert apply(known, plan).sent == 2
    known.work()
    assert [method for method, _, _ in writes(known, "persons")] == ["POST"]
    assert pipedrive_id_of(known, "f" * 24) == made["id"]


def test_a_field_that_must_be_requested_is_unknown(known: SyncSystem) -> None:
    picture = {"hull": "pipedrive/last", "service": "last_activity_id"}
    plan = planned(known, with_more("incoming_user_attributes", picture))

    assert plan.counts["incoming.person.reason.unknown.field_not_read"] == 6
    assert plan.tokens > 0


def test_claims_of_other_records_are_planned(known: SyncSystem) -> None:
    plan = planned(known, default_settings() | {"user_claims": [{"hull": "external_id", "service": "name"}]})
    expected = {item.pipedrive_id: changes_of(item)["claim external_id"][1] for item in items(plan, "update")}
    apply(known, plan)
    known.work()

    held = known.rows("SELECT pipedrive_id, value FROM identifiers WHERE role = 'holder' AND kind = 'external_id'")
    assert expected == {row.pipedrive_id: row.value for row in held}


def carried_over(system: SyncSystem, since: int) -> int:
    """Return how many records were sent to Hull since, by their events."""
    query = "SELECT count(*) AS n FROM sync_events WHERE id > :since AND event = 'incoming.user.success'"
    return int(system.rows(query, since=since)[0].n)


def last_event(system: SyncSystem) -> int:
    return int(system.rows("SELECT coalesce(max(id), 0) AS id FROM sync_events")[0].id)


@pytest.mark.parametrize("unset", [0, 4])
def test_plan_confirmation_run_and_events_agree_to_the_record(known: SyncSystem, unset: int) -> None:
    field = field_code(known, "person", "Customer since")
    for key in range(1, 7):
        value = None if key <= unset else "2026-05-01"
        known.company.edit_person(key, custom_fields={field: value})
    known.fetch(Entity.PERSON)
    plan = planned(known, with_more("incoming_user_attributes", {"hull": "pipedrive/renewal", "service": field}))
    since = last_event(known)

    apply(known, plan)
    known.work()

    (run,) = known.rows("SELECT * FROM runs WHERE kind = 'backfill' AND entity = 'person'")
    acts = {act: plan.counts.get(f"incoming.person.act.{act}", 0) for act in ("update", "resend", "same")}
    touched = sum(each.touched for each in known.module("jobs.plans.apply").reaches(plan))
    assert acts == {"update": 6 - unset, "resend": unset, "same": 0}
    assert (touched, run.changed, run.new, carried_over(known, since)) == (6, 6, 0, 6)


def test_new_links_are_counted_alike_by_plan_run_and_events(known: SyncSystem) -> None:
    known.change_settings(link_users_in_hull=False)
    plan = planned(known, default_settings() | {"link_users_in_hull": True})
    links = plan.counts["incoming.person.act.link"]
    since = last_event(known)

    apply(known, plan)
    known.work()

    (run,) = known.rows("SELECT * FROM runs WHERE kind = 'backfill' AND entity = 'person'")
    assert 0 < links < 6
    assert (run.changed, run.links, run.same, carried_over(known, since)) == (links, links, 6 - links, links)
    assert sum(each.touched for each in known.module("jobs.plans.apply").reaches(plan)) == links


def test_links_are_planned(known: SyncSystem) -> None:
    known.change_settings(link_users_in_hull=False)
    linked = sorted(
        row.pipedrive_id for row in known.rows("SELECT pipedrive_id FROM id_mappings WHERE entity = 'person'")
    )
    linked = [key for key in linked if person(known, key)["org_id"]]

    plan = planned(known, default_settings() | {"link_users_in_hull": True})

    assert linked
    assert [item.pipedrive_id for item in items(plan, "link")] == linked


BOTH_MAPPED = {
    "outgoing_user_attributes": [NICKNAME],
    "outgoing_account_attributes": [{"hull": "name", "service": "name"}],
}


def test_accounts_known_from_their_users_are_planned_first(known: SyncSystem) -> None:
    acme = {"id": "c" * 24, "name": "Acme Ltd", "domain": "acme.example"}
    ids = {row.pipedrive_id: row.hull_id for row in known.rows("SELECT * FROM id_mappings WHERE entity = 'person'")}
    send_messages(known, user(ids[1], account=acme, account_segments=[{"id": "vip"}]))
    known.pipedrive.ledger.mutations.clear()

    plan = planned(known, default_settings() | BOTH_MAPPED | {"link_users_in_service": True})
    assert [(item.entity, item.act) for item in items(plan)] == [("person", "link"), ("organization", "create")]
    apply(known, plan)
    known.work()

    made = writes(known, "organizations")
    assert [method for method, _, _ in made] == ["POST"]
    assert [(key, body) for _, key, body in writes(known, "persons")] == [(1, {"org_id": made[0][1]})]


def test_a_changed_record_is_left_out_and_planned_again(known: SyncSystem) -> None:
    create_records(known, persons=30, organizations=0)
    known.fetch(Entity.PERSON)
    plan = planned(known, with_more("incoming_user_attributes", FIRST_NAME))
    known.company.edit_person(3, name="Moved Away")
    known.fetch(Entity.PERSON)

    applied = apply(known, plan)
    known.work()

    users = known.users()
    assert applied.left_out == 1
    assert "pipedrive/given" not in users[3]
    assert users[4]["pipedrive/given"] == "Person"
    walk = known.module("jobs.plans.compute")
    walk.compute_now(applied.follow_up, 60)
    with transaction() as session:
        follow_up = session.get_one(SettingsPlan, applied.follow_up)
    assert [(item.pipedrive_id, changes_of(item)) for item in items(follow_up)] == [
        (3, {"pipedrive/given": (None, "Moved")})
    ]
    assert apply(known, follow_up).follow_up is None
    known.work()
    assert known.users()[3]["pipedrive/given"] == "Moved"


def refusal(system: SyncSystem, plan: SettingsPlan) -> str:
    with pytest.raises(Exception, match="plan again") as refused:
        apply(system, plan)
    return str(refused.value.reason)  # type: ignore[attr-defined]


def test_a_plan_is_refused_when_many_records_changed(known: SyncSystem) -> None:
    plan = planned(known, with_more("incoming_user_attributes", FIRST_NAME))
    known.company.edit_person(3, name="Moved Away")
    known.fetch(Entity.PERSON)

    assert refusal(known, plan) == "records_moved"
    assert known.rows("SELECT 1 FROM plan_items WHERE act = 'moved'") == []


def test_a_plan_is_refused_when_the_settings_changed(known: SyncSystem) -> None:
    plan = planned(known, with_more("incoming_user_attributes", FIRST_NAME))
    known.change_settings(incremental_minutes=7)

    assert refusal(known, plan) == "settings_moved"


def test_a_plan_is_refused_when_the_fields_changed(known: SyncSystem) -> None:
    plan = planned(known, with_more("incoming_user_attributes", FIRST_NAME))
    known.change_rows(
        """UPDATE field_definitions SET rows = rows || '[{"field_code": "new"}]' WHERE entity = 'person'"""
    )
    assert refusal(known, plan) == "fields_moved"

    known.change_rows("UPDATE field_definitions SET rows = rows - -1, fetched_at = now() WHERE entity = 'person'")
    apply(known, plan)


def test_a_plan_continues_after_the_last_slice_of_a_killed_worker(
    known: SyncSystem, reported: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reported
    walk = known.module("jobs.plans.compute")
    monkeypatch.setattr(walk, "SLICE", 2)
    whole = planned(known, WITH_NAMES)
    with transaction() as session:
        plan_id = known.module("jobs.plans.create").make_plan(session, known.connector_key, WITH_NAMES, author="ana").id
    real, calls = walk._slice, []

    def dies_after_its_work(*args: Any) -> None:
        real(*args)
        calls.append(args)
        if len(calls) % 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(walk, "_slice", dies_after_its_work)
    for _ in range(20):
        try:
            walk.compute_now(plan_id, 60)
        except KeyboardInterrupt:
            continue
        break
    with transaction() as session:
        broken = session.get_one(SettingsPlan, plan_id)

    assert (broken.state, broken.counts, broken.examined) == ("ready", whole.counts, whole.examined)


def test_a_job_computes_what_the_request_left(known: SyncSystem) -> None:
    with transaction() as session:
        made = known.module("jobs.plans.create").make_plan(session, known.connector_key, WITH_NAMES, author="ana")
    known.run_jobs()

    with transaction() as session:
        assert session.get_one(SettingsPlan, made.id).state == "ready"


def test_a_large_plan_must_be_confirmed_by_its_number(hundred: SyncSystem) -> None:
    ask_first = hundred.module("sync.runs.backfill").AskFirst
    plan = planned(hundred, with_more("incoming_user_attributes", FIRST_NAME))

    with pytest.raises(ask_first) as asked:
        apply(hundred, plan)
    with pytest.raises(ask_first):
        apply(hundred, plan, confirmed=100)

    assert asked.value.number == 101
    assert apply(hundred, plan, confirmed=101).settings_version == 2


def test_no_confirmation_is_needed_before_the_first_full_fetch(hundred: SyncSystem) -> None:
    hundred.change_rows("UPDATE watermarks SET complete_since = NULL")
    plan = planned(hundred, with_more("incoming_user_attributes", FIRST_NAME))

    assert apply(hundred, plan).settings_version == 2


def test_items_of_old_plans_are_deleted(known: SyncSystem) -> None:
    planned(known, with_more("incoming_user_attributes", FIRST_NAME))
    known.module("sync.upkeep").tidy()
    assert known.rows("SELECT 1 FROM plan_items") != []

    known.change_rows("UPDATE plans SET ready_at = now() - interval '31 days'")
    known.module("sync.upkeep").tidy()
    assert known.rows("SELECT 1 FROM plan_items") == []
