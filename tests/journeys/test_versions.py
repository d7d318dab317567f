"""Two writers, one record: whatever arrives late or twice, Hull ends up with the newest state, and a claim has one holder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from pipeline.clients.hull import HullClient
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.people import LONG_AGO, age, fill
from tests.world import World


def at(world: World, when: str, **members: Any) -> None:
    """Let Person 1 have been changed at this time."""
    record = world.company.record("person", 1)
    assert record is not None
    world.company.load("person", {**record, **members, "update_time": when})


def name_in_hull(world: World) -> Any:
    return world.users()[1]["pipedrive/name"]


def once_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, todo: Callable[[], object]) -> None:
    """Have `todo` happen right before the next call of owner.name."""
    real, pending = getattr(owner, name), [todo]

    def wrapped(*args: Any, **options: Any) -> Any:
        if pending:
            pending.pop()()
        return real(*args, **options)

    monkeypatch.setattr(owner, name, wrapped)


def extracted(world: World) -> tuple[int, str, str]:
    """A fetch whose page is read and transformed, but not loaded: (batch, direction, stage)."""
    world.start(Entity.PERSON)
    while (due := world.due()) and due[2] != "load":
        world.step(*due)
    assert due is not None
    return due


def test_a_webhook_that_overtakes_a_page_wins(world: World) -> None:
    fill(world, persons=1, organizations=0)
    age(world)
    said = listen(world)
    page = extracted(world)

    world.company.edit_person(1, name="Newer")
    deliver(world, *said)
    world.module("sync.changes.dispatch").dispatch_changes()
    for batch in world.rows("SELECT id FROM batches WHERE queue = 'live'"):
        for stage in ("extract", "transform", "load"):
            world.step(batch.id, "incoming", stage)
    assert name_in_hull(world) == "Newer"
    world.step(*page)
    world.work()

    assert name_in_hull(world) == "Newer"


def test_an_old_webhook_delivered_late_changes_nothing(world: World) -> None:
    fill(world, persons=1, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    said = listen(world)
    at(world, "2026-02-01T00:00:00Z")
    world.company.edit_person(1, name="Old")
    said[0]["data"]["update_time"] = "2026-01-15T00:00:00Z"
    world.company.edit_person(1, name="New")
    world.fetch(Entity.PERSON, changed_only=True)

    deliver(world, said[0])
    world.work()

    assert name_in_hull(world) == "New"


def test_webhooks_in_any_order_end_in_the_newest_state(world: World) -> None:
    fill(world, persons=1, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    said = listen(world)
    for name in ("One", "Two", "Three"):
        world.company.edit_person(1, name=name)

    for webhook in (said[2], said[0], said[1]):
        deliver(world, webhook)
        world.work()

    assert name_in_hull(world) == "Three"


def test_a_record_that_moved_on_between_post_and_write_is_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is planned, a webhook overtakes it, then the page's older state is what Hull hears last."""
    world.company.create_person(name="Old", phones=[{"value": "+1 555", "primary": True}])
    age(world)
    page = extracted(world)
    said = listen(world)

    def overtake() -> None:
        world.company.edit_person(1, name="Newer", phones=[])
        deliver(world, *said)
        world.module("sync.changes.dispatch").dispatch_changes()
        (batch,) = world.rows("SELECT id FROM batches WHERE queue = 'live'")
        for stage in ("extract", "transform", "load"):
            world.step(batch.id, "incoming", stage)

    once_before(monkeypatch, HullClient, "post_batches", overtake)
    world.step(*page)
    shown_for_a_moment = name_in_hull(world)
    (change,) = world.rows("SELECT record_id, cause FROM changes")
    world.work()

    assert shown_for_a_moment == "Old"
    assert (change.record_id, change.cause) == ("1", "stale_overwrite")
    assert name_in_hull(world) == "Newer"
    assert world.users()[1].get("pipedrive/phone") is None
    (mapping,) = world.rows("SELECT delivered FROM id_mappings")
    assert orjson.loads(bytes(mapping.delivered))["pipedrive/name"] == "Newer"


