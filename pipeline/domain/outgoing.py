"""What one User or Account says to Pipedrive: the result of the outgoing transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.domain.incoming import FieldProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingWrite:
    """A write in the shapes of API v2.

    fields    body of the PATCH, or of the POST when there was no snapshot; empty when nothing differs
    before    field → its value in the snapshot, for the fields that are written
    present   codes of mapped fields whose attribute holds a value now; what is missing from a later write's list was
              emptied in Hull meanwhile
    problems  mapped fields that were left out, with their reason codes
    """

    fields: dict[str, Any]
    before: dict[str, Any]
    present: frozenset[str]
    problems: tuple[FieldProblem, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.fields
