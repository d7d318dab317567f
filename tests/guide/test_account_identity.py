"""Account Identity: which Organization and which Account are the same, and what a sent Account brings back."""

from __future__ import annotations

import pytest

from pipeline import extract
from pipeline.domain.kinds import Entity
from tests.guide.people import account_changed, add_acme, before_now, fetch_all, in_hull, tell_hull, told
from tests.journeys.hull_messages import (
    ACME,
    account,
    failures,
    fetch_everything,
    field_code,
    organization,
    pipedrive_id_of,
    send_messages,
    stop_hull_id_lookups,
    work_until_idle,
    writes,
)
from tests.journeys.pipedrive_records import age_records
from tests.system import SyncSystem

TO_NAME = [{"hull": "label", "service": "name"}]


@pytest.mark.guide(
    "Account Identity",
    "By default an Organization and an Account are the same when they have the same domain: the registrable part of the"
    " Organization's website.",
)
def test_an_organization_joins_the_account_of_the_same_domain(system: SyncSystem) -> None:
    tell_hull(system, "account", {"domain": "acme.com"}, {"plan": "gold"})
    add_acme(system, website="https://shop.ACME.com/about")

    system.fetch(Entity.ORGANIZATION)

    assert [(each["plan"], each["pipedrive/name"]) for each in in_hull(system, "account")] == [("gold", "Acme")]


@pytest.mark.guide(
    "Account Identity", "Another field can identify an Account as well: map it to external_id in the account identity."
)
def test_an_organization_joins_the_account_of_the_same_external_id(system: SyncSystem) -> None:
    system.change_settings(account_claims=[{"hull": "external_id", "service": "name"}])
    tell_hull(system, "account", {"external_id": "Acme"}, {"plan": "gold"})
    add_acme(system)

    system.fetch(Entity.ORGANIZATION)

    assert [(each["plan"], each["pipedrive/name"]) for each in in_hull(system, "account")] == [("gold", "Acme")]


@pytest.mark.guide("Account Identity", "A domain that many share, such as that of a mail service, identifies nobody.")
def test_a_shared_domain_is_no_identity(system: SyncSystem) -> None:
    for name in ("Acme", "Globex"):
        add_acme(system, name=name, website="https://gmail.com")

    system.fetch(Entity.ORGANIZATION)

    assert [account.get("domain") for account in system.accounts().values()] == [None, None]
    assert {reason for _, reason, _ in system.events() if reason} == {"shared_domain"}


@pytest.mark.guide(
    "Account Identity",
    "When an Account goes to Pipedrive and its Organization is known from before, that Organization is updated.",
)
def test_a_known_organization_is_updated(system: SyncSystem) -> None:
    system.change_settings(outgoing_account_attributes=TO_NAME)
    acme = add_acme(system)
    system.fetch(Entity.ORGANIZATION)

    account_changed(system, acme, label="Acme Inc.")

    assert system.company.record("organization", acme)["name"] == "Acme Inc."  # type: ignore[index]
    assert system.company.count("organization") == 1


@pytest.mark.guide(
    "Account Identity",
    "An Account without a known Organization is looked up in Pipedrive, by domain and by the other identifiers; the"
    " Organization that answers is updated.",
)
@pytest.mark.parametrize("told", [{"domain": "acme.com"}, {"external_id": "C-17"}], ids=["domain", "external id"])
def test_an_organization_that_answers_is_updated(system: SyncSystem, told: dict[str, str]) -> None:
    number = field_code(system, "organization", "Customer number")
    claims = [{"hull": "domain", "service": "website"}, {"hull": "external_id", "service": number}]
    system.change_settings(outgoing_account_attributes=TO_NAME, account_claims=claims)
    acme = add_acme(system, custom_fields={number: "C-17"})
    fetch_all(system)
    stop_hull_id_lookups(system)

    send_messages(system, account(ACME, label="Acme Inc.", **told))

    assert [(method, each) for method, each, _ in writes(system)] == [("PATCH", acme)]
    assert organization(system, acme)["name"] == "Acme Inc."


