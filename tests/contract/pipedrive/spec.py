"""Judge answers by the vendor's OpenAPI files, with nulls tolerated: they mark hardly any member nullable."""

from __future__ import annotations

import re
from typing import Any

from openapi_schema_validator import OAS30Validator

from tests.data import openapi


def problems(version: int, method: str, path: str, status: int, body: Any) -> list[str]:
    """List how an answer differs from its schema."""
    answers = openapi(version)["paths"][path][method]["responses"]
    if str(status) not in answers:
        return [f"{status} is not an answer of {method} {path}"]
    schema = _tolerant(answers[str(status)]["content"]["application/json"]["schema"])
    # The v1 file declares a field's type twice, once with a list that lacks int, picture and others that it gives itself.
    narrow = "field_type" if version == 1 else ""
    found = [error for error in OAS30Validator(schema).iter_errors(body) if [*error.absolute_path][-1:] != [narrow]]
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]


def record_members(path: str) -> set[str]:
    """Name the members of one record, as GET `path`/{id} declares them."""
    schema = openapi(2)["paths"][f"{path}/{{id}}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    return set(schema["allOf"][1]["properties"]["data"]["properties"])


def parameters(path: str) -> set[str]:
    """Name the query parameters of GET `path`."""
    return {parameter["name"] for parameter in openapi(2)["paths"][path]["get"]["parameters"]}


def token_cost(version: int, method: str, path: str) -> int:
    """Return the cost of a call in the vendor's specification."""
    return int(openapi(version)["paths"][path][method]["x-token-cost"])


def scopes(version: int, rule: str) -> dict[str, set[str]]:
    """Return, by method, the scopes that allow a call of a route; nothing for a route that the vendor does not list."""
    path = re.sub(r"<[^>]+>", "{}", rule.rpartition(f"/v{version}")[2])
    known = openapi(version)["paths"]
    operations = next((known[each] for each in known if re.sub(r"{[^}]+}", "{}", each) == path), {})
    return {
        method.upper(): set(each["oauth2"])
        for method, operation in operations.items()
        for each in operation.get("security", ())
        if "oauth2" in each
    }


def _tolerant(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_tolerant(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    copied = {key: _tolerant(value) for key, value in schema.items()}
    if isinstance(copied.get("type"), str):
        copied["nullable"] = True
        if "enum" in copied:
            copied["enum"] = [*copied["enum"], None]
    return copied
