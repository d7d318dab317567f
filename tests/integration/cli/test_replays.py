"""Replays from the command line: the same machinery as the console, with a summary at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import Rejected
from tests.command_line import Run
from tests.integration.console.test_failures import refused
from tests.journeys.hull_messages import person
from tests.journeys.test_replays import advance, broken, fail_job, fixed
from tests.system import SyncSystem


def test_failures_are_grouped_by_cause(system: SyncSystem, run: Run) -> None:
    broken(system, 10, 11)

    (group,) = run("failures", "groups", "acme", "--json").json["groups"]
    result = run("failures", "groups", "acme")
    chosen = run("failures", "list", "acme", "--fingerprint", group["fingerprint"], "--json").json["failures"]

    assert (group["reason"], group["count"]) == ("no_update_time", 2)
    assert f"2 incoming person no_update_time  (--fingerprint {group['fingerprint']})" in result.out
    assert len(chosen) == 2
    assert run("failures", "list", "acme", "--direction", "outgoing", "--json").json == {"failures": []}


def test_an_empty_list_shows_whether_a_filter_is_the_reason(system: SyncSystem, run: Run) -> None:
    assert run("failures", "list", "acme").out.startswith("No failures: everything was synchronized.")

    broken(system, 10)

    assert run("failures", "list", "acme", "--reason", "wrong_typ").out.startswith("No failure matches")
    assert run("failures", "groups", "acme", "--reason", "wrong_typ").out.startswith("No failure matches")


def test_a_replay_is_previewed_before_it_starts(system: SyncSystem, run: Run) -> None:
    broken(system, 10)

    listed = run("failures", "list", "acme", "--json").json["failures"]
    preview = run("failures", "preview", "acme")

    assert listed[0]["preview"]["kind"] == "fails_again"
    assert preview.out == "1 open. If replayed now: 1 would fail again; about 10 tokens\n"
    assert "would fail again" in run("failures", "show", "acme", "1").out
    assert "would fail again" in run("failures", "list", "acme").out
    assert system.rows("SELECT 1 FROM replays") == []


def test_a_replay_is_followed_to_its_end(system: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(system, 10, 11)
    fixed(system, 10)
    monkeypatch.setattr("pipeline.cli.rendering_failures.time.sleep", lambda _seconds: advance(system))

    result = run("failures", "replay", "acme", "--per-second", "100", "--wait", "--json")

    assert result.json["counts"] == {"came_through": 1, "failed_again": 1}
    assert result.code == 1, "something failed again"
    (replay,) = run("failures", "replays", "list", "acme", "--json").json["replays"]
    assert (replay["state"], replay["total"]) == ("done", 2)
    shown = run("failures", "replays", "items", "acme", "1", "--state", "failed_again", "--json").json
    assert [each["new_failure_id"] for each in shown["items"]] == [3]
    assert "2 items: 1 succeeded, 1 failed again." in run("failures", "replays", "list", "acme").out


def test_a_replay_is_paused_resumed_and_aborted(system: SyncSystem, run: Run) -> None:
    broken(system, 10, 11, 12)
    begun = run("failures", "replay", "acme", "--per-second", "1", "--json").json

    done = [run("failures", "replays", act, "acme", "1").out for act in ("pause", "resume", "abort")]

    assert begun["counts"] == {"sent": 1, "waiting": 2}
    assert done == [f"Replay 1 is {state}.\n" for state in ("paused", "resumed", "aborted")]
    assert run("failures", "replays", "pause", "acme", "1").code == 1
    assert run("failures", "replays", "pause", "acme", "9").code == 2
    acts = [row.action for row in system.rows("SELECT action FROM audit_log ORDER BY id")]
    assert acts == ["failures.replay", "replay.pause", "replay.resume", "replay.abort"]


def test_a_stopped_replay_has_a_reason_and_is_resumed(
    system: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(system, 10)
    fixed(system, 10)
    repair = fail_job(system, monkeypatch, Rejected("refused_by_pipedrive", "said no"))

    begun = run("failures", "replay", "acme", "--wait", "--json")
    answer = run("failures", "replays", "show", "acme", "1")
    repair()
    assert run("failures", "replays", "resume", "acme", "1", "--json").json == {"done": "resumed"}
    resumed = run("failures", "replays", "show", "acme", "1", "--json").json
    advance(system)

    assert (begun.code, begun.json["reason"]) == (1, "refused_by_pipedrive")
    assert "refused_by_pipedrive: Pipedrive refused the write. said no" in answer.out
    assert "pipeline failures replays resume acme 1" in answer.out
    assert (resumed["state"], resumed["reason"]) == ("running", None)
    (replay,) = run("failures", "replays", "list", "acme", "--json").json["replays"]
    assert (replay["state"], replay["reason"], replay["counts"]) == ("done", None, {"came_through": 1})


def test_a_correction_is_checked(system: SyncSystem, run: Run, tmp_path: Path) -> None:
    broken(system, 10)
    (tmp_path / "payload.json").write_text(json.dumps({"id": 10}))
    file = ("--payload-file", str(tmp_path / "payload.json"))

    tried = run("failures", "try-payload", "acme", "1", *file)
    result = run("failures", "replay-edited", "acme", "1", *file, "--why", "x")

    assert (tried.code, result.code) == (1, 1)
    assert "Only open failures of outgoing records can be corrected here." in result.err
    assert system.rows("SELECT 1 FROM replays") == []


def test_a_payload_is_corrected_and_sent(system: SyncSystem, run: Run, tmp_path: Path) -> None:
    failure_id = str(refused(system, name="Wrong"))
    payload = run("failures", "show", "acme", failure_id, "--json").json["payload"]
    payload["user"]["nickname"] = "Right"
    (tmp_path / "payload.json").write_text(json.dumps(payload))
    file = ("--payload-file", str(tmp_path / "payload.json"))

    tried = run("failures", "try-payload", "acme", failure_id, *file)
    sent = run("failures", "replay-edited", "acme", failure_id, *file, "--why", "a typo")
    advance(system)

    assert "user.nickname" in tried.out
    assert "Right" in tried.out
    assert "If replayed now, would change" in tried.out
    assert sent.code == 0
    assert person(system, 1)["name"] == "Right"


def test_a_field_that_a_payload_has_twice_is_a_mistake(system: SyncSystem, run: Run, tmp_path: Path) -> None:
    failure_id = str(refused(system))
    (tmp_path / "payload.json").write_text('{"user": {"id": "a", "id": "b"}}')

    result = run("failures", "try-payload", "acme", failure_id, "--payload-file", str(tmp_path / "payload.json"))

    assert result.code == 2
    assert "'id' is given twice" in result.err


def test_discarding_is_written_down(system: SyncSystem, run: Run) -> None:
    broken(system, 10)
    done = run("failures", "discard", "acme", "--entity", "person", "--why", "x", "--json").json

    assert done == {"done": "discarded", "count": 1}
    (entry,) = system.rows("SELECT subject, why, detail FROM audit_log")
    assert tuple(entry) == ("entity person", "x", {"failures": 1})
