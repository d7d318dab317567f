"""The settings as forms: the settings of each page, and the conversion of form fields to a document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict

from db import connector as connectors
from pipeline.domain.cron import cron_words, next_times, time_words
from pipeline.domain.kinds import Claim, Direction, Entity
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.operations.conversions import direction_of, entity_of, field_name, row_words
from pipeline.operations.fields import Fields, fields_of
from pipeline.operations.settings_differences import TITLES, Catalogs, short_row, value_words
from pipeline.operations.settings_editing import MistakeShape
from pipeline.operations.settings_preview import OPPOSITE, attributes_seen, find_sample, view_rows

Document = dict[str, Any]
Form = MultiDict[str, str]

MOST_ROWS: Final = 500
CELL: Final = re.compile(r"(\w+)-(\d{1,4})-(\w+)")
PERCENT: Final = frozenset({"live_reserve", "deletion_stop_share", "change_stop_share"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A page of the settings. `kind` is how it is drawn: `claims`, `mapping`, `segments` or `values`."""

    slug: str
    title: str
    question: str
    kind: str
    settings: tuple[str, ...]


SECTIONS: Final = (
    Section(
        slug="identity",
        title="Identity",
        question="By what is a Person recognised as a User, and an Organization as an Account?",
        kind="claims",
        settings=("user_claims", "account_claims"),
    ),
    Section(
        slug="users-in",
        title="Incoming user attributes",
        question="Which fields of a Person become which attributes of the User?",
        kind="mapping",
        settings=("incoming_user_attributes",),
    ),
    Section(
        slug="accounts-in",
        title="Incoming account attributes",
        question="Which fields of an Organization become which attributes of the Account?",
        kind="mapping",
        settings=("incoming_account_attributes",),
    ),
    Section(
        slug="segments",
        title="Segments",
        question="Which Users and Accounts are sent to Pipedrive?",
        kind="segments",
        settings=("synchronized_user_segments", "synchronized_account_segments"),
    ),
    Section(
        slug="users-out",
        title="Outgoing user attributes",
        question="Which attributes of a User go to which fields of the Person?",
        kind="mapping",
        settings=("outgoing_user_attributes",),
    ),
    Section(
        slug="accounts-out",
        title="Outgoing account attributes",
        question="Which attributes of an Account go to which fields of the Organization?",
        kind="mapping",
        settings=("outgoing_account_attributes",),
    ),
    Section(
        slug="links",
        title="Links and deletions",
        question="How are records linked, and what happens to deleted ones?",
        kind="values",
        settings=(
            *("link_users_in_hull", "link_users_in_service", "support_user_deletion", "support_account_deletion"),
            *("ignore_deleted_users", "ignore_deleted_accounts", "deletion_stop_share"),
        ),
    ),
    Section(
        slug="schedules",
        title="Schedules",
        question="When is Pipedrive fetched automatically?",
        kind="values",
        settings=("full_fetch_cron", "incremental_minutes"),
    ),
    Section(
        slug="budget",
        title="Budget and caution",
        question="How much may be spent and changed without approval?",
        kind="values",
        settings=("daily_tokens", "live_reserve", "change_stop_share"),
    ),
    Section(
        slug="sync-keys",
        title="Sync keys",
        question="In which field of Pipedrive does a record keep its Hull id?",
        kind="values",
        settings=("user_sync_key", "account_sync_key"),
    ),
)
BY_SLUG: Final[Mapping[str, Section]] = {section.slug: section for section in SECTIONS}


class NotSettings(Exception):
    """The text is not a settings document; the words are for a person."""


def parse_document(text: str) -> Document:
    """Return the settings that were typed as JSON. Raises NotSettings."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotSettings(f"This is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise NotSettings("Settings are one JSON object.")
    return document


def effective(document: Document) -> Document:
    """The document with every default filled in."""
    return read_settings(document).model_dump(mode="json")


def typed_in(section: Section, form: Form) -> Document:
    """The settings of a section as they were typed, right or wrong."""
    return {name: _reader_of(name)(name, form) for name in section.settings}


def without_empty_rows(values: Document) -> Document:
    """Empty rows are ignored."""
    return {
        name: [row for row in value if not _is_empty(row)] if isinstance(value, list) else value
        for name, value in values.items()
    }


def with_values(values: Document, ground: Document) -> Document:
    """A whole document: what was typed on top of the one that was edited. What stays at its default stays unsaid."""
    before = effective(ground)
    return ground | {
        name: _as_kept(value)
        for name, value in values.items()
        if name in ground or _as_kept(value) != _as_kept(before[name])
    }


def changed_rows(section: Section, form: Form, act: str) -> Document:
    """Return the typed settings after a row was added (`add:SETTING`) or removed (`remove:SETTING:3`)."""
    typed = typed_in(section, form)
    verb, _, rest = act.partition(":")
    setting, _, position = rest.partition(":")
    if setting not in section.settings or not isinstance(typed[setting], list):
        return typed
    rows = typed[setting]
    if verb == "add" and len(rows) < MOST_ROWS:
        rows.append({"hull": "", "service": ""})
    elif (
        verb == "remove"
        and position.isascii()
        and position.isdigit()
        and len(position) < 5
        and int(position) < len(rows)
    ):
        del rows[int(position)]
    return typed


def _reader_of(name: str) -> Callable[[str, Form], Any]:
    default = ConnectorSettings.model_fields[name].default
    if name.endswith(("_claims", "_attributes")):
        return _rows
    if name.endswith("_segments"):
        return _segments
    if isinstance(default, bool):
        return lambda name, form: name in form
    if name in PERCENT:
        return _share
    return lambda name, form: form.get(name, "").strip() if isinstance(default, str) else _number(form.get(name, ""))


def _rows(name: str, form: Form) -> list[dict[str, Any]]:
    """In the order of their numbers, some of which may be missing."""
    found: dict[int, dict[str, Any]] = {}
    for key, value in form.items():
        cell = CELL.fullmatch(key)
        if cell and cell[1] == name and len(found) <= MOST_ROWS:
            found.setdefault(int(cell[2]), {})[cell[3]] = value.strip()
    return [_cells(found[number]) for number in sorted(found)]


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row as the settings have it: parts are a list."""
    if "parts" in row:
        row["parts"] = [part.strip() for part in str(row["parts"]).split(",") if part.strip()]
    return {"hull": row.pop("hull", ""), "service": row.pop("service", ""), **row}


def _segments(name: str, form: Form) -> list[str]:
    more = [each.strip() for each in form.get(f"{name}-more", "").split(",")]
    return list(dict.fromkeys(each for each in [*form.getlist(name), *more] if each))[:MOST_ROWS]


def _share(name: str, form: Form) -> Any:
    """Typed in per cent."""
    text = form.get(name, "").strip().removesuffix("%").strip()
    try:
        return round(float(text) / 100, 6)
    except ValueError:
        return text


def _number(text: str) -> Any:
    """Accept thousands separators; keep an invalid number as typed, to show it with the mistake."""
    plain = text.strip().replace(",", "").replace(" ", "")
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= 18 else text.strip()


def _is_empty(row: Any) -> bool:
    return isinstance(row, dict) and not row.get("hull") and not row.get("service")


def _as_kept(value: Any) -> Any:
    """Rows without what is default."""
    return [short_row(row) if isinstance(row, dict) else row for row in value] if isinstance(value, list) else value


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
    mistakes: Sequence[MistakeShape],
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
    mistakes: Sequence[MistakeShape],
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
