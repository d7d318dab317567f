"""The words of `pipeline verify`: what the three sides say of one record, and how they can disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

DEPARTED = frozenset({"deleted", "gone", "merged"})
"""States of an id mapping whose record Pipedrive no longer shows, and that is known."""

CONFLICT = "conflict"
"""State of an id mapping whose record shares its User or Account with another one."""


class Drift(StrEnum):
    """How a record is not what it should be."""

    MISSING = "missing"
    """In Pipedrive, not in Hull."""
    EXTRA = "extra"
    """In Hull or in the id map, not in Pipedrive, and not marked as departed."""
    DIFFERENT = "different"
    """Hull holds another value for a mapped attribute."""
    UNLINKED = "unlinked"
    """A User without an Account, or with that of another Organization."""
    UNMAPPED = "unmapped"
    """In Pipedrive and in Hull, but the id map does not join them."""
    UNMARKED = "unmarked"
    """Departed, and that is known, but Hull still shows its `pipedrive/id`."""
    MISMAPPED = "mismapped"
    """The id map names another Hull id than Hull does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HullRecord:
    """One User or Account, as Hull reports it.

    pipedrive_ids     every Pipedrive id it names, the attribute `pipedrive/id` first
    anonymous_ids     those of them that stand among its anonymous ids
    attributes        the mapped attributes it has, as Hull gives them
    organization_ids  the Pipedrive ids its Account names; empty without an Account
    """

    hull_id: str
    pipedrive_ids: tuple[int, ...]
    anonymous_ids: frozenset[int]
    attributes: Mapping[str, Any] = field(repr=False)
    organization_ids: tuple[int, ...] = ()
    is_deleted: bool = False
    composed_name: str = field(default="", repr=False)
    """First and last name, of which Hull makes `name` by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedRecord:
    """One row of the id map.

    delivered  names of the attributes that were last delivered with a value
    is_fresh   it was written so lately that Hull's search may not show it yet
    """

    pipedrive_id: int
    hull_id: str | None
    state: str
    digest: str | None
    delivered: frozenset[str]
    is_fresh: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One attribute with two values. They are for the operator's eyes: never logged, and stored for a day after the comparison."""

    attribute: str
    pipedrive: Any = field(repr=False)
    hull: Any = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFinding:
    """One record that is not what it should be, in one way.

    hull_id      as Hull has it, else as the id map has it
    differences  of a `different` one
    detail       ids and states that tell more
    is_ours      False for a record of Hull that only names a Pipedrive id: nothing of ours may be written to it
    """

    kind: Drift
    pipedrive_id: int
    hull_id: str | None
    detail: str = ""
    differences: tuple[Difference, ...] = ()
    is_ours: bool = True
