"""What a mapping row does to the values of a field, as text and applied to a real record by the transforms of the stages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.fields import FieldCatalog, FieldSource, find_source, is_listed, is_writable
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.reasons import meaning_of
from pipeline.domain.settings import AttributeMapping, ConnectorSettings
from pipeline.errors import Rejected, Skip
from pipeline.operations.models import PageOnly, Shape, Text, Value
from pipeline.transform.hull_reports import ABSENT, ID_ATTRIBUTE, attribute_name, find_attribute
from pipeline.transform.incoming import compile_incoming
from pipeline.transform.outgoing import compile_outgoing

LABELLED: Final = frozenset({"enum", "set", "labels", "varchar_options", "status"})
LISTED: Final = frozenset({"emails", "phones"})
RECORDS: Final = frozenset({"user", "people", "org", "deal", "lead", "activity", "project", "stage", "picture"})

TYPES: Final[Mapping[str, str]] = {
    "varchar": "text",
    "varchar_auto": "text",
    "text": "long text",
    "phone": "text",
    "int": "number",
    "double": "number",
    "visible_to": "number",
    "monetary": "money",
    "boolean": "yes or no",
    "negated": "yes or no",
    "moment": "moment",
    "daterange": "dates",
    "timerange": "times",
    "labels": "labels",
    "user": "owner",
    "people": "Person",
    "org": "Organization",
    "set": "set",
}
"""Kind of field → its name; other kinds keep their own."""

HULL_TYPES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("int", "double", "monetary", "visible_to", *RECORDS), "number"),
    **dict.fromkeys(("boolean", "negated"), "boolean"),
    **dict.fromkeys(("date", "daterange", "moment"), "date"),
    **dict.fromkeys(("set", "labels"), "list"),
}
"""Kind of field → type of the attribute; any other is a string."""

INCOMING: Final[Mapping[str, str]] = {
    "enum": "the option's label",
    "varchar_options": "the option's label",
    "set": "a list of option labels",
    "labels": "a list of label names",
    "monetary": "the amount as a number, and the currency as {attribute}_currency",
    "date": "the day, as 2026-11-03",
    "daterange": "the first day, and the last one as {attribute}_until",
    "time": "the time of day, as 14:03:20",
    "timerange": "the start, and the end as {attribute}_until",
    "moment": "the moment, in UTC",
    "address": "the address as one text",
    "boolean": "true or false",
    "negated": "true or false, inverted",
    "int": "the number",
    "double": "the number",
    "emails": "the address marked as primary",
    "phones": "the number marked as primary",
    **dict.fromkeys(RECORDS, "the id"),
}
OUTGOING: Final[Mapping[str, str]] = {
    "enum": "a label or an id becomes the option; unknown ones are rejected",
    "varchar_options": "a label or an id becomes the option",
    "set": "labels or ids become options; an empty list empties the field",
    "labels": "names become labels",
    "monetary": "the number becomes the amount, and {attribute}_currency the currency; without it, the default currency is used",
    "date": "the day is taken from the date",
    "daterange": "the first day, and {attribute}_until as the last one",
    "time": "the time of day",
    "timerange": "the start, and {attribute}_until as the end",
    "address": "the text becomes the address; Pipedrive derives its parts",
    "boolean": "true or false",
    "int": "numbers, and texts that are numbers; other values are rejected",
    "double": "numbers, and texts that are numbers; other values are rejected",
    "emails": "becomes the primary address; other addresses stay",
    "phones": "becomes the primary number; other numbers stay",
    "visible_to": "1, 3, 5 or 7",
    **dict.fromkeys(RECORDS, "the id"),
}
TEXT: Final = {
    Direction.INCOMING: "the text as it is",
    Direction.OUTGOING: "the text; a longer one is rejected, never cut",
}

CHANGES: Final = "changes"
SAME: Final = "same"
NOTHING: Final = "nothing"
PROBLEM: Final = "problem"
SHORT: Final = {
    "option_unknown": "no such option",
    "option_ambiguous": "more than one option",
    "too_long": "too long",
    "wrong_type": "a value of another type",
}


class RowWordsShape(Shape):
    """The field's name and type, the matching type in Hull, and how a value is converted."""

    field: Text
    type: str
    hull_type: str
    does: Text
    mistake: PageOnly[str] = ""
    """Why the row does nothing; empty if it works."""


