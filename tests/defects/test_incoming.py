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
from tests.journeys.people import PAGE, age, fill
from tests.journeys.told_by_hull import account, know_everything, organization, say, writes
from tests.world import World

NAME_TO_NAME = [{"hull": "label", "service": "name"}]
KINDS = ["person", "organization"]


@pytest.mark.defect(1, "The fetch moved on by one record instead of one page, and sent everybody a hundred times.")
def test_a_page_is_read_once_and_everybody_sent_once(world: World) -> None:
    fill(world, persons=5 * PAGE, organizations=0)
    age(world)

    run = world.fetch(Entity.PERSON)

    assert (run.state, len(world.users()), world.hull.received.count) == ("done", 5 * PAGE, 5 * PAGE)
    assert world.pipedrive.ledger.requests["list"] <= 5 + 3  # both walks, and the catch-up


@pytest.mark.defect(1, "A page that did not say whether more follow was fetched for ever.")
def test_a_page_that_says_nothing_of_a_next_one_ends_the_walk(world: World) -> None:
    fill(world, persons=3, organizations=0)
    world.pipedrive.faults.add("/persons$", "rewrite", find=',"additional_data":.*', put="}", count=None)

    world.fetch(Entity.PERSON)
    for _ in range(10):
        world.later()
        world.work()

    assert world.due() is None
    assert world.pipedrive.ledger.requests["list"] <= 3 * 8  # a page that makes no sense is tried eight times
    assert len(world.users()) == 3


@pytest.mark.defect(2, "A fetched Organization brought no mapped attribute to its Account.")
def test_a_fetched_organization_brings_its_attributes(world: World) -> None:
    world.company.create_organization(name="Acme", website="https://www.acme.com", address={"value": "1 Main St"})

    world.fetch(Entity.ORGANIZATION)

    (acme,) = in_hull(world, "account")
    said = [acme[f"pipedrive/{name}"] for name in ("name", "website", "address")]
    assert said == ["Acme", "https://www.acme.com", "1 Main St"]


@pytest.mark.defect(2, "What Pipedrive answered to an Account that was sent did not come back either.")
def test_an_account_that_was_sent_has_its_attributes_read_back(world: World) -> None:
    world.change_settings(outgoing_account_attributes=NAME_TO_NAME)
    acme = world.company.create_organization(name="Acme", website="https://www.acme.com")["id"]
    know_everything(world)

    say(world, account(world.accounts()[acme]["id"], label="Acme Ltd"))

    assert world.accounts()[acme]["pipedrive/name"] == "Acme Ltd"


@pytest.mark.defect(9, "The first e-mail of a Person was taken, although another one was marked primary.")
@pytest.mark.parametrize("by_webhook", [False, True], ids=["fetch", "webhook"])
def test_the_primary_email_identifies(world: World, by_webhook: bool) -> None:
    said = listen(world)
    emails = [{"value": "home@ann.test", "primary": False}, {"value": "ann@work.test", "primary": True}]
    world.company.create_person(name="Ann", emails=emails)

    if by_webhook:
        deliver(world, *said)
        world.work()
    else:
        world.fetch(Entity.PERSON)

    assert [user["email"] for user in in_hull(world, "user")] == ["ann@work.test"]


@pytest.mark.defect(14, "Every update of an Account overwrote the Organization's name with the domain.")
@pytest.mark.parametrize("claim", ["domain", "external_id"])
def test_an_update_leaves_the_name_alone(world: World, claim: str) -> None:
    world.change_settings(
        account_claims=[{"hull": claim, "service": "name"}],  # as it was by default, and as it could be set
        outgoing_account_attributes=[{"hull": "site", "service": "website"}],
    )
    acme = world.company.create_organization(name="Acme")["id"]
    know_everything(world)

    say(world, account(world.accounts()[acme]["id"], site="https://acme.com", **{claim: "acme.com"}))

    assert writes(world) == [("PATCH", acme, {"website": "https://acme.com"})]
    assert organization(world, acme)["name"] == "Acme"


@pytest.mark.defect(14, "The Organization's name was told to Hull as the domain of its Account.")
def test_a_name_is_a_domain_only_if_it_is_a_host_name(world: World) -> None:
    world.change_settings(account_claims=[{"hull": "domain", "service": "name"}])
    acme = world.company.create_organization(name="Acme")["id"]
    globex = world.company.create_organization(name="globex.com")["id"]

    world.fetch(Entity.ORGANIZATION)

    said = {body["pipedrive/id"]: claims["asAccount"].get("domain") for _, claims, body in world.hull.received}
    assert said == {acme: None, globex: "globex.com"}


