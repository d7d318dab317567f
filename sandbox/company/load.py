"""Load real records and real field definitions into a company, from files.

Records are JSON lines of v2 Persons or Organizations, or of {name, domains, web_pages, country, alpha_two_code,
state_province}; field definitions are a recorded answer of GET /v1/personFields.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson

from sandbox.company import fields, values
from sandbox.company.company import Company
from sandbox.company.fields import Entity
from sandbox.company.model import Record


def load_jsonl(company: Company, path: str | Path) -> int:
    """Add every line of a file as a record; return how many. Blank lines are ignored.

    Raises: ValueError naming the line that is neither shape.
    """
    loaded = 0
    with Path(path).open("rb") as lines, company.lock:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entity, record = _read(company, orjson.loads(line))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            company.load(entity, record)
            loaded += 1
    return loaded


def load_fields(company: Company, path: str | Path, entity: Entity = "person") -> None:
    """Use field definitions as recorded from GET /v1/personFields; the v1 endpoints then return them unchanged.

    Call it before anything is edited: records are generated again with these definitions.
    """
    rows = json.loads(Path(path).read_text())["data"]
    company.replace_fields(entity, fields.from_v1(rows, entity))


def _read(company: Company, line: dict[str, Any]) -> tuple[Entity, Record]:
    if "web_pages" in line or "alpha_two_code" in line:
        return "organization", _listed_organization(company, line)
    if not isinstance(line.get("name"), str):
        raise TypeError("a record needs a name")
    person = "emails" in line or "first_name" in line or "org_id" in line
    return ("person" if person else "organization"), line


def _listed_organization(company: Company, line: dict[str, Any]) -> Record:
    """Read a line of the public list: the first web page → `website`, all domains → the custom field Domains."""
    codes = {field.name: field.code for field in company.custom_fields("organization")}
    custom = {"Domains": ", ".join(line.get("domains") or ()) or None, "Country code": line.get("alpha_two_code")}
    record: Record = {
        "name": line["name"],
        "address": _place(line.get("country"), line.get("state_province")),
        "custom_fields": {codes[name]: value for name, value in custom.items() if name in codes},
    }
    pages = line.get("web_pages") or []
    if company.firmographics and pages:
        record["website"] = pages[0]
    return record


def _place(country: str | None, region: str | None) -> Record | None:
    named = [part for part in (region, country) if part]
    return values.address(", ".join(named), country=country, admin_area_level_1=region) if named else None
