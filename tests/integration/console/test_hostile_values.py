"""Values that want to be more than values, planted wherever a record, a setting or a person may put one: every page and export
shows them and does nothing else.
"""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any, Final
from urllib.parse import quote

import pytest
from flask import Flask

from db import audit, field_definition
from db import failure as failures
from db.failure import NewFailure
from db.session import transaction
from pipeline.accounts import operators
from pipeline.domain.kinds import Entity
from pipeline.operations import cached_answers
from tests.integration.console.conftest import ConsoleClient
from tests.integration.console.exporting import CSV, NDJSON, exported
from tests.integration.console.test_hostile_requests import address, is_flower_away, rules
from tests.journeys.hull_messages import fetch_everything, send_messages, user
from tests.journeys.test_replays import advance
from tests.system import SyncSystem

TURNED: Final = "\u202e"
EVIL: Final = (
    f"\"><script>alert(1)</script><img src=x onerror=alert(2)> ' onmouseover=alert(3) {{{{3*'7x'}}}}{TURNED}evil\u200b"
)
FORMULA: Final = "=cmd()"
LONG: Final = "<b>long" * 150_000
"""A megabyte."""
LINK: Final = "javascript:alert(4)"
NAME: Final = "<script>alert(5)'\"{{3*'7x'}}"
"""Of the connector; it could only be put there behind our backs."""
LARGEST_PAGE: Final = 6_000_000
MOST_CPU_S: Final = 3.0
"""Of this process, so that a busy machine makes no difference."""


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    cached_answers.forget_all()
    yield
    cached_answers.forget_all()


