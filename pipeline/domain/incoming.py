"""The result of the incoming transform for one Person or Organization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """One rejected field; the record's other fields are sent."""

    field: str
    reason: str
    detail: str


UNIDENTIFYING: Final = frozenset({"shared_domain"})
"""Reasons of a problem without a lost value: it was sent, but does not identify the record."""


@dataclass(slots=True, kw_only=True)
class IncomingRecord:
    """A Pipedrive record as Hull's attributes. Treat as immutable; it is not frozen because creating it would take
    twice as long, and every record of every page is created.

    pipedrive_id     the record's id
    version          `update_time` in seconds since the epoch: whole seconds, as in Pipedrive
    claims           claim → normalised value, without the anonymous id, in the order of the settings
    attributes       attribute → value; None means the field is empty in Pipedrive
    organization_id  for a Person: the Organization it belongs to, else None
    digest           32 hex digits over claims, attributes, link and mapping: equal digests mean equal content
    problems         rejected fields, with their reason codes
    aliases          (claim, value) of further look-ups: the secondary e-mails
    """

    pipedrive_id: int
    version: int
    claims: dict[str, str]
    attributes: dict[str, Any]
    organization_id: int | None
    digest: str
    problems: tuple[FieldProblem, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
