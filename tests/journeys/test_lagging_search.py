"""Pipedrive's search is an index of its own that trails behind the records. Who asks it alone makes doubles; we ask a list.

The control below does as connectors do that look a User up by the search and create whom it does not know.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

import pytest

from db.session import transaction
from pipeline import wiring
from pipeline.clients.pipedrive import PipedriveClient
from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.journeys.hull_messages import fetch_everything, is_idle, outgoing_events, user, work_until_idle, writes
from tests.journeys.pipedrive_records import age_records
from tests.prepared import prepared
from tests.system import SyncSystem

LAG_S = 3600.0
KNOWN, FRESH, NEW = 4, 8, 3
"""Users with old Persons, with Persons created by hand a moment ago, and without Persons."""


@pytest.fixture(autouse=True)
@prepared
def lagging(system: SyncSystem) -> None:
    """The index knows what there was when it was made, and takes in nothing for an hour."""
    system.change_settings(
        synchronized_user_segments=["ALL"], outgoing_user_attributes=[{"hull": "nickname", "service": "name"}]
    )
    make(system, emails("known", KNOWN))
    age_records(system)
    fetch_everything(system)
    find(client(system), emails("known", KNOWN))
    system.company.behaviour.search_delay_s = LAG_S
    make(system, emails("fresh", FRESH))


def emails(kind: str, number: int) -> list[str]:
    return [f"{kind}{each}@lag.test" for each in range(number)]


EVERYBODY = [*emails("known", KNOWN), *emails("fresh", FRESH), *emails("new", NEW)]


def make(system: SyncSystem, addresses: Iterable[str]) -> None:
    """Persons that a salesperson enters."""
    for address in addresses:
        system.company.create_person(name=address.partition("@")[0], emails=[{"value": address, "primary": True}])


def client(system: SyncSystem) -> PipedriveClient:
    with transaction() as session:
        return wiring.open_connector(session, system.connector_key, lane="live").pipedrive


def find(pipedrive: PipedriveClient, addresses: Iterable[str]) -> set[str]:
    """The control's look-up: one search for each User. Whom it does not find it would create."""
    return {each for each in addresses if pipedrive.search(Entity.PERSON, each, fields="email")}


def by_email(system: SyncSystem) -> Counter[str]:
    """E-mail → how many Persons have it."""
    people = map(json.loads, system.company.export("person"))
    return Counter(each["value"] for person in people for each in person["emails"])


def spent(system: SyncSystem) -> Counter[str]:
    """Tokens by call, writes left out: they cost the same for everybody."""
    tokens = system.pipedrive.ledger.tokens
    return Counter({call: tokens[call] for call in ("list", "get", "search") if tokens[call]})


def test_the_list_makes_no_double_where_the_search_would(system: SyncSystem) -> None:
    before = spent(system)
    found = find(client(system), EVERYBODY)
    doubles = [each for each in EVERYBODY if each not in found and by_email(system)[each]]
    cost_of_search = spent(system) - before

    assert doubles == emails("fresh", FRESH)
    assert cost_of_search == {"search": 20 * len(EVERYBODY)}

    before = spent(system)
    hull_ids = {each["email"]: each["id"] for each in system.users().values()}
    everybody = enumerate(EVERYBODY, 1)
    notify(system, *[user(hull_ids.get(each, f"{n:024x}"), email=each, nickname=f"N{n}") for n, each in everybody])
    system.work()

    assert by_email(system) == dict.fromkeys(EVERYBODY, 1)
    assert spent(system) - before == {"list": 20}
    assert Counter(method for method, _, _ in writes(system)) == {"PATCH": KNOWN + FRESH, "POST": NEW}
    assert {event for event, _ in outgoing_events(system)} == {"outgoing.user.success"}
    work_until_idle(system)  # what was made and written within one second is read once more
    assert is_idle(system)
    assert by_email(system) == dict.fromkeys(EVERYBODY, 1)


def test_one_user_alone_costs_no_more_than_a_search(system: SyncSystem) -> None:
    before = spent(system)
    notify(system, user(email=emails("fresh", 1)[0], nickname="Anna"))
    system.work()

    assert [method for method, _, _ in writes(system)] == ["PATCH"]
    assert spent(system) - before == {"list": 20}
