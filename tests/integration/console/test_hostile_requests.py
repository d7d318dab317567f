"""Every route of the app, requested without permission and with unusual values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import pytest
from flask import Flask
from werkzeug.routing import Rule

from db.connector import Connector, find_connector
from db.session import transaction
from pipeline.accounts import operators
from pipeline.operations import cached_answers
from tests import accounts
from tests.integration.console.conftest import ConsoleClient
from tests.journeys.pipedrive_records import create_records
from tests.journeys.test_replays import broken
from tests.system import SyncSystem


def words(text: str) -> list[str]:
    """Long lists of names are read more easily without their quotes."""
    return text.split()


OPEN: Final = {"/login", "/login/code", "/setup", "/api/openapi.json"}
"""Paths that need no login."""
VIEWERS_MAY_POST: Final = {
    "/logout",
    "/theme",
    "/c/<name>/logs/export",
    "/api/v1/connectors/<connector>/events/exports",
    "/account/confirm",
    "/account/password",
    "/account/second-factor",
    "/account/second-factor/confirm",
    "/account/second-factor/off",
    "/account/sessions/others/end",
    "/account/sessions/<int:session_id>/end",
    "/account/keys",
    "/account/keys/<int:key_id>/revoke",
    "/api/v1/me/keys/<id>/revoke",
    "/flower/<path:wanted>",
}
"""What is a viewer's own, and Flower, which has a list and a test of its own."""
PLACES: Final[dict[str, Any]] = {
    "name": "acme",
    "connector": "acme",
    "entity": "person",
    "direction": "incoming",
    "fingerprint": "none",
    "hull_id": "none",
    "section": "users-in",
    "step": "identity",
    "act": "pause",
    "wanted": "workers",
    "version": 1,
}
"""Variable of a rule → its value; all others are numbers."""
ENORMOUS: Final = 10**30
HOSTILE: Final = {
    "nul": "a\0b",
    "surrogate": "%ED%A0%80",
    "no utf-8": "%FF%FE",
    "enormous": str(ENORMOUS),
    "bigint": str(2**63),
    "negative": "-9223372036854775809",
    "long": "9" * 5_000,
    "text": "x" * 20_000,
    "script": "<script>alert(1)</script>",
    "year": "999999d",
    "early": "0001-01-01T00:00:00+23:59",
    "late": "9999-12-31T23:59:59-23:59",
    "superscript": "²",
    "nan": "nan",
}
QUICK: Final = ("surrogate",)
"""What every test run asks, of every address: it breaks most of what is not prepared. The others are slow."""
NAMES: Final = words(
    "q before after act field state kind entity direction outcome reason cause record run batch since until id "
    "fingerprint settings_version against at by source next limit code segment"
)


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    cached_answers.forget_all()
    yield
    cached_answers.forget_all()


def hostile(*names: str, quick: tuple[str, ...] = QUICK) -> list[Any]:
    """Return the cases of a test; all but the `quick` ones are slow."""
    return [each if each in quick else pytest.param(each, marks=pytest.mark.slow) for each in names]


def rules(app: Flask, method: str, *, under: tuple[str, ...] = ("console.", "api.")) -> list[Rule]:
    found = [
        each
        for each in app.url_map.iter_rules()
        if each.endpoint.startswith(under) and method in (each.methods or ()) and each.rule not in OPEN
    ]
    assert len(found) > (5 if under == ("api.",) else 10)
    return found


def address(rule: Rule, **places: Any) -> str:
    """The rule with something in every place of it."""
    path = rule.rule
    for name in rule.arguments:
        value = places.get(name, PLACES.get(name, places.get("number", 1)))
        start = next(path.index(each) for each in (f"<{name}>", f":{name}>") if each in path)
        begin, end = path.rindex("<", 0, start + 1), path.index(">", start)
        path = f"{path[:begin]}{quote(str(value), safe='%')}{path[end + 1 :]}"
    return path


