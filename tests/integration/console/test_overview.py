"""The overview, and the pages of runs and batches."""

from __future__ import annotations

import html
from datetime import UTC, datetime, timedelta

import pytest

from db import schedule, watermark
from db.audit import latest_entries
from db.connector import Connector
from db.failure import NewFailure, keep_failures
from db.operator import Present
from db.session import transaction
from pipeline.domain.kinds import Entity, Role
from pipeline.operations.cached_answers import forget_all
from pipeline.operations.call import Call as OperationCall
from pipeline.operations.overview import OverviewAnswer, Unit, show_overview
from pipeline.sync import upkeep
from tests.integration.console.conftest import Call, ConsoleClient
from tests.system import SyncSystem


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget_all()


def seen(system: SyncSystem) -> OverviewAnswer:
    assert system
    return show_overview(OperationCall(caller=Present(id=0, name="test", role=Role.VIEWER)), Unit(connector="acme"))


def fail(system: SyncSystem, **more: object) -> None:
    values = {
        "connector_key": system.connector_key, "kind": "record", "subject": "incoming:person:7", "direction": "incoming",
        "entity": "person", "stage": "transform", "reason": "option_unknown", "detail": "tier", "record_id": "7",
    }  # fmt: skip
    with transaction() as session:
        keep_failures(session, [NewFailure(**{**values, **more})])  # type: ignore[arg-type]


def test_before_the_first_fetch_the_page_shows_the_next_step(system: SyncSystem, viewer: ConsoleClient) -> None:
    page = viewer.text("/c/acme/")

    assert "Not up to date yet." in page
    assert "Persons and Organizations were not fetched completely yet." in page
    assert page.index("Fetch All Organizations…") < page.index("Fetch All Persons…")
    assert "Nothing has been fetched yet." in page
    assert "No records in the last 24 hours." in page


@pytest.mark.usefixtures("noon")
def test_after_the_fetches_the_overview_shows_how_up_to_date_hull_is(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.company.create_organization(name="Analytical Engines")
    system.company.create_person(name="Ada")
    for entity in (Entity.ORGANIZATION, Entity.PERSON):
        system.fetch(entity)
    upkeep.count_events()

    found = seen(system)
    claims = [mark.claimed for mark in found.in_step.by_entity]
    page = viewer.text("/c/acme/")

    assert found.in_step.claimed == min(claims)  # type: ignore[type-var]
    assert f"Everything changed in Pipedrive up to {found.in_step.claimed:%H:%M:%S} UTC is in Hull." in page
    assert {each.name: each.today for each in found.traffic.courses}["incoming"] == 2
    assert 'id="today-incoming"' in page
    assert "<table" in page.partition("<details>")[2]


def test_excepted_records_are_named_and_linked(system: SyncSystem, viewer: ConsoleClient) -> None:
    moment = datetime.now(UTC)
    with transaction() as session:
        for entity in Entity:
            mark = watermark.Watermark(
                connector_key=system.connector_key, entity=entity, reached_at=moment, complete_since=moment
            )
            mark.excepted = 3 if entity is Entity.PERSON else 0
            session.add(mark)

    page = viewer.text("/c/acme/")

    assert ', except <a id="excepted" href="/c/acme/failures?direction=incoming">3 records</a>.' in page


def test_each_finding_has_its_next_step(system: SyncSystem, viewer: ConsoleClient, operator: ConsoleClient) -> None:
    fail(system)
    with transaction() as session:
        row = session.get_one(Connector, system.connector_key)
        row.state, row.pause_reason = "paused", "connector_paused"

    mine, theirs = operator.text("/c/acme/"), viewer.text("/c/acme/")

    assert 'href="/c/acme/failures?reason=option_unknown"' in theirs
    assert 'action="/c/acme/actions/resume"' in mine
    assert 'action="/c/acme/actions/resume"' not in theirs
    assert "Paused: the work is kept and waits." in theirs


def test_what_runs_is_shown_with_its_progress(system: SyncSystem, viewer: ConsoleClient) -> None:
    for n in range(3):
        system.company.create_person(name=f"P{n}")
    run_id = system.start(Entity.PERSON)
    system.change_rows("UPDATE runs SET read = 40, tokens = 20 WHERE id = :id", id=run_id)
    system.change_rows(
        "UPDATE slices SET frontier = CASE walk WHEN 'ascending' THEN 20 ELSE 80 END WHERE run_id = :id", id=run_id
    )

    page = viewer.text("/c/acme/")

    assert "40 of ~100 records" in page
    assert 'value="40.0"' in page
    assert f'href="/c/acme/runs/{run_id}"' in page
    assert "Cancel run…" not in page


def test_shells_schedules_and_the_budget_are_shown(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by, first_seen_at)"
        " SELECT :c, 'organization', n, 'shell', 'referenced', now() - interval '1 hour' FROM generate_series(1, 2) n",
        c=system.connector_key,
    )
    with transaction() as session:
        schedule.set_schedule(
            session,
            system.connector_key,
            "full_fetch",
            cron="7 2 * * *",
            next_run_at=datetime.now(UTC) + timedelta(hours=3),
        )

    page = viewer.text("/c/acme/")

    assert ">2 shells</a> wait for their Organizations" in page
    assert "every night at 02:07 UTC" in page
    assert "tokens today" in page
    assert seen(system).budget.limit == 30_000