class ConversionShape(Shape):
    """`state` is `changes`, `same`, `nothing` or `problem`, with a problem's `reason`; `beside` is delivered with it."""

    state: str
    before: Value
    after: Value
    beside: Value
    words: Text
    reason: str


def describe_row(row: AttributeMapping, direction: Direction, catalog: FieldCatalog) -> RowWordsShape:
    """Return what a row does, as far as the field definitions are known."""
    source = find_source(row.service, catalog)
    name = field_name(row.service, catalog)
    if source is None or not is_listed(source, catalog):
        missing = f"Pipedrive has no {catalog.entity.value.capitalize()} field {row.service!r}"
        return RowWordsShape(field=name, type="", hull_type="", does="", mistake=missing)
    mistake = ""
    if direction is Direction.OUTGOING and not is_writable(source, catalog.entity):
        mistake = f"{name} cannot be written: Pipedrive sets it itself"
    return RowWordsShape(
        field=name,
        type=type_words(source),
        hull_type=_hull_type(source, row.form),
        does=_does(source, row, direction),
        mistake=mistake,
    )


def field_name(code: str, catalog: FieldCatalog) -> str:
    """Return the name of a field; of a part, the name of the field and the part."""
    source = find_source(code, catalog)
    found = catalog.find(code) or (catalog.find(source.key) if source else None)
    if found is None and source is not None:
        found = next((each for each in catalog.by_code.values() if key_of(each.code, catalog) == source.key), None)
    if found is None:
        return code
    return f"{found.name}: {source.part}" if source and source.part else found.name


def key_of(code: str, catalog: FieldCatalog) -> str | None:
    """Return the key of a field's code in a record; None if there is no such field."""
    source = find_source(code, catalog)
    return source.key if source else None


def type_words(source: FieldSource) -> str:
    """Return the kind of a field in words."""
    return source.part or TYPES.get(source.type, source.type)


def row_words(row: AttributeMapping, direction: Direction, catalog: FieldCatalog) -> str:
    """Return a row as text: `plan → Tier`, `pipedrive/tier ← Tier`."""
    arrow = "→" if direction is Direction.OUTGOING else "←"
    return f"{attribute_name(row.hull)} {arrow} {field_name(row.service, catalog)}"


def entity_of(setting: str) -> Entity:
    """Return the entity of a setting."""
    return Entity.ORGANIZATION if "account" in setting else Entity.PERSON


def direction_of(setting: str) -> Direction:
    return Direction.OUTGOING if setting.startswith("outgoing") else Direction.INCOMING


def _hull_type(source: FieldSource, form: str) -> str:
    if source.part is not None:
        return "date" if source.type == "daterange" else "string"
    if form == "list" and source.type in LISTED:
        return "list"
    return HULL_TYPES.get(source.type, "string")


def _does(source: FieldSource, row: AttributeMapping, direction: Direction) -> str:
    if source.part is not None:
        return f"only its {source.part.replace('_', ' ')}"
    if row.form == "id" and source.type in LABELLED:
        return "the option's id" if source.type not in ("set", "labels") else "a list of option ids"
    if row.form == "list" and source.type in LISTED:
        return "the whole list" if direction is Direction.INCOMING else "replaces the whole list"
    table = INCOMING if direction is Direction.INCOMING else OUTGOING
    words = table.get(source.type, TEXT[direction]).format(attribute=attribute_name(row.hull))
    if source.type == "address" and row.parts:
        words += f", and {', '.join(f'{attribute_name(row.hull)}_{part}' for part in row.parts)} as separate attributes"
    return words


def convert(
    row: AttributeMapping,
    direction: Direction,
    catalog: FieldCatalog,
    *,
    record: Mapping[str, Any] | None,
    report: Mapping[str, Any] | None,
) -> ConversionShape:
    """Apply a row to a record of Pipedrive and the report of its counterpart in Hull, as far as they are known."""
    try:
        if direction is Direction.INCOMING:
            return _incoming(row, catalog, record)
        return _outgoing(row, catalog, record, report)
    except (Rejected, Skip) as refused:
        return _problem(None, refused.reason, refused.detail)


