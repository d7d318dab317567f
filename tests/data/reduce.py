"""Reduce public files to what the tests read, and write the results beside this module.

`python -m tests.data.reduce openapi-v1.yaml openapi-v2.yaml world_universities_and_domains.json`
README.md names the sources.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import yaml

from pipeline.transform.identifiers import registrable_domain
from sandbox.company import Company
from sandbox.pipedrive.app import create_app
from tests.data import FOLDER, ORGANIZATIONS

NOT_NEEDED = {"description", "title", "example", "examples", "default"}
TOTAL = 1500
NOT_ASCII = 399
"""Number of Organizations with a name that is not ASCII, beside the special ones."""


def main(v1: str, v2: str, organizations: str) -> None:
    """Write the reduced files."""
    for version, path in ((1, v1), (2, v2)):
        document = yaml.load(Path(path).read_text(encoding="utf-8"), yaml.CSafeLoader)
        _write_operations(FOLDER / f"pipedrive-v{version}.json", served(document, version))
    rows = [organization(row) for row in json.loads(Path(organizations).read_text(encoding="utf-8"))]
    lines = [json.dumps(row, ensure_ascii=False) for row in selected(rows)]
    ORGANIZATIONS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def served(document: dict[str, Any], version: int) -> dict[str, dict[str, Any]]:
    """Return the described operations that the sandbox serves, by path and method."""
    methods: dict[str, set[str]] = defaultdict(set)
    for rule in create_app(Company(persons=0, organizations=0)).url_map.iter_rules():
        methods[_shape(rule.rule.rpartition(f"/v{version}")[2])] |= {method.lower() for method in rule.methods or ()}
    found = {
        path: {method: reduced(each) for method, each in operations.items() if method in methods[_shape(path)]}
        for path, operations in document["paths"].items()
    }
    return {path: operations for path, operations in found.items() if operations}


def reduced(operation: dict[str, Any]) -> dict[str, Any]:
    """Return cost, scopes, parameter names and the schemas of the JSON answers of an operation."""
    return {
        "x-token-cost": operation.get("x-token-cost"),
        "security": [each for each in operation.get("security", ()) if "oauth2" in each],
        "parameters": [{"name": each["name"], "in": each["in"]} for each in operation.get("parameters", ())],
        "responses": {
            status: {
                "content": {"application/json": {"schema": schema(answer["content"]["application/json"]["schema"])}}
            }
            for status, answer in operation["responses"].items()
            if "application/json" in answer.get("content", {})
        },
    }


def schema(node: Any, *, names: bool = False) -> Any:
    """Return a schema without its prose and examples; `names` is true for a mapping of member names."""
    if isinstance(node, list):
        return [schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: schema(value, names=key == "properties" and not names)
        for key, value in node.items()
        if names or not (key in NOT_NEEDED or key.startswith("x-"))
    }


def organization(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the public list with names that fit Python."""
    return {
        "name": row["name"],
        "domains": row["domains"],
        "web_pages": row["web_pages"],
        "country": row["country"],
        "alpha_two_code": row["alpha_two_code"],
        "state_province": row["state-province"],
    }


def selected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select `TOTAL` rows in their order: all special ones, `NOT_ASCII` other names that are not ASCII, and others.

    Special: several domains or web pages, a name or a registrable domain that occurs more than once, no such domain.
    """
    names = Counter(row["name"] for row in rows)
    domains = Counter(registrable_domain(row["web_pages"][0]) for row in rows)

    def special(row: dict[str, Any]) -> bool:
        domain = registrable_domain(row["web_pages"][0])
        several = len(row["domains"]) > 1 or len(row["web_pages"]) > 1
        return several or domain is None or domains[domain] > 1 or names[row["name"]] > 1

    chosen = {number for number, row in enumerate(rows) if special(row)}
    rest = [number for number in range(len(rows)) if number not in chosen]
    chosen |= _spread([number for number in rest if not rows[number]["name"].isascii()], NOT_ASCII)
    chosen |= _spread([number for number in rest if rows[number]["name"].isascii()], TOTAL - len(chosen))
    return [rows[number] for number in sorted(chosen)]


def _shape(path: str) -> str:
    """Return a path without the names of its parameters."""
    return re.sub(r"<[^>]+>|{[^}]+}", "{}", path)


def _spread(numbers: list[int], count: int) -> set[int]:
    """Take `count` numbers at even distances."""
    return {numbers[index * len(numbers) // count] for index in range(count)}


def _write_operations(path: Path, paths: dict[str, dict[str, Any]]) -> None:
    """Write one operation per line, so that a change of the vendor's is a short diff."""
    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(
            f"{json.dumps(method)}: {json.dumps(each, ensure_ascii=False)}" for method, each in methods.items()
        )
        + "\n}"
        for name, methods in sorted(paths.items())
    ]
    path.write_text('{"paths": {\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