def test_outdated_figures_show_their_age(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.change_rows(
        "INSERT INTO event_count_mark VALUES (1, now() - interval '1 hour', 0, now() - interval '1 hour', 0)"
    )

    assert "figures were last updated" in viewer.text("/c/acme/")


def test_many_viewers_ask_the_database_once(
    system: SyncSystem, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.web.console import overview  # noqa: PLC0415

    monkeypatch.setattr(overview._overviews, "_fresh_s", 60.0)
    asked: list[object] = []
    real = overview.perform
    monkeypatch.setattr(overview, "perform", lambda *given, **fields: (asked.append(given), real(*given, **fields))[1])
    for _ in range(5):
        viewer.text("/c/acme/")

    assert len(asked) == 1


def test_the_chart_comes_by_the_hour_and_by_the_minute(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.company.create_person(name="Ada")
    system.fetch(Entity.PERSON)
    upkeep.count_events()

    assert "by the hour" in viewer.text("/c/acme/")
    page = viewer.text("/c/acme/?by=minute")
    assert "the last hour, by the minute" in page
    assert '<svg class="chart"' in page
    assert page.count('<tr><th scope="row">20') >= 60


def test_a_run_is_shown_whole_and_can_be_stopped(
    system: SyncSystem, operator: ConsoleClient, viewer: ConsoleClient
) -> None:
    system.company.create_person(name="Ada")
    run_id = system.start(Entity.PERSON)
    fail(system, run_id=run_id)

    page = viewer.text(f"/c/acme/runs/{run_id}")
    assert "Running:" in page
    assert "from the lowest id up" in page
    assert "option_unknown" in page
    assert "Cancel run" not in page
    assert viewer.post(f"/c/acme/runs/{run_id}/cancel").status_code == 403
    assert operator.post(f"/c/acme/runs/{run_id}/cancel").status_code == 303

    assert system.run(run_id).state == "cancelled"
    assert "Cancelled after" in operator.text(f"/c/acme/runs/{run_id}")
    with transaction() as session:
        (entry,) = [each for each in latest_entries(session) if each.action == "run.cancel"]
    assert (entry.subject, entry.connector_key) == (f"run {run_id}", system.connector_key)


def test_runs_are_listed_filtered_and_paged(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.change_rows(
        "INSERT INTO runs (connector_key, entity, kind, state, cause, settings_version, finished_at)"
        " SELECT :c, CASE WHEN n % 2 = 0 THEN 'person' ELSE 'organization' END, 'incremental', 'done', 'schedule', 1, now()"
        " FROM generate_series(1, 60) n",
        c=system.connector_key,
    )
    first = viewer.text("/c/acme/runs")

    assert first.count('<th scope="row"><a class="id"') == 50
    older = first.rpartition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert viewer.text(older).count('<th scope="row"><a class="id"') == 10
    assert viewer.text("/c/acme/runs?entity=person").count('<th scope="row"><a class="id"') == 30
    assert "No matching runs." in viewer.text("/c/acme/runs?kind=full")
    assert viewer.get("/c/acme/runs?kind='%20OR%201=1").status_code == 200


def test_a_batch_is_shown_with_its_stages_and_its_task(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.company.create_person(name="Ada")
    system.start(Entity.PERSON)
    batch_id, direction, stage = system.next_batch() or (0, "", "")
    system.run_batch_stage(batch_id, direction, stage)

    page = viewer.text(f"/c/acme/batches/{batch_id}")

    assert f"/flower/task/test-{batch_id}-extract" in page
    assert 'aria-current="step"' in page
    assert "Waiting for a worker." in page
    assert "bytes extracted" in page


def test_what_belongs_to_another_connector_is_not_there(system: SyncSystem, operator: ConsoleClient) -> None:
    with transaction() as session:
        other = Connector(id="a" * 24, name="other", hull_organization="other.test")
        session.add(other)
    system.company.create_person(name="Ada")
    run_id = system.start(Entity.PERSON)
    batch_id = (system.next_batch() or (0, "", ""))[0]

    assert operator.get(f"/c/other/runs/{run_id}").status_code == 404
    assert operator.post(f"/c/other/runs/{run_id}/cancel").status_code == 404
    assert operator.get(f"/c/other/batches/{batch_id}").status_code == 404
    assert operator.get("/c/acme/runs/999999").status_code == 404
    assert operator.get("/c/acme/batches/99999999999999999999").status_code == 404


def test_hostile_words_of_records_are_shown_harmlessly(system: SyncSystem, viewer: ConsoleClient) -> None:
    system.change_rows(
        "INSERT INTO runs (connector_key, entity, kind, state, cause, settings_version, reason, finished_at)"
        " VALUES (:c, 'person', 'full', 'stopped', '<script>alert(1)</script>{{7*7}}\u202e', 1, '<b>', now())",
        c=system.connector_key,
    )
    fail(system, record_id="<img src=x onerror=1>", reason="<script>")
    for path in ("/c/acme/", "/c/acme/runs", "/c/acme/runs/1"):
        page = viewer.text(path)
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "\u202e" not in page
        assert "style=" not in page


def test_home_overview_and_api_agree_on_a_connector(system: SyncSystem, viewer: ConsoleClient, script: Call) -> None:
    for fetch in ((), (Entity.ORGANIZATION,), (Entity.PERSON,)):
        for entity in fetch:
            system.fetch(entity)
        forget_all()
        judged = seen(system)

        home = viewer.text("/")
        _, api = script("GET", "/api/v1/connectors/acme")

        assert ("acme is in order." in home) is (judged.in_step.level == "ok")
        assert (judged.notes[0].message if judged.notes else judged.in_step.text) in html.unescape(home)
        assert api["status"]["status"] == judged.in_step.level


def test_a_fetch_by_hand_is_the_last_one(system: SyncSystem) -> None:
    with transaction() as session:
        schedule.set_schedule(
            session,
            system.connector_key,
            "full_fetch",
            next_run_at=datetime.now(UTC) + timedelta(hours=1),
            cron="0 2 * * *",
        )
    before = [each.last_at for each in seen(system).schedules if each.kind == "full_fetch"]
    system.fetch(Entity.PERSON)

    (after,) = [each.last_at for each in seen(system).schedules if each.kind == "full_fetch"]
    assert before == [None]
    assert after is not None
