"""Pipedrive → Hull: what the connector before lost, doubled, or said of the wrong record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from db.schedule import set_schedule
from db.session import transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.guide.people import in_hull
from tests.journeys.hull_messages import account, fetch_everything, organization, send_messages, writes
from tests.journeys.pipedrive_records import PAGE, age_records, create_records
from tests.system import SyncSystem

NAME_TO_NAME = [{"hull": "label", "service": "name"}]
KINDS = ["person", "organization"]


@pytest.mark.defect(1, "The fetch moved on by one record instead of one page, and sent everybody a hundred times.")
def test_a_page_is_read_once_and_everybody_sent_once(system: SyncSystem) -> None:
    create_records(system, persons=5 * PAGE, organizations=0)
    age_records(system)

    run = system.fetch(Entity.PERSON)

    assert (run.state, len(system.users()), system.hull.received.count) == ("done", 5 * PAGE, 5 * PAGE)
    assert system.pipedrive.ledger.requests["list"] <= 5 + 3  # both walks, and the catch-up


@pytest.mark.defect(1, "A page that did not say whether more follow was fetched for ever.")
def test_a_page_that_says_nothing_of_a_next_one_ends_the_walk(system: SyncSystem) -> None:
    create_records(system, persons=3, organizations=0)
    system.pipedrive.faults.add("/persons$", "rewrite", find=',"additional_data":.*', put="}", count=None)

    system.fetch(Entity.PERSON)
    for _ in range(10):
        system.end_pauses()
        system.work()

    assert system.next_batch() is None
    assert system.pipedrive.ledger.requests["list"] <= 3 * 8  # a page that makes no sense is tried eight times
    assert len(system.users()) == 3


@pytest.mark.defect(2, "A fetched Organization brought no mapped attribute to its Account.")
def test_a_fetched_organization_brings_its_attributes(system: SyncSystem) -> None:
    system.company.create_organization(name="Acme", website="https://www.acme.com", address={"value": "1 Main St"})

    system.fetch(Entity.ORGANIZATION)

    (acme,) = in_hull(system, "account")
    said = [acme[f"pipedrive/{name}"] for name in ("name", "website", "address")]
    assert said == ["Acme", "https://www.acme.com", "1 Main St"]


@pytest.mark.defect(2, "What Pipedrive answered to an Account that was sent did not come back either.")
def test_an_account_that_was_sent_has_its_attributes_read_back(system: SyncSystem) -> None:
    system.change_settings(outgoing_account_attributes=NAME_TO_NAME)
    acme = system.company.create_organization(name="Acme", website="https://www.acme.com")["id"]
    fetch_everything(system)

    send_messages(system, account(system.accounts()[acme]["id"], label="Acme Ltd"))

    assert system.accounts()[acme]["pipedrive/name"] == "Acme Ltd"


@pytest.mark.defect(9, "The first e-mail of a Person was taken, although another one was marked primary.")
@pytest.mark.parametrize("by_webhook", [False, True], ids=["fetch", "webhook"])
def test_the_primary_email_identifies(system: SyncSystem, by_webhook: bool) -> None:
    said = listen(system)
    emails = [{"value": "home@ann.test", "primary": False}, {"value": "ann@work.test", "primary": True}]
    system.company.create_person(name="Ann", emails=emails)

    if by_webhook:
        deliver(system, *said)
        system.work()
    else:
        system.fetch(Entity.PERSON)

    assert [user["email"] for user in in_hull(system, "user")] == ["ann@work.test"]


@pytest.mark.defect(14, "Every update of an Account overwrote the Organization's name with the domain.")
@pytest.mark.parametrize("claim", ["domain", "external_id"])
def test_an_update_leaves_the_name_alone(system: SyncSystem, claim: str) -> None:
    system.change_settings(
        account_claims=[{"hull": claim, "service": "name"}],  # as it was by default, and as it could be set
        outgoing_account_attributes=[{"hull": "site", "service": "website"}],
    )
    acme = system.company.create_organization(name="Acme")["id"]
    fetch_everything(system)

    send_messages(system, account(system.accounts()[acme]["id"], site="https://acme.com", **{claim: "acme.com"}))

    assert writes(system) == [("PATCH", acme, {"website": "https://acme.com"})]
    assert organization(system, acme)["name"] == "Acme"


@pytest.mark.defect(14, "The Organization's name was told to Hull as the domain of its Account.")
def test_a_name_is_a_domain_only_if_it_is_a_host_name(system: SyncSystem) -> None:
    system.change_settings(account_claims=[{"hull": "domain", "service": "name"}])
    acme = system.company.create_organization(name="Acme")["id"]
    globex = system.company.create_organization(name="globex.com")["id"]

    system.fetch(Entity.ORGANIZATION)

    said = {body["pipedrive/id"]: claims["asAccount"].get("domain") for _, claims, body in system.hull.received}
    assert said == {acme: None, globex: "globex.com"}


@pytest.mark.defect(15, "The mark of Users that a webhook created never reached Hull.")
def test_a_user_that_a_webhook_created_carries_the_mark(system: SyncSystem) -> None:
    said = listen(system)
    system.company.create_person(name="Ann", emails=[{"value": "ann@new.test", "primary": True}])

    deliver(system, *said)
    system.work()

    assert [user["pipedrive/created_by_webhook"] for user in in_hull(system, "user")] == [True]


@pytest.mark.defect(17, "A merge was taken for an update, and the id that was lost stayed where it was.")
@pytest.mark.parametrize("kind", KINDS)
def test_two_that_were_merged_are_one_in_hull(system: SyncSystem, kind: Any) -> None:
    kept, lost = (system.company.create(kind, {"name": name})["id"] for name in ("Kept", "Lost"))
    system.fetch(Entity(kind))
    said = listen(system)
    system.company.merge(kind, lost, kept)

    deliver(system, *said)
    system.work()

    (one,) = in_hull(system, Entity(kind).hull)
    assert (one["pipedrive/id"], one["pipedrive/name"]) == (kept, "Kept")
    assert set(one["anonymous_ids"]) == {f"pipedrive:{kept}", f"pipedrive:{lost}"}


@pytest.mark.defect(18, "Nothing was fetched by schedule: what no webhook told stayed unknown.")
def test_a_change_without_a_webhook_comes_by_schedule(system: SyncSystem) -> None:
    create_records(system, persons=3, organizations=0)
    fetch_everything(system)
    with transaction() as session:
        set_schedule(session, system.connector_key, "incremental", interval_s=300, next_run_at=datetime.now(UTC))
    system.company.edit_person(2, name="Edited in silence")

    system.module("tasks.control").start_scheduled()
    system.work()

    assert system.users()[2]["pipedrive/name"] == "Edited in silence"


@pytest.mark.defect(18, "There was no fetch of what changed, only of everything.")
def test_a_fetch_of_what_changed_reads_and_sends_that_alone(system: SyncSystem) -> None:
    create_records(system, persons=3 * PAGE, organizations=0)
    age_records(system)
    first = system.fetch(Entity.PERSON)
    sent, asked = system.hull.received.count, system.pipedrive.ledger.requests["list"]
    system.company.edit_person(2, name="Edited")

    system.fetch(Entity.PERSON, since=first.started_at)

    assert system.users()[2]["pipedrive/name"] == "Edited"
    assert system.hull.received.count - sent == 1
    assert system.pipedrive.ledger.requests["list"] - asked == 1


@pytest.mark.defect(23, "A record that was restored went on being marked as deleted.")
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_record_is_marked_no_more(system: SyncSystem, kind: Any) -> None:
    system.change_settings(support_user_deletion=True, support_account_deletion=True)
    number = system.company.create(kind, {"name": "Back"})["id"]
    system.fetch(Entity(kind))
    said, shown = listen(system), []
    for change in (system.company.delete, system.company.undelete):
        change(kind, number)
        deliver(system, said[-1])
        system.work()
        (one,) = in_hull(system, Entity(kind).hull)
        shown.append((one.get("pipedrive/id"), one.get("pipedrive/deleted_at") is not None))

    assert shown == [(None, True), (number, False)]


@pytest.mark.defect(23, "The id that a deleted record left behind in Hull led to it, as if it were there.")
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_deleted_record_leaves_in_hull_leads_nowhere(system: SyncSystem, kind: Any) -> None:
    mapped: dict[str, Any] = {f"outgoing_{each.hull}_attributes": NAME_TO_NAME for each in Entity}
    system.change_settings(support_user_deletion=True, support_account_deletion=True, **mapped)
    number = system.company.create(kind, {"name": "Gone"})["id"]
    fetch_everything(system)
    said = listen(system)
    system.company.delete(kind, number)
    deliver(system, *said)
    system.work()

    (left,) = in_hull(system, Entity(kind).hull)
    report = {Entity(kind).hull: {**left, "label": "Again"}}
    send_messages(system, {**report, "changes": {}}, is_export=True)

    assert left["anonymous_ids"] == [f"pipedrive:{number}"]
    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "Again")]
