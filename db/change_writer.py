"""The only writer of `changes`: adds them, claims them for batches, returns and deletes them.

A record has one change. A new change of a record that has one already is merged into it by the rules below. Each statement locks
its rows in the order of their record ids, so that two transactions do not deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from db.base import changed_rows
from db.statement import bigints, byteas, texts

KEEP_PAYLOAD: Final = "payload = coalesce(ch.payload, excluded.payload)"
"""The waiting payload stays; a new one is stored only without a waiting one."""
HIGHER_RANK_PAYLOAD: Final = """
           payload = CASE WHEN excluded.payload IS NULL OR ch.rank > excluded.rank THEN ch.payload ELSE excluded.payload END,
           rank = greatest(ch.rank, excluded.rank)"""
"""The payload that was sent later stays; the new one if both were sent at the same time."""
WEBHOOK_PAYLOAD: Final = """
           payload = CASE WHEN excluded.payload IS NULL THEN CASE WHEN ch.is_deleted THEN ch.payload END
                          WHEN ch.rank < excluded.rank THEN excluded.payload
                          WHEN ch.rank > excluded.rank THEN ch.payload
                          WHEN excluded.is_deleted THEN excluded.payload
                          WHEN ch.is_deleted THEN ch.payload END,
           is_deleted = CASE WHEN excluded.payload IS NULL OR ch.rank > excluded.rank THEN ch.is_deleted
                             WHEN ch.rank < excluded.rank THEN excluded.is_deleted
                             ELSE ch.is_deleted OR excluded.is_deleted END,
           is_created = ch.is_created OR excluded.is_created,
           rank = greatest(ch.rank, excluded.rank)"""
"""The payload that was sent later stays. If one of the two may not be used, or both were sent in one millisecond, none does: the
record is read. A deletion stays, because it is always confirmed by a read."""

NEW_CAUSE: Final = "cause = CASE WHEN excluded.cause = 'linked_user' THEN ch.cause ELSE excluded.cause END"
"""The new cause replaces the waiting one, except the link of a User: that is not news about an Account that waits."""
FIRST_CAUSE: Final = "cause = ch.cause"
"""The waiting cause stays, because the new one requests the same work again."""

NEW_DELIVERY: Final = "delivery_id = coalesce(excluded.delivery_id, ch.delivery_id)"
"""The new delivery replaces the waiting one; a change without a delivery keeps it."""
HIGHER_RANK_DELIVERY: Final = (
    "delivery_id = CASE WHEN ch.rank <= excluded.rank THEN excluded.delivery_id ELSE ch.delivery_id END"
)
"""The delivery that was sent later stays: webhooks arrive in any order."""


def _upsert(
    rows: str,
    columns: str = "",
    *,
    payload: str = KEEP_PAYLOAD,
    cause: str = NEW_CAUSE,
    delivery: str = NEW_DELIVERY,
    returning: str = "",
) -> TextClause:
    """Return the statement that adds `rows` or merges them into waiting changes. Each record is in `rows` once, ordered by its id.

    A waiting change grows by one revision, so that a batch that has claimed it does not delete it. It is due when the earlier
    of the two is, and it leaves a batch that has failed.
    """
    return text(f"""
    INSERT INTO changes AS ch (connector_key, direction, entity, record_id, cause{columns})
    {rows}
        ON CONFLICT (connector_key, direction, entity, record_id) DO UPDATE SET
           {payload}, {cause}, {delivery},
           revision = ch.revision + 1,
           due_at = least(ch.due_at, excluded.due_at),
           batch_id = CASE WHEN EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')
                           THEN NULL ELSE ch.batch_id END
    {returning}""")  # noqa: S608 - put together from constants


_IDS = """
    SELECT :c, :d, :e, id, :cause, now() + make_interval(secs => :wait_s)
      FROM (SELECT DISTINCT id FROM unnest(CAST(:ids AS text[])) AS t(id)) AS each ORDER BY id COLLATE "C\""""
_WRITE = _upsert(_IDS, ", due_at")
_WRITE_KEEPING_CAUSE = _upsert(_IDS, ", due_at", cause=FIRST_CAUSE)


