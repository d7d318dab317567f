"""What the pages of the settings are drawn from: the summary of each section, and what a mapping does to a real record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy.orm import Session

from db import connector as connectors
from pipeline.domain.cron import cron_words, next_times, time_words
from pipeline.domain.kinds import Claim, Direction, Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.insight.conversion_words import direction_of, entity_of, field_name, row_words
from pipeline.insight.fields import Fields, fields_of
from pipeline.insight.samples import find_sample
from pipeline.insight.settings_editing import Mistake
from pipeline.insight.settings_rows import OPPOSITE, attributes_seen, view_rows
from pipeline.insight.settings_words import TITLES, Catalogs, value_words
from pipeline.web.console.settings_forms import Document, Section, effective

NAMED: Final = 6
"""Rows that a summary names; the rest is a number."""
CLAIMS: Final = {
    Entity.PERSON: (Claim.EMAIL, Claim.EXTERNAL_ID),
    Entity.ORGANIZATION: (Claim.DOMAIN, Claim.EXTERNAL_ID),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One section in the overview."""

    section: Section
    facts: tuple[tuple[str, str], ...]


def summaries(sections: Sequence[Section], document: Document, catalogs: Catalogs, *, connector_id: str) -> list[Line]:
    """What is in force, each section in a few words."""
    chosen = ConnectorSettings.model_validate(effective(document))
    return [
        Line(
            section=each,
            facts=tuple((TITLES[name], _fact(name, chosen, catalogs, connector_id)) for name in each.settings),
        )
        for each in sections
    ]


def draw(
    session: Session,
    connector_key: int,
    section: Section,
    values: Document,
    *,
    wanted: str,
    mistakes: Sequence[Mistake],
) -> dict[str, Any]:
    """Everything a section's page needs besides the values themselves."""
    if section.kind == "mapping":
        return _mapping(session, connector_key, section.settings[0], values, wanted=wanted, mistakes=mistakes)
    if section.kind == "claims":
        fields = {entity: fields_of(session, connector_key, entity) for entity in Entity}
        names = {entity: partial(_name_in, fields[entity]) for entity in Entity}
        return {"fields": fields, "claims": CLAIMS, "entity_of": entity_of, "name_in": names}
    if section.slug == "sync-keys":
        return {"texts": {entity: _text_fields(fields_of(session, connector_key, entity)) for entity in Entity}}
    if section.slug == "schedules":
        connector_id = connectors.get_connector(session, connector_key).id
        return _schedule(str(values.get("full_fetch_cron", "")), connector_id)
    return {"percent": _percent}


def _name_in(fields: Fields, code: str) -> str:
    return field_name(code, fields.catalog)


def _percent(share: Any) -> str:
    """A share as it is typed; what was typed wrong as it is."""
    return f"{share * 100:g}" if isinstance(share, float | int) and not isinstance(share, bool) else str(share)


def _mapping(
    session: Session,
    connector_key: int,
    setting: str,
    values: Document,
    *,
    wanted: str,
    mistakes: Sequence[Mistake],
) -> dict[str, Any]:
    entity, direction = entity_of(setting), direction_of(setting)
    fields = fields_of(session, connector_key, entity)
    sample = find_sample(session, connector_key, entity, direction, wanted)
    others = effective(connectors.settings_in_force(session, connector_key).document)[OPPOSITE[setting]]
    rows = values[setting] if isinstance(values[setting], list) else []
    return {
        "setting": setting,
        "entity": entity,
        "is_outgoing": direction is Direction.OUTGOING,
        "fields": fields,
        "offered": fields.writable if direction is Direction.OUTGOING else fields.choices,
        "rows": view_rows(setting, rows, fields.catalog, sample=sample, others=others, mistakes=mistakes),
        "sample": sample,
        "wanted": wanted,
        "attributes": attributes_seen(sample, rows, others),
        "field_name": partial(_name_in, fields),
    }


def _schedule(cron: str, connector_id: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    times = next_times(cron, connector_id, now)
    return {
        "cron_words": cron_words(cron, connector_id) if times or not cron else "",
        "next_times": [(each, time_words(each, now)) for each in times],
    }


def _text_fields(fields: Fields) -> list[tuple[str, str]]:
    return [(each.code, each.name) for each in fields.choices if each.is_custom and each.kind in ("varchar", "text")]


def _fact(name: str, chosen: ConnectorSettings, catalogs: Catalogs, connector_id: str) -> str:
    value = getattr(chosen, name)
    catalog = catalogs[entity_of(name)]
    if name.endswith("_claims"):
        return _listed([f"{rule.hull.value} ← {field_name(rule.service, catalog)}" for rule in value], "nothing")
    if name.endswith("_attributes"):
        return _listed([row_words(row, direction_of(name), catalog) for row in value], "none")
    if name.endswith("_segments"):
        return "everybody" if {"ALL", "all_segments"} & set(value) else _listed(list(value), "nobody is sent")
    if name.endswith("_sync_key"):
        return field_name(value, catalog) if value else "none"
    if name == "full_fetch_cron":
        return cron_words(value, connector_id)
    return value_words(name, value)


def _listed(words: list[str], nothing: str) -> str:
    if not words:
        return nothing
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more
