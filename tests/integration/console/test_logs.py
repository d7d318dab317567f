"""The log: events by filter, live, single events, and exports."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from db import event_log
from db.audit import latest_entries
from db.log_export import drop_old_exports
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.jobs import log_exports, runtime
from pipeline.web.console import logs
from tests.integration.console.conftest import ConsoleClient
from tests.integration.console.exporting import CSV, NDJSON, begin, exported
from tests.prepared import prepared
from tests.system import CONNECTOR_ID, SyncSystem

LOGS = "/c/acme/logs"


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    logs._pages.forget()
    yield
    logs._pages.forget()


@pytest.fixture
@prepared
def busy(system: SyncSystem) -> SyncSystem:
    """Fetch two Persons, one of them unreadable; skip a record, and send one."""
    system.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    system.company.create_person(name="=HYPERLINK(1)")
    system.company.put_raw("person", {"id": 77, "name": "Nobody knows when"})
    system.fetch(Entity.PERSON)
    add(system, "outgoing.user.skip", reason="not_in_segment", pipedrive_id=1, cause="notification")
    add(system, "outgoing.user.success", detail="-1+1", pipedrive_id=1, cause="notification")
    return system


def add(system: SyncSystem, event: str, **columns: Any) -> None:
    named = {"connector_key": system.connector_key, "event": event, "entity": "person"} | columns
    names = ", ".join(named)
    system.change_rows(f"INSERT INTO sync_events ({names}) VALUES ({', '.join(f':{each}' for each in named)})", **named)  # noqa: S608


def shown(console: ConsoleClient, query: str = "") -> list[int]:
    """Return the ids of the events on a page of the log, in its order."""
    found = console.text(f"{LOGS}{query}")
    return [int(each.split('"')[0]) for each in found.split('class="id" href="/c/acme/logs/')[1:]]


def ids(system: SyncSystem, where: str = "true") -> list[int]:
    return [row.id for row in system.rows(f"SELECT id FROM sync_events WHERE {where} ORDER BY id DESC")]  # noqa: S608


def test_every_event_is_shown_newest_first(busy: SyncSystem, viewer: ConsoleClient) -> None:
    assert shown(viewer) == ids(busy)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("?direction=outgoing", "event LIKE 'outgoing.%'"),
        ("?outcome=error", "event LIKE '%.error'"),
        ("?outcome=success&entity=person", "event LIKE '%.user.success'"),
        ("?reason=not_in_segment", "reason = 'not_in_segment'"),
        ("?cause=fetch", "cause = 'fetch'"),
        ("?run=1", "run_id = 1"),
        ("?run=1&outcome=success", "run_id = 1 AND event LIKE '%.success'"),
        ("?batch=1", "batch_id = 1"),
        ("?record=1", "pipedrive_id = 1"),
        ("?record=ada@acme.com", "pipedrive_id = 1"),
        ("?record=nobody@acme.com", "false"),
        ("?since=1h", "true"),
        ("?until=1h", "false"),
        ("?entity=organization", "entity = 'organization'"),
    ],
)
def test_a_filter_is_part_of_the_address(busy: SyncSystem, viewer: ConsoleClient, query: str, where: str) -> None:
    assert shown(viewer, query) == ids(busy, where)


@pytest.fixture
@prepared
def namesakes(system: SyncSystem) -> SyncSystem:
    """Person 1 and Organization 1 share a number, Person 1's e-mail is at Organization 2's domain, Person 2 is Organization 2's
    namesake by number."""
    system.company.create_person(name="Ada", emails=[{"value": "ada@globex.com", "primary": True}])
    system.company.create_person(name="Ben", emails=[{"value": "ben@initech.com", "primary": True}])
    system.company.create_organization(name="Acme", website="https://acme.com")
    system.company.create_organization(name="Globex", website="https://globex.com")
    for entity in Entity:
        system.fetch(entity)
    return system


@pytest.mark.parametrize(
    ("record", "where"),
    [
        ("ada@globex.com", "entity = 'person' AND pipedrive_id = 1"),
        ("ADA@Globex.com", "entity = 'person' AND pipedrive_id = 1"),
        ("globex.com", "entity = 'organization' AND pipedrive_id = 2"),
        ("2", "pipedrive_id = 2"),
        ("nobody@globex.com", "false"),
    ],
)
def test_a_filter_by_record_shows_that_record_alone(
    namesakes: SyncSystem, viewer: ConsoleClient, record: str, where: str
) -> None:
    assert shown(viewer, f"?record={record}") == ids(namesakes, where)
    lines = exported(namesakes, viewer, NDJSON, f"record={record}").text.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids(namesakes, where)


def test_pages_follow_one_another_by_id(
    busy: SyncSystem, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "PAGE", 2)
    everything, seen = ids(busy), []
    query = ""
    while True:
        page = shown(viewer, query)
        seen += page
        if len(seen) >= len(everything):
            break
        query = f"?before={page[-1]}"

    assert seen == everything


def test_only_the_first_page_renews_itself(busy: SyncSystem, viewer: ConsoleClient) -> None:
    assert 'hx-trigger="every 2s"' in viewer.text(LOGS)
    assert 'hx-trigger="every 2s"' not in viewer.text(f"{LOGS}?before=99")


def test_all_who_look_cost_one_question(
    busy: SyncSystem, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(logs._pages, "_fresh_s", 60.0)
    real = event_log.page_of_events

    def counted(*args: Any, **options: Any) -> Any:
        asked.append(args)
        return real(*args, **options)

    monkeypatch.setattr(event_log, "page_of_events", counted)
    for _ in range(5):
        viewer.text(f"{LOGS}?direction=incoming")
    assert len(asked) == 1


@pytest.mark.parametrize("query", ["?direction=sideways", "?since=yesterday", "?run=x", "?outcome=%3Cscript%3E"])
def test_an_invalid_filter_is_explained(busy: SyncSystem, viewer: ConsoleClient, query: str) -> None:
    answer = viewer.get(f"{LOGS}{query}")

    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert begin(viewer, CSV, query[1:]).status_code == 400


def test_a_filter_that_would_read_too_much_is_refused(
    busy: SyncSystem, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(session: Any, *_args: Any, **_options: Any) -> Any:
        session.connection().exec_driver_sql("SELECT pg_sleep(10)")

    monkeypatch.setattr(event_log, "page_of_events", slow)
    monkeypatch.setattr(event_log, "SLOWEST_MS", 50)
    answer = viewer.get(f"{LOGS}?cause=nothing")

    assert answer.status_code == 400
    assert "too many events" in answer.text


def test_an_event_has_a_page_of_its_own(busy: SyncSystem, viewer: ConsoleClient) -> None:
    (first,) = busy.rows("SELECT id FROM sync_events WHERE pipedrive_id = 1 AND event = 'incoming.user.success'")
    page = viewer.text(f"{LOGS}/{first.id}")

    assert "<ins><bdi>Ada</bdi></ins>" in page
    assert 'href="/c/acme/runs/1"' in page
    assert 'href="/c/acme/records/person/1"' in page


def test_an_error_shows_a_next_step(busy: SyncSystem, viewer: ConsoleClient) -> None:
    (refused,) = busy.rows("SELECT id FROM sync_events WHERE event = 'incoming.user.error'")

    assert "Save the record once in Pipedrive" in viewer.text(f"{LOGS}/{refused.id}")


def test_csv_cannot_calculate(busy: SyncSystem, viewer: ConsoleClient) -> None:
    answer = exported(busy, viewer, CSV)
    rows = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True))))

    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert [int(row["id"]) for row in rows] == ids(busy)
    assert rows[0]["detail"] == "'-1+1"
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_json_lines_hold_what_changed(busy: SyncSystem, viewer: ConsoleClient) -> None:
    lines = exported(busy, viewer, NDJSON, "record=1&direction=incoming").get_data(as_text=True).splitlines()

    assert [json.loads(line)["after"]["pipedrive/name"] for line in lines] == ["Ada"]


def test_an_export_is_audited_without_values(busy: SyncSystem, viewer: ConsoleClient) -> None:
    begin(viewer, CSV, "record=ada@acme.com")
    with transaction() as session:
        (entry,) = [each for each in latest_entries(session) if each.action == "logs.export"]

    assert entry.subject == "csv: record"


def test_an_export_shows_its_progress_before_the_download(busy: SyncSystem, viewer: ConsoleClient) -> None:
    begun = begin(viewer, CSV)
    where = begun.headers["Location"]

    assert "is being written" in viewer.text(where)
    assert viewer.get(f"{where}/file").status_code == 409
    assert begin(viewer, "text/html").status_code == 400


def test_an_export_continues_after_its_last_part_when_a_worker_is_killed(
    busy: SyncSystem, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_exports, "PAGE", 2)
    monkeypatch.setattr(runtime, "SLICE_S", -1.0)
    where = begin(viewer, CSV).headers["Location"]
    busy.run_jobs()
    assert "is being written: 2 events" in viewer.text(where)

    monkeypatch.setattr(runtime, "SLICE_S", 60.0)
    busy.run_jobs()

    rows = list(csv.DictReader(io.StringIO(viewer.get(f"{where}/file").get_data(as_text=True))))
    assert [int(row["id"]) for row in rows] == ids(busy)


def test_an_export_that_takes_too_long_is_cut(
    busy: SyncSystem, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_exports, "PAGE", 2)
    real, asked = event_log.page_of_events, list[int]()

    def slow(*args: Any, **options: Any) -> Any:
        asked.append(1)
        if len(asked) > 1:
            raise event_log.TooManyEvents
        return real(*args, **options)

    monkeypatch.setattr(event_log, "page_of_events", slow)
    where = begin(viewer, NDJSON).headers["Location"]
    busy.run_jobs()

    assert "ends after 2 events" in viewer.text(where)
    assert len(viewer.get(f"{where}/file").get_data(as_text=True).splitlines()) == 2


def test_the_number_of_parallel_exports_is_limited(busy: SyncSystem, viewer: ConsoleClient) -> None:
    assert [begin(viewer, CSV).status_code for _ in range(6)] == [303] * 5 + [429]


def test_a_file_is_deleted_after_a_day(busy: SyncSystem, viewer: ConsoleClient) -> None:
    old = begin(viewer, CSV).headers["Location"]
    busy.change_rows("UPDATE log_exports SET created_at = now() - interval '25 hours'")
    kept = exported(busy, viewer, CSV)

    with transaction() as session:
        assert drop_old_exports(session) == 1
    busy.run_jobs()

    assert (viewer.get(old).status_code, kept.status_code) == (404, 200)
    assert busy.rows("SELECT 1 FROM jobs WHERE state = 'due'") == []


def test_an_empty_log_teaches(system: SyncSystem, viewer: ConsoleClient) -> None:
    assert "No events yet." in viewer.text(LOGS)
    assert "No event matches this filter." in viewer.text(f"{LOGS}?outcome=error")


def test_events_of_another_connector_are_not_there(busy: SyncSystem, viewer: ConsoleClient) -> None:
    busy.change_rows(
        "INSERT INTO connectors (id, name, hull_organization) VALUES (:id, 'globex', 'globex.test')",
        id=CONNECTOR_ID[::-1],
    )
    busy.change_rows(
        "INSERT INTO settings_versions (connector_key, version, document, author)"
        " SELECT key, 1, '{}', 'test' FROM connectors WHERE name = 'globex'"
    )

    assert "No events yet." in viewer.text("/c/globex/logs")
    assert viewer.get(f"/c/globex/logs/{ids(busy)[0]}").status_code == 404
    assert exported(busy, viewer, CSV, connector="globex").get_data(as_text=True).count("\n") == 1
    assert viewer.get("/c/acme/exports/1").status_code == 404, "it belongs to the other connector"


def test_logs_need_a_login(busy: SyncSystem, anonymous: ConsoleClient) -> None:
    for path in (LOGS, f"{LOGS}/1", "/c/acme/exports/1", "/c/acme/exports/1/file"):
        assert anonymous.get(path).status_code == 303
