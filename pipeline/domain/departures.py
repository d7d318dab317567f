"""Records that Pipedrive does not show any more, and what follows for their Users and Accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.kinds import Outcome

DELETED_AT: Final = "pipedrive/deleted_at"

LIVING: Final = ("shell", "full", "conflict")
"""States of an id mapping whose record Pipedrive is believed to have."""
DELETED, GONE, MERGED = "deleted", "gone", "merged"
DEPARTED: Final = (DELETED, GONE, MERGED)
"""It was told to be deleted, or a complete fetch did not list it; it was absent twice and nobody told; it became another one."""

RESTORABLE_DAYS: Final = 30
"""For so long Pipedrive can restore what was deleted; for so long a departed record holds its claims."""

MISSING: Final = "missing"
"""Cause of a change that doubts whether its record is still there: one answer without it settles that."""
DOUBTED: Final = "doubted"
"""The same after a fetch that listed nothing at all, as an answer that is wrongly empty makes it: two answers are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionNotice:
    """What a webhook says of a record that went.

    at_ms        when, in milliseconds since the epoch
    merged_into  the record it became, None for a mere deletion
    """

    at_ms: int
    merged_into: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """One record that was looked for and is not there.

    state        one of DEPARTED
    at_ms        since when, in milliseconds since the epoch
    merged_into  the record it became, for `merged`
    """

    pipedrive_id: int
    state: str
    at_ms: int
    merged_into: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Farewell:
    """What a departure means for the record's User or Account.

    outcome     how it is logged; None when all of it was known before
    reason      why, for the log
    attributes  what Hull is told of it; empty when it is told nothing
    joins       whether Hull is asked to join it with the one of `departure.merged_into`
    before      what Hull held of it, without nulls
    delivered   what Hull holds of it afterwards, without nulls; None when it holds nothing under this record any more
    """

    departure: Departure
    outcome: Outcome | None
    reason: str
    attributes: dict[str, Any] = field(default_factory=dict)
    joins: bool = False
    before: dict[str, Any]
    delivered: dict[str, Any] | None
