"""Which Users and Accounts are sent, rule by rule: from the notification to the calls of Pipedrive and the events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.hull_messages import (
    BEN,
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
from tests.logs import captured_log
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
    """One kind of record: its settings, messages, events and sentences."""

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
        message_of = user if self.kind == "user" else account
        return message_of(changes=changes, **attributes)

    def fresh(self, **more: Any) -> dict[str, Any]:
        """Return a message about a record that Pipedrive lacks."""
        claim = {"email": "ann@new.test"} if self.kind == "user" else {"domain": "new.test"}
        return self.message(**{**claim, "name": "New", "label": "New", **more})

    def known(self, system: SyncSystem, **more: Any) -> dict[str, Any]:
        """Return a message about the record from Pipedrive; its name there is Old."""
        (found,) = (system.users() if self.kind == "user" else system.accounts()).values()
        return self.message(**{**found, "hull_id": found["id"], "label": "Old", **more})

    def was(self, outcome: str, reason: str | None) -> list[tuple[str, str | None]]:
        return [(f"outgoing.{self.kind}.{outcome}", reason)]

    def detail(self, sentence: str) -> list[str]:
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


@pytest.mark.guide(
    "Outgoing Accounts",
    "Without them, an Account that enters a segment is sent as a shell: an Organization with a name and its "
    "identifiers.",
)
@pytest.mark.guide(
    "Outgoing Users",
    "Without outgoing attributes, a User that enters a segment is sent as a shell: a Person with a name and "
    "its identifiers.",
)
@pytest.mark.defect(
    22, "Whether a record goes as a shell, with no attribute mapped, was told one way and done another."
)
def test_without_a_mapping_a_record_that_enters_a_segment_is_sent_as_a_shell(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(is_mapped=False))
    send_messages(system, side.fresh(entered=("vip",), plan="gold"))

    ((method, _, body),) = writes(system)
    assert (method, body["name"]) == ("POST", "New")
    assert set(body) <= {"name", "emails", "website"}
    assert outgoing_events(system) == side.was("success", None)


@pytest.mark.guide("Outgoing Accounts", "an Account is sent when it enters one of these segments.")
@pytest.mark.guide("Outgoing Users", "a User is sent when it enters one of these segments.")
def test_a_known_record_is_sent_when_it_enters_a_segment(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, label="Newer", segments=("others",)))
    before = writes(system)

    send_messages(system, side.known(system, label="Newer", segments=("others", "vip"), entered=("vip",)))

    assert before == []
    assert names_written(system) == [("PATCH", "Newer")]


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "If a record is still not there, look for outgoing.user.skip, outgoing.user.error, outgoing.account.skip and"
    " outgoing.account.error in the logs.",
)
@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    "Each has the reason; a value that its field cannot have is named, and the other fields are written.",
)
@pytest.mark.defect(21, "That a record was left out, and why, was logged where nobody looks.")
def test_the_log_names_what_was_not_sent_and_why(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(is_mapped=False))
    nameless = {"email": None, "domain": None, "name": None, "label": None}

    with captured_log("info") as lines:
        send_messages(system, side.fresh(segments=("others",)))
        send_messages(system, side.fresh(hull_id=BEN, entered=("vip",), **nameless))

    found = [line for line in lines if line["event"].endswith((".skip", ".error"))]
    assert [(line["event"], line["reason"], line["log_level"]) for line in found] == [
        (f"outgoing.{side.kind}.skip", "not_in_segment", "info"),
        (f"outgoing.{side.kind}.error", "name_missing", "warning"),
    ]
    assert all(line["advice"] for line in found)


@pytest.mark.guide("Outgoing Accounts", "Apart from such shells, only Accounts that you send manually are sent then.")
@pytest.mark.guide("Outgoing Users", "Apart from shells and links, only Users that you send manually are sent then.")
@pytest.mark.defect(
    22, "Whether a record goes as a shell, with no attribute mapped, was told one way and done another."
)
def test_without_a_mapping_a_change_is_not_sent(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(is_mapped=False))
    send_messages(system, side.known(system, label="Newer", changed={"label": ["Old", "Newer"]}))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "no_outgoing_mapping")
    assert event_details(system, "no_outgoing_mapping") == side.detail(R2[side.kind])


@pytest.mark.guide("Outgoing Accounts", "Apart from such shells, only Accounts that you send manually are sent then.")
@pytest.mark.guide("Outgoing Users", "Apart from shells and links, only Users that you send manually are sent then.")
@pytest.mark.defect(
    22, "Whether a record goes as a shell, with no attribute mapped, was told one way and done another."
)
def test_without_a_mapping_a_new_record_is_not_sent(system: SyncSystem, side: Side) -> None:
    """Being in a segment is not entering it."""
    system.change_settings(**side.settings(is_mapped=False))
    send_messages(system, side.fresh(changed={"label": [None, "New"]}))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "no_outgoing_mapping")


@pytest.mark.guide("Outgoing Accounts", "An Account in one of them is sent when a mapped attribute changes.")
@pytest.mark.guide("Outgoing Users", "A User in one of them is sent when a mapped attribute changes.")
def test_a_relevant_change_is_written(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, label="Newer", changed={"label": ["Old", "Newer"]}))

    assert names_written(system) == [("PATCH", "Newer")]
    assert outgoing_events(system) == side.was("success", None)


@pytest.mark.guide("Outgoing Accounts", "An Account in one of them is sent when a mapped attribute changes.")
@pytest.mark.guide("Outgoing Users", "A User in one of them is sent when a mapped attribute changes.")
def test_an_irrelevant_change_is_left(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, changed={"plan": ["free", "gold"]}))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "no_relevant_change")
    assert event_details(system, "no_relevant_change") == side.detail(R3)


def test_nothing_changed_is_left_although_it_is_new(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "no_change")
    assert event_details(system, "no_change") == side.detail(R4)


@pytest.mark.guide("Outgoing Accounts", "An Account in none of them is not sent.")
@pytest.mark.guide("Outgoing Users", "A User in none of them is not sent.")
def test_who_is_in_no_segment_is_left(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.fresh(segments=(), changed={"label": [None, "New"]}))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "not_in_segment")
    assert event_details(system, "not_in_segment") == side.detail(R1)


@pytest.mark.guide("Outgoing Accounts", "An Account in none of them is not sent.")
@pytest.mark.guide("Outgoing Users", "A User in none of them is not sent.")
@pytest.mark.parametrize("segments", [(), ("others",)])
def test_who_is_in_another_segment_or_none_is_chosen_is_left(
    system: SyncSystem, side: Side, segments: tuple[str, ...]
) -> None:
    system.change_settings(**side.settings(segments=segments))
    send_messages(system, side.fresh(entered=("vip",)))

    assert writes(system) == []
    assert outgoing_events(system) == side.was("skip", "not_in_segment")


def test_with_the_segment_all_every_record_is_sent(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(segments=("ALL",)))
    send_messages(system, side.fresh(segments=()))

    assert names_written(system) == [("POST", "New")]
    assert outgoing_events(system) == side.was("success", None)


@pytest.mark.guide(
    "I don't see recently added/updated fields in Pipedrive",
    'Send the Users or Accounts manually: select them in Hull and choose "Send to". They are sent regardless '
    "of their segments.",
)
@pytest.mark.guide("Outgoing Accounts", "Apart from such shells, only Accounts that you send manually are sent then.")
@pytest.mark.guide("Outgoing Users", "Apart from shells and links, only Users that you send manually are sent then.")
@pytest.mark.defect(
    22, "Whether a record goes as a shell, with no attribute mapped, was told one way and done another."
)
def test_a_record_sent_by_hand_needs_no_mapping_and_no_segment(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(is_mapped=False, segments=()))
    message = side.fresh(segments=())
    del message["changes"]
    send_messages(system, message, is_export=True)

    assert names_written(system) == [("POST", "New")]
    assert outgoing_events(system) == side.was("success", None)


@pytest.mark.guide(
    "Outgoing Accounts",
    "An Account in one of them that is not in Pipedrive yet is sent with Hull's next report of it.",
)
@pytest.mark.guide(
    "Outgoing Users",
    "A User in one of them that is not in Pipedrive yet is sent with Hull's next report of it.",
)
@pytest.mark.defect(5, "Who had never been sent waited for a change of a mapped attribute.")
def test_a_record_that_was_never_sent_needs_no_change(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.fresh())

    assert names_written(system) == [("POST", "New")]
    assert outgoing_events(system) == side.was("success", None)


@pytest.mark.defect(5, "The mark of a deletion in Hull's report was not looked at, for the same reason.")
@pytest.mark.parametrize("skips", [True, False])
def test_a_record_marked_as_deleted_is_sent_only_if_the_settings_allow_it(
    system: SyncSystem, side: Side, skips: bool
) -> None:
    system.change_settings(**side.settings(), **{f"ignore_deleted_{side.kind}s": skips})
    send_messages(system, side.fresh(entered=("vip",), **{"pipedrive/deleted_at": "2026-01-01T00:00:00Z"}))

    assert names_written(system) == ([] if skips else [("POST", "New")])
    assert outgoing_events(system) == (side.was("skip", "deleted_in_pipedrive") if skips else side.was("success", None))
    assert event_details(system, "deleted_in_pipedrive") == (side.detail("{Kind} has been deleted") if skips else [])


@pytest.mark.guide(
    "Outgoing Accounts",
    "An Account with a deleted Organization is not sent, unless Skip Accounts with a deleted Organization is off.",
)
@pytest.mark.guide(
    "Outgoing Users", "A User with a deleted Person is not sent, unless Skip Users with a deleted Person is off."
)
@pytest.mark.defect(5, "A record that was deleted in Pipedrive was made there again, although the settings forbade it.")
@pytest.mark.parametrize("skips", [True, False])
def test_a_record_deleted_in_pipedrive_is_sent_only_if_the_settings_allow_it(
    system: SyncSystem, side: Side, skips: bool
) -> None:
    system.change_settings(**side.settings(), **{f"ignore_deleted_{side.kind}s": skips})
    message = side.known(system, label="Again", changed={"label": ["Old", "Again"]})
    system.company.delete(side.entity.value, 1)
    send_messages(system, message)
    work_until_idle(system)

    assert names_written(system) == ([] if skips else [("POST", "Again")])
    assert outgoing_events(system)[-1:] == (
        side.was("skip", "deleted_in_pipedrive") if skips else side.was("success", None)
    )
    assert is_idle(system)


@pytest.mark.defect(23, "The id that a deleted record left behind in Hull led to it, as if it were there.")
def test_the_id_that_a_deleted_record_left_in_hull_is_not_used(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings(), support_user_deletion=True, support_account_deletion=True)
    received = listen(system)
    system.company.delete(side.entity.value, 1)
    deliver(system, *received)
    system.work()
    (left,) = system.hull_records(side.kind)

    send_messages(system, side.message(**{**left, "hull_id": left["id"], "label": "Again"}), is_export=True)

    assert left["anonymous_ids"] == ["pipedrive:1"]
    assert names_written(system) == [("POST", "Again")]


@pytest.mark.guide("Outgoing Users", "Apart from shells and links, only Users that you send manually are sent then.")
def test_without_a_mapping_a_newly_linked_user_is_sent(system: SyncSystem) -> None:
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


def test_a_value_that_pipedrive_lacks_is_sent_whatever_changed(system: SyncSystem, side: Side) -> None:
    """What is written is decided against the record; what changed in Hull only finds the words when nothing is."""
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, label="Newer", changed={"plan": ["free", "gold"]}))

    assert names_written(system) == [("PATCH", "Newer")]


def test_the_name_of_an_item_of_a_list_that_changed_is_the_lists_own(system: SyncSystem, side: Side) -> None:
    system.change_settings(**side.settings())
    send_messages(system, side.known(system, changed={"label[0]": ["a", "b"]}))

    assert outgoing_events(system) == side.was("skip", "unchanged")
