"""Pipedrive's lists may show an older state than its webhooks: Hull still gets the newest one."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.deliveries import deliver, listen
from tests.journeys.pipedrive_records import age_records, create_records
from tests.prepared import prepared
from tests.system import SyncSystem


@prepared
def five_persons(system: SyncSystem) -> None:
    system.change_settings(support_user_deletion=True)
    create_records(system, persons=5, organizations=0)
    age_records(system)
    system.fetch(Entity.PERSON)


@pytest.fixture
def webhooks(system: SyncSystem) -> list[dict[str, Any]]:
    """Five Persons in Hull, which supports deletions; return the list of webhooks from now on."""
    five_persons(system)
    return listen(system)


def lag(system: SyncSystem, shown: str, instead: str, *, reads: int) -> None:
    """So many readings by id show something older."""
    system.pipedrive.faults.add("/persons$", "rewrite", query="ids=", count=reads, find=shown, put=instead)


def work(system: SyncSystem, rounds: int = 1) -> None:
    for _ in range(rounds):
        system.work()
        system.end_pauses()
    system.work()


def name(system: SyncSystem, pipedrive_id: int = 3) -> Any:
    return system.users()[pipedrive_id]["pipedrive/name"]


def state(system: SyncSystem, pipedrive_id: int = 3) -> str:
    return str(system.rows("SELECT state FROM id_mappings WHERE pipedrive_id = :id", id=pipedrive_id)[0].state)


def is_finished(system: SyncSystem) -> bool:
    return not system.rows("SELECT 1 FROM changes WHERE cause <> 'same_second'")


def of_one_second(system: SyncSystem, webhooks: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two edits of Person 3 in one second, the later one by some milliseconds."""
    at = "2026-02-01T09:30:00"
    for edit in ("Older", "Newer"):
        system.company.edit_person(3, name=edit)
    record = system.company.record("person", 3) or {}
    system.company.load("person", {**record, "update_time": f"{at}Z"})
    for webhook, ms in zip(webhooks, (100, 800), strict=True):
        webhook["data"]["update_time"] = f"{at}Z"
        webhook["meta"]["timestamp"] = f"{at}.{ms}Z"
    return webhooks[0], webhooks[1]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "out of order"])
def test_two_edits_of_one_second_end_in_the_later_one_though_a_read_lags(
    system: SyncSystem, webhooks: list[Any], order: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        system.module("sync.incoming.stale_reads"), "SETTLED_S", 10**10
    )  # the edits are of some time ago
    pair = of_one_second(system, webhooks)
    lag(system, '"Newer"', '"Older"', reads=2)

    for index in order:
        deliver(system, pair[index])
        system.work()
    work(system, rounds=3)

    assert (name(system), is_finished(system)) == ("Newer", True)


def test_within_one_second_a_reading_that_stays_other_is_believed_in_the_end(
    system: SyncSystem, webhooks: list[Any]
) -> None:
    """The webhook of a third edit may be lost. These edits are long ago, so their readings no longer lag."""
    first, second = of_one_second(system, webhooks)
    lag(system, '"Newer"', '"Newest"', reads=9)

    for webhook in (first, second):
        deliver(system, webhook)
        system.work()

    assert (name(system), is_finished(system)) == ("Newest", True)


@pytest.mark.parametrize("is_first", ["change", "delete"])
@pytest.mark.parametrize("together", [True, False])
def test_a_change_and_a_delete_of_one_millisecond_end_in_the_deletion(
    system: SyncSystem, webhooks: list[Any], is_first: str, together: bool
) -> None:
    system.company.edit_person(3, name="Edited")
    system.company.delete_person(3)
    change, delete = webhooks
    change["meta"]["timestamp"] = delete["meta"]["timestamp"]
    both = [change, delete] if is_first == "change" else [delete, change]

    for webhook in both:
        deliver(system, webhook)
        if not together:
            system.work()
    work(system)

    assert (state(system), is_finished(system)) == ("deleted", True)


def test_two_changes_of_one_millisecond_are_read(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="One")
    other = copy.deepcopy(webhooks[0])
    other["meta"]["id"] = "another event"
    other["data"]["name"] = "Two"
    reads = system.pipedrive.ledger.requests["list"]

    deliver(system, webhooks[0], other)
    system.work()

    assert (name(system), system.pipedrive.ledger.requests["list"] > reads) == ("One", True)


def test_a_read_that_is_older_than_its_webhook_is_asked_for_again(system: SyncSystem, webhooks: list[Any]) -> None:
    before = system.company.record("person", 3) or {}
    system.company.edit_person(3, name="Edited")
    now = system.company.record("person", 3) or {}
    webhooks[0]["data"]["id"] = 999  # so that it is a hint alone
    lag(system, f'"update_time":"{now["update_time"]}"', f'"update_time":"{before["update_time"]}"', reads=3)

    deliver(system, webhooks[0])
    system.work()
    first = name(system)
    work(system, rounds=3)

    assert (first, name(system), is_finished(system)) == (before["name"], "Edited", True)


def test_a_read_that_stays_older_is_taken_in_the_end(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.edit_person(3, name="Edited")
    webhooks[0]["data"]["id"] = 999
    lag(system, '"update_time":"20[^"]*"', '"update_time":"2026-01-20T00:00:00Z"', reads=99)

    deliver(system, webhooks[0])
    work(system, rounds=7)

    assert (name(system), is_finished(system)) == ("Edited", True)


def test_a_record_that_lists_show_late_is_not_given_up(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.create_person(name="Late")
    del webhooks[0]["data"]["phones"]  # so that only a read can tell the rest
    lag(system, r'"data":\[.*\],"add', '"data":[],"add', reads=4)

    deliver(system, webhooks[0])
    work(system, rounds=5)

    assert (name(system, 6), is_finished(system)) == ("Late", True)
    assert "gone" not in {reason for _, reason, _ in system.events()}


def test_a_record_that_is_never_shown_is_given_up_in_the_end(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.create_person(name="Never")
    del webhooks[0]["data"]["phones"]
    lag(system, r'"data":\[.*\],"add', '"data":[],"add', reads=99)

    deliver(system, webhooks[0])
    work(system, rounds=8)

    assert (6 in system.users(), is_finished(system)) == (False, True)
    assert ("incoming.user.skip", "gone", 6) in system.events()


def test_a_read_that_still_shows_a_deleted_record_is_asked_for_again(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.behaviour.list_deleted = True
    system.company.edit_person(3, name="Edited")
    system.company.delete_person(3)
    lag(system, '"is_deleted":true', '"is_deleted":false', reads=2)

    deliver(system, webhooks[1])
    work(system, rounds=3)

    assert (state(system), is_finished(system)) == ("deleted", True)


def test_a_restored_record_that_is_shown_late_comes_back(system: SyncSystem, webhooks: list[Any]) -> None:
    system.company.delete_person(3)
    deliver(system, webhooks[0])
    system.work()
    assert state(system) == "deleted"
    system.company.undelete("person", 3)
    lag(system, r'"data":\[.*\],"add', '"data":[],"add', reads=2)

    deliver(system, webhooks[1])
    work(system, rounds=3)

    assert (state(system), is_finished(system)) == ("full", True)
