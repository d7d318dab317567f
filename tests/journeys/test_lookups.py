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
from tests.journeys.people import age
from tests.journeys.told_by_hull import (
    ACME,
    ANN,
    account,
    failures,
    is_settled,
    know_everything,
    mapped,
    patiently,
    say,
    user,
    writes,
)
from tests.world import World

BY_HAND = [f"hand{number}@outage.test" for number in range(6)]
BEFORE_THE_OVERLAP = timedelta(minutes=10)


@pytest.fixture(autouse=True)
def mapping(world: World) -> None:
    world.change_settings(
        outgoing_user_attributes=[{"hull": "nickname", "service": "name"}],
        outgoing_account_attributes=[{"hull": "name", "service": "name"}],
        account_claims=[{"hull": "domain", "service": "website"}],
    )


def make(world: World, addresses: Iterable[str], entity: Entity = Entity.PERSON) -> None:
    """Persons that a salesperson made some minutes ago."""
    then = datetime.now(UTC) - BEFORE_THE_OVERLAP
    for address in addresses:
        record = world.company.create_person(name="By Hand", emails=[{"value": address, "primary": True}])
        stamp = f"{then:%Y-%m-%dT%H:%M:%SZ}"
        world.company.load(entity.value, {**record, "add_time": stamp, "update_time": stamp})


def listed_long_ago(world: World) -> None:
    """The index was last up to date an hour ago."""
    for name in ("reached_at", "complete_since", "fully_read_at"):
        world.change_rows(f"UPDATE watermarks SET {name} = {name} - interval '1 hour'")  # noqa: S608
    world.change_rows("UPDATE connectors SET created_at = created_at - interval '2 hours'")


def hull_is_down(world: World, **more: Any) -> None:
    rule = {"path": "firehose", "kind": "status", "status": 503, "count": None}
    world.hull_app.extensions["hull_faults"].replace([rule | more])


def hull_is_back(world: World) -> None:
    world.hull_app.extensions["hull_faults"].replace([])


def by_email(world: World) -> Counter[str]:
    """E-mail → how many Persons have it."""
    people = map(json.loads, world.company.export("person"))
    return Counter(each["value"] for person in people for each in person["emails"])


def hull_id(number: int) -> str:
    return f"{number:024x}"


def say_one_by_one(world: World, addresses: Iterable[str]) -> None:
    for number, address in enumerate(addresses, 1):
        say(world, user(hull_id(number), email=address, nickname=f"N{number}"))


