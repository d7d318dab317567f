"""What settings refer to: Pipedrive's fields, Hull's segments, and suggested mapping rows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import connector as connectors
from db import field_definition
from db.session import transaction
from pipeline import wiring
from pipeline.domain.fields import FieldCatalog, find_source, is_listed, is_writable, read_field_definitions
from pipeline.domain.kinds import Direction, Entity, Role
from pipeline.domain.settings import AttributeMapping
from pipeline.errors import PipelineError
from pipeline.operations.cached_answers import Shared
from pipeline.operations.call import Call
from pipeline.operations.conversions import describe_row, type_words
from pipeline.operations.models import ConnectorRequest, Done, EntityRequest, Shape, Text
from pipeline.operations.registry import operation
from pipeline.operations.settings_differences import effective
from pipeline.sync import definitions
from pipeline.telemetry import logger
from pipeline.transform.hull_reports import attribute_name

SEGMENTS_S: Final = 60.0
Pair = tuple[str, str]

USUAL: Final[Mapping[tuple[Direction, Entity], tuple[Pair, ...]]] = {
    (Direction.INCOMING, Entity.PERSON): (
        ("first_name", "first_name"),
        ("last_name", "last_name"),
        ("pipedrive/name", "name"),
        ("pipedrive/email", "email"),
        ("phone", "phone"),
        ("pipedrive/job_title", "job_title"),
        ("pipedrive/owner_id", "owner_id"),
        ("pipedrive/labels", "label_ids"),
        ("pipedrive/created_at", "add_time"),
    ),
    (Direction.INCOMING, Entity.ORGANIZATION): (
        ("name", "name"),
        ("pipedrive/website", "website"),
        ("pipedrive/address", "address"),
        ("pipedrive/industry", "industry"),
        ("pipedrive/employee_count", "employee_count"),
        ("pipedrive/owner_id", "owner_id"),
        ("pipedrive/labels", "label_ids"),
        ("pipedrive/created_at", "add_time"),
    ),
    (Direction.OUTGOING, Entity.PERSON): (
        ("first_name", "first_name"),
        ("last_name", "last_name"),
        ("phone", "phone"),
        ("job_title", "job_title"),
    ),
    (Direction.OUTGOING, Entity.ORGANIZATION): (("name", "name"), ("industry", "industry")),
}
"""(direction, entity) → attributes and fields that most customers map; fields that a company lacks are left out."""
GROUP: Final = "pipedrive/"
LONGEST_SLUG: Final = 60


class FieldChoiceShape(Shape):
    """A field that can be mapped; `options` are its option labels, if it has options."""

    code: str
    name: Text
    type: str
    kind: str
    is_custom: bool
    is_writable: bool
    options: list[Text]


class FieldsAnswer(BaseModel):
    """Pipedrive's fields as of `read_at`."""

    fields: list[FieldChoiceShape]
    read_at: datetime | None


class SegmentShape(Shape):
    id: str
    name: Text


class SegmentsAnswer(Shape):
    """`trouble` is the error if Hull's segments could not be read; otherwise empty."""

    users: list[SegmentShape]
    accounts: list[SegmentShape]
    trouble: str


class SuggestionShape(Shape):
    """A suggested mapping row. `is_usual`: most customers map it; the others are the company's own fields."""

    hull: Text
    service: str
    field: Text
    type: str
    does: Text
    is_usual: bool


class SuggestionsAnswer(BaseModel):
    """Setting → suggested rows, without fields that are already mapped."""

    suggestions: dict[str, list[SuggestionShape]]


class FieldsRequest(ConnectorRequest, EntityRequest):
    """The fields of Persons or of Organizations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The fields of one entity, with their definitions; without `read_at`, they were never read."""

    entity: Entity
    catalog: FieldCatalog
    choices: list[FieldChoiceShape]
    read_at: datetime | None

    @property
    def writable(self) -> list[FieldChoiceShape]:
        return [each for each in self.choices if each.is_writable]


@operation("GET /connectors/<connector>/fields", role=Role.VIEWER, command="fields list CONNECTOR ENTITY")
def list_fields(call: Call, request: FieldsRequest) -> FieldsAnswer:
    """List Pipedrive's fields of one entity, as they were last read."""
    with transaction() as session:
        found = fields_of(session, call.connector.key, request.kind)
    return FieldsAnswer(fields=found.choices, read_at=found.read_at)


@operation(
    "POST /connectors/<connector>/fields/read",
    role=Role.ADMIN,
    audit_action="fields.read",
    command="fields read CONNECTOR",
)
def read_fields(call: Call, _request: ConnectorRequest) -> Done:
    """Read Pipedrive's fields again. Costs 10 tokens for each entity."""
    found = definitions.fetch_fields(call.connector.key)
    with call.transaction() as session:
        definitions.keep_fields(session, call.connector.key, found)
    return Done(done="read")


@operation("GET /connectors/<connector>/segments", role=Role.VIEWER, command="segments list CONNECTOR")
def list_segments(call: Call, _request: ConnectorRequest) -> SegmentsAnswer:
    """List Hull's segments by name; they are read from Hull at most once a minute."""
    return segments_of(call.connector.key)


