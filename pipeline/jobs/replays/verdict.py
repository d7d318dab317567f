"""The preview of a replay and its texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pipeline.domain.incoming import FieldProblem

MEANINGS: Final[Mapping[str, str]] = {
    "changes": "would change",
    "creates": "would create",
    "looks_up": "would create or match",
    "matches": "would be matched",
    "runs": "would run again",
    "nothing": "already applied",
    "superseded": "superseded",
    "skipped": "would be left out",
    "fails_again": "would fail again",
    "refused": "cannot be replayed",
    "unknown": "unknown",
    "closed": "closed",
}


class Kind(StrEnum):
    """What a replay would come to."""

    CHANGES = "changes"
    """These fields would change."""
    CREATES = "creates"
    """A record would be made, unless the look-up before it finds one."""
    LOOKS_UP = "looks_up"
    """Pipedrive must be queried first: a record would be created, or matched with an existing one."""
    MATCHES = "matches"
    """It would be joined to a record that agrees with it already; nothing would be written."""
    RUNS = "runs"
    """A batch or a control task would run again; what its records come to is decided then."""
    NOTHING = "nothing"
    """Its content is already there."""
    SUPERSEDED = "superseded"
    """A newer state was synchronized, or is in flight."""
    SKIPPED = "skipped"
    """The settings leave the record where it is."""
    FAILS_AGAIN = "fails_again"
    """It would fail again, unless it is corrected first."""
    REFUSED = "refused"
    """It cannot be replayed as it is."""
    UNKNOWN = "unknown"
    """Stored data do not show it."""
    CLOSED = "closed"
    """It was closed."""

    @property
    def words(self) -> str:
        return MEANINGS[self]

    @property
    def is_harmless(self) -> bool:
        """Whether nothing would be sent, so that a replay closes the failure instead."""
        return self in (Kind.NOTHING, Kind.SUPERSEDED, Kind.SKIPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field, by its code in Pipedrive or its attribute in Hull; the values are for the page alone. `name` is Pipedrive's."""

    field: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """detail  the result in a sentence, without values of the record
    note    what may change the result
    reason  the code with which it would fail or be left out
    problems  fields that would be left out, each with its reason; the others are sent
    tokens  estimated cost of the replay in tokens of the daily budget
    """

    kind: Kind
    detail: str
    note: str = ""
    reason: str | None = None
    changes: tuple[FieldChange, ...] = ()
    problems: tuple[FieldProblem, ...] = ()
    tokens: float = 0.0

    @property
    def words(self) -> str:
        """Return the text of the kind."""
        return self.kind.words
