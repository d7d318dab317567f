"""Sends chosen Users or Accounts to Pipedrive by hand: they are asked of Hull as they are now, and go past every filter.

Each page of Hull's answer is folded and committed by itself: whoever is interrupted has sent what was sent, and sending again
changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
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


def _message(entity: Entity, report: dict[str, Any]) -> dict[str, Any]:
    """A report of Hull's search in the form of a notification's message: an export names no changes."""
    plain = {name: value for name, value in report.items() if name != "account"}
    if entity is Entity.ORGANIZATION:
        return {"account": plain, "account_segment_ids": report.get("segment_ids") or []}
    return {"user": plain, "account": report.get("account") or {}, "segment_ids": report.get("segment_ids") or []}
