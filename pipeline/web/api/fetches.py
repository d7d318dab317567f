"""What a fetch will take before it begins; and what changed, fetched now."""

from __future__ import annotations

from datetime import datetime

from flask import Response
from pydantic import BaseModel

from db.session import transaction
from pipeline.insight import acts
from pipeline.operations.models import OfConnector, OfEntity, Shape
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who


class FetchShape(Shape):
    """A run as people look at it: how far it is, how fast, when it will be done. `share` goes from 0 to 1."""

    id: int
    entity: str
    kind: str
    title: str
    state: str
    phase: str
    cause: str
    changed_only: bool
    since: datetime | None
    settings_version: int
    reason: str | None
    reason_text: str
    started_at: datetime
    finished_at: datetime | None
    took_s: float
    counts: dict[str, int]
    rate: float
    expected: int | None
    share: float | None
    ends_at: datetime | None


class PreviewAnswer(Shape):
    """`known` is null before the first fetch: nobody has counted. `left` is what fetches may still spend today."""

    entity: str
    known: int | None
    is_guess: bool
    pages: int | None
    tokens: int | None
    left: int | None
    took_s: float | None
    ends_at: datetime | None
    under_way: int | None
    is_large: bool
    waits_for_tomorrow: bool


class BegunAnswer(BaseModel):
    """The ids of the runs that began; none where these are being fetched already."""

    runs: list[int]


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/fetch-preview", preview_fetch, PreviewAnswer)
    operations.post("/connectors/<connector>/fetch-changes", fetch_changes, BegunAnswer)


def preview_fetch(path: OfConnector, query: OfEntity) -> Response:
    """Show what fetching everything of one entity would take, before it begins."""
    connector = find(path)
    with transaction() as session:
        return answer(PreviewAnswer.model_validate(acts.preview_fetch(session, connector.key, query.kind)))


def fetch_changes(path: OfConnector) -> Response:
    """Fetch now what changed since the watermark, of both entities."""
    return answer(BegunAnswer(runs=acts.fetch_changes(find(path), by=who().name)))
