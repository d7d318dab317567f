"""Fetches from the command line: started, watched, left alone, and the exit code they deserve."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import click
import pytest
from freezegun import freeze_time

from db.run import COUNTERS
from pipeline.cli import fetch
from pipeline.cli.fetch import Moment
from pipeline.domain.kinds import Entity
from pipeline.operations.run_progress import FetchShape
from tests.command_line import Run
from tests.system import SyncSystem


class Clock:
    """The time of whoever watches: every pause lets `meanwhile` happen, and a second pass."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile, self._now = meanwhile, 1_000.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, _seconds: float) -> None:
        self._now += 1.0
        self._meanwhile()


@pytest.fixture
def while_watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    def have(meanwhile: Callable[[], object]) -> None:
        monkeypatch.setattr(fetch, "time", Clock(meanwhile))

    return have


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.workers, "any_worker_answers", lambda: False)


def people(system: SyncSystem, count: int) -> None:
    for number in range(count):
        system.company.create_person(name=f"Person {number}")


def test_waits_until_everything_is_in_hull(system: SyncSystem, run: Run, while_watched: Callable[..., None]) -> None:
    people(system, 120)
    while_watched(system.work)
    said = run("fetch", "persons", "acme", "--wait", "--json")
    found = said.json[0]

    assert said.code == 0
    assert (found["state"], found["new"], found["open_failures"]) == ("done", 120, 0)
    assert len(system.users()) == 120


def test_progress_goes_line_by_line_where_there_is_no_terminal(
    system: SyncSystem, run: Run, while_watched: Callable[..., None]
) -> None:
    people(system, 3)
    while_watched(system.work)
    said = run("fetch", "all", "acme", "--wait")

    assert "persons: " in said.out
    assert "tokens, done after" in said.out
    assert "3 new, 0 changed" in said.out


@pytest.mark.guide(
    "Incoming Accounts",
    "The operator starts a fetch of Organizations manually: pipeline fetch organizations.",
)
@pytest.mark.guide("Incoming Users", "The operator starts a fetch manually: pipeline fetch persons.")
@pytest.mark.parametrize("entity", Entity)
def test_fetches_the_entity_that_is_named(system: SyncSystem, run: Run, entity: Entity) -> None:
    for each in Entity:
        system.company.create(each.value, {"name": "Acme"})

    assert run("fetch", f"{entity.value}s", "acme").code == 0
    system.work()

    assert [len(system.hull_records(each.hull)) for each in Entity] == [int(each is entity) for each in Entity]


def test_without_wait_it_only_starts(system: SyncSystem, run: Run) -> None:
    people(system, 1)
    found = run("fetch", "all", "acme", "--json").json

    assert [(each["entity"], each["state"]) for each in found] == [("organization", "running"), ("person", "running")]
    assert system.users() == {}


def test_since_fetches_what_changed(system: SyncSystem, run: Run) -> None:
    found = run("fetch", "persons", "acme", "--since", "2026-08-31T12:00:00Z", "--json").json[0]

    assert (found["kind"], found["since"], found["changed_only"]) == ("incremental", "2026-08-31T12:00:00+00:00", True)


def test_two_at_once_are_refused(system: SyncSystem, run: Run) -> None:
    first = run("fetch", "persons", "acme", "--json").json[0]["id"]
    said = run("fetch", "persons", "acme")

    assert said.code == 1
    assert f"pipeline runs cancel acme {first}" in said.err


def test_a_record_that_gave_up_makes_it_fail(system: SyncSystem, run: Run, while_watched: Callable[..., None]) -> None:
    people(system, 2)
    system.company.put_raw("person", {"id": 77, "name": "Nobody knows when"})
    while_watched(system.work)
    said = run("fetch", "persons", "acme", "--wait")

    assert said.code == 1
    assert "pipeline failures list acme" in said.out


def test_a_cancelled_run_makes_it_fail(system: SyncSystem, run: Run, while_watched: Callable[..., None]) -> None:
    while_watched(lambda: run("runs", "cancel", "acme", "1"))

    assert run("fetch", "persons", "acme", "--wait").code == 1


def test_says_how_to_start_a_worker_when_nobody_works(
    system: SyncSystem, run: Run, while_watched: Callable[..., None], nobody: None
) -> None:
    while_watched(lambda: None)
    said = run("fetch", "persons", "acme", "--wait")

    assert said.code == 1
    assert "celery -A pipeline worker -Q live,bulk,control" in said.err
    assert run("runs", "show", "acme", "1", "--json").json["run"]["state"] == "running"


def test_interrupting_leaves_the_fetch_going(system: SyncSystem, run: Run, while_watched: Callable[..., None]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    while_watched(interrupt)
    said = run("fetch", "persons", "acme", "--wait")

    assert said.code == 1
    assert "pipeline runs cancel acme 1" in said.out
    assert run("runs", "show", "acme", "1", "--json").json["run"]["state"] == "running"


@freeze_time("2026-09-01 12:00:00")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", datetime(2026, 9, 1, 10, tzinfo=UTC)),
        ("3d", datetime(2026, 8, 29, 12, tzinfo=UTC)),
        ("90s", datetime(2026, 9, 1, 11, 58, 30, tzinfo=UTC)),
        ("2026-08-31", datetime(2026, 8, 31, tzinfo=UTC)),
        ("2026-08-31T12:00:00+02:00", datetime(2026, 8, 31, 10, tzinfo=UTC)),
    ],
)
def test_reads_times(text: str, moment: datetime) -> None:
    assert Moment().convert(text, None, None) == moment


@pytest.mark.parametrize("text", ["yesterday", "2w", "", "-1h", "2026-13-01"])
def test_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Moment().convert(text, None, None)


def run_of(**facts: object) -> FetchShape:
    counts = dict.fromkeys(COUNTERS, 0) | {"read": 300, "pages": 3, "tokens": 30}
    usual = {
        "id": 1,
        "entity": "person",
        "kind": "full",
        "state": "running",
        "phase": "walk",
        "took_s": 3.0,
        "rate": 100.0,
    }
    return FetchShape.model_construct(**{**usual, "counts": counts, "share": 0.5, **facts})


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "about 3.0 s left"),
        ({"share": None}, "the number left is not known yet"),
        ({"phase": "catch_up"}, "catching up with changes"),
        ({"state": "stopped"}, "stopped after 3.0 s"),
    ],
)
def test_says_how_much_is_left(facts: dict[str, object], words: str) -> None:
    assert fetch.progress_line(run_of(**facts)).startswith("persons: 300 read, 100/s, 3 pages, 30 tokens, " + words)


def test_idle_time_counts_from_the_last_progress() -> None:
    idleness, still = fetch.Idleness(), [run_of()]
    moved = [run_of(counts={"messages": 5})]

    assert [idleness.idle_s(*seen) for seen in ((still, 10.0), (still, 25.0), (moved, 26.0), (moved, 30.0))] == [
        0.0, 15.0, 0.0, 4.0,
    ]  # fmt: skip
