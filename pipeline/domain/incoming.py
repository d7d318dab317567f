"""What one Person or Organization says to Hull: the result of the incoming transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """One field that could not be carried over; the record's other fields still go."""

    field: str
    reason: str
    detail: str


UNIDENTIFYING: Final = frozenset({"shared_domain"})
"""Reasons of a problem that costs no value: it was carried over, and only does not serve to identify the record."""


@dataclass(slots=True, kw_only=True)
class IncomingRecord:
    """A Pipedrive record in Hull's words. Nobody changes one; it is not frozen because making it would take twice as long,
    and every record of every page is made.

    pipedrive_id     the record's id
    version          `update_time` in seconds since the epoch: whole seconds, as Pipedrive gives it
    claims           claim → normalised value, without the anonymous id, in the order of the settings
    attributes       attribute → value; None means the field is empty in Pipedrive
    organization_id  for a Person: the Organization it belongs to, else None
    digest           32 hex digits over claims, attributes, link and mapping: equal digests mean equal content
    problems         fields that were left out, with their reason codes
    known_as         (claim, value) by which it may be looked up besides: the e-mails that are not primary
    """

    pipedrive_id: int
    version: int
    claims: dict[str, str]
    attributes: dict[str, Any]
    organization_id: int | None
    digest: str
    problems: tuple[FieldProblem, ...] = ()
    known_as: tuple[tuple[str, str], ...] = ()
