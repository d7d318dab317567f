"""Hull → Pipedrive: who was doubled, lost or never linked by the connector before, and what was written wrongly."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipeline import settings as settings_room
from pipeline.clients.limits import BurstLimiter
from pipeline.domain.kinds import Entity
from sandbox.pipedrive.limits import BurstWindow as PipedrivesLimit
from tests.deliveries import notify
from tests.journeys.hull_messages import (
    ACME,
    ANN,
    BEN,
    account,
    as_segments,
    event_details,
    failures,
    fetch_everything,
    field_code,
    is_idle,
    outgoing_events,
    person,
    pipedrive_id_of,
    send_messages,
    stop_hull_id_lookups,
    user,
    work_until_idle,
    writes,
)
from tests.journeys.pipedrive_records import age_records
from tests.prepared import prepared
from tests.system import SyncSystem

TO_NAME = [{"hull": "label", "service": "name"}]
KINDS = ["person", "organization"]


@pytest.fixture(autouse=True)
def mapping(system: SyncSystem) -> None:
    """The attribute `label` is the name on either side's records in Pipedrive."""
    system.change_settings(outgoing_user_attributes=TO_NAME, outgoing_account_attributes=TO_NAME)


def message(kind: str, report: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What Hull says of a User or an Account."""
    return (user if kind == "person" else account)(**{"hull_id": ANN, **report, **more})


def claim(kind: str) -> dict[str, Any]:
    return {"email": "ann@new.test"} if kind == "person" else {"domain": "new.test"}


@prepared
def known(system: SyncSystem, kind: Any, **members: Any) -> dict[str, Any]:
    """The report of a record that both sides know, whose name is Old in Pipedrive."""
    system.company.create(kind, {"name": "Old", **members})
    fetch_everything(system)
    (report,) = (system.users() if kind == "person" else system.accounts()).values()
    return {**report, "hull_id": report["id"]}


def names(system: SyncSystem) -> list[tuple[str, Any]]:
    return [(method, body.get("name")) for method, _, body in writes(system)]


@pytest.mark.defect(3, "An Account was never looked up: its Organization was made again beside the one that was there.")
@pytest.mark.parametrize("is_fresh", [False, True], ids=["fetched", "made a moment ago"])
def test_an_organization_that_is_there_is_not_made_again(system: SyncSystem, is_fresh: bool) -> None:
    if is_fresh:
        system.fetch(Entity.ORGANIZATION)
    acme = system.company.create_organization(name="Acme", website="https://www.acme.com/about")["id"]
    if not is_fresh:
        age_records(system, Entity.ORGANIZATION)
        system.fetch(Entity.ORGANIZATION)
    stop_hull_id_lookups(system)

    send_messages(system, account(ACME, domain="acme.com", label="Acme Ltd"))

    assert writes(system) == [("PATCH", acme, {"name": "Acme Ltd"})]
    assert system.company.count("organization") == 1


def ann_of_acme(*, account_segments: tuple[str, ...] = ("vip",)) -> dict[str, Any]:
    report = {"id": ACME, "domain": "acme.com", "label": "Acme"}
    return user(email="ann@new.test", label="Ann", account=report, account_segments=as_segments(account_segments))


@pytest.mark.defect(4, "A Person that was sent together with its new Organization was not linked to it.")
def test_a_person_is_linked_to_the_organization_that_was_made_for_it(system: SyncSystem) -> None:
    system.change_settings(link_users_in_service=True)
    fetch_everything(system)

    send_messages(system, ann_of_acme())

    assert names(system) == [("POST", "Acme"), ("POST", "Ann")]
    assert person(system, pipedrive_id_of(system, ANN))["org_id"] == pipedrive_id_of(system, ACME) is not None


@pytest.mark.defect(
    4, "That an Account had got its Organization later did not send its Users, so they were never linked."
)
def test_an_organization_that_comes_later_is_linked(system: SyncSystem) -> None:
    system.change_settings(link_users_in_service=True, synchronized_account_segments=["vip"])
    fetch_everything(system)
    send_messages(system, ann_of_acme(account_segments=()))
    alone = person(system, pipedrive_id_of(system, ANN))["org_id"]

    send_messages(system, account(ACME, domain="acme.com", label="Acme"))

    assert alone is None
    assert person(system, pipedrive_id_of(system, ANN))["org_id"] == pipedrive_id_of(system, ACME) is not None


@pytest.mark.defect(5, "A record that was deleted in Pipedrive was made there again, although the settings forbade it.")
@pytest.mark.parametrize("ignores", [True, False], ids=["left out", "wanted back"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_record_is_made_again_only_where_the_settings_let_it(
    system: SyncSystem, kind: Any, ignores: bool
) -> None:
    system.change_settings(ignore_deleted_users=ignores, ignore_deleted_accounts=ignores)
    report = known(system, kind)
    system.company.delete(kind, report["pipedrive/id"])

    send_messages(system, message(kind, report, label="Again"))
    work_until_idle(system)

    assert names(system) == ([] if ignores else [("POST", "Again")])


@pytest.mark.defect(5, "The mark of a deletion in Hull's report was not looked at, for the same reason.")
@pytest.mark.parametrize("kind", KINDS)
def test_who_is_marked_as_deleted_stays(system: SyncSystem, kind: str) -> None:
    fetch_everything(system)

    send_messages(system, message(kind, claim(kind), **{"pipedrive/deleted_at": "2026-01-01T00:00:00Z"}))

    assert (writes(system), [reason for _, reason in outgoing_events(system)]) == ([], ["deleted_in_pipedrive"])


@pytest.mark.defect(5, "Who had never been sent waited for a change of a mapped attribute.")
@pytest.mark.parametrize("kind", KINDS)
def test_who_was_never_sent_goes_without_a_change(system: SyncSystem, kind: str) -> None:
    fetch_everything(system)

    send_messages(system, message(kind, claim(kind), label="New", changes={"is_new": True}))

    assert names(system) == [("POST", "New")]


@pytest.mark.defect(6, "Two messages about one User in a notification made two Persons.")
@pytest.mark.parametrize("kind", KINDS)
def test_two_messages_about_one_make_one(system: SyncSystem, kind: Any) -> None:
    fetch_everything(system)

    send_messages(system, message(kind, claim(kind), label="One"), message(kind, claim(kind), label="Two"))

    assert names(system) == [("POST", "Two")]
    assert system.company.count(kind) == 1


@pytest.mark.defect(6, "A notification that came while another one was being carried out was dropped.")
def test_a_message_that_comes_meanwhile_is_carried_out(system: SyncSystem) -> None:
    fetch_everything(system)

    def tell_more(_event: object) -> None:
        system.company.listeners.remove(tell_more)
        notify(system, user(email="ann@new.test", label="Two"), key="meanwhile")

    system.company.listeners.append(tell_more)  # the first write is heard while its worker still waits for the answer
    send_messages(system, user(email="ann@new.test", label="One"))
    work_until_idle(system)

    assert names(system) == [("POST", "One"), ("PATCH", "Two")]


@pytest.mark.defect(
    7, "One refused record failed its notification, and those beside it were written once more with each retry."
)
def test_a_refused_record_stays_behind_alone(system: SyncSystem) -> None:
    fetch_everything(system)
    system.pipedrive.faults.add("/persons$", "status", method="POST", status=400)

    send_messages(system, *[user(each, email=f"{each[0]}@new.test", label=each[0]) for each in (ANN, BEN)])
    work_until_idle(system)

    assert names(system) == [("POST", "b")]
    assert failures(system) == [(ANN, "refused_by_pipedrive")]


@pytest.mark.defect(7, "A User whose Person was deleted in Pipedrive was tried for ever, and stayed joined to it.")
def test_a_person_that_is_gone_is_tried_no_more_and_no_longer_joined(system: SyncSystem) -> None:
    report = known(system, "person")
    system.company.delete_person(report["pipedrive/id"])

    send_messages(system, message("person", report, label="Newer"))
    work_until_idle(system)

    assert (is_idle(system), pipedrive_id_of(system, report["id"]), failures(system)) == (True, None, [])
    assert system.pipedrive.ledger.requests["update"] == 1


@pytest.mark.defect(
    8, "A refusal for the rate limit was met with the next call at once; when to come again was not read."
)
def test_who_is_refused_for_the_rate_asks_no_more_before_the_time_given(system: SyncSystem) -> None:
    report = known(system, "person")
    settings_room.use(settings_room.settings().replace(pipedrive_burst_limit=20))
    system.pipedrive.faults.add("/persons", "429_burst", method="PATCH", headers={"retry-after": "60"})

    for number in ("1", "2"):
        send_messages(system, message("person", report, label=number))
        system.end_pauses()
        system.work()

    (wait,) = system.rows("SELECT extract(epoch FROM due_at - now()) AS s FROM changes WHERE batch_id IS NULL")
    assert (system.pipedrive.ledger.statuses[429], writes(system)) == (1, [])
    assert 30 < wait.s <= 60


@pytest.mark.defect(8, "All calls of a notification went out at once, however many Pipedrive takes.")
def test_calls_take_their_turns(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_everything(system)
    waits: list[float] = []
    monkeypatch.setitem(BurstLimiter.__init__.__kwdefaults__, "sleep", waits.append)
    settings_room.use(settings_room.settings().replace(pipedrive_burst_limit=2))
    system.pipedrive.limiter = PipedrivesLimit(2, lambda: time.monotonic() + sum(waits))

    send_messages(system, *[user(each * 24, email=f"{each}@new.test", label=each) for each in "ab"])

    assert (len(writes(system)), system.pipedrive.ledger.statuses[429]) == (2, 0)
    assert waits != []


@pytest.mark.defect(
    10, "An e-mail was looked up with its + read as a space, and the first answer taken whoever it was."
)
def test_the_very_email_is_looked_up(system: SyncSystem) -> None:
    for address in ("joann+tag@x.test", "ann tag@x.test", "ann+tag@x.test", "ann+tag@x.test.example"):
        system.company.create_person(name=address, emails=[{"value": address, "primary": True}])
    send_messages(system, user(email="ann+tag@x.test", label="Ann"))
    work_until_idle(system)

    assert writes(system) == [("PATCH", 3, {"name": "Ann"})]


@pytest.mark.defect(11, "Whatever identified a User, the look-up searched for its e-mail; without one, for nothing.")
@pytest.mark.parametrize("is_fetched", [True, False], ids=["fetched", "searched"])
def test_a_user_is_looked_up_by_what_identifies_it(system: SyncSystem, is_fetched: bool) -> None:
    number = field_code(system, "person", "Customer number")
    system.change_settings(user_claims=[{"hull": "external_id", "service": number}])
    system.company.create_person(name="Somebody else")
    there = system.company.create_person(name="Ann", custom_fields={number: "C-17"})["id"]
    age_records(system)
    if is_fetched:
        system.fetch(Entity.PERSON)
    else:
        system.module("sync.definitions").reread_fields(system.connector_key)
    stop_hull_id_lookups(system)

    send_messages(system, user(external_id="C-17", label="Ann B."))
    work_until_idle(system)

    assert writes(system) == [("PATCH", there, {"name": "Ann B."})]


@pytest.mark.defect(12, "A changed e-mail was written as a mixture of texts and objects, with doubles.")
def test_a_changed_email_becomes_primary_and_the_others_stay(system: SyncSystem) -> None:
    old, home = ({"value": value, "label": "work"} for value in ("old@x.test", "home@x.test"))
    report = known(system, "person", emails=[old | {"primary": True}, home | {"primary": False}])

    for number in ("1", "2"):
        changed = {"user": {"email": ["old@x.test", "new@x.test"]}}
        send_messages(system, message("person", report, email="new@x.test", label=number, changes=changed))

    emails = person(system, report["pipedrive/id"])["emails"]
    assert [(each["value"], each["primary"]) for each in emails] == [
        ("new@x.test", True),
        ("old@x.test", False),
        ("home@x.test", False),
    ]


@pytest.mark.defect(13, "A mapped attribute of the Account let the User pass, and was then not found in it.")
def test_an_attribute_of_the_account_is_written(system: SyncSystem) -> None:
    title = field_code(system, "person", "Job title")
    system.change_settings(outgoing_user_attributes=[{"hull": "account.industry", "service": title}])
    report = known(system, "person")

    changes = {"account": {"industry": [None, "Steel"]}}
    send_messages(system, message("person", report, account={"id": ACME, "industry": "Steel"}, changes=changes))

    assert writes(system) == [("PATCH", report["pipedrive/id"], {"custom_fields": {title: "Steel"}})]


SHELLS = [
    ({}, {}, []),
    ({"entered": as_segments(("vip",))}, {}, [("POST", "New")]),
    ({}, {"is_export": True}, [("POST", "New")]),
]
"""(moves between segments, how it is sent, what is written) with no attribute mapped."""


@pytest.mark.defect(
    22, "Whether a record goes as a shell, with no attribute mapped, was told one way and done another."
)
@pytest.mark.parametrize(("moves", "sent", "written"), SHELLS, ids=["in the segment", "enters it", "by hand"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_shell_goes_when_its_record_enters_a_segment_or_is_sent_by_hand(
    system: SyncSystem, kind: str, moves: Any, sent: dict[str, Any], written: list[Any]
) -> None:
    system.change_settings(outgoing_user_attributes=[], outgoing_account_attributes=[])
    fetch_everything(system)
    changes = {"segments" if kind == "person" else "account_segments": moves}

    send_messages(system, message(kind, claim(kind), name="New", plan="gold", changes=changes), **sent)

    assert names(system) == written
    assert [reason for _, reason in outgoing_events(system)] == [None if written else "no_outgoing_mapping"]
    assert [
        words.startswith("There are no outgoing attributes") for words in event_details(system, "no_outgoing_mapping")
    ] == ([] if written else [True])


@pytest.mark.defect(
    24, "An update wrote no identifier but a changed e-mail, so one that was mapped later never arrived."
)
@pytest.mark.parametrize("kind", KINDS)
def test_an_identifier_that_is_mapped_later_reaches_known_records(system: SyncSystem, kind: Any) -> None:
    report = known(system, kind)
    number = field_code(system, kind, "Customer number")
    system.change_settings(**{f"{Entity(kind).hull}_claims": [{"hull": "external_id", "service": number}]})

    for value in ("C-1", "C-2"):
        send_messages(system, message(kind, report, external_id=value))

    written = [body for _, _, body in writes(system)]
    assert written == [{"custom_fields": {number: value}} for value in ("C-1", "C-2")]
