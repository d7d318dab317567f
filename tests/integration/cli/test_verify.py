"""`pipeline verify`: the cost comes first, then the differences; the exit code shows whether there is drift."""

from __future__ import annotations

from typing import Any

import pytest

from db import connector as connectors
from db.session import transaction
from pipeline.errors import Retryable
from tests.command_line import Run
from tests.system import SyncSystem


@pytest.fixture
def drifted(system: SyncSystem, run: Run) -> SyncSystem:
    """Ada is called Eve in Hull, and Bo is not there any more."""
    for name in ("Ada", "Bo", "Cyd"):
        record = system.company.create_person(name=name)
        system.company.load("person", {**record, "update_time": "2026-02-01T00:00:00Z"})
    run("fetch", "all", "acme")
    system.work()
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    users = system.hull.users.by_anonymous
    system.hull.write(users["pipedrive:1"], {"pipedrive/name": "Eve[/]"}, now=0, problems=[])
    system.hull.incinerate(users["pipedrive:2"])
    hour_later(system)
    return system


def hour_later(system: SyncSystem) -> None:
    system.change_rows("UPDATE id_mappings SET updated_at = now() - interval '1 hour'")


def test_the_cost_is_shown_first_and_then_the_differences(drifted: SyncSystem, run: Run) -> None:
    result = run("verify", "acme")
    lines = result.out.splitlines()

    assert result.code == 1
    assert lines[0].startswith("This costs about 40 tokens of Pipedrive's daily budget")
    assert '      pipedrive/name: Pipedrive "Ada", Hull "Eve[/]"' in lines
    assert any(line.startswith("  missing: person 2 (Hull ") for line in lines)
    assert any(line.startswith("persons: 3 compared, ") for line in lines)
    assert lines[-2].startswith("2 differences: ")
    assert lines[-1] == "Next: pipeline comparisons repair acme 1 --count 2"


def test_json_has_one_shape_whatever_is_found(drifted: SyncSystem, run: Run) -> None:
    result = run("verify", "acme", "--json")
    person = result.json["entities"]["person"]

    assert result.code == 1
    assert set(result.json) == {
        "connector", "job", "drift", "seconds", "tokens", "requests", "to_repair", "repaired", "entities"
    }  # fmt: skip
    assert (result.json["drift"], result.json["repaired"], result.json["tokens"]) == (2, None, 50)
    assert (result.json["job"], result.json["to_repair"]) == (1, 2)
    assert set(person) == {
        "pipedrive", "hull", "id_map", "without_hull_id", "compared", "buckets", "buckets_differing", "kinds", "pending",
        "failed", "outdated", "findings", "unconfirmed",
    }  # fmt: skip
    assert set(person) == set(result.json["entities"]["organization"])
    assert person["kinds"] == {
        "missing": 1, "extra": 0, "different": 1, "unlinked": 0, "unmapped": 0, "unmarked": 0, "mismapped": 0
    }  # fmt: skip
    assert person["findings"][0]["differences"] == [
        {"attribute": "pipedrive/name", "pipedrive": "Ada", "hull": "Eve[/]"}
    ]


def test_after_the_repair_there_is_no_drift(drifted: SyncSystem, run: Run) -> None:
    repaired = run("verify", "acme", "--repair")
    drifted.work()
    drifted.module("sync.changes.hull_ids").resolve(drifted.connector_key)
    hour_later(drifted)
    after = run("verify", "acme")

    assert repaired.code == 1
    assert "The repair synchronizes 2 records again." in repaired.out
    assert "2 are synchronized again by the workers. See: pipeline events list acme --follow" in repaired.out
    assert after.code == 0
    assert after.out.splitlines()[-1].startswith("No drift: ")