def test_what_a_record_is_known_by_is_not_forgotten_for_an_older_page_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither state says anything new to Hull; the page is planned, and a webhook that adds an e-mail overtakes it."""
    first = {"value": "a@one.test", "primary": True}
    world.company.create_person(name="Ann", emails=[first])
    age(world)
    world.fetch(Entity.PERSON)
    at(world, "2026-02-01T00:00:00Z")
    world.start(Entity.PERSON, changed_only=True)
    while (page := world.due()) and page[2] != "load":
        world.step(*page)
    assert page is not None
    said = listen(world)

    def overtake() -> None:
        world.company.edit_person(1, emails=[first, {"value": "b@two.test", "primary": False}])
        deliver(world, *said)
        world.module("sync.changes.dispatch").dispatch_changes()
        (batch,) = world.rows("SELECT id FROM batches WHERE queue = 'live'")
        for stage in ("extract", "transform", "load"):
            world.step(batch.id, "incoming", stage)

    once_before(monkeypatch, HullClient, "post_batches", overtake)
    world.step(*page)

    assert [row.value for row in world.rows("SELECT value FROM identifiers WHERE role = 'alias'")] == ["b@two.test"]


def test_a_zombie_that_speaks_after_its_lease_does_no_lasting_harm(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is frozen before it posts, another takes the page over, a webhook comes: then the first one posts."""
    world.company.create_person(name="Old", phones=[{"value": "+1 555", "primary": True}])
    age(world)
    page = extracted(world)
    said = listen(world)

    def sleep_past_the_lease() -> None:
        world.lose_workers()
        world.work()
        world.company.edit_person(1, name="Newer", phones=[])
        deliver(world, *said)
        world.work()
        assert name_in_hull(world) == "Newer"

    once_before(monkeypatch, HullClient, "post_batches", sleep_past_the_lease)
    world.step(*page)
    assert name_in_hull(world) == "Old"
    world.work()

    assert name_in_hull(world) == "Newer"
    assert world.users()[1].get("pipedrive/phone") is None
    assert world.rows("SELECT 1 FROM changes") == []


def test_a_stale_state_never_replaces_the_snapshot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.company.create_person(name="Old")
    age(world)
    page = extracted(world)

    def overtake() -> None:
        world.change_rows(
            "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, version, digest, matched_by)"
            " VALUES (:c, 'person', 1, 'full', 9999999999, 'newer', 'webhook')",
            c=world.connector_key,
        )

    once_before(monkeypatch, HullClient, "post_batches", overtake)
    world.step(*page)

    assert world.rows("SELECT 1 FROM snapshots") == []
    assert [event for event in world.events() if event[0] == "incoming.user.success"] == []
    assert [tuple(row) for row in world.rows("SELECT version, state FROM id_mappings")] == [(9999999999, "full")]


