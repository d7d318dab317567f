"""Access to Pipedrive is lost in the middle of work and given again: nothing is lost, nothing comes twice, no setting changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from db.connector import settings_in_force
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from tests.authorising import Person, installed_app
from tests.deliveries import deliver, listen, notify
from tests.journeys.pipedrive_records import age_records, create_records
from tests.logs import captured_log
from tests.system import SyncSystem

MAPPED = [{"hull": "nickname", "service": "name"}]
SETTINGS = "SELECT version, document, author FROM settings_versions ORDER BY version"


@pytest.fixture
def person(system: SyncSystem) -> Iterator[Person]:
    """Return a person who has connected the connector by OAuth."""
    system.change_settings(outgoing_user_attributes=MAPPED)
    with installed_app(system):
        person = Person(system)
        assert person.authorise().status_code == 200
        yield person


def known_on_both_sides(system: SyncSystem, persons: int) -> None:
    create_records(system, persons=persons, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)


def renamed(system: SyncSystem, number: int, name: str) -> dict[str, Any]:
    """Hull's message that a User has another nickname."""
    return {"user": {**system.users()[number], "nickname": name}, "segments": [], "changes": {}}


def written_names(system: SyncSystem) -> list[tuple[int | str | None, str]]:
    return [(note.entity_id, json.loads(note.body)["name"]) for note in system.pipedrive.ledger.mutations]


def sent_since(system: SyncSystem, seen: int) -> Counter[str]:
    """How often each User was sent to Hull."""
    lines = (orjson.loads(line) for line in system.hull.received.lines(seen))
    return Counter(claims["asUser"]["anonymous_id"] for kind, claims, _ in lines if kind == "traits")


def state(system: SyncSystem) -> tuple[str, str | None]:
    (row,) = system.rows("SELECT state, pause_reason FROM connectors")
    return row.state, row.pause_reason


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "The settings do not change.",
)
@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Then the waiting work continues, and incoming.user.success or incoming.account.success is logged again.",
)
def test_live_work_waits_for_a_new_authorisation_and_arrives_once(person: Person) -> None:
    system = person.system
    known_on_both_sides(system, persons=4)
    settings, seen, events = system.rows(SETTINGS), system.hull.received.count, len(system.events())
    webhooks = listen(system)

    system.pipedrive.grants.revoke_all()
    notify(system, renamed(system, 1, "One"))
    with captured_log("error") as log:
        system.work()
    system.company.edit_person(3, name="Three")
    system.company.edit_person(4, name="Four")
    deliver(system, *webhooks)
    notify(system, renamed(system, 2, "Two"), key="n2")
    system.work()

    assert state(system) == ("paused", "unauthorized")
    assert {(line["event"], line["error"]) for line in log} == {("outgoing.job.error", "Unauthorized")}
    assert (written_names(system), sent_since(system, seen)) == ([], Counter())
    assert system.rows("SELECT 1 FROM failures") == []

    assert person.authorise().status_code == 200
    system.work()

    assert state(system) == ("active", None)
    assert sorted(written_names(system), key=str) == [(1, "One"), (2, "Two")]
    assert [system.users()[number]["pipedrive/name"] for number in (1, 2, 3, 4)] == ["One", "Two", "Three", "Four"]
    assert set(sent_since(system, seen).values()) == {1}
    assert {number for event, _, number in system.events()[events:] if event == "incoming.user.success"} >= {3, 4}
    assert system.rows(SETTINGS) == settings
    assert system.rows("SELECT 1 FROM failures") == []


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Look for incoming.job.error; if it contains Unauthorized, the credentials are no longer accepted and the"
    " connector has paused.",
)
@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    "Then the waiting work continues, and incoming.user.success or incoming.account.success is logged again.",
)
def test_a_fetch_continues_at_its_cursor(person: Person) -> None:
    system = person.system
    create_records(system, persons=230, organizations=0)
    age_records(system)
    run_id = system.start(Entity.PERSON)
    for _ in range(5):
        due = system.next_batch()
        assert due is not None
        system.run_batch_stage(*due)
    system.pipedrive.grants.revoke_all()
    with captured_log("error") as log:
        system.work()
    before = len(system.users())

    assert state(system) == ("paused", "unauthorized")
    assert [line["error"] for line in log if line["event"] == "incoming.job.error"][:1] == ["Unauthorized"]
    assert before < 230

    person.authorise()
    system.work()

    assert system.run(run_id).state == "done"
    assert len(system.users()) == 230
    assert set(sent_since(system, 0).values()) == {1}


def test_an_access_token_that_ends_in_the_middle_of_work_is_not_noticed(person: Person) -> None:
    system = person.system
    create_records(system, persons=230, organizations=0)
    age_records(system)
    system.start(Entity.PERSON)
    with captured_log("warning") as log:
        while due := system.next_batch():
            system.run_batch_stage(*due)
            system.pipedrive.grants.expire_access_tokens()

    assert len(system.users()) == 230
    assert log == []
    assert state(system) == ("active", None)


def test_an_uninstall_keeps_every_change_until_the_app_is_back(person: Person) -> None:
    system = person.system
    known_on_both_sides(system, persons=2)
    system.pipedrive.grants.uninstall()
    system.module("sync.connectors.authorisation").withdraw(system.company.id, system.company.users[0].id)
    notify(system, renamed(system, 1, "One"))
    system.work()

    assert (state(system), written_names(system)) == (("paused", "uninstalled"), [])

    person.authorise()
    system.work()

    assert written_names(system) == [(1, "One")]


@pytest.mark.defect(19, "Who wrote settings wrote them all, so a renewed token and a new webhook undid one another.")
def test_a_renewal_new_webhooks_and_a_user_change_no_setting_of_one_another(person: Person) -> None:
    system = person.system
    chosen = {"outgoing_user_attributes": MAPPED, "synchronized_user_segments": ["vip"]}
    system.hull.connector["private_settings"] = dict(chosen)
    with transaction() as session:
        system.module("sync.connectors.settings_change").enqueue_settings_sync(session, system.connector_key)

    system.pipedrive.grants.expire_access_tokens()
    system.module("sync.connectors.webhooks").ensure_webhooks(system.connector_key)
    system.run_jobs()

    with transaction() as session:
        document = settings_in_force(session, system.connector_key).document
    in_hull = system.hull.connector["private_settings"]
    assert {name: document[name] for name in chosen} == {name: in_hull[name] for name in chosen} == chosen
    assert in_hull.keys() <= ConnectorSettings.model_fields.keys()  # neither tokens nor webhooks
    assert (system.pipedrive.grants.counts["refreshes"], len(system.pipedrive.subscriptions.by_id)) == (1, 2)