def _incoming(row: AttributeMapping, catalog: FieldCatalog, record: Mapping[str, Any] | None) -> ConversionShape:
    if record is None:
        return _conversion(NOTHING, words="the record has not been read from Pipedrive yet")
    before = _field_value(record, find_source(row.service, catalog))
    transform = compile_incoming(catalog.entity, _alone(row, Direction.INCOMING, catalog.entity), catalog)
    read = transform.read(dict(record))
    for problem in (*transform.problems, *read.problems):
        return _problem(before, problem.reason, problem.detail)
    name = attribute_name(row.hull)
    if name not in read.attributes:
        return _conversion(NOTHING, before=before, words="empty: Hull keeps its value")
    beside = {key: value for key, value in read.attributes.items() if key not in (name, ID_ATTRIBUTE)}
    after = read.attributes[name]
    if after is None:
        return _conversion(NOTHING, before=before, words="empty: cleared in Hull, if the connector filled it before")
    return _conversion(CHANGES, before=_readable(before), after=after, beside=beside or None)


def _outgoing(
    row: AttributeMapping,
    catalog: FieldCatalog,
    record: Mapping[str, Any] | None,
    report: Mapping[str, Any] | None,
) -> ConversionShape:
    if report is None:
        return _conversion(NOTHING, words="Hull has not reported the record yet")
    found = find_attribute(report, row.hull)
    before = None if found is ABSENT else found
    transform = compile_outgoing(catalog.entity, _alone(row, Direction.OUTGOING, catalog.entity), catalog)
    for problem in transform.problems:
        return _problem(before, problem.reason, problem.detail)
    write = transform.write(report, record if record is not None else {})
    for problem in write.problems:
        return _problem(before, problem.reason, problem.detail)
    source = find_source(row.service, catalog)
    written = _field_value(write.fields, source, absent=ABSENT)
    held = _readable(_by_label(_field_value(record or {}, source), source))
    if written is not ABSENT:
        words = "cleared in Pipedrive" if written in (None, []) else ""
        return _conversion(CHANGES, before=before, after=_readable(_by_label(written, source)), words=words)
    if before is None:
        words = "Hull has no value: cleared if Hull filled it before, otherwise not changed"
        if row.on_null == "ignore" or held in (None, []):
            words = "Hull has no value: not changed"
        return _conversion(NOTHING, before=None, after=held, words=words)
    return _conversion(SAME, before=before, after=held, words="Pipedrive already has this value")


def _field_value(record: Mapping[str, Any], source: FieldSource | None, *, absent: Any = None) -> Any:
    """Return the value of a field in a record."""
    if source is None:
        return absent
    custom = record.get("custom_fields")
    place = (custom if isinstance(custom, Mapping) else {}) if source.is_custom else record
    value = place.get(source.key, absent)
    return value.get(source.part, absent) if source.part and isinstance(value, Mapping) else value


def _readable(value: Any) -> Any:
    """Return lists of e-mails and phones as text, and amounts and ranges as their parts."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "value" in each for each in value):
        return ", ".join(str(each["value"]) for each in value)
    if isinstance(value, dict) and "value" in value:
        return " ".join(str(each) for each in value.values() if each is not None)
    return value


def _by_label(value: Any, source: FieldSource | None) -> Any:
    """Replace the ids of options by their labels."""
    if source is None or not source.options:
        return value
    if isinstance(value, list):
        return [_by_label(each, source) for each in value]
    return source.options.get(value, value) if isinstance(value, int | str) else value


def _alone(row: AttributeMapping, direction: Direction, entity: Entity) -> ConnectorSettings:
    """Return settings with this row only."""
    rows = {f"{direction}_{entity.hull}_attributes": (row,)}
    return ConnectorSettings(user_claims=(), account_claims=(), **rows)


def _problem(before: Any, reason: str, detail: str) -> ConversionShape:
    meaning = SHORT.get(reason) or meaning_of(reason)
    return _conversion(PROBLEM, before=before, words=meaning if reason in SHORT else detail or meaning, reason=reason)


def _conversion(
    state: str,
    before: Any = None,
    after: Any = None,
    *,
    beside: Mapping[str, Any] | None = None,
    words: str = "",
    reason: str = "",
) -> ConversionShape:
    return ConversionShape(state=state, before=before, after=after, beside=beside, words=words, reason=reason)
