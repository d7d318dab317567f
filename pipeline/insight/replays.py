"""Replays as people follow them: how far each is, and what became of every item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import failure as failures
from db import replay as rows
from db.failure import Failure
from db.replay import OUTCOMES, SENT, WAITING, Replay
from pipeline.domain.reasons import advice_of, meaning_of
from pipeline.insight.failures import title_of

WORDS: Mapping[str, str] = {
    WAITING: "waiting",
    SENT: "on its way",
    "came_through": "came through",
    "already_applied": "already applied",
    "superseded": "superseded",
    "skipped": "left out",
    "failed_again": "failed again",
    "refused": "cannot be replayed",
    "aborted": "not begun",
}
"""State of an item → its text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayProgress:
    """One replay, with the number of items by state; `left_s` is what the pace needs for the waiting items.

    reason  why it has stopped
    """

    id: int
    connector_key: int
    asked_by: str
    why: str
    chosen: Mapping[str, Any]
    per_second: float
    state: str
    reason: str | None
    detail: str | None
    total: int
    counts: Mapping[str, int]
    created_at: datetime
    ended_at: datetime | None

    @property
    def settled(self) -> int:
        return sum(self.counts.get(state, 0) for state in OUTCOMES)

    @property
    def waiting(self) -> int:
        return self.counts.get(WAITING, 0)

    @property
    def is_over(self) -> bool:
        return self.ended_at is not None

    @property
    def meaning(self) -> str:
        return meaning_of(self.reason) if self.reason else ""

    @property
    def advice(self) -> str:
        """The next step for one that stopped."""
        return f"{advice_of(self.reason)} Then resume the replay.".strip() if self.reason else ""

    @property
    def left_s(self) -> float:
        return self.waiting / self.per_second

    @property
    def mood(self) -> str:
        """The state for its icon and colour: a replay with items that failed again is not shown as a success."""
        if self.state != "done":
            return self.state
        lost = self.counts.get("failed_again", 0) + self.counts.get("refused", 0)
        if not lost:
            return "done"
        return "error" if lost == self.total else "warning"

    @property
    def summary(self) -> str:
        """`340 items: 311 came through, 29 already applied.`"""
        told = [f"{self.counts[state]:,} {words}" for state, words in WORDS.items() if self.counts.get(state)]
        items = "1 item" if self.total == 1 else f"{self.total:,} items"
        return f"{items}: {', '.join(told)}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One failure of a replay. `task_id` is the last Celery task of the batch that carried it."""

    id: int
    failure_id: int
    title: str
    reason: str
    state: str
    words: str
    detail: str | None
    sent_at: datetime | None
    settled_at: datetime | None
    batch_id: int | None
    task_id: str | None
    new_failure_id: int | None


def progress_of(session: Session, mine: Sequence[Replay]) -> list[ReplayProgress]:
    """How far these replays are."""
    counts = rows.item_counts(session, [each.id for each in mine])
    return [
        ReplayProgress(
            id=each.id,
            connector_key=each.connector_key,
            asked_by=each.asked_by,
            why=each.why,
            chosen=each.chosen,
            per_second=each.per_second,
            state=each.state,
            reason=each.reason,
            detail=each.detail,
            total=each.total,
            counts=counts[each.id],
            created_at=each.created_at,
            ended_at=each.ended_at,
        )
        for each in mine
    ]


def items_of(
    session: Session, replay_id: int, *, state: str | None = None, after_id: int | None = None, limit: int = 50
) -> list[Item]:
    """Items in the order in which they are sent."""
    found = rows.items_of(session, replay_id, state=state, after_id=after_id, limit=limit)
    ids = [each.failure_id for each in found]
    known = {each.id: each for each in failures.find_failures(session, ids=ids, state=None, limit=None)} if ids else {}
    batches = rows.facts_of_batches(session, [each.batch_id for each in found if each.batch_id is not None])
    return [_item(each, known.get(each.failure_id), batches) for each in found]


def _item(row: rows.ReplayItem, failure: Failure | None, batches: Mapping[int, tuple[str | None, str]]) -> Item:
    title, reason = (title_of(failure), failure.reason) if failure is not None else ("forgotten", "")
    return Item(
        id=row.id,
        failure_id=row.failure_id,
        title=title,
        reason=reason,
        state=row.state,
        words=WORDS[row.state],
        detail=row.detail,
        sent_at=row.sent_at,
        settled_at=row.settled_at,
        batch_id=row.batch_id,
        task_id=batches.get(row.batch_id or 0, (None, ""))[0],
        new_failure_id=row.new_failure_id,
    )