def test_a_repair_needs_confirmation_on_a_terminal(
    drifted: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cli import verify  # noqa: PLC0415 - Celery reads its settings when it is imported

    asked: list[str] = []
    monkeypatch.setattr(verify.click, "confirm", lambda question, **_: asked.append(question))
    monkeypatch.setattr("sys.stdin", Terminal())
    with transaction() as session:
        found = connectors.get_connector(session, drifted.connector_key)
    assert verify._repair(found, 1, verify.Report(to_repair=2), asks=True) is None

    assert asked == ["Repair them?"]
    assert drifted.rows("SELECT 1 FROM changes WHERE cause = 'verify'") == []


def test_ctrl_c_and_a_kill_leave_the_entry_of_the_comparison(
    drifted: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is written in the transaction that writes the job."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drifted.module("jobs.verify.reading").Reader, "page", killed)
    run("verify", "acme")

    entries = "SELECT subject FROM audit_log WHERE action = 'verify.start'"
    [entry] = drifted.rows(entries)
    assert entry.subject == "Compare all records"
    assert len(drifted.rows("SELECT 1 FROM jobs WHERE kind = 'verify'")) == 1


def test_a_paused_comparison_names_the_command_that_resumes_it(drifted: SyncSystem, run: Run) -> None:
    run("comparisons", "start", "acme", "--everything")
    run("jobs", "pause", "acme", "1")

    result = run("verify", "acme")

    assert (result.code, "pipeline jobs resume acme 1" in result.err) == (1, True)


def test_a_paused_connector_shows_what_the_repair_waits_for(drifted: SyncSystem, run: Run) -> None:
    drifted.change_rows("UPDATE connectors SET state = 'paused'")

    assert "pipeline connectors resume acme" in run("verify", "acme", "--repair").out


def test_on_a_terminal_a_large_share_of_the_day_is_asked_for(
    drifted: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.cli import verify  # noqa: PLC0415 - Celery reads its settings when it is imported

    asked: list[str] = []

    def refuse(question: str, **_: Any) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr(verify.sys, "stdin", Terminal())
    monkeypatch.setattr(verify.click, "confirm", refuse)
    refused = [
        verify._may_go_on(40, 300, asks=True),
        verify._may_go_on(40, 300, asks=False),
        verify._may_go_on(20, 300, asks=True),
    ]

    assert refused == [False, True, True]
    assert asked == ["Go on?"]


class Terminal:
    def isatty(self) -> bool:
        return True


def test_a_spent_budget_is_shown_with_the_time_to_wait(
    drifted: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spent(*_: Any, **__: Any) -> None:
        raise Retryable("daily_budget_spent", retry_after_s=7200.0)

    monkeypatch.setattr(drifted.module("jobs.verify.reading").Reader, "page", spent)
    result = run("verify", "acme")

    assert result.code == 1
    assert "the comparison continues automatically in 2 h 0 min" in result.err
    assert "see the result: pipeline verify acme" in result.err


def test_ctrl_c_leaves_it_running_and_the_command_follows_it_again(
    drifted: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = drifted.module("jobs.verify.reading").Reader
    real = reader.page

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(reader, "page", interrupted)
    stopped = run("verify", "acme")
    [left] = drifted.rows("SELECT id, state FROM jobs WHERE kind = 'verify'")
    monkeypatch.setattr(reader, "page", real)
    drifted.change_rows("UPDATE jobs SET due_at = now()")
    again = run("verify", "acme")

    assert (stopped.code, left.state) == (1, "due")
    assert "the workers continue the comparison" in stopped.err
    assert "see the result: pipeline verify acme" in stopped.err
    assert [row.id for row in drifted.rows("SELECT id FROM jobs WHERE kind = 'verify'")] == [left.id]
    assert any(line.startswith("2 differences: ") for line in again.out.splitlines())


def test_leaves_the_reserve_of_the_day_alone(drifted: SyncSystem, run: Run) -> None:
    drifted.change_settings(daily_tokens=30, live_reserve=0.5)
    asked = len(drifted.rows("SELECT 1 FROM token_ledger WHERE lane = 'verify'"))

    result = run("verify", "acme")

    assert result.code == 1
    assert "daily budget of tokens is spent; the comparison continues automatically" in result.err
    assert asked == len(drifted.rows("SELECT 1 FROM token_ledger WHERE lane = 'verify'")) == 0


def test_its_tokens_are_counted_in_a_lane_of_its_own(drifted: SyncSystem, run: Run) -> None:
    run("verify", "acme")

    spent = drifted.rows("SELECT operation, tokens FROM token_ledger WHERE lane = 'verify' ORDER BY operation")
    assert [tuple(row) for row in spent] == [("fields", 20), ("list", 30)]


def test_bad_usage_ends_with_2(drifted: SyncSystem, run: Run) -> None:
    assert [run("verify", *words).code for words in (("nobody",), ("acme", "--sample", "0"))] == [2, 2]


def test_the_cost_is_unknown_before_the_first_fetch(system: SyncSystem, run: Run) -> None:
    system.company.create_person(name="Ada")

    assert "not known before the first full fetch" in run("verify", "acme").out
