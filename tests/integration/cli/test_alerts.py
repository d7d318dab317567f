"""`pipeline alerts`: open alerts, resolved ones, and the test of the sinks."""

from __future__ import annotations

from pipeline import settings as settings_room
from pipeline.settings import settings
from tests.command_line import Run
from tests.system import SyncSystem


def test_no_alert_is_open(system: SyncSystem, run: Run) -> None:
    assert "No alert is open." in run("alerts", "list").out
    assert run("alerts", "list", "--json").json == {"alerts": []}


def test_lists_open_alerts_with_advice(system: SyncSystem, run: Run) -> None:
    system.change_rows("UPDATE connectors SET state = 'paused', pause_reason = 'unauthorized'")
    system.module("sync.alerts").evaluate()

    (alert,) = run("alerts", "list", "--json").json["alerts"]
    assert (alert["connector"], alert["rule"], alert["state"]) == ("acme", "auth_lost", "open")
    assert "Paused automatically: unauthorized." in run("alerts", "list").out


def test_lists_resolved_alerts(system: SyncSystem, run: Run) -> None:
    system.change_rows(
        "INSERT INTO alerts (rule, state, sentence, resolved_at) VALUES ('no_ticks', 'resolved', 'x', now())"
    )

    assert run("alerts", "list", "--json").json == {"alerts": []}
    assert [each["rule"] for each in run("alerts", "past", "--json").json["alerts"]] == ["no_ticks"]


def test_a_failed_test_alert_exits_with_1_and_hides_the_address(system: SyncSystem, run: Run) -> None:
    assert run("alerts", "test").code == 0

    settings_room.use(settings().replace(alert_webhook_url="https://hooks.test/canary-hook"))
    failing = run("alerts", "test", "--json")

    assert (failing.code, failing.json["sinks"]["log"]) == (1, "ok")
    assert failing.json["sinks"]["webhook"] != "ok"
    assert "canary" not in failing.out + failing.err