class Reading(HTMLParser):
    """What a browser would make of a page: what runs, where its links lead, and what people read."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.runs: list[Any] = []
        self.texts: list[str] = []
        self._within: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._within.append(tag)
        if tag in ("img", "iframe", "object", "embed", "base", "b", "template"):
            self.runs.append((tag, found))
        if tag == "script" and not str(found.get("src")).startswith("/static/"):
            self.runs.append((tag, found))
        for name, value in attrs:
            leads = name in ("href", "src", "action", "formaction", "hx-get")
            if name.startswith(("on", "style")) or (leads and not re.match(r"(/(?!/)|#|\?|https?://)", value or "")):
                self.runs.append((tag, name, value))

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"textarea", "option"} & set(self._within):
            self.texts.append(data)


@pytest.fixture
def evil(system: SyncSystem, admin: ConsoleClient) -> SyncSystem:
    """Return a connector with hostile names everywhere."""
    custom = {field.type: field for field in system.company.custom_fields(Entity.PERSON)}
    name, choice = custom["varchar"].code, custom["enum"].code
    for person_name in (EVIL, FORMULA, LONG, LINK):
        system.company.create_person(
            name=person_name,
            emails=[{"value": f"{EVIL}@evil.test", "primary": True}],
            custom_fields={name: EVIL, choice: custom["enum"].options[0].id},
        )
    system.company.create_organization(name=EVIL, website=LINK)
    system.company.put_raw("person", {"id": 77, "name": EVIL, "update_time": None})
    fields = system.module("sync.definitions")
    for entity in Entity:
        fields.reread_fields(system.connector_key, entity)
    misname(system)
    system.change_settings(
        incoming_user_attributes=[
            {"hull": "pipedrive/name", "service": "name"},
            {"hull": f"pipedrive/{EVIL}", "service": name},
            {"hull": "pipedrive/choice", "service": choice},
        ],
        outgoing_user_attributes=[{"hull": EVIL, "service": name}, {"hull": "choice", "service": choice}],
        synchronized_user_segments=[EVIL, "ALL"],
    )
    fetch_everything(system)
    misname(system)
    system.hull.define_segment("user", EVIL, [])
    send_messages(system, user(**{EVIL: EVIL, "choice": EVIL, "name": EVIL, "email": "a@b.test", FORMULA: LINK}))
    send_messages(system, user(**{**system.users()[1], "hull_id": system.users()[1]["id"], EVIL: FORMULA + EVIL}))
    plant(system)
    answer = admin.post("/c/acme/failures/replay", count="1000", why=EVIL)
    assert answer.status_code == 303
    document = json.dumps({"incoming_user_attributes": [{"hull": f"pipedrive/{EVIL}2", "service": name}]})
    assert admin.post("/c/acme/plans", document=document).status_code == 303
    me = operators.who_is(admin.token)
    assert me
    operators.create_key(me, "".join(each for each in EVIL[:90] if each.isprintable()))
    system.change_rows("UPDATE connectors SET name = :n, hull_organization = :o", n=NAME, o=EVIL)
    cached_answers.forget_all()
    return system


def misname(system: SyncSystem) -> None:
    """Fields and their options, as an administrator of Pipedrive may name them."""
    for entity in Entity:
        with transaction() as session:
            found = field_definition.find_fields(session, system.connector_key, entity)
            assert found
            rows = json.loads(json.dumps(found.rows))
            for row in rows:
                row["field_name"] = f"{EVIL}{row['field_name']}"
                for option in row.get("options") or []:
                    option["label"] = f"{FORMULA}{EVIL}{option['label']}"
            field_definition.keep_fields(session, system.connector_key, entity, rows)


def plant(system: SyncSystem) -> None:
    """Store failures, events, deliveries, alerts and audit entries with hostile values."""
    body = json.dumps({"user": {"id": EVIL, EVIL: EVIL, "long": LONG, FORMULA: LINK}}).encode()
    for number, direction in enumerate(("incoming", "outgoing")):
        new = NewFailure(
            connector_key=system.connector_key,
            kind="record",
            subject=f"{direction}:person:{EVIL}",
            direction=direction,
            entity="person",
            stage="load",
            reason=("refused_by_pipedrive", EVIL)[number],
            detail=EVIL + LONG,
            field=EVIL,
            record_id=EVIL,
            payload=body,
            traceback=EVIL,
            task_id=EVIL,
            exchange={"method": EVIL, "path": EVIL, "status": 400},
        )
        with transaction() as session:
            failures.keep_failures(session, [new])
            audit.note(session, EVIL, EVIL, EVIL, why=EVIL, detail={EVIL: EVIL})
    for event in ("incoming.user.success", "outgoing.user.error", "incoming.user.skip"):
        system.change_rows(
            "INSERT INTO sync_events (connector_key, event, entity, pipedrive_id, hull_id, reason, detail, cause, before, after,"
            " exchange) VALUES (:c, :event, 'person', 1, :evil, :reason, :detail, :evil, :was, :now, :exchange)",
            c=system.connector_key,
            event=event,
            evil=EVIL,
            reason=None if event.endswith("success") else EVIL,
            detail=FORMULA,
            was=json.dumps({EVIL: EVIL}).encode(),
            now=json.dumps({EVIL: LONG, FORMULA: LINK}).encode(),
            exchange=json.dumps({"method": EVIL, "path": EVIL, "status": 200, "tokens": 1, "duration_ms": 1}),
        )
    for source, text in (("pipedrive", body), ("hull", EVIL.encode()), ("hull", b"\xff\x00" + EVIL.encode())):
        system.change_rows(
            "INSERT INTO deliveries (connector_key, source, key, body, state, reason)"
            " VALUES (:c, :source, :key, :body, 'refused', :reason)",
            c=system.connector_key,
            source=source,
            key=f"{EVIL}{len(text)}",
            body=text,
            reason=EVIL,
        )
    system.change_rows(
        "INSERT INTO alerts (connector_key, rule, sentence, last_error) VALUES (:c, 'failures', :evil, :evil)",
        c=system.connector_key,
        evil=EVIL,
    )


def pages_of(app: Flask, system: SyncSystem) -> list[str]:
    """Every page, of every row there is."""
    columns = {
        "run_id": "id FROM runs",
        "batch_id": "id FROM batches",
        "failure_id": "id FROM failures",
        "replay_id": "id FROM replays",
        "event_id": "id FROM sync_events",
        "delivery_id": "id FROM deliveries",
        "plan_id": "id FROM plans",
        "fingerprint": "fingerprint FROM failures",
        "pipedrive_id": "pipedrive_id FROM id_mappings WHERE entity = 'person' AND pipedrive_id IS NOT NULL",
        "hull_id": "record_id FROM snapshots WHERE side = 'hull'",
        "version": "version FROM settings_versions",
    }
    rows = {name: [row[0] for row in system.rows(f"SELECT DISTINCT {query}")] for name, query in columns.items()}
    assert all(rows.values()), rows
    choices = {
        **rows,
        "section": ["identity", "users-in", "users-out", "segments", "links", "schedules", "budget", "sync-keys"],
        "step": ["pipedrive", "identity", "mappings", "segments", "first-fetch"],
        "direction": ["incoming", "outgoing"],
        "id": rows["run_id"],
    }
    found = []
    for rule in rules(app, "GET"):
        paths = [{"name": NAME, "connector": NAME}]
        for name in sorted(rule.arguments & set(choices)):
            paths = [{**places, name: value} for places in paths for value in choices[name]]
        found += [address(rule, **{k: quote(str(v), safe="") for k, v in places.items()}) for places in paths]
        found += [f"{each}?{query}" for each in found[-len(paths) :] for query in ASKED.get(rule.endpoint, ())]
    return found


WORD: Final = quote(EVIL)
ASKED: Final = {
    "console.records_find": (f"q={WORD}", "q=cmd"),
    "console.records_explain": tuple(
        f"field={quote(name)}" for name in (EVIL, f"pipedrive/{EVIL}", "pipedrive/choice", "choice")
    ),
    "console.logs_show": (f"reason={WORD}", f"record={WORD}", f"cause={WORD}", "outcome=error", f"since={WORD}"),
    "console.failures_show_groups": (f"reason={WORD}", f"field={WORD}", "state=all"),
    "console.replays_confirm_replay": (f"field={WORD}",),
    "console.replays_confirm_discard": (f"field={WORD}",),
    "console.plans_show_items": ("act=update", f"field={WORD}"),
    "console.actions_show_send": (f"q={WORD}",),
    "console.settings_show_section": (f"record={WORD}", "record=1"),
    "console.webhooks_show": ("source=hull",),
    "console.overview_show_connector": (f"by={WORD}",),
}


def test_every_page_shows_hostile_values_and_does_nothing_else(
    app: Flask, evil: SyncSystem, admin: ConsoleClient
) -> None:
    shown = 0
    for path in pages_of(app, evil):
        begun = time.process_time()
        answer = admin.get(path)
        assert answer.status_code < 500 or path.startswith("/flower"), (path, answer.text[-300:])
        assert time.process_time() - begun < MOST_CPU_S, path
        assert len(answer.data) < LARGEST_PAGE, (path, len(answer.data))
        assert "7x7x7x" not in answer.text, path
        if answer.mimetype == "text/html":
            read = Reading(answer.text)
            assert read.runs == [], path
            assert first_turned(read) == "", path
            shown += "alert(1)" in answer.text
    assert shown > 40


def first_turned(read: Reading) -> str:
    return next((each[:200] for each in read.texts if TURNED in each or "\u200b" in each), "")


def test_forms_give_hostile_values_back_and_do_nothing_else(app: Flask, evil: SyncSystem, admin: ConsoleClient) -> None:
    """What was typed comes back to be corrected, as it was typed."""
    names = (
        "reason",
        "field",
        "why",
        "payload",
        "document",
        "segment",
        "ids",
        "q",
        "record",
        "name",
        "wanted",
        "number",
        "confirm",
    )
    typed = dict.fromkeys((*names, "organization", "hull_id", "user_email", "full_fetch_cron"), EVIL) | {
        "base": "1",
        "do": "look",
    }
    typed |= {f"incoming_user_attributes-0-{cell}": EVIL for cell in ("hull", "service", "parts", "other")}
    for rule in rules(app, "POST", under=("console.",)):
        if rule.rule in ("/logout", "/account/password"):
            continue
        numbers = {
            "failure_id": ids(evil, "failures"),
            "plan_id": ids(evil, "plans"),
            "replay_id": ids(evil, "replays"),
        }
        path = address(rule, name=quote(NAME, safe=""), **numbers)
        answer = admin.client.post(path, data=typed | {"csrf": operators.csrf_of(admin.token)})
        assert answer.status_code < 500 or is_flower_away(rule, answer), (path, answer.text[-300:])
        assert "7x7x7x" not in answer.text, path
        assert len(str(answer.headers.get("Set-Cookie", ""))) < 4_000, path
        if answer.mimetype == "text/html":
            assert Reading(answer.text).runs == [], path
        if answer.status_code == 303 and "notice" in str(answer.headers.get("Set-Cookie")):
            after = admin.get("/account").text
            assert Reading(after).runs == [], path


def ids(system: SyncSystem, table: str) -> int:
    newest: int = system.rows(f"SELECT max(id) AS id FROM {table}")[0].id  # noqa: S608
    return newest


def test_no_cell_of_an_export_is_a_formula(evil: SyncSystem, admin: ConsoleClient) -> None:
    where = quote(NAME, safe="")
    text = exported(evil, admin, CSV, "since=1d", connector=where).get_data(as_text=True)
    csv.field_size_limit(len(text))
    rows = list(csv.reader(io.StringIO(text)))
    assert any("cmd()" in cell for row in rows for cell in row)
    for row in rows:
        assert len(row) == len(rows[0])
        assert not any(re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", cell) for cell in row), row[:5]
    for line in exported(evil, admin, NDJSON, "since=1d", connector=where).get_data(as_text=True).splitlines():
        assert isinstance(json.loads(line), dict)


def test_a_replay_of_hostile_failures_comes_to_its_end(evil: SyncSystem, admin: ConsoleClient) -> None:
    evil.change_rows(
        "UPDATE connectors SET hull_organization = 'hull.test'"
    )  # a host that is named badly is not called
    advance(evil)

    assert [row.state for row in evil.rows("SELECT state FROM replays")] == ["done"]
    assert evil.rows("SELECT 1 FROM failures WHERE kind = 'control'") == []
    replay = admin.text(f"/c/{quote(NAME, safe='')}/replays/{ids(evil, 'replays')}")
    assert Reading(replay).runs == []
