"""Webhooks that Pipedrive dropped, paused, could not deliver or sent elsewhere are recreated and logged."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import webhook as subscriptions
from db.schedule import set_schedule
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected
from pipeline.sync.connectors.webhooks import NOT_SUBSCRIBED, subscription_health
from tests.logs import captured_log
from tests.system import SyncSystem

FOREIGN = {
    "subscription_url": "https://other.test/hook",
    "event_action": "*",
    "event_object": "person",
    "name": "of somebody else",
}


@pytest.fixture
def subscribed(system: SyncSystem) -> SyncSystem:
    """A system with webhooks for Persons and Organizations."""
    check(system)
    return system


def check(system: SyncSystem) -> list[str]:
    made: list[str] = system.module("sync.connectors.webhooks").ensure_webhooks(system.connector_key)
    return made


def listed(system: SyncSystem) -> dict[str, dict[str, Any]]:
    """Entity → what Pipedrive holds for it, of ours."""
    rows = system.pipedrive.subscriptions.by_id.values()
    return {row["event_object"]: row for row in rows if row["name"] != FOREIGN["name"]}


def kept(system: SyncSystem) -> dict[str, tuple[str, int | None, int]]:
    rows = system.rows("SELECT entity, state, webhook_id, recreated FROM webhook_subscriptions")
    return {row.entity: (row.state, row.webhook_id, row.recreated) for row in rows}


def lose(system: SyncSystem) -> None:
    del system.pipedrive.subscriptions.by_id[listed(system)["person"]["id"]]


def pause(system: SyncSystem) -> None:
    listed(system)["person"]["is_active"] = 0


def fail(system: SyncSystem) -> None:
    listed(system)["person"]["last_http_status"] = 503


def move(system: SyncSystem) -> None:
    row = listed(system)["person"]
    row["subscription_url"] = "https://moved.test/" + row["subscription_url"].rsplit("/", 1)[1]


def silence(system: SyncSystem) -> None:
    with transaction() as session:
        subscriptions.note_silence(session, system.connector_key, "person")


ILLS = [
    (lose, "webhook_missing"),
    (pause, "webhook_paused"),
    (fail, "webhook_failing"),
    (move, "webhook_moved"),
    (silence, "webhook_silent"),
]


def test_the_first_check_registers_and_makes_no_fuss(system: SyncSystem) -> None:
    made = check(system)

    rows = listed(system)
    assert sorted(made) == ["organization", "person"]
    assert kept(system) == {entity: ("active", rows[entity]["id"], 0) for entity in ("person", "organization")}
    assert system.events() == []


def test_a_check_that_finds_all_well_changes_nothing(subscribed: SyncSystem) -> None:
    before = kept(subscribed)

    assert check(subscribed) == []
    assert (kept(subscribed), subscribed.events()) == (before, [])


@pytest.mark.guide(
    "Incoming Users",
    "A webhook that Pipedrive has deleted, paused or could not deliver is recreated within minutes, and the "
    "missed changes are fetched.",
)
@pytest.mark.defect(17, "A webhook that was noted here and gone in Pipedrive was never made again.")
@pytest.mark.parametrize(("harm", "reason"), ILLS)
def test_an_unhealthy_webhook_is_recreated_and_logged(subscribed: SyncSystem, harm: Any, reason: str) -> None:
    before = listed(subscribed)
    harm(subscribed)

    with captured_log("info") as lines:
        made = check(subscribed)

    after = listed(subscribed)
    assert made == ["person"]
    assert after["person"]["id"] != before["person"]["id"]
    assert (after["person"]["is_active"], after["person"]["last_http_status"]) == (1, None)
    assert after["person"]["subscription_url"] == after["organization"]["subscription_url"]
    assert after["organization"] == before["organization"]
    assert len(subscribed.pipedrive.subscriptions.by_id) == 2
    assert kept(subscribed)["person"] == ("active", after["person"]["id"], 1)
    expected = [("incoming.job.error", reason, None), ("incoming.job.success", "webhook_recreated", None)]
    assert subscribed.events() == expected
    assert [(line["event"], line["reason"]) for line in lines if line.get("type") == "user"] == [
        each[:2] for each in expected
    ]


@pytest.mark.parametrize(("created", "since"), [("09:00", "09:55"), ("09:58", "09:58")])
def test_the_log_names_the_time_in_doubt(subscribed: SyncSystem, created: str, since: str) -> None:
    """It does not begin before the connector existed."""
    subscribed.change_rows(
        "UPDATE connectors SET created_at = CAST(:at AS timestamptz)", at=f"2026-03-01 {created}:00Z"
    )
    subscribed.change_rows("UPDATE webhook_subscriptions SET healthy_at = '2026-03-01 10:00:00Z'")
    lose(subscribed)

    check(subscribed)

    (row,) = subscribed.rows("SELECT detail FROM sync_events WHERE reason = 'webhook_recreated'")
    assert row.detail.endswith(f"in doubt since 2026-03-01 {since}:00 UTC")
    (row,) = subscribed.rows(
        "SELECT healthy_at > now() - interval '1 minute' AS fresh FROM webhook_subscriptions WHERE recreated = 1"
    )
    assert row.fresh


@pytest.mark.guide(
    "Incoming Users",
    "A webhook that Pipedrive has deleted, paused or could not deliver is recreated within minutes, and the "
    "missed changes are fetched.",
)
def test_what_was_missed_is_fetched_with_the_next_tick(subscribed: SyncSystem) -> None:
    from celeryconfig import beat_schedule  # noqa: PLC0415 - it reads the settings of this test

    later = datetime.now(UTC) + timedelta(hours=1)
    with transaction() as session:
        set_schedule(session, subscribed.connector_key, "incremental", interval_s=3600, next_run_at=later)
    lose(subscribed)

    check(subscribed)

    (row,) = subscribed.rows("SELECT next_run_at <= now() AS is_due FROM schedules")
    assert row.is_due
    assert float(str(beat_schedule["ensure_webhooks"]["schedule"])) <= 15 * 60


@pytest.mark.defect(17, "Webhooks whose address held the organization's name were deleted, whosesoever they were.")
def test_webhooks_of_others_are_never_touched(subscribed: SyncSystem) -> None:
    client = subscribed.pipedrive.test_client()
    answer = client.post("/api/v1/webhooks", json=FOREIGN, headers={"x-api-token": "canary-pipedrive-token"})
    foreign_id = answer.json["data"]["id"]  # type: ignore[index]
    foreign = subscribed.pipedrive.subscriptions.by_id[foreign_id]
    foreign |= {"is_active": 0, "last_http_status": 500}
    copy = dict(foreign)
    for harm, _ in ILLS:
        harm(subscribed)
        check(subscribed)
    subscribed.module("sync.connectors.webhooks").remove_webhooks(subscribed.connector_key)

    assert subscribed.pipedrive.subscriptions.by_id == {foreign_id: copy}


def test_of_two_that_serve_one_is_kept(subscribed: SyncSystem) -> None:
    row = listed(subscribed)["person"]
    subscribed.pipedrive.subscriptions.by_id[99] = {**row, "id": 99}

    assert check(subscribed) == []
    assert len(subscribed.pipedrive.subscriptions.by_id) == 2
    assert subscribed.events() == []


def test_a_refused_recreation_is_logged_once_and_repeated_later(subscribed: SyncSystem) -> None:
    since = subscribed.rows("SELECT healthy_at FROM webhook_subscriptions WHERE entity = 'person'")
    lose(subscribed)
    subscribed.pipedrive.faults.add("/api/v1/webhooks$", "status", status=422, count=None, method="POST")
    for _ in range(2):
        with pytest.raises(Rejected):
            check(subscribed)
    before = kept(subscribed)["person"]

    subscribed.pipedrive.faults.rules.clear()
    assert check(subscribed) == ["person"]

    assert before[0] == "missing"
    assert subscribed.rows("SELECT healthy_at FROM webhook_subscriptions WHERE entity = 'person'") > since
    assert [event[1] for event in subscribed.events()] == ["webhook_missing", "webhook_recreated"]


def test_the_next_check_reports_what_a_killed_one_recreated(
    subscribed: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(subscribed)
    webhooks = subscribed.module("sync.connectors.webhooks")
    real = webhooks.subscriptions.hold_subscription

    def die_after_making(*args: Any) -> Any:
        if len(subscribed.pipedrive.subscriptions.by_id) == 2:
            raise SystemExit
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(webhooks.subscriptions, "hold_subscription", die_after_making)
        with pytest.raises(SystemExit):
            check(subscribed)

    assert check(subscribed) == []
    assert [event[1] for event in subscribed.events()] == ["webhook_missing", "webhook_recreated"]
    assert kept(subscribed)["person"][::2] == ("active", 1)


@pytest.mark.defect(17, "Before anything else webhooks were seen to, and when that failed nothing was done at all.")
def test_a_user_who_may_not_manage_webhooks_does_not_stop_the_rest(system: SyncSystem) -> None:
    system.pipedrive.faults.add("/api/v1/webhooks", "status", status=403, count=None)

    with pytest.raises(system.module("sync.stage").StageFailed, match="webhooks_forbidden"):
        system.module("tasks.control").ensure_webhooks()

    assert [row.state for row in system.rows("SELECT state FROM connectors")] == ["active"]
    assert [row.reason for row in system.rows("SELECT reason FROM failures WHERE state = 'open'")] == [
        "webhooks_forbidden"
    ]
    system.company.create_person(name="Ada")
    assert system.fetch(Entity.PERSON).state == "done"
    assert list(system.users()) == [1]


def test_the_tick_rests_after_a_refusal_and_closes_the_failure_once_it_is_through(system: SyncSystem) -> None:
    system.pipedrive.faults.add("/api/v1/webhooks", "status", status=403, count=None)
    control = system.module("tasks.control")
    with pytest.raises(system.module("sync.stage").StageFailed):
        control.ensure_webhooks()
    system.pipedrive.faults.rules.clear()

    control.ensure_webhooks()
    resting = kept(system)
    system.change_rows("UPDATE failures SET updated_at = now() - interval '2 hours'")
    control.ensure_webhooks()

    assert resting == {}
    assert {state for state, _, _ in kept(system).values()} == {"active"}
    assert system.rows("SELECT 1 FROM failures WHERE state = 'open'") == []


def test_the_tick_leaves_out_who_is_paused_or_has_no_credentials(system: SyncSystem) -> None:
    system.change_rows("UPDATE connectors SET state = 'paused'")
    system.module("tasks.control").ensure_webhooks()
    system.change_rows("UPDATE connectors SET state = 'active'")
    system.change_rows("DELETE FROM credentials WHERE name LIKE 'pipedrive%'")
    system.module("tasks.control").ensure_webhooks()

    assert kept(system) == {}
    assert system.rows("SELECT 1 FROM failures") == []


def test_a_connector_may_be_checked_by_itself(system: SyncSystem) -> None:
    system.module("tasks.control").ensure_webhooks(system.connector_key)

    assert sorted(kept(system)) == ["organization", "person"]


def test_the_sentence_describes_the_health_of_the_webhooks(system: SyncSystem) -> None:
    def sentence() -> str:
        with transaction() as session:
            return subscription_health(session, system.connector_key).sentence

    sentences = [sentence()]
    check(system)
    sentences.append(sentence())
    silence(system)
    sentences.append(sentence())
    check(system)
    sentences.append(sentence())

    assert sentences[0] == NOT_SUBSCRIBED
    assert sentences[1] == sentences[3] == "Webhooks are healthy; none received yet."
    assert sentences[2].startswith("The webhook for Persons is silent, though records changed: it is being recreated")