@pytest.fixture
def busy(system: SyncSystem, operator: ConsoleClient, admin: ConsoleClient) -> SyncSystem:
    """A connector with something in every list."""
    create_records(system, persons=3, organizations=1)
    broken(system, 10, 11)
    system.module("sync.connectors.webhooks").ensure_webhooks(system.connector_key)
    system.change_rows(
        "INSERT INTO deliveries (connector_key, source, key, body, state) VALUES (:c, 'pipedrive', 'k', '{}', 'processed')",
        c=system.connector_key,
    )
    assert operator.post("/c/acme/failures/replay", count="2").status_code == 303
    document = json.dumps({"incoming_user_attributes": [{"hull": "pipedrive/given", "service": "first_name"}]})
    assert admin.post("/c/acme/plans", document=document).status_code == 303
    system.change_settings(daily_tokens=9_000)
    return system


@pytest.fixture
def other(busy: SyncSystem) -> SyncSystem:
    """A second connector, which has nothing."""
    with transaction() as session:
        session.add(Connector(id="b" * 24, name="globex", hull_organization="globex.test"))
        session.flush()
    busy.change_rows(
        "INSERT INTO settings_versions (connector_key, version, document, author)"
        " SELECT key, 1, '{}', 'test' FROM connectors WHERE name = 'globex'"
    )
    return busy


# --- who may --------------------------------------------------------------------------------------------------------------


def test_every_page_needs_a_login(app: Flask, anonymous: ConsoleClient, system: SyncSystem) -> None:
    assert system
    for method in ("GET", "POST", "PUT"):
        for rule in [each for each in app.url_map.iter_rules() if method in (each.methods or ())]:
            if rule.endpoint.startswith("console.") and rule.rule not in OPEN:
                answer = anonymous.client.open(address(rule), method=method)
                assert (answer.status_code, answer.headers["Location"][:6]) == (303, "/login"), rule
            if rule.endpoint.startswith("api."):
                assert anonymous.client.open(address(rule), method=method, json={}).status_code == 401, rule


def test_a_limited_operator_reaches_nothing_of_another_connector(
    app: Flask, operator: ConsoleClient, other: SyncSystem
) -> None:
    """Every page, form and operation, with numbers that are there; PUT is for admins."""
    with transaction() as session:
        globex = find_connector(session, "globex")
    assert globex
    accounts.limit("operator@acme.test", [globex.key])
    count = "SELECT count(*) AS n FROM audit_log WHERE connector_key IS NOT NULL"
    before, headers = other.rows(count)[0].n, {"X-CSRF-Token": operators.csrf_of(operator.token)}
    for method in ("GET", "POST"):
        for rule in rules(app, method):
            if rule.rule.startswith(("/logout", "/account/sessions/")):
                continue  # the session must go on
            is_json = rule.endpoint.startswith("api.") and method != "GET"
            answer = operator.client.open(address(rule), method=method, headers=headers, json={} if is_json else None)
            if {"name", "connector"} & rule.arguments:
                assert answer.status_code in (403, 404, 422), rule
            else:
                assert "acme" not in answer.text.replace("operator@acme.test", ""), rule
    assert other.rows(count)[0].n == before


def test_a_form_without_the_sessions_token_does_nothing(app: Flask, admin: ConsoleClient, system: SyncSystem) -> None:
    before = audited(system)
    for method in ("POST", "PUT"):
        for rule in [each for each in app.url_map.iter_rules() if method in (each.methods or ())]:
            if rule.endpoint.startswith(("console.", "api.")) and rule.rule not in OPEN:
                for csrf in ("", "0" * 64, "\x80", operators.csrf_of("another session")):
                    answer = admin.client.open(address(rule), method=method, data={"csrf": csrf})
                    assert answer.status_code == 403, (rule, csrf)
    assert audited(system) == before


