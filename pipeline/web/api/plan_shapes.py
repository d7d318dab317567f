"""The shapes of a plan: as a whole, by side, and of single records."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from pipeline.operations.models import Asked, DirectionName, EntityName, Shape
from pipeline.operations.values import Short, Text, Value

Act = Literal["update", "create", "lookup", "link", "match", "resend", "error", "unknown", "skip", "moved", "same"]


class ReasonShape(Shape):
    act: str
    code: str
    records: int
    meaning: str


class CountShape(BaseModel):
    name: str
    label: str
    records: int


class SideShape(BaseModel):
    """What would become of the records of one entity in one direction; `flawed` ones go without a field."""

    direction: str
    entity: str
    kind: str
    sentence: str
    written: int
    acts: dict[str, int]
    fields: list[CountShape]
    problems: list[CountShape]
    reasons: list[ReasonShape]
    flawed: int


class PlanShape(Shape):
    """`looked_up` Users and Accounts are created or matched, which only a look-up in Pipedrive can tell. `touched` existing records
    would be changed, or would be if a look-up finds them; where `asks` is true, applying needs that number."""

    id: int
    parent_id: int | None
    state: str
    reason: str | None
    detail: str | None
    sentence: str
    author: str
    created_at: datetime
    ready_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    base_version: int
    settings_version: int | None
    changed: list[str]
    known: int
    examined: int
    written: int
    created: int
    looked_up: int
    tokens: int
    takes_s: float
    touched: int
    asks: bool


class PlansAnswer(BaseModel):
    plans: list[PlanShape]


class PlanAnswer(PlanShape):
    """A plan whole, with the settings it is about."""

    document: dict[str, Any]
    sides: list[SideShape]


class PlanItemShape(Shape):
    """What would become of one record: its Pipedrive id where it has one, else its Hull id."""

    record: str
    act: str
    reason: str | None
    meaning: str
    detail: Text | None
    fields: Value


class PlanItemsAnswer(Shape):
    """`next_after` is where the next page begins."""

    items: list[PlanItemShape]
    next_after: str | None


class PlanItemsAsked(Asked):
    """Without `act`, all but those that stay the same."""

    direction: DirectionName
    entity: EntityName
    act: Act | None = None
    field: Short | None = None
    after: Annotated[str, Field(max_length=300, description="Only records after this `next_after`.")] = ""
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class HeldShape(Shape):
    run_id: int
    entity: str
    kind: str
    touched: int
    sentence: str
    started_at: datetime


class HeldAnswer(BaseModel):
    runs: list[HeldShape]


class AppliedAnswer(Shape):
    """`left_out` records had moved; the plan `follow_up` sees to them."""

    settings_version: int
    sent: int
    left_out: int
    follow_up: int | None