class TestTheMark:
    def test_vouches_for_what_hull_could_not_be_told_yet(self, world: World) -> None:
        know_everything(world)
        listed_long_ago(world)
        make(world, BY_HAND)
        hull_is_down(world)
        say_one_by_one(world, BY_HAND)

        assert by_email(world) == dict.fromkeys(BY_HAND, 1)
        assert {method for method, _, _ in writes(world)} == {"PATCH"}

        hull_is_back(world)
        patiently(world)
        assert is_settled(world)
        assert by_email(world) == dict.fromkeys(BY_HAND, 1)
        assert len(world.users()) == len(BY_HAND)

    def test_vouches_for_a_failed_page_that_is_replayed_while_hull_is_out(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(extract, "FIRST_ADDED", 1)
        make(world, BY_HAND)
        hull_is_down(world, status=400)
        world.fetch(Entity.PERSON)
        hull_is_down(world)
        with transaction() as session:
            for failure in find_failures(session):
                world.module("jobs.replays.start").replay_failure(session, failure, by="ada", why="Hull accepts it now")
        world.work()
        listed_long_ago(world)
        world.change_rows("UPDATE watermarks SET reached_at = now(), complete_since = now(), fully_read_at = now()")
        world.pipedrive.ledger.mutations.clear()
        say_one_by_one(world, BY_HAND)

        assert by_email(world) == dict.fromkeys(BY_HAND, 1)

    def test_does_not_take_a_record_for_alive_that_was_deleted_since_its_page_failed(self, world: World) -> None:
        make(world, BY_HAND)
        hull_is_down(world, status=400)
        world.fetch(Entity.PERSON)
        hull_is_back(world)
        (deleted, *_) = [each["id"] for each in map(json.loads, world.company.export("person"))]
        world.company.delete_person(deleted)
        world.pipedrive.ledger.mutations.clear()
        say(world, user(email=BY_HAND[0], nickname="Ann"))
        for _ in range(10):
            world.later()
            world.work()

        assert failures(world)[1:] == []
        assert [method for method, _, _ in writes(world)][-1:] == ["POST"]

    def test_vouches_for_a_page_of_a_fetch_that_failed(self, world: World) -> None:
        make(world, BY_HAND)
        hull_is_down(world, status=400)
        run = world.fetch(Entity.PERSON)
        hull_is_back(world)
        assert (run.state, run.failed) == ("done", len(BY_HAND))
        world.pipedrive.ledger.mutations.clear()

        say_one_by_one(world, BY_HAND)

        assert by_email(world) == dict.fromkeys(BY_HAND, 1)
        assert {method for method, _, _ in writes(world)} == {"PATCH"}

    def test_takes_the_newest_word_of_a_record(self, world: World) -> None:
        """It was staged with one e-mail, and has another one by now: the first is free."""
        know_everything(world)
        listed_long_ago(world)
        make(world, BY_HAND[:1])
        hull_is_down(world)
        say(world, user(email="somebody@else.test", nickname="Else"))
        (person,) = [json.loads(each) for each in world.company.export("person") if BY_HAND[0].encode() in each]
        world.company.edit_person(person["id"], emails=[{"value": "changed@outage.test", "primary": True}])

        say(world, user(hull_id(1), email=BY_HAND[0], nickname="New"), user(hull_id(2), email="changed@outage.test"))

        assert by_email(world)[BY_HAND[0]] == by_email(world)["changed@outage.test"] == 1
        assert mapped(world, hull_id(2)) == person["id"]

    def test_stages_nothing_twice(self, world: World) -> None:
        know_everything(world)
        listed_long_ago(world)
        make(world, BY_HAND)
        hull_is_down(world)
        for _ in range(4):
            world.pipedrive.faults.add("/persons$", "status", method="POST", status=400)
            say(world, user(email="refused@outage.test", nickname="Refused"))

        staged = world.rows("SELECT records FROM batches WHERE cause = 'look_up'")
        assert [row.records for row in staged] == [len(BY_HAND)]


class Killed(BaseException):
    """`kill -9`."""


def kill_after_the_write(world: World, patch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    patch.setattr(world.module("sync.outgoing.load"), "_write_down", killed)


class TestBeforeTheFirstFullFetch:
    """The search lags, and no webhook comes."""

    @pytest.fixture(autouse=True)
    def lagging(self, world: World) -> None:
        world.company.create_person(name="Old", emails=[{"value": "old@lag.test", "primary": True}])
        world.start(Entity.PERSON)  # under way, and not at its end
        world.change_rows("UPDATE batches SET state = 'waiting'")
        with transaction() as session:
            connectors.get_connector(session, world.connector_key)
        say(world, user("e" * 24, email="old@lag.test", nickname="Older"))
        world.company.behaviour.search_delay_s = 3600.0
        world.pipedrive.ledger.mutations.clear()

    @pytest.mark.parametrize("claims", [{"email": "cyd@new.test"}, {}], ids=["by e-mail", "by nothing"])
    def test_a_lost_answer_makes_one_record(self, world: World, claims: dict[str, str]) -> None:
        world.pipedrive.faults.add("/persons$", "cut", method="POST")
        say(world, user(nickname="Cyd", **claims))
        patiently(world)

        assert [method for method, _, _ in writes(world)] == ["POST"]
        assert mapped(world, ANN) == writes(world)[0][1]

    @pytest.mark.parametrize("claims", [{"email": "cyd@new.test"}, {}], ids=["by e-mail", "by nothing"])
    def test_a_kill_after_the_write_makes_one_record(self, world: World, claims: dict[str, str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            kill_after_the_write(world, patch)
            with pytest.raises(Killed):
                say(world, user(nickname="Cyd", **claims))
        world.lose_workers()
        patiently(world)

        assert [method for method, _, _ in writes(world)] == ["POST"]
        assert mapped(world, ANN) == writes(world)[0][1]

    def test_who_was_made_by_hand_a_moment_ago_is_found(self, world: World) -> None:
        made = world.company.create_person(name="Dee", emails=[{"value": "dee@fresh.test", "primary": True}])
        say(world, user(email="dee@fresh.test", nickname="Dee II"))

        assert writes(world) == [("PATCH", made["id"], {"name": "Dee II"})]


def test_the_second_of_a_claim_waits_as_long_as_the_first_is_on_its_way(world: World) -> None:
    know_everything(world)
    world.pipedrive.faults.add("/persons$", "429_burst", method="POST", count=None)
    for number in range(12):
        say(
            world,
            user(hull_id(1), email="cyd@new.test", nickname=f"N{number}"),
            user(hull_id(2), email="cyd@new.test", nickname=f"M{number}"),
        )
        patiently(world)
    assert failures(world) == []

    world.pipedrive.faults.replace([])
    patiently(world)
    patiently(world)
    assert by_email(world)["cyd@new.test"] == 1
    assert [reason for _, reason in failures(world)] == ["already_joined"]


def runs(world: World) -> list[tuple[str, str, str, str]]:
    return [tuple(row) for row in world.rows("SELECT entity, kind, cause, state FROM runs ORDER BY id")]


def status(world: World) -> list[str]:
    with transaction() as session:
        connector = connectors.get_connector(session, world.connector_key)
        found: list[str] = world.module("sync.connectors.status").status_of(session, connector).messages
    return found


class TestAnAccountKnownByItsDomain:
    """No fetch of Organizations has ended, and Pipedrive has more of them than a look-up lists."""

    @pytest.fixture(autouse=True)
    def many(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.company.create_organization(name="Acme", website="https://www.acme.test/about")
        world.company.create_organization(name="Other", website="https://other.test")
        age(world, Entity.ORGANIZATION)
        monkeypatch.setattr(extract, "FIRST_ADDED", 1)

    def acme(self, world: World, domain: str = "acme.test") -> None:
        say(world, account(ACME, domain=domain, name="Acme Inc"))

    def test_starts_the_fetch_that_it_needs_and_is_decided_when_that_ends(self, world: World) -> None:
        self.acme(world)

        assert runs(world) == [("organization", "full", "look_up", "done")]
        assert writes(world) == []  # Hull has an Account of its own for what the fetch brought: a person's to merge
        assert failures(world) == [(ACME, "already_joined")]
        patiently(world)
        assert is_settled(world)

    def test_is_made_when_the_fetch_shows_none(self, world: World) -> None:
        self.acme(world, "new.test")

        assert [(method, body["name"]) for method, _, body in writes(world)] == [("POST", "Acme Inc")]
        patiently(world)
        assert is_settled(world)

    def test_is_named_by_the_status_while_it_waits(self, world: World) -> None:
        slow: dict[str, Any] = {"status": 503, "count": None, "query": "sort_by=id&sort_direction=asc"}
        world.pipedrive.faults.add("/organizations$", "status", **slow)
        self.acme(world, "new.test")

        (said,) = [each for each in status(world) if "wait" in each]
        assert said == (
            "1 Account waits for the first full fetch of Organizations, which tells whether Pipedrive has them already. "
            "Run 1 is at work on it."
        )
        assert writes(world) == []
        assert world.rows("SELECT 1 FROM id_mappings WHERE state = 'creating'") == []

        world.pipedrive.faults.replace([])
        patiently(world)
        assert [method for method, _, _ in writes(world)] == ["POST"]
        assert not [each for each in status(world) if "wait" in each]

    def test_does_not_start_a_fetch_again_that_somebody_cancelled(self, world: World) -> None:
        run_id = world.start(Entity.ORGANIZATION)
        world.cancel_run(run_id)
        self.acme(world, "new.test")

        assert [state for *_, state in runs(world)] == ["cancelled"]
        assert f"Run {run_id} was cancelled" in next(each for each in status(world) if "wait" in each)

        world.change_rows("UPDATE runs SET finished_at = finished_at - interval '2 hours'")
        patiently(world)
        assert [state for *_, state in runs(world)] == ["cancelled", "done"]
        assert [method for method, _, _ in writes(world)] == ["POST"]
        assert failures(world) == []

    @pytest.mark.parametrize(
        ("ended", "hours_ago", "starts"), [(1, 0.9, False), (1, 1.1, True), (3, 3.9, False), (3, 4.1, True)]
    )
    def test_starts_a_fetch_that_always_stops_ever_more_rarely(
        self, world: World, ended: int, hours_ago: float, starts: bool
    ) -> None:
        for _ in range(ended):
            world.change_rows(
                "INSERT INTO runs (connector_key, entity, kind, cause, settings_version, state, finished_at)"
                " VALUES (:key, 'organization', 'full', 'look_up', 1, 'stopped', now() - make_interval(secs => :ago))",
                key=world.connector_key,
                ago=hours_ago * 3600,
            )

        say(world, account(ACME, name="Acme", domain="acme.test"))

        assert len(runs(world)) == ended + starts
        if not starts:
            said = next(each for each in status(world) if "wait" in each)
            assert said.endswith("It is started again automatically in 6 min.")
            assert ("the 3 newest in a row" in said) is (ended == 3)


class TestALongList:
    """More changed since the last look-up than one may list."""

    @pytest.fixture(autouse=True)
    def bounded(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        know_everything(world)
        listed_long_ago(world)
        monkeypatch.setattr(extract, "PER_PAGE", 5)
        monkeypatch.setattr(extract, "FIRST_ADDED", 5)
        monkeypatch.setattr(extract, "PAGES_AT_MOST", 2)

    def test_is_handed_on_page_by_page(self, world: World) -> None:
        make(world, [f"many{number}@long.test" for number in range(8)])
        say(world, user(email="many7@long.test", nickname="Seven"))

        staged = world.rows("SELECT records FROM batches WHERE cause = 'look_up' ORDER BY id")
        assert [row.records for row in staged] == [5, 3]
        assert [method for method, _, _ in writes(world)] == ["PATCH"]

    def test_is_cut_and_the_search_asked_for_the_rest(self, world: World) -> None:
        addresses = [f"many{number:02}@long.test" for number in range(30)]
        make(world, addresses)
        say(
            world,
            user(hull_id(1), email=addresses[15], nickname="One"),
            user(hull_id(2), email="new@long.test", nickname="Two"),
        )

        assert by_email(world)[addresses[15]] == by_email(world)["new@long.test"] == 1
        assert sorted(method for method, _, _ in writes(world)) == ["PATCH", "POST"]

    def test_that_is_cut_lets_an_account_wait_for_the_fetch_of_what_changed(self, world: World) -> None:
        then = f"{datetime.now(UTC) - BEFORE_THE_OVERLAP:%Y-%m-%dT%H:%M:%SZ}"
        for number in range(30):
            record = world.company.create_organization(name=f"Org {number}", website=f"https://org{number}.test")
            world.company.load("organization", {**record, "update_time": then, "add_time": "2020-01-01T00:00:00Z"})
        say(world, account(ACME, domain="org99.test", name="Fifteen"))
        patiently(world)

        assert ("organization", "incremental", "look_up", "done") in runs(world)
        assert [(method, body["name"]) for method, _, body in writes(world)] == [("POST", "Fifteen")]


class TestARecordThatWasNeverChanged:
    """It has no `update_time`, and a list by it leaves the record out."""

    @pytest.fixture(autouse=True)
    def unlisted(self, world: World) -> None:
        know_everything(world)
        listed_long_ago(world)
        world.company.behaviour.null_until_changed = world.company.behaviour.unchanged_unlisted = True

    def test_is_found_before_it_is_made_again(self, world: World) -> None:
        then = f"{datetime.now(UTC) - BEFORE_THE_OVERLAP:%Y-%m-%dT%H:%M:%SZ}"
        for address in BY_HAND:
            record = world.company.create_person(name="By Hand", emails=[{"value": address, "primary": True}])
            assert record["update_time"] is None
            world.company.load("person", {**record, "add_time": then})
        hull_is_down(world)
        say_one_by_one(world, BY_HAND)

        assert by_email(world) == dict.fromkeys(BY_HAND, 1)
        assert {method for method, _, _ in writes(world)} == {"PATCH"}

    def test_is_taken_from_the_webhook_of_its_creation_without_a_read(self, world: World) -> None:
        said = listen(world)
        made = world.company.create_person(name="Dee", emails=[{"value": "dee@fresh.test", "primary": True}])
        before = world.pipedrive.ledger.tokens.copy()
        deliver(world, *said)
        world.work()

        assert world.users()[made["id"]]["pipedrive/name"] == "Dee"
        assert world.pipedrive.ledger.tokens == before

    def test_is_as_old_as_it_was_added(self, world: World) -> None:
        """So a later edit in Hull has the last word where the latest wins."""
        world.change_settings(
            incoming_user_attributes=[{"hull": "nickname", "service": "name"}],
            outgoing_user_attributes=[{"hull": "nickname", "service": "name", "owner": "latest"}],
        )
        made = world.company.create_person(name="Dee", emails=[{"value": "dee@fresh.test", "primary": True}])
        world.fetch(Entity.PERSON)
        later = f"{datetime.now(UTC) + timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
        hull = world.users()[made["id"]]["id"]
        say(world, user(hull, email="dee@fresh.test", nickname="Dee II", indexed_at=later))

        assert (world.company.record("person", made["id"]) or {})["name"] == "Dee II"