def test_what_a_viewer_may_send_is_a_short_list(app: Flask, viewer: ConsoleClient, system: SyncSystem) -> None:
    before = audited(system)
    token = operators.csrf_of(viewer.token)
    for method in ("POST", "PUT"):
        for rule in [each for each in app.url_map.iter_rules() if method in (each.methods or ())]:
            if rule.endpoint.startswith(("console.", "api.")) and rule.rule not in OPEN | VIEWERS_MAY_POST:
                answer = viewer.client.open(address(rule), method=method, headers={"X-CSRF-Token": token})
                assert answer.status_code == 403, rule
                assert "needs the role" in answer.text, rule
    assert audited(system) == before


# --- what is another connector's ------------------------------------------------------------------------------------------


def test_the_ids_of_another_connector_are_not_there(app: Flask, other: SyncSystem, admin: ConsoleClient) -> None:
    ids = ids_of(other)
    counted = rows_of(other)
    checked = set()
    for method in ("GET", "POST"):
        for rule in rules(app, method):
            own = {"name", "connector", "entity", "direction", "section", "step", "act"}
            if not rule.arguments & {"name", "connector"} or not rule.arguments - own:
                continue
            places = {"name": "globex", "connector": "globex", **ids, "id": own_id(rule, ids)}
            path = address(rule, **places) + NEEDED.get(rule.endpoint, "")
            answer = post(admin, path) if method == "POST" else admin.get(path)
            is_malformed = method == "POST" and rule.endpoint.startswith("api.") and answer.status_code == 422
            assert answer.status_code == 404 or is_malformed, (path, answer.status_code, answer.text[:300])
            checked |= rule.arguments
    assert checked >= set(ids)
    assert rows_of(other) == counted


@pytest.mark.parametrize("act", ["replay", "discard"])
def test_the_failures_of_another_connector_cannot_be_named_in_a_form(
    act: str, other: SyncSystem, admin: ConsoleClient
) -> None:
    counted = rows_of(other)
    failures = [row.id for row in other.rows("SELECT id FROM failures")]

    answer = admin.post(f"/c/globex/failures/{act}", id=failures, count="1000", why="because")

    assert answer.status_code == 400
    assert rows_of(other) == counted


# --- what makes no sense --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", hostile(*HOSTILE, quick=("surrogate", "enormous", "script")))
def test_no_query_breaks_a_page(app: Flask, busy: SyncSystem, admin: ConsoleClient, what: str) -> None:
    """All parameters together."""
    ids = ids_of(busy)
    for rule in rules(app, "GET"):
        path = address(rule, **ids, id=ids["run_id"])
        ask_with(admin, rule, path, NAMES, HOSTILE[what])


@pytest.mark.slow
@pytest.mark.parametrize("what", [each for each in HOSTILE if len(HOSTILE[each]) < 100])
def test_no_address_breaks_by_one_parameter(app: Flask, busy: SyncSystem, admin: ConsoleClient, what: str) -> None:
    """Each in turn, since a refused one hides the others."""
    ids = ids_of(busy)
    for rule in [each for each in rules(app, "GET") if each.endpoint in SEARCHED]:
        path = address(rule, **ids, id=ids["run_id"])
        for name in NAMES:
            ask_with(admin, rule, path, [name], HOSTILE[what])


def ask_with(console: ConsoleClient, rule: Rule, path: str, names: list[str], value: str) -> None:
    """Ask for a page with `value` in each of these parameters."""
    written = value if value.startswith("%") else quote(value)
    query = "&".join(f"{name}={written}" for name in names)
    answer = console.get(f"{path}?{query}")
    assert answer.status_code < 500 or is_flower_away(rule, answer), (path, query[:100], answer.text[-300:])
    assert answer.mimetype != "text/html" or "<script>alert" not in answer.text


SEARCHED: Final = {
    f"console.{each}"
    for each in words(
        "logs_show records_find failures_show_groups runs_list_runs records_explain "
        "replays_confirm_replay failures_show_group plans_show_items accounts_show_audit settings_show_version "
        "replays_show_replay actions_show_send webhooks_show"
    )
}


