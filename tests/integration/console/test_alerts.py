"""Alerts: raised and sent once, retried, resolved; the page and its test button."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from structlog.testing import capture_logs

from db.session import transaction
from pipeline import connections, wiring
from pipeline import settings as settings_room
from pipeline.accounts import operators
from pipeline.domain.alerts import RULES
from pipeline.settings import settings
from tests.integration.console.conftest import ConsoleClient
from tests.manual_clock import Clock
from tests.system import SyncSystem
from tests.wsgi_adapter import session_for

HOOK = "https://hooks.test/services/canary-hook"


@dataclass
class Hook:
    """A chat that receives alerts."""

    status: int = 200
    received: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.received.append(json.loads(environ["wsgi.input"].read()))
        start_response(f"{self.status} -", [("Location", "https://evil.test/")])
        return [b"ok"]


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> None:
    """What pages share for a moment is forgotten between two tests."""
    from pipeline.web.console import overview  # noqa: PLC0415 - Celery reads its settings when it is imported

    overview._rows.forget()
    overview._open_alerts.forget()


@pytest.fixture
def hook(system: SyncSystem) -> Iterator[Hook]:
    hook = Hook()
    settings_room.use(
        settings().replace(
            alert_webhook_url=HOOK,
            public_url="http://pipeline.test",
            internal_networks=("127.0.0.0/8",),
        )
    )
    connections.use_http(lambda: session_for({"https://hooks.test": hook}))
    return hook


def watch(system: SyncSystem) -> None:
    system.module("sync.alerts").watch()


def pause(system: SyncSystem, reason: str = "unauthorized") -> None:
    system.change_rows("UPDATE connectors SET state = 'paused', pause_reason = :reason", reason=reason)


def resume(system: SyncSystem) -> None:
    """The connector works again, and has for a while."""
    system.change_rows("UPDATE connectors SET state = 'active', pause_reason = NULL")
    system.change_rows("UPDATE alerts SET seen_at = seen_at - interval '5 minutes'")


def events(hook: Hook) -> list[tuple[str, str]]:
    return [(each["event"], each["rule"]) for each in hook.received]


def test_an_alert_is_sent_once_when_raised_and_once_when_resolved(system: SyncSystem, hook: Hook) -> None:
    pause(system)
    watch(system)
    watch(system)
    assert events(hook) == [("alert.raised", "auth_lost")]

    resume(system)
    watch(system)
    watch(system)

    assert events(hook) == [("alert.raised", "auth_lost"), ("alert.resolved", "auth_lost")]
    assert system.rows("SELECT state, sent_state FROM alerts") == [("resolved", "resolved")]


def test_an_alert_has_a_link_and_a_next_step(system: SyncSystem, hook: Hook) -> None:
    pause(system)
    watch(system)

    (received,) = hook.received
    assert received["url"] == "http://pipeline.test/c/acme/credentials"
    assert (received["connector"], received["sentence"]) == ("acme", "Paused automatically: unauthorized.")
    assert received["text"].startswith("acme: Access lost\nPaused automatically: unauthorized.")
    assert RULES["auth_lost"].advice in received["text"]


def test_the_log_has_the_alert_without_an_address(system: SyncSystem, hook: Hook) -> None:
    pause(system)
    hook.status = 500
    with capture_logs() as lines:
        watch(system)

    assert [line["event"] for line in lines if line["event"] == "alert.raised"] == ["alert.raised"]
    assert "canary-hook" not in str(lines)


def test_an_unsent_alert_is_retried_with_growing_pauses(system: SyncSystem, hook: Hook) -> None:
    hook.status = 503
    pause(system)
    watch(system)
    watch(system)
    assert len(hook.received) == 1
    assert system.rows("SELECT sink_states ? 'webhook', sent_state, last_error FROM alerts") == [
        (False, None, "webhook: status 503")
    ]

    hook.status = 200
    system.change_rows("UPDATE alerts SET next_try_at = now()")
    with capture_logs() as lines:
        watch(system)

    assert len(hook.received) == 2
    assert [line for line in lines if line["event"] == "alert.raised"] == []  # the log had been told
    assert system.rows("SELECT sink_states, sent_state, last_error FROM alerts") == [
        ({"log": "open", "webhook": "open"}, "open", None)
    ]


def test_an_alert_is_sent_again_after_its_sender_was_killed(
    system: SyncSystem, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As SIGKILL would."""

    def die(*_arguments: Any, **_options: Any) -> None:
        raise Killed

    pause(system)
    with monkeypatch.context() as patch:
        patch.setattr(system.module("sync.alerts").alerts, "record_sent", die)
        with pytest.raises(Killed):
            watch(system)
    watch(system)
    assert len(hook.received) == 1

    system.change_rows("UPDATE alerts SET next_try_at = now()")
    watch(system)

    assert events(hook) == [("alert.raised", "auth_lost")] * 2


