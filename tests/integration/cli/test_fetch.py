"""`pipeline fetch`: start, progress, Ctrl-C and exit codes."""

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
from tests.journeys.pipedrive_records import raw_person
from tests.system import SyncSystem


class Clock:
    """The clock of the command: every pause takes a second and calls `during_pause`."""

    def __init__(self, during_pause: Callable[[], object]) -> None:
        self._during_pause, self._now = during_pause, 1_000.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, _seconds: float) -> None:
        self._now += 1.0
        self._during_pause()


@pytest.fixture
def while_watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    def use(during_pause: Callable[[], object]) -> None:
        monkeypatch.setattr(fetch, "time", Clock(during_pause))

    return use


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.workers, "any_worker_answers", lambda: False)


def people(system: SyncSystem, count: int) -> None:
    for number in range(count):
        system.company.create_person(name=f"Person {number}")


def test_waits_until_the_fetch_has_ended(system: SyncSystem, run: Run, while_watched: Callable[..., None]) -> None:
    people(system, 120)
    while_watched(system.work)
    result = run("fetch", "persons", "acme", "--wait", "--json")
    found = result.json[0]

    assert result.code == 0
    assert (found["state"], found["new"], found["open_failures"]) == ("done", 120, 0)
    assert len(system.users()) == 120


def test_progress_is_printed_as_lines_without_a_terminal(
    system: SyncSystem, run: Run, while_watched: Callable[..., None]
) -> None:
    people(system, 3)
    while_watched(system.work)
    result = run("fetch", "all", "acme", "--wait")

    assert "persons: " in result.out
    assert "tokens, done after" in result.out
    assert "3 new, 0 changed" in result.out


@pytest.mark.guide(
    "Incoming Accounts",
    "The operator starts a fetch of Organizations manually: pipeline fetch organizations acme.",
)
@pytest.mark.guide("Incoming Users", "The operator starts a fetch manually: pipeline fetch persons acme.")
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


def test_a_second_fetch_of_the_same_kind_is_refused(system: SyncSystem, run: Run) -> None:
    first = run("fetch", "persons", "acme", "--json").json[0]["id"]
    result = run("fetch", "persons", "acme")

    assert result.code == 1
    assert f"pipeline runs cancel acme {first}" in result.err


def test_a_failed_record_makes_the_command_fail(
    system: SyncSystem, run: Run, while_watched: Callable[..., None]
) -> None:
    people(system, 2)
    system.company.put_raw("person", {"id": 77, "name": "Nobody knows when"})
    while_watched(system.work)
    result = run("fetch", "persons", "acme", "--wait")

    assert result.code == 1
    assert "Open failures: 1 record or page. See: pipeline failures list acme" in result.out


def test_left_out_fields_are_counted_apart_from_records(
    system: SyncSystem, run: Run, while_watched: Callable[..., None]
) -> None:
    people(system, 2)
    system.company.put_raw("person", raw_person(id=77, emails=[], label_ids=[987_654]))
    while_watched(system.work)

    assert "Open failures: 1 left-out field. See:" in run("fetch", "persons", "acme", "--wait").out


def test_a_cancelled_run_makes_the_command_fail(
    system: SyncSystem, run: Run, while_watched: Callable[..., None]
) -> None:
    while_watched(lambda: run("runs", "cancel", "acme", "1"))

    assert run("fetch", "persons", "acme", "--wait").code == 1


def test_without_a_worker_the_command_that_starts_one_is_shown(
    system: SyncSystem, run: Run, while_watched: Callable[..., None], no_worker: None
) -> None:
    while_watched(lambda: None)
    result = run("fetch", "persons", "acme", "--wait")

    assert result.code == 1
    assert "celery -A pipeline worker -Q live,bulk,control" in result.err
    assert run("runs", "show", "acme", "1", "--json").json["run"]["state"] == "running"


def test_ctrl_c_does_not_stop_the_fetch(system: SyncSystem, run: Run, while_watched: Callable[..., None]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    while_watched(interrupt)
    result = run("fetch", "persons", "acme", "--wait")

    assert result.code == 1
    assert "pipeline runs cancel acme 1" in result.out
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
def test_rejects_invalid_times(text: str) -> None:
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
def test_the_time_left_is_estimated(facts: dict[str, object], words: str) -> None:
    assert fetch.progress_line(run_of(**facts)).startswith(
        "persons: 300 read, 100 records/s, 3 pages, 30 API tokens, " + words
    )


def test_idle_time_counts_from_the_last_progress() -> None:
    idleness, still = fetch.Idleness(), [run_of()]
    moved = [run_of(counts={"messages": 5})]

    assert [idleness.idle_s(*seen) for seen in ((still, 10.0), (still, 25.0), (moved, 26.0), (moved, 30.0))] == [
        0.0, 15.0, 0.0, 4.0,
    ]  # fmt: skip
