"""Mappings to begin with: what nearly everybody wants first, and the company's own fields to choose from."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from db import connector as connectors
from pipeline.domain.fields import FieldCatalog, find_source, is_listed, is_writable
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import AttributeMapping
from pipeline.insight.conversion_words import describe_row
from pipeline.insight.fields import fields_of
from pipeline.insight.settings_text import effective
from pipeline.transform.hull_reports import attribute_name

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
"""(direction, entity) → attribute and field that nearly everybody maps; those a company does not have are left out."""
GROUP: Final = "pipedrive/"
LONGEST_SLUG: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A row that may be taken over by one press.

    is_usual  nearly everybody wants it; the others are the company's own fields
    """

    hull: str
    service: str
    field: str
    type: str
    does: str
    is_usual: bool


def suggested(session: Session, connector_key: int) -> dict[str, list[Suggestion]]:
    """Return rows to begin with by setting, less what is mapped already."""
    document = effective(connectors.settings_in_force(session, connector_key).document)
    catalogs = {entity: fields_of(session, connector_key, entity).catalog for entity in Entity}
    return {
        name: suggest(direction, catalogs[entity], document[name])
        for direction in Direction
        for entity in Entity
        if (name := f"{direction}_{entity.hull}_attributes")
    }


def suggest(direction: Direction, catalog: FieldCatalog, mapped: Sequence[Mapping[str, Any]]) -> list[Suggestion]:
    """Rows to offer, less what is mapped already; the usual ones first."""
    taken = {source.key for row in mapped if (source := find_source(str(row.get("service")), catalog))}
    names = {attribute_name(str(row.get("hull"))) for row in mapped}
    found: list[Suggestion] = []
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
    """A field's name as an attribute: `Lead score (2)` → `lead_score_2`; a name without letters gives nothing."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:LONGEST_SLUG]


def _usual(direction: Direction, catalog: FieldCatalog) -> list[tuple[Pair, bool]]:
    return [(pair, True) for pair in USUAL[direction, catalog.entity]]


def _own(direction: Direction, catalog: FieldCatalog) -> list[tuple[Pair, bool]]:
    """The company's own fields; equal names are distinguished by the beginning of their codes."""
    pairs: dict[str, str] = {}
    prefix = GROUP if direction is Direction.INCOMING else ""
    for each in catalog.by_code.values():
        if each.is_custom:
            attribute = prefix + (slug(each.name) or each.code[:8])
            pairs[f"{attribute}_{each.code[:8]}" if attribute in pairs else attribute] = each.code
    return [(pair, False) for pair in pairs.items()]


def _suggestion(pair: Pair, direction: Direction, catalog: FieldCatalog, *, is_usual: bool) -> Suggestion:
    words = describe_row(AttributeMapping(hull=pair[0], service=pair[1]), direction, catalog)
    return Suggestion(
        hull=pair[0], service=pair[1], field=words.field, type=words.type, does=words.does, is_usual=is_usual
    )
