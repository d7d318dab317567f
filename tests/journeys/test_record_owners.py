"""The User of a record is known before anything is sent: an unresolved record may belong to another User."""

from __future__ import annotations

import json
from typing import Any

import pytest

from db import joining
from db.failure_filter import find_failures
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.journeys.pipedrive_records import age_records
from tests.prepared import prepared
from tests.system import SyncSystem

MAPPED = [{"hull": "nickname", "service": "name"}]


@pytest.fixture(autouse=True)
def settings(system: SyncSystem) -> None:
    system.change_settings(
        outgoing_user_attributes=MAPPED, outgoing_account_attributes=[{"hull": "name", "service": "name"}]
    )


@pytest.fixture
@prepared
def two_mails(system: SyncSystem) -> dict[str, str]:
    """One Person with the e-mails of two Users, fetched; e-mail → Hull id. Hull's ids are not resolved yet."""
    ids = {email: in_hull(system, email=email) for email in ("ada@work.test", "ada@home.test")}
    emails = [{"value": email, "primary": email == "ada@work.test"} for email in ids]
    system.company.create_person(name="Ada", emails=emails)
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)
    return ids


def in_hull(system: SyncSystem, **claims: str) -> str:
    """A User that Hull has by itself."""
    from pipeline.wiring import open_connector  # noqa: PLC0415

    with transaction() as session:
        hull = open_connector(session, system.connector_key).hull
    hull.post_batches([hull.writer().user_traits(claims, {"name": "x"})])
    users = system.hull_records("user")
    return next(str(each["id"]) for each in users if each.get("email") == claims["email"])


def user(hull_id: str, **attributes: Any) -> dict[str, Any]:
    return {"user": {"id": hull_id, **attributes}, "segments": [], "changes": {}}


def writes(system: SyncSystem) -> list[tuple[str, int, Any]]:
    return [(note.method, note.entity_id, json.loads(note.body)) for note in system.pipedrive.ledger.mutations]


def open_failures() -> list[tuple[str | None, str]]:
    with transaction() as session:
        return [(each.record_id, each.reason) for each in find_failures(session) if each.direction == "outgoing"]


def mapped(system: SyncSystem) -> dict[str, int]:
    rows = system.rows("SELECT hull_id, pipedrive_id FROM id_mappings WHERE hull_id IS NOT NULL")
    return {row.hull_id: row.pipedrive_id for row in rows}


def test_a_record_that_hull_has_not_been_asked_about_is_not_free(system: SyncSystem, two_mails: dict[str, str]) -> None:
    ada, other = two_mails["ada@work.test"], two_mails["ada@home.test"]
    notify(system, user(other, email="ada@home.test", nickname="Somebody else"))
    system.work()

    assert writes(system) == []
    assert open_failures() == [(other, "already_mapped")]
    assert mapped(system) == {ada: 1}
    assert {each["id"] for each in system.hull_records("user")} == {ada, other}  # nobody was merged


def test_a_record_is_matched_before_its_hull_id_is_resolved_in_a_round(
    system: SyncSystem, two_mails: dict[str, str]
) -> None:
    ada = two_mails["ada@work.test"]
    notify(system, user(ada, email="ada@work.test", nickname="Countess"))
    system.work()

    assert writes(system) == [("PATCH", 1, {"name": "Countess"})]
    assert mapped(system) == {ada: 1}


