"""Recheck records that seem to differ: read all three sides again, and set apart what is pending or known.

A record that changed lately, that waits in a change, a batch or a webhook, or that has an open Failure is not drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from db import verification
from db.session import transaction
from db.verification import InFlight
from pipeline.domain.drift import CONFLICT, Drift, DriftFinding, HullRecord, MappedRecord
from pipeline.domain.json_text import read_lenient
from pipeline.errors import Rejected, Skip
from pipeline.extract import ids_of
from pipeline.jobs.verify.reading import Reader, ThreeSides
from pipeline.jobs.verify.report import EntityReport
from pipeline.sync.staging import unpack_page
from pipeline.transform.comparison import drift_of_absent, find_drift
from pipeline.transform.webhooks import decode_head

JUST_CHANGED_S = 600
"""Changes in Pipedrive that are more recent are still waiting for their webhook, or for the next incremental fetch."""


def recheck(reader: Reader, ids: Sequence[int], report: EntityReport) -> list[DriftFinding]:
    """Return the drift of at most RECHECKED_AT_ONCE ids, and count the other records in the report."""
    findings: list[DriftFinding] = []
    sides = reader.sides_of_ids(ids)
    known = _Known.read(reader, sides)
    for pipedrive_id in sides.ids:
        record, held, mapped = sides.of(pipedrive_id)
        found = list(_find_drift(reader, sides, pipedrive_id))
        if pipedrive_id in sides.refused:
            report.failed[sides.refused[pipedrive_id]] += 1
        elif not found:
            report.outdated += sides.is_outdated(pipedrive_id)
        elif reason := known.failed(pipedrive_id, held, mapped):
            report.failed[reason] += 1
        elif wait := known.waits_for(pipedrive_id, held, mapped, record.version if record else None):
            report.pending[wait] += 1
        else:
            findings += found
    return findings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What our tables contain about the records that differ."""

    in_flight: InFlight
    in_conflict: frozenset[int]
    on_failed_pages: Mapping[int, str]
    in_webhooks: frozenset[int]

    @classmethod
    def read(cls, reader: Reader, sides: ThreeSides) -> _Known:
        held = sides.held.values()
        hull_ids = {each.hull_id for each in held} | {row.hull_id for row in sides.mapped.values() if row.hull_id}
        shared = {pipedrive_id for each in held for pipedrive_id in each.pipedrive_ids}
        with transaction() as session:
            scope = (session, reader.wired.key, reader.entity)
            in_flight = verification.find_in_flight(*scope, {*map(str, sides.ids), *hull_ids})
            rows = verification.mapped_ids(*scope, {*sides.ids, *shared})
        return cls(
            in_flight=in_flight,
            in_conflict=frozenset(key for key, row in rows.items() if row.state == CONFLICT),
            on_failed_pages={
                key: reason for reason, staged in in_flight.bodies for key in ids_of(unpack_page(staged)[0])
            },
            in_webhooks=frozenset(_ids_in_webhooks(reader, in_flight)),
        )

    def failed(self, pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None) -> str | None:
        """Return the reason code of a known failure of the record."""
        shared = held.pipedrive_ids if held else ()
        if len(shared) > 1 and self.in_conflict.intersection(shared):
            return "two_records_one_hull_id"
        names = _names(pipedrive_id, held, mapped)
        reason = next((self.in_flight.failed[name] for name in names if name in self.in_flight.failed), None)
        return reason or self.on_failed_pages.get(pipedrive_id)

    def waits_for(
        self, pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None, version: int | None
    ) -> str | None:
        """Return what the record waits for, as text."""
        if self.in_flight.waiting & set(_names(pipedrive_id, held, mapped)) or pipedrive_id in self.in_webhooks:
            return "a pending change"
        if self.in_flight.fetched_from is not None and (not version or version >= self.in_flight.fetched_from):
            return "a fetch in flight"
        if version is not None and version > self.in_flight.now_s - JUST_CHANGED_S:
            return "an edit of the last ten minutes"
        if mapped is not None and mapped.is_fresh:
            return "a delivery of the last minute"
        return None


def _ids_in_webhooks(reader: Reader, in_flight: InFlight) -> Iterator[int]:
    """Yield the ids of records in webhooks that are not processed yet."""
    for body in in_flight.deliveries:
        try:
            head = decode_head(read_lenient(body))
        except (Rejected, Skip, ValueError):
            continue
        if head.entity == reader.entity:
            yield head.pipedrive_id


def _names(pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None) -> list[str]:
    """Return the ids of the record in changes and failures: incoming ones have the Pipedrive id, outgoing ones the Hull id."""
    hull_ids = [each.hull_id for each in (held, mapped) if each is not None and each.hull_id is not None]
    return [str(pipedrive_id), *hull_ids]


def _find_drift(reader: Reader, sides: ThreeSides, pipedrive_id: int) -> Iterator[DriftFinding]:
    record, held, mapped = sides.of(pipedrive_id)
    if record is not None:
        yield from find_drift(record, held, mapped, link=reader.plan.settings.link_users_in_hull)
    elif extra := drift_of_absent(pipedrive_id, held, mapped, marks=reader.marks):
        yield extra
    for double_id, double in sides.doubles:
        if double_id == pipedrive_id:
            detail = "has the pipedrive/id of another record"
            yield DriftFinding(
                kind=Drift.EXTRA, pipedrive_id=pipedrive_id, hull_id=double.hull_id, detail=detail, is_ours=False
            )