@pytest.mark.parametrize("what", hostile("nul", "surrogate", "no utf-8", "enormous", "bigint", "negative", "script"))
def test_no_path_breaks_a_page(app: Flask, busy: SyncSystem, admin: ConsoleClient, what: str) -> None:
    """In each variable in turn, by an admin."""
    ids = ids_of(busy)
    for method in ("GET", "POST"):
        for rule in rules(app, method):
            for place in rule.arguments:
                path = address(rule, **{**ids, "id": ids["run_id"], place: HOSTILE[what]})
                answer = post(admin, path) if method == "POST" else admin.get(path)
                assert answer.status_code < 500 or is_flower_away(rule, answer), (path, answer.text[-300:])
                assert answer.mimetype != "text/html" or "<script>alert" not in answer.text


@pytest.mark.parametrize("what", hostile(*HOSTILE))
def test_no_form_breaks_by_what_is_written_in_it(app: Flask, busy: SyncSystem, admin: ConsoleClient, what: str) -> None:
    value = HOSTILE[what]
    ids = ids_of(busy)
    for rule in rules(app, "POST", under=("console.",)):
        if rule.rule == "/logout":
            continue
        form = dict.fromkeys((*NAMES, *FIELDS), value) | {"csrf": operators.csrf_of(admin.token)}
        for fields in (form, form | {"base": "1"}, form | {"do": "add:incoming_user_attributes", "base": "1"}):
            answer = admin.client.post(address(rule, **ids), data=fields)
            assert answer.status_code < 500 or is_flower_away(rule, answer), (rule, answer.text[-300:])
            assert answer.mimetype != "text/html" or "<script>alert" not in answer.text


def test_no_form_without_a_session_breaks_a_page(anonymous: ConsoleClient) -> None:
    for value in HOSTILE.values():
        for path in ("/login", "/setup"):
            fields = {"name": value, "password": value, "code": value, "next": value}
            assert anonymous.client.post(path, data=fields).status_code < 500, (path, value[:20])
            assert anonymous.get(f"{path}?code={quote(value)}&next={quote(value)}").status_code < 500


FIELDS: Final = words(
    "name password old new role theme document base do section why count per_second payload step number confirm "
    "wanted secret token organization hull_id ids what record user_email account_domain synchronized_user_segments "
    "incoming_user_attributes daily_tokens live_reserve incoming_user_attributes-0-hull "
    "incoming_user_attributes-0-service full_fetch_cron"
)
DEEP: Final = "[" * 50_000 + "]" * 50_000
DOCUMENTS: Final = {
    "nul": '{"user_sync_key": "\\u0000"}',
    "surrogate": '{"user_sync_key": "\\ud800"}',
    "surrogate name": '{"\\ud800": 1}',
    "nul name": '{"\\u0000": 1}',
    "deep": f'{{"user_claims": {DEEP}}}',
    "rather deep": '{"user_claims": ' + "[" * 400 + "]" * 400 + "}",
    "nan": '{"live_reserve": NaN, "daily_tokens": Infinity}',
    "huge": '{"daily_tokens": 1' + "0" * 4_000 + "}",
    "bigint": '{"daily_tokens": 9223372036854775808, "incremental_minutes": -1}',
    "segment": '{"synchronized_user_segments": ["\\ud800", "\\u0000"]}',
    "list": "[]",
    "text": '"x"',
    "no json": "{",
}


@pytest.mark.parametrize("what", hostile(*DOCUMENTS, quick=("surrogate", "deep", "bigint", "no json")))
def test_no_document_breaks_the_settings(busy: SyncSystem, admin: ConsoleClient, what: str) -> None:
    text = DOCUMENTS[what]
    for path in ("plans", "settings/json", "settings/save", "settings/rebase", "settings/users-in"):
        for more in ({}, {"do": "back"}):
            answer = admin.post(f"/c/acme/{path}", document=text, base="2", **more)
            assert answer.status_code < 500, (path, answer.text[-300:])
    bodies = [f'{{"document": {text}, "base_version": 2, "force": true}}', text]
    for body in bodies:
        token = {"X-CSRF-Token": operators.csrf_of(admin.token)}
        answer = admin.client.put(
            "/api/v1/connectors/acme/settings", data=body, content_type="application/json", headers=token
        )
        assert 400 <= answer.status_code < 500, answer.text[-300:]
    assert busy.rows("SELECT max(version) AS v FROM settings_versions")[0].v == 2


