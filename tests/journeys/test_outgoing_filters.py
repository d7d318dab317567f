"""Who is sent and who is not, row by row of the table customers know, for Users and for Accounts: from the notification to what
Pipedrive was asked and what the events say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.journeys.told_by_hull import (
    account,
    as_segments,
    details,
    is_settled,
    know_everything,
    patiently,
    say,
    told,
    user,
    writes,
)
from tests.prepared import prepared
from tests.world import World

R1 = (
    "{Kind} is not present in any of the defined segments to send to service.  Please either add a new synchronized segment"
    " which the {kind} is present in the settings page, or add the {kind} to an existing synchronized segment"
)
R2 = {
    "user": "There are no outgoing attributes to synchronize for users.  Please go to the settings page and add outgoing user"
    " attributes to synchronize",
    "account": "There are no outgoing attributes to synchronize for account.  Please go to the settings page and add outgoing"
    " account attributes to synchronize",
}
R3 = (
    "No changes on any of the synchronized attributes for this {kind}.  If you think this is a mistake, please check the"
    " settings page for the synchronized {kind} attributes to ensure that the attribute which changed is in the synchronized"
    " outgoing attributes"
)
R4 = "No changes on any of the attributes for this {kind}."


@dataclass(frozen=True, slots=True)
class Side:
    """One kind of record: how it is set, said, and found in Pipedrive."""

    entity: Entity
    kind: str

    def settings(self, *, is_mapped: bool = True, segments: tuple[str, ...] = ("vip",), **more: Any) -> dict[str, Any]:
        rows = [{"hull": "label", "service": "name"}] if is_mapped else []
        return {
            f"outgoing_{self.kind}_attributes": rows,
            f"synchronized_{self.kind}_segments": list(segments),
            **more,
        }

    def message(self, *, entered: tuple[str, ...] = (), changed: Any = None, **attributes: Any) -> dict[str, Any]:
        changes: dict[str, Any] = {"is_new": True}
        if changed is not None:
            changes[self.kind] = changed
        if entered:
            moves = {"entered": as_segments(entered), "left": []}
            changes["segments" if self.kind == "user" else "account_segments"] = moves
        say_of = user if self.kind == "user" else account
        return say_of(changes=changes, **attributes)

    def fresh(self, **more: Any) -> dict[str, Any]:
        """Somebody Pipedrive has never heard of."""
        claim = {"email": "ann@new.test"} if self.kind == "user" else {"domain": "new.test"}
        return self.message(**{**claim, "name": "New", "label": "New", **more})

    def known(self, world: World, **more: Any) -> dict[str, Any]:
        """The report of the record that came from Pipedrive, whose name is Old there."""
        (found,) = (world.users() if self.kind == "user" else world.accounts()).values()
        return self.message(**{**found, "hull_id": found["id"], "label": "Old", **more})

    def was(self, outcome: str, reason: str | None) -> list[tuple[str, str | None]]:
        return [(f"outgoing.{self.kind}.{outcome}", reason)]

    def said(self, sentence: str) -> list[str]:
        return [sentence.format(kind=self.kind, Kind=self.kind.capitalize())]


SIDES = [Side(Entity.PERSON, "user"), Side(Entity.ORGANIZATION, "account")]


@prepared
def one_record(world: World, kind: str) -> None:
    if kind == "user":
        world.company.create_person(name="Old", emails=[{"value": "old@known.test", "primary": True}])
    else:
        world.company.create_organization(name="Old", website="https://known.test")
    know_everything(world)


@pytest.fixture(params=SIDES, ids=["user", "account"])
def side(request: pytest.FixtureRequest, world: World) -> Side:
    """Either kind, with one record that both sides know."""
    chosen: Side = request.param
    one_record(world, kind=chosen.kind)
    return chosen


def names_written(world: World) -> list[tuple[str, Any]]:
    return [(method, body.get("name")) for method, _, body in writes(world)]


def test_who_enters_a_segment_goes_as_a_shell_with_nothing_mapped(world: World, side: Side) -> None:
    world.change_settings(**side.settings(is_mapped=False))
    say(world, side.fresh(entered=("vip",), plan="gold"))

    ((method, _, body),) = writes(world)
    assert (method, body["name"]) == ("POST", "New")
    assert set(body) <= {"name", "emails", "website"}
    assert told(world) == side.was("success", None)


def test_a_relevant_change_with_nothing_mapped_is_left(world: World, side: Side) -> None:
    world.change_settings(**side.settings(is_mapped=False))
    say(world, side.known(world, label="Newer", changed={"label": ["Old", "Newer"]}))

    assert writes(world) == []
    assert told(world) == side.was("skip", "no_outgoing_mapping")
    assert details(world, "no_outgoing_mapping") == side.said(R2[side.kind])


def test_somebody_new_with_nothing_mapped_is_left_as_well(world: World, side: Side) -> None:
    """Being in a segment is not entering it."""
    world.change_settings(**side.settings(is_mapped=False))
    say(world, side.fresh(changed={"label": [None, "New"]}))

    assert writes(world) == []
    assert told(world) == side.was("skip", "no_outgoing_mapping")


def test_a_relevant_change_is_written(world: World, side: Side) -> None:
    world.change_settings(**side.settings())
    say(world, side.known(world, label="Newer", changed={"label": ["Old", "Newer"]}))

    assert names_written(world) == [("PATCH", "Newer")]
    assert told(world) == side.was("success", None)


def test_an_irrelevant_change_is_left(world: World, side: Side) -> None:
    world.change_settings(**side.settings())
    say(world, side.known(world, changed={"plan": ["free", "gold"]}))

    assert writes(world) == []
    assert told(world) == side.was("skip", "no_relevant_change")
    assert details(world, "no_relevant_change") == side.said(R3)


def test_nothing_changed_is_left_although_it_is_new(world: World, side: Side) -> None:
    world.change_settings(**side.settings())
    say(world, side.known(world))

    assert writes(world) == []
    assert told(world) == side.was("skip", "no_change")
    assert details(world, "no_change") == side.said(R4)


def test_who_is_in_no_segment_is_left(world: World, side: Side) -> None:
    world.change_settings(**side.settings())
    say(world, side.fresh(segments=(), changed={"label": [None, "New"]}))

    assert writes(world) == []
    assert told(world) == side.was("skip", "not_in_segment")
    assert details(world, "not_in_segment") == side.said(R1)


@pytest.mark.parametrize("segments", [(), ("others",)])
def test_who_is_in_another_segment_or_none_is_chosen_is_left(
    world: World, side: Side, segments: tuple[str, ...]
) -> None:
    world.change_settings(**side.settings(segments=segments))
    say(world, side.fresh(entered=("vip",)))

    assert writes(world) == []
    assert told(world) == side.was("skip", "not_in_segment")


def test_with_all_everybody_goes(world: World, side: Side) -> None:
    world.change_settings(**side.settings(segments=("ALL",)))
    say(world, side.fresh(segments=()))

    assert names_written(world) == [("POST", "New")]
    assert told(world) == side.was("success", None)


def test_sent_by_hand_goes_with_nothing_mapped_and_in_no_segment(world: World, side: Side) -> None:
    world.change_settings(**side.settings(is_mapped=False, segments=()))
    message = side.fresh(segments=())
    del message["changes"]
    say(world, message, is_export=True)

    assert names_written(world) == [("POST", "New")]
    assert told(world) == side.was("success", None)


def test_who_never_went_goes_without_any_change(world: World, side: Side) -> None:
    world.change_settings(**side.settings())
    say(world, side.fresh())

    assert names_written(world) == [("POST", "New")]
    assert told(world) == side.was("success", None)


@pytest.mark.parametrize("leaves", [True, False])
def test_who_is_marked_as_deleted_goes_only_if_the_settings_let_it(world: World, side: Side, leaves: bool) -> None:
    world.change_settings(**side.settings(), **{f"ignore_deleted_{side.kind}s": leaves})
    say(world, side.fresh(entered=("vip",), **{"pipedrive/deleted_at": "2026-01-01T00:00:00Z"}))

    assert names_written(world) == ([] if leaves else [("POST", "New")])
    assert told(world) == (side.was("skip", "deleted_in_pipedrive") if leaves else side.was("success", None))
    assert details(world, "deleted_in_pipedrive") == (side.said("{Kind} has been deleted") if leaves else [])


@pytest.mark.parametrize("leaves", [True, False])
def test_whose_record_departed_goes_only_if_the_settings_let_it(world: World, side: Side, leaves: bool) -> None:
    world.change_settings(**side.settings(), **{f"ignore_deleted_{side.kind}s": leaves})
    message = side.known(world, label="Again", changed={"label": ["Old", "Again"]})
    world.company.delete(side.entity.value, 1)
    say(world, message)
    patiently(world)

    assert names_written(world) == ([] if leaves else [("POST", "Again")])
    assert told(world)[-1:] == (side.was("skip", "deleted_in_pipedrive") if leaves else side.was("success", None))
    assert is_settled(world)


def test_a_user_that_was_linked_goes_with_nothing_mapped(world: World) -> None:
    side = SIDES[0]
    acme = world.company.create_organization(name="Acme", website="https://acme.test")
    know_everything(world)
    world.change_settings(**side.settings(is_mapped=False), link_users_in_service=True)
    linked = user(
        email="ann@new.test",
        account={**world.accounts()[acme["id"]]},
        changes={"account": {"id": [None, "x"]}},
    )
    say(world, linked)

    ((method, _, body),) = writes(world)
    assert (method, body["org_id"]) == ("POST", acme["id"])


def test_a_user_that_was_linked_is_left_when_links_are_off(world: World) -> None:
    know_everything(world)
    world.change_settings(**SIDES[0].settings(is_mapped=False), link_users_in_service=False)
    say(world, user(email="ann@new.test", account={"id": "c" * 24}, changes={"account": {"id": [None, "x"]}}))

    assert writes(world) == []
    assert told(world) == [("outgoing.user.skip", "no_outgoing_mapping")]


def test_a_value_that_pipedrive_lacks_goes_whatever_changed(world: World, side: Side) -> None:
    """What is written is decided against the record; what changed in Hull only finds the words when nothing is."""
    world.change_settings(**side.settings())
    say(world, side.known(world, label="Newer", changed={"plan": ["free", "gold"]}))

    assert names_written(world) == [("PATCH", "Newer")]


def test_the_name_of_an_item_of_a_list_that_changed_is_the_lists_own(world: World, side: Side) -> None:
    world.change_settings(**side.settings())
    say(world, side.known(world, changed={"label[0]": ["a", "b"]}))

    assert told(world) == side.was("skip", "unchanged")
