"""The recheck of `pipeline verify`: read again what seemed to differ, and set apart what is pending or known.

A record that changes while verify runs, that waits in a change or a batch, or that has an open Failure is not drift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from db import verification
from db.session import transaction
from db.verification import Afoot
from pipeline.domain.drift import CONFLICT, Drift, DriftFinding, HullRecord, MappedRecord
from pipeline.domain.lenient_json import read_lenient
from pipeline.errors import Rejected, Skip
from pipeline.extract.pages import ids_of
from pipeline.jobs.verify.reading import Reader, ThreeSides
from pipeline.sync.staging import unpack_page
from pipeline.transform.comparison import judge, judge_absent
from pipeline.transform.webhooks import decode_head

LOOK_AT_ONCE = 100
"""Ids to one request to Pipedrive."""
JUST_CHANGED_S = 600
"""What changed in Pipedrive this lately waits for its webhook, or for the next incremental fetch."""

_EVER = float("inf")
"""When a record changed that Pipedrive does not show."""


@dataclass(slots=True, kw_only=True)
class RecheckResult:
    """What is left of the suspicions.

    pending   what a record waits for → how many
    failed    reason code → how many
    outdated  records that are in Hull as they should be, though something else was remembered as delivered
    """

    findings: list[DriftFinding] = field(default_factory=list)
    pending: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    outdated: int = 0


def recheck(reader: Reader, ids: Sequence[int]) -> RecheckResult:
    """Judge at most LOOK_AT_ONCE ids by a fresh read of all three sides."""
    verdict, sides = RecheckResult(), reader.sides_of_ids(ids)
    known = _Known.ask(reader, sides)
    for pipedrive_id in sides.ids:
        _settle(verdict, sides, known, pipedrive_id, list(_found(reader, sides, pipedrive_id)))
    return verdict


def _found(reader: Reader, sides: ThreeSides, pipedrive_id: int) -> Iterator[DriftFinding]:
    record, held, mapped = sides.of(pipedrive_id)
    if record is not None:
        yield from judge(record, held, mapped, link=reader.plan.settings.link_users_in_hull)
    elif extra := judge_absent(pipedrive_id, held, mapped, marks=reader.marks):
        yield extra
    for double_id, double in sides.doubles:
        if double_id == pipedrive_id:
            detail = "carries the pipedrive/id of another one"
            yield DriftFinding(
                kind=Drift.EXTRA, pipedrive_id=pipedrive_id, hull_id=double.hull_id, detail=detail, is_ours=False
            )


def _settle(
    verdict: RecheckResult, sides: ThreeSides, known: _Known, pipedrive_id: int, found: list[DriftFinding]
) -> None:
    record, held, mapped = sides.of(pipedrive_id)
    if pipedrive_id in sides.refused:
        verdict.failed[sides.refused[pipedrive_id]] += 1
    elif not found:
        verdict.outdated += sides.is_outdated(pipedrive_id)
    elif reason := known.failed(pipedrive_id, held, mapped):
        verdict.failed[reason] += 1
    elif wait := known.waits(pipedrive_id, held, mapped, record.version if record else None):
        verdict.pending[wait] += 1
    else:
        verdict.findings += found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the database knows of the records that differ."""

    afoot: Afoot
    in_conflict: frozenset[int]
    on_failed_pages: Mapping[int, str]
    told: frozenset[int]

    @classmethod
    def ask(cls, reader: Reader, sides: ThreeSides) -> _Known:
        held = sides.held.values()
        hull_ids = {each.hull_id for each in held} | {row.hull_id for row in sides.mapped.values() if row.hull_id}
        shared = {pipedrive_id for each in held for pipedrive_id in each.pipedrive_ids}
        with transaction() as session:
            scope = (session, reader.wired.key, reader.entity)
            afoot = verification.afoot(*scope, {*map(str, sides.ids), *hull_ids})
            rows = verification.mapped_ids(*scope, {*sides.ids, *shared})
        return cls(
            afoot=afoot,
            in_conflict=frozenset(key for key, row in rows.items() if row.state == CONFLICT),
            on_failed_pages={key: reason for reason, staged in afoot.bodies for key in ids_of(unpack_page(staged)[0])},
            told=frozenset(_told(reader, afoot)),
        )

    def failed(self, pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None) -> str | None:
        """The reason code under which it is known that this record is not what it should be."""
        shared = held.pipedrive_ids if held else ()
        if len(shared) > 1 and self.in_conflict.intersection(shared):
            return "two_records_one_hull_id"
        names = _names(pipedrive_id, held, mapped)
        reason = next((self.afoot.failed[name] for name in names if name in self.afoot.failed), None)
        return reason or self.on_failed_pages.get(pipedrive_id)

    def waits(
        self, pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None, version: int | None
    ) -> str | None:
        """What the record waits for, in words."""
        if self.afoot.waiting & set(_names(pipedrive_id, held, mapped)) or pipedrive_id in self.told:
            return "a pending change"
        if self.afoot.fetched_from is not None and (version or _EVER) >= self.afoot.fetched_from:
            return "a fetch in flight"
        if version is not None and version > self.afoot.now_s - JUST_CHANGED_S:
            return "an edit of the last ten minutes"
        if mapped is not None and mapped.is_fresh:
            return "a delivery of the last minute"
        return None


def _names(pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None) -> list[str]:
    """The names under which changes and failures know the record: incoming ones by Pipedrive id, outgoing ones by Hull id."""
    hull_ids = [each.hull_id for each in (held, mapped) if each is not None and each.hull_id is not None]
    return [str(pipedrive_id), *hull_ids]


def _told(reader: Reader, afoot: Afoot) -> Iterator[int]:
    """Records in webhooks that are not processed yet."""
    for body in afoot.deliveries:
        try:
            head = decode_head(read_lenient(body))
        except (Rejected, Skip, ValueError):
            continue
        if head.entity == reader.entity:
            yield head.pipedrive_id
