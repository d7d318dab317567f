"""What is set going by hand: its size first, by operators only, written into the audit log, done by workers."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from db.audit import latest_entries
from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.jobs import runtime, sends
from pipeline.jobs.verify import verify
from pipeline.operations import comparisons
from pipeline.operations.cached_answers import forget_all
from pipeline.operations.errors import OperationError
from pipeline.operations.sends import SendingShape, as_hull_ids, latest_sends, read_ids
from tests.integration.console.conftest import ConsoleClient
from tests.system import SyncSystem

HOME = "/c/acme"


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget_all()


def audited(action: str) -> list[tuple[str, str]]:
    with transaction() as session:
        return [(each.operator, each.subject) for each in latest_entries(session) if each.action == action]


def latest(system: SyncSystem) -> list[SendingShape]:
    with transaction() as session:
        return latest_sends(session, system.connector_key)


def put_users(system: SyncSystem, count: int) -> tuple[list[str], str]:
    """(Hull ids, the id of the segment they are in) of Users that are joined to Persons."""
    system.change_settings(outgoing_user_attributes=[{"hull": "nickname", "service": "name"}])
    for number in range(count):
        system.company.create_person(name=f"P{number}", emails=[{"value": f"p{number}@example.com", "primary": True}])
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    ids = sorted(user["id"] for user in system.users().values())
    return ids, system.hull.define_segment("user", "VIPs", ids).id


def test_a_full_fetch_shows_its_size_before_its_button(system: SyncSystem, operator: ConsoleClient) -> None:
    assert "is not known before the first fetch" in operator.text(f"{HOME}/actions/fetch/person")
    for n in range(3):
        system.company.create_person(name=f"P{n}")
    system.fetch(Entity.PERSON)

    page = operator.text(f"{HOME}/actions/fetch/person")

    assert "3 Persons, about 30 tokens" in page
    assert "Be careful if you have a lot of data" in page
    assert "Fetch all 3 Persons" in page


@pytest.mark.parametrize(("what", "changed_only"), [("all", False), ("changed", True)])
def test_a_full_fetch_begins_and_is_written_down(
    system: SyncSystem, operator: ConsoleClient, what: str, changed_only: bool
) -> None:
    system.company.create_person(name="Ada")

    answer = operator.post(f"{HOME}/actions/fetch/person", what=what)

    assert (answer.status_code, answer.headers["Location"]) == (303, f"{HOME}/runs/1")
    run = system.run(1)
    assert (run.kind, run.entity, run.cause, run.changed_only) == ("full", "person", "operator@acme.test", changed_only)
    assert audited("fetch.start") == [("operator@acme.test", "run 1")]
    again = operator.post(f"{HOME}/actions/fetch/person", what=what)
    assert again.headers["Location"] == f"{HOME}/runs/1"
    assert len(system.rows("SELECT 1 FROM runs")) == 1
    assert "This fetch is already running" in operator.text(f"{HOME}/actions/fetch/person")


def test_what_changed_is_fetched_of_both_entities(system: SyncSystem, operator: ConsoleClient) -> None:
    answer = operator.post(f"{HOME}/actions/changes")

    assert answer.headers["Location"] == f"{HOME}/runs?kind=incremental"
    assert {(row.entity, row.kind) for row in system.rows("SELECT entity, kind FROM runs")} == {
        ("person", "incremental"), ("organization", "incremental"),
    }  # fmt: skip
    assert operator.post(f"{HOME}/actions/changes").headers["Location"] == f"{HOME}/"


def test_a_connector_is_paused_and_resumed(system: SyncSystem, operator: ConsoleClient) -> None:
    operator.post(f"{HOME}/actions/pause")
    assert "acme is paused: no work is done until it is resumed." in operator.text(f"{HOME}/actions")
    refused = operator.post(f"{HOME}/actions/fetch/person")
    assert (refused.status_code, "Resume it first." in refused.text) == (400, True)
    assert operator.post(f"{HOME}/actions/changes").status_code == 400

    operator.post(f"{HOME}/actions/resume")

    assert "acme is active" in operator.text(f"{HOME}/actions")
    assert audited("connector.pause") == audited("connector.resume") == [("operator@acme.test", "acme")]


@pytest.mark.parametrize("act", ["pause", "resume"])
def test_pause_and_resume_return_to_the_page_of_their_form(act: str, system: SyncSystem, admin: ConsoleClient) -> None:
    admin.post(f"{HOME}/actions/{'resume' if act == 'pause' else 'pause'}")
    form = admin.text(f"{HOME}/credentials").partition(f'action="{HOME}/actions/{act}"')[2].partition("</form>")[0]

    assert f'<input type="hidden" name="next" value="{HOME}/credentials">' in form
    kept = admin.post(f"{HOME}/actions/{act}", next=f"{HOME}/credentials")
    foreign = admin.post(f"{HOME}/actions/{act}", next="//evil.test/")
    assert [each.headers.get("Location") for each in (kept, foreign)] == [f"{HOME}/credentials", "/"]


def test_a_connector_without_credentials_is_not_resumed(system: SyncSystem, operator: ConsoleClient) -> None:
    system.change_rows("DELETE FROM credentials WHERE name LIKE 'pipedrive%'")
    system.change_rows("UPDATE connectors SET state = 'paused', pause_reason = 'not_connected'")

    answer = operator.post(f"{HOME}/actions/resume")

    assert answer.status_code == 400
    assert "connect it under Credentials" in answer.text


def test_viewers_look_and_do_nothing(system: SyncSystem, viewer: ConsoleClient) -> None:
    page = viewer.text(f"{HOME}/actions")

    assert "<button>Pause" not in page
    assert viewer.get(f"{HOME}/actions/fetch/person").status_code == 403
    for path in ("fetch/person", "changes", "pause", "resume", "verify", "send", "send/count"):
        assert viewer.post(f"{HOME}/actions/{path}").status_code == 403
    assert system.rows("SELECT 1 FROM runs UNION ALL SELECT 1 FROM jobs") == []


def test_what_makes_no_sense_is_refused(system: SyncSystem, operator: ConsoleClient) -> None:
    assert operator.get(f"{HOME}/actions/fetch/deal").status_code == 404
    assert operator.post(f"{HOME}/actions/send/count", entity="person").status_code == 400
    both = operator.post(f"{HOME}/actions/send/count", entity="person", segment="s1", ids="a")
    assert "Choose either a segment or ids." in both.text
    assert 'value="s1"' in both.text
    assert operator.post(f"{HOME}/actions/send", entity="deal", ids="a").status_code == 404
    assert system.rows("SELECT 1 FROM jobs") == []


def test_users_of_a_segment_are_counted_and_then_sent(system: SyncSystem, operator: ConsoleClient) -> None:
    hull_ids, segment = put_users(system, 3)

    counted = operator.post(f"{HOME}/actions/send/count", entity="person", segment=segment).text
    assert "3 Users would be sent" in counted
    assert system.rows("SELECT 1 FROM jobs") == []
    sent = operator.post(f"{HOME}/actions/send", entity="person", segment=segment, ids="")
    assert sent.headers["Location"] == f"{HOME}/actions#sent"
    system.run_jobs()

    waiting = {row.record_id for row in system.rows("SELECT record_id FROM changes WHERE direction = 'outgoing'")}
    assert waiting == set(hull_ids)
    page = operator.text(f"{HOME}/actions")
    assert 'logs?cause=send">3</a>' in page
    assert audited("send") == [("operator@acme.test", f"segment {segment}, 3 Users")]


def test_ids_are_sent_and_ids_missing_in_hull_are_reported(system: SyncSystem, operator: ConsoleClient) -> None:
    (known,), _ = put_users(system, 1)

    operator.post(f"{HOME}/actions/send", entity="person", ids=f"{known}, {known}\nnobody")
    system.run_jobs()

    assert [row.record_id for row in system.rows("SELECT record_id FROM changes")] == [known]
    assert system.rows("SELECT hull_id FROM sync_events WHERE reason = 'not_in_hull'")[0].hull_id == "nobody"
    assert [row.state for row in system.rows("SELECT state FROM jobs")] == ["done"]


def test_an_email_is_sent_as_the_user_it_belongs_to(system: SyncSystem, operator: ConsoleClient) -> None:
    (known,), _ = put_users(system, 1)

    counted = operator.post(f"{HOME}/actions/send/count", entity="person", ids="P0@example.com")
    unknown = operator.post(f"{HOME}/actions/send/count", entity="person", ids="nobody@example.com")
    operator.post(f"{HOME}/actions/send", entity="person", ids="p0@example.com")
    system.run_jobs()
    (sent,) = latest(system)

    assert "1 User would be sent" in counted.text
    assert (unknown.status_code, "There is not exactly one User with nobody@example.com." in unknown.text) == (
        400,
        True,
    )
    assert (sent.done, sent.of, sent.missing) == (1, 1, 0)
    assert [row.record_id for row in system.rows("SELECT record_id FROM changes")] == [known]


def test_many_emails_are_looked_up_in_one_statement(system: SyncSystem) -> None:
    known, _ = put_users(system, 3)
    given = [*(f"P{number}@Example.com" for number in range(3)), known[0]]
    with transaction() as session:
        seen: list[str] = []
        event.listen(session.connection(), "before_cursor_execute", lambda *called: seen.append(called[2]))

        ids = as_hull_ids(session, system.connector_key, Entity.PERSON, given)

    assert sorted(ids) == known
    assert len(seen) == 1


def test_ids_that_hull_does_not_have_are_not_counted_as_sent(system: SyncSystem, operator: ConsoleClient) -> None:
    counted = operator.post(f"{HOME}/actions/send/count", entity="person", ids="f" * 24)
    operator.post(f"{HOME}/actions/send", entity="person", ids="f" * 24)
    system.run_jobs()
    (sent,) = latest(system)

    assert "Hull has none of these ids" in counted.text
    assert (sent.done, sent.of, sent.missing) == (0, 1, 1)


def test_a_killed_send_continues_after_the_coalesced_records(
    system: SyncSystem, operator: ConsoleClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sends, "PER_PAGE", 1)
    hull_ids, _ = put_users(system, 3)
    operator.post(f"{HOME}/actions/send", entity="person", ids=" ".join(hull_ids))
    monkeypatch.setattr(runtime, "SLICE_S", -1.0)  # each task does one page
    progress = []
    for _ in range(4):
        system.run_jobs()
        progress.append(system.rows("SELECT progress, state FROM jobs")[0])

    assert [row.progress for row in progress] == [1, 2, 3, 3]
    assert progress[-1].state == "done"
    assert len(system.rows("SELECT 1 FROM changes")) == 3


def test_known_users_are_found_by_what_they_are_known_by(system: SyncSystem, operator: ConsoleClient) -> None:
    system.company.create_person(name="Ada", emails=[{"value": "ada@example.com", "primary": True}])
    system.fetch(Entity.PERSON)
    system.change_rows("UPDATE id_mappings SET hull_id = 'hull-ada' WHERE entity = 'person'")
    for query in ("ada@example.com", "ADA@example.com", "hull-ada", str(max(system.users()))):
        assert 'value="hull-ada" checked' in operator.text(f"{HOME}/actions/send?q={query}"), query
    assert "No matching" in operator.text(f"{HOME}/actions/send?q=nobody")
    assert "<script>" not in operator.text(f"{HOME}/actions/send?q=<script>").partition("<main")[2]


def test_a_sample_is_compared_and_what_came_out_is_kept(system: SyncSystem, operator: ConsoleClient) -> None:
    system.company.create_person(name="Ada")
    system.fetch(Entity.PERSON)
    assert "No comparison in the last 90 days" in operator.text(f"{HOME}/actions")

    operator.post(f"{HOME}/actions/verify")
    assert "A comparison or repair is running" in operator.text(f"{HOME}/actions")
    system.run_jobs()

    with transaction() as session:
        last = comparisons.last_compared(session, system.connector_key)
    assert last is not None
    assert last.sample == verify.SAMPLE
    assert last.requested_by == "operator@acme.test"
    assert f"{last.compared:,}" in operator.text(f"{HOME}/actions")
    assert audited("verify.start")


def test_everything_is_compared_and_repaired_by_as_many_records_as_the_button_names(
    system: SyncSystem, operator: ConsoleClient
) -> None:
    for name in ("Ada", "Bo"):
        record = system.company.create_person(name=name)
        system.company.load("person", {**record, "update_time": "2026-02-01T00:00:00Z"})
    system.fetch(Entity.PERSON)
    system.module("sync.changes.hull_ids").resolve(system.connector_key)
    system.hull.incinerate(system.hull.users.by_anonymous["pipedrive:2"])
    system.change_rows("UPDATE id_mappings SET updated_at = now() - interval '1 hour'")
    operator.post(f"{HOME}/actions/verify", what="everything")
    system.run_jobs()

    assert "Repair 1 record<" in operator.text(f"{HOME}/actions")
    assert operator.post(f"{HOME}/actions/verify/1/repair", count="2").status_code == 400
    assert system.rows("SELECT 1 FROM changes WHERE cause = 'verify'") == []
    assert operator.post(f"{HOME}/actions/verify/1/repair", count="1").status_code == 303
    assert operator.post(f"{HOME}/actions/verify/1/repair", count="1").status_code == 400
    system.run_jobs()

    assert len(system.rows("SELECT 1 FROM changes WHERE cause = 'verify'")) == 1
    assert audited("verify.repair") == [("operator@acme.test", "comparison 1: 1 records")]
    assert "Repair 1 record<" not in operator.text(f"{HOME}/actions")


def test_ids_are_read_as_people_paste_them() -> None:
    assert read_ids(" a, b;c\n\ta ") == ("a", "b", "c")
    with pytest.raises(OperationError, match="the maximum is"):
        read_ids(" ".join(str(n) for n in range(sends.MOST_IDS + 1)))
    with pytest.raises(OperationError, match="not valid Hull ids"):
        read_ids("a" * 101)


def test_no_other_connectors_work_is_shown(system: SyncSystem, operator: ConsoleClient) -> None:
    with transaction() as session:
        session.add(Connector(id="b" * 24, name="other", hull_organization="other.test", state="paused"))
    operator.post(f"{HOME}/actions/send", entity="person", ids="a")

    assert "No manual sends" in operator.text("/c/other/actions")


def test_thousands_of_ids_fit_into_one_form(system: SyncSystem, operator: ConsoleClient) -> None:
    known, _ = put_users(system, 2)
    ids = " ".join([*known, *(f"{n:024x}" for n in range(sends.MOST_IDS - 2))])

    page = operator.post(f"{HOME}/actions/send/count", entity="person", ids=ids).text

    assert "2 Users would be sent" in page
    assert "Hull does not know 4,998 of the 5,000 ids" in page


def test_many_records_are_estimated(system: SyncSystem, operator: ConsoleClient) -> None:
    system.change_rows(
        "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, state, matched_by)"
        " SELECT :c, 'person', n, 'full', 'fetched' FROM generate_series(1, 30000) n",
        c=system.connector_key,
    )
    system.change_rows("ANALYZE id_mappings")

    page = operator.text(f"{HOME}/actions/fetch/person")

    estimate = int(page.partition(">About ")[2].partition(" Persons")[0].replace(",", ""))
    assert 27_000 <= estimate <= 33_000
    assert "Fetch all about" in page
