"""Data that tests read: Pipedrive's API description, recorded field definitions, real organizations. See README.md."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ORGANIZATIONS = FOLDER / "organizations.jsonl"
PERSON_FIELDS = FOLDER / "person_fields.json"


@cache
def openapi(version: int) -> dict[str, Any]:
    """Return Pipedrive's reduced OpenAPI document of an API version (1 or 2)."""
    document: dict[str, Any] = json.loads((FOLDER / f"pipedrive-v{version}.json").read_text(encoding="utf-8"))
    return document
