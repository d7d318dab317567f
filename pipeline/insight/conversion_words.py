"""What becomes of a field's value on its way, in words: one table for each direction. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.domain.fields import FieldCatalog, FieldSource, find_source, is_listed, is_writable
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import AttributeMapping
from pipeline.transform.hull_reports import attribute_name

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
"""Kind of field → how people call it; a kind that is not here goes by its own name."""

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
    "timerange": "when it begins, and when it ends as {attribute}_until",
    "moment": "the moment, in UTC",
    "address": "the address as one text",
    "boolean": "true or false",
    "negated": "true or false, the other way round",
    "int": "the number",
    "double": "the number",
    "emails": "the address marked as primary",
    "phones": "the number marked as primary",
    **dict.fromkeys(RECORDS, "the id"),
}
OUTGOING: Final[Mapping[str, str]] = {
    "enum": "a label or an id becomes the option; one that Pipedrive does not know is refused",
    "varchar_options": "a label or an id becomes the option",
    "set": "labels or ids become options; an empty list empties the field",
    "labels": "names become labels",
    "monetary": "the number becomes the amount, {attribute}_currency the currency, else the account's own",
    "date": "the day is taken from the date",
    "daterange": "the first day, and {attribute}_until as the last one",
    "time": "the time of day",
    "timerange": "the beginning, and {attribute}_until as the end",
    "address": "the text becomes the address; Pipedrive works out its parts",
    "boolean": "true or false",
    "int": "numbers, and texts that are numbers; anything else is refused",
    "double": "numbers, and texts that are numbers; anything else is refused",
    "emails": "becomes the primary address; the others stay",
    "phones": "becomes the primary number; the others stay",
    "visible_to": "1, 3, 5 or 7",
    **dict.fromkeys(RECORDS, "the id"),
}
TEXT: Final = {Direction.INCOMING: "the text as it is", Direction.OUTGOING: "the text; too long is refused, never cut"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWords:
    """The description of one AttributeMapping.

    field      the field's name in Pipedrive, its code if the name is not known
    type       kind of the field; empty if it does not exist
    hull_type  the matching kind of attribute
    does       how the value is converted
    mistake    why the row does nothing; empty if it works
    """

    field: str
    type: str
    hull_type: str
    does: str
    mistake: str = ""


def describe_row(row: AttributeMapping, direction: Direction, catalog: FieldCatalog) -> RowWords:
    """Return what a row does, as far as the field definitions are known."""
    source = find_source(row.service, catalog)
    name = field_name(row.service, catalog)
    if source is None or not is_listed(source, catalog):
        missing = f"Pipedrive has no {catalog.entity.value.capitalize()} field {row.service!r}"
        return RowWords(field=name, type="", hull_type="", does="", mistake=missing)
    mistake = ""
    if direction is Direction.OUTGOING and not is_writable(source, catalog.entity):
        mistake = f"Pipedrive sets {name} itself: it cannot be written"
    return RowWords(
        field=name,
        type=type_words(source),
        hull_type=_hull_type(source, row.form),
        does=_does(source, row, direction),
        mistake=mistake,
    )


def field_name(code: str, catalog: FieldCatalog) -> str:
    """The name people know a field by: of a part, that of the whole and the part."""
    source = find_source(code, catalog)
    found = catalog.find(code) or (catalog.find(source.key) if source else None)
    if found is None and source is not None:
        found = next((each for each in catalog.by_code.values() if _key_of(each.code, catalog) == source.key), None)
    if found is None:
        return code
    return f"{found.name}: {source.part}" if source and source.part else found.name


def type_words(source: FieldSource) -> str:
    """How people call the kind of a field."""
    return source.part or TYPES.get(source.type, source.type)


def row_words(row: AttributeMapping, direction: Direction, catalog: FieldCatalog) -> str:
    """One row in one line: `plan → Tier`, `pipedrive/tier ← Tier`."""
    arrow = "→" if direction is Direction.OUTGOING else "←"
    return f"{attribute_name(row.hull)} {arrow} {field_name(row.service, catalog)}"


def _key_of(code: str, catalog: FieldCatalog) -> str | None:
    source = find_source(code, catalog)
    return source.key if source else None


def _hull_type(source: FieldSource, form: str) -> str:
    if source.part is not None:
        return "date" if source.type == "daterange" else "string"
    if form == "list" and source.type in LISTED:
        return "list"
    return HULL_TYPES.get(source.type, "string")


def _does(source: FieldSource, row: AttributeMapping, direction: Direction) -> str:
    if source.part is not None:
        return f"the {source.part.replace('_', ' ')} of it alone"
    if row.form == "id" and source.type in LABELLED:
        return "the option's id" if source.type not in ("set", "labels") else "a list of option ids"
    if row.form == "list" and source.type in LISTED:
        return "the whole list" if direction is Direction.INCOMING else "replaces the whole list"
    table = INCOMING if direction is Direction.INCOMING else OUTGOING
    words = table.get(source.type, TEXT[direction]).format(attribute=attribute_name(row.hull))
    if source.type == "address" and row.parts:
        words += f", and {', '.join(f'{attribute_name(row.hull)}_{part}' for part in row.parts)} beside it"
    return words


def entity_of(setting: str) -> Entity:
    """Return the entity of a setting."""
    return Entity.ORGANIZATION if "account" in setting else Entity.PERSON


def direction_of(setting: str) -> Direction:
    return Direction.OUTGOING if setting.startswith("outgoing") else Direction.INCOMING
