"""Settings: refused whole with every mistake named, kept as versions, never changed in place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from tests.command_line import CommandResult, Run
from tests.system import SyncSystem


@pytest.fixture
def fields(system: SyncSystem, run: Run) -> SyncSystem:
    """The system once its field definitions were read."""
    run("fetch", "all", "acme")
    system.work()
    return system


def code_of(system: SyncSystem, name: str) -> str:
    rows = system.rows("SELECT rows FROM field_definitions WHERE entity = 'person'")[0].rows
    return next(str(row["field_code"]) for row in rows if row["field_name"] == name)


def put(run: Run, document: object, *more: str) -> CommandResult:
    return run("settings", "set", "acme", "-", *more, text=json.dumps(document))


def test_what_is_shown_can_be_set_and_unchanged_makes_no_version(system: SyncSystem, run: Run) -> None:
    shown = run("settings", "show", "acme").out

    result = run("settings", "set", "acme", "-", text=shown)

    assert (result.code, result.out) == (0, "Nothing differs from version 1, which stays in force.\n")
    assert [row.version for row in system.rows("SELECT version FROM settings_versions")] == [1]
    assert system.rows("SELECT 1 FROM jobs") == []


@pytest.mark.guide(
    "Configure your Pipedrive Connector",
    "Invalid settings are refused as a whole, with every mistake named.",
)
@pytest.mark.guide(
    "I didn't get any Pipedrive organization/person data in Hull",
    "a field that Pipedrive does not have is refused with its name when it is entered.",
)
def test_every_mistake_is_named_at_once(fields: SyncSystem, run: Run) -> None:
    result = put(
        run,
        {
            "full_fetch_cron": "every day",
            "incoming_user_attributes": [{"hull": "a", "service": "emial"}, {"hull": "b", "service": "job titel"}],
            "account_claims": [{"hull": "domain", "service": "web-site"}],
        },
    )

    assert result.code == 1
    assert "full_fetch_cron: 'every day' is not valid: write five cron fields" in result.err
    assert "incoming_user_attributes, row 1: Pipedrive has no Person field 'emial'; did you mean email" in result.err
    assert f"{code_of(fields, 'Job title')} (Job title)" in result.err
    assert "account_claims, row 1: Pipedrive has no Organization field 'web-site'; did you mean website?" in result.err


def test_mistakes_of_shape_and_of_content_are_named_together(fields: SyncSystem, run: Run) -> None:
    result = put(
        run,
        {
            "full_fetch_cron": "2am",
            "incoming_user_attributes": [{"hull": "a", "service": "name"}, {"hull": "b", "pipedrive": "name"}],
            "incoming_account_attributes": [{"hull": "a", "service": "industri"}],
        },
    )

    assert result.code == 1
    assert "incoming_user_attributes, row 2: `service` is missing" in result.err
    assert "incoming_user_attributes, row 2: unknown key `pipedrive`" in result.err
    assert "incoming_account_attributes, row 1: Pipedrive has no Organization field 'industri'" in result.err
    assert "full_fetch_cron: '2am' is not valid: write five cron fields" in result.err


def test_a_shape_that_is_wrong_is_refused(system: SyncSystem, run: Run) -> None:
    result = put(
        run, {"user_claims": [{"hull": "domain", "service": "x"}], "colour": "red", "link_users_in_hull": "maybe"}
    )

    assert result.code == 1
    assert all(name in result.err for name in ("colour", "link_users_in_hull"))


def test_force_takes_over_a_field_that_is_not_there_yet(fields: SyncSystem, run: Run) -> None:
    document = {"incoming_user_attributes": [{"hull": "a", "service": "f" * 40}]}

    assert put(run, document).code == 1
    assert put(run, document, "--force").code == 0


@pytest.mark.parametrize("file", ["missing.json", "-"])
def test_what_is_no_json_object_is_bad_usage(file: str, system: SyncSystem, run: Run) -> None:
    assert run("settings", "set", "acme", file, text="[1]").code == 2


def test_equal_settings_make_no_version(system: SyncSystem, run: Run) -> None:
    first = put(run, {"link_users_in_hull": False}, "--json").json
    again = put(run, {"link_users_in_hull": False}, "--json").json

    assert (first["version"], first["changed"]) == (2, True)
    assert (again["version"], again["changed"]) == (2, False)


def test_the_history_shows_authors_and_changes(system: SyncSystem, run: Run) -> None:
    put(run, {**run("settings", "show", "acme").json, "support_user_deletion": True})
    newest = run("settings", "history", "acme", "--json").json["versions"][0]

    assert (newest["version"], newest["changed"]) == (2, ["support_user_deletion"])
    assert newest["author"].endswith("(command line)")
    assert "support_user_deletion" in run("settings", "history", "acme").out


def test_a_review_shows_what_a_file_would_change(system: SyncSystem, run: Run, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text(
        json.dumps({**run("settings", "show", "acme").json, "link_users_in_hull": False})
    )
    result = run("settings", "review", "acme", str(tmp_path / "new.json"))

    assert result.code == 0
    assert "Link Users to Accounts in Hull: on → off" in result.out
    assert '-  "link_users_in_hull": true' in result.out
    assert '+  "link_users_in_hull": false' in result.out
    assert run("settings", "history", "acme", "--json").json["versions"][0]["version"] == 1


def test_versions_are_compared_and_an_earlier_one_is_put_in_force_again(system: SyncSystem, run: Run) -> None:
    before = run("settings", "show", "acme").json
    put(run, {**before, "link_users_in_hull": False})

    compared = run("settings", "diff", "acme", "--before", "1", "--after", "2")
    back = run("settings", "roll-back", "acme", "1", "--why", "too early")

    assert '-  "link_users_in_hull": true' in compared.out
    assert (back.code, "Version 3 is in force, with the content of version 1." in back.out) == (0, True)
    assert run("settings", "show", "acme").json == before
    assert run("settings", "roll-back", "acme", "9").code == 2


def test_a_save_on_an_older_version_is_refused(system: SyncSystem, run: Run) -> None:
    put(run, {"link_users_in_hull": False})
    late = put(run, {}, "--base-version", "1")

    assert late.code == 1
    assert "is in force now" in late.err


def test_consequences_are_shown_and_start_immediately_with_yes(fields: SyncSystem, run: Run) -> None:
    fields.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    fields.fetch(Entity.PERSON)
    document = run("settings", "show", "acme").json
    document["incoming_user_attributes"].append({"hull": "pipedrive/given", "service": "first_name"})

    result = put(run, document, "--yes")

    assert "1 Persons get what is new from what is stored, for no tokens" in result.out


def test_a_mapping_and_a_schedule_are_tried(fields: SyncSystem, run: Run, tmp_path: Path) -> None:
    fields.company.create_person(name="Ada", emails=[{"value": "ada@acme.com", "primary": True}])
    fields.fetch(Entity.PERSON)
    (tmp_path / "rows.json").write_text(json.dumps([{"hull": "pipedrive/name", "service": "name"}]))

    tried = run("settings", "try-rows", "acme", "incoming_user_attributes", str(tmp_path / "rows.json"))

    assert "Ada" in tried.out
    assert "Ada" in run("settings", "try", "acme", "incoming_user_attributes", "--record", "1").out
    assert "UTC" in run("settings", "try-schedule", "acme", "15 2 * * *").out
    assert run("settings", "try", "acme", "daily_tokens").code == 2


def test_what_settings_are_made_of_is_listed(fields: SyncSystem, run: Run) -> None:
    fields.hull.define_segment("user", "Trial users", [])

    assert "Job title" in run("fields", "list", "acme", "person").out
    assert run("segments", "list", "acme", "--json").json["trouble"] == ""


def test_earlier_versions_stay(system: SyncSystem, run: Run) -> None:
    before = run("settings", "show", "acme").json
    put(run, {})

    assert run("settings", "show", "acme", "--version", "1").json == before
    assert run("settings", "show", "acme", "--version", "9").code == 2


def schedules(run: Run, kind: str) -> list[dict[str, Any]]:
    listed = run("connectors", "schedules", "acme", "--json").json["schedules"]
    return [each for each in listed if each["kind"] == kind]


@pytest.mark.guide(
    "Incoming Users",
    "Every night everything is fetched again; Schedule of full fetches sets another time or switches it off.",
)
def test_a_cron_plans_the_next_full_fetch_and_an_empty_one_ends_it(system: SyncSystem, run: Run) -> None:
    put(run, {"full_fetch_cron": "15 2 * * *"})
    (planned,) = schedules(run, "full_fetch")
    put(run, {"full_fetch_cron": ""})

    assert (planned["cron"], planned["next_at"][11:16]) == ("15 2 * * *", "02:15")
    assert schedules(run, "full_fetch") == []


@pytest.mark.parametrize("more", [(), ("--force",)])
def test_rows_that_cannot_both_be_carried_out_are_refused_by_name(
    system: SyncSystem, run: Run, more: tuple[str, ...]
) -> None:
    rows = [{"hull": "nickname", "service": "name"}, {"hull": "given", "service": "first_name"}]
    result = put(run, {"outgoing_user_attributes": rows}, *more)

    assert result.code == 1
    assert "outgoing_user_attributes, row 2: the row of nickname and name writes the whole name" in result.err