def write_changes(
    session: Session,
    connector_key: int,
    direction: str,
    entity: str,
    record_ids: Iterable[str],
    *,
    cause: str,
    keeps_cause: bool = False,
    wait_s: float = 0.0,
) -> None:
    """Write changes of records without a payload: each is read, or synchronized by its waiting payload. One statement.

    keeps_cause  apply `FIRST_CAUSE` instead of `NEW_CAUSE`
    """
    ids = texts(record_ids)
    if ids != "{}":
        scope = {"c": connector_key, "d": direction, "e": entity, "ids": ids, "cause": cause, "wait_s": wait_s}
        session.execute(_WRITE_KEEPING_CAUSE if keeps_cause else _WRITE, scope)


_WRITE_SHELLS = text("""
    INSERT INTO changes (connector_key, direction, entity, record_id, cause)
    SELECT :c, 'incoming', :e, id, 'shell' FROM unnest(CAST(:ids AS text[])) AS id ORDER BY id COLLATE "C"
        ON CONFLICT (connector_key, direction, entity, record_id) DO NOTHING""")
"""A change that waits reads the shell anyway."""


def write_shells(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> None:
    """Write changes of shells, so that they are read; a record with a change is left as it is."""
    session.execute(_WRITE_SHELLS, {"c": connector_key, "e": entity, "ids": texts(map(str, pipedrive_ids))})


_WRITE_PAYLOAD = _upsert(
    "SELECT :c, :d, :e, :id, :cause, CAST(:payload AS bytea), :rank", ", payload, rank", payload=HIGHER_RANK_PAYLOAD
)


def write_payload(
    session: Session,
    connector_key: int,
    direction: str,
    entity: str,
    record_id: str,
    *,
    cause: str,
    payload: bytes | None,
    rank: int = 0,
) -> None:
    """Write the change of a record with this payload; with None it is read, or synchronized by its waiting payload."""
    scope = {"c": connector_key, "d": direction, "e": entity, "id": record_id, "cause": cause}
    session.execute(_WRITE_PAYLOAD, {**scope, "payload": payload, "rank": rank})


_WRITE_REJECTED_FIELDS = _upsert(
    """
    SELECT connector_key, direction, entity, record_id, CAST(:cause AS text) FROM failures
     WHERE connector_key = :c AND state = 'open' AND kind = 'field' AND direction = :d AND entity = :e
       AND field = ANY(CAST(:fields AS text[]))
     GROUP BY connector_key, direction, entity, record_id
     ORDER BY record_id COLLATE "C\"""",
    cause=FIRST_CAUSE,
)


def write_rejected_fields(
    session: Session, connector_key: int, direction: str, entity: str, fields: Collection[str], *, cause: str
) -> None:
    """Write a change of every record with a rejected field among `fields`, so that it is synchronized again."""
    if fields:
        scope = {"c": connector_key, "d": direction, "e": entity, "fields": texts(fields), "cause": cause}
        session.execute(_WRITE_REJECTED_FIELDS, scope)


_WRITE_PLANNED = _upsert(
    """
    SELECT :c, 'outgoing', entity, record_id, 'plan' FROM plan_items
     WHERE plan_id = :plan AND direction = 'outgoing' AND act = ANY(CAST(:acts AS text[])) AND message IS NULL
     ORDER BY entity, record_id COLLATE "C\"""",
    cause=FIRST_CAUSE,
)


def write_planned(session: Session, connector_key: int, plan_id: int, acts: Iterable[str]) -> int:
    """Write changes of a plan's Users and Accounts with one of these acts, by their last report; return how many."""
    scope = {"c": connector_key, "plan": plan_id, "acts": texts(acts)}
    return changed_rows(session, _WRITE_PLANNED, scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySummary:
    """The deliveries about one record: the newest one, and whether its body may be used."""

    delivery_id: int
    entity: str
    record_id: str
    rank: int
    is_usable: bool
    is_created: bool
    is_deleted: bool = False


_WRITE_WEBHOOKS = _upsert(
    """
    SELECT d.connector_key, 'incoming', t.entity, t.record_id, 'webhook', CASE WHEN t.usable THEN d.body END, t.rank, t.created,
           t.deleted AND t.usable, d.id
      FROM unnest(CAST(:ids AS bigint[]), CAST(:entities AS text[]), CAST(:records AS text[]), CAST(:ranks AS bigint[]),
                  CAST(:usable AS boolean[]), CAST(:created AS boolean[]), CAST(:deleted AS boolean[]))
           AS t(id, entity, record_id, rank, usable, created, deleted)
      JOIN deliveries d ON d.id = t.id
     ORDER BY d.connector_key, t.entity, t.record_id COLLATE "C\"""",
    ", payload, rank, is_created, is_deleted, delivery_id",
    payload=WEBHOOK_PAYLOAD,
    delivery=HIGHER_RANK_DELIVERY,
)


def write_webhooks(session: Session, summaries: Sequence[DeliverySummary]) -> None:
    """Write the changes of these webhooks, one for each record, in one statement."""
    if summaries:
        scope = {
            "ids": bigints(each.delivery_id for each in summaries),
            "entities": texts(each.entity for each in summaries),
            "records": texts(each.record_id for each in summaries),
            "ranks": bigints(each.rank for each in summaries),
            "usable": texts(str(each.is_usable) for each in summaries),
            "created": texts(str(each.is_created) for each in summaries),
            "deleted": texts(str(each.is_deleted) for each in summaries),
        }
        session.execute(_WRITE_WEBHOOKS, scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingReport:
    """The coalesced messages of Hull about one record.

    rank         when the last one was received
    delivery_id  the notification that contained it; None for an export
    """

    connector_key: int
    entity: str
    record_id: str
    cause: str
    payload: bytes
    rank: int
    delivery_id: int | None = None


@dataclass(frozen=True, slots=True)
class WaitingReport:
    """A change that waited already, with the payload it had. It is locked, and its revision has grown."""

    id: int
    payload: bytes
    rank: int


_WRITE_REPORTS = _upsert(
    """
    SELECT t.connector_key, 'outgoing', t.entity, t.record_id, t.cause, t.payload, t.rank, nullif(t.delivery_id, 0)
      FROM unnest(CAST(:connectors AS bigint[]), CAST(:entities AS text[]), CAST(:records AS text[]), CAST(:causes AS text[]),
                  CAST(:payloads AS bytea[]), CAST(:ranks AS bigint[]), CAST(:deliveries AS bigint[]))
           AS t(connector_key, entity, record_id, cause, payload, rank, delivery_id)
     ORDER BY t.connector_key, t.entity, t.record_id COLLATE "C\"""",
    ", payload, rank, delivery_id",
    returning="RETURNING id, connector_key, entity, record_id, rank, CASE WHEN revision > 1 THEN payload END AS payload",
)


def write_reports(session: Session, reports: Sequence[OutgoingReport]) -> dict[tuple[int, str, str], WaitingReport]:
    """Write the changes of these reports, one for each record; a change that waits already is locked.

    If two transactions are the first to report a record, the second one finds the change of the first.
    Returns (connector, entity, record) → the change that waited already: merge its payload and call `put_payloads` in this
    transaction.
    """
    scope = {
        "connectors": bigints(each.connector_key for each in reports),
        "entities": texts(each.entity for each in reports),
        "records": texts(each.record_id for each in reports),
        "causes": texts(each.cause for each in reports),
        "payloads": byteas(each.payload for each in reports),
        "ranks": bigints(each.rank for each in reports),
        "deliveries": bigints(each.delivery_id or 0 for each in reports),
    }
    rows = session.execute(_WRITE_REPORTS, scope)
    return {
        (row.connector_key, row.entity, row.record_id): WaitingReport(row.id, bytes(row.payload), row.rank)
        for row in rows
        if row.payload is not None
    }


_PUT_PAYLOADS = text("""
    UPDATE changes ch SET payload = t.payload, rank = greatest(ch.rank, t.rank)
      FROM unnest(CAST(:ids AS bigint[]), CAST(:payloads AS bytea[]), CAST(:ranks AS bigint[])) AS t(id, payload, rank)
     WHERE ch.id = t.id""")


def put_payloads(session: Session, merged: Sequence[tuple[int, bytes, int]]) -> None:
    """Store (id, payload, rank) in changes that `write_reports` locked in this transaction."""
    if merged:
        ids, payloads, ranks = zip(*merged, strict=True)
        scope = {"ids": bigints(ids), "payloads": byteas(payloads), "ranks": bigints(ranks)}
        session.execute(_PUT_PAYLOADS, scope)


_CLAIM = text("""
    WITH due AS MATERIALIZED (
        SELECT id FROM changes
         WHERE connector_key = :c AND direction = :d AND entity = :e AND batch_id IS NULL AND due_at <= now()
         ORDER BY due_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
    UPDATE changes SET batch_id = :batch_id, claimed_revision = revision, claimed_delivery_id = delivery_id,
           attempts = attempts + 1, waits_for = NULL
     WHERE id = ANY(ARRAY(SELECT id FROM due))""")


def claim_changes(
    session: Session, connector_key: int, direction: str, entity: str, *, batch_id: int, limit: int
) -> int:
    """Claim at most `limit` due changes for a batch; return how many."""
    scope = {"c": connector_key, "d": direction, "e": entity, "batch_id": batch_id, "limit": limit}
    return changed_rows(session, _CLAIM, scope)


_CLEAR = text("""
    WITH mine AS (SELECT id FROM changes WHERE batch_id = :batch_id ORDER BY record_id COLLATE "C" FOR UPDATE)
    DELETE FROM changes ch USING mine WHERE ch.id = mine.id AND revision = claimed_revision""")
_RETURN = text("""
    UPDATE changes SET batch_id = NULL, claimed_revision = NULL, due_at = least(due_at, now())
     WHERE batch_id = :batch_id""")


def clear_changes(session: Session, batch_id: int) -> None:
    """Delete the changes of a batch that is done. Those with a newer revision than it claimed are due again."""
    session.execute(_CLEAR, {"batch_id": batch_id})
    session.execute(_RETURN, {"batch_id": batch_id})


_DELETE_OF_BATCHES = text("DELETE FROM changes WHERE batch_id = ANY(CAST(:ids AS bigint[]))")


def delete_changes_of(session: Session, batch_ids: Collection[int]) -> None:
    """Delete the changes of cancelled batches."""
    if batch_ids:
        session.execute(_DELETE_OF_BATCHES, {"ids": bigints(batch_ids)})


_PUT_BACK = text("""
    WITH mine AS (SELECT id FROM changes WHERE batch_id = :batch_id AND record_id = ANY(CAST(:ids AS text[]))
                   ORDER BY record_id COLLATE "C" FOR UPDATE)
    UPDATE changes ch SET batch_id = NULL, claimed_revision = NULL, due_at = now() + make_interval(secs => :wait_s),
           waits_for = :waits_for,
           attempts = attempts - CASE WHEN record_id = ANY(CAST(:counted AS text[])) THEN 0 ELSE 1 END
      FROM mine WHERE ch.id = mine.id""")


def put_back(
    session: Session,
    batch_id: int,
    record_ids: Sequence[str],
    wait_s: float,
    *,
    counted: Sequence[str],
    waits_for: str | None = None,
) -> None:
    """Take the changes of these records out of their batch; they are due in `wait_s` seconds.

    Only for records in `counted` it was an attempt.
    """
    scope = {"batch_id": batch_id, "ids": list(record_ids), "counted": list(counted), "wait_s": wait_s}
    session.execute(_PUT_BACK, scope | {"waits_for": waits_for})


def _make_due(of: str, lock: str) -> TextClause:
    """Return a statement that makes waiting changes due.

    Its conditions are expressions, so that only the index by `waits_for` fits: those by record and by time would read every
    change of the entity.
    """
    return text(f"""
    WITH mine AS MATERIALIZED (
        SELECT id FROM changes
         WHERE connector_key = :c{of} AND batch_id IS NULL AND due_at + interval '0' > now()
           AND waits_for IS NOT NULL AND waits_for = ANY(CAST(:waits_for AS text[]))
         ORDER BY record_id COLLATE "C" {lock})
    UPDATE changes ch SET due_at = now() FROM mine WHERE ch.id = mine.id""")  # noqa: S608 - put together from constants


_MAKE_DUE = _make_due(" AND direction || '' = :d AND entity || '' = :e", "FOR UPDATE")
_MAKE_ALL_DUE = _make_due("", "FOR UPDATE SKIP LOCKED")
"""There is no common lock order of both directions: a change that another transaction writes at this moment is left out."""


def make_due(session: Session, connector_key: int, direction: str, entity: str, waits_for: Sequence[str]) -> int:
    """Make the changes of one direction and entity that wait for one of these reasons due; return how many."""
    scope = {"c": connector_key, "d": direction, "e": entity, "waits_for": texts(waits_for)}
    return changed_rows(session, _MAKE_DUE, scope)


def make_all_due(session: Session, connector_key: int, waits_for: Sequence[str]) -> None:
    """Make all changes of a connector that wait for one of these reasons due."""
    session.execute(_MAKE_ALL_DUE, {"c": connector_key, "waits_for": texts(waits_for)})