@pytest.mark.parametrize(
    "value", hostile('"\\u0000"', '"\\ud800"', "1e400", "[[]]", '"' + "x" * 5_000 + '"', quick=('"\\ud800"',))
)
def test_no_body_breaks_an_operation(app: Flask, busy: SyncSystem, admin: ConsoleClient, value: str) -> None:
    names = ("entity", "ids", "segment", "since", "changed_only", "document", "base_version", "\\ud800")
    for method in ("POST", "PUT"):
        for rule in [each for each in app.url_map.iter_rules() if method in (each.methods or ())]:
            if not rule.endpoint.startswith("api."):
                continue
            bodies = [f'{{"{name}": {value}}}' for name in names]
            bodies += [f'{{"entity": "person", "ids": [{value}]}}', f'{{"entity": "person", "segment": {value}}}']
            for body in bodies:
                answer = admin.client.open(
                    address(rule),
                    method=method,
                    data=body,
                    content_type="application/json",
                    headers={"X-CSRF-Token": operators.csrf_of(admin.token)},
                )
                assert answer.status_code < 500 or answer.status_code == 503, (rule, body, answer.text[-300:])
                assert answer.status_code != 503 or "broker" in answer.text, (rule, body, answer.text[-300:])


def ids_of(system: SyncSystem) -> dict[str, Any]:
    """One of everything the connector has; a version that it has and another one has not."""

    def newest(table: str, column: str = "id") -> Any:
        return system.rows(f"SELECT {column} AS it FROM {table} ORDER BY {column} DESC LIMIT 1")[0].it  # noqa: S608

    return {
        "run_id": newest("runs"),
        "batch_id": newest("batches"),
        "failure_id": newest("failures"),
        "replay_id": newest("replays"),
        "event_id": newest("sync_events"),
        "delivery_id": newest("deliveries"),
        "plan_id": newest("plans"),
        "fingerprint": newest("failures", "fingerprint"),
        "pipedrive_id": newest("id_mappings", "pipedrive_id"),
        "hull_id": "5bd329d5e2bcf3eeaf000099",
        "version": 2,
    }


NEEDED: Final = {"api.list_plan_items": "?direction=incoming&entity=person", "api.explain_field": "?field=name"}
"""Operations that are not understood without a question."""


def own_id(rule: Rule, ids: dict[str, Any]) -> Any:
    """What `id` is the number of, in the interface for scripts."""
    kinds = {"events": "event_id", "batches": "batch_id", "deliveries": "delivery_id", "failures": "failure_id"}
    kinds |= {"replays": "replay_id", "plans": "plan_id"}
    before = rule.rule.split("/")[rule.rule.split("/").index("<id>") - 1] if "<id>" in rule.rule else ""
    return ids[kinds.get(before, "run_id")]


def rows_of(system: SyncSystem) -> list[Any]:
    """Return forms of pages of the connector."""
    return [
        system.rows(f"SELECT count(*) AS n, min(state) AS a, max(state) AS z FROM {table}")  # noqa: S608
        for table in ("runs", "failures", "replays", "plans", "jobs", "connectors")
    ]


def audited(system: SyncSystem) -> int:
    count: int = system.rows("SELECT count(*) AS n FROM audit_log")[0].n
    return count


def post(console: ConsoleClient, path: str) -> Any:
    return console.client.post(path, data={}, headers={"X-CSRF-Token": operators.csrf_of(console.token)})


def is_flower_away(rule: Rule, answer: Any) -> bool:
    """Return whether the page reports that no Flower runs."""
    return rule.rule.startswith("/flower") and answer.status_code == 502
