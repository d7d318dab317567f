"""Discards failures: takes what nobody needs any more off the list, with the reason kept."""

from __future__ import annotations

from sqlalchemy.orm import Session

from db import audit, failure_filter
from db.failure_filter import FailureFilter
from pipeline.jobs.replays.start import MoreThanExpected, NothingToReplay


def discard(session: Session, chosen: FailureFilter, *, by: str, why: str, at_most: int, subject: str) -> int:
    """Close every open failure that is meant; returns how many.

    at_most  how many whoever asks for it has seen
    subject  the filter, as the audit log names it
    Raises: NothingToReplay; MoreThanExpected.
    """
    ids = failure_filter.open_ids(session, chosen)
    if not ids:
        raise NothingToReplay("no open failure fits")
    if len(ids) > at_most:
        raise MoreThanExpected(f"{len(ids)} instead of {at_most}")
    closed = failure_filter.close_all(session, ids, "discarded", by=by, why=why)
    detail = {"failures": len(closed)}
    audit.note(session, by, "failures.discard", subject, connector_key=chosen.connector_key, why=why, detail=detail)
    return len(closed)