def test_an_alert_resolved_before_it_was_sent_is_one_message(system: SyncSystem, hook: Hook) -> None:
    hook.status = 500
    pause(system)
    watch(system)
    resume(system)
    hook.status = 200
    hook.received.clear()
    watch(system)

    assert events(hook) == [("alert.resolved", "auth_lost")]
    assert ", until " in hook.received[0]["text"]


def test_sending_stops_after_a_day(system: SyncSystem, hook: Hook) -> None:
    hook.status = 500
    pause(system)
    watch(system)
    system.change_rows("UPDATE alerts SET next_try_at = now(), raised_at = now() - interval '25 hours'")
    watch(system)

    assert system.rows("SELECT sent_state, last_error FROM alerts") == [("open", "webhook: status 500")]


def test_redirects_of_a_sink_are_not_followed(system: SyncSystem, hook: Hook) -> None:
    hook.status = 302
    pause(system)
    watch(system)

    assert system.rows("SELECT last_error FROM alerts") == [("webhook: status 302",)]


def test_a_flapping_condition_is_one_alert(system: SyncSystem, hook: Hook) -> None:
    pause(system)
    watch(system)
    system.change_rows("UPDATE connectors SET state = 'active', pause_reason = NULL")
    watch(system)
    pause(system)
    watch(system)

    assert events(hook) == [("alert.raised", "auth_lost")]


def test_a_pause_leaves_alerts_open_that_cannot_be_evaluated(system: SyncSystem, hook: Hook) -> None:
    system.change_rows(
        "INSERT INTO alerts (connector_key, rule, sentence, seen_at)"
        " VALUES (:key, 'failures', '30 failures', now() - interval '1 hour')",
        key=system.connector_key,
    )
    pause(system)
    watch(system)

    assert sorted(system.rows("SELECT rule, state FROM alerts")) == [("auth_lost", "open"), ("failures", "open")]


def test_only_one_judges_at_a_time(system: SyncSystem, hook: Hook) -> None:
    from db.alert import try_lock_evaluation  # noqa: PLC0415 - beside what it proves
    from db.session import transaction  # noqa: PLC0415

    pause(system)
    with transaction() as session:
        assert try_lock_evaluation(session)
        watch(system)

    assert system.rows("SELECT id FROM alerts") == []


def test_work_without_a_worker_is_an_alert_of_no_connector(system: SyncSystem, hook: Hook) -> None:
    from pipeline.domain.kinds import Entity  # noqa: PLC0415 - beside what it proves

    system.start(Entity.PERSON)
    system.change_rows("UPDATE batches SET state = 'ready', due_at = now() - interval '10 minutes'")
    watch(system)

    assert system.rows("SELECT connector_key, rule, sentence FROM alerts") == [
        (None, "work_overdue", "The oldest due work has waited for 10 min.")
    ]
    assert hook.received[0]["url"] == "http://pipeline.test/workers"


def test_many_failures_are_reported_as_a_number(system: SyncSystem, hook: Hook) -> None:
    settings_room.use(settings().replace(alert_failures_per_hour=2))
    for position in range(2):
        system.change_rows(
            "INSERT INTO failures (connector_key, kind, subject, direction, entity, stage, reason, detail, fingerprint)"
            " VALUES (:key, 'record', :subject, 'incoming', 'person', 'load', 'too_long', 'canary value', 'f')",
            key=system.connector_key,
            subject=f"incoming:person:{position}",
        )
    watch(system)

    assert system.rows("SELECT rule, sentence FROM alerts") == [("failures", "2 failures within the last hour.")]
    assert "canary value" not in json.dumps(hook.received)


