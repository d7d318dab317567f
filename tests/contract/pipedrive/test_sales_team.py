"""The sales team changes records as salespeople do, the same for the same seed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest

from sandbox.company import Company, Event
from sandbox.pipedrive.sales_team import ACTIONS, SalesTeam, Weights
from tests.contract.pipedrive.conftest import NOW, Clock

NOTHING = Weights(**{known.name: int(known.name == "edit_name") for known in fields(Weights)})
"""A team that only corrects names, to be made into one that only does something else."""


def only(action: str) -> Weights:
    return replace(NOTHING, **{"edit_name": 0, action: 1})


def record_events(company: Company) -> list[Event]:
    events: list[Event] = []
    company.listeners.append(events.append)
    return events


@pytest.fixture
def team(company: Company) -> Iterator[SalesTeam]:
    team = SalesTeam(company, seed=5)
    yield team
    team.stop()


def test_the_same_seed_does_the_same_to_the_same_company() -> None:
    def done(seed: int) -> tuple[list[bytes], Counter[str]]:
        company = Company(seed=7, persons=100, organizations=20, now=NOW, clock=Clock())
        team = SalesTeam(company, seed=seed)
        for _ in range(200):
            team.act()
        return [*company.export("person"), *company.export("organization")], team.counts

    assert done(1) == done(1)
    assert done(1) != done(2)


def test_a_long_day_has_something_of_everything(team: SalesTeam, company: Company) -> None:
    events = record_events(company)

    for _ in range(1500):
        assert team.act() is not None

    assert all(team.counts[action] for action in ACTIONS)
    assert sum(team.counts.values()) == 1500
    assert {(event.entity, event.action) for event in events} == {
        (entity, action) for entity in ("person", "organization") for action in ("create", "change", "delete")
    }
    assert {event.source for event in events} == {"app"}
    assert {event.context.user_id for event in events} == {user.id for user in company.users}


@pytest.mark.parametrize(
    ("action", "member"),
    [
        ("edit_email", "emails"), ("edit_phone", "phones"), ("edit_custom_field", "custom_fields"),
        ("edit_owner", "owner_id"), ("edit_link", "org_id"), ("edit_website", "website"),
    ],
)  # fmt: skip
def test_an_edit_changes_one_thing(team: SalesTeam, company: Company, action: str, member: str) -> None:
    events = record_events(company)
    team.weights = only(action)

    for _ in range(40):
        team.act()

    assert len(events) > 20
    for event in events:
        assert {key for key in event.after or {} if (event.before or {})[key] != event.after[key]} <= {  # type: ignore[index]
            member,
            "update_time",
        }


def test_a_person_comes_with_an_organization(team: SalesTeam, company: Company) -> None:
    events = record_events(company)
    team.weights = only("create_person_with_organization")

    team.act()

    organization, person = events
    assert (organization.entity, person.entity) == ("organization", "person")
    assert person.after is not None
    assert person.after["org_id"] == organization.id
    assert organization.context.correlation == person.context.correlation is not None


def test_a_bulk_edit_is_many_changes_of_one_action(team: SalesTeam, company: Company) -> None:
    events = record_events(company)
    team.weights = only("bulk_edit")

    team.act()

    assert len(events) > 3
    assert {event.context.bulk for event in events} == {True}
    assert len({(event.context.user_id, event.context.correlation) for event in events}) == 1


def test_a_merge_is_a_deletion_and_a_change_of_one_action(team: SalesTeam, company: Company) -> None:
    events = record_events(company)
    team.weights = only("merge")

    for _ in range(10):
        team.act()

    gone = [event for event in events if event.merged_to]
    stayed = [event for event in events if event.merged_from]
    assert [(event.merged_to, event.id) for event in gone] == [(event.id, event.merged_from) for event in stayed]
    assert [event.context.correlation for event in gone] == [event.context.correlation for event in stayed]
    assert len(gone) == 10


def test_what_was_deleted_comes_back(team: SalesTeam, company: Company) -> None:
    before = [*company.export("person"), *company.export("organization")]
    for action in ["delete"] * 5 + ["undelete"] * 5:
        team.weights = only(action)
        assert team.act() == action

    assert company.count("person") + company.count("organization") == len(before)
    team.weights = only("undelete")
    assert team.act() is None


def test_an_empty_company_is_filled_first() -> None:
    company = Company(persons=0, organizations=0)
    team = SalesTeam(company)

    assert [team.act() for _ in range(3)].count(None) == 0
    assert company.count("person") + company.count("organization") >= 1


def test_a_team_with_nothing_to_do_reports_that() -> None:
    team = SalesTeam(Company(persons=0, organizations=0), weights=only("delete"))

    assert team.act() is None
    assert not team.counts.total()


def test_a_team_works_by_itself_until_it_is_stopped(team: SalesTeam, company: Company) -> None:
    busy = threading.Semaphore(0)
    company.listeners.append(lambda _event: busy.release())

    team.start(500)
    worked = [busy.acquire(timeout=60) for _ in range(20)]
    team.stop()
    done = team.counts.total()

    assert all(worked)
    assert (team.rate_per_s, team.counts.total()) == (0, done)
    assert "sales-team" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("weights", [{"edit_name": -1}, {"edit_name": "often"}, dict.fromkeys(ACTIONS, 0)])
def test_weights_that_make_no_sense_are_refused(weights: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"weights|edit_name"):
        Weights(**weights)


def test_a_rate_of_nothing_is_no_pace(team: SalesTeam) -> None:
    with pytest.raises(ValueError, match="rate"):
        team.start(0)
