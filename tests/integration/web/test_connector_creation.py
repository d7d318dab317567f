"""The first notification of a connector in Hull creates it here; forged notifications create nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

from pipeline import settings
from pipeline.jobs import connector_creation
from pipeline.settings import Settings
from sandbox.hull.app import create_app
from tests.integration.web.conftest import ACME, GLOBEX, ORGANIZATION, RunningWeb
from tests.integration.web.hull_notifications import NEXT, RETRY, Hull, KeyServer, notification

OURS = "globex.hullapp.test"
SECRET = "canary-globex-secret"
MINE = {"id": GLOBEX, "organization": OURS, "secret": SECRET}


@pytest.fixture(autouse=True)
def listed(keys: KeyServer, running: RunningWeb, environment: Settings) -> Iterator[None]:
    """An organization of ours."""
    settings.use(environment.replace(hull_organizations=(OURS,)))
    yield
    settings.use(environment)


@pytest.fixture
def platform(keys: KeyServer) -> Flask:
    app = create_app(connector_id=GLOBEX, secret=SECRET, organization=OURS)
    keys.reach(f"https://{OURS}", app.wsgi_app)
    return app


def notify(hull: Hull, key: str = "n-1", **changed: str) -> TestResponse:
    return hull.notify(notification_id=key, configuration=MINE | changed)


def is_pending(answer: TestResponse) -> bool:
    assert answer.json is not None
    assert answer.json["flow_control"] == RETRY
    return (answer.status_code, answer.json["error"]["code"]) == (503, "CONNECTOR_PENDING")


def is_refused(answer: TestResponse) -> bool:
    assert answer.json is not None
    return (answer.status_code, answer.json["error"]["code"]) == (400, "UNKNOWN_CONNECTOR")


def connectors(running: RunningWeb) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in running.rows("SELECT id, name, state, pause_reason FROM connectors ORDER BY key")][1:]


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "In an organization that the operator has listed, step 2 is not needed: Hull's first notification creates"
    " the connector after Hull has confirmed it.",
)
def test_the_first_notification_makes_the_connector_and_its_repetition_is_taken_in(
    hull: Hull, running: RunningWeb, platform: Flask
) -> None:
    platform.extensions["hull"].connector["private_settings"] = {"synchronized_user_segments": ["vip"]}

    assert is_pending(notify(hull))
    assert (connectors(running), running.deliveries(), running.woken) == ([], [], ["dispatch"])
    assert running.run_jobs() == []
    again = notify(hull)

    assert again.json == NEXT
    assert connectors(running) == [(GLOBEX, "globex", "paused", "not_connected")]
    assert [delivery.key for delivery in running.deliveries()] == ["n-1"]
    [row] = running.rows("SELECT author, document FROM settings_versions ORDER BY id DESC LIMIT 1")
    assert (row.author, row.document["synchronized_user_segments"]) == ("hull", ["vip"])


@pytest.mark.guide(
    "Add a new Pipedrive Connector",
    "In an organization that the operator has listed, step 2 is not needed: Hull's first notification creates"
    " the connector after Hull has confirmed it.",
)
def test_its_status_asks_for_setting_it_up(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    notify(hull)
    running.run_jobs()

    answer = running.client.get("/status", query_string={"ship": GLOBEX, "organization": OURS, "secret": SECRET})

    assert answer.json is not None
    assert answer.json["status"] == "setupRequired"


def test_its_secret_is_kept_sealed_and_nowhere_else(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    with capture_logs() as lines:
        notify(hull)
        waiting = running.rows("SELECT * FROM jobs")
        running.run_jobs()

    assert "canary" not in str(waiting) + str(running.rows("SELECT * FROM jobs, credentials")) + str(lines)
    assert [row.secret for row in running.rows("SELECT secret FROM jobs")] == [None]


def test_many_notifications_cause_one_check(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    assert all(is_pending(notify(hull, key=f"n-{number}")) for number in range(3))

    assert len(running.rows("SELECT 1 FROM jobs")) == 1
    assert running.run_jobs() == []
    assert len(connectors(running)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"organization": "other.hullapp.test"},
        {"organization": f"{OURS}.evil.test"},
        {"organization": f"{OURS}:8443"},
        {"organization": "169.254.169.254"},
        {"id": "globex"},
        {"id": "../../app"},
    ],
)
def test_an_organization_that_is_not_listed_is_refused_and_nothing_is_stored(
    hull: Hull, running: RunningWeb, changed: dict[str, str]
) -> None:
    assert is_refused(notify(hull, **changed))
    assert running.rows("SELECT 1 FROM jobs") == []


def test_without_hulls_signature_nothing_is_written_down(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    answer = hull.post(notification(configuration=MINE), hull.headers(_Signature="a.b.c"))

    assert (answer.status_code, answer.json and answer.json["error"]["code"]) == (400, "INVALID_SIGNATURE")
    assert running.rows("SELECT 1 FROM jobs") == []


def test_credentials_that_hull_refuses_make_nothing_and_are_not_tried_again_at_once(
    hull: Hull, running: RunningWeb, platform: Flask
) -> None:
    with capture_logs() as lines:
        assert is_pending(notify(hull, secret="wrong"))
        assert running.run_jobs() == ["hull_refused"]
        assert is_refused(notify(hull, secret="wrong"))

    assert connectors(running) == []
    assert [line["reason"] for line in lines if line["event"] == "connector.creation.error"] == ["hull_refused"]
    [row] = running.rows("SELECT state, secret FROM jobs")
    assert tuple(row) == ("refused", None)
    assert is_pending(notify(hull))


def test_a_connector_that_is_here_is_never_given_another_secret(
    hull: Hull, running: RunningWeb, platform: Flask
) -> None:
    settings.use(settings.settings().replace(hull_organizations=(OURS, ORGANIZATION)))

    assert is_refused(notify(hull, id=ACME, organization=ORGANIZATION, secret="wrong"))
    assert is_refused(notify(hull, id=ACME))

    assert running.rows("SELECT 1 FROM jobs") == []
    assert hull.notify(notification_id="n-9").json == NEXT


def test_while_hull_is_away_it_is_asked_again_later(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    platform.extensions["hull_faults"].replace([{"path": "app", "kind": "status", "status": 503, "count": 1}])
    notify(hull)

    assert running.run_jobs() == ["remote_unavailable"]
    assert is_pending(notify(hull))
    running.change_rows("UPDATE jobs SET due_at = now()")
    assert running.run_jobs() == []

    assert len(connectors(running)) == 1


def test_an_organization_removed_from_the_list_is_not_called(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    notify(hull)
    settings.use(settings.settings().replace(hull_organizations=()))

    assert running.run_jobs() == ["host_refused"]
    assert connectors(running) == []


def test_another_connectors_answer_proves_nothing(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    platform.extensions["hull"].connector["id"] = ACME
    notify(hull)
    running.change_rows("UPDATE jobs SET due_at = now()")

    assert running.run_jobs() == ["hull_refused"]
    assert connectors(running) == []


def test_no_more_than_a_few_are_looked_into_at_a_time(
    hull: Hull, running: RunningWeb, platform: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector_creation, "MOST_AT_ONCE", 2)

    answers = [notify(hull, key=f"n-{number}", id=f"{number:024x}") for number in range(3)]

    assert [is_pending(answer) for answer in answers[:2]] == [True, True]
    assert is_refused(answers[2])


def test_a_name_that_is_taken_gets_an_ending(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    running.change_rows("UPDATE connectors SET name = 'globex'")
    notify(hull)
    running.run_jobs()

    assert [name for _, name, _, _ in connectors(running)] == [f"globex-{GLOBEX[-6:]}"]


def test_settings_that_make_no_sense_do_not_keep_it_from_being_made(
    hull: Hull, running: RunningWeb, platform: Flask
) -> None:
    platform.extensions["hull"].connector["private_settings"] = {"link_users_in_hull": "perhaps"}
    notify(hull)

    assert running.run_jobs() == []
    assert len(connectors(running)) == 1
    assert running.run_jobs() == ["settings_refused"]

    [event] = running.rows("SELECT event, reason, detail FROM sync_events")
    assert (event.event, event.reason) == ("connector.settings.error", "settings_refused")
    assert "link_users_in_hull" in event.detail
