"""Who is sent and who is not, row by row of the table customers know, for Users and for Accounts: from the notification to what
Pipedrive was asked and what the events say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.journeys.hull_messages import (
    account,
    as_segments,
    event_details,
    fetch_everything,
    is_idle,
    outgoing_events,
    send_messages,
    user,
    work_until_idle,
    writes,
)
from tests.prepared import prepared
from tests.system import SyncSystem

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

    def known(self, system: SyncSystem, **more: Any) -> dict[str, Any]:
        """The report of the record that came from Pipedrive, whose name is Old there."""
        (found,) = (system.users() if self.kind == "user" else system.accounts()).values()
        return self.message(**{**found, "hull_id": found["id"], "label": "Old", **more})

    def was(self, outcome: str, reason: str | None) -> list[tuple[str, str | None]]:
        return [(f"outgoing.{self.kind}.{outcome}", reason)]

    def said(self, sentence: str) -> list[str]:
        return [sentence.format(kind=self.kind, Kind=self.kind.capitalize())]


SIDES = [Side(Entity.PERSON, "user"), Side(Entity.ORGANIZATION, "account")]


@prepared
def one_record(system: SyncSystem, kind: str) -> None:
    if kind == "user":
        system.company.create_person(name="Old", emails=[{"value": "old@known.test", "primary": True}])
    else:
        system.company.create_organization(name="Old", website="https://known.test")
    fetch_everything(system)


@pytest.fixture(params=SIDES, ids=["user", "account"])
def side(request: pytest.FixtureRequest, system: SyncSystem) -> Side:
    """Either kind, with one record that both sides know."""
    chosen: Side = request.param
    one_record(system, kind=chosen.kind)
    return chosen


def names_written(system: SyncSystem) -> list[tuple[str, Any]]:
    return [(method, body.get("name")) for method, _, body in writes(system)]


def test_who_enters_a_segment_goes_as_a_shell_with_nothing_mapped(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(is_mapped=False))
    send_messages(system, side.fresh(entered=("vip",), plan="gold"))

    ((method, _, body),) = writes(system)
    assert (method, body["name"]) == ("POST", "New")
    assert set(body) <= {"name", "emails", "website"}
    assert outgoing_events(system) == side.was("success", None)


def test_a_relevant_change_with_nothing_mapped_is_left(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(is_mapped=False))
    send_messages(system, side.known(system, label="Newer", changed={"label": ["Old", "Newer"]}))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "no_outgoing_mapping")
    assert event_details(system, "no_outgoing_mapping") == side.said(R2[side.kind])


def test_somebody_new_with_nothing_mapped_is_left_as_well(system: SyncSystem, side: Side) -> None:
    """Being in a segment is not entering it."""
    system.change_settings(**side.settings(is_mapped=False))
    send_messages(system, side.fresh(changed={"label": [None, "New"]}))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "no_outgoing_mapping")


def test_a_relevant_change_is_written(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, label="Newer", changed={"label": ["Old", "Newer"]}))

    assert names_written(system) == [("PATCH", "Newer")]
    assert outgoing_events(system) == side.was("success", None)


def test_an_irrelevant_change_is_left(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, changed={"plan": ["free", "gold"]}))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "no_relevant_change")
    assert event_details(system, "no_relevant_change") == side.said(R3)


def test_nothing_changed_is_left_although_it_is_new(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "no_change")
    assert event_details(system, "no_change") == side.said(R4)


def test_who_is_in_no_segment_is_left(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.fresh(segments=(), changed={"label": [None, "New"]}))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "not_in_segment")
    assert event_details(system, "not_in_segment") == side.said(R1)


@pytest.mark.parametrize("segments", [(), ("others",)])
def test_who_is_in_another_segment_or_none_is_chosen_is_left(
    system: SyncSystem, side: Side, segments: tuple[str, ...]
) -> None:
    system.change_settings(**side.settings(segments=segments))
    send_messages(system, side.fresh(entered=("vip",)))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "not_in_segment")


def test_with_all_everybody_goes(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(segments=("ALL",)))
    send_messages(system, side.fresh(segments=()))

    assert names_written(system) == [("POST", "New")]
    assert outgoing_events(system) == side.was("success", None)


def test_sent_by_hand_goes_with_nothing_mapped_and_in_no_segment(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(is_mapped=False, segments=()))
    message = side.fresh(segments=())
    del message["changes"]
    send_messages(system, message, is_export=True)

    assert names_written(system) == [("POST", "New")]
    assert outgoing_events(system) == side.was("success", None)


def test_who_never_went_goes_without_any_change(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.fresh())

    assert names_written(system) == [("POST", "New")]
    assert outgoing_events(system) == side.was("success", None)


@pytest.mark.parametrize("leaves", [True, False])
def test_who_is_marked_as_deleted_goes_only_if_the_settings_let_it(
    system: SyncSystem, side: Side, leaves: bool
) -> None:
    system.change_settings(**side.settings(), **{f"ignore_deleted_{side.kind}s": leaves})
    send_messages(system, side.fresh(entered=("vip",), **{"pipedrive/deleted_at": "2026-01-01T00:00:00Z"}))

    assert names_written(system) == ([] if leaves else [("POST", "New")])
    assert outgoing_events(system) == (
        side.was("skip", "deleted_in_pipedrive") if leaves else side.was("success", None)
    )
    assert event_details(system, "deleted_in_pipedrive") == (side.said("{Kind} has been deleted") if leaves else [])


@pytest.mark.parametrize("leaves", [True, False])
def test_whose_record_departed_goes_only_if_the_settings_let_it(system: SyncSystem, side: Side, leaves: bool) -> None:
    system.change_settings(**side.settings(), **{f"ignore_deleted_{side.kind}s": leaves})
    message = side.known(system, label="Again", changed={"label": ["Old", "Again"]})
    system.company.delete(side.entity.value, 1)
    send_messages(system, message)
    work_until_idle(system)

    assert names_written(system) == ([] if leaves else [("POST", "Again")])
    assert outgoing_events(system)[-1:] == (
        side.was("skip", "deleted_in_pipedrive") if leaves else side.was("success", None)
    )
    assert is_idle(system)


def test_a_user_that_was_linked_goes_with_nothing_mapped(system: SyncSystem) -> None:
    side = SIDES[0]
    acme = system.company.create_organization(name="Acme", website="https://acme.test")
    fetch_everything(system)
    system.change_settings(**side.settings(is_mapped=False), link_users_in_service=True)
    linked = user(
        email="ann@new.test",
        account={**system.accounts()[acme["id"]]},
        changes={"account": {"id": [None, "x"]}},
    )
    send_messages(system, linked)

    ((method, _, body),) = writes(system)
    assert (method, body["org_id"]) == ("POST", acme["id"])


def test_a_user_that_was_linked_is_left_when_links_are_off(system: SyncSystem) -> None:
    fetch_everything(system)
    system.change_settings(**SIDES[0].settings(is_mapped=False), link_users_in_service=False)
    send_messages(
        system, user(email="ann@new.test", account={"id": "c" * 24}, changes={"account": {"id": [None, "x"]}})
    )

    assert writes(system) == []
    assert outgoing_events(system) == [("outgoing.user.skip", "no_outgoing_mapping")]


def test_a_value_that_pipedrive_lacks_goes_whatever_changed(system: SyncSystem, side: Side) -> None:
    """What is written is decided against the record; what changed in Hull only finds the words when nothing is."""
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, label="Newer", changed={"plan": ["free", "gold"]}))

    assert names_written(system) == [("PATCH", "Newer")]


def test_the_name_of_an_item_of_a_list_that_changed_is_the_lists_own(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, changed={"label[0]": ["a", "b"]}))

    assert outgoing_events(system) == side.was("skip", "unchanged")
