"""Shows what a row of the settings does to the values of one real record. Pure, and by the very transforms that carry records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.fields import FieldCatalog, FieldSource, find_source
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.reasons import REASONS
from pipeline.domain.settings import AttributeMapping, ConnectorSettings
from pipeline.errors import Rejected, Skip
from pipeline.transform.hull_reports import ABSENT, ID_ATTRIBUTE, attribute_name, find_attribute
from pipeline.transform.incoming import compile_incoming
from pipeline.transform.outgoing import compile_outgoing

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """One row applied to one record.

    state   `changes`, `same` (both sides have it already), `nothing` (no value, left alone), `problem`
    before  the value at its source
    after   the value for the other side; an option by its label
    beside  attribute → value that is delivered with it, such as a currency
    words   a note; for a problem its reason as text
    reason  the reason code of a problem
    """

    state: str
    before: Any = None
    after: Any = None
    beside: Mapping[str, Any] | None = None
    words: str = ""
    reason: str = ""


def convert(
    row: AttributeMapping,
    direction: Direction,
    catalog: FieldCatalog,
    *,
    record: Mapping[str, Any] | None,
    report: Mapping[str, Any] | None,
) -> Conversion:
    """What the row does to a record of Pipedrive and the report of its counterpart in Hull, as far as either is known."""
    try:
        if direction is Direction.INCOMING:
            return _incoming(row, catalog, record)
        return _outgoing(row, catalog, record, report)
    except (Rejected, Skip) as refused:
        return _problem(None, refused.reason, refused.detail)


def _incoming(row: AttributeMapping, catalog: FieldCatalog, record: Mapping[str, Any] | None) -> Conversion:
    if record is None:
        return Conversion(state=NOTHING, words="this record has not been read from Pipedrive yet")
    before = value_in(record, find_source(row.service, catalog))
    transform = compile_incoming(catalog.entity, _alone(row, Direction.INCOMING, catalog.entity), catalog)
    read = transform.read(dict(record))
    for problem in (*transform.problems, *read.problems):
        return _problem(before, problem.reason, problem.detail)
    name = attribute_name(row.hull)
    if name not in read.attributes:
        return Conversion(state=NOTHING, before=before, words="empty: Hull keeps what it has")
    beside = {key: value for key, value in read.attributes.items() if key not in (name, ID_ATTRIBUTE)}
    after = read.attributes[name]
    if after is None:
        return Conversion(state=NOTHING, before=before, words="empty: cleared in Hull, if we filled it")
    return Conversion(state=CHANGES, before=readable(before), after=after, beside=beside or None)


def _outgoing(
    row: AttributeMapping,
    catalog: FieldCatalog,
    record: Mapping[str, Any] | None,
    report: Mapping[str, Any] | None,
) -> Conversion:
    if report is None:
        return Conversion(state=NOTHING, words="Hull has not reported this record yet")
    found = find_attribute(report, row.hull)
    before = None if found is ABSENT else found
    transform = compile_outgoing(catalog.entity, _alone(row, Direction.OUTGOING, catalog.entity), catalog)
    for problem in transform.problems:
        return _problem(before, problem.reason, problem.detail)
    write = transform.write(report, record if record is not None else {})
    for problem in write.problems:
        return _problem(before, problem.reason, problem.detail)
    source = find_source(row.service, catalog)
    written = value_in(write.fields, source, absent=ABSENT)
    held = readable(by_label(value_in(record or {}, source), source))
    if written is not ABSENT:
        words = "cleared in Pipedrive" if written in (None, []) else ""
        return Conversion(state=CHANGES, before=before, after=readable(by_label(written, source)), words=words)
    if before is None:
        words = "Hull has no value: cleared if Hull filled it before, else left alone"
        if row.on_null == "ignore" or held in (None, []):
            words = "Hull has no value: left alone"
        return Conversion(state=NOTHING, before=None, after=held, words=words)
    return Conversion(state=SAME, before=before, after=held, words="Pipedrive has it already")


def value_in(record: Mapping[str, Any], source: FieldSource | None, *, absent: Any = None) -> Any:
    """A field's value as the record has it."""
    if source is None:
        return absent
    custom = record.get("custom_fields")
    place = (custom if isinstance(custom, Mapping) else {}) if source.is_custom else record
    value = place.get(source.key, absent)
    return value.get(source.part, absent) if source.part and isinstance(value, Mapping) else value


def readable(value: Any) -> Any:
    """Lists of e-mails and phones as the addresses alone, amounts and ranges as their parts in a row."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "value" in each for each in value):
        return ", ".join(str(each["value"]) for each in value)
    if isinstance(value, dict) and "value" in value:
        return " ".join(str(each) for each in value.values() if each is not None)
    return value


def by_label(value: Any, source: FieldSource | None) -> Any:
    """Options by their labels, because people do not know their ids."""
    if source is None or not source.options:
        return value
    if isinstance(value, list):
        return [by_label(each, source) for each in value]
    return source.options.get(value, value) if isinstance(value, int | str) else value


def _alone(row: AttributeMapping, direction: Direction, entity: Entity) -> ConnectorSettings:
    """Settings in which there is nothing but this row."""
    rows = {f"{direction}_{entity.hull}_attributes": (row,)}
    return ConnectorSettings(user_claims=(), account_claims=(), **rows)


def _problem(before: Any, reason: str, detail: str) -> Conversion:
    meaning = SHORT.get(reason) or (REASONS[reason].meaning if reason in REASONS else reason)
    return Conversion(
        state=PROBLEM, before=before, words=meaning if reason in SHORT else detail or meaning, reason=reason
    )
