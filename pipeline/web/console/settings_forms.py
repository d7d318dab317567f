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
from pipeline.domain.setting_texts import DESCRIPTIONS, TITLES
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.operations.conversions import direction_of, entity_of, field_name, row_words
from pipeline.operations.fields import Fields, fields_of
from pipeline.operations.settings_differences import Catalogs, short_row, value_words
from pipeline.operations.settings_editing import MistakeShape
from pipeline.operations.settings_preview import OPPOSITE, attributes_seen, find_sample, view_rows

Document = dict[str, Any]
Form = MultiDict[str, str]

MOST_ROWS: Final = 500
CELL: Final = re.compile(r"(\w+)-(\d{1,4})-(\w+)")
PERCENT: Final = frozenset({"live_reserve", "deletion_stop_share", "change_stop_share"})


@dataclass(frozen=True, slots=True)
class Section:
    """A page of the settings.

    kind      its template: `claims`, `mapping`, `segments` or `values`, as `settings_<kind>.html`
    settings  in the order of the page; a page of values draws each with its text of `domain/setting_texts.py`
    """

    slug: str
    title: str
    question: str
    kind: str
    settings: tuple[str, ...]


SECTIONS: Final = (
    Section(
        "identity",
        "Identity",
        "Which fields identify a Person as a User, and an Organization as an Account?",
        "claims",
        ("user_claims", "account_claims"),
    ),
    Section(
        "users-in",
        TITLES["incoming_user_attributes"],
        "Which fields of a Person become which attributes of the User?",
        "mapping",
        ("incoming_user_attributes",),
    ),
    Section(
        "accounts-in",
        TITLES["incoming_account_attributes"],
        "Which fields of an Organization become which attributes of the Account?",
        "mapping",
        ("incoming_account_attributes",),
    ),
    Section(
        "segments",
        "Segments",
        "Which Users and Accounts are sent to Pipedrive?",
        "segments",
        ("synchronized_user_segments", "synchronized_account_segments"),
    ),
    Section(
        "users-out",
        TITLES["outgoing_user_attributes"],
        "Which attributes of a User are sent to Pipedrive, and which fields of the Person do they change?",
        "mapping",
        ("outgoing_user_attributes",),
    ),
    Section(
        "accounts-out",
        TITLES["outgoing_account_attributes"],
        "Which attributes of an Account are sent to Pipedrive, and which fields of the Organization do they change?",
        "mapping",
        ("outgoing_account_attributes",),
    ),
    Section(
        "links",
        "Links, deletions and filters",
        "How are records linked, what happens to deleted ones, and which are not sent?",
        "values",
        (
            *("link_users_in_hull", "link_users_in_service", "support_user_deletion", "support_account_deletion"),
            *("ignore_deleted_users", "ignore_deleted_accounts", "deletion_stop_share"),
        ),
    ),
    Section(
        "schedules",
        "Schedules",
        "When is Pipedrive fetched automatically?",
        "values",
        ("full_fetch_cron", "incremental_minutes"),
    ),
    Section(
        "budget",
        "Budget and approval",
        "How many tokens may be spent, and how many records may change without approval?",
        "values",
        ("daily_tokens", "live_reserve", "change_stop_share"),
    ),
    Section(
        "sync-keys",
        "Sync keys",
        "Which Pipedrive field contains the Hull id of a record?",
        "values",
        ("user_sync_key", "account_sync_key"),
    ),
)
BY_SLUG: Final[Mapping[str, Section]] = {section.slug: section for section in SECTIONS}


class NotSettings(Exception):
    """The text is not a settings document; the message is the reason."""


def parse_document(text: str) -> Document:
    """Return the settings that were typed as JSON. Raises NotSettings."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotSettings(f"This is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise NotSettings("Settings must be one JSON object.")
    return document


def with_defaults(document: Document) -> Document:
    """Return the document with every default, in rows too, as forms need it."""
    return read_settings(document).model_dump(mode="json")


def typed_in(section: Section, form: Form) -> Document:
    """Return the settings of a section as typed, valid or not."""
    return {name: _reader_of(name)(name, form) for name in section.settings}


def without_empty_rows(values: Document) -> Document:
    """Return the settings without empty rows."""
    return {
        name: [row for row in value if not _is_empty(row)] if isinstance(value, list) else value
        for name, value in values.items()
    }


def with_values(values: Document, base: Document) -> Document:
    """Return the edited document with the typed values. An omitted setting with its default value stays omitted."""
    before = with_defaults(base)
    short = {name: _without_default_rules(value) for name, value in values.items()}
    return base | {
        name: value for name, value in short.items() if name in base or value != _without_default_rules(before[name])
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
    """Return the rows in the order of their numbers; numbers may be missing."""
    found: dict[int, dict[str, Any]] = {}
    for key, value in form.items():
        cell = CELL.fullmatch(key)
        if cell and cell[1] == name and len(found) <= MOST_ROWS:
            found.setdefault(int(cell[2]), {})[cell[3]] = value.strip()
    return [_row(found[number]) for number in sorted(found)]


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as the settings have it: parts are a list."""
    if "parts" in row:
        row["parts"] = [part.strip() for part in str(row["parts"]).split(",") if part.strip()]
    return {"hull": row.pop("hull", ""), "service": row.pop("service", ""), **row}


