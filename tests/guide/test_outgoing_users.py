"""Outgoing Users: who is sent, and what of them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import ADA, add_acme, add_ada, outcomes, user_changed
from tests.journeys.hull_messages import (
    ACME,
    BEN,
    GLOBEX,
    account,
    as_segments,
    fetch_everything,
    field_code,
    person,
    pipedrive_id_of,
    send_messages,
    user,
    work_until_idle,
    writes,
)
from tests.prepared import prepared
from tests.system import SyncSystem

TO_NAME = [{"hull": "full_name", "service": "name"}]
ENTERED = {"segments": {"entered": as_segments(("vip",)), "left": []}}


@prepared
def ada_in(system: SyncSystem, **settings: Any) -> int:
    """Ada on both sides, under these settings."""
    system.change_settings(**{"synchronized_user_segments": ["vip"], "outgoing_user_attributes": TO_NAME, **settings})
    ada = add_ada(system)
    system.fetch(Entity.PERSON)
    return ada


def name_of(system: SyncSystem, person_id: int) -> str:
    record = system.company.record("person", person_id)
    assert record is not None
    return str(record["name"])


@pytest.mark.guide("Outgoing Users", "a User is sent when it enters one of these segments.")
def test_entering_a_segment_sends(system: SyncSystem) -> None:
    ada = ada_in(system)
    user_changed(system, ada, full_name="Ada L.", segments=("others",))
    before = name_of(system, ada)

    user_changed(system, ada, full_name="Ada L.", segments=("others", "vip"), note="entered")

    assert (before, name_of(system, ada)) == ("Ada", "Ada L.")


@pytest.mark.guide("Outgoing Users", "A User in one of them is sent when a mapped attribute changes.")
def test_a_mapped_attribute_that_changes_sends(system: SyncSystem) -> None:
    ada = ada_in(system)

    user_changed(system, ada, full_name="Ada L.")
    user_changed(system, ada, full_name="Ada L.", unmapped="new", changed=["unmapped"])

    assert name_of(system, ada) == "Ada L."
    assert outcomes(system) == [("outgoing.user.success", None), ("outgoing.user.skip", "no_relevant_change")]


@pytest.mark.guide("Outgoing Users", "A User in none of them is not sent.")
def test_outside_the_segments_nothing_is_sent(system: SyncSystem) -> None:
    ada = ada_in(system)

    user_changed(system, ada, full_name="Ada L.", segments=("others",))

    assert name_of(system, ada) == "Ada"
    assert outcomes(system) == [("outgoing.user.skip", "not_in_segment")]


@pytest.mark.guide(
    "Outgoing Users",
    "A User in one of them that is not in Pipedrive yet is sent with the next thing Hull says of it.",
)
def test_who_is_not_there_yet_is_sent_without_a_change(system: SyncSystem) -> None:
    ada_in(system)
    fetch_everything(system)

    send_messages(system, user(BEN, email="ben@new.test", full_name="Ben"))

    assert person(system, pipedrive_id_of(system, BEN))["name"] == "Ben"


@pytest.mark.guide(
    "Outgoing Users",
    "A User whose Person was deleted in Pipedrive is not sent, unless ignore_deleted_users is off.",
)
@pytest.mark.parametrize("is_ignored", [True, False])
def test_whose_person_was_deleted_is_not_sent(system: SyncSystem, is_ignored: bool) -> None:
    ada = ada_in(system, ignore_deleted_users=is_ignored)
    fetch_everything(system)
    system.company.delete_person(ada)

    user_changed(system, ada, full_name="Ada L.")
    work_until_idle(system)

    assert [(method, body["name"]) for method, _, body in writes(system)] == (
        [] if is_ignored else [("POST", "Ada L.")]
    )
    if is_ignored:
        assert outcomes(system) == [("outgoing.user.skip", "deleted_in_pipedrive")]


@pytest.mark.guide(
    "Outgoing Users",
    "Without outgoing attributes, a User that enters a segment goes as a shell: a Person with a name and its identifiers.",
)
def test_without_attributes_who_enters_goes_as_a_shell(system: SyncSystem) -> None:
    ada_in(system, outgoing_user_attributes=[])
    fetch_everything(system)

    send_messages(system, user(BEN, email="ben@new.test", name="Ben", plan="gold", changes=ENTERED))

    ((method, _, body),) = writes(system)
    assert (method, set(body), body["name"]) == ("POST", {"name", "emails"}, "Ben")


@pytest.mark.guide("Outgoing Users", "Apart from shells and links, nothing is sent then but what is sent by hand.")
def test_without_attributes_nothing_else_is_sent(system: SyncSystem) -> None:
    ada = ada_in(system, outgoing_user_attributes=[], link_users_in_service=True)
    acme = add_acme(system)
    fetch_everything(system)

    user_changed(system, ada, full_name="Ada L.")
    send_messages(system, user(BEN, email="ben@new.test", name="Ben"))
    unsent, skipped = writes(system), outcomes(system)
    send_messages(system, user(BEN, email="ben@new.test", name="Ben"), is_export=True)
    linked = {"account": {"id": [None, system.accounts()[acme]["id"]]}}
    send_messages(system, user(system.users()[ada]["id"], account=system.accounts()[acme], changes=linked))

    assert unsent == []
    assert skipped == [("outgoing.user.skip", "no_outgoing_mapping")] * 2
    assert [(method, body.get("name"), body.get("org_id")) for method, _, body in writes(system)] == [
        ("POST", "Ben", None),
        ("PATCH", None, acme),
    ]


@pytest.mark.guide(
    "Outgoing Users", "outgoing user attributes: each attribute that is mapped here is written to its Person field."
)
def test_mapped_attributes_alone_are_written(system: SyncSystem) -> None:
    rows = [{"hull": "full_name", "service": "name"}, {"hull": "tel", "service": "phone"}]
    ada = ada_in(system, outgoing_user_attributes=rows)
    before = person(system, ada)

    user_changed(system, ada, full_name="Ada L.", tel="+1 555", plan="gold")

    after = person(system, ada)
    changed = {name for name in after if after[name] != before[name]} - {"update_time"}
    assert changed <= {"name", "first_name", "last_name", "phones"}
    assert (after["name"], after["phones"][0]["value"]) == ("Ada L.", "+1 555")


@pytest.mark.guide("Outgoing Users", "Beside them, only the identifiers are written, where the Person lacks them.")
def test_an_identifier_that_the_person_lacks_is_written(system: SyncSystem) -> None:
    ada = ada_in(system)
    fetch_everything(system)

    user_changed(system, ada, email="ada@new.test", plan="gold")
    user_changed(system, ada, email=ADA, plan="silver")

    assert [set(body) for _, _, body in writes(system)] == [{"emails"}]
    assert [each["value"] for each in person(system, ada)["emails"]] == ["ada@new.test", ADA]


@pytest.mark.guide(
    "Outgoing Users", "With account. before its name, an attribute of the User's Account can be mapped as well."
)
def test_an_attribute_of_the_account_is_written(system: SyncSystem) -> None:
    title = field_code(system, "person", "Job title")
    ada_in(system, outgoing_user_attributes=[{"hull": "account.industry", "service": title}])
    fetch_everything(system)

    send_messages(system, user(BEN, email="ben@new.test", account={"id": ACME, "industry": "Steel"}))

    assert person(system, pipedrive_id_of(system, BEN))["custom_fields"][title] == "Steel"


@prepared
def linked_system(system: SyncSystem, **settings: Any) -> None:
    """Users are linked, and Accounts may go."""
    system.change_settings(
        **{
            "link_users_in_service": True,
            "synchronized_user_segments": ["vip"],
            "synchronized_account_segments": ["vip"],
            "outgoing_user_attributes": TO_NAME,
            "outgoing_account_attributes": [{"hull": "name", "service": "name"}],
            **settings,
        }
    )
    fetch_everything(system)


def ben(of: str | None, *, account_segments: tuple[str, ...] = ("vip",)) -> dict[str, Any]:
    """Ben, whose Account is this one."""
    report = {"id": of, "name": f"Account {of[0]}", "domain": f"{of[0]}.example"} if of else {}
    beside = {"account": report, "account_segments": as_segments(account_segments)}
    return user(BEN, email="ben@new.test", full_name="Ben", **beside)


def organization_of(system: SyncSystem) -> Any:
    """The Organization that Ben's Person is attached to."""
    return person(system, pipedrive_id_of(system, BEN))["org_id"]


