"""The values of `pipeline verify`: the three sides of one record, and the kinds of drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

CONFLICT = "conflict"
"""State of an id mapping if its record shares its User or Account with another one."""


class Drift(StrEnum):
    """How the three sides of a record differ."""

    MISSING = "missing"
    """In Pipedrive, not in Hull."""
    EXTRA = "extra"
    """In Hull or in the id map, not in Pipedrive, and not marked as deleted."""
    DIFFERENT = "different"
    """Hull has another value for a mapped attribute."""
    UNLINKED = "unlinked"
    """A User without an Account, or with the Account of another Organization."""
    UNMAPPED = "unmapped"
    """In Pipedrive and in Hull, but the id map does not join them."""
    UNMARKED = "unmarked"
    """Known as deleted, but Hull still shows its `pipedrive/id`."""
    MISMAPPED = "mismapped"
    """The id map names another Hull id than Hull does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HullRecord:
    """One User or Account, as Hull reports it.

    pipedrive_ids     every Pipedrive id in it, the attribute `pipedrive/id` first
    anonymous_ids     the Pipedrive ids in its anonymous ids
    attributes        its mapped attributes, as Hull returns them
    organization_ids  the Pipedrive ids in its Account; empty without an Account
    """

    hull_id: str
    pipedrive_ids: tuple[int, ...]
    anonymous_ids: frozenset[int]
    attributes: Mapping[str, Any] = field(repr=False)
    organization_ids: tuple[int, ...] = ()
    is_deleted: bool = False
    composed_name: str = field(default="", repr=False)
    """First and last name, from which Hull derives `name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedRecord:
    """One row of the id map.

    delivered  names of the attributes that were last delivered with a value
    is_fresh   whether it was written so recently that Hull's search may not show it yet
    """

    pipedrive_id: int
    hull_id: str | None
    state: str
    digest: str | None
    delivered: frozenset[str]
    is_fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One attribute with two values. Only operators see them: they are never logged, and are deleted a day after the comparison."""

    attribute: str
    pipedrive: Any = field(repr=False)
    hull: Any = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFinding:
    """One drifted record.

    hull_id      from Hull, else from the id map
    differences  for `different`
    detail       further ids and states
    is_ours      False for a record of Hull that only has a Pipedrive id: the pipeline must not write to it
    """

    kind: Drift
    pipedrive_id: int
    hull_id: str | None
    detail: str = ""
    differences: tuple[Difference, ...] = ()
    is_ours: bool = True