@pytest.mark.usefixtures("noon")
def test_each_hour_is_counted_once_and_without_full_fetches(system: SyncSystem) -> None:
    from pipeline.domain.kinds import Entity  # noqa: PLC0415 - beside what it proves

    run_id = system.start(Entity.PERSON)
    system.change_rows("UPDATE connectors SET created_at = date_trunc('hour', now()) - interval '2 hours'")
    for run in (None, None, run_id):
        system.change_rows(
            "INSERT INTO sync_events (connector_key, event, entity, cause, run_id, at)"
            " VALUES (:key, 'incoming.user.success', 'person', 'x', :run, date_trunc('hour', now()) - interval '30 min')",
            key=system.connector_key,
            run=run,
        )
    for _ in range(4):
        watch(system)

    assert [row.events for row in system.rows("SELECT events FROM hourly_counts ORDER BY hour DESC")] == [2, 0]


def quiet_hour_after_two_weeks(system: SyncSystem) -> None:
    """Two weeks with 200 events an hour, and an hour without any."""
    system.change_rows("UPDATE connectors SET created_at = now() - interval '30 days'")
    system.change_rows(
        "INSERT INTO hourly_counts (connector_key, hour, events)"
        " SELECT :key, date_trunc('hour', now()) - interval '1 hour' - make_interval(hours => h),"
        "        CASE WHEN h = 0 THEN 0 ELSE 200 END FROM generate_series(0, 335) h",
        key=system.connector_key,
    )


def volumes(system: SyncSystem) -> list[str]:
    return [row.sentence for row in system.rows("SELECT rule, sentence FROM alerts") if row.rule == "volume_unusual"]


@pytest.mark.usefixtures("noon")
def test_an_hour_without_events_is_reported(system: SyncSystem, hook: Hook) -> None:
    quiet_hour_after_two_weeks(system)
    watch(system)

    assert volumes(system) == ["0 events in the last full hour; usually about 200 in the same hour."]


def test_two_weekends_are_too_few_to_judge_an_hour(system: SyncSystem, hook: Hook, noon: Clock) -> None:
    noon.move(3 * 86_400)  # from a Wednesday to a Saturday
    quiet_hour_after_two_weeks(system)
    watch(system)

    assert volumes(system) == []


