"""Access to Pipedrive is lost in the middle of work and given again: nothing is lost, nothing comes twice, no setting changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from pipeline.domain.kinds import Entity
from tests.authorising import Person, installed_app
from tests.deliveries import deliver, listen, notify
from tests.journeys.people import age, fill
from tests.logs import written
from tests.world import World

MAPPED = [{"hull": "nickname", "service": "name"}]
SETTINGS = "SELECT version, document, author FROM settings_versions ORDER BY version"


@pytest.fixture
def person(world: World) -> Iterator[Person]:
    """Somebody who has connected the connector by OAuth."""
    world.change_settings(outgoing_user_attributes=MAPPED)
    with installed_app(world):
        somebody = Person(world)
        assert somebody.authorise().status_code == 200
        yield somebody


def known_on_both_sides(world: World, persons: int) -> None:
    fill(world, persons=persons, organizations=0)
    age(world)
    world.fetch(Entity.PERSON)
    world.module("sync.changes.hull_ids").resolve(world.connector_key)


def renamed(world: World, number: int, name: str) -> dict[str, Any]:
    """Hull's message that a User has another nickname."""
    return {"user": {**world.users()[number], "nickname": name}, "segments": [], "changes": {}}


def written_names(world: World) -> list[tuple[int | str | None, str]]:
    return [(note.entity_id, json.loads(note.body)["name"]) for note in world.pipedrive.ledger.mutations]


def sent_since(world: World, seen: int) -> Counter[str]:
    """How often each User was sent to Hull."""
    lines = (orjson.loads(line) for line in world.hull.received.lines(seen))
    return Counter(claims["asUser"]["anonymous_id"] for kind, claims, _ in lines if kind == "traits")


def state(world: World) -> tuple[str, str | None]:
    (row,) = world.rows("SELECT state, pause_reason FROM connectors")
    return row.state, row.pause_reason


def test_live_work_waits_for_a_new_authorisation_and_arrives_once(person: Person) -> None:
    world = person.world
    known_on_both_sides(world, persons=4)
    settings, seen = world.rows(SETTINGS), world.hull.received.count
    said = listen(world)

    world.pipedrive.grants.revoke_all()
    notify(world, renamed(world, 1, "One"))
    with written("error") as log:
        world.work()
    world.company.edit_person(3, name="Three")
    world.company.edit_person(4, name="Four")
    deliver(world, *said)
    notify(world, renamed(world, 2, "Two"), key="n2")
    world.work()

    assert state(world) == ("paused", "unauthorized")
    assert {(line["event"], line["error"]) for line in log} == {("outgoing.job.error", "Unauthorized")}
    assert (written_names(world), sent_since(world, seen)) == ([], Counter())
    assert world.rows("SELECT 1 FROM failures") == []

    assert person.authorise().status_code == 200
    world.work()

    assert state(world) == ("active", None)
    assert sorted(written_names(world), key=str) == [(1, "One"), (2, "Two")]
    assert [world.users()[number]["pipedrive/name"] for number in (1, 2, 3, 4)] == ["One", "Two", "Three", "Four"]
    assert set(sent_since(world, seen).values()) == {1}
    assert world.rows(SETTINGS) == settings
    assert world.rows("SELECT 1 FROM failures") == []


def test_a_fetch_goes_on_from_where_it_stood(person: Person) -> None:
    world = person.world
    fill(world, persons=230, organizations=0)
    age(world)
    run_id = world.start(Entity.PERSON)
    for _ in range(5):
        due = world.due()
        assert due is not None
        world.step(*due)
    world.pipedrive.grants.revoke_all()
    with written("error") as log:
        world.work()
    before = len(world.users())

    assert state(world) == ("paused", "unauthorized")
    assert [line["error"] for line in log if line["event"] == "incoming.job.error"][:1] == ["Unauthorized"]
    assert before < 230

    person.authorise()
    world.work()

    assert world.run(run_id).state == "done"
    assert len(world.users()) == 230
    assert set(sent_since(world, 0).values()) == {1}


def test_an_access_token_that_ends_in_the_middle_of_work_is_not_noticed(person: Person) -> None:
    world = person.world
    fill(world, persons=230, organizations=0)
    age(world)
    world.start(Entity.PERSON)
    with written("warning") as log:
        while due := world.due():
            world.step(*due)
            world.pipedrive.grants.expire_access_tokens()

    assert len(world.users()) == 230
    assert log == []
    assert state(world) == ("active", None)


def test_an_uninstall_keeps_every_change_until_the_app_is_back(person: Person) -> None:
    world = person.world
    known_on_both_sides(world, persons=2)
    world.pipedrive.grants.uninstall()
    world.module("sync.connectors.authorisation").withdraw(world.company.id, world.company.users[0].id)
    notify(world, renamed(world, 1, "One"))
    world.work()

    assert (state(world), written_names(world)) == (("paused", "uninstalled"), [])

    person.authorise()
    world.work()

    assert written_names(world) == [(1, "One")]
