"""A domain that several Organizations of one company give identifies none of them."""

from __future__ import annotations

import pytest

from pipeline.domain.kinds import Entity
from tests.journeys.hull_messages import ACME, account, failures, pipedrive_id_of, send_messages, writes
from tests.journeys.pipedrive_records import age_records
from tests.system import SyncSystem

SITE = "https://shared-portal.test/{}"


def give(system: SyncSystem, *names: str) -> None:
    system.change_settings(
        account_claims=[{"hull": "domain", "service": "website"}],
        outgoing_account_attributes=[{"hull": "label", "service": "name"}],
    )
    for name in names:
        system.company.create_organization(name=name, website=SITE.format(name))


def domains(system: SyncSystem) -> dict[int, object]:
    return {key: each.get("domain") for key, each in system.accounts().items()}


def test_three_organizations_of_one_domain_are_known_by_their_ids_alone(system: SyncSystem) -> None:
    give(system, "One", "Two", "Three")

    system.fetch(Entity.ORGANIZATION)

    assert set(domains(system).values()) == {None}
    skipped = {(event, reason) for event, reason, _ in system.events() if reason}
    assert skipped == {("incoming.account.skip", "shared_domain")}


@pytest.mark.guide(
    "Account Identity",
    "A domain that many share, such as the domain of a mail service, identifies no Account.",
)
def test_the_domain_of_a_mail_service_identifies_no_account(system: SyncSystem) -> None:
    for name in ("Acme", "Globex"):
        system.company.create_organization(name=name, website="https://gmail.com")

    system.fetch(Entity.ORGANIZATION)

    assert domains(system) == {1: None, 2: None}
    assert {reason for _, reason, _ in system.events() if reason} == {"shared_domain"}


def test_the_third_that_comes_later_takes_the_domain_from_the_first(system: SyncSystem) -> None:
    give(system, "One", "Two")
    age_records(system, Entity.ORGANIZATION)
    system.fetch(Entity.ORGANIZATION)
    assert sorted(map(str, domains(system).values())) == ["None", "shared-portal.test"]

    give(system, "Three")
    system.fetch(Entity.ORGANIZATION, changed_only=True)

    held = system.rows("SELECT pipedrive_id FROM identifiers WHERE role = 'holder' AND kind = 'domain'")
    assert [row.pipedrive_id for row in held] == [0]
    assert domains(system)[3] is None


def test_an_account_of_a_shared_domain_is_neither_matched_nor_held(system: SyncSystem) -> None:
    give(system, "One", "Two", "Three")
    for entity in Entity:
        age_records(system, entity)
        system.fetch(entity)
    system.pipedrive.ledger.mutations.clear()

    send_messages(system, account(ACME, domain="shared-portal.test", label="Four"))

    assert failures(system) == []
    assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "Four")]
    assert pipedrive_id_of(system, ACME) == 4


def test_a_domain_that_one_alone_gives_again_is_its_own(system: SyncSystem) -> None:
    give(system, "One", "Two", "Three")
    age_records(system, Entity.ORGANIZATION)
    system.fetch(Entity.ORGANIZATION)
    for number in (2, 3):
        system.company.edit_organization(number, website=f"https://own-{number}.test")
    system.fetch(Entity.ORGANIZATION, changed_only=True)

    system.module("sync.incoming.deletions").release_overdue()
    system.work()

    assert domains(system) == {1: "shared-portal.test", 2: "own-2.test", 3: "own-3.test"}