def test_mail_is_sent_over_tls_with_a_password_and_a_one_line_subject(
    system: SyncSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    class Server:
        def __init__(self, host: str, port: int, timeout: float, context: Any) -> None:
            sent.append((host, port, context.check_hostname))

        def __enter__(self) -> Server:
            return self

        def __exit__(self, *_error: object) -> None:
            """Nothing to close."""

        def login(self, user: str, password: str) -> None:
            sent.append((user, password))

        def send_message(self, mail: Any) -> dict[str, Any]:
            sent.append(mail)
            return {}

    monkeypatch.setattr(smtplib, "SMTP_SSL", Server)
    mail_settings = {
        "alert_email_to": ("ana@acme.test",),
        "smtp_url": "smtps://bot@mail.test",
        "smtp_password": "canary",
    }
    settings_room.use(settings().replace(**mail_settings))
    system.change_rows("UPDATE connectors SET name = :name", name="acme\nBcc: eve@evil.test")
    pause(system)
    watch(system)

    place, login, mail = sent
    assert (place, login) == (("mail.test", 465, True), ("bot", "canary"))
    assert mail["Subject"] == "acmeBcc: eve@evil.test: Access lost"
    assert (mail["To"], mail["Bcc"]) == ("ana@acme.test", None)


def test_a_mail_server_that_is_away_is_tried_again(system: SyncSystem) -> None:
    settings_room.use(settings().replace(alert_email_to=("ana@acme.test",), smtp_url="smtp+plain://127.0.0.1:1"))
    pause(system)
    watch(system)

    assert system.rows("SELECT last_error FROM alerts") == [("email: ConnectionRefusedError",)]


def test_a_hook_that_is_away_is_tried_again(system: SyncSystem, hook: Hook) -> None:
    connections.use_http(requests.Session)
    settings_room.use(settings().replace(alert_webhook_url="http://127.0.0.1:1/canary-hook"))
    pause(system)
    watch(system)

    assert system.rows("SELECT last_error FROM alerts") == [("webhook: ConnectionError",)]


def test_scripts_read_alerts_and_admins_try_the_sinks(
    system: SyncSystem, hook: Hook, viewer: ConsoleClient, admin: ConsoleClient
) -> None:
    pause(system)
    watch(system)

    (alert,) = viewer.get("/api/v1/alerts").get_json()["alerts"]
    assert (alert["rule"], alert["connector"], alert["sent_to"]) == ("auth_lost", "acme", ["log", "webhook"])
    assert viewer.get("/api/v1/alerts/past").get_json() == {"alerts": []}
    forms = {each.token: {"X-CSRF-Token": operators.csrf_of(each.token)} for each in (viewer, admin)}
    assert viewer.client.post("/api/v1/alerts/test", headers=forms[viewer.token]).status_code == 403
    answer = admin.client.post("/api/v1/alerts/test", headers=forms[admin.token])
    assert answer.get_json() == {"sinks": {"log": "ok", "webhook": "ok"}}


def test_when_no_worker_judges_the_web_process_does(system: SyncSystem, hook: Hook) -> None:
    from pipeline.web import monitoring  # noqa: PLC0415 - Celery reads its settings when it is imported

    pause(system)
    assert monitoring.evaluate_if_overdue()
    assert events(hook) == [("alert.raised", "auth_lost")]

    assert not monitoring.evaluate_if_overdue()
    system.change_rows("UPDATE heartbeats SET at = now() - interval '4 minutes'")
    assert monitoring.evaluate_if_overdue()


def test_the_page_shows_open_alerts_and_the_meaning_of_each_rule(
    system: SyncSystem, hook: Hook, viewer: ConsoleClient
) -> None:
    assert "No open alerts" in viewer.text("/alerts")

    pause(system)
    watch(system)
    page = viewer.text("/alerts")

    assert "1 alert is open" in page
    assert "Paused automatically: unauthorized." in page
    assert "/c/acme/credentials" in page
    assert all(rule.title in page for rule in RULES.values())
    assert "canary-hook" not in page
    assert "1 alert is open" in viewer.text("/")

    resume(system)
    watch(system)
    page = viewer.text("/alerts")
    assert "No open alerts" in page
    assert "Paused automatically: unauthorized." in page  # it stands in the history


def test_admins_try_the_sinks_and_it_is_written_down(
    system: SyncSystem, hook: Hook, admin: ConsoleClient, viewer: ConsoleClient
) -> None:
    assert viewer.post("/alerts/test").status_code == 403
    assert "/alerts/test" not in viewer.text("/alerts")

    admin.post("/alerts/test")
    assert "webhook: ok" in admin.text("/alerts")
    hook.status = 500
    admin.post("/alerts/test")
    assert "webhook: status 500" in admin.text("/alerts")

    assert [each["event"] for each in hook.received] == ["alert.test"] * 2
    assert system.rows("SELECT operator FROM audit_log WHERE action = 'alerts.test'") == [("admin@acme.test",)] * 2


def test_open_alerts_are_counted_for_prometheus(system: SyncSystem, hook: Hook, anonymous: ConsoleClient) -> None:
    pause(system)
    watch(system)

    assert 'pipeline_alerts{connector="5f0c0ffee5f0c0ffee5f0c0f",rule="auth_lost"} 1.0' in anonymous.text("/metrics")


@pytest.mark.usefixtures("noon")
def test_a_budget_alert_stays_open_while_pipedrive_does_not_answer(system: SyncSystem, hook: Hook) -> None:
    """Redis alone knows that Pipedrive has called the day spent."""
    with transaction() as session:
        wiring.open_budget(session, system.connector_key)._run("close", 1_800.0)
    watch(system)
    system.change_rows("UPDATE alerts SET seen_at = seen_at - interval '5 minutes'")
    as_they_are = settings()
    settings_room.use(as_they_are.replace(redis_url="redis://127.0.0.1:1/0"))

    watch(system)

    settings_room.use(as_they_are)
    assert events(hook) == [("alert.raised", "budget_short")]
