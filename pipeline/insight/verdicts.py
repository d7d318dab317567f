"""Previews of replays: one by one, and in total. Nothing is written, and Pipedrive is not called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from sqlalchemy.orm import Session

from db import failure_filter
from db.failure import OF_RECORDS, Failure
from db.failure_filter import FailureFilter
from pipeline.domain.kinds import Direction
from pipeline.jobs.replays.preview import preview_failures
from pipeline.jobs.replays.preview_records import FieldChange, ReplayEffect, ReplayPreview

SAMPLE = 300
"""Maximum of previewed failures of a selection: a page must answer immediately."""
READ_TOKENS, READ_IDS = 10, 100
"""A list by ids takes 10 tokens for up to a hundred records."""

__all__ = ["FieldChange", "ReplayEffect", "ReplayPreview", "Sum", "sum_of", "verdict_of", "verdicts_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """The preview of replaying a selection.

    total   matching open failures
    looked  how many were previewed: the newest, if there are more than SAMPLE
    kinds   effect → number of failures
    tokens  estimated cost of all of them in tokens of the daily budget
    """

    total: int
    looked: int
    kinds: Mapping[str, int]
    tokens: int

    @property
    def is_sample(self) -> bool:
        return self.looked < self.total

    @property
    def harmless(self) -> int:
        """Number of previewed failures that would only be closed."""
        return sum(count for kind, count in self.kinds.items() if ReplayEffect(kind).is_harmless)


def verdicts_of(
    session: Session, mine: Sequence[Failure], payloads: Mapping[int, bytes] | None = None
) -> dict[int, ReplayPreview]:
    """Failure → what replaying it now would come to. `payloads`: failure → what would be sent instead."""
    return preview_failures(session, mine, payloads)


def verdict_of(session: Session, failure: Failure, payload: bytes | None = None) -> ReplayPreview:
    payloads = {failure.id: payload} if payload is not None else None
    return preview_failures(session, [failure], payloads)[failure.id]


def sum_of(session: Session, chosen: FailureFilter, *, sample: int = SAMPLE) -> Sum:
    """What replaying all that is meant would come to, with the cost of all of it laid out from the sample."""
    total = failure_filter.count_failures(session, chosen)
    looked = failure_filter.page_of_failures(session, chosen, limit=sample) if total else []
    verdicts = preview_failures(session, looked)
    kinds = Counter(str(each.kind) for each in verdicts.values())
    return Sum(
        total=total, looked=len(looked), kinds=dict(kinds.most_common()), tokens=_tokens(looked, verdicts, total)
    )


def _tokens(looked: Sequence[Failure], verdicts: Mapping[int, ReplayPreview], total: int) -> int:
    """Incoming records are read a hundred to a request, each list for the same price; all else adds up."""
    if not looked:
        return 0
    sent = [each for each in looked if not verdicts[each.id].kind.is_harmless]
    reads = [each for each in sent if each.kind in OF_RECORDS and each.direction == Direction.INCOMING]
    others = sum(verdicts[each.id].tokens for each in sent if each not in reads)
    scale = total / len(looked)
    return READ_TOKENS * ceil(len(reads) * scale / READ_IDS) + ceil(others * scale)
