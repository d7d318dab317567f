"""Some days of the connector `demo` in a minute: a fetch, edits on both sides, new settings, failures of two causes, a plan.

All changes are made like people make them: in Pipedrive, in Hull, and on the command line.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import requests

from pipeline.domain.kinds import Entity
from tests.browser.running import RunningPipeline

Answer = TypeVar("Answer")
CONNECTOR = "demo"
PATIENCE_S = 60.0
WRONG_TITLE = "Account executive"
"""A job title that Pipedrive refuses, with all that is written beside it."""
LOSING = range(20, 28)
"""Persons; their Users get that title."""
BROKEN = 15
"""A Person that Pipedrive gives without a time."""
ADMIN, OPERATOR, VIEWER = "ana@acme.example", "bo@acme.example", "cyd@acme.example"


def live(running: RunningPipeline) -> None:
    """Make all changes, and return when they are done."""
    running.add_operator(ADMIN, "admin")
    running.command("fetch", "all", CONNECTOR, "--wait")
    put_in_force(running, outgoing_user_attributes={"lead_source": "Lead source", "owner": "Owner"})
    edit_in_pipedrive(running)
    edit_in_hull(running)
    fail_on_the_way_in(running)
    for number in (3, 5):
        running.remotes.delete_record(Entity.PERSON, number)
    leaver, corrected, *_ = wait_for(lambda: all_failures(running))
    refuse(running)
    running.command("failures", "discard", CONNECTOR, "--ids", str(leaver["id"]), "--why", "left the company")
    correct(running, corrected["id"])
    plan(
        running, outgoing_user_attributes={"plan": "Remarks"}, incoming_user_attributes={"pipedrive/remarks": "Remarks"}
    )


def edit_in_pipedrive(running: RunningPipeline) -> None:
    """Edit records like salespeople do."""
    for number, name in ((1, "Ada Lovelace"), (2, "Bo Chen"), (7, "Cyd Charisse"), (9, "Dora Maar")):
        running.remotes.edit_record(Entity.PERSON, number, {"name": name})
    titles = field_codes(running, Entity.PERSON)["Job title"]
    for number, title in ((1, "Countess"), (11, "Head of Data"), (12, "Buyer"), (13, "Managing director")):
        running.remotes.edit_record(Entity.PERSON, number, {"custom_fields": {titles: title}})
    running.remotes.edit_record(Entity.ORGANIZATION, 1, {"name": "Analytical Engines"})


def edit_in_hull(running: RunningPipeline) -> None:
    """Edit Users: most edits are sent, one label is unknown, and Pipedrive rejects some records."""
    users = known_users(running)
    for number in range(1, 9):
        edit_user(running, users[number], job_title="Head of Growth", lead_score=10 * number)
    for number in (1, 2, 4, 6):
        edit_user(running, users[number], lead_source="Podcast" if number > 2 else "Referral")
    refuse(running, *LOSING)
    for number in LOSING:
        edit_user(running, users[number], job_title=WRONG_TITLE)


def refuse(running: RunningPipeline, *numbers: int) -> None:
    """Have Pipedrive reject each change of these Persons without naming a field; without numbers, of none."""
    body = {"success": False, "error": "An automation does not let this record be changed."}
    rule = {"kind": "status", "method": "PATCH", "status": 400, "count": None, "body": body}
    rules = [{**rule, "path": f"/persons/({'|'.join(map(str, numbers))})$"}] if numbers else []
    requests.post(f"{running.sandbox['pipedrive_url']}/__sandbox__/faults", json=rules, timeout=20).raise_for_status()


def fail_on_the_way_in(running: RunningPipeline) -> None:
    """Fetch a Person without a readable time."""
    now, record = datetime.now(UTC), running.remotes.records(Entity.PERSON)[BROKEN]
    running.remotes.put_record(Entity.PERSON, {**record, "update_time": "lately", "add_time": None})
    running.command("fetch", "persons", CONNECTOR, "--since", now.isoformat())


def correct(running: RunningPipeline, failure_id: int) -> None:
    """Correct the User's title, and replay it."""
    payload = json.dumps(running.command("failures", "show", CONNECTOR, str(failure_id))["payload"])
    file = running.data_dir / "payload.json"
    file.write_text(payload.replace(WRONG_TITLE, "Account director"))
    words = (CONNECTOR, str(failure_id), "--payload-file", str(file), "--why", "the title was wrong")
    running.command("failures", "replay-edited", *words, "--wait")


def put_in_force(running: RunningPipeline, **rows: dict[str, str]) -> None:
    """Map more fields: setting → attribute → the name of the field."""
    running.command("settings", "set", CONNECTOR, str(_settings_file(running, rows)))


def plan(running: RunningPipeline, **rows: dict[str, str]) -> dict[str, Any]:
    """Return a computed plan that maps these fields too."""
    planned: dict[str, Any] = running.command(
        "settings", "plan", CONNECTOR, str(_settings_file(running, rows)), "--wait"
    )
    return planned


def edit_user(running: RunningPipeline, user: dict[str, Any], **attributes: Any) -> None:
    running.remotes.edit_hull_record(Entity.PERSON, user["id"], attributes)


def known_users(running: RunningPipeline) -> dict[int, dict[str, Any]]:
    """Pipedrive id → User."""
    users = running.remotes.hull_records(Entity.PERSON)
    return {each["pipedrive/id"]: each for each in users if each.get("pipedrive/id")}


def open_failures(running: RunningPipeline, *filters: str) -> list[dict[str, Any]]:
    listed = running.command("failures", "list", CONNECTOR, *filters)["failures"]
    return [each["failure"] for each in listed]


def all_failures(running: RunningPipeline) -> list[dict[str, Any]]:
    """Return the outgoing failures of `live`, when all are there."""
    listed = open_failures(running, "--direction", "outgoing", "--kind", "record")
    return listed if len(listed) == len(LOSING) else []


def field_codes(running: RunningPipeline, entity: Entity) -> dict[str, str]:
    """Name of a field → its code."""
    path = f"/api/v2/{entity.value}Fields?limit=500"
    return {each["field_name"]: each["field_code"] for each in running.pipedrive("GET", path)}


def wait_for(ask: Callable[[], Answer]) -> Answer:
    """Repeat a call until it returns a true value, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return answer


def _settings_file(running: RunningPipeline, rows: dict[str, dict[str, str]]) -> Path:
    document = running.command("settings", "show", CONNECTOR)["document"]
    for setting, more in rows.items():
        document[setting] = document[setting] + list(_coded(running, setting, more))
    file = running.data_dir / "settings.json"
    file.write_text(json.dumps(document))
    return file


def _coded(running: RunningPipeline, setting: str, rows: dict[str, str]) -> Iterator[dict[str, str]]:
    codes = field_codes(running, Entity.PERSON if "_user_" in setting else Entity.ORGANIZATION)
    return ({"hull": attribute, "service": codes[name]} for attribute, name in rows.items())
