"""Runs, mappings, events and failures: what an operator can see, and undo."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Run
from tests.system import SyncSystem


@pytest.fixture
def fetched(system: SyncSystem, run: Run) -> SyncSystem:
    """Ada is in Hull, with a shell for her Organization Acme; Person 77 could not be read."""
    acme = system.company.create_organization(name="Acme")["id"]
    system.company.create_person(name="Ada", org_id=acme, emails=[{"value": "ada@acme.com", "primary": True}])
    system.company.put_raw("person", {"id": 77, "name": "Nobody knows when"})
    run("fetch", "persons", "acme")
    system.work()
    return system


def failures(run: Run, *more: str) -> list[dict[str, Any]]:
    return [each["failure"] for each in run("failures", "list", "acme", "--json", *more).json["failures"]]


def values_of(event: dict[str, Any]) -> dict[str, Any]:
    """The values of an event's fields after it."""
    return {each["name"]: each["after"] for each in event["changes"]}


def test_runs_are_listed_newest_first(fetched: SyncSystem, run: Run) -> None:
    run("fetch", "persons", "acme")
    listed = run("runs", "list", "acme", "--json").json["runs"]

    assert [(each["id"], each["state"]) for each in listed] == [(2, "running"), (1, "done")]
    assert run("runs", "list", "acme").code == 0


def test_a_run_shows_its_walks(fetched: SyncSystem, run: Run) -> None:
    shown = run("runs", "show", "acme", "1", "--json").json
    failed = shown["run"]["counts"]["failed"]

    assert len(shown["walks"]) == 3
    assert failed > 0
    assert f"{failed} failed" in run("runs", "show", "acme", "1").out
    assert f"{failed} failed" in run("runs", "status", "acme", "1").out


def test_runs_are_filtered_as_in_the_console(fetched: SyncSystem, run: Run) -> None:
    run("fetch", "organizations", "acme")

    def listed(*flags: str) -> list[int]:
        return [each["id"] for each in run("runs", "list", "acme", "--json", *flags).json["runs"]]

    assert listed("--entity", "organization") == [2]
    assert listed("--state", "done") == [1]
    assert listed("--kind", "incremental") == []
    assert listed("--before", "2") == [1]


def test_a_run_shows_its_batches_and_what_failed_in_it(fetched: SyncSystem, run: Run) -> None:
    shown = run("runs", "show", "acme", "1", "--json").json
    (failure,) = shown["failures"]
    result = run("runs", "show", "acme", "1").out

    assert shown["batch_states"] == {"done": len(fetched.rows("SELECT 1 FROM batches WHERE slice_id IS NOT NULL"))}
    assert (failure["record_id"], failure["reason"]) == ("77", "no_update_time")
    assert f"failure {failure['id']}: person 77 at transform, no_update_time." in result


def test_a_batch_is_shown(fetched: SyncSystem, run: Run) -> None:
    (number,) = {row.batch_id for row in fetched.rows("SELECT batch_id FROM failures")}
    shown = run("runs", "batch", "acme", str(number), "--json").json

    assert (shown["batch"]["state"], shown["run_id"], shown["is_abandoned"]) == ("done", 1, False)
    assert [each["record_id"] for each in shown["failures"]] == ["77"]
    assert f"Batch {number}, incoming person: done" in run("runs", "batch", "acme", str(number)).out
    assert run("runs", "batch", "acme", "9999").code == 2


def test_a_run_can_be_cancelled_once(fetched: SyncSystem, run: Run) -> None:
    run("fetch", "organizations", "acme")

    assert run("runs", "cancel", "acme", "2", "--json").json == {"done": "cancelled"}
    assert run("runs", "cancel", "acme", "2").code == 1


def test_a_run_that_does_not_exist_ends_with_2(system: SyncSystem, run: Run) -> None:
    assert [run("runs", verb, "acme", "9").code for verb in ("show", "cancel")] == [2, 2]


def test_mappings_are_counted_with_and_without_hull_id(fetched: SyncSystem, run: Run) -> None:
    assert run("mappings", "count", "acme", "--json").json["counts"] == [
        {"entity": "organization", "state": "shell", "records": 1, "with_hull_id": 0, "without_hull_id": 1},
        {"entity": "person", "state": "full", "records": 1, "with_hull_id": 0, "without_hull_id": 1},
    ]


def test_a_mapping_shows_what_was_delivered(fetched: SyncSystem, run: Run) -> None:
    ada = min(fetched.users())
    shown = run("mappings", "show", "acme", str(ada), "--json").json["mappings"]

    assert next(each for each in shown if each["entity"] == "person")["delivered"]["pipedrive/name"] == "Ada"
    assert 'pipedrive/name: "Ada"' in run("mappings", "show", "acme", str(ada)).out


def test_an_unknown_record_fails_with_the_next_step(fetched: SyncSystem, run: Run) -> None:
    result = run("mappings", "show", "acme", "4711")

    assert result.code == 2
    assert "pipeline fetch all acme" in result.err


