"""`ship:update` is a hint that settings may have changed; the settings are read from Hull."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from structlog.testing import capture_logs

from db import job as jobs
from db.connector import add_settings, get_connector, settings_history
from db.failure_filter import find_failures
from db.field_definition import keep_fields
from db.session import transaction
from pipeline.jobs import settings_sync
from pipeline.jobs.replays.start import replay_failure
from pipeline.sync.connectors.settings_change import change_settings, enqueue_settings_sync
from sandbox.company import Company
from sandbox.hull.app import create_app
from sandbox.pipedrive.app import create_app as create_pipedrive
from tests.integration.web.conftest import ACME, ORGANIZATION, SECRETS, RunningWeb
from tests.integration.web.hull_notifications import NEXT, Hull, KeyServer

MAPPED = [{"hull": "pipedrive/name", "service": "name"}]
NAME = {"field_code": "name", "field_name": "Name", "field_type": "varchar"}


@pytest.fixture
def platform(keys: KeyServer, running: RunningWeb) -> Flask:
    """Return Hull's API with our connector, and Pipedrive's fields as they were last read."""
    app = create_app(connector_id=ACME, secret=SECRETS["hull_secret"], organization=ORGANIZATION)
    keys.reach(f"https://{ORGANIZATION}", app.wsgi_app)
    with transaction() as session:
        keep_fields(session, running.acme, "person", [NAME])
    return app


def save(platform: Flask, **settings: Any) -> None:
    """A person saves the settings in Hull."""
    platform.extensions["hull"].connector["private_settings"] = settings


def notify_and_run(hull: Hull, running: RunningWeb, key: str = "n-1") -> list[str]:
    """Send a notification and run its jobs; return the requests to Hull."""
    assert hull.notify(notification_id=key, channel="ship:update", messages=[{"id": ACME}]).json == NEXT
    return running.run_jobs()


def versions(running: RunningWeb) -> list[tuple[str, dict[str, Any]]]:
    """(author, document), the newest first."""
    with transaction() as session:
        return [(row.author, row.document) for row in settings_history(session, running.acme)]


@pytest.mark.guide("Configure your Pipedrive Connector", "Settings that you save in Hull are in force within seconds.")
@pytest.mark.defect(20, "To the news that its settings had changed the connector answered with an error.")
@pytest.mark.defect(20, "For a minute after they were saved, webhooks and buttons went by the settings of before.")
def test_what_was_saved_in_hull_is_in_force(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, incoming_user_attributes=MAPPED, link_users_in_hull=False, access_token="canary-token", oauth=None)

    notify_and_run(hull, running)

    expected = {"incoming_user_attributes": MAPPED, "link_users_in_hull": False}
    assert versions(running)[0] == ("hull", expected)
    assert len(versions(running)) == 2


@pytest.mark.guide("Configure your Pipedrive Connector", "Settings that you save in Hull are in force within seconds.")
@pytest.mark.defect(20, "To the news that its settings had changed the connector answered with an error.")
def test_intake_makes_no_call_and_leaves_it_to_a_worker(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, incoming_user_attributes=MAPPED)

    hull.notify(channel="ship:update", messages=[{"id": ACME, "secret": "canary"}])

    assert len(versions(running)) == 1
    assert running.woken == ["dispatch"]
    assert running.deliveries() == []
    assert [tuple(row) for row in running.rows("SELECT kind, state, secret FROM jobs")] == [
        ("settings_sync", "due", None)
    ]


def test_the_body_of_a_notification_changes_nothing(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    forged = {"id": ACME, "private_settings": {"synchronized_user_segments": ["ALL"]}}

    hull.notify(channel="ship:update", messages=[forged], connector=forged)
    running.run_jobs()

    assert "synchronized_user_segments" not in versions(running)[0][1]


def test_the_same_settings_again_make_no_version(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, incoming_user_attributes=MAPPED)

    for number in range(3):
        notify_and_run(hull, running, key=f"n-{number}")

    assert len(versions(running)) == 2


@pytest.mark.defect(
    19, "Of two who changed different settings, the later one took back what the earlier one had changed."
)
def test_an_edit_made_here_stays_unless_hull_changed_the_same(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, incoming_user_attributes=MAPPED, synchronized_user_segments=["a"])
    notify_and_run(hull, running)
    with transaction() as session:
        ours = {**versions(running)[0][1], "daily_tokens": 5, "synchronized_user_segments": ["b"]}
        add_settings(session, running.acme, ours, author="command line")

    save(platform, synchronized_user_segments=["a"], link_users_in_service=True)
    notify_and_run(hull, running, key="n-2")

    document = versions(running)[0][1]
    assert (document["daily_tokens"], document["synchronized_user_segments"]) == (5, ["b"])
    assert document["link_users_in_service"] is True
    assert "incoming_user_attributes" not in document


def edit(running: RunningWeb, **changes: Any) -> None:
    """A person edits the settings here."""
    with transaction() as session:
        connector = get_connector(session, running.acme)
    change_settings(connector, versions(running)[0][1] | changes, "ana")
    running.run_jobs()


def test_an_edit_made_here_is_pushed_to_hull_and_comes_back_as_nothing_new(
    hull: Hull, running: RunningWeb, platform: Flask
) -> None:
    save(platform, incoming_user_attributes=MAPPED, access_token="canary-token")
    notify_and_run(hull, running)

    edit(running, daily_tokens=5, link_users_in_hull=False)
    notify_and_run(hull, running, key="n-2")

    held = platform.extensions["hull"].connector["private_settings"]
    assert (held["daily_tokens"], held["link_users_in_hull"], held["incoming_user_attributes"]) == (5, False, MAPPED)
    assert held["access_token"] == "canary-token"
    assert [author for author, _ in versions(running)[:2]] == ["ana", "hull"]


def test_changes_in_hull_are_imported_before_ours_are_pushed(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, incoming_user_attributes=MAPPED)
    notify_and_run(hull, running)
    save(platform, incoming_user_attributes=MAPPED, synchronized_user_segments=["s1"])

    edit(running, daily_tokens=5)

    document = versions(running)[0][1]
    assert (document["daily_tokens"], document["synchronized_user_segments"]) == (5, ["s1"])
    assert platform.extensions["hull"].connector["private_settings"] == document


def test_rules_that_hull_has_no_column_for_stay(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    with_rule = [{"hull": "pipedrive/name", "service": "name", "on_null": "ignore"}]
    save(platform, incoming_user_attributes=MAPPED)
    notify_and_run(hull, running)
    edit(running, incoming_user_attributes=with_rule)

    save(platform, incoming_user_attributes=[*MAPPED, {"hull": "x", "service": "id"}], link_users_in_hull=True)
    notify_and_run(hull, running, key="n-2")

    assert versions(running)[0][1]["incoming_user_attributes"] == [*with_rule, {"hull": "x", "service": "id"}]


def test_nothing_is_pushed_over_what_a_person_has_still_to_correct_in_hull(
    hull: Hull, running: RunningWeb, platform: Flask
) -> None:
    save(platform, full_fetch_cron="61 * * * *")

    edit(running, daily_tokens=5)

    assert platform.extensions["hull"].connector["private_settings"] == {"full_fetch_cron": "61 * * * *"}
    assert versions(running)[0][1]["daily_tokens"] == 5


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"link_users_in_hull": "perhaps", "full_fetch_cron": 7}, ["link_users_in_hull", "full_fetch_cron"]),
    ({"full_fetch_cron": "61 * * * *"}, ["full_fetch_cron"]),
    ({"incoming_user_attributes": [{"hull": "a", "service": "nmae"}]}, ["nmae", "did you mean name"]),
    ({"incoming_user_attributes": "all"}, ["incoming_user_attributes"]),
]


@pytest.mark.guide(
    "Configure your Pipedrive Connector",
    "If they are refused, the earlier settings stay in force, and the connector's status names the mistakes.",
)
@pytest.mark.parametrize(("wrong", "named"), WRONG)
def test_settings_that_make_no_sense_are_named_and_those_of_before_stay(
    hull: Hull, running: RunningWeb, platform: Flask, wrong: dict[str, Any], named: list[str]
) -> None:
    save(platform, incoming_user_attributes=MAPPED)
    notify_and_run(hull, running)
    before = versions(running)
    save(platform, **wrong)

    with capture_logs() as lines:
        assert notify_and_run(hull, running, key="n-2") == ["settings_refused"]

    assert versions(running) == before
    [event] = running.rows("SELECT event, reason, detail FROM sync_events WHERE event = 'connector.settings.error'")
    assert event.reason == "settings_refused"
    assert all(words in event.detail for words in named)
    assert [line["detail"] for line in lines if line["event"] == "connector.settings.error"] == [event.detail]
    with transaction() as session:
        [failure] = find_failures(session)
        assert get_connector(session, running.acme).state == "active"
    assert (failure.reason, failure.subject) == ("settings_refused", "control:settings_sync")


@pytest.mark.guide(
    "Configure your Pipedrive Connector",
    "If they are refused, the earlier settings stay in force, and the connector's status names the mistakes.",
)
def test_the_status_names_the_mistakes(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, link_users_in_hull="perhaps", full_fetch_cron=7)
    notify_and_run(hull, running)

    answer = running.client.get(
        "/status", query_string={"ship": ACME, "organization": ORGANIZATION, "secret": SECRETS["hull_secret"]}
    ).json

    assert answer is not None
    assert answer["status"] == "warning"
    [message] = answer["messages"]
    assert all(
        name in message for name in ("link_users_in_hull", "full_fetch_cron", "Correct the listed mistakes in Hull")
    )


def test_once_they_are_corrected_the_failure_closes_by_itself(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, link_users_in_hull="perhaps", link_users_in_service=True)
    notify_and_run(hull, running)
    save(platform, link_users_in_hull=False, link_users_in_service=True)

    notify_and_run(hull, running, key="n-2")

    with transaction() as session:
        assert find_failures(session) == []
    assert versions(running)[0][1] == {"link_users_in_hull": False, "link_users_in_service": True}


def test_a_refusal_can_be_replayed(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, link_users_in_hull="perhaps")
    notify_and_run(hull, running)
    save(platform, link_users_in_hull=False)
    with transaction() as session:
        [failure] = find_failures(session)
        replay_failure(session, failure, by="ada", why="corrected")

    assert running.run_jobs() == []
    assert versions(running)[0] == ("hull", {"link_users_in_hull": False})


def test_a_field_made_a_moment_ago_is_looked_for_in_pipedrive(
    hull: Hull, running: RunningWeb, platform: Flask, keys: KeyServer
) -> None:
    pipedrive = create_pipedrive(Company(seed=7), api_token=SECRETS["pipedrive_api_token"])
    keys.reach("https://acme.pipedrive.test", pipedrive.wsgi_app)
    asked = {"x-api-token": SECRETS["pipedrive_api_token"]}
    fields = pipedrive.test_client().get("/api/v2/personFields?limit=500", headers=asked).json
    assert fields is not None
    new = next(field["field_code"] for field in fields["data"] if len(field["field_code"]) == 40)
    running.change_rows("UPDATE settings_versions SET document = '{\"daily_tokens\": 0}'")
    save(platform, incoming_user_attributes=[{"hull": "b", "service": new}])

    assert notify_and_run(hull, running) == []

    assert versions(running)[0][1]["incoming_user_attributes"] == [{"hull": "b", "service": new}]


def test_a_deleted_field_does_not_block_other_changes(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    gone = [{"hull": "x", "service": "a" * 40}]
    with transaction() as session:
        add_settings(session, running.acme, {"incoming_user_attributes": gone}, author="hull")
    save(platform, incoming_user_attributes=gone, link_users_in_service=True)

    assert notify_and_run(hull, running) == []

    assert versions(running)[0][1]["link_users_in_service"] is True


def test_while_hull_is_away_it_is_asked_again_later(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    save(platform, incoming_user_attributes=MAPPED)
    platform.extensions["hull_faults"].replace([{"path": "app", "kind": "status", "status": 503, "count": 1}])

    assert notify_and_run(hull, running) == ["remote_unavailable"]
    assert [tuple(row) for row in running.rows("SELECT state, attempts FROM jobs")] == [("due", 1)]
    running.change_rows("UPDATE jobs SET due_at = now()")
    assert running.run_jobs() == []

    assert versions(running)[0][0] == "hull"


def test_what_is_saved_while_hull_is_being_asked_is_asked_for_once_more(
    hull: Hull, running: RunningWeb, platform: Flask
) -> None:
    with transaction() as session:
        enqueue_settings_sync(session, running.acme)
        [(job_id, _)] = jobs.take_due(session, patience_s=30)
        at_work = jobs.claim(session, job_id, lease_s=30)
        enqueue_settings_sync(session, running.acme)
    assert at_work is not None
    settings_sync.step(at_work)
    with transaction() as session:
        jobs.end(session, at_work)
    save(platform, incoming_user_attributes=MAPPED)

    running.run_jobs()

    assert versions(running)[0][0] == "hull"
    assert {row.state for row in running.rows("SELECT state FROM jobs")} == {"done"}


def test_a_killed_worker_loses_nothing_and_its_late_words_count_no_more(
    hull: Hull, running: RunningWeb, platform: Flask
) -> None:
    save(platform, incoming_user_attributes=MAPPED)
    with transaction() as session:
        enqueue_settings_sync(session, running.acme)
        [(job_id, _)] = jobs.take_due(session, patience_s=30)
        lost = jobs.claim(session, job_id, lease_s=30)
    assert lost is not None
    assert running.run_jobs() == []
    assert len(versions(running)) == 1
    running.change_rows("UPDATE jobs SET due_at = now()")

    running.run_jobs()

    assert len(versions(running)) == 2
    with pytest.raises(jobs.LostLease), transaction() as session:
        jobs.end(session, lost)


def test_a_secret_that_hull_rejects_pauses_the_connector(hull: Hull, running: RunningWeb, platform: Flask) -> None:
    platform.extensions["hull"].connector["secret"] = "another"
    with transaction() as session:
        enqueue_settings_sync(session, running.acme)

    assert running.run_jobs() == ["hull_refused"]

    [row] = running.rows("SELECT state, pause_reason FROM connectors")
    assert tuple(row) == ("paused", "hull_refused")


@pytest.mark.parametrize("document", [None, "text", 7])
def test_an_answer_without_settings_takes_none_away(
    hull: Hull, running: RunningWeb, platform: Flask, document: Any
) -> None:
    platform.extensions["hull"].connector["private_settings"] = document

    assert notify_and_run(hull, running) == ["page_malformed"]

    assert len(versions(running)) == 1


def test_merging_takes_over_what_hull_changed_alone() -> None:
    merged = settings_sync.merged
    assert merged({"a": 1}, None, {"b": 2}) == {"a": 1, "b": 2}
    assert merged({"a": 1, "b": 9}, {"a": 1, "b": 2}, {"a": 1, "b": 2}) == {"a": 1, "b": 9}
    assert merged({"a": 1, "b": 9}, {"a": 1, "b": 2}, {"a": 5}) == {"a": 5}