def test_an_edit_within_the_same_second_is_not_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are whole seconds: two states may share one, and the one read later is the newer one."""
    fill(world, persons=1, organizations=0)
    age(world)
    page = extracted(world)
    at(world, LONG_AGO, name="Same second")
    world.step(*page)
    world.work()

    world.fetch(Entity.PERSON, changed_only=True)

    assert name_in_hull(world) == "Same second"


def email(value: str) -> list[dict[str, Any]]:
    return [{"value": value, "primary": True}]


def holders(world: World) -> dict[str, int]:
    rows = world.rows("SELECT value, pipedrive_id FROM identifiers WHERE role = 'holder'")
    return {row.value: row.pipedrive_id for row in rows}


def test_the_first_committed_holds_a_claim(world: World) -> None:
    world.company.create_person(name="Ada", emails=email("ada@example.com"))
    world.fetch(Entity.PERSON)
    world.company.create_person(name="Other", emails=email("Ada@Example.com "))
    world.fetch(Entity.PERSON)

    users = world.users()
    assert holders(world) == {"ada@example.com": 1}
    assert users[1]["id"] != users[2]["id"]
    assert users[2].get("email") is None
    told = world.rows("SELECT pipedrive_id, detail FROM sync_events WHERE reason = 'duplicate_claim'")
    assert {tuple(row) for row in told} == {(2, "email: held by person 1")}


def test_a_claim_is_free_again_when_its_holder_lets_go(world: World) -> None:
    world.company.create_person(name="Ada", emails=email("shared@example.com"))
    world.company.create_person(name="Bo", emails=email("shared@example.com"))
    world.fetch(Entity.PERSON)

    world.company.edit_person(1, emails=email("ada@example.com"))
    world.fetch(Entity.PERSON, changed_only=True)
    world.company.edit_person(2, name="Bo B.")
    world.fetch(Entity.PERSON, changed_only=True)

    assert holders(world) == {"ada@example.com": 1, "shared@example.com": 2}
    assert [world.users()[number].get("email") for number in (1, 2)] == ["ada@example.com", "shared@example.com"]


def test_claims_of_persons_and_organizations_do_not_meet(world: World) -> None:
    name = [{"hull": "external_id", "service": "name"}]
    world.change_settings(user_claims=name, account_claims=name)
    world.company.create_person(name="Same")
    world.company.create_organization(name="Same")

    runs = [world.fetch(entity) for entity in Entity]

    assert [run.new for run in runs] == [1, 1]
    assert [event for event in world.events() if event[1] == "duplicate_claim"] == []


def test_two_workers_that_want_one_claim_agree_on_its_holder(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second batch takes its claims after the first has, but before the first has posted."""
    for number in range(1, 101):
        world.company.create_person(name=f"P{number}", emails=email("shared@example.com"))
    age(world)
    world.start(Entity.PERSON)
    loads = []
    while due := world.due():
        if due[2] == "load":
            loads.append(due)
            world.change_rows("UPDATE batches SET due_at = now() + interval '1 h' WHERE id = :id", id=due[0])
        else:
            world.step(*due)
    world.later()
    one, two = loads[:2]
    once_before(monkeypatch, HullClient, "post_batches", lambda: world.step(*two))

    world.step(*one)
    world.work()

    with_email = [user for user in world._export("user") if user.get("email")]
    assert len(with_email) == 1
    assert len(world.users()) == 100
    assert list(holders(world)) == ["shared@example.com"]


def test_a_value_that_could_not_be_read_stays_in_hull_and_can_be_cleared_later(world: World) -> None:
    world.company.create_person(name="Ada", emails=[{"value": "ada@example.com"}])
    world.fetch(Entity.PERSON)
    strange = {**(world.company.record("person", 1) or {}), "name": "A\x00da", "update_time": "2031-01-01T00:00:00Z"}
    world.company.put_raw("person", strange)

    world.fetch(Entity.PERSON)
    stayed = world.users()[1].get("pipedrive/name")
    world.company.put_raw("person", {**strange, "name": None, "update_time": "2031-01-02T00:00:00Z"})
    world.fetch(Entity.PERSON)

    assert stayed == "Ada"
    assert "pipedrive/name" not in world.users()[1]


def test_two_edits_within_one_second_end_with_the_later_one(world: World) -> None:
    said = listen(world)
    world.company.create_person(name="Ada", emails=[{"value": "ada@example.com"}])
    deliver(world, *said)
    world.work()
    record = world.company.record("person", 1) or {}
    world.company.put_raw("person", {**record, "name": "Ada L."})
    second = {"meta": {**said[0]["meta"], "id": "second-edit"}, "data": {**said[0]["data"], "name": "Ada L."}}
    deliver(world, {**said[0], **second})
    world.work()
    world.company.put_raw("person", {**record, "name": "Ada Lovelace"})

    world.later()
    world.work()

    assert world.users()[1]["pipedrive/name"] == "Ada Lovelace"
    for _ in range(2):
        world.later()
        world.work()
    assert world.rows("SELECT 1 FROM changes") == []
