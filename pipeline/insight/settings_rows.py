"""The rows of a mapping as a person edits them: half written ones too, each with what it does to one real record. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from pipeline.domain.fields import FieldCatalog, find_source
from pipeline.domain.kinds import Direction
from pipeline.domain.settings import AttributeMapping
from pipeline.insight.conversion_words import RowWords, describe_row, direction_of
from pipeline.insight.conversions import Conversion, convert
from pipeline.insight.samples import Sample
from pipeline.insight.settings_editing import Mistake
from pipeline.transform.hull_reports import attribute_name

Row = Mapping[str, Any]

USUAL_ATTRIBUTES = ("email", "name", "first_name", "last_name", "phone", "domain", "external_id", "created_at")
MOST_ATTRIBUTES = 500
OPPOSITE: Final = {
    "incoming_user_attributes": "outgoing_user_attributes",
    "incoming_account_attributes": "outgoing_account_attributes",
    "outgoing_user_attributes": "incoming_user_attributes",
    "outgoing_account_attributes": "incoming_account_attributes",
}
"""Mapping → the one that goes the other way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowView:
    """One row: as typed, as text, applied to a record, and its mistakes.

    words       None while it is incomplete
    conversion  None without a record
    has_parts   an address, with parts to choose from
    is_shared   the field is mapped in the other direction too, so it needs an owner
    """

    position: int
    row: Row
    words: RowWords | None
    conversion: Conversion | None
    mistakes: tuple[str, ...]
    has_parts: bool
    is_shared: bool


def view_rows(
    setting: str,
    rows: Sequence[Row],
    catalog: FieldCatalog,
    *,
    sample: Sample | None,
    others: Sequence[Row] = (),
    mistakes: Sequence[Mistake] = (),
) -> list[RowView]:
    """Every row of one setting; `others` are those of the other direction."""
    other_keys = {_key(str(row.get("service", "")), catalog) for row in others} - {None}
    return [_view(setting, position, row, catalog, sample, other_keys, mistakes) for position, row in enumerate(rows)]


def attributes_seen(sample: Sample | None, *mapped: Sequence[Row]) -> list[str]:
    """Names of attributes to choose from: those of the record that is shown, those that are mapped, and Hull's own."""
    reported = [attribute_name(name) for name in (sample.report or {}) if name != "account"] if sample else []
    account = sample.report.get("account") if sample and sample.report else None
    below = [f"account.{attribute_name(name)}" for name in account] if isinstance(account, dict) else []
    named = [attribute_name(str(row.get("hull", ""))) for rows in mapped for row in rows]
    names = dict.fromkeys([*USUAL_ATTRIBUTES, *sorted(reported), *sorted(below), *named])
    return [name for name in names if name][:MOST_ATTRIBUTES]


def _view(
    setting: str,
    position: int,
    row: Row,
    catalog: FieldCatalog,
    sample: Sample | None,
    other_keys: set[str | None],
    mistakes: Sequence[Mistake],
) -> RowView:
    direction = direction_of(setting)
    said = tuple(each.words for each in mistakes if (each.setting, each.position) == (setting, position))
    source = find_source(str(row.get("service", "")), catalog)
    whole = _whole(row)
    words = describe_row(whole, direction, catalog) if whole else None
    if words and words.mistake and not said:
        said = (words.mistake,)
    return RowView(
        position=position,
        row=row,
        words=words,
        conversion=_on(sample, whole, direction, catalog) if whole and words and not words.mistake else None,
        mistakes=said,
        has_parts=source is not None and source.type == "address" and source.part is None,
        is_shared=source is not None and source.key in other_keys,
    )


def _on(sample: Sample | None, row: AttributeMapping, direction: Direction, catalog: FieldCatalog) -> Conversion | None:
    return convert(row, direction, catalog, record=sample.record, report=sample.report) if sample else None


def _whole(row: Row) -> AttributeMapping | None:
    try:
        return AttributeMapping.model_validate(dict(row))
    except ValidationError:
        return None


def _key(code: str, catalog: FieldCatalog) -> str | None:
    source = find_source(code, catalog)
    return source.key if source else None
