"""Records that Pipedrive no longer has, and what follows for their Users and Accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.kinds import Outcome

DELETED_AT: Final = "pipedrive/deleted_at"

LIVE_STATES: Final = ("shell", "full", "conflict")
"""States of an id mapping if its record exists in Pipedrive, as far as known."""
DELETED, GONE, MERGED = "deleted", "gone", "merged"
DELETED_STATES: Final = (DELETED, GONE, MERGED)
"""Deleted by a notice, or missing in a complete fetch; absent twice without a notice; merged into another record."""

RESTORABLE_DAYS: Final = 30
"""How long Pipedrive can restore a deleted record, and how long that record holds its claims."""

MISSING: Final = "missing"
"""Cause of a change for a record that may be deleted: one answer without it confirms that."""
DOUBTED: Final = "doubted"
"""The same after a fetch that listed no record at all, which may be an error of Pipedrive: two answers are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionNotice:
    """The deletion notice in a webhook.

    at_ms        when, in milliseconds since the epoch
    merged_into  the survivor of a merge; None for a deletion
    """

    at_ms: int
    merged_into: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """One requested record that does not exist.

    state        one of DELETED_STATES
    at_ms        since when, in milliseconds since the epoch
    merged_into  the survivor of a merge
    """

    pipedrive_id: int
    state: str
    at_ms: int
    merged_into: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionEffect:
    """What a deletion means for the record's User or Account.

    outcome     how it is logged; None if everything was known before
    reason      the reason in the log
    attributes  what is sent to Hull; empty for nothing
    joins       whether Hull is requested to merge it with the survivor's User or Account
    before      Hull's values before, without nulls
    delivered   Hull's values afterwards, without nulls; None if Hull has none under this record
    """

    deletion: Deletion
    outcome: Outcome | None
    reason: str
    attributes: dict[str, Any] = field(default_factory=dict)
    joins: bool = False
    before: dict[str, Any]
    delivered: dict[str, Any] | None
