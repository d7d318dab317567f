"""Gathers the rows of the settings that lead to one field, and finds the value the field is to have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.settings import AttributeMapping
from pipeline.transform.field_definitions import FieldSource
from pipeline.transform.hull_reports import ABSENT, find_attribute
from pipeline.transform.values import INCOMING
from pipeline.transform.writing.composed import (
    Parts,
    write_address,
    write_clock_time,
    write_day_range,
    write_members,
    write_money,
    write_time_range,
)
from pipeline.transform.writing.simple import write_option, write_options, write_plain, write_simple


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One field that is written.

    attribute     path of the attribute that holds its value; None when only parts of it are mapped
    parts         part → path of the attribute that holds it
    clears        whether an empty attribute empties the field
    clears_parts  parts that an empty attribute empties
    """

    source: FieldSource
    attribute: str | None
    parts: Mapping[str, str]
    clears: bool
    clears_parts: frozenset[str]
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetValue:
    """The value to write to a field.

    is_present  Hull has a value
    parts       parts with a value in Hull
    """

    value: Any
    is_present: bool
    parts: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Draft:
    source: FieldSource
    row: AttributeMapping | None = None
    parts: dict[str, AttributeMapping] = field(default_factory=dict)


def compile_targets(rows: tuple[AttributeMapping, ...], sources: Mapping[str, FieldSource]) -> tuple[Target, ...]:
    """Gather the rows by field, in the order in which the settings first name each field."""
    drafts: dict[tuple[bool, str], _Draft] = {}
    for row in rows:
        source = sources.get(row.service)
        if source is None:
            continue
        draft = drafts.setdefault((source.is_custom, source.key), _Draft(source))
        if source.part is not None:
            draft.parts[source.part] = row
        else:
            draft.source, draft.row = source, row
    return tuple(_target(draft) for draft in drafts.values())


def wanted_value(
    target: Target, report: Mapping[str, Any], current: Any, delivered: Collection[str] = ()
) -> TargetValue:
    """Find what a field is to hold.

    delivered  what `part_code` names of the parts that an earlier write filled: only these are emptied
    Raises: Rejected when the attribute holds what the field cannot.
    """
    value = ABSENT if target.attribute is None else find_attribute(report, target.attribute)
    parts, held = _parts_of(target, report, delivered)
    if target.attribute is None and held:
        # Only parts are mapped: they are written around the value that is there.
        value = current.get("value") if type(current) is dict else current
        value = None if value is None and target.source.type == "address" else value
        if value is not None or target.source.type == "address":
            written = write_value(target.source, value, parts, current, form=target.form)
            return TargetValue(value=written, is_present=True, parts=held)
    if is_blank(value):
        return TargetValue(value=_emptied(target.source), is_present=False, parts=held)
    written = write_value(target.source, value, parts, current, form=target.form)
    return TargetValue(value=written, is_present=True, parts=held)


def part_code(target: Target, part: str) -> str:
    """Name a part among the codes of fields that a write delivered; no field has a code like it."""
    return f"{target.source.key}/{part}"


def _parts_of(
    target: Target, report: Mapping[str, Any], delivered: Collection[str]
) -> tuple[dict[str, Any], frozenset[str]]:
    """(part → value, None for one to be emptied; the parts that hold one).

    An address takes its parts one by one, so an empty one would wipe what Pipedrive holds: only what was filled from
    Hull before is emptied. The other kinds need their parts, and an empty one is theirs to refuse or to replace.
    """
    parts: dict[str, Any] = {}
    for part, path in target.parts.items():
        one = find_attribute(report, path)
        if not is_blank(one):
            parts[part] = one
        elif target.source.type == "address":
            if part in target.clears_parts and part_code(target, part) in delivered:
                parts[part] = None
        elif one is not ABSENT:
            parts[part] = None
    return parts, frozenset(part for part, one in parts.items() if one is not None)


def digest_said(target: Target, report: Mapping[str, Any]) -> str:
    """Hash Hull's values of a field, value and parts, as reported."""
    paths = [target.attribute, *(path for _, path in sorted(target.parts.items()))]
    found = [None if path is None else find_attribute(report, path) for path in paths]
    return _digest([None if value is ABSENT else value for value in found])


def digest_value(value: Any) -> str:
    """Hash a value as `digest_said` hashes a report with it, for a field without parts."""
    return _digest([value])


def _digest(values: list[Any]) -> str:
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def is_blank(value: Any) -> bool:
    """Return whether an attribute has no value: missing, None, an empty list, or only spaces."""
    return value is ABSENT or value is None or value == [] or (isinstance(value, str) and not value.strip())


def _target(draft: _Draft) -> Target:
    row = draft.row
    beside: dict[str, str] = {}
    if row is not None:
        # The names under which the incoming mapping delivers the parts of the same value.
        named = row.parts if draft.source.type == "address" else draft.source.parts
        beside = {part: f"{row.hull}_{part}" for part in named if part in draft.source.parts}
    rows = {**({} if row is None else dict.fromkeys(beside, row)), **draft.parts}
    return Target(
        source=draft.source,
        attribute=None if row is None else row.hull,
        parts={**beside, **{part: each.hull for part, each in draft.parts.items()}},
        clears=row is not None and row.on_null == "clear",
        clears_parts=frozenset(part for part, each in rows.items() if each.on_null == "clear"),
        form="default" if row is None else row.form,
    )


def write_value(source: FieldSource, value: Any, parts: Parts, current: Any, *, form: str) -> Any:
    """Write one value in the way of its field's kind."""
    if source.type == "monetary":
        return write_money(value, parts, current, source.default_currency)
    if source.type in _COMPOSED:
        return _COMPOSED[source.type](value, parts, current)
    if source.type in ("emails", "phones"):
        return write_members(value, current, whole=form == "list")
    is_known = source.type in INCOMING
    if source.type in ("enum", "set", "labels") or (source.options and not is_known):
        # For an unknown type, the values show whether it takes one option or several.
        is_list = source.type in ("set", "labels") or (not is_known and list in (type(value), type(current)))
        write = write_options if is_list and source.type != "enum" else write_option
        return write(source.options, value, current, by_id=form == "id")
    return write_simple(source, value) if is_known else write_plain(value)


def _emptied(source: FieldSource) -> Any:
    """Give what empties a field: null, or an empty list where the field is a list. A set refuses `[]`.

    E-mails and phones go as a whole: taking the primary one alone would take another with every repetition.
    """
    return [] if source.type in ("labels", "emails", "phones") else None


_COMPOSED: Final[Mapping[str, Callable[[Any, Parts, Any], Any]]] = {
    "daterange": write_day_range,
    "timerange": write_time_range,
    "time": write_clock_time,
    "address": write_address,
}
