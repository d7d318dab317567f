"""The plan of a page, without a database: which records are sent, the messages, and the rows to store."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import jwt
import orjson
import pytest

from db.id_mapping import Known
from db.page import PageConflicts, PageRow
from pipeline.clients.hull import MessageWriter
from pipeline.domain.kinds import Entity
from pipeline.load.incoming import (
    CHANGED,
    NEW,
    SAME,
    FirehoseRecord,
    PageDiff,
    compose,
    count_once,
    organizations_of,
    plan_page,
    unchanged_states,
)

SECRET = "a secret of some length, for tests only"


def record(pipedrive_id: int = 1, **more: Any) -> dict[str, Any]:
    """An IncomingRecord as transform stages it."""
    return {
        "pipedrive_id": pipedrive_id,
        "version": 100,
        "claims": {"email": f"p{pipedrive_id}@example.com"},
        "attributes": {"pipedrive/id": pipedrive_id, "pipedrive/name": "Ada"},
        "organization_id": None,
        "digest": "d1",
        "problems": [],
        **more,
    }


def known(pipedrive_id: int = 1, **more: Any) -> dict[int, Known]:
    facts = {"state": "full", "version": 100, "digest": "d1", "delivered": b'{"pipedrive/name":"Ada"}', "hull_id": None}
    return {pipedrive_id: Known(pipedrive_id, **(facts | more))}


def planned(records: list[dict[str, Any]], have: dict[int, Known], *, resend: bool = False) -> PageDiff:
    return plan_page(Entity.PERSON, records, have, resend=resend)


def composed(
    plan: PageDiff, held: dict[tuple[str, int], int] | None = None, *, link: bool = True
) -> tuple[list[dict[str, Any]], list[PageRow]]:
    writer = MessageWriter(connector_id="c", secret=SECRET, now=datetime(2026, 1, 1, tzinfo=UTC))
    bodies = {(number := each.record["pipedrive_id"]): b'{"id":%d}' % number for each in plan.sendings}
    messages, rows = compose(plan, bodies, writer, held or {}, lambda body: body, link=link)
    return [orjson.loads(message) for message in messages], rows


def claims_of(message: dict[str, Any]) -> dict[str, Any]:
    token = message["headers"]["Hull-Access-Token"]
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_iat": False})
    return {name: claims[name] for name in ("io.hull.asUser", "io.hull.asAccount") if name in claims}


DECISIONS: list[tuple[str, dict[int, Known], bool, str | None]] = [
    ("never seen", {}, False, "new"),
    ("a shell", known(state="shell", version=0, digest=None, delivered=None), False, "new"),
    ("unchanged", known(), False, None),
    ("unchanged, requested again", known(), True, "same"),
    ("other content, later", known(version=99, digest="d0"), False, "changed"),
    ("other content, same second", known(digest="d0"), False, "changed"),
    ("in doubt", known(digest=""), False, "changed"),
    ("older than the known state", known(version=101, digest="d0"), False, None),
    ("older, requested again", known(version=101, digest="d0"), True, None),
    ("older, same content", known(version=101), True, None),
]


@pytest.mark.parametrize(
    ("what", "have", "resend", "effect"), DECISIONS, ids=lambda case: case if isinstance(case, str) else ""
)
def test_decides_record_by_record(what: str, have: dict[int, Known], resend: bool, effect: str | None) -> None:
    plan = planned([record()], have, resend=resend)

    assert [sending.effect for sending in plan.sendings] == ([effect] if effect else [])
    assert sum(plan.counters.values()) == 1
    assert plan.stale == ([1] if have and have[1].version > 100 else [])


def test_the_newer_of_two_states_in_a_page_is_sent() -> None:
    old, new = record(version=100, digest="old"), record(version=101, digest="new")

    for order in ([old, new], [new, old]):
        assert [sending.record["digest"] for sending in planned(order, {}).sendings] == ["new"]


def test_unchanged_states_leave_out_records_that_are_written_again() -> None:
    stored_before, newest, young = record(digest="old"), record(version=101, digest="new"), record(2, version=500)

    assert unchanged_states([stored_before, newest, young], fresh_from=500) == [("new", 101)]
    assert unchanged_states([newest, stored_before, young], fresh_from=501) == [("new", 101), ("d1", 500)]


def test_a_record_always_has_its_anonymous_id() -> None:
    (message,), _ = composed(planned([record()], {}))

    assert claims_of(message) == {"io.hull.asUser": {"email": "p1@example.com", "anonymous_id": "pipedrive:1"}}


def test_a_claim_of_another_record_is_not_sent() -> None:
    (message,), _ = composed(planned([record()], {}), held={("email", 1): 7})

    assert claims_of(message) == {"io.hull.asUser": {"anonymous_id": "pipedrive:1"}}


@pytest.mark.parametrize(("link", "messages"), [(True, 2), (False, 1)])
def test_a_person_is_linked_to_its_organization_by_the_settings(link: bool, messages: int) -> None:
    plan = planned([record(organization_id=9)], {})

    sent, rows = composed(plan, link=link)

    assert len(sent) == messages
    assert len(rows) == 1
    assert (plan.counters["messages"], plan.counters["links"]) == (messages, messages - 1)
    assert organizations_of(plan) == {9}
    if link:
        assert sent[1]["body"] == {"pipedrive/id": 9}
        assert claims_of(sent[1])["io.hull.asAccount"] == {"anonymous_id": "pipedrive:9"}
        assert claims_of(sent[1])["io.hull.asUser"]["email"] == "p1@example.com"


NULLS: list[tuple[dict[int, Known], dict[str, Any], dict[str, Any]]] = [
    ({}, {"name": "Ada", "phone": None}, {"name": "Ada"}),
    (known(digest="d0", delivered=None), {"name": "Ada", "phone": None}, {"name": "Ada"}),
    (known(digest="d0", delivered=b'{"name":"Ada"}'), {"name": "Ada", "phone": None}, {"name": "Ada"}),
    (known(digest="d0", delivered=b'{"phone":"1"}'), {"name": "Ada", "phone": None}, {"name": "Ada", "phone": None}),
    (known(digest="d0", delivered=b'{"phone":"1"}'), {"name": None, "phone": None}, {"phone": None}),
    (known(digest="d0", delivered=b'{"phone":"1"}'), {"name": "Ada"}, {"name": "Ada"}),
]


@pytest.mark.parametrize(("have", "attributes", "sent"), NULLS)
def test_a_null_is_sent_only_if_hull_has_a_value_of_ours(
    have: dict[int, Known], attributes: dict[str, Any], sent: dict[str, Any]
) -> None:
    (message,), _ = composed(planned([record(attributes=attributes)], have))

    assert message["body"] == sent


def test_the_row_of_a_new_record_has_the_sent_values() -> None:
    _, (row,) = composed(planned([record(attributes={"name": "Ada", "phone": None})], {}))

    assert orjson.loads(row.delivered) == {"name": "Ada"}
    assert (row.before, orjson.loads(row.after or b""), row.effect) == (None, {"name": "Ada"}, 1)


def test_the_row_of_a_change_has_the_values_that_differ() -> None:
    have = known(digest="d0", delivered=b'{"name":"Ada","phone":"1","city":"Tartu"}')

    _, (row,) = composed(planned([record(attributes={"name": "Anna", "phone": None, "city": "Tartu"})], have))

    assert orjson.loads(row.before or b"") == {"name": "Ada", "phone": "1"}
    assert orjson.loads(row.after or b"") == {"name": "Anna", "phone": None}
    assert orjson.loads(row.delivered) == {"name": "Anna", "city": "Tartu"}


def test_a_value_that_cannot_be_read_stays_as_it_was() -> None:
    """Hull still has it, so a later null must be sent."""
    have = known(digest="d0", delivered=b'{"name":"Ada","phone":"1"}')

    _, (row,) = composed(planned([record(attributes={"name": "Anna"})], have))

    assert orjson.loads(row.delivered) == {"name": "Anna", "phone": "1"}
    assert orjson.loads(row.before or b"") == {"name": "Ada"}


def test_a_record_that_is_sent_again_has_no_event() -> None:
    _, (row,) = composed(planned([record()], known(), resend=True))

    assert (row.before, row.after, row.effect) == (None, None, 0)


def test_an_organization_is_an_account() -> None:
    plan = plan_page(Entity.ORGANIZATION, [record(claims={"domain": "acme.com"})], {}, resend=False)

    (message,), _ = composed(plan)

    assert claims_of(message) == {"io.hull.asAccount": {"domain": "acme.com", "anonymous_id": "pipedrive:1"}}


def test_a_record_that_another_worker_wrote_first_is_counted_once() -> None:
    effects = {1: NEW, 2: NEW, 3: CHANGED, 4: CHANGED, 5: NEW}
    plan = PageDiff(entity=Entity.PERSON)
    for pipedrive_id, effect in effects.items():
        plan.sendings.append(FirehoseRecord({"pipedrive_id": pipedrive_id}, effect, None))
        plan.counters[effect] += 1

    count_once(plan, PageConflicts(stale=frozenset({2}), repeated=frozenset({1, 3})))

    assert dict(plan.counters) == {NEW: 1, CHANGED: 1, SAME: 2, "skipped": 1}
