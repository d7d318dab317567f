"""Replays from the command line: the same machinery as the console, with a summary at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Rejected
from tests.command_line import Run
from tests.journeys.test_replays import advance, broken, give_up, mended
from tests.world import World


def test_failures_stand_by_cause_with_verdicts(world: World, run: Run) -> None:
    broken(world, 10, 11)

    (group,) = run("failures", "groups", "--connector", "acme", "--verdict", "--json").json
    said = run("failures", "groups", "--verdict")

    assert (group["reason"], group["count"], group["verdicts"]) == ("no_update_time", 2, {"fails_again": 2})
    assert "2 would fail again; about 10 tokens" in said.out
    assert len(run("failures", "list", "--group", group["fingerprint"], "--json").json) == 2
    assert run("failures", "list", "--direction", "outgoing", "--json").json == []


def test_an_empty_list_says_whether_a_filter_made_it_so(world: World, run: Run) -> None:
    assert run("failures", "list").out.startswith("No failure: everything was carried over.")

    broken(world, 10)

    assert run("failures", "list", "--reason", "wrong_typ").out.startswith("No failure is like that")
    assert run("failures", "groups", "--reason", "wrong_typ").out.startswith("No failure is like that")


def test_verdicts_are_said_before_anything_is_replayed(world: World, run: Run) -> None:
    broken(world, 10)

    listed = run("failures", "list", "--verdict", "--json").json
    dry = run("failures", "replay", "--connector", "acme", "--dry-run", "--verdict")

    assert listed[0]["verdict"]["kind"] == "fails_again"
    assert "1 would fail again; about 10 tokens" in dry.out
    assert "would fail again" in run("failures", "show", "1").out
    assert world.rows("SELECT 1 FROM replays") == []


def test_a_replay_is_followed_to_its_end(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(world, 10, 11)
    mended(world, 10)
    monkeypatch.setattr("pipeline.cli.failure_replays.time.sleep", lambda _seconds: advance(world))

    said = run("failures", "replay", "--connector", "acme", "--throttle", "100", "--wait", "--json")

    assert said.json["counts"] == {"came_through": 1, "failed_again": 1}
    assert said.code == 1, "something failed again"
    (replay,) = run("failures", "replays", "list", "acme", "--json").json
    assert (replay["state"], replay["total"]) == ("done", 2)
    shown = run("failures", "replays", "show", "1", "--state", "failed_again", "--json").json
    assert [each["new_failure_id"] for each in shown["items"]] == [3]


def test_a_replay_is_paused_resumed_and_aborted(world: World, run: Run) -> None:
    broken(world, 10, 11, 12)
    begun = run("failures", "replay", "--connector", "acme", "--throttle", "1", "--json").json

    states = [run("failures", "replays", act, "1", "--json").json["state"] for act in ("pause", "resume", "abort")]

    assert begun["counts"] == {"sent": 1, "waiting": 2}
    assert states == ["paused", "running", "aborted"]
    assert run("failures", "replays", "pause", "1").code == 1
    assert run("failures", "replays", "pause", "9").code == 2
    acts = [row.action for row in world.rows("SELECT action FROM audit_log ORDER BY id")]
    assert acts == ["failures.replay", "replay.pause", "replay.resume", "replay.abort"]


def test_a_replay_that_stopped_says_why_and_is_resumed(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(world, 10)
    mended(world, 10)
    mend = give_up(world, monkeypatch, Rejected("refused_by_pipedrive", "said no"))

    begun = run("failures", "replay", "--connector", "acme", "--wait", "--json")
    told = run("failures", "replays", "show", "1")
    mend()
    resumed = run("failures", "replays", "resume", "1", "--json").json
    advance(world)

    assert (begun.code, begun.json["stopped"]) == (1, {"1": "refused_by_pipedrive"})
    assert "refused_by_pipedrive: Pipedrive read the write and refused it. said no" in told.out
    assert "pipeline failures replays resume 1" in told.out
    assert (resumed["state"], resumed["reason"]) == ("running", None)
    (replay,) = run("failures", "replays", "list", "acme", "--json").json
    assert (replay["state"], replay["reason"], replay["counts"]) == ("done", None, {"came_through": 1})


def test_a_correction_is_checked(world: World, run: Run, tmp_path: Path) -> None:
    broken(world, 10)
    (tmp_path / "payload.json").write_text(json.dumps({"id": 10}))

    said = run("failures", "replay", "--id", "1", "--edit", str(tmp_path / "payload.json"))

    assert said.code == 1
    assert "the payload will not do" in said.err
    assert world.rows("SELECT 1 FROM replays") == []


def test_discarding_is_written_down(world: World, run: Run) -> None:
    broken(world, 10)
    found: Any = run("failures", "discard", "--connector", "acme", "--entity", "person", "--why", "x", "--json").json

    assert found["discarded"] == [1]
    assert world.rows("SELECT action, why FROM audit_log")[0].why == "x"
