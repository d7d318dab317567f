"""Two writers, one record: whatever arrives late or twice, Hull ends up with the newest state, and a claim has one holder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from pipeline.clients.hull import HullClient
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import LONG_AGO, age_records, create_records
from tests.system import SyncSystem


def at(system: SyncSystem, when: str, **members: Any) -> None:
    """Let Person 1 have been changed at this time."""
    record = system.company.record("person", 1)
    assert record is not None
    system.company.load("person", {**record, **members, "update_time": when})


def name_in_hull(system: SyncSystem) -> Any:
    return system.users()[1]["pipedrive/name"]


def once_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, todo: Callable[[], object]) -> None:
    """Have `todo` happen right before the next call of owner.name."""
    real, pending = getattr(owner, name), [todo]

    def wrapped(*args: Any, **options: Any) -> Any:
        if pending:
            pending.pop()()
        return real(*args, **options)

    monkeypatch.setattr(owner, name, wrapped)


def extracted(system: SyncSystem) -> tuple[int, str, str]:
    """Start a fetch, and stop before its page is loaded; return (batch, direction, stage)."""
    system.start(Entity.PERSON)
    while (due := system.next_batch()) and due[2] != "load":
        system.run_batch_stage(*due)
    assert due is not None
    return due


def test_a_webhook_that_overtakes_a_page_wins(system: SyncSystem) -> None:
    create_records(system, persons=1, organizations=0)
    age_records(system)
    webhooks = listen(system)
    page = extracted(system)

    system.company.edit_person(1, name="Newer")
    deliver(system, *webhooks)
    system.module("sync.changes.dispatch").dispatch_changes()
    for batch in system.rows("SELECT id FROM batches WHERE queue = 'live'"):
        for stage in ("extract", "transform", "load"):
            system.run_batch_stage(batch.id, "incoming", stage)
    assert name_in_hull(system) == "Newer"
    system.run_batch_stage(*page)
    system.work()

    assert name_in_hull(system) == "Newer"


def test_an_old_webhook_delivered_late_changes_nothing(system: SyncSystem) -> None:
    create_records(system, persons=1, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    webhooks = listen(system)
    at(system, "2026-02-01T00:00:00Z")
    system.company.edit_person(1, name="Old")
    webhooks[0]["data"]["update_time"] = "2026-01-15T00:00:00Z"
    system.company.edit_person(1, name="New")
    system.fetch(Entity.PERSON, changed_only=True)

    deliver(system, webhooks[0])
    system.work()

    assert name_in_hull(system) == "New"


def test_webhooks_in_any_order_end_in_the_newest_state(system: SyncSystem) -> None:
    create_records(system, persons=1, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    webhooks = listen(system)
    for name in ("One", "Two", "Three"):
        system.company.edit_person(1, name=name)

    for webhook in (webhooks[2], webhooks[0], webhooks[1]):
        deliver(system, webhook)
        system.work()

    assert name_in_hull(system) == "Three"


def test_a_record_that_moved_on_between_post_and_write_is_sent_again(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is planned and a webhook is delivered first, so Hull receives the page's older state last."""
    system.company.create_person(name="Old", phones=[{"value": "+1 555", "primary": True}])
    age_records(system)
    page = extracted(system)
    webhooks = listen(system)

    def overtake() -> None:
        system.company.edit_person(1, name="Newer", phones=[])
        deliver(system, *webhooks)
        system.module("sync.changes.dispatch").dispatch_changes()
        (batch,) = system.rows("SELECT id FROM batches WHERE queue = 'live'")
        for stage in ("extract", "transform", "load"):
            system.run_batch_stage(batch.id, "incoming", stage)

    once_before(monkeypatch, HullClient, "post_batches", overtake)
    system.run_batch_stage(*page)
    shown_for_a_moment = name_in_hull(system)
    (change,) = system.rows("SELECT record_id, cause FROM changes")
    system.work()

    assert shown_for_a_moment == "Old"
    assert (change.record_id, change.cause) == ("1", "stale_overwrite")
    assert name_in_hull(system) == "Newer"
    assert system.users()[1].get("pipedrive/phone") is None
    (mapping,) = system.rows("SELECT delivered FROM id_mappings")
    assert orjson.loads(bytes(mapping.delivered))["pipedrive/name"] == "Newer"


