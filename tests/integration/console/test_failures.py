"""Failures in the console: by cause, one whole, what a replay would come to, and what people do about them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from structlog.testing import capture_logs

from db import connector as connectors
from db import failure as failures
from db import failure_closing, failure_filter
from db.failure import Failure, NewFailure
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected
from tests.integration.console.conftest import ConsoleClient
from tests.journeys.hull_messages import failures as failed
from tests.journeys.hull_messages import fetch_everything, person, send_messages, user
from tests.journeys.pipedrive_records import create_records, raw_person
from tests.journeys.test_replays import advance, broken, fail_job, fixed
from tests.system import SyncSystem

HOSTILE = "<script>alert(1)</script>{{7*7}}\u202e\u200b"


@pytest.fixture(autouse=True)
def nothing_is_shared(app: Flask) -> None:
    """Answers that viewers share for a moment would be those of the test before."""
    from pipeline.web.console import failures as module  # noqa: PLC0415 - Celery reads its settings when it is imported
    from pipeline.web.console import replays  # noqa: PLC0415

    module.forget_lists()
    replays._progress.forget()


def keep(system: SyncSystem, **more: Any) -> int:
    """A failure out of nowhere; returns its id."""
    given: dict[str, Any] = {
        "connector_key": system.connector_key,
        "kind": "record",
        "subject": f"outgoing:person:{more.get('record_id', 'x')}",
        "direction": "outgoing",
        "entity": "person",
        "stage": "load",
        "reason": "refused_by_pipedrive",
        "detail": "400",
    }
    with transaction() as session:
        failures.keep_failures(session, [NewFailure(**(given | more))])
    return int(system.rows("SELECT max(id) AS id FROM failures")[0].id)


def foreign(system: SyncSystem) -> int:
    """A failure of another connector."""
    with transaction() as session:
        from db.connector import Connector  # noqa: PLC0415 - needed here alone

        other = Connector(id="b" * 24, name="globex", hull_organization="globex.test")
        session.add(other)
        session.flush()
        key = other.key
    return keep(system, connector_key=key, record_id="z")


def refused(system: SyncSystem, number: int = 1, name: str = "Ann King") -> int:
    """Let Pipedrive refuse a report of this Person, and return the failure."""
    if not system.users():
        create_records(system, persons=3, organizations=0)
        system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
        fetch_everything(system)
    faults = system.pipedrive.faults
    faults.replace([{"path": "persons", "method": "PATCH", "kind": "status", "status": 400, "count": None}])
    report = {**system.users()[number], "hull_id": system.users()[number]["id"], "nickname": name}
    send_messages(system, user(**report))
    faults.replace([])
    return int(system.rows("SELECT max(id) AS id FROM failures")[0].id)


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def follow(console: ConsoleClient, answer: Any) -> str:
    assert answer.status_code == 303, answer.text[:2000]
    return console.text(answer.headers["Location"])


# --- looking ----------------------------------------------------------------------------------------------------------


def test_an_empty_list_explains_failures(system: SyncSystem, viewer: ConsoleClient) -> None:
    page = words(viewer.text("/c/acme/failures"))

    assert "No open failure." in page
    assert "Nothing has failed yet." in page


@pytest.mark.usefixtures("noon")
def test_failures_are_grouped_by_cause_with_the_next_step(system: SyncSystem, viewer: ConsoleClient) -> None:
    broken(system, 10, 11)
    keep(system, record_id="h1")

    page = words(viewer.text("/c/acme/failures"))

    assert "3 open failures in 2 groups." in page
    assert "Save the record once in Pipedrive, then replay the failure." in page
    assert page.index("no_update_time") < page.index("refused_by_pipedrive")
    assert "2 today" in page


def count_on_the_tab(page: str) -> str:
    """Return the number beside the word Failures on every page of a connector."""
    found = re.search(r'<span id="open-count"[^>]*>(.*?)</span></?a?', page, re.DOTALL)
    assert found
    return words(found[1]).strip()


def test_every_page_of_a_connector_shows_the_number_of_open_failures(system: SyncSystem, viewer: ConsoleClient) -> None:
    from pipeline.web.console import layout  # noqa: PLC0415 - Celery reads its settings when it is imported

    assert count_on_the_tab(viewer.text("/c/acme/runs")) == ""

    keep(system, record_id="h1")
    done = keep(system, record_id="h2")
    keep(system, record_id="h3")
    foreign(system)
    system.change_rows("UPDATE failures SET state = 'discarded' WHERE id = :id", id=done)
    layout.forget_open()

    for path in ("/c/acme/", "/c/acme/runs", "/c/acme/settings", "/c/acme/failures"):
        assert count_on_the_tab(viewer.text(path)) == "2 open"


def test_the_count_on_the_tab_ends_somewhere(
    system: SyncSystem, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.web.console import layout  # noqa: PLC0415 - Celery reads its settings when it is imported

    monkeypatch.setattr(layout, "MOST_COUNTED", 2)
    for number in range(2):
        keep(system, record_id=f"h{number}")
    assert count_on_the_tab(viewer.text("/c/acme/runs")) == "2 open"

    for number in range(2, 5):
        keep(system, record_id=f"h{number}")
    layout.forget_open()

    assert count_on_the_tab(viewer.text("/c/acme/runs")) == "2+ open"
    with transaction() as session:
        assert failure_filter.count_open_up_to(session, system.connector_key, 3) == 3


def test_viewers_share_the_count_on_the_tab(
    system: SyncSystem, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.web.console import layout  # noqa: PLC0415 - Celery reads its settings when it is imported

    asked: list[int] = []
    monkeypatch.setattr(failure_filter, "count_open_up_to", lambda _session, key, _most: asked.append(key) or 7)
    monkeypatch.setattr(layout._open_failures, "_fresh_s", 60.0)

    for _ in range(3):
        assert count_on_the_tab(viewer.text("/c/acme/runs")) == "7 open"

    assert asked == [system.connector_key]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("direction=incoming", ["no_update_time"]),
        ("entity=organization", []),
        ("reason=refused_by_pipedrive", ["refused_by_pipedrive"]),
        ("field=tier", ["refused_by_pipedrive"]),
        ("settings_version=1", ["no_update_time"]),
        ("since=2h", ["no_update_time", "refused_by_pipedrive"]),
        ("until=2026-01-01", []),
        ("state=discarded", []),
        ("state=all&kind=record", ["no_update_time", "refused_by_pipedrive"]),
    ],
)
def test_filters_are_part_of_the_address(
    system: SyncSystem, viewer: ConsoleClient, query: str, shown: list[str]
) -> None:
    broken(system, 10)
    keep(system, record_id="h1", field="tier")

    page = viewer.text(f"/c/acme/failures?{query}").partition("<details")[0]

    assert [code for code in ("no_update_time", "refused_by_pipedrive") if code in page] == shown


@pytest.mark.parametrize("query", ["direction=up", "since=yesterday", "settings_version=x", "id=x"])
def test_an_invalid_filter_is_named(system: SyncSystem, viewer: ConsoleClient, query: str) -> None:
    answer = viewer.get(f"/c/acme/failures?{query}")

    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


def test_a_cause_lists_its_failures_with_their_previews(system: SyncSystem, viewer: ConsoleClient) -> None:
    broken(system, 10, 11)
    fingerprint = system.rows("SELECT fingerprint FROM failures LIMIT 1")[0].fingerprint

    page = words(viewer.text(f"/c/acme/failures/group/{fingerprint}"))

    assert "2 failures: The record has no readable update time" in page
    assert "2 would fail again; about 10 tokens" in page
    assert "Person 10" in page
    assert viewer.get("/c/acme/failures/group/nobody").status_code == 404


def test_a_cause_is_paged_by_key(system: SyncSystem, viewer: ConsoleClient) -> None:
    for number in range(55):
        keep(system, record_id=f"h{number:02}")
    fingerprint = system.rows("SELECT fingerprint FROM failures LIMIT 1")[0].fingerprint

    first = viewer.text(f"/c/acme/failures/group/{fingerprint}")
    older = re.search(r'rel="next" href="([^"]+)"', first)

    assert older is not None
    second = viewer.text(older[1].replace("&amp;", "&"))
    assert ("User h54" in first, "User h00" in first, "User h00" in second) == (True, False, True)


def test_one_failure_is_shown_whole(system: SyncSystem, operator: ConsoleClient) -> None:
    failure_id = keep(
        system,
        record_id="h1",
        payload=b'{"user": {"id": "h1", "tier": "platinum"}}',
        traceback="Traceback: here",
        exchange={"status": 400, "url": "https://x.test"},
        task_id="7e0-task",
        attempts=3,
    )

    page = operator.text(f"/c/acme/failures/{failure_id}")

    for expected in (
        "platinum",
        "Traceback: here",
        "https://x.test",
        "7e0-task",
        "/records/person/hull/h1",
        "/flower/task/7e0-task",
    ):
        assert expected in page, expected
    assert "3, first" in words(page)


def test_hostile_values_are_shown_harmlessly(system: SyncSystem, viewer: ConsoleClient) -> None:
    failure_id = keep(
        system,
        record_id=HOSTILE,
        detail=HOSTILE,
        field=HOSTILE,
        reason="refused_by_pipedrive",
        traceback=HOSTILE,
        payload=json.dumps({"user": {"id": HOSTILE, HOSTILE: HOSTILE * 50_000}}).encode(),
    )
    fingerprint = system.rows("SELECT fingerprint FROM failures")[0].fingerprint

    for path in ("failures", f"failures/{failure_id}", f"failures/group/{fingerprint}", f"failures?field={HOSTILE}"):
        page = viewer.text(f"/c/acme/{path}")
        assert "<script>alert" not in page
        assert "49" not in words(page).partition("payload")[0] or "{{7*7}}" in page


def test_a_failure_of_another_connector_is_not_there(system: SyncSystem, operator: ConsoleClient) -> None:
    other = foreign(system)

    assert operator.get(f"/c/acme/failures/{other}").status_code == 404
    assert operator.get(f"/c/acme/failures/{other}/edit").status_code == 404
    assert operator.get("/c/acme/failures/999").status_code == 404
    assert operator.post("/c/acme/failures/replay", id=other, count=1).status_code == 400
    assert operator.post("/c/acme/failures/discard", id=other, count=1, why="x").status_code == 400
    with transaction() as session:
        assert session.get_one(Failure, other).state == "open"


def test_viewers_look_and_do_nothing(system: SyncSystem, viewer: ConsoleClient) -> None:
    broken(system, 10)
    failure_id = failed_id(system)

    page = viewer.text(f"/c/acme/failures/{failure_id}")

    assert "Replay…" not in page
    for path in ("failures/replay", "failures/discard", f"failures/{failure_id}/edit", "replays/1/pause"):
        assert viewer.post(f"/c/acme/{path}", id=failure_id, why="x", count=1).status_code == 403, path
    assert viewer.get(f"/c/acme/failures/replay?id={failure_id}").status_code == 403
    assert failed(system) == [("10", "no_update_time")]


def failed_id(system: SyncSystem) -> int:
    return int(system.rows("SELECT id FROM failures ORDER BY id LIMIT 1")[0].id)


@pytest.mark.parametrize(("value", "kind"), [(None, "fails_again"), ("Ada", "changes")])
def test_values_that_pipedrive_refused_are_previewed_to_fail_again(
    system: SyncSystem, viewer: ConsoleClient, value: str | None, kind: str
) -> None:
    """The same values under the same settings fail again; corrected ones may come through."""
    from pipeline.jobs.replays.preview import preview_failures  # noqa: PLC0415 - Celery reads its settings when it is imported

    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    system.company.create_person(name="Ada Lovelace")
    fetch_everything(system)
    hull_id = next(iter(system.users().values()))["id"]
    body = json.dumps({"user": {"id": hull_id, "nickname": "Countess"}, "segments": []}).encode()
    with transaction() as session:
        version = connectors.settings_in_force(session, system.connector_key).version
    keep(system, record_id=hull_id, payload=body, settings_version=version)

    with transaction() as session:
        (failure,) = failure_filter.find_failures(session)
        corrected = {failure.id: body.replace(b"Countess", value.encode())} if value else {}
        preview = preview_failures(session, [failure], corrected)[failure.id]

    assert preview.kind == kind


# --- replaying --------------------------------------------------------------------------------------------------------


def test_a_replay_is_confirmed_with_its_size_and_followed_to_its_end(
    system: SyncSystem, operator: ConsoleClient
) -> None:
    broken(system, 10, 11)
    fixed(system, 10)
    ask = words(operator.text("/c/acme/failures/replay?reason=no_update_time"))

    begun = follow(
        operator,
        operator.post("/c/acme/failures/replay", reason="no_update_time", count=2, why="fixed", per_second="50"),
    )
    advance(system)
    from pipeline.web.console import replays  # noqa: PLC0415 - its answers are shared for a moment

    replays._progress.forget()
    page = operator.text("/c/acme/replays/1")

    assert "Replay 2 failures of acme?" in ask
    assert "about 10 of the daily budget" in ask
    assert "hx-get" in begun
    assert "2 items: 1 succeeded, 1 failed again." in words(page)
    assert 'id="live" hx-get' not in page, "what has ended is not asked for again"
    (again,) = system.rows("SELECT id FROM failures WHERE state = 'open'")
    assert f"/c/acme/failures/{again.id}" in page
    assert "1 succeeded, 1 failed again" in words(operator.text("/c/acme/replays"))
    assert "failed again" in operator.text("/c/acme/failures/2")
    (entry,) = system.rows("SELECT operator, action, subject, why, detail FROM audit_log WHERE action LIKE 'failures%'")
    assert tuple(entry)[:4] == ("operator@acme.test", "failures.replay", "reason no_update_time", "fixed")
    assert entry.detail == {"replay": 1, "failures": 2, "corrected": []}


def test_a_stopped_replay_shows_the_reason_and_is_resumed(
    system: SyncSystem, operator: ConsoleClient, viewer: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(system, 10, 11)
    operator.post("/c/acme/failures/replay", count=2)
    fail_job(system, monkeypatch, Rejected("refused_by_pipedrive", "said no"))()

    page = operator.text("/c/acme/replays/1")
    listed = operator.text("/c/acme/replays")
    resumed = follow(operator, operator.post("/c/acme/replays/1/resume"))

    assert "Stopped: Pipedrive refused the write. 2 of 2 items are waiting." in words(page)
    assert "<code>refused_by_pipedrive</code>" in page
    assert "said no" in page
    assert "Then resume the replay." in page
    assert 'id="live" hx-get' not in page
    assert 'action="/c/acme/replays/1/resume"' in page
    assert "/c/acme/failures?kind=control&amp;reason=refused_by_pipedrive" in page
    assert "1 replay stopped because of an error." in listed
    assert "Resumed." in resumed
    assert "Stopped" not in resumed
    assert 'action="/c/acme/replays/1/resume"' not in viewer.text("/c/acme/replays/1")


def test_a_replay_that_has_grown_must_be_confirmed_again(system: SyncSystem, operator: ConsoleClient) -> None:
    broken(system, 10, 11)

    answer = operator.post("/c/acme/failures/replay", count=1)

    assert answer.status_code == 400
    assert "There are more of them now" in answer.text
    assert "Replay 2 failures" in answer.text
    assert system.rows("SELECT 1 FROM replays") == []


def test_a_replay_is_paused_resumed_and_aborted(system: SyncSystem, operator: ConsoleClient) -> None:
    broken(system, 10, 11, 12)
    operator.post("/c/acme/failures/replay", count=3, per_second="1")
    system.run_jobs()

    paused = follow(operator, operator.post("/c/acme/replays/1/pause"))
    again = follow(operator, operator.post("/c/acme/replays/1/pause"))
    resumed = follow(operator, operator.post("/c/acme/replays/1/resume"))
    aborted = follow(operator, operator.post("/c/acme/replays/1/abort"))

    assert "Paused by an operator" in words(paused)
    assert "Nothing was changed" in again
    assert "Resumed." in resumed
    assert "not sent 2" not in words(resumed)
    assert system.rows("SELECT state FROM replays")[0].state == "aborted"
    assert "not sent 2" in words(aborted)
    assert operator.post("/c/acme/replays/1/explode").status_code == 404
    assert operator.post("/c/acme/replays/9/pause").status_code == 404


def test_discarding_needs_a_reason_and_is_written_down(system: SyncSystem, operator: ConsoleClient) -> None:
    broken(system, 10, 11)
    without = operator.post("/c/acme/failures/discard", count=2)
    grown = operator.post("/c/acme/failures/discard", count=1, why="tests")
    still = failed(system)

    page = follow(operator, operator.post("/c/acme/failures/discard", count=2, why="test records"))

    assert (without.status_code, grown.status_code, len(still)) == (400, 400, 2)
    assert "2 failures discarded: test records" in page
    assert failed(system) == []
    (entry,) = system.rows("SELECT operator, why, detail FROM audit_log WHERE action = 'failures.discard'")
    assert tuple(entry) == ("operator@acme.test", "test records", {"failures": 2})
    assert "test records" in operator.text("/c/acme/failures/1")


# --- correcting -------------------------------------------------------------------------------------------------------


def test_an_outgoing_payload_is_corrected_and_sent(system: SyncSystem, operator: ConsoleClient) -> None:
    failure_id = refused(system, name="Wrong")
    page = operator.text(f"/c/acme/failures/{failure_id}")
    edit = operator.text(f"/c/acme/failures/{failure_id}/edit")
    payload = world_payload(failure_id)
    payload["user"]["nickname"] = "Right & <b>"

    checked = operator.post(f"/c/acme/failures/{failure_id}/edit", payload=json.dumps(payload), step="check")
    before = person(system, 1)["name"]
    operator.post(f"/c/acme/failures/{failure_id}/edit", payload=json.dumps(payload), step="send", why="a typo")
    advance(system)

    assert "Pipedrive refused these values before; none of them has changed." in words(page)
    assert "1 field of Person 1." in words(checked.text)
    assert "Edit payload…" in page
    assert "Wrong" in edit
    assert "user.nickname" in checked.text
    assert "Right &amp; &lt;b&gt;" in checked.text
    assert before != "Right & <b>"
    assert person(system, 1)["name"] == "Right & <b>"
    assert failed(system) == []
    written = system.rows("SELECT subject || coalesce(why, '') || coalesce(detail::text, '') AS told FROM audit_log")
    assert "Right" not in " ".join(row.told for row in written)
    (item,) = system.rows("SELECT state, payload, batch_id FROM replay_items")
    assert (item.state, item.payload, item.batch_id is None) == ("came_through", None, False)


def world_payload(failure_id: int) -> dict[str, Any]:
    with transaction() as session:
        found: dict[str, Any] = json.loads(failures.payload_of(session.get_one(Failure, failure_id)) or b"{}")
    return found


SPOILT: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text[:-2], "Line"),
    (lambda text: text.replace('"user"', '"usr"', 1), "The field &#39;user&#39; must be an object"),
    (lambda text: text.replace('"id":', '"id2":', 1), "must stay"),
    (
        lambda text: text.replace('"segments":', '"segments": 1, "x":', 1),
        "The field &#39;segments&#39; must be a list",
    ),
    (lambda text: text.replace("{", '{"a": 1, "a": 2, ', 1), "is given twice"),
    (lambda text: text.replace("{", '{"a": NaN, ', 1), "NaN is not a JSON number"),
    (lambda text: text.replace("{", '{"a": "\\u0000", ', 1), "NUL"),
    (lambda text: text.replace("{", '{"a": "\\ud800", ', 1), "half a character"),
    (lambda text: text.replace("{", '{"a": ' + "[" * 5000 + "]" * 5000 + ", ", 1), "nested"),
    (lambda _: "[]", "must be an object"),
    (lambda _: "", "Line 1, column 1"),
]
"""How a payload is broken, and the message of the page."""


def test_a_payload_that_will_not_do_is_named(system: SyncSystem, operator: ConsoleClient) -> None:
    failure_id = refused(system)
    payload = json.dumps(world_payload(failure_id))

    for spoil, expected in SPOILT:
        with capture_logs() as logged:
            answer = operator.post(f"/c/acme/failures/{failure_id}/edit", payload=spoil(payload), step="send")

        assert answer.status_code == 400, expected
        assert expected in answer.text
        assert system.rows("SELECT 1 FROM replays") == [], expected
        assert "King" not in str(logged), expected


def test_an_incoming_payload_is_corrected_in_pipedrive(system: SyncSystem, operator: ConsoleClient) -> None:
    broken(system, 10)

    answer = operator.get(f"/c/acme/failures/{failed_id(system)}/edit")

    assert answer.status_code == 404
    assert "Correct the record in Pipedrive" in answer.text
    assert "Edit payload" not in operator.text(f"/c/acme/failures/{failed_id(system)}")


# --- previews ---------------------------------------------------------------------------------------------------------


def preview_of(system: SyncSystem, failure_id: int) -> tuple[str, list[tuple[str, Any, Any]]]:
    from pipeline.jobs.replays.preview import preview_failures  # noqa: PLC0415 - Celery reads its settings when it is imported

    before = system.rows("SELECT sum(tokens) AS spent FROM token_ledger")[0].spent
    with transaction() as session:
        found = preview_failures(session, [session.get_one(Failure, failure_id)])[failure_id]
        assert not session.new
        assert not session.dirty
    assert system.rows("SELECT sum(tokens) AS spent FROM token_ledger")[0].spent == before
    return str(found.kind), [(each.field, each.before, each.after) for each in found.changes]


def test_what_would_change_is_named(system: SyncSystem) -> None:
    failure_id = refused(system, name="Ann King")

    assert preview_of(system, failure_id) == ("fails_again", [("name", person(system, 1)["name"], "Ann King")])


def test_applied_values_are_previewed_and_closed_without_being_sent(
    system: SyncSystem, operator: ConsoleClient
) -> None:
    failure_id = refused(system, name="Ann King")
    system.company.edit_person(1, name="Ann King")
    system.fetch(Entity.PERSON, changed_only=True)
    kind, _ = preview_of(system, failure_id)
    system.pipedrive.ledger.mutations.clear()

    operator.post("/c/acme/failures/replay", id=failure_id, count=1)
    advance(system)

    assert kind == "nothing"
    assert system.pipedrive.ledger.mutations == []
    assert system.rows("SELECT state FROM replay_items")[0].state == "already_applied"
    assert failed(system) == []


def test_records_that_the_settings_skip_are_previewed(system: SyncSystem) -> None:
    failure_id = refused(system)
    system.change_settings(synchronized_user_segments=["nobody"])

    assert preview_of(system, failure_id)[0] == "skipped"


def test_what_waits_already_is_newer(system: SyncSystem) -> None:
    failure_id = refused(system)
    from db import change_writer  # noqa: PLC0415 - needed here alone

    with transaction() as session:
        row = session.get_one(Failure, failure_id)
        scope = (row.connector_key, row.direction, row.entity, row.record_id or "")
        change_writer.write_payload(session, *scope, cause="notification", payload=b"{}", rank=5)

    assert preview_of(system, failure_id)[0] == "superseded"


def test_a_record_that_cannot_be_read_would_fail_again(system: SyncSystem) -> None:
    broken(system, 10)

    assert preview_of(system, failed_id(system))[0] == "fails_again"


def test_a_record_that_can_be_read_by_now_would_be_created(system: SyncSystem) -> None:
    broken(system, 10)
    good = keep(
        system,
        subject="incoming:person:12",
        direction="incoming",
        record_id="12",
        reason="too_long",
        payload=json.dumps(raw_person(id=12)).encode(),
    )

    kind, changes = preview_of(system, good)

    assert kind == "creates"
    assert ("pipedrive/name", None, "Odd") in changes


def test_a_deleted_record_is_superseded(system: SyncSystem) -> None:
    create_records(system, persons=2, organizations=0)
    system.fetch(Entity.PERSON)
    failure_id = keep(
        system,
        subject="incoming:person:1",
        direction="incoming",
        record_id="1",
        payload=json.dumps(raw_person(id=1)).encode(),
    )
    system.change_rows("UPDATE id_mappings SET state = 'deleted' WHERE pipedrive_id = 1")

    assert preview_of(system, failure_id)[0] == "superseded"


def test_a_record_without_an_id_is_not_replayed(system: SyncSystem) -> None:
    system.company.put_raw("person", {"name": "Nobody"})
    system.fetch(Entity.PERSON)

    assert preview_of(system, failed_id(system))[0] == "refused"


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"kind": "batch", "subject": "batch:99", "batch_id": 99}, "refused"),
        ({"kind": "control", "subject": "control:resolve_hull_ids", "stage": "resolve_hull_ids"}, "runs"),
        ({"kind": "control", "subject": "control:x", "stage": "control.job", "record_id": "99"}, "refused"),
        ({"kind": "control", "subject": "control:y", "stage": "confirm_missing", "run_id": 99}, "refused"),
        ({"record_id": "nobody"}, "unknown"),
    ],
)
def test_batches_and_tasks_have_previews_too(system: SyncSystem, more: dict[str, Any], kind: str) -> None:
    assert preview_of(system, keep(system, **more))[0] == kind


def test_a_closed_one_is_closed(system: SyncSystem) -> None:
    failure_id = keep(system, record_id="h1")
    with transaction() as session:
        failure_closing.close_failure(session, failure_id, "discarded", by="ada", why="x")

    assert preview_of(system, failure_id)[0] == "closed"


def test_pages_do_not_write(system: SyncSystem, operator: ConsoleClient) -> None:
    failure_id = refused(system)
    tables = ("failures", "changes", "replays", "replay_items", "sync_events", "id_mappings")

    def sizes() -> list[Any]:
        query = "SELECT md5(string_agg(t::text, '')) FROM {} t"
        with transaction() as session:
            return [session.scalar(text(query.format(each))) for each in tables]

    was = sizes()
    for path in (f"failures/{failure_id}", "failures", "failures/replay", "failures/discard", "replays"):
        operator.text(f"/c/acme/{path}")
    assert sizes() == was
