"""Outgoing Accounts: which are sent, and what of them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.guide.people import account_changed, add_acme, outcomes
from tests.journeys.hull_messages import (
    GLOBEX,
    account,
    as_segments,
    fetch_everything,
    pipedrive_id_of,
    send_messages,
    work_until_idle,
    writes,
)
from tests.prepared import prepared
from tests.system import SyncSystem

TO_NAME = [{"hull": "label", "service": "name"}]


@prepared
def acme_in(system: SyncSystem, **settings: Any) -> int:
    """Acme on both sides, under these settings."""
    system.change_settings(
        **{"synchronized_account_segments": ["vip"], "outgoing_account_attributes": TO_NAME, **settings}
    )
    acme = add_acme(system)
    system.fetch(Entity.ORGANIZATION)
    return acme


def name_of(system: SyncSystem, organization_id: int) -> str:
    record = system.company.record("organization", organization_id)
    assert record is not None
    return str(record["name"])


@pytest.mark.guide("Outgoing Accounts", "an Account is sent when it enters one of these segments.")
def test_entering_a_segment_sends(system: SyncSystem) -> None:
    acme = acme_in(system)
    account_changed(system, acme, label="Acme Inc.", segments=("others",))
    before = name_of(system, acme)

    account_changed(system, acme, label="Acme Inc.", segments=("others", "vip"), note="entered")

    assert (before, name_of(system, acme)) == ("Acme", "Acme Inc.")


@pytest.mark.guide("Outgoing Accounts", "An Account in one of them is sent when a mapped attribute changes.")
def test_a_mapped_attribute_that_changes_sends(system: SyncSystem) -> None:
    acme = acme_in(system)

    account_changed(system, acme, label="Acme Inc.")
    account_changed(system, acme, label="Acme Inc.", unmapped="new", changed=["unmapped"])

    assert name_of(system, acme) == "Acme Inc."
    assert outcomes(system) == [("outgoing.account.success", None), ("outgoing.account.skip", "no_relevant_change")]


@pytest.mark.guide("Outgoing Accounts", "An Account in none of them is not sent.")
def test_outside_the_segments_nothing_is_sent(system: SyncSystem) -> None:
    acme = acme_in(system)

    account_changed(system, acme, label="Acme Inc.", segments=("others",))

    assert name_of(system, acme) == "Acme"
    assert outcomes(system) == [("outgoing.account.skip", "not_in_segment")]


@pytest.mark.guide(
    "Outgoing Accounts",
    "An Account in one of them that is not in Pipedrive yet is sent with the next thing Hull says of it.",
)
def test_what_is_not_there_yet_is_sent_without_a_change(system: SyncSystem) -> None:
    acme_in(system)
    fetch_everything(system)

    send_messages(system, account(GLOBEX, domain="globex.test", label="Globex"))

    assert name_of(system, pipedrive_id_of(system, GLOBEX) or 0) == "Globex"


@pytest.mark.guide(
    "Outgoing Accounts",
    "An Account whose Organization was deleted in Pipedrive is not sent, unless ignore_deleted_accounts is off.",
)
@pytest.mark.parametrize("is_ignored", [True, False])
def test_whose_organization_was_deleted_is_not_sent(system: SyncSystem, is_ignored: bool) -> None:
    acme = acme_in(system, ignore_deleted_accounts=is_ignored)
    fetch_everything(system)
    system.company.delete_organization(acme)

    account_changed(system, acme, label="Acme Inc.")
    work_until_idle(system)

    made = [(method, body["name"]) for method, _, body in writes(system)]
    assert made == ([] if is_ignored else [("POST", "Acme Inc.")])
    if is_ignored:
        assert outcomes(system) == [("outgoing.account.skip", "deleted_in_pipedrive")]


@pytest.mark.guide(
    "Outgoing Accounts",
    "Without them, an Account that enters a segment goes as a shell: an Organization with a name and its identifiers.",
)
def test_without_attributes_what_enters_goes_as_a_shell(system: SyncSystem) -> None:
    acme_in(system, outgoing_account_attributes=[])
    fetch_everything(system)

    entered = {"account_segments": {"entered": as_segments(("vip",)), "left": []}}
    send_messages(system, account(GLOBEX, domain="globex.test", name="Globex", plan="gold", changes=entered))

    assert [(method, body) for method, _, body in writes(system)] == [
        ("POST", {"name": "Globex", "website": "globex.test"})
    ]


@pytest.mark.guide("Outgoing Accounts", "Apart from such shells, no Account is sent then but by hand.")
def test_without_attributes_nothing_else_is_sent(system: SyncSystem) -> None:
    acme = acme_in(system, outgoing_account_attributes=[])
    fetch_everything(system)

    account_changed(system, acme, label="Acme Inc.")
    send_messages(system, account(GLOBEX, domain="globex.test", name="Globex"))
    unsent, skipped = writes(system), outcomes(system)
    send_messages(system, account(GLOBEX, domain="globex.test", name="Globex"), is_export=True)

    assert unsent == []
    assert skipped == [("outgoing.account.skip", "no_outgoing_mapping")] * 2
    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "Globex")]


@pytest.mark.guide(
    "Outgoing Accounts",
    "outgoing account attributes: each attribute that is mapped here is written to its Organization field.",
)
def test_each_mapped_attribute_is_written(system: SyncSystem) -> None:
    rows = [{"hull": "label", "service": "name"}, {"hull": "site", "service": "website"}]
    acme = acme_in(system, outgoing_account_attributes=rows)

    account_changed(system, acme, label="Acme Inc.", site="https://acme.example.org")

    after = system.company.record("organization", acme)
    assert after is not None
    assert (after["name"], after["website"]) == ("Acme Inc.", "https://acme.example.org")
