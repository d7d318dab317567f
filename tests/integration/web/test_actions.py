"""What a person presses in Hull's dashboard: fetch all, and the lists of fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, text
from werkzeug.test import TestResponse

from db.connector import Connector, Credential
from db.field_definition import keep_fields
from db.run import Run
from db.session import transaction
from pipeline import connections
from pipeline.clients.limits import TokenBudget
from sandbox.company import Company
from sandbox.pipedrive.app import PipedriveApp, create_app
from tests.integration.web.conftest import ACME, ORGANIZATION, SECRETS, RunningWeb
from tests.wsgi_adapter import session_for

CREDENTIALS = {"ship": ACME, "organization": ORGANIZATION, "secret": SECRETS["hull_secret"]}
FETCHES = [("/personFetchAll", "person"), ("/orgFetchAll", "organization")]
LISTS = [
    "/fields-pipedrive-person-in",
    "/fields-pipedrive-person-out",
    "/fields-pipedrive-org-in",
    "/fields-pipedrive-account-out",
]


@pytest.fixture(autouse=True)
def budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Redis counts here."""
    monkeypatch.setattr(TokenBudget, "spend", lambda _budget, _tokens, call: call())


@pytest.fixture
def pipedrive() -> Iterator[PipedriveApp]:
    app = create_app(Company(seed=7, persons=1, organizations=1), api_token=SECRETS["pipedrive_api_token"])
    connections.use_http(lambda: session_for({"https://acme.pipedrive.test": app}))
    yield app
    connections.use_http(None)


def press(running: RunningWeb, route: str, **changed: str) -> TestResponse:
    return running.client.post(route, query_string=CREDENTIALS | changed, json={})


def runs(running: RunningWeb) -> list[tuple[str, str, bool, str]]:
    with transaction() as session:
        found = session.scalars(select(Run).filter_by(connector_key=running.acme).order_by(Run.id))
        return [(run.entity, run.kind, run.changed_only, run.cause) for run in found]


def keep(running: RunningWeb, entity: str, rows: list[Any], *, age: str = "0 s") -> None:
    with transaction() as session:
        keep_fields(session, running.acme, entity, rows)
        session.execute(text("UPDATE field_definitions SET fetched_at = now() - CAST(:age AS interval)"), {"age": age})


@pytest.mark.guide("Incoming Accounts", 'The button "Fetch All Organizations" in the settings starts the same fetch.')
@pytest.mark.guide("Incoming Users", 'The button "Fetch All Persons" in the settings starts the same fetch.')
@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    'The buttons "Fetch All Persons" and "Fetch All Organizations" do that; if a fetch is already running, '
    "they show that.",
)
@pytest.mark.parametrize(("route", "entity"), FETCHES)
def test_a_button_starts_a_full_fetch_that_sends_everything_again(running: RunningWeb, route: str, entity: str) -> None:
    answer = press(running, route)

    assert (answer.status_code, answer.json and answer.json["status"]) == (200, "deferred")
    assert runs(running) == [(entity, "full", False, "hull")]


@pytest.mark.guide(
    "I didn't get any updates from recently updated Persons or Organizations into Hull",
    'The buttons "Fetch All Persons" and "Fetch All Organizations" do that; if a fetch is already running, '
    "they show that.",
)
def test_a_second_click_reports_the_running_fetch(running: RunningWeb) -> None:
    first, second = (press(running, "/personFetchAll").json for _ in range(2))

    assert (first["status"], second["status"]) == ("deferred", "deferred")
    assert (second["run"], f"run {first['run']}" in second["message"]) == (first["run"], True)
    assert len(runs(running)) == 1


@pytest.mark.parametrize(("route", "_entity"), FETCHES)
def test_without_pipedrive_a_button_reports_what_is_missing(running: RunningWeb, route: str, _entity: str) -> None:
    with transaction() as session:
        session.delete(session.get_one(Credential, (running.acme, "pipedrive_api_token")))

    answer = press(running, route)

    assert (answer.status_code, answer.json and answer.json["error"]) == (401, "configuration-error")
    assert answer.json is not None
    assert "Open Credentials" in answer.json["message"]
    assert runs(running) == []


@pytest.mark.parametrize(("reason", "words"), [(None, "Resume it"), ("unauthorized", "connect again")])
def test_a_paused_connector_returns_its_reason(running: RunningWeb, reason: str | None, words: str) -> None:
    with transaction() as session:
        connector = session.get_one(Connector, running.acme)
        connector.state, connector.pause_reason = "paused", reason

    answer = press(running, "/orgFetchAll")

    assert answer.status_code == 401
    assert answer.json is not None
    assert words in answer.json["message"]
    assert runs(running) == []