def _segments(name: str, form: Form) -> list[str]:
    more = [each.strip() for each in form.get(f"{name}-more", "").split(",")]
    return list(dict.fromkeys(each for each in [*form.getlist(name), *more] if each))[:MOST_ROWS]


def _share(name: str, form: Form) -> Any:
    """Return a share that was typed as a percentage."""
    text = form.get(name, "").strip().removesuffix("%").strip()
    try:
        return round(float(text) / 100, 6)
    except ValueError:
        return text


def _number(text: str) -> Any:
    """Return a number, with or without thousands separators; an invalid one as typed, to show it with the mistake."""
    plain = text.strip().replace(",", "").replace(" ", "")
    return int(plain) if plain.isascii() and plain.isdigit() and len(plain) <= 18 else text.strip()


def _is_empty(row: Any) -> bool:
    return isinstance(row, dict) and not row.get("hull") and not row.get("service")


def _without_default_rules(value: Any) -> Any:
    return [short_row(row) if isinstance(row, dict) else row for row in value] if isinstance(value, list) else value


NAMED: Final = 6
"""Maximum of rows that a summary names."""
CLAIMS: Final = {
    Entity.PERSON: (Claim.EMAIL, Claim.EXTERNAL_ID),
    Entity.ORGANIZATION: (Claim.DOMAIN, Claim.EXTERNAL_ID),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One section of the overview: (title, value) of each setting."""

    section: Section
    facts: tuple[tuple[str, str], ...]


def summaries(sections: Sequence[Section], document: Document, catalogs: Catalogs, *, connector_id: str) -> list[Line]:
    """Return each section with the values in force as text."""
    chosen = read_settings(document)
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
    """Return what the page of a section needs besides the values."""
    if section.kind == "mapping":
        return _mapping(session, connector_key, section.settings[0], values, wanted=wanted, mistakes=mistakes)
    if section.kind == "claims":
        fields = {entity: fields_of(session, connector_key, entity) for entity in Entity}
        names = {entity: partial(_name_in, fields[entity]) for entity in Entity}
        return {"fields": fields, "claims": CLAIMS, "entity_of": entity_of, "name_in": names}
    return _values(session, connector_key, section, values) if section.kind == "values" else {}


def _values(session: Session, connector_key: int, section: Section, values: Document) -> dict[str, Any]:
    """Return the type of each setting, with the choices of the sync keys and the next times of the schedule."""
    types = {name: type(ConnectorSettings.model_fields[name].default) for name in section.settings}
    needs: dict[str, Any] = {
        "descriptions": DESCRIPTIONS,
        "switches": [name for name, kind in types.items() if kind is bool],
        "percentages": PERCENT,
        "numbers": [name for name, kind in types.items() if kind is int],
        "percent": _percent,
        "texts": {
            name: _text_fields(fields_of(session, connector_key, entity_of(name)))
            for name in section.settings
            if name.endswith("_sync_key")
        },
    }
    if "full_fetch_cron" in section.settings:
        connector_id, now = connectors.get_connector(session, connector_key).id, datetime.now(UTC)
        cron = str(values["full_fetch_cron"])
        times = next_times(cron, connector_id, now)
        needs["cron_words"] = cron_words(cron, connector_id) if times or not cron else ""
        needs["next_times"] = [(each, time_words(each, now)) for each in times]
    return needs


def _name_in(fields: Fields, code: str) -> str:
    return field_name(code, fields.catalog)


def _percent(share: Any) -> str:
    """Return a share as a percentage; an invalid one as typed."""
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
    others = with_defaults(connectors.settings_in_force(session, connector_key).document)[OPPOSITE[setting]]
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
        return "all records" if {"ALL", "all_segments"} & set(value) else _listed(list(value), "no records")
    if name.endswith("_sync_key"):
        return field_name(value, catalog) if value else "none"
    if name == "full_fetch_cron":
        return cron_words(value, connector_id)
    return value_words(name, value)


def _listed(names: list[str], nothing: str) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more if names else nothing
