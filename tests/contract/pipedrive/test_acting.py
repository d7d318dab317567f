"""Whose change it was, and who may hear of it."""

from __future__ import annotations

from uuid import UUID

from sandbox.company import Company, Event
from sandbox.company.model import editing_as
from sandbox.pipedrive.payload import payload, permitted_users
from tests.deliveries import SUBSCRIPTION

TRACE = UUID("43cb94f3-bbbd-406c-ae19-ddeec349d896")


def test_a_bulk_edit_is_one_users_and_says_so(company: Company) -> None:
    events: list[Event] = []
    company.listeners.append(events.append)

    with editing_as(user_id=company.users[2].id, bulk=True, correlation=TRACE):
        company.edit_person(1, name="One")
        company.edit_person(2, name="Two")
    company.edit_person(3, name="Three")

    first, second, after = (payload(company, event, SUBSCRIPTION)["meta"] for event in events)
    for meta in (first, second):
        assert (meta["user_id"], meta["is_bulk_edit"]) == (str(company.users[2].id), True)
        assert meta["correlation_id"] == str(TRACE)
    assert first["id"] != second["id"]
    assert (after["user_id"], after["is_bulk_edit"]) == (str(company.users[0].id), False)
    assert after["correlation_id"] != str(TRACE)


def test_what_only_its_owner_sees_is_told_to_him_and_the_admins(company: Company) -> None:
    events: list[Event] = []
    company.listeners.append(events.append)
    admins = {user.id for user in company.users if user.admin}
    clerk = next(user.id for user in company.users if not user.admin)

    company.edit_person(1, visible_to=1, owner_id=clerk)
    company.delete_person(1)
    company.edit_person(2, visible_to=3)
    company.edit_person(2, name="Seen")

    changed, deleted, open_to_all = events[0], events[1], events[-1]
    assert set(permitted_users(company, changed)) == set(permitted_users(company, deleted)) == {*admins, clerk}
    assert permitted_users(company, open_to_all) == [user.id for user in company.users]
    assert payload(company, open_to_all, SUBSCRIPTION)["meta"]["permitted_user_ids"] == [
        str(user.id) for user in company.users
    ]
