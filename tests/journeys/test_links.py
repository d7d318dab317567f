"""A Person belongs to the Organization of its User's Account: the Account goes first, a later one is caught up on."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.journeys.told_by_hull import (
    ACME,
    ANN,
    GLOBEX,
    account,
    as_segments,
    failures,
    is_settled,
    know_everything,
    mapped,
    patiently,
    person,
    say,
    user,
    writes,
)
from tests.prepared import prepared
from tests.world import World


@pytest.fixture(autouse=True)
@prepared
def linking(world: World) -> None:
    """Links on, one segment of either kind, and a first full fetch behind us."""
    world.change_settings(
        link_users_in_service=True,
        synchronized_user_segments=["vip"],
        synchronized_account_segments=["vip"],
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}],
        outgoing_account_attributes=[{"hull": "name", "service": "name"}],
    )
    know_everything(world)


def ann(of: str | None = ACME, *, account_segments: tuple[str, ...] = ("vip",), **more: Any) -> dict[str, Any]:
    """Ann, with her Account beside her."""
    report = {"id": of, "domain": f"{of[0]}.example", "name": f"Account {of[0]}"} if of else {}
    beside = {"account": report, "account_segments": as_segments(account_segments)}
    return user(email="ann@new.test", nickname="Ann", **beside, **more)


def test_the_account_goes_first_and_the_person_is_linked_at_once(world: World) -> None:
    say(world, ann())

    made = [(method, body["name"]) for method, _, body in writes(world)]
    assert made == [("POST", "Account c"), ("POST", "Ann")]
    assert person(world, mapped(world, ANN))["org_id"] == mapped(world, ACME)


def test_an_account_that_is_mapped_later_sends_the_link_again(world: World) -> None:
    say(world, ann(account_segments=()))
    assert person(world, mapped(world, ANN))["org_id"] is None

    say(world, account(ACME, domain="c.example", name="Account c"))

    assert person(world, mapped(world, ANN))["org_id"] == mapped(world, ACME)
    assert [method for method, _, _ in writes(world, "persons")] == ["POST", "PATCH"]
    patiently(world)
    assert is_settled(world)


def test_an_account_that_a_filter_stops_is_not_made_and_its_user_goes_without(world: World) -> None:
    say(world, ann(account_segments=("others",)))

    assert writes(world, "organizations") == []
    assert person(world, mapped(world, ANN))["org_id"] is None
    assert is_settled(world)


def test_moving_a_user_moves_the_person(world: World) -> None:
    say(world, ann())
    say(world, ann(GLOBEX))

    assert person(world, mapped(world, ANN))["org_id"] == mapped(world, GLOBEX)
    assert mapped(world, GLOBEX) != mapped(world, ACME)


def test_with_links_off_the_organization_of_a_person_stays_as_it_is(world: World) -> None:
    say(world, ann())
    world.change_settings(link_users_in_service=False)
    say(world, ann(GLOBEX))

    assert person(world, mapped(world, ANN))["org_id"] == mapped(world, ACME)
    assert mapped(world, GLOBEX) is None


def test_an_account_that_is_refused_does_not_stop_its_user(world: World) -> None:
    world.pipedrive.faults.add("/organizations$", "status", method="POST", status=400)
    say(world, ann())
    patiently(world)

    assert person(world, mapped(world, ANN))["name"] == "Ann"
    assert (ACME, "refused_by_pipedrive") in failures(world)


def test_a_user_without_an_account_is_not_unlinked(world: World) -> None:
    say(world, ann())
    say(world, ann(None))

    assert person(world, mapped(world, ANN))["org_id"] == mapped(world, ACME)


def test_somebody_who_moves_the_person_in_pipedrive_is_not_overruled_by_an_old_report(world: World) -> None:
    say(world, ann())
    other = world.company.create_organization(name="Elsewhere")
    person_id = mapped(world, ANN) or 0
    world.company.edit_person(person_id, org_id=other["id"])
    world.fetch(Entity.PERSON, changed_only=True)

    say(world, ann(plan="gold"))

    assert person(world, person_id)["org_id"] == other["id"]
