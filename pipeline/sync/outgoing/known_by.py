"""The identifiers of a Pipedrive record, besides those of the User or Account."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.errors import Rejected, Skip
from pipeline.sync.compiled import Plan

Pair = tuple[str, str]
"""(claim, value)"""


def claims_in(record: dict[str, Any], plan: Plan) -> list[Pair]:
    """Return the identifiers by which the record is looked up: its claims and aliases; nothing if it cannot be read."""
    try:
        read = plan.incoming.read(record)
    except (Rejected, Skip):
        return []
    return [*read.claims.items(), *read.aliases]


def agrees(record: dict[str, Any], claims: Iterable[Pair], plan: Plan) -> bool:
    """Whether Hull would find a User or Account with these claims by those under which the record is brought there."""
    try:
        read = plan.incoming.read(record)
    except (Rejected, Skip):
        return True  # it is not brought to Hull at all
    return set(read.claims.items()) <= set(claims)
