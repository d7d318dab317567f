"""A look-up before a create sees all that was listed, loaded or not; what cannot be looked up waits for a fetch that is started."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import connector as connectors
from db.failure_filter import find_failures
from db.session import transaction
from pipeline import extract
from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.hull_messages import (
    ACME,
    ANN,
    account,
    failures,
    fetch_everything,
    is_idle,
    pipedrive_id_of,
    send_messages,
    user,
    work_until_idle,
    writes,
)
from tests.journeys.pipedrive_records import age_records
from tests.system import SyncSystem

BY_HAND = [f"hand{number}@outage.test" for number in range(6)]
BEFORE_THE_OVERLAP = timedelta(minutes=10)


@pytest.fixture(autouse=True)
def mapping(system: SyncSystem) -> None:
    system.change_settings(
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}],
        outgoing_account_attributes=[{"hull": "name", "service": "name"}],
        account_claims=[{"hull": "domain", "service": "website"}],
    )


def make(system: SyncSystem, addresses: Iterable[str], entity: Entity = Entity.PERSON) -> None:
    """Persons that a salesperson made some minutes ago."""
    then = datetime.now(UTC) - BEFORE_THE_OVERLAP
    for address in addresses:
        record = system.company.create_person(name="By Hand", emails=[{"value": address, "primary": True}])
        stamp = f"{then:%Y-%m-%dT%H:%M:%SZ}"
        system.company.load(entity.value, {**record, "add_time": stamp, "update_time": stamp})


def listed_long_ago(system: SyncSystem) -> None:
    """The index was last up to date an hour ago."""
    for name in ("reached_at", "complete_since", "fully_read_at"):
        system.change_rows(f"UPDATE watermarks SET {name} = {name} - interval '1 hour'")  # noqa: S608
    system.change_rows("UPDATE connectors SET created_at = created_at - interval '2 hours'")


def hull_is_down(system: SyncSystem, **more: Any) -> None:
    rule = {"path": "firehose", "kind": "status", "status": 503, "count": None}
    system.hull_app.extensions["hull_faults"].replace([rule | more])


def hull_is_back(system: SyncSystem) -> None:
    system.hull_app.extensions["hull_faults"].replace([])


def by_email(system: SyncSystem) -> Counter[str]:
    """E-mail → how many Persons have it."""
    people = map(json.loads, system.company.export("person"))
    return Counter(each["value"] for person in people for each in person["emails"])


def hull_id(number: int) -> str:
    return f"{number:024x}"


def send_one_by_one(system: SyncSystem, addresses: Iterable[str]) -> None:
    for number, address in enumerate(addresses, 1):
        send_messages(system, user(hull_id(number), email=address, nickname=f"N{number}"))


class TestTheMark:
    def test_finds_records_that_hull_has_not_received_yet(self, system: SyncSystem) -> None:
        fetch_everything(system)
        listed_long_ago(system)
        make(system, BY_HAND)
        hull_is_down(system)
        send_one_by_one(system, BY_HAND)

        assert by_email(system) == dict.fromkeys(BY_HAND, 1)
        assert {method for method, _, _ in writes(system)} == {"PATCH"}

        hull_is_back(system)
        work_until_idle(system)
        assert is_idle(system)
        assert by_email(system) == dict.fromkeys(BY_HAND, 1)
        assert len(system.users()) == len(BY_HAND)

    def test_vouches_for_a_failed_page_that_is_replayed_while_hull_is_out(
        self, system: SyncSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(extract, "FIRST_ADDED", 1)
        make(system, BY_HAND)
        hull_is_down(system, status=400)
        system.fetch(Entity.PERSON)
        hull_is_down(system)
        with transaction() as session:
            for failure in find_failures(session):
                system.module("jobs.replays.start").replay_failure(
                    session, failure, by="ada", why="Hull accepts it now"
                )
        system.work()
        listed_long_ago(system)
        system.change_rows("UPDATE watermarks SET reached_at = now(), complete_since = now(), fully_read_at = now()")
        system.pipedrive.ledger.mutations.clear()
        send_one_by_one(system, BY_HAND)

        assert by_email(system) == dict.fromkeys(BY_HAND, 1)

    def test_does_not_take_a_record_for_alive_that_was_deleted_since_its_page_failed(self, system: SyncSystem) -> None:
        make(system, BY_HAND)
        hull_is_down(system, status=400)
        system.fetch(Entity.PERSON)
        hull_is_back(system)
        (deleted, *_) = [each["id"] for each in map(json.loads, system.company.export("person"))]
        system.company.delete_person(deleted)
        system.pipedrive.ledger.mutations.clear()
        send_messages(system, user(email=BY_HAND[0], nickname="Ann"))
        for _ in range(10):
            system.end_pauses()
            system.work()

        assert failures(system)[1:] == []
        assert [method for method, _, _ in writes(system)][-1:] == ["POST"]

    def test_vouches_for_a_page_of_a_fetch_that_failed(self, system: SyncSystem) -> None:
        make(system, BY_HAND)
        hull_is_down(system, status=400)
        run = system.fetch(Entity.PERSON)
        hull_is_back(system)
        assert (run.state, run.failed) == ("done", len(BY_HAND))
        system.pipedrive.ledger.mutations.clear()

        send_one_by_one(system, BY_HAND)

        assert by_email(system) == dict.fromkeys(BY_HAND, 1)
        assert {method for method, _, _ in writes(system)} == {"PATCH"}

    def test_takes_the_newest_word_of_a_record(self, system: SyncSystem) -> None:
        """It was staged with one e-mail, and has another one by now: the first is free."""
        fetch_everything(system)
        listed_long_ago(system)
        make(system, BY_HAND[:1])
        hull_is_down(system)
        send_messages(system, user(email="somebody@else.test", nickname="Else"))
        (person,) = [json.loads(each) for each in system.company.export("person") if BY_HAND[0].encode() in each]
        system.company.edit_person(person["id"], emails=[{"value": "changed@outage.test", "primary": True}])

        send_messages(
            system, user(hull_id(1), email=BY_HAND[0], nickname="New"), user(hull_id(2), email="changed@outage.test")
        )

        assert by_email(system)[BY_HAND[0]] == by_email(system)["changed@outage.test"] == 1
        assert pipedrive_id_of(system, hull_id(2)) == person["id"]

    def test_stages_nothing_twice(self, system: SyncSystem) -> None:
        fetch_everything(system)
        listed_long_ago(system)
        make(system, BY_HAND)
        hull_is_down(system)
        for _ in range(4):
            system.pipedrive.faults.add("/persons$", "status", method="POST", status=400)
            send_messages(system, user(email="refused@outage.test", nickname="Refused"))

        staged = system.rows("SELECT records FROM batches WHERE cause = 'look_up'")
        assert [row.records for row in staged] == [len(BY_HAND)]


class Killed(BaseException):
    """`kill -9`."""


def kill_after_the_write(system: SyncSystem, patch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    patch.setattr(system.module("sync.outgoing.load"), "_store", killed)


class TestBeforeTheFirstFullFetch:
    """The search lags, and no webhook comes."""

    @pytest.fixture(autouse=True)
    def lagging(self, system: SyncSystem) -> None:
        system.company.create_person(name="Old", emails=[{"value": "old@lag.test", "primary": True}])
        system.start(Entity.PERSON)  # under way, and not at its end
        system.change_rows("UPDATE batches SET state = 'waiting'")
        with transaction() as session:
            connectors.get_connector(session, system.connector_key)
        send_messages(system, user("e" * 24, email="old@lag.test", nickname="Older"))
        system.company.behaviour.search_delay_s = 3600.0
        system.pipedrive.ledger.mutations.clear()

    @pytest.mark.parametrize("claims", [{"email": "cyd@new.test"}, {}], ids=["by e-mail", "by nothing"])
    def test_a_lost_answer_makes_one_record(self, system: SyncSystem, claims: dict[str, str]) -> None:
        system.pipedrive.faults.add("/persons$", "cut", method="POST")
        send_messages(system, user(nickname="Cyd", **claims))
        work_until_idle(system)

        assert [method for method, _, _ in writes(system)] == ["POST"]
        assert pipedrive_id_of(system, ANN) == writes(system)[0][1]

    @pytest.mark.parametrize("claims", [{"email": "cyd@new.test"}, {}], ids=["by e-mail", "by nothing"])
    def test_a_kill_after_the_write_makes_one_record(self, system: SyncSystem, claims: dict[str, str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            kill_after_the_write(system, patch)
            with pytest.raises(Killed):
                send_messages(system, user(nickname="Cyd", **claims))
        system.expire_leases()
        work_until_idle(system)

        assert [method for method, _, _ in writes(system)] == ["POST"]
        assert pipedrive_id_of(system, ANN) == writes(system)[0][1]

    def test_who_was_made_by_hand_a_moment_ago_is_found(self, system: SyncSystem) -> None:
        made = system.company.create_person(name="Dee", emails=[{"value": "dee@fresh.test", "primary": True}])
        send_messages(system, user(email="dee@fresh.test", nickname="Dee II"))

        assert writes(system) == [("PATCH", made["id"], {"name": "Dee II"})]


def test_the_second_of_a_claim_waits_as_long_as_the_first_is_on_its_way(system: SyncSystem) -> None:
    fetch_everything(system)
    system.pipedrive.faults.add("/persons$", "429_burst", method="POST", count=None)
    for number in range(12):
        send_messages(
            system,
            user(hull_id(1), email="cyd@new.test", nickname=f"N{number}"),
            user(hull_id(2), email="cyd@new.test", nickname=f"M{number}"),
        )
        work_until_idle(system)
    assert failures(system) == []

    system.pipedrive.faults.replace([])
    work_until_idle(system)
    work_until_idle(system)
    assert by_email(system)["cyd@new.test"] == 1
    assert [reason for _, reason in failures(system)] == ["already_mapped"]


def runs(system: SyncSystem) -> list[tuple[str, str, str, str]]:
    return [tuple(row) for row in system.rows("SELECT entity, kind, cause, state FROM runs ORDER BY id")]


def status(system: SyncSystem) -> list[str]:
    with transaction() as session:
        connector = connectors.get_connector(session, system.connector_key)
        found: list[str] = system.module("sync.connectors.status").status_of(session, connector).messages
    return found


class TestAnAccountKnownByItsDomain:
    """No fetch of Organizations has ended, and Pipedrive has more of them than a look-up lists."""

    @pytest.fixture(autouse=True)
    def many(self, system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        system.company.create_organization(name="Acme", website="https://www.acme.test/about")
        system.company.create_organization(name="Other", website="https://other.test")
        age_records(system, Entity.ORGANIZATION)
        monkeypatch.setattr(extract, "FIRST_ADDED", 1)

    def acme(self, system: SyncSystem, domain: str = "acme.test") -> None:
        send_messages(system, account(ACME, domain=domain, name="Acme Inc"))

    @pytest.mark.guide(
        "Account Identity",
        "A domain can be looked up only after all Organizations have been fetched once; until then the "
        "Account waits for that fetch, which starts immediately.",
    )
    def test_starts_the_fetch_that_it_needs_and_is_decided_when_that_ends(self, system: SyncSystem) -> None:
        self.acme(system)

        assert runs(system) == [("organization", "full", "look_up", "done")]
        assert writes(system) == []  # Hull has an Account of its own for what the fetch brought: a person's to merge
        assert failures(system) == [(ACME, "already_mapped")]
        work_until_idle(system)
        assert is_idle(system)

    @pytest.mark.guide(
        "Account Identity",
        "A domain can be looked up only after all Organizations have been fetched once; until then the "
        "Account waits for that fetch, which starts immediately.",
    )
    def test_is_made_when_the_fetch_shows_none(self, system: SyncSystem) -> None:
        self.acme(system, "new.test")

        assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "Acme Inc")]
        work_until_idle(system)
        assert is_idle(system)

    def test_is_named_by_the_status_while_it_waits(self, system: SyncSystem) -> None:
        slow: dict[str, Any] = {"status": 503, "count": None, "query": "sort_by=id&sort_direction=asc"}
        system.pipedrive.faults.add("/organizations$", "status", **slow)
        self.acme(system, "new.test")

        (webhooks,) = [each for each in status(system) if "wait" in each]
        assert webhooks == (
            "1 Account waits for the first full fetch of Organizations, which shows whether Pipedrive has them already. "
            "Run 1 is at work on it."
        )
        assert writes(system) == []
        assert system.rows("SELECT 1 FROM id_mappings WHERE state = 'creating'") == []

        system.pipedrive.faults.replace([])
        work_until_idle(system)
        assert [method for method, _, _ in writes(system)] == ["POST"]
        assert not [each for each in status(system) if "wait" in each]

    def test_does_not_start_a_cancelled_fetch_again(self, system: SyncSystem) -> None:
        run_id = system.start(Entity.ORGANIZATION)
        system.cancel_run(run_id)
        self.acme(system, "new.test")

        assert [state for *_, state in runs(system)] == ["cancelled"]
        assert f"Run {run_id} was cancelled" in next(each for each in status(system) if "wait" in each)

        system.change_rows("UPDATE runs SET finished_at = finished_at - interval '2 hours'")
        work_until_idle(system)
        assert [state for *_, state in runs(system)] == ["cancelled", "done"]
        assert [method for method, _, _ in writes(system)] == ["POST"]
        assert failures(system) == []

    @pytest.mark.parametrize(
        ("ended", "hours_ago", "starts"), [(1, 0.9, False), (1, 1.1, True), (3, 3.9, False), (3, 4.1, True)]
    )
    def test_starts_a_fetch_that_always_stops_ever_more_rarely(
        self, system: SyncSystem, ended: int, hours_ago: float, starts: bool
    ) -> None:
        for _ in range(ended):
            system.change_rows(
                "INSERT INTO runs (connector_key, entity, kind, cause, settings_version, state, finished_at)"
                " VALUES (:key, 'organization', 'full', 'look_up', 1, 'stopped', now() - make_interval(secs => :ago))",
                key=system.connector_key,
                ago=hours_ago * 3600,
            )

        send_messages(system, account(ACME, name="Acme", domain="acme.test"))

        assert len(runs(system)) == ended + starts
        if not starts:
            webhooks = next(each for each in status(system) if "wait" in each)
            assert webhooks.endswith("It is started again automatically in 6 min.")
            assert ("the 3 newest in a row" in webhooks) is (ended == 3)


class TestALongList:
    """More changed since the last look-up than one may list."""

    @pytest.fixture(autouse=True)
    def bounded(self, system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        fetch_everything(system)
        listed_long_ago(system)
        monkeypatch.setattr(extract, "PER_PAGE", 5)
        monkeypatch.setattr(extract, "FIRST_ADDED", 5)
        monkeypatch.setattr(extract, "PAGES_AT_MOST", 2)

    def test_is_handed_on_page_by_page(self, system: SyncSystem) -> None:
        make(system, [f"many{number}@long.test" for number in range(8)])
        send_messages(system, user(email="many7@long.test", nickname="Seven"))

        staged = system.rows("SELECT records FROM batches WHERE cause = 'look_up' ORDER BY id")
        assert [row.records for row in staged] == [5, 3]
        assert [method for method, _, _ in writes(system)] == ["PATCH"]

    def test_is_cut_and_the_search_asked_for_the_rest(self, system: SyncSystem) -> None:
        addresses = [f"many{number:02}@long.test" for number in range(30)]
        make(system, addresses)
        send_messages(
            system,
            user(hull_id(1), email=addresses[15], nickname="One"),
            user(hull_id(2), email="new@long.test", nickname="Two"),
        )

        assert by_email(system)[addresses[15]] == by_email(system)["new@long.test"] == 1
        assert sorted(method for method, _, _ in writes(system)) == ["PATCH", "POST"]

    def test_that_is_cut_lets_an_account_wait_for_the_fetch_of_what_changed(self, system: SyncSystem) -> None:
        then = f"{datetime.now(UTC) - BEFORE_THE_OVERLAP:%Y-%m-%dT%H:%M:%SZ}"
        for number in range(30):
            record = system.company.create_organization(name=f"Org {number}", website=f"https://org{number}.test")
            system.company.load("organization", {**record, "update_time": then, "add_time": "2020-01-01T00:00:00Z"})
        send_messages(system, account(ACME, domain="org99.test", name="Fifteen"))
        work_until_idle(system)

        assert ("organization", "incremental", "look_up", "done") in runs(system)
        assert [(method, body["name"]) for method, _, body in writes(system)] == [("POST", "Fifteen")]


class TestARecordThatWasNeverChanged:
    """It has no `update_time`, and a list by it leaves the record out."""

    @pytest.fixture(autouse=True)
    def unlisted(self, system: SyncSystem) -> None:
        fetch_everything(system)
        listed_long_ago(system)
        system.company.behaviour.null_until_changed = system.company.behaviour.unchanged_unlisted = True

    def test_is_found_before_it_is_made_again(self, system: SyncSystem) -> None:
        then = f"{datetime.now(UTC) - BEFORE_THE_OVERLAP:%Y-%m-%dT%H:%M:%SZ}"
        for address in BY_HAND:
            record = system.company.create_person(name="By Hand", emails=[{"value": address, "primary": True}])
            assert record["update_time"] is None
            system.company.load("person", {**record, "add_time": then})
        hull_is_down(system)
        send_one_by_one(system, BY_HAND)

        assert by_email(system) == dict.fromkeys(BY_HAND, 1)
        assert {method for method, _, _ in writes(system)} == {"PATCH"}

    def test_is_taken_from_the_webhook_of_its_creation_without_a_read(self, system: SyncSystem) -> None:
        webhooks = listen(system)
        made = system.company.create_person(name="Dee", emails=[{"value": "dee@fresh.test", "primary": True}])
        before = system.pipedrive.ledger.tokens.copy()
        deliver(system, *webhooks)
        system.work()

        assert system.users()[made["id"]]["pipedrive/name"] == "Dee"
        assert system.pipedrive.ledger.tokens == before

    def test_is_as_old_as_it_was_added(self, system: SyncSystem) -> None:
        """So a later edit in Hull has the last word where the latest wins."""
        system.change_settings(
            incoming_user_attributes=[{"hull": "nickname", "service": "name"}],
            outgoing_user_attributes=[{"hull": "nickname", "service": "name", "owner": "latest"}],
        )
        made = system.company.create_person(name="Dee", emails=[{"value": "dee@fresh.test", "primary": True}])
        system.fetch(Entity.PERSON)
        later = f"{datetime.now(UTC) + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
        hull = system.users()[made["id"]]["id"]
        send_messages(system, user(hull, email="dee@fresh.test", nickname="Dee II", indexed_at=later))

        assert (system.company.record("person", made["id"]) or {})["name"] == "Dee II"
