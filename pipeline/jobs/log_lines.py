"""A sync event as a line of a file: CSV that no spreadsheet takes for formulas, or one JSON object."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from db.sync_event import SyncEvent

CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
COLUMNS: Final = (
    "id", "at", "event", "entity", "pipedrive_id", "hull_id", "reason", "field", "detail", "cause", "run_id", "batch_id",
    "settings_version", "delivery_id", "exchange", "before", "after",
)  # fmt: skip
FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet calculate instead of show; those for East Asia take the wide characters for the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """ending  of a file's name; head  its first line"""

    ending: str
    head: str
    line: Callable[[SyncEvent], str]


def facts(row: SyncEvent) -> dict[str, Any]:
    """An event as it is shown outside: column → value, JSON as text."""
    values = {name: getattr(row, name) for name in COLUMNS}
    values["at"] = row.at.astimezone(UTC).isoformat()
    for name in ("before", "after"):
        body = values[name]
        values[name] = bytes(body).decode("utf-8", "replace") if body is not None else None
    return values


def _csv_line(row: SyncEvent) -> str:
    return _joined([_safe(value) for value in facts(row).values()])


def _json_line(row: SyncEvent) -> str:
    whole = {
        name: _parsed(value) if name in ("exchange", "before", "after") else value for name, value in facts(row).items()
    }
    return json.dumps(whole, ensure_ascii=False) + "\n"


def _joined(cells: Any) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerow(cells)
    return written.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULAS):
        return f"'{value}"
    return "" if value is None else value


def _parsed(value: str | None) -> Any:
    if value is None:
        return None
    try:
        return json.loads(value)
    except ValueError:
        return value


FORMS: Final[Mapping[str, Form]] = {
    CSV: Form(ending="csv", head=_joined(COLUMNS), line=_csv_line),
    NDJSON: Form(ending="jsonl", head="", line=_json_line),
}
"""Content type → how a file of it is written."""
