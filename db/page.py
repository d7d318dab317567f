"""Write a page of incoming records to the id map, the snapshots and the event log.

New records are appended to each of the three by COPY, which costs PostgreSQL two thirds of a merge. The others are copied once,
into a temporary table, and merged from it. If another worker has inserted a new record of the page first, the whole page is
merged. A record with a newer version in the id map is left out of all three and returned, so that its newest state can be sent
again.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import id_mapping_writer
from db.change import Source
from db.session import after_commit
from db.statement import Cell, Integer, Statement, bigints, copy_rows, texts

STATE_SENT, LINK_SENT = 1, 2
"""Effects of a delivery: a new state, which another worker may have sent too, or a link, which is not part of the state."""


class PageRow(NamedTuple):
    """One delivered record: a tuple in the order of the columns, because COPY uses it directly.

    delivered      JSON of Hull's values now
    snapshot       the whole Pipedrive record as JSON, compressed
    before, after  JSON of the changed values, for the event
    effect         `STATE_SENT` or `LINK_SENT` if the delivery changed something: an event is logged. 0 if nothing was sent, or
                   unchanged values were sent again
    """

    pipedrive_id: int
    version: int
    digest: str
    delivered: bytes
    snapshot: bytes
    before: bytes | None
    after: bytes | None
    effect: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    """The data shared by all rows of a page.

    sources  of a live batch: Pipedrive id → cause and delivery of the record
    """

    connector_key: int
    entity: str
    event: str
    cause: str
    matched_by: str
    run_id: int | None
    batch_id: int
    settings_version: int
    sources: Mapping[int, Source] = field(default_factory=dict)


_OF_SNAPSHOT = ("record_id", "version", "payload")
_OF_EVENT = ("pipedrive_id", "after")
_OF_LIVE_EVENT = (*_OF_EVENT, "cause", "delivery_id")
_OF_EVENTS = ("connector_key", "event", "entity", "run_id", "batch_id", "settings_version", "cause")

_MADE = "incoming_page"

_TABLE = text("""
    CREATE TEMPORARY TABLE IF NOT EXISTS incoming_page (
        pipedrive_id bigint NOT NULL, version bigint NOT NULL, digest text NOT NULL, delivered bytea NOT NULL,
        snapshot bytea NOT NULL, before bytea, after bytea, effect bigint NOT NULL
    ) WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS""")

_DROP_REPEATED = Statement("""
    UPDATE incoming_page p SET effect = 0
     WHERE p.effect = 1
       AND (SELECT m.version = p.version AND m.digest = p.digest FROM id_mappings m
             WHERE m.connector_key = :connector_key AND m.entity = :entity AND m.pipedrive_id = p.pipedrive_id LIMIT 1)
    RETURNING p.pipedrive_id""")
"""Another worker wrote the same version and digest concurrently: write no second event. One index look-up for each row: a temporary
table has no statistics, and a join may read the whole id map once per row.
"""

_DROP_STALE = Statement("DELETE FROM incoming_page WHERE pipedrive_id = ANY(CAST(:stale AS bigint[]))")

_SNAPSHOTS = Statement("""
    INSERT INTO snapshots AS s (connector_key, entity, side, record_id, version, payload)
    SELECT :connector_key, :entity, 'pipedrive', pipedrive_id::text, version, snapshot
      FROM incoming_page ORDER BY pipedrive_id
    ON CONFLICT (connector_key, entity, side, record_id) DO UPDATE
       SET version = excluded.version, payload = excluded.payload
     WHERE s.version <= excluded.version""")

_EVENTS = Statement("""
    INSERT INTO sync_events (connector_key, event, entity, pipedrive_id, run_id, batch_id, settings_version, cause, before, after)
    SELECT :connector_key, :event, :entity, pipedrive_id, :run_id, :batch_id, :settings_version, :cause, before, after
      FROM incoming_page WHERE effect > 0""")


_LIVE_EVENTS = Statement("""
    INSERT INTO sync_events (connector_key, event, entity, pipedrive_id, run_id, batch_id, settings_version, cause, before, after,
                             delivery_id)
    SELECT :connector_key, :event, :entity, p.pipedrive_id, :run_id, :batch_id, :settings_version, coalesce(s.cause, :cause),
           p.before, p.after, nullif(s.delivery_id, 0)
      FROM incoming_page p
      LEFT JOIN unnest(CAST(:source_ids AS bigint[]), CAST(:causes AS text[]), CAST(:deliveries AS bigint[]))
                AS s(pipedrive_id, cause, delivery_id) ON s.pipedrive_id = p.pipedrive_id
     WHERE p.effect > 0""")
"""The same for a live batch, with a source for each record."""

_BEGIN_FRESH = Statement("SAVEPOINT fresh_rows")
_UNDO_FRESH = Statement("ROLLBACK TO SAVEPOINT fresh_rows")


class PageConflicts(NamedTuple):
    """Pipedrive ids of records that another worker wrote first.

    stale     with a newer state: what Hull just received of them is stale
    repeated  with the same state: no event of these was logged
    """

    stale: frozenset[int] = frozenset()
    repeated: frozenset[int] = frozenset()


def write_page(
    session: Session, context: PageContext, rows: Sequence[PageRow], known: Container[int] | None = None
) -> PageConflicts:
    """Write delivered records.

    known  the ids in the id map; None if they were not looked up
    """
    rows = sorted(rows, key=itemgetter(0))
    fresh = [row for row in rows if row.pipedrive_id not in known] if known is not None else []
    if not _append(session, context, fresh):
        return _merge(session, context, rows)
    return _merge(session, context, [row for row in rows if row.pipedrive_id in known]) if known else PageConflicts()


def _append(session: Session, context: PageContext, rows: Sequence[PageRow]) -> bool:
    """Append new records directly to the three tables. Return False, and write nothing, if another worker has inserted one."""
    if not rows:
        return False
    entity: dict[str, Cell] = {"connector_key": Integer(context.connector_key), "entity": context.entity}
    mapping = entity | {"state": "full", "matched_by": context.matched_by}
    event = {name: getattr(context, name) for name in _OF_EVENTS if not (context.sources and name == "cause")}
    _BEGIN_FRESH.run(session, {})
    try:
        id_mapping_writer.append_page(session, map(itemgetter(0, 1, 2, 3), rows), mapping)
        kept = [(str(row[0]), row[1], row[4]) for row in rows]
        copy_rows(session, "snapshots", _OF_SNAPSHOT, kept, entity | {"side": "pipedrive"})
        if context.sources:
            live_rows = [(row[0], row[6], *_source(context, row[0])) for row in rows]
            copy_rows(session, "sync_events", _OF_LIVE_EVENT, live_rows, event)
        else:
            copy_rows(session, "sync_events", _OF_EVENT, map(itemgetter(0, 6), rows), event)
    except IntegrityError:
        _UNDO_FRESH.run(session, {})
        return False
    return True


def _merge(session: Session, context: PageContext, rows: Sequence[PageRow]) -> PageConflicts:
    """Merge records through a temporary table; newer versions win."""
    if not rows:
        return PageConflicts()
    facts = {name: getattr(context, name) for name in PageContext.__slots__ if name != "sources"}
    _make_table(session)
    copy_rows(session, "incoming_page", PageRow._fields, rows)
    repeated = _DROP_REPEATED.rows(session, facts)
    stale = id_mapping_writer.merge_page(session, facts)
    if stale:
        _DROP_STALE.run(session, {"stale": bigints(stale)})
    _SNAPSHOTS.run(session, facts)
    _log_merged(session, context, facts)
    return PageConflicts(frozenset(stale), frozenset(pipedrive_id for (pipedrive_id,) in repeated))


def _log_merged(session: Session, context: PageContext, facts: dict[str, Any]) -> None:
    if not context.sources:
        _EVENTS.run(session, facts)
        return
    sources = {
        "source_ids": bigints(context.sources),
        "causes": texts(each.cause for each in context.sources.values()),
        "deliveries": bigints(each.delivery_id or 0 for each in context.sources.values()),
    }
    _LIVE_EVENTS.run(session, facts | sources)


def _source(context: PageContext, pipedrive_id: int) -> Source:
    return context.sources.get(pipedrive_id) or Source(context.cause, None)


def _make_table(session: Session) -> None:
    """Create the temporary table once for each connection."""
    made = session.connection().info
    if _MADE not in made:
        session.execute(_TABLE)
        after_commit(session, lambda: made.setdefault(_MADE, True))
