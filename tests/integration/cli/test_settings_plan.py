"""`pipeline settings plan`, `plans`, `plan-items`, `apply` and `discard`; `pipeline runs confirm`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import Run
from tests.journeys.planning import FIRST_NAME, hundred, known, with_more
from tests.system import SyncSystem

__all__ = ["hundred", "known"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Settings with one more incoming attribute."""
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(with_more("incoming_user_attributes", FIRST_NAME)))
    return str(path)


def test_the_command_line_plans_and_applies(known: SyncSystem, run: Run, file: str) -> None:
    plan = run("settings", "plan", "acme", file, "--wait", "--json").json
    assert plan["sentence"].startswith("6 Users would be updated (pipedrive/given)")
    assert [each["id"] for each in run("settings", "plans", "acme", "--json").json["plans"]] == [plan["id"]]
    assert f"settings apply acme {plan['id']}" in run("settings", "show-plan", "acme", str(plan["id"])).out
    assert run("settings", "apply", "acme", str(plan["id"]), "--json").json["settings_version"] == 2
    known.work()
    assert known.users()[1]["pipedrive/given"] == "Person"


def test_a_plan_is_read_and_computed_again(known: SyncSystem, run: Run, file: str) -> None:
    assert known
    plan = run("settings", "plan", "acme", file, "--wait", "--json").json
    look = ("settings", "plan-items", "acme", str(plan["id"]), "incoming", "person")

    again = run("settings", "plan-again", "acme", str(plan["id"]), "--wait", "--json").json

    assert len(run(*look, "--act", "update", "--json").json["items"]) == 6
    assert run(*look, "--act", "error", "--json").json["items"] == []
    assert len(run(*look, "--field", "pipedrive/given", "--json").json["items"]) == 6
    assert run(*look, "--field", "nobody", "--json").json["items"] == []
    assert "Next page: --after" in run(*look, "--limit", "2").out
    assert again["id"] != plan["id"]
    assert again["document"] == plan["document"]
    assert run("settings", "plan-again", "acme", "99").code == 2
    assert run("settings", "plan", "acme").code == 2


def test_mappings_are_suggested(known: SyncSystem, run: Run) -> None:
    assert known
    found = run("settings", "suggest", "acme", "--json").json["suggestions"]

    assert ("phone", "phone") in {(each["hull"], each["service"]) for each in found["outgoing_user_attributes"]}
    assert all(each["hull"] and each["service"] for rows in found.values() for each in rows)
    assert "phone" in run("settings", "suggest", "acme").out


def test_a_plan_is_discarded_once(known: SyncSystem, run: Run, file: str) -> None:
    assert known
    plan = run("settings", "plan", "acme", file, "--json").json

    assert run("settings", "discard", "acme", str(plan["id"])).code == 0
    assert run("settings", "discard", "acme", str(plan["id"])).code == 1
    assert run("settings", "apply", "acme", str(plan["id"])).code == 1


def test_the_number_of_records_is_asked_for(hundred: SyncSystem, run: Run, file: str) -> None:
    plan = run("settings", "plan", "acme", file, "--wait", "--json").json
    apply = ("settings", "apply", "acme", str(plan["id"]))

    wrong = run(*apply, text="7\n")
    typed = run(*apply, "--number", "7")

    assert (wrong.code, "changes 101 of the known records" in wrong.err) == (1, True)
    assert (typed.code, "this would change 101 of 101 known Persons" in typed.err) == (1, True)
    assert run(*apply, text="101\n").code == 0
    assert hundred.rows("SELECT state FROM plans")[0].state == "applied"


def test_a_run_that_needs_approval_is_confirmed_by_its_number(hundred: SyncSystem, run: Run, file: str) -> None:
    result = run("settings", "set", "acme", file)
    held = run("runs", "held", "acme", "--json").json["runs"]

    assert f"pipeline runs confirm acme {held[0]['run_id']}" in result.out
    assert run("runs", "confirm", "acme", str(held[0]["run_id"]), text="\n").code == 1
    assert run("runs", "confirm", "acme", str(held[0]["run_id"]), "--yes").code == 0
    assert run("runs", "confirm", "acme", str(held[0]["run_id"]), "--yes").code == 2
    hundred.work()
    assert hundred.users()[1]["pipedrive/given"] == "Person"
