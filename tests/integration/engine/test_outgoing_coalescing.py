"""Notifications become outgoing changes: one for each record, in few statements, and no message is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, event, text

from db import delivery as deliveries
from db.session import engine, transaction
from pipeline.domain.kinds import Entity
from tests.deliveries import notify
from tests.integration.engine.test_coalescing import BEHIND_ME, PATIENCE
from tests.system import SyncSystem

S1 = {"id": "s1", "name": "One"}


def message(name: str, second: int = 0, *, of: str = "u1", **changes: Any) -> dict[str, Any]:
    at = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC).isoformat()
    return {"user": {"id": of, "name": name, "indexed_at": at}, "segments": [S1], "changes": changes}


def coalesce(system: SyncSystem, *, expected: bool = False) -> None:
    with transaction() as session:
        assert system.module("sync.changes.dispatch").coalesce_deliveries(session) is expected


def waiting(system: SyncSystem) -> dict[tuple[str, str], tuple[int, str, Any]]:
    """Return (entity, Hull id) → (revision, cause, message)."""
    rows = system.rows("SELECT entity, record_id, revision, cause, payload FROM changes WHERE direction = 'outgoing'")
    return {(row.entity, row.record_id): (row.revision, row.cause, orjson.loads(bytes(row.payload))) for row in rows}


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collect the statements that are executed in this context."""
    sent: list[str] = []

    def note(_connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        sent.append(statement)

    event.listen(engine(), "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine(), "before_cursor_execute", note)


def test_messages_of_one_notification_about_one_user_are_one_change(system: SyncSystem) -> None:
    notify(
        system,
        message("Second", 2, user={"plan": ["pro", "max"]}, segments={"entered": [S1]}),
        message("Other", of="u2"),
        message("First", 1, user={"plan": ["free", "pro"]}),
    )
    coalesce(system)

    found = waiting(system)
    assert set(found) == {("person", "u1"), ("person", "u2")}
    revision, cause, sent = found["person", "u1"]
    assert (revision, cause, sent["user"]["name"]) == (1, "notification", "Second")
    assert sent["changes"] == {"user": {"plan": ["free", "max"]}, "segments": {"entered": [S1], "left": []}}


def test_a_waiting_payload_is_coalesced_with_a_new_message(system: SyncSystem) -> None:
    notify(system, message("Old", 1, user={"plan": ["free", "pro"]}), is_export=True, key="n1")
    coalesce(system)
    notify(system, message("New", 2, user={"plan": ["pro", "max"], "age": [1, 2]}), key="n2")
    coalesce(system)

    revision, _, sent = waiting(system)["person", "u1"]
    assert (revision, sent["user"]["name"], sent["is_export"]) == (2, "New", True)
    assert sent["changes"]["user"] == {"plan": ["free", "max"], "age": [1, 2]}


def test_an_older_report_that_arrives_late_does_not_win(system: SyncSystem) -> None:
    for key, name, second in (("n1", "New", 9), ("n2", "Old", 1)):
        notify(system, message(name, second), key=key)
        coalesce(system)

    assert waiting(system)["person", "u1"][2]["user"]["name"] == "New"


def test_a_waiting_payload_that_is_no_message_is_replaced(system: SyncSystem) -> None:
    for number, payload in enumerate((b"not json", b"[]", None)):
        system.change_rows("DELETE FROM changes")
        notify(system, message("Old"), key=f"a{number}")
        coalesce(system)
        system.change_rows("UPDATE changes SET payload = :payload", payload=payload)
        notify(system, message("New"), key=f"b{number}")
        coalesce(system)

        assert waiting(system)["person", "u1"][2]["user"]["name"] == "New"


def test_a_claimed_change_gets_a_new_revision_and_stays_in_its_batch(system: SyncSystem) -> None:
    notify(system, message("Old"), key="n1")
    system.module("sync.changes.dispatch").dispatch_changes()
    notify(system, message("New", 1), key="n2")
    coalesce(system)

    (row,) = system.rows("SELECT batch_id IS NOT NULL AS held, claimed_revision, revision FROM changes")
    assert tuple(row) == (True, 1, 2)
    system.change_rows("UPDATE batches SET state = 'failed' WHERE direction = 'outgoing'")
    notify(system, message("Newer", 2), key="n3")
    coalesce(system)
    (row,) = system.rows("SELECT batch_id, revision FROM changes")
    assert tuple(row) == (None, 3)


def test_a_thousand_messages_need_few_statements(system: SyncSystem) -> None:
    system.change_settings(link_users_in_service=True)
    counts = []
    for key in ("n1", "n2"):
        sent = [
            {**message(f"{key} {n}", of=f"u{n}"), "account": {"id": f"a{n % 50}"}, "account_segments": []}
            for n in range(1_000)
        ]
        notify(system, *sent, key=key)
        with statements() as sent:
            coalesce(system)
        counts.append(len(sent))

    assert max(counts) <= 14, counts
    found = waiting(system)
    assert len(found) == 1_050
    assert {revision for revision, _, _ in found.values()} == {2}
    assert found["person", "u999"][2]["user"]["name"] == "n2 999"


BAD = [None, {"user": {"id": ""}}, {"user": {"name": "nobody"}}, {"user": ["id"]}, 7]


@pytest.mark.parametrize(
    "odd",
    [{"a": {"b": [1]}}, "x" * 1_000_000, "a\x00b", "half \ud800", 2**70, 1e400, [[]] * 10],
    ids=lambda v: str(v)[:8],
)
def test_unusual_values_are_kept_and_messages_without_an_id_leave_an_event(system: SyncSystem, odd: Any) -> None:
    sent = [message("One"), *BAD, {**message("Odd", of="u2"), "odd": odd}, message("Three", of="u3")]
    sent[-2]["user"]["odd"] = sent[-2]["changes"] = odd
    body = {"channel": "user:update", "messages": sent}
    with transaction() as session:
        deliveries.keep_delivery(session, system.connector_key, "hull", "odd", json.dumps(body).encode())
    coalesce(system)
    notify(system, message("Again", 1), message("Odd again", 1, of="u2"), message("Three", of="u3"))
    coalesce(system)

    found = waiting(system)
    names = {key[1]: sent["user"]["name"] for key, (_, _, sent) in found.items()}
    assert names == {"u1": "Again", "u2": "Odd again", "u3": "Three"}
    messages = [each for each in system.events() if each[0] == "outgoing.user.error"]
    assert messages == [("outgoing.user.error", "no_hull_id", None)] * len(BAD)
    (first, _) = system.rows("SELECT state, reason FROM deliveries ORDER BY id")
    assert tuple(first) == ("processed", "no_hull_id")


def test_a_message_with_deep_nesting_is_rejected_alone(system: SyncSystem) -> None:
    deep: Any = "bottom"
    for _ in range(200):
        deep = [deep]
    notify(system, message("One"), {**message("Deep", of="u2"), "events": deep}, message("Three", of="u3"))
    coalesce(system)

    assert {record for _, record in waiting(system)} == {"u1", "u3"}
    assert ("outgoing.user.error", "nested_too_deeply", None) in system.events()


def test_a_defect_stops_one_delivery_only(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    module = system.module("sync.changes.outgoing_changes")
    real = module.combine_messages

    def stumble(earlier: Any, later: Any) -> Any:
        if later["user"]["id"] == "u2":
            raise RuntimeError
        return real(earlier, later)

    monkeypatch.setattr(module, "combine_messages", stumble)
    notify(system, message("One"), key="n1")
    notify(system, message("Two", of="u2"), message("Two", of="u2"), key="n2")
    notify(system, message("Three", of="u3"), key="n3")
    coalesce(system)

    assert {record for _, record in waiting(system)} == {"u1", "u3"}
    states = [tuple(row) for row in system.rows("SELECT state, reason FROM deliveries ORDER BY id")]
    assert states == [("processed", None), ("refused", "internal_error"), ("processed", None)]


def test_large_deliveries_are_taken_a_few_at_a_time(system: SyncSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.module("sync.changes.dispatch"), "BYTES_AT_ONCE", 5_000)
    monkeypatch.setattr(system.module("sync.changes.outgoing_changes"), "BYTES_AT_ONCE", 300)
    for n in range(4):
        notify(system, *[message("x" * 1_000, of=f"u{n}{each}") for each in range(3)], key=f"n{n}")

    coalesce(system, expected=True)
    first = len(waiting(system))
    system.module("sync.changes.dispatch").dispatch_changes()

    assert first == 6
    assert len(waiting(system)) == 12


def test_two_first_reports_of_a_record_at_the_same_time_lose_nothing(system: SyncSystem) -> None:
    notify(system, message("b", 1, of="u2", user={"x": [1, 2]}), message("a", 1, of="u1", user={"x": [1, 2]}), key="n1")
    notify(system, message("A", 2, of="u1", user={"y": [1, 2]}), message("B", 2, of="u2", user={"y": [1, 2]}), key="n2")

    def coalesce_the_other() -> None:
        with transaction() as session:
            system.module("sync.changes.dispatch").coalesce_deliveries(session)

    coalescing = system.module("sync.changes.dispatch")
    other = Thread(target=coalesce_the_other)
    with transaction() as session:
        session.execute(text("SET LOCAL lock_timeout = '5s'"))
        mine = coalescing.deliveries.claim_new_deliveries(session, 1, 1_000)
        now = coalescing._Round(connectors={})
        coalescing._coalesce_notification(mine[0], now)
        coalescing._write_messages(session, mine, now)
        other.start()
        for _ in range(PATIENCE):  # until the other one waits for the first record
            if session.execute(text(BEHIND_ME)).scalar_one():
                break
    other.join()

    found = waiting(system)
    assert {record: (revision, sent["changes"]["user"]) for (_, record), (revision, _, sent) in found.items()} == {
        record: (2, {"x": [1, 2], "y": [1, 2]}) for record in ("u1", "u2")
    }
    assert found["person", "u1"][2]["user"]["name"] == "A"


def test_messages_of_an_export_are_coalesced_in_the_same_way(system: SyncSystem) -> None:
    notify(system, message("Waiting", 1, user={"plan": [1, 2]}))
    coalesce(system)
    sent = [{"user": {"id": "u1", "name": "Sent"}}, {"user": {}}, {"user": {"id": "u2"}, "is_export": False}]
    with transaction() as session:
        coalesced = system.module("sync.changes.outgoing_changes").coalesce_messages(
            session, system.connector_key, Entity.PERSON, iter(sent), cause="batch", is_export=True, rank=2**45
        )

    found = waiting(system)
    assert coalesced == 2
    assert found["person", "u1"][2] == {
        "user": {"id": "u1", "name": "Sent"},
        "changes": {"user": {"plan": [1, 2]}},
        "reported_values": {"plan": [[2, 1_767_225_601_000]]},
        "is_export": True,
    }
    assert found["person", "u2"] == (1, "batch", {"user": {"id": "u2"}, "is_export": True})
    assert ("outgoing.user.error", "no_hull_id", None) in system.events()


class TestAccountsOfUsers:
    @pytest.fixture(autouse=True)
    def linking(self, system: SyncSystem) -> None:
        system.change_settings(link_users_in_service=True, synchronized_account_segments=["big"])

    def report(
        self, system: SyncSystem, *, account: Any, segments: Any = ("big",), of: str = "u1", **more: Any
    ) -> None:
        listed = {} if segments is None else {"account_segments": [{"id": each} for each in segments]}
        notify(system, {**message("Ada", of=of), "account": account, **listed}, key=f"{of}{account}", **more)
        coalesce(system)

    def test_an_unknown_account_is_sent_too(self, system: SyncSystem) -> None:
        self.report(system, account={"id": "a1", "name": "Acme"})

        assert waiting(system)["organization", "a1"] == (
            1,
            "linked_user",
            {
                "account": {"id": "a1", "name": "Acme"},
                "account_segments": [{"id": "big"}],
                "account_segment_ids": ["big"],
                "changes": {},
                "is_export": False,
            },
        )

    def test_an_account_with_an_organization_in_its_report_only_is_sent_too(self, system: SyncSystem) -> None:
        """Its report may name a record that was deleted or belongs to another company; Pipedrive is asked for it."""
        self.report(system, account={"id": "a1", "pipedrive/id": 44})

        assert ("organization", "a1") in waiting(system)

    @pytest.mark.parametrize(
        ("account", "more"),
        [
            ({"id": "a1"}, {"segments": ["small"]}),
            ({"id": "a1"}, {"segments": None}),
            ({"name": "without an id"}, {}),
            ({}, {}),
        ],
    )
    def test_a_filtered_account_or_one_without_an_id_is_not_sent(
        self, system: SyncSystem, account: Any, more: Any
    ) -> None:
        self.report(system, account=account, **more)

        assert {entity for entity, _ in waiting(system)} == {"person"}

    def test_an_export_without_segments_sends_it_too(self, system: SyncSystem) -> None:
        self.report(system, account={"id": "a1"}, segments=None, is_export=True)

        assert waiting(system)["organization", "a1"][2]["is_export"] is True

    @pytest.mark.parametrize(
        ("state", "account", "is_known"),
        [
            ("full", {"id": "a1"}, True),
            ("shell", {"id": "a1"}, True),
            ("deleted", {"id": "a1"}, False),
            ("full", {"id": "a2", "anonymous_ids": ["pipedrive:7"]}, True),
            ("deleted", {"id": "a2", "anonymous_ids": ["pipedrive:7"]}, False),
            ("full", {"id": "a2", "anonymous_ids": ["pipedrive:8"]}, False),
        ],
    )
    def test_an_account_with_an_existing_organization_is_not_sent(
        self, system: SyncSystem, state: str, account: dict[str, Any], is_known: bool
    ) -> None:
        system.change_rows(
            "INSERT INTO id_mappings (connector_key, entity, pipedrive_id, hull_id, state, matched_by)"
            " VALUES (:c, 'organization', 7, 'a1', :state, 'fetched')",
            c=system.connector_key,
            state=state,
        )
        self.report(system, account=account)

        assert (("organization", account["id"]) not in waiting(system)) == is_known

    def test_an_account_of_many_users_is_one_change_with_its_own_message(self, system: SyncSystem) -> None:
        own = {"account": {"id": "a1", "name": "Own", "indexed_at": "2026-01-02T00:00:00Z"}, "account_segments": []}
        messages = {**own, "changes": {"account": {"name": ["x", "Own"]}}}
        notify(system, messages, channel="account:update", key="own")
        coalesce(system)
        for number in range(3):
            self.report(
                system, account={"id": "a1", "name": "Old", "indexed_at": "2026-01-01T00:00:00Z"}, of=f"u{number}"
            )

        revision, cause, sent = waiting(system)["organization", "a1"]
        assert (revision, cause, sent["account"]["name"]) == (4, "notification", "Own")
        assert sent["changes"] == {"account": {"name": ["x", "Own"]}}

    def test_unreadable_settings_do_not_delay_the_user(self, system: SyncSystem) -> None:
        system.change_settings(of_the_future=True)
        self.report(system, account={"id": "a1"})

        assert set(waiting(system)) == {("person", "u1")}

    def test_accounts_and_users_are_enqueued_as_one_canvas(
        self, system: SyncSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        woken: list[Any] = []
        monkeypatch.setattr(system.module("tasks.canvases"), "wake", lambda wakeups, **_options: woken.extend(wakeups))
        notify(system, {**message("Ada"), "account": {"id": "a1"}, "account_segments": [{"id": "big"}]})

        assert system.module("sync.changes.dispatch").dispatch_changes() == 2

        (accounts,) = woken
        canvas = system.module("tasks.canvases").accounts_then_users(accounts, accounts.then)
        rows = system.rows("SELECT id, entity, read_back_id FROM batches WHERE direction = 'outgoing' ORDER BY id")
        assert [row.entity for row in rows] == ["organization", "person"]
        assert [(task["task"], task["args"][0]) for task in canvas.tasks] == [
            step
            for row in rows
            for step in (
                ("outgoing.extract", row.id),
                ("outgoing.transform", row.id),
                ("outgoing.load", row.id),
                ("incoming.transform", row.read_back_id),
                ("incoming.load", row.read_back_id),
            )
        ]

    def test_users_without_accounts_are_enqueued_alone(
        self, system: SyncSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        woken: list[Any] = []
        monkeypatch.setattr(system.module("tasks.canvases"), "wake", lambda wakeups, **_options: woken.extend(wakeups))
        notify(system, message("Ada"))

        assert system.module("sync.changes.dispatch").dispatch_changes() == 1
        assert [wakeup.then for wakeup in woken] == [None]

    def test_users_wait_for_accounts_that_have_not_begun(self, system: SyncSystem) -> None:
        self.report(system, account={"id": "a1"})
        system.change_rows("UPDATE changes SET due_at = now() + interval '1 hour' WHERE entity = 'person'")
        made = [system.module("sync.changes.dispatch").dispatch_changes()]
        system.change_rows("UPDATE changes SET due_at = now()")
        made.append(system.module("sync.changes.dispatch").dispatch_changes())
        system.change_rows("UPDATE batches SET enqueued_at = now() - interval '10 s'")
        made.append(system.module("sync.changes.dispatch").dispatch_changes())

        assert made == [1, 0, 1]
