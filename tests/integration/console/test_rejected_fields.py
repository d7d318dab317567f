"""Fields that stayed behind, as pages, scripts and events show them: beside the success of their record."""

from __future__ import annotations

import pytest

from db.run import Run
from pipeline.domain.kinds import Entity
from tests.integration.console.conftest import Call, ConsoleClient
from tests.journeys.pipedrive_records import age_records, raw_person
from tests.prepared import prepared
from tests.system import SyncSystem

BASE = "/api/v1/connectors/acme"


@pytest.fixture
@prepared
def run(system: SyncSystem) -> Run:
    """Two Persons went, each without its label."""
    for number in (7, 8):
        system.company.put_raw("person", raw_person(id=number, emails=[], label_ids=[987_654]))
    age_records(system)
    return system.fetch(Entity.PERSON)


def test_a_run_shows_the_number_of_rejected_fields(system: SyncSystem, run: Run, viewer: ConsoleClient) -> None:
    page = viewer.text(f"/c/acme/runs/{run.id}")

    assert "none failed." in page
    assert "2 fields of synchronized records were left out." in page
    assert 'href="/c/acme/failures?kind=field"' in page
    assert "label_ids" in page
    assert "2 fields" in viewer.text("/c/acme/runs")


def test_the_list_of_failures_names_field_reason_and_record(
    system: SyncSystem, run: Run, viewer: ConsoleClient
) -> None:
    page = viewer.text("/c/acme/failures?kind=field")
    (failure,) = system.rows("SELECT id, fingerprint FROM failures WHERE record_id = '7'")
    one = viewer.text(f"/c/acme/failures/{failure.id}")

    assert "option_unknown" in page
    assert "label_ids" in page
    assert "label_ids of Person 7" in viewer.text(f"/c/acme/failures/group/{failure.fingerprint}")
    assert "Only this field was rejected" in one
    assert 'href="/c/acme/records/person/7"' in one
    assert "Replay…" not in one  # a viewer may not
    assert "label_ids" in viewer.text("/c/acme/records/person/7")


def test_an_event_of_a_field_shows_that_the_record_was_synchronized(
    system: SyncSystem, run: Run, viewer: ConsoleClient
) -> None:
    (event,) = system.rows("SELECT id FROM sync_events WHERE pipedrive_id = 7 AND reason = 'option_unknown'")

    assert "synchronized without this field" in viewer.text(f"/c/acme/logs/{event.id}")
    assert "field rejected" in viewer.text("/c/acme/logs?outcome=error")


def test_a_script_lists_them_and_sees_what_a_replay_comes_to(system: SyncSystem, run: Run, script: Call) -> None:
    _, listed = script("GET", f"{BASE}/failures?kind=field")
    found = [each["failure"] for each in listed["failures"]]
    assert {(each["field"], each["reason"], each["record_id"]) for each in found} == {
        ("label_ids", "option_unknown", "7"),
        ("label_ids", "option_unknown", "8"),
    }
    assert {each["preview"]["kind"] for each in listed["failures"]} == {"fails_again"}
    _, shown = script("GET", f"{BASE}/runs/{run.id}")
    assert (shown["new"], shown["failed"], shown["rejected_fields"]) == (2, 0, 2)
