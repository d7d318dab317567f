"""Sends chosen Users or Accounts to Pipedrive by hand: they are asked of Hull as they are now, and go past every filter.

Each page of Hull's answer is folded and committed by itself: whoever is interrupted has sent what was sent, and sending again
changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.domain.kinds import Entity
from pipeline.sync.changes.outgoing_changes import fold_messages_of
from pipeline.tasks import wakeups
from pipeline.wiring import FoundReports, Wired

PER_PAGE: Final = 50
"""Reports to a search of Hull."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """found    how many were folded into changes
    missing  Hull ids that were asked for and that Hull does not have
    """

    found: int
    missing: tuple[str, ...]


def send_by_id(connector_key: int, entity: Entity, hull_ids: Sequence[str]) -> Chosen:
    """Send these; Hull ids that Hull does not know are returned."""
    ids = list(dict.fromkeys(hull_ids))
    seen: set[str] = set()
    for at in range(0, len(ids), PER_PAGE):
        for reports, _ in _pages(connector_key, entity, {"terms": {"id": ids[at : at + PER_PAGE]}}):
            _fold(connector_key, entity, reports)
            seen |= {str(report.get("id")) for report in reports}
    return Chosen(found=len(seen), missing=tuple(each for each in ids if each not in seen))


def send_segment(
    connector_key: int, entity: Entity, segment_id: str, *, progress: Callable[[int, int], None] = lambda _n, _of: None
) -> Chosen:
    """Send everybody in a segment; `progress` is told how many of how many have been folded."""
    count = 0
    for reports, total in _pages(connector_key, entity, {"term": {"segment_ids": segment_id}}):
        count += _fold(connector_key, entity, reports)
        progress(count, total)
    return Chosen(found=count, missing=())


def find_page(connector_key: int, entity: Entity, clause: dict[str, Any], page: int = 1) -> FoundReports:
    """One page of the Users or Accounts that a clause selects, as Hull has them now."""
    with transaction() as session:
        wired: Wired = wiring.open_connector(session, connector_key)
    return wired.hull.find_reports(entity, {"bool": {"filter": [clause]}}, page=page, per_page=PER_PAGE)


def fold(
    session: Session, connector_key: int, entity: Entity, reports: Sequence[dict[str, Any]], *, rank: int | None = None
) -> int:
    """Make changes of reports; returns how many. The workers are woken when the session commits.

    rank  when the reports were asked for, in milliseconds since the epoch; now unless it is told
    """
    folded = fold_messages_of(
        session,
        connector_key,
        entity,
        [_message(entity, report) for report in reports],
        cause="send",
        is_export=True,
        rank=int(time.time() * 1000) if rank is None else rank,
    )
    after_commit(session, lambda: wakeups.wake_control("dispatch"))
    return folded


def _pages(connector_key: int, entity: Entity, clause: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    page = 1
    while True:
        answer = find_page(connector_key, entity, clause, page)
        if answer.reports:
            yield answer.reports, answer.total
        if not answer.reports or page >= answer.pages:
            return
        page += 1


def _fold(connector_key: int, entity: Entity, reports: Sequence[dict[str, Any]]) -> int:
    with transaction() as session:
        return fold(session, connector_key, entity, reports)


def _message(entity: Entity, report: dict[str, Any]) -> dict[str, Any]:
    """A report of Hull's search in the form of a notification's message: an export names no changes."""
    plain = {name: value for name, value in report.items() if name != "account"}
    if entity is Entity.ORGANIZATION:
        return {"account": plain, "account_segment_ids": report.get("segment_ids") or []}
    return {"user": plain, "account": report.get("account") or {}, "segment_ids": report.get("segment_ids") or []}
