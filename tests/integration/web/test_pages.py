"""What is shown: to probes, to Prometheus, to Hull's dashboard, to a person with a browser."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert
from structlog.testing import capture_logs

from db.batch import Batch
from db.change import Change
from db.connector import Connector, Credential, add_settings
from db.delivery import Delivery
from db.failure import NewFailure, keep_failures
from db.field_definition import keep_fields
from db.job import Job
from db.run import Run
from db.schedule import set_schedule
from db.session import transaction, use_database
from db.token_ledger import TokenSpending
from db.watermark import Watermark
from pipeline.clients.limits import TokenBudget
from pipeline.settings import PROJECT_DIR
from pipeline.web import monitoring
from pipeline.web.app import create_app
from tests.integration.web.conftest import ACME, ORGANIZATION, SECRETS, RunningWeb, basic, webhook
from tests.read_only import demoted_database

CREDENTIALS = {"ship": ACME, "organization": ORGANIZATION, "secret": SECRETS["hull_secret"]}
PAGES = ["/", "/healthz", "/readyz", "/metrics", "/manifest.json", "/status", "/static/pipeline.css", "/nowhere"]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(monitoring.CHECKS, "broker", lambda: "ok")


def add_change(connector_key: int, age_s: float) -> None:
    due_at = func.now() - timedelta(seconds=age_s)
    values = {"connector_key": connector_key, "direction": "incoming", "entity": "person", "record_id": "8"}
    with transaction() as session:
        session.execute(insert(Change).values(**values, cause="webhook", due_at=due_at))


def add_batch(connector_key: int, age_s: float, state: str = "ready") -> None:
    due_at = func.now() - timedelta(seconds=age_s)
    values = {"connector_key": connector_key, "direction": "incoming", "entity": "person", "queue": "bulk"}
    with transaction() as session:
        session.execute(insert(Batch).values(**values, state=state, due_at=due_at))


def add_delivery(connector_key: int, age_s: float) -> None:
    received_at = func.now() - timedelta(seconds=age_s)
    values = {"connector_key": connector_key, "source": "hull", "key": "k", "body": b"{}"}
    with transaction() as session:
        session.execute(insert(Delivery).values(**values, received_at=received_at))


def add_job(connector_key: int, age_s: float) -> None:
    due_at = func.now() - timedelta(seconds=age_s)
    with transaction() as session:
        session.execute(insert(Job).values(connector_key=connector_key, kind="export", dedupe_key="k", due_at=due_at))


@pytest.mark.parametrize("path", PAGES)
def test_every_answer_keeps_browsers_strict(running: RunningWeb, path: str) -> None:
    answer = running.client.get(path)
    answer.close()

    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(answer.headers["X-Request-Id"]) == 16


@pytest.mark.parametrize("path", ["/healthz", "/status", "/auth/callback"])
def test_a_request_is_never_sent_back(running: RunningWeb, path: str) -> None:
    answer = running.client.open(path, method="TRACE", headers={"Cookie": "session=canary"})

    assert answer.status_code == 405
    assert "canary" not in answer.text


def test_the_process_is_healthy_without_a_database(running: RunningWeb, database_url: str) -> None:
    use_database("postgresql+psycopg2://postgres@127.0.0.1:1/nowhere")

    healthy, ready = running.client.get("/healthz"), running.client.get("/readyz")

    use_database(database_url)
    assert (healthy.status_code, healthy.json) == (200, {"status": "ok"})
    assert ready.status_code == 503
    assert ready.json is not None
    assert ready.json["checks"]["database"] == "unreachable"


def test_it_is_not_ready_without_the_broker(running: RunningWeb) -> None:
    answer = running.client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["checks"] == {"database": "ok", "broker": "unreachable", "progress": "ok"}


@pytest.mark.usefixtures("broker")
def test_it_is_ready_when_everything_answers_and_nothing_is_overdue(running: RunningWeb) -> None:
    add_change(running.acme, age_s=60)
    add_batch(running.acme, age_s=-600)
    add_batch(running.acme, age_s=600, state="done")

    answer = running.client.get("/readyz")

    assert (answer.status_code, answer.json and answer.json["status"]) == (200, "ok")


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("add", [add_change, add_batch, add_delivery, add_job])
def test_it_is_not_ready_while_due_work_finds_no_worker(running: RunningWeb, add: Callable[[int, float], None]) -> None:
    add(running.acme, 600)

    answer = running.client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["checks"]["progress"].startswith("work has been due for 60")


@pytest.mark.usefixtures("broker")
def test_work_of_a_paused_connector_may_wait(running: RunningWeb) -> None:
    add_change(running.acme, 600)
    with transaction() as session:
        session.get_one(Connector, running.acme).state = "paused"

    assert running.client.get("/readyz").status_code == 200


def test_metrics_contain_the_figures_of_the_database(running: RunningWeb) -> None:
    running.client.post(
        f"/webhooks/pipedrive/{ACME}/{SECRETS['webhook_path']}", data=json.dumps(webhook()), headers=basic()
    )
    add_batch(running.acme, 300)
    add_batch(running.acme, 0, state="done")
    add_failure(running)
    add_run(running)
    spend(running, 300, lane="bulk")
    spend(running, 40, lane="live")

    answer = running.client.get("/metrics")

    assert answer.content_type == monitoring.CONTENT_TYPE
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found.pop(("pipeline_oldest_due_age_seconds",)) == pytest.approx(300, abs=5)
    assert found == {
        ("pipeline_deliveries", ACME, "pipedrive", "new"): 1,
        ("pipeline_batches", ACME, "incoming", "ready"): 1,
        ("pipeline_runs", ACME, "person", "stopped"): 1,
        ("pipeline_failures", ACME, "person", "wrong_type"): 1,
        ("pipeline_connectors", ACME, "active"): 1,
        ("pipeline_tokens", ACME, "bulk"): 300,
        ("pipeline_tokens", ACME, "live"): 40,
        ("pipeline_daily_tokens", ACME): 30_000,
    }


def spend(running: RunningWeb, tokens: int, *, lane: str = "bulk") -> None:
    today = func.date(func.timezone("UTC", func.now()))
    row = {"connector_key": running.acme, "day": today, "lane": lane, "operation": "list", "calls": 1, "tokens": tokens}
    with transaction() as session:
        session.execute(insert(TokenSpending).values(**row))


@pytest.mark.parametrize(
    ("tokens", "level", "words"),
    [
        (24_000, "ok", "in order"),
        (24_010, "warning", "80% of Pipedrive's tokens for today are spent"),
        (30_000, "warning", "fetches wait, live changes continue"),
    ],
)
def test_a_day_that_is_nearly_spent_is_a_warning(running: RunningWeb, tokens: int, level: str, words: str) -> None:
    spend(running, tokens)
    answer = status(running).json

    assert answer["status"] == level
    assert words in " ".join(answer["messages"])


def test_a_day_without_limit_is_never_spent(running: RunningWeb) -> None:
    with transaction() as session:
        add_settings(session, running.acme, {"daily_tokens": 0}, author="test")
    spend(running, 1_000_000)

    assert status(running).json["status"] == "ok"


def test_a_day_that_pipedrive_closed_is_a_warning_whatever_we_count(
    running: RunningWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TokenBudget, "closed_s", lambda _budget: 900.0)

    assert "all work waits" in " ".join(status(running).json["messages"])


def add_failure(running: RunningWeb) -> None:
    failure = NewFailure(
        connector_key=running.acme,
        kind="record",
        subject="incoming:person:8",
        direction="incoming",
        entity="person",
        stage="transform",
        reason="wrong_type",
        detail="birthday",
    )
    with transaction() as session:
        keep_failures(session, [failure])


def add_run(running: RunningWeb, state: str = "stopped") -> None:
    run = Run(connector_key=running.acme, entity="person", kind="full", state=state, cause="test", settings_version=1)
    run.reason, run.read = "page_repeats", 68_500
    with transaction() as session:
        session.add(run)


def status(running: RunningWeb, method: str = "GET", **changed: str) -> Any:
    return running.client.open("/status", method=method, query_string=CREDENTIALS | changed)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connector_with_nothing_amiss_is_ok(running: RunningWeb, method: str) -> None:
    answer = status(running, method)

    assert (answer.status_code, answer.json) == (200, {"status": "ok", "messages": ["Everything is in order."]})


def test_hull_may_name_the_connector_either_way(running: RunningWeb) -> None:
    renamed = {"id": ACME, "organization": ORGANIZATION.upper(), "secret": SECRETS["hull_secret"]}

    assert running.client.get("/status", query_string=renamed).status_code == 200


@pytest.mark.parametrize("changed", [{"secret": "wrong"}, {"secret": ""}, {"organization": "x"}, {"ship": "acme"}])
def test_a_status_needs_the_secret(running: RunningWeb, changed: dict[str, str]) -> None:
    answer = status(running, **changed)

    assert (answer.status_code, answer.json["error"]) == (401, "unauthorized")


def test_without_pipedrives_credentials_setup_is_required(running: RunningWeb) -> None:
    with transaction() as session:
        session.delete(session.get_one(Credential, (running.acme, "pipedrive_api_token")))

    answer = status(running)

    assert answer.json["status"] == "setupRequired"
    assert "not connected" in answer.json["messages"][0]


def test_an_automatic_pause_is_an_error_with_a_next_step(running: RunningWeb) -> None:
    pause(running, "unauthorized")

    answer = status(running)

    assert answer.json["status"] == "error"
    assert "connect again" in answer.json["messages"][0]


def test_a_pause_that_a_person_made_is_a_warning(running: RunningWeb) -> None:
    pause(running, None)

    assert status(running).json["status"] == "warning"


def pause(running: RunningWeb, reason: str | None) -> None:
    with transaction() as session:
        connector = session.get_one(Connector, running.acme)
        connector.state, connector.pause_reason = "paused", reason


@pytest.mark.guide("I didn't get any Pipedrive organization/person data in Hull", "it describes each problem.")
def test_failures_stopped_runs_and_missing_webhooks_are_warnings_of_their_own(running: RunningWeb) -> None:
    add_failure(running)
    add_run(running)
    with transaction() as session:
        session.delete(session.get_one(Credential, (running.acme, "webhook_path")))

    answer = status(running)

    assert answer.json["status"] == "warning"
    assert [message.split(":")[0] for message in answer.json["messages"]] == [
        "Pipedrive does not send webhooks yet",
        "The last fetch of persons stopped",
        "1 open failure",
    ]


def test_a_later_successful_fetch_removes_the_warning(running: RunningWeb) -> None:
    add_run(running, "stopped")
    add_run(running, "done")

    assert status(running).json["status"] == "ok"


@pytest.mark.parametrize(
    ("rows", "settings", "expected"),
    [
        ([{"field_code": "name"}], {}, "warning"),
        ([{"field_code": "name"}, {"field_code": "website"}], {}, "ok"),
        ([{"field_code": "name"}], {"account_claims": [{"hull": "domain", "service": "name"}]}, "ok"),
        ([{"field_code": "name"}], {"account_claims": []}, "ok"),
    ],
)
def test_a_company_without_the_website_field_must_choose_another(
    running: RunningWeb, rows: list[Any], settings: dict[str, Any], expected: str
) -> None:
    with transaction() as session:
        keep_fields(session, running.acme, "organization", rows)
        add_settings(session, running.acme, settings, author="test")

    assert status(running).json["status"] == expected


def test_the_manifest_is_served_as_json(running: RunningWeb) -> None:
    answer = running.client.get("/manifest.json")

    assert answer.json is not None
    assert answer.json["name"] == "Pipedrive"


@pytest.mark.guide("Add a new Pipedrive Connector", "In Hull, install the connector from its manifest.")
def test_every_route_the_manifest_names_exists(running: RunningWeb) -> None:
    manifest = running.client.get("/manifest.json").json
    assert manifest is not None
    named = [manifest["admin"], *("/" + manifest[name] for name in ("readme", "logo", "picture"))]
    named += [row["url"] for name in ("subscriptions", "statuses", "json") for row in manifest[name]]
    named += [row["url"] for row in manifest["private_settings"] if "url" in row]
    named += [
        row["options"]["loadOptions"] for row in manifest["private_settings"] if "loadOptions" in row.get("options", {})
    ]

    rules = {rule.rule for rule in create_app(wake=lambda: None).url_map.iter_rules()}

    assert set(named) <= rules
    assert len(named) > 12


def test_the_logo_is_a_picture(running: RunningWeb) -> None:
    with running.client.get("/logo.png") as answer:
        assert (answer.status_code, answer.mimetype) == (200, "image/png")
        assert answer.data.startswith(b"\x89PNG\r\n")


def test_the_guide_is_served(running: RunningWeb) -> None:
    answer = running.client.get("/readme.md")

    assert (answer.status_code, answer.content_type) == (200, "text/markdown; charset=utf-8")
    assert answer.text == (PROJECT_DIR / "docs" / "guide.md").read_text("utf-8")


def test_a_defect_shows_a_request_id_and_nothing_else(running: RunningWeb, capsys: pytest.CaptureFixture[str]) -> None:
    break_open(running.app)

    with capture_logs() as lines:
        as_json = running.client.get("/broken")
        as_text = running.client.get("/broken", headers={"Accept": "text/html"})

    assert (as_json.status_code, as_text.status_code) == (500, 500)
    expected = {"error": "internal_error", "message": "Internal error", "request_id": as_json.headers["X-Request-Id"]}
    assert as_json.json == expected
    assert as_text.headers["X-Request-Id"] in as_text.text
    assert as_text.content_type.startswith("text/plain")
    assert [(line["event"], line["error"]) for line in lines] == [("web.error", "RuntimeError")] * 2
    output = capsys.readouterr()
    assert "canary" not in as_json.text + as_text.text + repr(lines) + output.out + output.err


def break_open(app: Flask) -> None:
    def fail() -> str:
        raise RuntimeError("canary: values of a record")

    app.add_url_rule("/broken", view_func=fail)


@pytest.mark.parametrize("path", ["/nowhere", "/static/../app.py", "/static/%2e%2e/app.py", "/webhooks/pipedrive/x"])
def test_what_is_not_there_is_not_found(running: RunningWeb, path: str) -> None:
    answer = running.client.get(path)

    assert answer.status_code == 404
    assert answer.json is not None
    assert answer.json["error"] == "not_found"


def in_step_until(running: RunningWeb, ago: timedelta) -> None:
    """The fetches of changes came to their end so long ago for the last time."""
    moment = datetime.now(UTC) - ago
    with transaction() as session:
        set_schedule(session, running.acme, "incremental", interval_s=300, next_run_at=moment)
        session.add(Watermark(connector_key=running.acme, entity="person", reached_at=moment, complete_since=moment))


def test_changes_that_have_not_come_for_long_are_a_warning(running: RunningWeb) -> None:
    in_step_until(running, timedelta(minutes=20))

    answer = status(running)

    assert answer.json["status"] == "warning"
    assert "may not be in Hull yet" in answer.json["messages"][0]


def test_changes_that_came_some_minutes_ago_are_in_order(running: RunningWeb) -> None:
    in_step_until(running, timedelta(minutes=10))

    assert status(running).json["status"] == "ok"


def test_metrics_contain_the_age_of_the_watermark(running: RunningWeb) -> None:
    in_step_until(running, timedelta(minutes=20))

    metrics = running.client.get("/metrics").text

    (line,) = [line for line in metrics.splitlines() if line.startswith("pipeline_watermark_age_seconds{")]
    assert 'entity="person"' in line
    assert 1_199 < float(line.split()[-1]) < 1_300


@pytest.mark.usefixtures("broker")
def test_a_database_that_takes_no_writes_is_not_ready(running: RunningWeb) -> None:
    with demoted_database():
        answer = running.client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["checks"] == {"database": "read_only", "broker": "ok", "progress": "ok"}
    assert running.client.get("/readyz").status_code == 200


def test_readiness_has_an_answer_in_time_whatever_is_silent(
    running: RunningWeb, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    asked: list[str] = []

    def silent() -> str:
        asked.append("database")
        never.wait(30)
        return "ok"

    monkeypatch.setattr(monitoring, "READY_WITHIN_S", 0.2)
    monkeypatch.setattr(monitoring, "_CHECKS", monitoring._Checks({"database": silent}))
    answers = [running.client.get("/readyz") for _ in range(3)]
    never.set()

    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[-1].json is not None
    assert answers[-1].json["checks"] == {"database": "no answer within 0.2 s"}
    assert asked == ["database"], "a check that is still running is not started again"