def test_what_a_record_is_known_by_is_not_forgotten_for_an_older_page_of_it(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither state is new to Hull; the page is planned, and a webhook that adds an e-mail is delivered first."""
    first = {"value": "a@one.test", "primary": True}
    system.company.create_person(name="Ann", emails=[first])
    age_records(system)
    system.fetch(Entity.PERSON)
    at(system, "2026-02-01T00:00:00Z")
    system.start(Entity.PERSON, changed_only=True)
    while (page := system.next_batch()) and page[2] != "load":
        system.run_batch_stage(*page)
    assert page is not None
    webhooks = listen(system)

    def overtake() -> None:
        system.company.edit_person(1, emails=[first, {"value": "b@two.test", "primary": False}])
        deliver(system, *webhooks)
        system.module("sync.changes.dispatch").dispatch_changes()
        (batch,) = system.rows("SELECT id FROM batches WHERE queue = 'live'")
        for stage in ("extract", "transform", "load"):
            system.run_batch_stage(batch.id, "incoming", stage)

    once_before(monkeypatch, HullClient, "post_batches", overtake)
    system.run_batch_stage(*page)

    assert [row.value for row in system.rows("SELECT value FROM identifiers WHERE role = 'alias'")] == ["b@two.test"]


def test_a_zombie_that_speaks_after_its_lease_does_no_lasting_harm(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is frozen before it posts, another takes the page over, a webhook comes: then the first one posts."""
    system.company.create_person(name="Old", phones=[{"value": "+1 555", "primary": True}])
    age_records(system)
    page = extracted(system)
    webhooks = listen(system)

    def sleep_past_the_lease() -> None:
        system.expire_leases()
        system.work()
        system.company.edit_person(1, name="Newer", phones=[])
        deliver(system, *webhooks)
        system.work()
        assert name_in_hull(system) == "Newer"

    once_before(monkeypatch, HullClient, "post_batches", sleep_past_the_lease)
    system.run_batch_stage(*page)
    assert name_in_hull(system) == "Old"
    system.work()

    assert name_in_hull(system) == "Newer"
    assert system.users()[1].get("pipedrive/phone") is None
    assert system.rows("SELECT 1 FROM changes") == []


def test_a_stale_state_never_replaces_the_snapshot(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    system.company.create_person(name="Old")
    age_records(system)
    page = extracted(system)

    def overtake() -> None:
        system.change_rows(
            "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, version, digest, matched_by)"
            " VALUES (:c, 'person', 1, 'full', 9999999999, 'newer', 'webhook')",
            c=system.connector_key,
        )

    once_before(monkeypatch, HullClient, "post_batches", overtake)
    system.run_batch_stage(*page)

    assert system.rows("SELECT 1 FROM snapshots") == []
    assert [event for event in system.events() if event[0] == "incoming.user.success"] == []
    assert [tuple(row) for row in system.rows("SELECT version, state FROM id_mappings")] == [(9999999999, "full")]


def test_an_edit_within_the_same_second_is_not_lost(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are whole seconds: two states may share one, and the one read later is the newer one."""
    create_records(system, persons=1, organizations=0)
    age_records(system)
    page = extracted(system)
    at(system, LONG_AGO, name="Same second")
    system.run_batch_stage(*page)
    system.work()

    system.fetch(Entity.PERSON, changed_only=True)

    assert name_in_hull(system) == "Same second"


def email(value: str) -> list[dict[str, Any]]:
    return [{"value": value, "primary": True}]


def holders(system: SyncSystem) -> dict[str, int]:
    rows = system.rows("SELECT value, pipedrive_id FROM identifiers WHERE role = 'holder'")
    return {row.value: row.pipedrive_id for row in rows}


def test_the_first_committed_holds_a_claim(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=email("ada@example.com"))
    system.fetch(Entity.PERSON)
    system.company.create_person(name="Other", emails=email("Ada@Example.com "))
    system.fetch(Entity.PERSON)

    users = system.users()
    assert holders(system) == {"ada@example.com": 1}
    assert users[1]["id"] != users[2]["id"]
    assert users[2].get("email") is None
    duplicates = system.rows("SELECT pipedrive_id, detail FROM sync_events WHERE reason = 'duplicate_claim'")
    assert {tuple(row) for row in duplicates} == {(2, "email: held by person 1")}


def test_a_claim_is_free_again_when_its_holder_lets_go(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=email("shared@example.com"))
    system.company.create_person(name="Bo", emails=email("shared@example.com"))
    system.fetch(Entity.PERSON)

    system.company.edit_person(1, emails=email("ada@example.com"))
    system.fetch(Entity.PERSON, changed_only=True)
    system.company.edit_person(2, name="Bo B.")
    system.fetch(Entity.PERSON, changed_only=True)

    assert holders(system) == {"ada@example.com": 1, "shared@example.com": 2}
    assert [system.users()[number].get("email") for number in (1, 2)] == ["ada@example.com", "shared@example.com"]


def test_claims_of_persons_and_organizations_do_not_meet(system: SyncSystem) -> None:
    name = [{"hull": "external_id", "service": "name"}]
    system.change_settings(user_claims=name, account_claims=name)
    system.company.create_person(name="Same")
    system.company.create_organization(name="Same")

    runs = [system.fetch(entity) for entity in Entity]

    assert [run.new for run in runs] == [1, 1]
    assert [event for event in system.events() if event[1] == "duplicate_claim"] == []


def test_two_workers_that_want_one_claim_agree_on_its_holder(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second batch takes its claims after the first has, but before the first has posted."""
    for number in range(1, 101):
        system.company.create_person(name=f"P{number}", emails=email("shared@example.com"))
    age_records(system)
    system.start(Entity.PERSON)
    loads = []
    while due := system.next_batch():
        if due[2] == "load":
            loads.append(due)
            system.change_rows("UPDATE batches SET due_at = now() + interval '1 h' WHERE id = :id", id=due[0])
        else:
            system.run_batch_stage(*due)
    system.end_pauses()
    one, two = loads[:2]
    once_before(monkeypatch, HullClient, "post_batches", lambda: system.run_batch_stage(*two))

    system.run_batch_stage(*one)
    system.work()

    with_email = [user for user in system.hull_records("user") if user.get("email")]
    assert len(with_email) == 1
    assert len(system.users()) == 100
    assert list(holders(system)) == ["shared@example.com"]


def test_a_value_that_could_not_be_read_stays_in_hull_and_can_be_cleared_later(system: SyncSystem) -> None:
    system.company.create_person(name="Ada", emails=[{"value": "ada@example.com"}])
    system.fetch(Entity.PERSON)
    strange = {**(system.company.record("person", 1) or {}), "name": "A\x00da", "update_time": "2031-01-01T00:00:00Z"}
    system.company.put_raw("person", strange)

    system.fetch(Entity.PERSON)
    stayed = system.users()[1].get("pipedrive/name")
    system.company.put_raw("person", {**strange, "name": None, "update_time": "2031-01-02T00:00:00Z"})
    system.fetch(Entity.PERSON)

    assert stayed == "Ada"
    assert "pipedrive/name" not in system.users()[1]


def test_two_edits_within_one_second_end_with_the_later_one(system: SyncSystem) -> None:
    webhooks = listen(system)
    system.company.create_person(name="Ada", emails=[{"value": "ada@example.com"}])
    deliver(system, *webhooks)
    system.work()
    record = system.company.record("person", 1) or {}
    system.company.put_raw("person", {**record, "name": "Ada L."})
    second = {"meta": {**webhooks[0]["meta"], "id": "second-edit"}, "data": {**webhooks[0]["data"], "name": "Ada L."}}
    deliver(system, {**webhooks[0], **second})
    system.work()
    system.company.put_raw("person", {**record, "name": "Ada Lovelace"})

    system.end_pauses()
    system.work()

    assert system.users()[1]["pipedrive/name"] == "Ada Lovelace"
    for _ in range(2):
        system.end_pauses()
        system.work()
    assert system.rows("SELECT 1 FROM changes") == []
