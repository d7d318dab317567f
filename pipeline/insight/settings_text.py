"""The settings as text that people read and edit: every default filled in, a row to a line."""

from __future__ import annotations

import json
from difflib import unified_diff
from typing import Any

from pipeline.domain.settings import SettingsRefused, read_settings
from pipeline.insight.settings_editing import short_row


def effective(document: dict[str, Any]) -> dict[str, Any]:
    """The document with every default filled in; rows without what is default."""
    whole = read_settings(document).model_dump(mode="json")
    short = read_settings(document).model_dump(mode="json", exclude_defaults=True)
    return {
        name: [short_row(row) if isinstance(row, dict) else row for row in value]
        if name in short and isinstance(value, list)
        else value
        for name, value in whole.items()
    }


def pretty(document: Any) -> str:
    """JSON with a mapping row to a line."""
    lines = []
    for name, value in document.items():
        if isinstance(value, list) and value:
            rows_ = ",\n".join(f"    {json.dumps(each, ensure_ascii=False)}" for each in value)
            lines.append(f"  {json.dumps(name)}: [\n{rows_}\n  ]")
        else:
            lines.append(f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def unified(before: dict[str, Any], after: dict[str, Any], *, old_name: str, new_name: str) -> str:
    """Return a unified diff of two documents; empty where nothing differs."""
    old, new = pretty(_effective_or_raw(before)), pretty(_effective_or_raw(after))
    return "\n".join(unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, n=1, lineterm=""))


def changed_names(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of the settings that differ, in alphabetical order."""
    old, new = _effective_or_raw(before), _effective_or_raw(after)
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def _effective_or_raw(document: dict[str, Any]) -> dict[str, Any]:
    """An old version may hold what this program no longer reads."""
    try:
        return effective(document)
    except SettingsRefused:
        return document
