"""Link a Person to the Organization of its User's Account, which is sent first; link a later Organization afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.journeys.hull_messages import (
    ACME,
    ANN,
    GLOBEX,
    account,
    as_segments,
    failures,
    fetch_everything,
    is_idle,
    person,
    pipedrive_id_of,
    send_messages,
    user,
    work_until_idle,
    writes,
)
from tests.prepared import prepared
from tests.system import SyncSystem


@pytest.fixture(autouse=True)
@prepared
def linking(system: SyncSystem) -> None:
    """Links on, one segment of either kind, and a first full fetch behind us."""
    system.change_settings(
        link_users_in_service=True,
        synchronized_user_segments=["vip"],
        synchronized_account_segments=["vip"],
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}],
        outgoing_account_attributes=[{"hull": "name", "service": "name"}],
    )
    fetch_everything(system)


def ann(of: str | None = ACME, *, account_segments: tuple[str, ...] = ("vip",), **more: Any) -> dict[str, Any]:
    """Ann, with her Account beside her."""
    report = {"id": of, "domain": f"{of[0]}.example", "name": f"Account {of[0]}"} if of else {}
    beside = {"account": report, "account_segments": as_segments(account_segments)}
    return user(email="ann@new.test", nickname="Ann", **beside, **more)


@pytest.mark.guide(
    "Outgoing Users",
    "Link Persons to Organizations in Pipedrive: with it on, a Person is attached to the Organization of its User's Account.",
)
@pytest.mark.guide(
    "Outgoing Users",
    "An Account that is not in Pipedrive yet is sent first, if its own segments allow it.",
)
@pytest.mark.defect(4, "A Person that was sent together with its new Organization was not linked to it.")
def test_the_account_is_created_first_and_the_person_linked_to_it(system: SyncSystem) -> None:
    send_messages(system, ann())

    made = [(method, body["name"]) for method, _, body in writes(system)]
    assert made == [("POST", "Account c"), ("POST", "Ann")]
    assert person(system, pipedrive_id_of(system, ANN))["org_id"] == pipedrive_id_of(system, ACME)


@pytest.mark.guide(
    "Outgoing Users",
    "Otherwise the Person is sent without it, and is attached as soon as that Account has an Organization.",
)
@pytest.mark.defect(
    4, "That an Account had got its Organization later did not send its Users, so they were never linked."
)
def test_an_account_that_is_mapped_later_sends_the_link_again(system: SyncSystem) -> None:
    send_messages(system, ann(account_segments=()))
    assert person(system, pipedrive_id_of(system, ANN))["org_id"] is None

    send_messages(system, account(ACME, domain="c.example", name="Account c"))

    assert person(system, pipedrive_id_of(system, ANN))["org_id"] == pipedrive_id_of(system, ACME)
    assert [method for method, _, _ in writes(system, "persons")] == ["POST", "PATCH"]
    work_until_idle(system)
    assert is_idle(system)


@pytest.mark.guide(
    "Outgoing Users",
    "An Account that is not in Pipedrive yet is sent first, if its own segments allow it.",
)
def test_a_user_of_a_filtered_account_is_sent_without_a_link(system: SyncSystem) -> None:
    send_messages(system, ann(account_segments=("others",)))

    assert writes(system, "organizations") == []
    assert person(system, pipedrive_id_of(system, ANN))["org_id"] is None
    assert is_idle(system)


@pytest.mark.guide("Outgoing Users", "When the User moves to another Account, the Person moves as well.")
def test_moving_a_user_moves_the_person(system: SyncSystem) -> None:
    send_messages(system, ann())
    send_messages(system, ann(GLOBEX))

    assert person(system, pipedrive_id_of(system, ANN))["org_id"] == pipedrive_id_of(system, GLOBEX)
    assert pipedrive_id_of(system, GLOBEX) != pipedrive_id_of(system, ACME)


@pytest.mark.guide("Outgoing Users", "With it off, Persons keep their Organization.")
def test_with_links_off_the_organization_of_a_person_stays_as_it_is(system: SyncSystem) -> None:
    send_messages(system, ann())
    system.change_settings(link_users_in_service=False)
    send_messages(system, ann(GLOBEX))

    assert person(system, pipedrive_id_of(system, ANN))["org_id"] == pipedrive_id_of(system, ACME)
    assert pipedrive_id_of(system, GLOBEX) is None


def test_an_account_that_is_refused_does_not_stop_its_user(system: SyncSystem) -> None:
    system.pipedrive.faults.add("/organizations$", "status", method="POST", status=400)
    send_messages(system, ann())
    work_until_idle(system)

    assert person(system, pipedrive_id_of(system, ANN))["name"] == "Ann"
    assert (ACME, "refused_by_pipedrive") in failures(system)


@pytest.mark.guide("Outgoing Users", "If the User has no Account, its Person keeps its Organization.")
def test_a_user_without_an_account_is_not_unlinked(system: SyncSystem) -> None:
    send_messages(system, ann())
    send_messages(system, ann(None))

    assert person(system, pipedrive_id_of(system, ANN))["org_id"] == pipedrive_id_of(system, ACME)


def test_an_old_report_does_not_undo_a_move_in_pipedrive(system: SyncSystem) -> None:
    send_messages(system, ann())
    other = system.company.create_organization(name="Elsewhere")
    person_id = pipedrive_id_of(system, ANN) or 0
    system.company.edit_person(person_id, org_id=other["id"])
    system.fetch(Entity.PERSON, changed_only=True)

    send_messages(system, ann(plan="gold"))

    assert person(system, person_id)["org_id"] == other["id"]
