"""The part of Hull's search language connectors use, over the records in memory.

Clauses: bool (filter, must, should, must_not), term, terms, range, exists, match_all. A field may end in `.exact` or
`.raw`; a User's may begin with `account.`. Identifiers and attributes are found through indexes; the rest is a
walk. Source: https://github.com/hull/hull-connectors (packages/hull/src/utils/get-entity)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import ge, gt, le, lt
from typing import Any

from sandbox.hull.attributes import comparable, is_number
from sandbox.hull.identity import NATURAL_CLAIM, Directory, HullRecord, natural_claim
from sandbox.hull.reports import report_of
from sandbox.hull.state import HullState

_MAX_PER_PAGE = 50

#: ids the clause selects, or None for "all of them"
_Selected = set[str] | None


class QueryRefused(ValueError):
    """The query has something that this search does not know."""


def search_page(state: HullState, directory: Directory, request: dict[str, Any]) -> dict[str, Any]:
    """{"query", "page", "per_page"} → {"pagination", "data"}, in order of id. Raises QueryRefused."""
    page, per_page = _whole(request, "page", 1), min(_whole(request, "per_page", 10), _MAX_PER_PAGE)
    selected = _select(state, directory, request.get("query") or {"match_all": {}})
    first = (page - 1) * per_page
    if selected is None:
        total = len(directory)
        found = _slice(iter(directory), first, per_page)
    else:
        total = len(selected)
        found = [directory.by_id[hull_id] for hull_id in sorted(selected)[first : first + per_page]]
    pagination = {"total": total, "page": page, "pages": -(-total // per_page), "per_page": per_page}
    return {"pagination": pagination, "data": [report_of(state, entity) for entity in found]}


def _select(state: HullState, directory: Directory, query: Any) -> _Selected:
    if not isinstance(query, dict) or len(query) != 1:
        raise QueryRefused(f"a clause is an object with one key: {query!r}")
    ((name, content),) = query.items()
    clause = _CLAUSES.get(name)
    if clause is None:
        raise QueryRefused(f"unknown clause {name!r}; known: {', '.join(_CLAUSES)}")
    return clause(state, directory, content)


def _whole(request: dict[str, Any], name: str, default: int) -> int:
    value = request.get(name, default)
    if not isinstance(value, int) or value < 1:
        raise QueryRefused(f"{name} is a whole number from 1")
    return value


def _slice(entities: Iterator[HullRecord], first: int, count: int) -> list[HullRecord]:
    for _ in zip(range(first), entities, strict=False):
        pass
    return [entity for _, entity in zip(range(count), entities, strict=False)]


def _bool(state: HullState, directory: Directory, content: Any) -> _Selected:
    if not isinstance(content, dict) or not content.keys() <= {
        "filter",
        "must",
        "should",
        "must_not",
        "minimum_should_match",
    }:
        raise QueryRefused(f"unknown content of bool: {content!r}")
    selected: _Selected = None
    for clause in [*_clauses(content, "filter"), *_clauses(content, "must")]:
        selected = _both(selected, _select(state, directory, clause))
    should = _clauses(content, "should")
    if should:
        selected = _both(selected, _any(_select(state, directory, clause) for clause in should))
    for clause in _clauses(content, "must_not"):
        refused = _select(state, directory, clause)
        remaining = directory.by_id.keys() if selected is None else selected
        selected = set() if refused is None else set(remaining) - refused
    return selected


def _clauses(content: dict[str, Any], name: str) -> list[Any]:
    clauses = content.get(name, [])
    return clauses if isinstance(clauses, list) else [clauses]


def _both(one: _Selected, other: _Selected) -> _Selected:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _any(parts: Iterable[_Selected]) -> _Selected:
    union: set[str] = set()
    for part in parts:
        if part is None:
            return None
        union |= part
    return union


def _term(state: HullState, directory: Directory, content: Any) -> _Selected:
    field, value = _field_and(content)
    return _holding(state, directory, field, value["value"] if isinstance(value, dict) and "value" in value else value)


def _terms(state: HullState, directory: Directory, content: Any) -> _Selected:
    field, values = _field_and(content)
    if not isinstance(values, list):
        raise QueryRefused("terms takes a list of values")
    return _any(_holding(state, directory, field, value) for value in values)


def _exists(state: HullState, directory: Directory, content: Any) -> _Selected:
    field = content.get("field") if isinstance(content, dict) else None
    if not isinstance(field, str):
        raise QueryRefused('exists takes {"field": name}')
    return {entity.id for entity in directory if _values(state, entity, _bare(field))}


def _range(state: HullState, directory: Directory, content: Any) -> _Selected:
    """{field: {gte, gt, lte, lt}} over numbers. Elasticsearch has it; that Hull's search passes it on is not documented."""
    field, bounds = _field_and(content)
    if not isinstance(bounds, dict) or not bounds or not bounds.keys() <= _COMPARE.keys():
        raise QueryRefused("range takes {field: {gte, gt, lte, lt}}")
    if not all(is_number(bound) for bound in bounds.values()):
        raise QueryRefused("range compares numbers")
    return {
        hull_id
        for number, holders in state.lookups[directory.kind].numbers(field)
        if all(_COMPARE[name](number, bound) for name, bound in bounds.items())
        for hull_id in holders
    }


def _match_all(_state: HullState, _directory: Directory, _content: Any) -> _Selected:
    return None


def _field_and(content: Any) -> tuple[str, Any]:
    if not isinstance(content, dict) or len(content) != 1:
        raise QueryRefused(f"a term is {{field: value}}: {content!r}")
    ((field, value),) = content.items()
    return _bare(field), value


def _bare(field: str) -> str:
    name = field.removesuffix(".exact").removesuffix(".raw").removeprefix("traits_")
    return {"contact_email": "email", "anonymous_id": "anonymous_ids"}.get(name, name)


def _holding(state: HullState, directory: Directory, field: str, value: Any) -> set[str]:
    text = comparable(value)
    if field in ("id", "external_id", "anonymous_ids"):
        index = {"id": directory.by_id, "external_id": directory.by_external, "anonymous_ids": directory.by_anonymous}[
            field
        ]
        return {index[text].id} if text in index else set()
    if field == NATURAL_CLAIM[directory.kind]:
        normalised = natural_claim(directory.kind, text, [])
        return {entity.id for entity in directory.holders(normalised)} if normalised else set()
    if field.startswith("account.") and directory.kind == "user":
        accounts = _holding(state, state.accounts, field.removeprefix("account."), value)
        return set().union(*(state.members.get(account_id, set()) for account_id in accounts))
    if field in ("domain", "segment_ids", "created_at", "updated_at", "indexed_at"):
        return {entity.id for entity in directory if text in map(comparable, _values(state, entity, field))}
    return state.lookups[directory.kind].holders(field, value)


def _values(state: HullState, entity: HullRecord, field: str) -> list[Any]:
    """What the report shows under a field, as a list; nothing for null."""
    report = report_of(state, entity)
    value = report.get(field, report.get(f"traits_{field}"))
    if field.startswith("account."):
        value = report.get("account", {}).get(field.removeprefix("account."))
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


_COMPARE: dict[str, Callable[[float, float], bool]] = {"gte": ge, "gt": gt, "lte": le, "lt": lt}
_CLAUSES: dict[str, Callable[[HullState, Directory, Any], _Selected]] = {
    "bool": _bool,
    "term": _term,
    "terms": _terms,
    "range": _range,
    "exists": _exists,
    "match_all": _match_all,
}
