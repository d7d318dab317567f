"""Outgoing changes: what Hull's messages say of a record, folded into the change of it that waits.

First every record is held, in one order for everybody: what is new is written at once, of what waits already the payload comes
back. Then the payloads that the two made together are written. So two who fold never wait for one another, and of two who are
the first to tell of a record the second finds what the first has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.copy import bigints, byteas, texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What messages say of one record: `payload` is the message they make together, `rank` when the last was received,
    `delivery_id` the notification that brought it, where one did."""

    connector_key: int
    entity: str
    record_id: str
    cause: str
    payload: bytes
    rank: int
    delivery_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReport:
    """A change that waited already, with the payload it had; it is held, and its revision has grown."""

    id: int
    payload: bytes
    rank: int


_ADD_OR_HOLD = text("""
    INSERT INTO changes AS ch (connector_key, direction, entity, record_id, cause, payload, rank, delivery_id)
    SELECT t.connector_key, 'outgoing', t.entity, t.record_id, t.cause, t.payload, t.rank, nullif(t.delivery_id, 0)
      FROM unnest(CAST(:connectors AS bigint[]), CAST(:entities AS text[]), CAST(:records AS text[]), CAST(:causes AS text[]),
                  CAST(:payloads AS bytea[]), CAST(:ranks AS bigint[]), CAST(:deliveries AS bigint[]))
           AS t(connector_key, entity, record_id, cause, payload, rank, delivery_id)
     ORDER BY t.connector_key, t.entity, t.record_id COLLATE "C"
        ON CONFLICT (connector_key, direction, entity, record_id) DO UPDATE SET
           payload = coalesce(ch.payload, excluded.payload),
           cause = CASE WHEN excluded.cause = 'linked_user' THEN ch.cause ELSE excluded.cause END,
           delivery_id = coalesce(excluded.delivery_id, ch.delivery_id),
           revision = ch.revision + 1,
           due_at = least(ch.due_at, excluded.due_at),
           batch_id = CASE WHEN EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')
                           THEN NULL ELSE ch.batch_id END
    RETURNING id, connector_key, entity, record_id, rank, CASE WHEN revision > 1 THEN payload END AS payload""")


def add_or_hold(session: Session, said: Sequence[Said]) -> dict[tuple[int, str, str], WaitingReport]:
    """Note that these records must be carried over; each record once.

    Returns (connector, entity, record) → what waited already, to be folded and given to `put_payloads` in this transaction.
    """
    scope = {
        "connectors": bigints(each.connector_key for each in said),
        "entities": texts(each.entity for each in said),
        "records": texts(each.record_id for each in said),
        "causes": texts(each.cause for each in said),
        "payloads": byteas(each.payload for each in said),
        "ranks": bigints(each.rank for each in said),
        "deliveries": bigints(each.delivery_id or 0 for each in said),
    }
    return {
        (row.connector_key, row.entity, row.record_id): WaitingReport(
            id=row.id, payload=bytes(row.payload), rank=row.rank
        )
        for row in session.execute(_ADD_OR_HOLD, scope)
        if row.payload is not None
    }


_PUT_PAYLOADS = text("""
    UPDATE changes ch SET payload = t.payload, rank = greatest(ch.rank, t.rank)
      FROM unnest(CAST(:ids AS bigint[]), CAST(:payloads AS bytea[]), CAST(:ranks AS bigint[])) AS t(id, payload, rank)
     WHERE ch.id = t.id""")


def put_payloads(session: Session, folded: Sequence[tuple[int, bytes, int]]) -> None:
    """(id, payload, rank) of changes that this transaction holds."""
    if folded:
        ids, payloads, ranks = zip(*folded, strict=True)
        scope = {"ids": bigints(ids), "payloads": byteas(payloads), "ranks": bigints(ranks)}
        session.execute(_PUT_PAYLOADS, scope)
