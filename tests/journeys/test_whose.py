"""Whose a record is, before anything is sent: unresolved is not free, the batch is asked too, and what Hull names is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from db import joining
from db.failure_filter import find_failures
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.journeys.people import age
from tests.prepared import prepared
from tests.world import World

MAPPED = [{"hull": "nickname", "service": "name"}]


@pytest.fixture(autouse=True)
def settings(world: World) -> None:
    world.change_settings(
        outgoing_user_attributes=MAPPED, outgoing_account_attributes=[{"hull": "name", "service": "name"}]
    )


@pytest.fixture
@prepared
def two_mails(world: World) -> dict[str, str]:
    """One Person with the e-mails of two Users, fetched; e-mail → Hull id. Hull's ids are not resolved yet."""
    ids = {email: in_hull(world, email=email) for email in ("ada@work.test", "ada@home.test")}
    emails = [{"value": email, "primary": email == "ada@work.test"} for email in ids]
    world.company.create_person(name="Ada", emails=emails)
    for entity in Entity:
        age(world, entity)
        world.fetch(entity)
    return ids


def in_hull(world: World, **claims: str) -> str:
    """A User that Hull has by itself."""
    from pipeline.wiring import open_connector  # noqa: PLC0415

    with transaction() as session:
        hull = open_connector(session, world.connector_key).hull
    hull.post_batches([hull.writer().user_traits(claims, {"name": "x"})])
    users = world._export("user")
    return next(str(each["id"]) for each in users if each.get("email") == claims["email"])


def user(hull_id: str, **attributes: Any) -> dict[str, Any]:
    return {"user": {"id": hull_id, **attributes}, "segments": [], "changes": {}}


def writes(world: World) -> list[tuple[str, int, Any]]:
    return [(note.method, note.entity_id, json.loads(note.body)) for note in world.pipedrive.ledger.mutations]


def open_failures() -> list[tuple[str | None, str]]:
    with transaction() as session:
        return [(each.record_id, each.reason) for each in find_failures(session) if each.direction == "outgoing"]


def mapped(world: World) -> dict[str, int]:
    rows = world.rows("SELECT hull_id, pipedrive_id FROM id_mappings WHERE hull_id IS NOT NULL")
    return {row.hull_id: row.pipedrive_id for row in rows}


def test_a_record_that_hull_has_not_been_asked_about_is_not_free(world: World, two_mails: dict[str, str]) -> None:
    ada, other = two_mails["ada@work.test"], two_mails["ada@home.test"]
    notify(world, user(other, email="ada@home.test", nickname="Somebody else"))
    world.work()

    assert writes(world) == []
    assert open_failures() == [(other, "already_joined")]
    assert mapped(world) == {ada: 1}
    assert {each["id"] for each in world._export("user")} == {ada, other}  # nobody was merged


def test_whose_record_it_is_goes_through_before_hull_was_asked_in_a_round(
    world: World, two_mails: dict[str, str]
) -> None:
    ada = two_mails["ada@work.test"]
    notify(world, user(ada, email="ada@work.test", nickname="Countess"))
    world.work()

    assert writes(world) == [("PATCH", 1, {"name": "Countess"})]
    assert mapped(world) == {ada: 1}


