"""What gave up, as it is told: a failure, its group, and what replaying it would come to."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from db.failure_filter import FailureFilter
from pipeline.operations.models import Asked, DirectionName, EntityName, Shape
from pipeline.operations.values import Moment, Number, RowId, Short, Text, Value


class FailuresChosen(Asked):
    """Which failures are meant. What is not named does not matter; the times are about when it last failed."""

    ids: list[RowId] = Field(default_factory=list, max_length=1000)
    direction: DirectionName | None = None
    entity: EntityName | None = None
    kind: Literal["record", "field", "batch", "control"] | None = None
    reason: Short | None = None
    field: Short | None = None
    fingerprint: Short | None = None
    settings_version: Number | None = None
    since: Moment | None = None
    until: Moment | None = None

    def filter(self, connector_key: int, state: str | None = "open") -> FailureFilter:
        """The same as the rooms below have it."""
        named = {name: getattr(self, name) for name in FailuresChosen.model_fields if name != "ids"}
        return FailureFilter(connector_key=connector_key, ids=tuple(self.ids), state=state, **named)


class FailureShape(Shape):
    """What gave up, without its payload."""

    id: int
    kind: str
    subject: str
    direction: str
    entity: str
    record_id: str | None
    batch_id: int | None
    run_id: int | None
    stage: str
    reason: str
    detail: Text
    field: str | None
    fingerprint: str
    attempts: int
    state: str
    closed_by: str | None
    closed_why: str | None
    settings_version: int | None
    created_at: datetime
    updated_at: datetime


class GroupShape(Shape):
    """Failures with one cause; `daily` is how many began on each of the last days, today last."""

    fingerprint: str
    title: str
    kind: str
    direction: str
    entity: str
    stage: str
    reason: str
    field: str | None
    detail: Text
    meaning: str
    advice: str
    count: int
    first_at: datetime
    last_at: datetime
    daily: list[int]


class FieldChangeShape(Shape):
    field: str
    name: Text
    before: Value
    after: Value


class FieldProblemShape(Shape):
    field: str
    reason: str
    detail: Text


class VerdictShape(Shape):
    """What a replay would come to: `changes`, `creates`, `looks_up`, `matches`, `runs`, `nothing`, `superseded`, `skipped`,
    `fails_again`, `refused`, `unknown` or `closed`."""

    kind: str
    detail: Text
    note: str
    reason: str | None
    changes: list[FieldChangeShape]
    problems: list[FieldProblemShape]
    tokens: float


class AttemptShape(Shape):
    """A replay of which the failure is or was a part."""

    replay_id: int
    state: str
    detail: Text | None
    at: datetime | None
    new_failure_id: int | None


class WholeAnswer(Shape):
    """One failure whole. `payload` is the record as it came, null for viewers; `is_cut` when it is longer than what is shown."""

    failure: FailureShape
    title: str
    meaning: str
    advice: str
    payload: Value
    payload_bytes: int
    is_cut: bool
    traceback: Text | None
    exchange: dict[str, Any] | None
    task_id: str | None
    verdict: VerdictShape
    earlier: list[FailureShape]
    replays: list[AttemptShape]
    is_editable: bool