def test_while_hull_shows_nothing_yet_it_waits(
    system: SyncSystem, two_mails: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = two_mails["ada@home.test"]
    with monkeypatch.context() as patch:
        patch.setattr(system.module("sync.outgoing.resolve"), "find_hull_ids", lambda *_: {})
        notify(system, user(other, email="ada@home.test", nickname="Somebody else"))
        system.work()
        system.end_pauses()
        system.work()
    waiting = system.rows("SELECT attempts FROM changes")
    before = (writes(system), open_failures())
    system.end_pauses()
    system.work()

    assert (before, [row.attempts for row in waiting]) == (([], []), [2])
    assert open_failures() == [(other, "already_mapped")]


def test_what_hull_would_show_by_now_and_does_not_is_free(
    system: SyncSystem, two_mails: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = two_mails["ada@home.test"]
    system.change_rows("UPDATE id_mappings SET updated_at = now() - interval '11 minutes'")
    monkeypatch.setattr(system.module("sync.outgoing.resolve"), "find_hull_ids", lambda *_: {})
    notify(system, user(other, email="ada@home.test", nickname="Ada H."))
    system.work()

    assert [entity_id for _, entity_id, _ in writes(system)] == [1]


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("named", ["email", "pipedrive/id"])
def test_two_of_one_batch_that_come_to_one_record_are_parted(
    system: SyncSystem, is_known: bool, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No User has the record: it was only referenced, or was created by hand a moment ago."""
    monkeypatch.setattr(system.module("sync.outgoing.resolve"), "find_hull_ids", lambda *_: {})
    for entity in Entity:
        system.fetch(entity)
    emails = [{"value": f"{name}@two.test", "primary": name == "a"} for name in "ab"]
    made = system.company.create_person(name="Both", emails=emails)["id"]
    if is_known:
        age_records(system)
        system.fetch(Entity.PERSON)
        system.change_rows("UPDATE id_mappings SET resolve_at = NULL")
    attributes = {"pipedrive/id": made} if named == "pipedrive/id" else {}
    first, second, third = (f"{number:024x}" for number in (1, 2, 3))
    notify(
        system,
        user(first, email="a@two.test", nickname="A", **attributes),
        user(second, email="a@two.test" if attributes else "b@two.test", nickname="B", **attributes),
        user(third, email="c@two.test", nickname="C"),
    )
    for _ in range(4):
        system.work()
        system.end_pauses()

    to_it = [body["name"] for method, entity_id, body in writes(system) if entity_id == made]
    assert to_it == ["A"]
    assert open_failures() == [(second, "already_mapped")]
    assert [body["name"] for method, _, body in writes(system) if method == "POST"] == ["C"]
    assert system.rows("SELECT 1 FROM id_mappings WHERE state IN ('creating', 'unknown', 'conflict')") == []


def test_two_accounts_by_different_keys_are_parted(system: SyncSystem) -> None:
    code = next(field.code for field in system.company.custom_fields("organization") if field.type == "varchar")
    system.change_settings(
        account_claims=[{"hull": "external_id", "service": code}, {"hull": "domain", "service": "website"}]
    )
    system.company.create_organization(name="Acme", website="https://acme.test", custom_fields={code: "X-1"})
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)
    system.change_rows("UPDATE id_mappings SET resolve_at = NULL")
    first, second = "1" * 24, "2" * 24
    notify(
        system,
        {"account": {"id": first, "external_id": "X-1", "name": "Acme I"}, "account_segments": [], "changes": {}},
        {"account": {"id": second, "domain": "acme.test", "name": "Acme II"}, "account_segments": [], "changes": {}},
        channel="account:update",
    )
    for _ in range(4):
        system.work()
        system.end_pauses()

    assert [body for _, _, body in writes(system)] == [{"name": "Acme I"}]
    assert open_failures() == [(second, "already_mapped")]


def test_a_mapping_of_another_worker_is_not_overwritten(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    for entity in Entity:
        system.fetch(entity)
    made = system.company.create_person(name="Both", emails=[{"value": "a@two.test", "primary": True}])["id"]
    mine, theirs = "1" * 24, "2" * 24
    matching = system.module("sync.outgoing.matching")
    real = matching.join_found

    def late(*args: Any, **more: Any) -> Any:
        with transaction() as session:
            join = joining.Join(hull_id=theirs, pipedrive_id=made, matched_by="email")
            joining.join(session, system.connector_key, Entity.PERSON, [join])
        return real(*args, **more)

    monkeypatch.setattr(matching, "join_found", late)
    notify(system, user(mine, email="a@two.test", nickname="Mine"))
    system.work()

    assert writes(system) == []
    assert open_failures() == [(mine, "already_mapped")]


def test_a_record_that_only_hull_knows_is_read_before_anything_is_made(system: SyncSystem) -> None:
    """An organization that moves over: its Users carry ids, and nothing was fetched yet."""
    made = system.company.create_person(name="Ada")["id"]
    hull_id = in_hull(system, email="ada@old.test", anonymous_id=f"pipedrive:{made}")
    attributes = {"pipedrive/id": made, "anonymous_ids": [f"pipedrive:{made}"]}
    notify(system, user(hull_id, email="ada@old.test", nickname="Countess", **attributes))
    system.work()

    assert writes(system)[0][:2] == ("PATCH", made)
    assert [method for method, _, _ in writes(system)] == ["PATCH"]
    assert mapped(system) == {hull_id: made}
    assert system.users()[made]["id"] == hull_id


def test_a_record_that_hull_names_and_pipedrive_does_not_show_is_deleted(system: SyncSystem) -> None:
    system.change_settings(ignore_deleted_users=True)
    attributes = {"pipedrive/id": 777, "anonymous_ids": ["pipedrive:777"]}
    notify(system, user("1" * 24, email="gone@old.test", nickname="Gone", **attributes))
    system.work()
    asked = system.pipedrive.ledger.requests["list"]
    notify(system, user("1" * 24, email="gone@old.test", nickname="Gone II", **attributes), key="n2")
    system.work()

    assert writes(system) == []
    assert {reason for event, reason, _ in system.events() if event.startswith("outgoing")} == {"deleted_in_pipedrive"}
    assert system.pipedrive.ledger.requests["list"] == asked


def test_a_user_is_linked_to_an_organization_that_only_hull_knows(system: SyncSystem) -> None:
    system.change_settings(link_users_in_service=True)
    for entity in Entity:
        system.fetch(entity)
    acme = system.company.create_organization(name="Acme")["id"]
    beside = {"account": {"id": "a" * 24, "pipedrive/id": acme}, "account_segments": []}
    notify(system, user("1" * 24, email="new@acme.test", nickname="New") | beside)
    system.work()

    (body,) = [body for method, _, body in writes(system) if method == "POST" and "emails" in body]
    assert body["org_id"] == acme


def test_an_account_with_a_deleted_organization_is_sent_before_its_user(system: SyncSystem) -> None:
    system.change_settings(link_users_in_service=True, ignore_deleted_accounts=False)
    for entity in Entity:
        system.fetch(entity)
    beside = {"account": {"id": "a" * 24, "name": "Acme", "domain": "acme.test", "pipedrive/id": 4711}}
    notify(system, user("1" * 24, email="new@acme.test", nickname="New") | beside | {"account_segments": []})
    for _ in range(3):
        system.work()
        system.end_pauses()

    (acme,) = [entity_id for _, entity_id, body in writes(system) if body.get("name") == "Acme"]
    assert [body.get("org_id") for _, _, body in writes(system) if "emails" in body or "org_id" in body][-1] == acme