def test_what_was_sent_by_hand_is_listed(fetched: SyncSystem, run: Run) -> None:
    (user,) = [each["id"] for each in fetched.users().values()]

    counted = run("sends", "count", "acme", "person", "--id", user)
    sent = run("send", "users", "acme", "--id", user, "--id", "f" * 24)
    fetched.run_jobs()

    assert "1 User would be sent" in counted.out
    assert (sent.code, "Hull does not know 1 of the ids" in sent.out) == (1, True)
    (listed,) = run("sends", "list", "acme", "--json").json["sends"]
    assert (listed["state"], listed["done"], listed["missing"]) == ("done", 1, 1)
    assert run("send", "users", "acme").code == 1


def test_events_are_found_by_record_and_by_name(fetched: SyncSystem, run: Run) -> None:
    ada = min(fetched.users())
    of_ada = run("events", "list", "acme", "--record", str(ada), "--event", "incoming.user.*", "--json").json["events"]
    errors = run("events", "list", "acme", "--event", "incoming.*.error", "--json").json["events"]

    assert [(each["event"], values_of(each)["pipedrive/name"]) for each in of_ada] == [("incoming.user.success", "Ada")]
    assert {(each["pipedrive_id"], each["reason"]) for each in errors} == {(77, "no_update_time")}


def test_events_have_the_reason(fetched: SyncSystem, run: Run) -> None:
    result = run("events", "list", "acme")

    assert "no_update_time: The record has no readable update time" in result.out
    assert 'pipedrive/name null → "Ada"' in result.out


