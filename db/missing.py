"""What a complete full fetch did not list: known records that Pipedrive may have deleted without a word to us."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from db.run import PageIds, Run
from pipeline.domain.departures import LIVING

_UNLISTED = """
      FROM id_mappings m
      LEFT JOIN (SELECT DISTINCT unnest(ids) AS id FROM page_ids WHERE run_id = :run_id) listed ON listed.id = m.pipedrive_id
     WHERE m.connector_key = :c AND m.entity = :e AND m.pipedrive_id IS NOT NULL
       AND m.state = ANY(CAST(:living AS text[])) AND m.first_seen_at < :started_at"""
"""Records that were known before the run began, each beside its listing, if it has one."""

_COUNT = text(f"SELECT count(*) AS known, count(*) FILTER (WHERE listed.id IS NULL) AS missing {_UNLISTED}")

_FOLD = text(f"""
    INSERT INTO changes AS ch (connector_key, direction, entity, record_id, cause)
    SELECT m.connector_key, 'incoming', m.entity, m.pipedrive_id::text, :cause {_UNLISTED} AND listed.id IS NULL
     ORDER BY m.pipedrive_id::text
        ON CONFLICT (connector_key, direction, entity, record_id) DO UPDATE SET
           cause = excluded.cause, revision = ch.revision + 1, due_at = least(ch.due_at, excluded.due_at),
           batch_id = CASE WHEN EXISTS (SELECT 1 FROM batches b WHERE b.id = ch.batch_id AND b.state = 'failed')
                           THEN NULL ELSE ch.batch_id END""")  # noqa: S608

_DROP = text("""
    DELETE FROM page_ids p USING runs r
     WHERE r.id = p.run_id AND r.connector_key = :c AND r.entity = :e AND r.kind = :kind AND r.id < :below""")

_COVERED = text("SELECT count(*) FROM page_ids WHERE run_id = :run_id")


def is_covered(session: Session, run: Run) -> bool:
    """Whether the ids of every page of the run were kept; without them nothing can be said of what is missing."""
    return run.pages > 0 and session.execute(_COVERED, {"run_id": run.id}).scalar_one() == run.pages


def count_missing(session: Session, run: Run) -> tuple[int, int]:
    """(records known before the run began, those of them that no page of it listed)"""
    row = session.execute(_COUNT, _scope(run)).one()
    return row.known, row.missing


def fold_missing(session: Session, run: Run, cause: str) -> None:
    """Note that the unlisted are to be looked for by their ids: one change for each, in one statement."""
    session.execute(_FOLD, {**_scope(run), "cause": cause})


def drop_page_ids(session: Session, run: Run, *, itself: bool) -> None:
    """Forget the ids that earlier runs of this kind listed, and those of the run `itself`."""
    scope = {"c": run.connector_key, "e": run.entity, "kind": run.kind, "below": run.id + int(itself)}
    session.execute(_DROP, scope)


def has_page_ids(session: Session, run_id: int) -> bool:
    return session.scalar(select(PageIds.run_id).filter_by(run_id=run_id).limit(1)) is not None


def _scope(run: Run) -> dict[str, Any]:
    return {
        "c": run.connector_key,
        "e": run.entity,
        "run_id": run.id,
        "started_at": run.started_at,
        "living": list(LIVING),
    }