@pytest.mark.defect(15, "The mark of Users that a webhook created never reached Hull.")
def test_a_user_that_a_webhook_created_carries_the_mark(world: World) -> None:
    said = listen(world)
    world.company.create_person(name="Ann", emails=[{"value": "ann@new.test", "primary": True}])

    deliver(world, *said)
    world.work()

    assert [user["pipedrive/created_by_webhook"] for user in in_hull(world, "user")] == [True]


@pytest.mark.defect(17, "A merge was taken for an update, and the id that was lost stayed where it was.")
@pytest.mark.parametrize("kind", KINDS)
def test_two_that_were_merged_are_one_in_hull(world: World, kind: Any) -> None:
    kept, lost = (world.company.create(kind, {"name": name})["id"] for name in ("Kept", "Lost"))
    world.fetch(Entity(kind))
    said = listen(world)
    world.company.merge(kind, lost, kept)

    deliver(world, *said)
    world.work()

    (one,) = in_hull(world, Entity(kind).hull)
    assert (one["pipedrive/id"], one["pipedrive/name"]) == (kept, "Kept")
    assert set(one["anonymous_ids"]) == {f"pipedrive:{kept}", f"pipedrive:{lost}"}


@pytest.mark.defect(18, "Nothing was fetched by schedule: what no webhook told stayed unknown.")
def test_a_change_without_a_webhook_comes_by_schedule(world: World) -> None:
    fill(world, persons=3, organizations=0)
    know_everything(world)
    with transaction() as session:
        set_schedule(session, world.connector_key, "incremental", interval_s=300, next_run_at=datetime.now(UTC))
    world.company.edit_person(2, name="Edited in silence")

    world.module("tasks.control").start_scheduled()
    world.work()

    assert world.users()[2]["pipedrive/name"] == "Edited in silence"


@pytest.mark.defect(18, "There was no fetch of what changed, only of everything.")
def test_a_fetch_of_what_changed_reads_and_sends_that_alone(world: World) -> None:
    fill(world, persons=3 * PAGE, organizations=0)
    age(world)
    first = world.fetch(Entity.PERSON)
    sent, asked = world.hull.received.count, world.pipedrive.ledger.requests["list"]
    world.company.edit_person(2, name="Edited")

    world.fetch(Entity.PERSON, since=first.started_at)

    assert world.users()[2]["pipedrive/name"] == "Edited"
    assert world.hull.received.count - sent == 1
    assert world.pipedrive.ledger.requests["list"] - asked == 1


@pytest.mark.defect(23, "A record that was restored went on being marked as deleted.")
@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_record_is_marked_no_more(world: World, kind: Any) -> None:
    world.change_settings(support_user_deletion=True, support_account_deletion=True)
    number = world.company.create(kind, {"name": "Back"})["id"]
    world.fetch(Entity(kind))
    said, shown = listen(world), []
    for change in (world.company.delete, world.company.undelete):
        change(kind, number)
        deliver(world, said[-1])
        world.work()
        (one,) = in_hull(world, Entity(kind).hull)
        shown.append((one.get("pipedrive/id"), one.get("pipedrive/deleted_at") is not None))

    assert shown == [(None, True), (number, False)]


@pytest.mark.defect(23, "The id that a deleted record left behind in Hull led to it, as if it were there.")
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_deleted_record_leaves_in_hull_leads_nowhere(world: World, kind: Any) -> None:
    mapped: dict[str, Any] = {f"outgoing_{each.hull}_attributes": NAME_TO_NAME for each in Entity}
    world.change_settings(support_user_deletion=True, support_account_deletion=True, **mapped)
    number = world.company.create(kind, {"name": "Gone"})["id"]
    know_everything(world)
    said = listen(world)
    world.company.delete(kind, number)
    deliver(world, *said)
    world.work()

    (left,) = in_hull(world, Entity(kind).hull)
    report = {Entity(kind).hull: {**left, "label": "Again"}}
    say(world, {**report, "changes": {}}, is_export=True)

    assert left["anonymous_ids"] == [f"pipedrive:{number}"]
    assert [(method, body["name"]) for method, _, body in writes(world)] == [("POST", "Again")]
