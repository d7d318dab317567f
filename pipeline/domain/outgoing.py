"""One User or Account on its way to Pipedrive, and the decisions about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from pipeline.domain.incoming import FieldProblem

Agreement = tuple[str, str]
"""(digest of Hull's value, digest of Pipedrive's value) when the two last agreed on one field."""


INDEX_INCOMPLETE: Final = "index_incomplete"
INDEX_BEHIND: Final = "index_behind"
"""Reason codes of records that wait for a fetch: the first full one, or the next one of changes."""

Heard = tuple[float, bool]
"""(when a value was delivered that Hull has reported, whether Hull has reported no other value since)."""


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
    present   codes of mapped fields whose attribute has a value now; a code that is missing in a later write's list was
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
        """The same write, with these fields left alone."""
        if not keys:
            return self
        return replace(
            self,
            fields=fields_without(self.fields, keys),
            before={key: value for key, value in self.before.items() if key not in keys},
            kinds={key: kind for key, kind in self.kinds.items() if key not in keys},
        )


RULES = 1
"""Version of the conversion rules for Pipedrive. Raise it when a rule changes, and list the kinds of
fields in `pipeline.transform.conflicts.CORRECTED`: values written by the earlier rules are then written once more.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is stored about a record's earlier writes.

    agreed   key of a field → the values on which both sides last agreed
    present  codes in the last write's `present`; None before the first write
    recent   (key, digest of Hull's value, seconds since the epoch) of the last writes, oldest first
    heard    key → the last of our values that Hull has reported
    reported_at  of the newest processed report, in milliseconds by Hull's clock
    rules    the RULES of the last write
    """

    agreed: Mapping[str, Agreement] = field(default_factory=dict)
    present: tuple[str, ...] | None = None
    recent: tuple[tuple[str, str, int], ...] = ()
    heard: Mapping[str, Heard] = field(default_factory=dict)
    reported_at: int | None = None
    rules: int = 0

    @classmethod
    def of(cls, staged: Mapping[str, Any] | None) -> Memory:
        if not staged:
            return cls()
        present = staged.get("present")
        return cls(
            agreed={key: (said, held) for key, (said, held) in staged.get("agreed", {}).items()},
            present=None if present is None else tuple(present),
            recent=tuple((key, said, at) for key, said, at in staged.get("recent", ())),
            heard=_heard(staged.get("heard", {})),
            reported_at=staged.get("reported_at"),
            rules=staged.get("rules", 0),
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
    """Joined to one living record."""
    UNKNOWN = "unknown"
    """Matched with no record, as far as the id map and the local index show."""
    DEPARTED = "departed"
    """Its record is deleted or gone."""
    CONFLICT = "conflict"
    """It carries the ids of several records."""
    AMBIGUOUS = "ambiguous"
    """Several records answer to the claim that was looked up."""
    TAKEN = "taken"
    """The one record that answers to its claim is joined to another User or Account."""
    UNRESOLVED = "unresolved"
    """The one matching record is in Hull, and its Hull id is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What extract collects for one record of Hull.

    message          the report as delivered, or as last stored
    pipedrive_id     the record it is mapped to, for KNOWN
    matched_by       the claim that just matched; None if it was mapped before
    others           Pipedrive ids that make it CONFLICT, AMBIGUOUS, TAKEN or UNRESOLVED
    by_lower_claim   a stronger claim has a value without a match, as far as our tables show
    snapshot         the Pipedrive record as last read
    organization_id  for a User: the Organization of its Account
    awaits           for a User: the Hull id of its Account, while that has no Organization
    told             recent deliveries to Hull, oldest first
    delivered        attribute → the last delivery to Hull, of those that are mapped in both directions
    """

    hull_id: str
    message: dict[str, Any]
    standing: MatchStatus
    pipedrive_id: int | None = None
    matched_by: str | None = None
    by_lower_claim: bool = False
    others: tuple[int, ...] = ()
    snapshot: dict[str, Any] | None = None
    organization_id: int | None = None
    awaits: str | None = None
    memory: Memory = field(default_factory=Memory)
    told: tuple[Delivered, ...] = ()
    delivered: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, staged: Mapping[str, Any]) -> Candidate:
        more = {
            "standing": MatchStatus(staged["standing"]),
            "memory": Memory.of(staged["memory"]),
            "others": tuple(staged["others"]),
            "told": tuple(Delivered(**each) for each in staged["told"]),
        }
        return cls(**{**staged, **more})


class Act(StrEnum):
    """What becomes of a record of Hull."""

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

    reason   why it is skipped, held or waits
    detail   the same in a sentence
    trigger  why it is sent, from the filter
    claims   (claim, value) of its look-up, in the order of the settings; for CREATE
    left     fields that keep Pipedrive's value although they differ
    overruled  attribute → Hull's value, in fields that Pipedrive owns
    held     attribute → Hull's value that is written: it need not be sent back
    heard    key → the last of our values that Hull has reported, including this report
    quarrel  names the fields in an update loop, which are not written; empty for none
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
    heard: Mapping[str, Heard] = field(default_factory=dict)
    problems: tuple[FieldProblem, ...] = ()
    quarrel: str = ""

    @property
    def hull_id(self) -> str:
        return self.candidate.hull_id

    @classmethod
    def of(cls, staged: Mapping[str, Any]) -> Decision:
        write = staged["write"]
        return cls(
            candidate=Candidate.of(staged["candidate"]),
            act=Act(staged["act"]),
            reason=staged["reason"],
            detail=staged["detail"],
            trigger=staged["trigger"],
            write=None if write is None else _write_of(write),
            claims=tuple((claim, value) for claim, value in staged["claims"]),
            left=_problems(staged["left"]),
            problems=_problems(staged["problems"]),
            overruled=staged["overruled"],
            held=staged["held"],
            heard=_heard(staged["heard"]),
            quarrel=staged["quarrel"],
        )


def _heard(staged: Mapping[str, Any]) -> dict[str, Heard]:
    return {key: (at, is_last) for key, (at, is_last) in staged.items()}


def _write_of(staged: Mapping[str, Any]) -> OutgoingWrite:
    more = {
        "present": frozenset(staged["present"]),
        "same": frozenset(staged["same"]),
        "sides": {key: (said, held) for key, (said, held) in staged["sides"].items()},
        "problems": _problems(staged["problems"]),
    }
    return OutgoingWrite(**{**staged, **more})


def _problems(staged: list[dict[str, Any]]) -> tuple[FieldProblem, ...]:
    return tuple(FieldProblem(**each) for each in staged)
