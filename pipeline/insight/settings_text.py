"""The settings as text that people read and edit: every default filled in, a row to a line."""

from __future__ import annotations

import json
from typing import Any

from pipeline.domain.settings import read_settings
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
