"""`pipeline settings plan`, `plans`, `apply` and `discard`; `pipeline runs confirm`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import Run
from tests.journeys.people import fill
from tests.journeys.planning import FIRST_NAME, with_more
from tests.journeys.told_by_hull import know_everything
from tests.world import World


@pytest.fixture
def known(world: World) -> World:
    """Six Persons and two Organizations, known on both sides."""
    fill(world, persons=6, organizations=2)
    know_everything(world)
    return world


def test_the_command_line_plans_and_applies(known: World, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(with_more("incoming_user_attributes", FIRST_NAME)))

    plan = run("settings", "plan", "acme", str(file), "--wait", "--show", "2", "--json").json
    assert plan["sentence"].startswith("6 Users would be updated (pipedrive/given)")
    assert len(plan["items"]["incoming.person"]) == 2
    assert [each["id"] for each in run("settings", "plans", "acme", "--json").json] == [plan["id"]]
    assert run("settings", "apply", "acme", str(plan["id"]), "--json").json["settings_version"] == 2
    known.work()
    assert known.users()[1]["pipedrive/given"] == "Person"


def test_a_plan_is_looked_through_and_made_again(known: World, run: Run, tmp_path: Path) -> None:
    assert known
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(with_more("incoming_user_attributes", FIRST_NAME)))
    plan = run("settings", "plan", "acme", str(file), "--wait", "--json").json
    look = ("settings", "plans", "acme", "--id", str(plan["id"]), "--show", "50", "--json")

    again = run("settings", "plan", "acme", "--again", str(plan["id"]), "--wait", "--json").json

    assert len(run(*look, "--act", "update").json["items"]["incoming.person"]) == 6
    assert run(*look, "--act", "error").json["items"]["incoming.person"] == []
    assert len(run(*look, "--field", "pipedrive/given").json["items"]["incoming.person"]) == 6
    assert run(*look, "--field", "nobody").json["items"]["incoming.person"] == []
    assert again["id"] != plan["id"]
    assert again["document"] == plan["document"]
    assert run("settings", "plan", "acme", "--again", "99").code == 2
    assert run("settings", "plan", "acme").code == 2


def test_mappings_are_suggested(known: World, run: Run) -> None:
    assert known
    found = run("settings", "suggest", "acme", "--json").json

    assert ("phone", "phone") in {(each["hull"], each["service"]) for each in found["outgoing_user_attributes"]}
    assert all(each["hull"] and each["service"] for rows in found.values() for each in rows)
    assert "phone" in run("settings", "suggest", "acme").out


def test_a_plan_is_discarded_once(known: World, run: Run, tmp_path: Path) -> None:
    assert known
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(with_more("incoming_user_attributes", FIRST_NAME)))
    plan = run("settings", "plan", "acme", str(file), "--json").json

    assert run("settings", "discard", "acme", str(plan["id"])).code == 0
    assert run("settings", "discard", "acme", str(plan["id"])).code == 2
    assert run("settings", "apply", "acme", str(plan["id"])).code == 1
