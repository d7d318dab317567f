"""Records: found by what a person has at hand, one with both sides, its history, and why a field says what it says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flask import Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db.connector import Connector
from db.record_events import Whose
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.insight import record as insight
from pipeline.insight import search, standing
from pipeline.insight.explain import explain
from pipeline.operations.errors import not_found
from pipeline.operations.models import Asked, EntityName, OfConnector
from pipeline.operations.values import LARGEST_ID, Moment, RowId
from pipeline.web.api.event_shapes import EventShape
from pipeline.web.api.problems import answer
from pipeline.web.api.record_shapes import ExplanationAnswer, FoundShape, RecordAnswer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find


class OfRecord(OfConnector):
    """A record, by its id on either side."""

    entity: EntityName
    record: Annotated[str, Field(min_length=1, max_length=200, description="A Pipedrive id, or a Hull id.")]


class Side(Asked):
    by: Annotated[Literal["pipedrive", "hull"], Field(description="Whose id it is.")] = "pipedrive"


class HistoryAsked(Side):
    before: RowId | None = None


class FieldAsked(Side):
    """A field as it is, or as it was at a moment."""

    field: Annotated[str, Field(min_length=1, max_length=300, description="An attribute, a field's code or its name.")]
    at: Moment | None = None


class Sought(Asked):
    q: Annotated[str, Field(min_length=1, max_length=search.LONGEST, description=search.SEARCHED.capitalize())]


class FoundAnswer(BaseModel):
    records: list[FoundShape]


class HistoryAnswer(BaseModel):
    """Newest first; `more` is where the next page begins."""

    events: list[EventShape]
    more: int | None


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/records", search_records, FoundAnswer)
    one = "/connectors/<connector>/records/<entity>/<record>"
    operations.get(one, show_record, RecordAnswer)
    operations.get(f"{one}/history", show_history, HistoryAnswer)
    operations.get(f"{one}/explain", explain_field, ExplanationAnswer)


def search_records(path: OfConnector, query: Sought) -> Response:
    """Find records by an id of either side, an e-mail, a domain or an external id."""
    connector = find(path)
    with transaction() as session:
        found = search.search(session, connector.key, query.q)
    return answer(FoundAnswer(records=[FoundShape.model_validate(each) for each in found]))


def show_record(path: OfRecord, query: Side) -> Response:
    """Show one record: both sides field by field, its id mapping, and what happened last."""
    connector = find(path)
    with transaction() as session:
        record = insight.read_record(session, _whose(session, connector, path, query))
    return answer(RecordAnswer(**_told(record)))


def show_history(path: OfRecord, query: HistoryAsked) -> Response:
    """Show what happened to one record, in both directions."""
    connector = find(path)
    with transaction() as session:
        whose = _whose(session, connector, path, query)
        events, more = insight.history(session, whose, before_id=query.before)
    return answer(HistoryAnswer(events=[EventShape.model_validate(each) for each in events], more=more))


def explain_field(path: OfRecord, query: FieldAsked) -> Response:
    """Explain why a field says what it says, now or at a moment of the past: every link from the origin to the value."""
    connector = find(path)
    with transaction() as session:
        told = explain(session, _whose(session, connector, path, query), query.field, query.at)
    return answer(ExplanationAnswer.model_validate(told))


def _whose(session: Session, connector: Connector, path: OfRecord, query: Side) -> Whose:
    kind, name = Entity(path.entity), path.record
    found = None
    if query.by == "hull":
        found = insight.find_whose(session, connector.key, kind, hull_id=name)
    elif name.isascii() and name.isdigit() and int(name) <= LARGEST_ID:
        found = insight.find_whose(session, connector.key, kind, pipedrive_id=int(name))
    if found is None:
        raise not_found("Nothing is known of this record.", "It comes with the next fetch if Pipedrive shows it.")
    return found


def _told(record: insight.Record) -> dict[str, Any]:
    """The record as it is read off, with the words for how it stands."""
    whole = {name: getattr(record, name) for name in RecordAnswer.model_fields if hasattr(record, name)}
    whose = record.whose
    known = {"entity": whose.entity, "pipedrive_id": whose.pipedrive_id, "hull_id": whose.hull_id}
    organization = (
        {"pipedrive_id": record.organization[0], "is_known": record.organization[1]} if record.organization else None
    )
    words = {"sentence": standing.sentence_of(record), "level": standing.mood_of(record)}
    return {**whole, **known, **words, "organization": organization}
