"""Records between two stages: a Person or Organization on its way to Hull, and a User or Account on its way to Pipedrive."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """One rejected field; the record's other fields are sent."""

    field: str
    reason: str
    detail: str


UNIDENTIFYING: Final = frozenset({"shared_domain"})
"""Reasons of a problem without a lost value: the value was sent, but does not identify the record."""


@dataclass(slots=True, kw_only=True)
class IncomingRecord:
    """A Pipedrive record as Hull's attributes. Treat it as immutable: freezing would double the time to create it, and
    every record of every page is created.

    pipedrive_id     the record's id
    version          `update_time` in seconds since the epoch: whole seconds, as in Pipedrive
    claims           claim → normalized value, without the anonymous id, in the order of the settings
    attributes       attribute → value; None means the field is empty in Pipedrive
    organization_id  for a Person: the Organization it belongs to, else None
    digest           32 hex digits over claims, attributes, link and mapping: equal digests mean equal content
    problems         rejected fields, with their reason codes
    aliases          (claim, value) for further look-ups: the secondary e-mails
    """

    pipedrive_id: int
    version: int
    claims: dict[str, str]
    attributes: dict[str, Any]
    organization_id: int | None
    digest: str
    problems: tuple[FieldProblem, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()


Agreement = tuple[str, str]
"""(digest of Hull's value, digest of Pipedrive's value) when the two last agreed on one field."""

Reported = tuple[float, bool]
"""(when the value that Hull last reported was delivered, whether Hull has reported no other value since)."""

INDEX_INCOMPLETE: Final = "index_incomplete"
INDEX_BEHIND: Final = "index_behind"
"""Reason codes of records that wait for a fetch: the first full one, or the next one of changes."""


def fields_without(fields: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Leave out fields of a body for API v2, by their keys or the codes of custom fields."""
    left = {key: value for key, value in fields.items() if key not in keys and key != "custom_fields"}
    custom = {code: value for code, value in fields.get("custom_fields", {}).items() if code not in keys}
    return left | {"custom_fields": custom} if custom else left


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingWrite:
    """A write in the format of API v2.

    fields    body of the PATCH, or of the POST without a snapshot; empty if nothing differs
    before    field → its value in the snapshot, for the written fields
    present   codes of mapped fields with a value in Hull; a code that is missing in a later write's list was
              emptied in Hull since
    sides     key of a mapped field → digests of Hull's value and of the snapshot's, written or not
    same      keys of the mapped fields with the same value on both sides
    kinds     key of a written field → kind of its value
    problems  mapped fields that were left out, with their reason codes
    """

    fields: dict[str, Any]
    before: dict[str, Any]
    present: frozenset[str]
    sides: Mapping[str, Agreement] = field(default_factory=dict)
    same: frozenset[str] = frozenset()
    kinds: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[FieldProblem, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.fields

    def without(self, keys: set[str]) -> OutgoingWrite:
        """Return the write without these fields."""
        if not keys:
            return self
        return replace(
            self,
            fields=fields_without(self.fields, keys),
            before={key: value for key, value in self.before.items() if key not in keys},
            kinds={key: kind for key, kind in self.kinds.items() if key not in keys},
        )


RULES = 1
"""Version of the conversion rules for Pipedrive. When a rule changes, increase it and list the kinds of fields in
`pipeline.transform.conflicts.CORRECTED`: values written by the earlier rules are then written once more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is stored about a record's earlier writes.

    agreed       key of a field → the values on which both sides last agreed
    present      codes in the last write's `present`; None before the first write
    recent       (key, digest of Hull's value, seconds since the epoch) of the last writes, oldest first
    reported     key → the last of our values that Hull has reported
    reported_at  time of the newest processed report, in milliseconds by Hull's clock
    rules        the RULES of the last write
    """

    agreed: Mapping[str, Agreement] = field(default_factory=dict)
    present: tuple[str, ...] | None = None
    recent: tuple[tuple[str, str, int], ...] = ()
    reported: Mapping[str, Reported] = field(default_factory=dict)
    reported_at: int | None = None
    rules: int = 0

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Memory:
        if not stored:
            return cls()
        present = stored.get("present")
        return cls(
            agreed=_tuples(stored.get("agreed", {})),
            present=None if present is None else tuple(present),
            recent=tuple((key, digest, at) for key, digest, at in stored.get("recent", ())),
            reported=_tuples(stored.get("reported", {})),
            reported_at=stored.get("reported_at"),
            rules=stored.get("rules", 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What was delivered to Hull of a record, of the attributes that are mapped in both directions.

    at  seconds since the epoch
    """

    at: float
    values: Mapping[str, Any]


class MatchStatus(StrEnum):
    """The match status of a User or Account."""

    KNOWN = "known"
    """Mapped to one existing record."""
    UNKNOWN = "unknown"
    """Matches no record, as far as the id map and the local index show."""
    DELETED = "deleted"
    """Its record is deleted or gone."""
    CONFLICT = "conflict"
    """It has the ids of several records."""
    AMBIGUOUS = "ambiguous"
    """Several records match the claim that was looked up."""
    TAKEN = "taken"
    """The only record that matches its claim is mapped to another User or Account."""
    UNRESOLVED = "unresolved"
    """The only matching record is in Hull, and its Hull id is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What extract collects for one record of Hull.

    message            the report as delivered, or as last stored
    pipedrive_id       the record it is mapped to, for KNOWN
    matched_by         the claim that just matched; None if it was mapped before
    others             Pipedrive ids that make it CONFLICT, AMBIGUOUS, TAKEN or UNRESOLVED
    by_lower_claim     a stronger claim has a value without a match, as far as our tables show
    snapshot           the Pipedrive record as last read
    organization_id    for a User: the Organization of its Account
    awaits             for a User: the Hull id of its Account, while that has no Organization
    recent_deliveries  recent deliveries to Hull, oldest first
    delivered          attribute → the last delivered value, for attributes that are mapped in both directions
    """

    hull_id: str
    message: dict[str, Any]
    match_status: MatchStatus
    pipedrive_id: int | None = None
    matched_by: str | None = None
    by_lower_claim: bool = False
    others: tuple[int, ...] = ()
    snapshot: dict[str, Any] | None = None
    organization_id: int | None = None
    awaits: str | None = None
    memory: Memory = field(default_factory=Memory)
    recent_deliveries: tuple[Delivered, ...] = ()
    delivered: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, staged: Mapping[str, Any]) -> Candidate:
        more = {
            "match_status": MatchStatus(staged["match_status"]),
            "memory": Memory.of(staged["memory"]),
            "others": tuple(staged["others"]),
            "recent_deliveries": tuple(Delivered(**each) for each in staged["recent_deliveries"]),
        }
        return cls(**{**staged, **more})


class Act(StrEnum):
    """What is done with a record of Hull."""

    SKIP = "skip"
    HOLD = "hold"
    """Stored as a Failure, because a person must decide."""
    WAIT = "wait"
    """Not decided yet: it is retried automatically."""
    UPDATE = "update"
    CREATE = "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Transform's decision about one Candidate.

    reason       why it is skipped, held or waits
    detail       the same in a sentence
    trigger      why it is sent, from the filter
    claims       (claim, value) for its look-up, in the order of the settings; for CREATE
    left         fields that keep Pipedrive's value although they differ
    overruled    attribute → Hull's value, in fields that Pipedrive owns
    held         attribute → Hull's value that is written: it need not be sent back
    reported     key → the last of our values that Hull has reported, including this report
    update_loop  names the fields in an update loop, which are not written; empty for none
    """

    candidate: Candidate
    act: Act
    reason: str | None = None
    detail: str = ""
    trigger: str | None = None
    write: OutgoingWrite | None = None
    claims: tuple[tuple[str, str], ...] = ()
    left: tuple[FieldProblem, ...] = ()
    overruled: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, Any] = field(default_factory=dict)
    reported: Mapping[str, Reported] = field(default_factory=dict)
    problems: tuple[FieldProblem, ...] = ()
    update_loop: str = ""

    @property
    def hull_id(self) -> str:
        return self.candidate.hull_id

    @classmethod
    def of(cls, staged: Mapping[str, Any]) -> Decision:
        write = staged["write"]
        more = {
            "candidate": Candidate.of(staged["candidate"]),
            "act": Act(staged["act"]),
            "write": None if write is None else _write_of(write),
            "claims": tuple((claim, value) for claim, value in staged["claims"]),
            "left": _problems(staged["left"]),
            "problems": _problems(staged["problems"]),
            "reported": _tuples(staged["reported"]),
        }
        return cls(**{**staged, **more})


def _write_of(staged: Mapping[str, Any]) -> OutgoingWrite:
    more = {
        "present": frozenset(staged["present"]),
        "same": frozenset(staged["same"]),
        "sides": _tuples(staged["sides"]),
        "problems": _problems(staged["problems"]),
    }
    return OutgoingWrite(**{**staged, **more})


def _tuples(staged: Mapping[str, Any]) -> dict[str, Any]:
    """Return key → a tuple again: JSON has lists only."""
    return {key: tuple(value) for key, value in staged.items()}


def _problems(staged: list[dict[str, Any]]) -> tuple[FieldProblem, ...]:
    return tuple(FieldProblem(**each) for each in staged)
