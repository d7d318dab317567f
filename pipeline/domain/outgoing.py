"""What one User or Account says to Pipedrive, and what is decided about it on the way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from pipeline.domain.incoming import FieldProblem

Agreement = tuple[str, str]
"""(digest of what Hull said, digest of what Pipedrive held) when the two last agreed on one field."""


MIRROR_INCOMPLETE: Final = "mirror_incomplete"
INDEX_BEHIND: Final = "index_behind"
"""Reason codes of those who wait for a fetch: the first full one, or the next that brings what changed."""

Heard = tuple[float, bool]
"""(when Hull was told a value that it has reported, whether it has reported no other one since)."""


def fields_without(fields: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """Leave out fields of a body for API v2, by their keys or the codes of custom fields."""
    left = {key: value for key, value in fields.items() if key not in keys and key != "custom_fields"}
    custom = {code: value for code, value in fields.get("custom_fields", {}).items() if code not in keys}
    return left | {"custom_fields": custom} if custom else left


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingWrite:
    """A write in the shapes of API v2.

    fields    body of the PATCH, or of the POST when there was no snapshot; empty when nothing differs
    before    field → its value in the snapshot, for the fields that are written
    present   codes of mapped fields whose attribute holds a value now; what is missing from a later write's list was
              emptied in Hull meanwhile
    sides     key of a mapped field → digests of what Hull says and of what the snapshot holds, written or not
    same      keys of the mapped fields of which both sides hold the same
    kinds     key of a field that is written → kind of its value
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
"""Version of the rules by which values are converted for Pipedrive. Raise it when a rule changes, and name the kinds of
fields in `pipeline.transform.agreement.CORRECTED`: what was written by the rules of before is then written once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered of a record's earlier writes.

    agreed   key of a field → on what both sides agreed last
    present  codes that the last write's `present` named; None before the first write
    recent   (key, digest of what Hull said, seconds since the epoch) of the last writes, oldest first
    heard    key → the last of our values that Hull has reported
    reported_at  of the newest report that was considered, in milliseconds by Hull's clock
    rules    the RULES by which the last write was made
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
    """What Hull was told of a record, of the attributes that are mapped in both directions.

    at  seconds since the epoch
    """

    at: float
    values: Mapping[str, Any]


class MatchStatus(StrEnum):
    """How a User or Account stands to the records of Pipedrive."""

    KNOWN = "known"
    """Joined to one living record."""
    UNKNOWN = "unknown"
    """Joined to none, as far as the id map and the mirror of Pipedrive tell."""
    DEPARTED = "departed"
    """Its record is deleted or gone."""
    CONFLICT = "conflict"
    """It carries the ids of several records."""
    AMBIGUOUS = "ambiguous"
    """Several records answer to the claim that was looked up."""
    TAKEN = "taken"
    """The one record that answers to its claim is joined to another User or Account."""
    UNRESOLVED = "unresolved"
    """The one record that answers to its claim is in Hull, and Hull has not said yet whose it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What extract brings together for one record of Hull.

    message          the report as it was delivered, or as it was last kept
    pipedrive_id     the record it is joined to, for KNOWN
    matched_by       the claim that joined them just now; None when they were joined before
    others           Pipedrive ids that make it CONFLICT, AMBIGUOUS, TAKEN or UNRESOLVED
    by_lower_claim   a claim that counts more has a value that nobody answered to, as far as our tables tell
    snapshot         the Pipedrive record as last read
    organization_id  for a User: the Organization of its Account
    awaits           for a User: the Hull id of its Account, while that has no Organization
    told             what Hull was told of the record lately, oldest first
    delivered        attribute → what Hull was told last, of those that are mapped in both directions
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
    """Quarantined: kept as a Failure, because only a person can say what is right."""
    WAIT = "wait"
    """Nothing can be decided yet: it is tried again by itself."""
    UPDATE = "update"
    CREATE = "create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What transform decides about one Candidate.

    reason   why it is skipped, held or waits
    detail   the same in a sentence
    trigger  why it is sent, as the filter says
    claims   (claim, value) by which it may be looked up, in the order of the settings; for CREATE
    left     fields that are left to Pipedrive although they differ
    overruled  attribute → what Hull says there, where Pipedrive had the last word
    held     attribute → what Hull holds by its own word and is written: it need not be told that
    heard    key → the last of our values that Hull has reported, this report included
    quarrel  names the fields that are not written because two rules fight over them; empty for none
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