def test_while_hull_shows_nothing_yet_it_waits(
    world: World, two_mails: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = two_mails["ada@home.test"]
    with monkeypatch.context() as patch:
        patch.setattr(world.module("sync.outgoing.resolve"), "find_hull_ids", lambda *_: {})
        notify(world, user(other, email="ada@home.test", nickname="Somebody else"))
        world.work()
        world.later()
        world.work()
    waiting = world.rows("SELECT attempts FROM changes")
    before = (writes(world), open_failures())
    world.later()
    world.work()

    assert (before, [row.attempts for row in waiting]) == (([], []), [2])
    assert open_failures() == [(other, "already_joined")]


def test_what_hull_would_show_by_now_and_does_not_is_free(
    world: World, two_mails: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = two_mails["ada@home.test"]
    world.change_rows("UPDATE id_mappings SET updated_at = now() - interval '11 minutes'")
    monkeypatch.setattr(world.module("sync.outgoing.resolve"), "find_hull_ids", lambda *_: {})
    notify(world, user(other, email="ada@home.test", nickname="Ada H."))
    world.work()

    assert [entity_id for _, entity_id, _ in writes(world)] == [1]


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("named", ["email", "pipedrive/id"])
def test_two_of_one_batch_that_come_to_one_record_are_parted(
    world: World, is_known: bool, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody in Hull has the record: as when it was only referenced, or was made by hand a moment ago."""
    monkeypatch.setattr(world.module("sync.outgoing.resolve"), "find_hull_ids", lambda *_: {})
    for entity in Entity:
        world.fetch(entity)
    emails = [{"value": f"{name}@two.test", "primary": name == "a"} for name in "ab"]
    made = world.company.create_person(name="Both", emails=emails)["id"]
    if is_known:
        age(world)
        world.fetch(Entity.PERSON)
        world.change_rows("UPDATE id_mappings SET resolve_at = NULL")
    said = {"pipedrive/id": made} if named == "pipedrive/id" else {}
    first, second, third = (f"{number:024x}" for number in (1, 2, 3))
    notify(
        world,
        user(first, email="a@two.test", nickname="A", **said),
        user(second, email="a@two.test" if said else "b@two.test", nickname="B", **said),
        user(third, email="c@two.test", nickname="C"),
    )
    for _ in range(4):
        world.work()
        world.later()

    to_it = [body["name"] for method, entity_id, body in writes(world) if entity_id == made]
    assert to_it == ["A"]
    assert open_failures() == [(second, "already_joined")]
    assert [body["name"] for method, _, body in writes(world) if method == "POST"] == ["C"]
    assert world.rows("SELECT 1 FROM id_mappings WHERE state IN ('creating', 'unknown', 'conflict')") == []


def test_two_accounts_by_different_keys_are_parted(world: World) -> None:
    code = next(field.code for field in world.company.custom_fields("organization") if field.type == "varchar")
    world.change_settings(
        account_claims=[{"hull": "external_id", "service": code}, {"hull": "domain", "service": "website"}]
    )
    world.company.create_organization(name="Acme", website="https://acme.test", custom_fields={code: "X-1"})
    for entity in Entity:
        age(world, entity)
        world.fetch(entity)
    world.change_rows("UPDATE id_mappings SET resolve_at = NULL")
    first, second = "1" * 24, "2" * 24
    notify(
        world,
        {"account": {"id": first, "external_id": "X-1", "name": "Acme I"}, "account_segments": [], "changes": {}},
        {"account": {"id": second, "domain": "acme.test", "name": "Acme II"}, "account_segments": [], "changes": {}},
        channel="account:update",
    )
    for _ in range(4):
        world.work()
        world.later()

    assert [body for _, _, body in writes(world)] == [{"name": "Acme I"}]
    assert open_failures() == [(second, "already_joined")]


def test_whom_another_worker_joined_meanwhile_is_not_written_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for entity in Entity:
        world.fetch(entity)
    made = world.company.create_person(name="Both", emails=[{"value": "a@two.test", "primary": True}])["id"]
    mine, theirs = "1" * 24, "2" * 24
    matching = world.module("sync.outgoing.matching")
    real = matching.join_found

    def late(*args: Any, **more: Any) -> Any:
        with transaction() as session:
            join = joining.Join(hull_id=theirs, pipedrive_id=made, matched_by="email")
            joining.join(session, world.connector_key, Entity.PERSON, [join])
        return real(*args, **more)

    monkeypatch.setattr(matching, "join_found", late)
    notify(world, user(mine, email="a@two.test", nickname="Mine"))
    world.work()

    assert writes(world) == []
    assert open_failures() == [(mine, "already_joined")]


def test_a_record_that_only_hull_knows_is_read_before_anything_is_made(world: World) -> None:
    """An organization that moves over: its Users carry ids, and nothing was fetched yet."""
    made = world.company.create_person(name="Ada")["id"]
    hull_id = in_hull(world, email="ada@old.test", anonymous_id=f"pipedrive:{made}")
    said = {"pipedrive/id": made, "anonymous_ids": [f"pipedrive:{made}"]}
    notify(world, user(hull_id, email="ada@old.test", nickname="Countess", **said))
    world.work()

    assert writes(world)[0][:2] == ("PATCH", made)
    assert [method for method, _, _ in writes(world)] == ["PATCH"]
    assert mapped(world) == {hull_id: made}
    assert world.users()[made]["id"] == hull_id


def test_a_record_that_hull_names_and_pipedrive_does_not_show_is_deleted(world: World) -> None:
    world.change_settings(ignore_deleted_users=True)
    said = {"pipedrive/id": 777, "anonymous_ids": ["pipedrive:777"]}
    notify(world, user("1" * 24, email="gone@old.test", nickname="Gone", **said))
    world.work()
    asked = world.pipedrive.ledger.requests["list"]
    notify(world, user("1" * 24, email="gone@old.test", nickname="Gone II", **said), key="n2")
    world.work()

    assert writes(world) == []
    assert {reason for event, reason, _ in world.events() if event.startswith("outgoing")} == {"deleted_in_pipedrive"}
    assert world.pipedrive.ledger.requests["list"] == asked


def test_a_user_is_linked_to_an_organization_that_only_hull_knows(world: World) -> None:
    world.change_settings(link_users_in_service=True)
    for entity in Entity:
        world.fetch(entity)
    acme = world.company.create_organization(name="Acme")["id"]
    beside = {"account": {"id": "a" * 24, "pipedrive/id": acme}, "account_segments": []}
    notify(world, user("1" * 24, email="new@acme.test", nickname="New") | beside)
    world.work()

    (body,) = [body for method, _, body in writes(world) if method == "POST" and "emails" in body]
    assert body["org_id"] == acme


def test_an_account_whose_organization_is_gone_travels_before_its_user(world: World) -> None:
    world.change_settings(link_users_in_service=True, ignore_deleted_accounts=False)
    for entity in Entity:
        world.fetch(entity)
    beside = {"account": {"id": "a" * 24, "name": "Acme", "domain": "acme.test", "pipedrive/id": 4711}}
    notify(world, user("1" * 24, email="new@acme.test", nickname="New") | beside | {"account_segments": []})
    for _ in range(3):
        world.work()
        world.later()

    (acme,) = [entity_id for _, entity_id, body in writes(world) if body.get("name") == "Acme"]
    assert [body.get("org_id") for _, _, body in writes(world) if "emails" in body or "org_id" in body][-1] == acme
