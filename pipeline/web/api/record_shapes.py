"""The shapes of a record, and of the explanation of one of its fields."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from pipeline.operations.failures import FailureShape
from pipeline.operations.models import Shape
from pipeline.operations.values import Text, Value
from pipeline.web.api.event_shapes import ChangeShape, EventShape


class FoundShape(Shape):
    """`by` is what it was found by. One that was never joined has no Pipedrive id."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    by: str


class FieldShape(Shape):
    """A mapped field. `owner` has the last word of one that goes out; `arrow` tells the ways it goes."""

    name: str
    attribute: str
    label: str
    code: str
    key: str
    type: str
    is_custom: bool
    incoming: bool
    outgoing: bool
    owner: str | None
    arrow: str


class RowShape(Shape):
    """One field, side by side. `is_heard` when Hull's side is known at all; `last` is the event that touched it."""

    field: FieldShape
    pipedrive: Value
    hull: Value
    differs: bool
    is_refused: bool
    is_heard: bool
    last: EventShape | None


class ClaimShape(Shape):
    """A value that identifies the record; `holds` when it travels under it, `wanted_by` the record that waits for it."""

    claim: str
    value: Text
    holds: bool
    wanted_by: int | None


class OrganizationShape(BaseModel):
    pipedrive_id: int
    is_known: bool


class WaitingShape(Shape):
    """A change that is on its way."""

    direction: str
    cause: str
    since: datetime
    due_at: datetime


class RecordAnswer(Shape):
    """One record. `state` and `matched` are of its id mapping; `snapshot` is Pipedrive's record, `report` Hull's, as last known."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    title: Text
    level: str
    sentence: Text
    state: str
    matched: str
    first_seen_at: datetime | None
    updated_at: datetime | None
    as_of: datetime | None
    merged_into: int | None
    deleted_at: datetime | None
    awaits_account: str | None
    fields: list[RowShape]
    claims: list[ClaimShape]
    organization: OrganizationShape | None
    persons: int | None
    failures: list[FailureShape]
    waiting: list[WaitingShape]
    snapshot: Value
    report: Value
    events: list[EventShape]
    more: int | None


class RefShape(Shape):
    """What a fact points at: a `delivery`, `run`, `batch`, `event`, `settings` or `reason`."""

    kind: str
    id: int | str | None


class FactShape(Shape):
    name: str
    value: Value
    ref: RefShape | None


class StepShape(Shape):
    """`origin`, `identity`, `rule`, `call`, `read_back`, `problem` or `value`."""

    kind: str
    title: str
    sentence: Text
    at: datetime | None
    facts: list[FactShape]
    change: ChangeShape | None


class ExplanationAnswer(Shape):
    """Why a field is as it is; the steps are in the order in which they happened."""

    entity: str
    pipedrive_id: int | None
    hull_id: str | None
    field: FieldShape
    at: datetime | None
    sentence: Text
    value: Value
    hull: Value
    pipedrive: Value
    direction: str | None
    event_id: int | None
    steps: list[StepShape]