@pytest.mark.guide(
    "Account Identity",
    "Until all Organizations have been fetched once, a domain may not be looked up; the Account then waits for that fetch, "
    "which starts immediately.",
)
def test_a_domain_waits_for_the_first_fetch(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """More Organizations than a look-up lists: only a fetch of all can tell."""
    system.change_settings(outgoing_account_attributes=TO_NAME)
    tell_hull(system, "account", {"domain": "acme.com"}, {"label": "Acme Inc."})
    (in_question,) = in_hull(system, "account")
    acme, _ = add_acme(system), system.company.create_organization(name="Other", website="https://other.test")
    age_records(system, Entity.ORGANIZATION)
    monkeypatch.setattr(extract, "FIRST_ADDED", 1)

    send_messages(system, account(in_question["id"], domain="acme.com", label="Acme Inc."))
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    work_until_idle(system)

    assert [(row.kind, row.cause) for row in system.rows("SELECT kind, cause FROM runs")] == [("full", "look_up")]
    assert [(method, each) for method, each, _ in writes(system)] == [("PATCH", acme)]


@pytest.mark.guide(
    "Account Identity", "If several Organizations answer, none is changed: a failure names them, and a person decides."
)
def test_several_answers_are_a_persons_to_decide(system: SyncSystem) -> None:
    system.change_settings(outgoing_account_attributes=TO_NAME)
    add_acme(system)
    add_acme(system, name="Acme shop", website="https://shop.acme.com")
    fetch_everything(system)

    send_messages(system, account(ACME, domain="acme.com", label="Acme Inc."))

    assert writes(system) == []
    assert failures(system) == [(ACME, "ambiguous_match")]
    assert [row.detail for row in system.rows("SELECT detail FROM failures")] == ["organizations 1, 2 by domain"]


@pytest.mark.guide(
    "Account Identity", "An Account that nobody answers to is created in Pipedrive, with its identifiers."
)
def test_what_is_not_there_is_created(system: SyncSystem) -> None:
    number = field_code(system, "organization", "Customer number")
    claims = [{"hull": "domain", "service": "website"}, {"hull": "external_id", "service": number}]
    system.change_settings(outgoing_account_attributes=TO_NAME, account_claims=claims)
    fetch_everything(system)

    send_messages(system, account(ACME, domain="acme.com", external_id="C-17", label="Acme Inc."))

    made = organization(system, pipedrive_id_of(system, ACME))
    assert (made["name"], made["website"], made["custom_fields"][number]) == ("Acme Inc.", "acme.com", "C-17")
    assert system.company.count("organization") == 1


@pytest.mark.guide("Account Identity", "A domain never replaces a name or a website that the Organization has.")
@pytest.mark.parametrize("field", ["website", "name"])
def test_a_domain_replaces_nothing(system: SyncSystem, field: str) -> None:
    system.change_settings(outgoing_account_attributes=[], account_claims=[{"hull": "domain", "service": field}])
    acme = add_acme(system, **{field: "https://www.acme.com/about"})
    fetch_everything(system)

    send_messages(system, account(ACME, domain="acme.com", **{"pipedrive/id": acme}), is_export=True)

    assert writes(system) == []


@pytest.mark.guide(
    "Account Identity", "After an Account was sent, what Pipedrive then holds of the Organization comes back to Hull."
)
def test_what_pipedrive_made_of_it_comes_back(system: SyncSystem) -> None:
    system.change_settings(outgoing_account_attributes=TO_NAME)
    acme = add_acme(system)
    system.fetch(Entity.ORGANIZATION)

    account_changed(system, acme, label="Acme Inc.")

    assert system.accounts()[acme]["pipedrive/name"] == "Acme Inc."


@pytest.mark.guide("Account Identity", "Only the incoming account attributes come back.")
def test_nothing_else_comes_back(system: SyncSystem) -> None:
    system.change_settings(
        outgoing_account_attributes=TO_NAME, incoming_account_attributes=[{"hull": "crm_name", "service": "name"}]
    )
    acme = add_acme(system)
    system.fetch(Entity.ORGANIZATION)
    seen = system.hull.received.count

    account_changed(system, acme, label="Acme Inc.")

    assert told(system, seen) == [{"crm_name": "Acme Inc.", "pipedrive/id": acme}]


@pytest.mark.guide(
    "Account Identity", "An Account whose Organization was found or created carries its Pipedrive id from then on."
)
@pytest.mark.parametrize("is_there", [True, False])
def test_what_was_joined_carries_the_id(system: SyncSystem, is_there: bool) -> None:
    system.change_settings(outgoing_account_attributes=TO_NAME)
    fetch_everything(system)
    tell_hull(system, "account", {"domain": "acme.com"}, {"label": "Acme Inc."})
    (acme,) = in_hull(system, "account")
    if is_there:
        before_now(system, Entity.ORGANIZATION, add_acme(system))

    send_messages(system, account(acme["id"], domain="acme.com", label="Acme Inc."))

    (back,) = in_hull(system, "account")
    assert back["id"] == acme["id"]
    assert back["pipedrive/id"] == pipedrive_id_of(system, acme["id"])
    assert back["pipedrive/name"] == "Acme Inc."
