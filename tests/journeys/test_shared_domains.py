"""A domain that several Organizations of one company give identifies none of them."""

from __future__ import annotations

from pipeline.domain.kinds import Entity
from tests.journeys.people import age
from tests.journeys.told_by_hull import ACME, account, failures, mapped, say, writes
from tests.world import World

SITE = "https://shared-portal.test/{}"


def give(world: World, *names: str) -> None:
    world.change_settings(
        account_claims=[{"hull": "domain", "service": "website"}],
        outgoing_account_attributes=[{"hull": "label", "service": "name"}],
    )
    for name in names:
        world.company.create_organization(name=name, website=SITE.format(name))


def domains(world: World) -> dict[int, object]:
    return {key: each.get("domain") for key, each in world.accounts().items()}


def test_three_organizations_of_one_domain_are_known_by_their_ids_alone(world: World) -> None:
    give(world, "One", "Two", "Three")

    world.fetch(Entity.ORGANIZATION)

    assert set(domains(world).values()) == {None}
    told = {(event, reason) for event, reason, _ in world.events() if reason}
    assert told == {("incoming.account.skip", "shared_domain")}


def test_the_third_that_comes_later_takes_the_domain_from_the_first(world: World) -> None:
    give(world, "One", "Two")
    age(world, Entity.ORGANIZATION)
    world.fetch(Entity.ORGANIZATION)
    assert sorted(map(str, domains(world).values())) == ["None", "shared-portal.test"]

    give(world, "Three")
    world.fetch(Entity.ORGANIZATION, changed_only=True)

    held = world.rows("SELECT pipedrive_id FROM identifiers WHERE role = 'holder' AND kind = 'domain'")
    assert [row.pipedrive_id for row in held] == [0]
    assert domains(world)[3] is None


def test_an_account_of_a_shared_domain_is_neither_matched_nor_held(world: World) -> None:
    give(world, "One", "Two", "Three")
    for entity in Entity:
        age(world, entity)
        world.fetch(entity)
    world.pipedrive.ledger.mutations.clear()

    say(world, account(ACME, domain="shared-portal.test", label="Four"))

    assert failures(world) == []
    assert [(method, body["name"]) for method, _, body in writes(world)] == [("POST", "Four")]
    assert mapped(world, ACME) == 4


def test_a_domain_that_one_alone_gives_again_is_its_own(world: World) -> None:
    give(world, "One", "Two", "Three")
    age(world, Entity.ORGANIZATION)
    world.fetch(Entity.ORGANIZATION)
    for number in (2, 3):
        world.company.edit_organization(number, website=f"https://own-{number}.test")
    world.fetch(Entity.ORGANIZATION, changed_only=True)

    world.module("sync.incoming.deletions").release_overdue()
    world.work()

    assert domains(world) == {1: "shared-portal.test", 2: "own-2.test", 3: "own-3.test"}