@pytest.mark.guide(
    "Outgoing Users",
    "link user to account in service: with it on, a Person is attached to the Organization of its User's Account.",
)
def test_a_person_is_attached(system: SyncSystem) -> None:
    linked_system(system)
    send_messages(system, account(ACME, name="Account c", domain="c.example"))

    send_messages(system, ben(ACME))

    assert organization_of(system) == pipedrive_id_of(system, ACME) is not None


@pytest.mark.guide(
    "Outgoing Users", "An Account that is not in Pipedrive yet goes there first, if its own segments let it."
)
def test_the_account_goes_first(system: SyncSystem) -> None:
    linked_system(system)

    send_messages(system, ben(ACME))

    assert [body["name"] for _, _, body in writes(system)] == ["Account c", "Ben"]
    assert organization_of(system) == pipedrive_id_of(system, ACME)


@pytest.mark.guide(
    "Outgoing Users",
    "Otherwise the Person goes alone, and is attached as soon as that Account has an Organization.",
)
def test_a_person_that_went_alone_is_attached_later(system: SyncSystem) -> None:
    linked_system(system)
    send_messages(system, ben(ACME, account_segments=("others",)))
    alone = (writes(system, "organizations"), organization_of(system))

    send_messages(system, account(ACME, name="Account c", domain="c.example"))

    assert alone == ([], None)
    assert organization_of(system) == pipedrive_id_of(system, ACME) is not None


@pytest.mark.guide("Outgoing Users", "When the User moves to another Account, the Person moves as well.")
def test_a_person_moves_with_its_user(system: SyncSystem) -> None:
    linked_system(system)
    send_messages(system, ben(ACME))
    before = organization_of(system)

    send_messages(system, ben(GLOBEX))

    assert organization_of(system) == pipedrive_id_of(system, GLOBEX) != before


@pytest.mark.guide("Outgoing Users", "A User without an Account leaves its Person where it is.")
def test_without_an_account_a_person_stays(system: SyncSystem) -> None:
    linked_system(system)
    send_messages(system, ben(ACME))

    send_messages(system, ben(None))

    assert organization_of(system) == pipedrive_id_of(system, ACME) is not None


@pytest.mark.guide("Outgoing Users", "With it off, Persons stay where they are.")
def test_with_links_off_a_person_stays(system: SyncSystem) -> None:
    linked_system(system, link_users_in_service=False)
    acme = add_acme(system)
    fetch_everything(system)

    send_messages(system, user(BEN, email="ben@new.test", full_name="Ben", account=system.accounts()[acme]))

    assert organization_of(system) is None