@pytest.mark.parametrize("route", [*LISTS, *(route for route, _ in FETCHES)])
@pytest.mark.parametrize("changed", [{"secret": "wrong"}, {"organization": "x"}, {"ship": "acme"}])
def test_wrong_credentials_do_nothing(running: RunningWeb, route: str, changed: dict[str, str]) -> None:
    answer = press(running, route, **changed)

    assert (answer.status_code, answer.json and answer.json["error"]) == (401, "unauthorized")
    assert runs(running) == []


@pytest.mark.guide(
    "Configure your Pipedrive Connector",
    "The lists of fields show Pipedrive's current fields; lists for written values show only writable fields.",
)
def test_all_fields_can_be_read_and_only_some_written(running: RunningWeb, pipedrive: PipedriveApp) -> None:
    found = {route: press(running, route).json["options"] for route in LISTS}  # type: ignore[index]
    values = {route: [row["value"] for row in rows] for route, rows in found.items()}

    assert {"name", "email", "add_time"} <= set(values[LISTS[0]])
    assert {"name", "email"} <= set(values[LISTS[1]]) < set(values[LISTS[0]])
    assert "add_time" not in values[LISTS[1]]
    assert {"name", "address", "update_time"} <= set(values[LISTS[2]])
    assert {"name", "address"} <= set(values[LISTS[3]]) < set(values[LISTS[2]])
    assert all(row["label"] for rows in found.values() for row in rows)


@pytest.mark.defect(20, "A list of fields that held one came as that field, and not as a list.")
def test_one_option_is_a_list_of_one(running: RunningWeb) -> None:
    keep(running, "person", [{"field_code": "name", "field_name": "Name", "field_type": "varchar"}])

    answers = [press(running, route).json for route in LISTS[:2]]

    assert answers == [{"options": [{"value": "name", "label": "Name"}]}] * 2


def test_no_option_is_an_empty_list(running: RunningWeb) -> None:
    keep(running, "person", [{"field_code": "add_time", "field_name": "Created", "field_type": "date"}])

    assert press(running, LISTS[1]).json == {"options": []}


def test_outdated_fields_are_read_again_and_stored(running: RunningWeb, pipedrive: PipedriveApp) -> None:
    keep(running, "person", [{"field_code": "name", "field_name": "Old name", "field_type": "varchar"}], age="1 h")

    labels = [[row["label"] for row in press(running, LISTS[0]).json["options"]] for _ in range(2)]  # type: ignore[index]

    assert "Old name" not in labels[0]
    assert labels[0] == labels[1]
    assert pipedrive.ledger.requests["fields"] == 1


def test_while_pipedrive_is_away_the_fields_of_before_are_offered(running: RunningWeb, pipedrive: PipedriveApp) -> None:
    keep(running, "person", [{"field_code": "name", "field_name": "Old name", "field_type": "varchar"}], age="1 h")
    pipedrive.faults.add("/api/v2/personFields", "status", status=503, count=None)

    assert press(running, LISTS[0]).json == {"options": [{"value": "name", "label": "Old name"}]}


@pytest.mark.parametrize(
    ("status", "answered", "error"), [(503, 503, "transient-error"), (401, 401, "configuration-error")]
)
def test_unknown_fields_are_a_clear_error(
    running: RunningWeb, pipedrive: PipedriveApp, status: int, answered: int, error: str
) -> None:
    pipedrive.faults.add("/api/v2/personFields", "status", status=status, count=None)

    answer = press(running, LISTS[1])

    assert answer.json is not None
    assert (answer.status_code, answer.json["error"]) == (answered, error)
    assert answer.json["message"].endswith(".")


def test_without_pipedrive_a_list_reports_what_is_missing(running: RunningWeb) -> None:
    with transaction() as session:
        session.delete(session.get_one(Credential, (running.acme, "pipedrive_api_token")))

    answer = press(running, LISTS[0])

    assert (answer.status_code, "Open Credentials" in answer.text) == (401, True)


def test_a_browser_may_ask_from_the_dashboards_page(running: RunningWeb) -> None:
    asked = running.client.options(LISTS[0])
    answer = press(running, LISTS[0], secret="wrong")

    assert (asked.status_code, asked.headers["Access-Control-Allow-Origin"]) == (200, "*")
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
