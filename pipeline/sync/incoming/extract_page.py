"""Extract of a fetch: reads the next page of a slice, and saves page, cursor and successor in one transaction."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from db import batch as batches
from db import run as run_rows
from db.batch import ClaimedBatch
from db.run import LockedWalk, SliceProgress
from db.session import transaction
from db.snapshot import page_of_snapshots
from pipeline import extract, wiring
from pipeline.domain.kinds import Entity
from pipeline.extract import PageRead, PageWanted
from pipeline.settings import settings
from pipeline.sync import definitions
from pipeline.sync.compiled import Plan, plan_of
from pipeline.sync.incoming.page_log import log_missing_fields
from pipeline.sync.runs import runs
from pipeline.sync.staging import pack_page


def extract_page(batch: ClaimedBatch) -> None:
    """Read the next page of the batch's slice; the cursor, the page and the successor are saved together."""
    entity = Entity(batch.entity)
    plan = plan_of(batch)
    with transaction() as session:
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
        stands = run_rows.where_stands(session, batch.slice_id or 0, runs.CATCH_UP_OVERLAP.total_seconds())
        wanted = _page_wanted(stands, plan)
        stored = _stored_page(session, batch, wanted, stands.plan_id) if wanted.walk == "stored" else None
    if stored is None or plan.fields_read_at is None:
        begins = stands.started_at if stands.cursor is None and stands.walk != "catch_up" else None
        plan = definitions.current(wired, entity, plan, not_before=begins)
        wanted = replace(wanted, include_fields=plan.incoming.include_fields)
    page = stored or extract.read_page(wired.pipedrive, entity, wanted)
    with transaction() as session:
        batches.hold(session, batch)
        walk = run_rows.lock_walk(session, batch.run_id or 0, batch.slice_id or 0)
        batches.pass_to_transform(session, batch.id, _pack(page, walk), page.records, asked=wired.calls.last_as_json)
        _move_on(session, walk, page)
        run_rows.keep_page_ids(session, walk.run_id, batch.id, page.ids)
        if walk.read == 0:
            log_missing_fields(session, batch, plan.incoming.problems, plan.settings_version)
        run_rows.count(
            session,
            walk.run_id,
            pages=1,
            read=0 if batch.revisits else page.records - walk.passed(page.ids),
            requests=wired.calls.requests,
            tokens=wired.calls.tokens,
        )
        if walk.run_state == "running":  # in a stopped run, the other walk pauses until the run continues
            runs.release(session, walk.run_id)


def _stored_page(session: Session, batch: ClaimedBatch, wanted: PageWanted, plan_id: int | None) -> PageRead:
    """The next records of a backfill, as Pipedrive once gave them: they cost nothing."""
    where = (session, batch.connector_key, batch.entity)
    found = page_of_snapshots(*where, after=wanted.cursor, limit=wanted.limit, planned_by=plan_id)
    body = b'{"data":[%b]}' % b",".join(found.values())
    ids = [int(record_id) for record_id in found]
    cursor = list(found)[-1] if len(found) == wanted.limit else None
    return PageRead(body=body, records=len(ids), ids=ids, next_cursor=cursor, frontier=None, ended=cursor is None)


def _page_wanted(stands: SliceProgress, plan: Plan) -> PageWanted:
    return PageWanted(
        walk=stands.walk,
        cursor=stands.cursor,
        frontier=stands.frontier,
        anchor=stands.anchor,
        empty=stands.empty_pages,
        since=stands.since if stands.walk == "catch_up" else None,
        limit=settings().page_limit,
        include_fields=plan.incoming.include_fields,
    )


def _pack(page: PageRead, walk: LockedWalk) -> bytes:
    """The page, and which of its ids are this walk's: those that the other one has not passed."""
    above = walk.other_end if walk.walk == "descending" else None
    below = walk.other_end if walk.walk == "ascending" else None
    return pack_page(page.body, above=above, below=below)


def _move_on(session: Session, walk: LockedWalk, page: PageRead) -> None:
    """Save the walk's cursor; either its next page is enqueued now, or the walk is done.

    A walk by id that reached its end, or met the other one, means that all ids were read, so the other one is done too.
    """
    met = extract.have_met(walk.walk, page.frontier, walk.other_end)
    goes_on = walk.state == "open" and not (met or page.ended)
    run_rows.move_slice(session, walk.slice_id, page.next_cursor, page.frontier, records=page.records, done=not goes_on)
    if goes_on:
        batches.add_page(session, walk.connector_key, walk.entity, walk.run_id, walk.slice_id)
        return
    for other in run_rows.slices_of(session, walk.run_id):
        if other.state == "open" and walk.walk != "catch_up":
            other.state = "done"
            batches.drop_waiting(session, other.id)
    session.flush()
