"""The preview of replaying failures, as an answer: of one failure, and of a selection. Nothing is written or called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil

from sqlalchemy.orm import Session

from db import failure_filter
from db.failure import OF_RECORDS, Failure
from db.failure_filter import FailureFilter
from pipeline.domain.budget import LIST_TOKENS
from pipeline.domain.kinds import Direction
from pipeline.domain.paging import MAX_IDS
from pipeline.jobs.replays.preview import preview_failures
from pipeline.jobs.replays.preview_records import MEANINGS, ReplayEffect, ReplayPreview
from pipeline.operations.models import Shape, Text, Value

SAMPLE = 300
"""Maximum of previewed failures of a selection: a page must answer immediately."""


class FieldChangeShape(Shape):
    field: str
    name: Text
    before: Value
    after: Value


class FieldProblemShape(Shape):
    field: str
    reason: str
    detail: Text


class ReplayPreviewShape(Shape):
    """The preview of a replay. `kind` is `changes`, `creates`, `looks_up`, `matches`, `runs`, `nothing`, `superseded`,
    `skipped`, `fails_again`, `refused`, `unknown` or `closed`."""

    kind: str
    detail: Text
    note: str
    reason: str | None
    changes: list[FieldChangeShape]
    problems: list[FieldProblemShape]
    tokens: float

    @property
    def words(self) -> str:
        """Return the text of the kind."""
        return MEANINGS[self.kind]


class SumAnswer(Shape):
    """The preview of replaying a selection: `kinds` counts the results of the newest `examined` of `total` failures."""

    total: int
    examined: int
    is_sample: bool
    harmless: int
    kinds: dict[str, int]
    tokens: int


def sum_of(session: Session, chosen: FailureFilter, *, sample: int = SAMPLE) -> SumAnswer:
    """Preview the replay of a selection; its cost is estimated from the previewed sample."""
    total = failure_filter.count_failures(session, chosen)
    examined = failure_filter.find_failures(session, chosen, limit=sample) if total else []
    previews = preview_failures(session, examined)
    kinds = Counter(str(each.kind) for each in previews.values())
    return SumAnswer(
        total=total,
        examined=len(examined),
        is_sample=len(examined) < total,
        harmless=sum(count for kind, count in kinds.items() if ReplayEffect(kind).is_harmless),
        kinds=dict(kinds.most_common()),
        tokens=_tokens(examined, previews, total),
    )


def _tokens(examined: Sequence[Failure], previews: Mapping[int, ReplayPreview], total: int) -> int:
    """Return the cost: incoming records are read a hundred to a request, at one price; all others add up."""
    if not examined:
        return 0
    sent = [each for each in examined if not previews[each.id].kind.is_harmless]
    reads = [each for each in sent if each.kind in OF_RECORDS and each.direction == Direction.INCOMING]
    others = sum(previews[each.id].tokens for each in sent if each not in reads)
    scale = total / len(examined)
    return LIST_TOKENS * ceil(len(reads) * scale / MAX_IDS) + ceil(others * scale)