@operation("GET /connectors/<connector>/suggestions", role=Role.VIEWER, command="settings suggest CONNECTOR")
def suggest_mappings(call: Call, _request: ConnectorRequest) -> SuggestionsAnswer:
    """Suggest mapping rows for both directions: usual fields, and the company's own fields."""
    with transaction() as session:
        return SuggestionsAnswer(suggestions=suggested(session, call.connector.key))


def fields_of(session: Session, connector_key: int, entity: Entity) -> Fields:
    """Return the fields as last read from Pipedrive."""
    known = field_definition.find_fields(session, connector_key, entity)
    catalog = FieldCatalog.of(
        entity,
        read_field_definitions(known.rows if known else []),
        default_currency=connectors.default_currency(session, connector_key),
    )
    return Fields(
        entity=entity, catalog=catalog, choices=choices_of(catalog), read_at=known.fetched_at if known else None
    )


def choices_of(catalog: FieldCatalog) -> list[FieldChoiceShape]:
    """Return every field that can be mapped, in Pipedrive's order."""
    return [
        FieldChoiceShape(
            code=each.code,
            name=each.name,
            type=type_words(source),
            kind=source.type,
            is_custom=each.is_custom,
            is_writable=is_writable(source, catalog.entity),
            options=list(each.options.values()),
        )
        for each in catalog.by_code.values()
        if (source := find_source(each.code, catalog)) is not None and is_listed(source, catalog)
    ]


def read_segments(connector_key: int) -> SegmentsAnswer:
    """Read Hull's segments, outside of any transaction."""
    try:
        with transaction() as session:
            hull = wiring.open_connector(session, connector_key).hull
        found = {entity: [SegmentShape(id=row[0], name=row[1]) for row in hull.segments(entity)] for entity in Entity}
    except PipelineError as unwell:
        logger().warning("segments.not_read", reason=unwell.reason, detail=unwell.detail)
        return SegmentsAnswer(users=[], accounts=[], trouble=f"Hull's segments could not be read ({unwell.reason}).")
    return SegmentsAnswer(users=found[Entity.PERSON], accounts=found[Entity.ORGANIZATION], trouble="")


def suggested(session: Session, connector_key: int) -> dict[str, list[SuggestionShape]]:
    """Return setting → suggested rows, without fields that are mapped already."""
    document = effective(connectors.settings_in_force(session, connector_key).document)
    catalogs = {entity: fields_of(session, connector_key, entity).catalog for entity in Entity}
    return {
        name: suggest(direction, catalogs[entity], document[name])
        for direction in Direction
        for entity in Entity
        if (name := f"{direction}_{entity.hull}_attributes")
    }


def suggest(direction: Direction, catalog: FieldCatalog, mapped: Sequence[Mapping[str, Any]]) -> list[SuggestionShape]:
    """Return suggested rows without fields that are mapped already; the usual ones first."""
    taken = {source.key for row in mapped if (source := find_source(str(row.get("service")), catalog))}
    names = {attribute_name(str(row.get("hull"))) for row in mapped}
    found: list[SuggestionShape] = []
    for pair, is_usual in (*_usual(direction, catalog), *_own(direction, catalog)):
        source = find_source(pair[1], catalog)
        if source is None or not is_listed(source, catalog) or source.key in taken or pair[0] in names:
            continue
        if direction is Direction.OUTGOING and not is_writable(source, catalog.entity):
            continue
        taken.add(source.key)
        names.add(pair[0])
        found.append(_suggestion(pair, direction, catalog, is_usual=is_usual))
    return found


def slug(name: str) -> str:
    """Return a field's name as an attribute: `Lead score (2)` → `lead_score_2`; empty for a name without letters."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:LONGEST_SLUG]


def _usual(direction: Direction, catalog: FieldCatalog) -> list[tuple[Pair, bool]]:
    return [(pair, True) for pair in USUAL[direction, catalog.entity]]


def _own(direction: Direction, catalog: FieldCatalog) -> list[tuple[Pair, bool]]:
    """Return the company's own fields; equal names are distinguished by the beginning of their codes."""
    pairs: dict[str, str] = {}
    prefix = GROUP if direction is Direction.INCOMING else ""
    for each in catalog.by_code.values():
        if each.is_custom:
            attribute = prefix + (slug(each.name) or each.code[:8])
            pairs[f"{attribute}_{each.code[:8]}" if attribute in pairs else attribute] = each.code
    return [(pair, False) for pair in pairs.items()]


def _suggestion(pair: Pair, direction: Direction, catalog: FieldCatalog, *, is_usual: bool) -> SuggestionShape:
    words = describe_row(AttributeMapping(hull=pair[0], service=pair[1]), direction, catalog)
    return SuggestionShape(
        hull=pair[0], service=pair[1], field=words.field, type=words.type, does=words.does, is_usual=is_usual
    )


segments_of: Final = Shared(read_segments, fresh_s=SEGMENTS_S)
"""Hull's segments by connector key, requested at most once a minute."""