def test_follow_continues_after_the_last_event(fetched: SyncSystem, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = min(fetched.users())

    def during_pause(_seconds: float) -> None:
        if len(fetched.rows("SELECT 1 FROM runs")) > 1:
            raise KeyboardInterrupt
        fetched.company.edit_person(ada, name="Ada Lovelace")
        run("fetch", "persons", "acme")
        fetched.work()

    monkeypatch.setattr("pipeline.cli.rendering_records.time.sleep", during_pause)
    result = run("events", "list", "acme", "--follow", "--limit", "1", "--event", "*.user.success", "--json")

    assert result.code == 0
    assert [values_of(json.loads(line))["pipedrive/name"] for line in result.out.splitlines()] == [
        "Ada",
        "Ada Lovelace",
    ]


def test_events_are_exported_as_in_the_console(fetched: SyncSystem, run: Run, tmp_path: Path) -> None:
    fetched.change_rows("UPDATE sync_events SET detail = '=1+1' WHERE pipedrive_id = 77")

    def exported(*options: str) -> list[dict[str, str]]:
        done = run("events", "export", "acme", "--format", "csv", "--wait", *options)
        assert done.code == 0, done.err
        path = Path(done.out.removeprefix("Written: ").strip())
        found = list(csv.DictReader(io.StringIO(path.read_text())))
        path.unlink()
        return found

    with contextlib.chdir(tmp_path):
        rows, refused = exported(), exported("--outcome", "error")
        older = exported("--before", rows[0]["id"])

    assert [row["pipedrive_id"] for row in refused] == ["77"]
    assert refused[0]["detail"] == "'=1+1"
    assert len(rows) > len(refused)
    assert older == rows[1:]


def test_an_export_is_downloaded_once_a_worker_has_written_it(fetched: SyncSystem, run: Run) -> None:
    begun = run("events", "export", "acme", "--format", "jsonl", "--json").json["export"]
    number = str(begun["id"])

    assert (begun["state"], run("events", "download", "acme", number).code) == ("writing", 1)
    fetched.run_jobs()
    assert run("events", "export-status", "acme", number, "--json").json["export"]["state"] == "done"
    lines = run("events", "download", "acme", number, "--output", "-").out.splitlines()
    assert len(lines) == run("events", "export-status", "acme", number, "--json").json["export"]["events"] > 1


def test_an_event_is_shown_with_what_else_its_batch_did(fetched: SyncSystem, run: Run) -> None:
    (refused,) = run("events", "list", "acme", "--outcome", "error", "--json").json["events"]
    shown = run("events", "show", "acme", str(refused["id"]))

    assert "no_update_time" in shown.out
    assert "Save the record once in Pipedrive" in shown.out
    assert run("events", "show", "acme", "99999").code == 2


def test_events_after_an_id_are_listed_in_their_order(fetched: SyncSystem, run: Run) -> None:
    newest_first = [each["id"] for each in run("events", "list", "acme", "--json").json["events"]]
    after = run("events", "list", "acme", "--after", "0", "--limit", "1", "--json").json

    assert len(newest_first) > 1
    assert ([each["id"] for each in after["events"]], after["more"]) == (newest_first[-1:], newest_first[-1])
    rest = run("events", "list", "acme", "--after", str(after["more"]), "--json").json
    assert ([each["id"] for each in rest["events"]], rest["more"]) == (newest_first[-2::-1], None)


def test_a_failure_lists_its_replays_and_earlier_failures(fetched: SyncSystem, run: Run) -> None:
    (first,) = failures(run)
    run("failures", "replay", "acme", "--ids", str(first["id"]))
    fetched.work()
    fetched.change_rows("UPDATE jobs SET due_at = now()")
    fetched.run_jobs()
    (again,) = failures(run)

    shown = run("failures", "show", "acme", str(first["id"]), "--json").json
    assert [(each["replay_id"], each["state"]) for each in shown["replays"]] == [(1, "failed_again")]
    assert "replay 1: failed again." in run("failures", "show", "acme", str(first["id"])).out
    assert run("failures", "show", "acme", str(again["id"]), "--json").json["earlier"][0]["id"] == first["id"]


def test_a_failure_is_shown_with_its_payload(fetched: SyncSystem, run: Run) -> None:
    found = failures(run)
    shown = run("failures", "show", "acme", str(found[0]["id"]), "--json").json

    assert [(each["record_id"], each["reason"]) for each in found] == [("77", "no_update_time")]
    assert shown["payload"]["name"] == "Nobody knows when"
    assert "Save the record once in Pipedrive" in run("failures", "show", "acme", str(found[0]["id"])).out


def test_failures_are_filtered(fetched: SyncSystem, run: Run) -> None:
    assert failures(run, "--reason", "too_long") == []
    assert len(failures(run, "--entity", "person", "--since", "1h")) == 1
    assert failures(run, "--entity", "organization") == []


def test_a_preview_changes_nothing(fetched: SyncSystem, run: Run) -> None:
    assert run("failures", "preview", "acme", "--json").json["kinds"] == {"fails_again": 1}
    assert len(failures(run)) == 1


def test_a_corrected_record_is_replayed(fetched: SyncSystem, run: Run) -> None:
    fetched.company.put_raw(
        "person",
        {
            "id": 77,
            "name": "Bo",
            "update_time": "2026-09-01T00:00:00Z",
            "add_time": "2026-09-01T00:00:00Z",
            "emails": [],
            "phones": [],
            "owner_id": 1,
            "label_ids": [],
            "custom_fields": {},
        },
    )
    result = run("failures", "replay", "acme", "--reason", "no_update_time", "--why", "corrected", "--json")
    fetched.work()

    assert result.code == 0
    assert result.err == "1 open. If replayed now: 1 would fail again; about 10 tokens\n"
    assert (result.json["total"], result.json["why"]) == (1, "corrected")
    assert "waiting" not in result.json["counts"], "the command does a worker's part"
    assert fetched.users()[77]["pipedrive/name"] == "Bo"
    assert failures(run) == []


def test_a_record_that_fails_again_is_a_failure_again(fetched: SyncSystem, run: Run) -> None:
    run("failures", "replay", "acme")
    fetched.work()

    assert [each["record_id"] for each in failures(run)] == ["77"]


def test_discarding_needs_a_reason_and_keeps_it(fetched: SyncSystem, run: Run) -> None:
    assert run("failures", "discard", "acme").code == 2
    run("failures", "discard", "acme", "--why", "deleted by sales")
    closed = failures(run, "--state", "all")[0]

    assert (closed["state"], closed["closed_why"]) == ("discarded", "deleted by sales")


def test_closed_failures_are_not_replayed(fetched: SyncSystem, run: Run) -> None:
    run("failures", "discard", "acme", "--why", "x")

    assert run("failures", "replay", "acme").code == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("replay",),
        ("discard", "acme"),
        ("show", "acme", "9"),
        ("show", "acne", "9"),
        ("list", "acme", "--since", "long ago"),
    ],
)
def test_invalid_filters_are_bad_usage(wrong: tuple[str, ...], system: SyncSystem, run: Run) -> None:
    assert run("failures", *wrong).code == 2


def test_discards_no_more_failures_than_counted(fetched: SyncSystem, run: Run) -> None:
    fetched.company.put_raw("person", {"id": 78, "name": "Nor when this one"})
    run("fetch", "persons", "acme")
    fetched.work()

    assert run("failures", "discard", "acme", "--count", "1", "--why", "x").code == 1
    assert len(failures(run)) == 2


def test_secrets_are_encrypted_again(system: SyncSystem, run: Run) -> None:
    before = system.rows("SELECT name, ciphertext FROM credentials ORDER BY name")

    assert run("rotate-keys", "--json").json == {"renewed": 2, "keys_no_longer_needed": 0}
    after = system.rows("SELECT name, ciphertext FROM credentials ORDER BY name")
    assert [row.name for row in before] == [row.name for row in after]
    assert all(bytes(old.ciphertext) != bytes(new.ciphertext) for old, new in zip(before, after, strict=True))
    assert run("fetch", "persons", "acme").code == 0
