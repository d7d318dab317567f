"""Read the three sides of `pipeline verify`: Pipedrive by pages or ids, Hull by search, the id map by ids; and recheck.

The recheck reads again what seemed to differ, and sets apart what is pending or known: a record that changes while verify
runs, that waits in a change or a batch, or that has an open Failure is not drift.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from db import verification
from db.session import transaction
from db.verification import InFlight
from pipeline.clients.pipedrive import Page
from pipeline.domain.drift import CONFLICT, Drift, DriftFinding, HullRecord, MappedRecord
from pipeline.domain.json_text import read_lenient
from pipeline.domain.kinds import Entity, anonymous_id, parse_record_id
from pipeline.domain.records import IncomingRecord
from pipeline.errors import Rejected, Skip
from pipeline.extract import id_of, ids_of, read_by_ids
from pipeline.settings import settings
from pipeline.sync.compiled import Plan
from pipeline.sync.staging import unpack_page
from pipeline.transform.comparison import drift_of_absent, find_drift, holders, read_hull_record
from pipeline.transform.hull_reports import ID_ATTRIBUTE
from pipeline.transform.webhooks import decode_head
from pipeline.wiring import Wired

ASKED_AT_ONCE = 50
"""Ids to one search: what Hull returns on a page."""
HIGHEST_ID = 2**53
"""Larger numbers in JSON are not exact ids."""
WINDOW = 4 * ASKED_AT_ONCE
"""Records of Hull that are read page by page; a window of ids that holds more is halved first."""


Window = tuple[int, int]
"""Ids from the first up to, and without, the second."""
EVERYTHING: Final[Window] = (1, HIGHEST_ID)
LOOK_AT_ONCE = 100
"""Ids to one request to Pipedrive."""
JUST_CHANGED_S = 600
"""What changed in Pipedrive this lately waits for its webhook, or for the next incremental fetch."""
_EVER = float("inf")
"""When a record changed that Pipedrive does not show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeSides:
    """The three sides of the same ids.

    refused  id → reason code, for records that cannot be read
    doubles  (id, User or Account) with the id of a record that another one already has
    """

    ids: Sequence[int]
    records: Mapping[int, IncomingRecord]
    refused: Mapping[int, str]
    held: Mapping[int, HullRecord]
    doubles: Sequence[tuple[int, HullRecord]]
    mapped: Mapping[int, MappedRecord]

    def of(self, pipedrive_id: int) -> tuple[IncomingRecord | None, HullRecord | None, MappedRecord | None]:
        """The three sides of one id."""
        return self.records.get(pipedrive_id), self.held.get(pipedrive_id), self.mapped.get(pipedrive_id)

    def is_outdated(self, pipedrive_id: int) -> bool:
        """Whether something else is remembered as delivered than Pipedrive has."""
        record, _, mapped = self.of(pipedrive_id)
        return record is not None and mapped is not None and mapped.digest != record.digest

    @property
    def attributed(self) -> list[int]:
        """The `pipedrive/id` of every record of Hull that has one of these ids there: each is met in one bucket only."""
        found = {each.hull_id: each for each in (*self.held.values(), *(double for _, double in self.doubles))}
        ids = (parse_record_id(held.attributes.get(ID_ATTRIBUTE)) for held in found.values())
        wanted = set(self.ids)
        return [pipedrive_id for pipedrive_id in ids if pipedrive_id is not None and pipedrive_id in wanted]


@dataclass(slots=True, kw_only=True)
class Reader:
    """One entity of one connector.

    nameless  records of Pipedrive without an id, by reason code; nothing can be compared with them
    """

    wired: Wired
    entity: Entity
    plan: Plan
    nameless: list[str] = field(default_factory=list)

    @property
    def marks(self) -> bool:
        """Whether Hull is to show that a record is deleted."""
        return self.plan.settings.supports_deletion(self.entity)

    def page(self, cursor: str | None) -> Page:
        """Return a page of Pipedrive by ascending id, the first one without a cursor. 10 tokens."""
        include = self.plan.incoming.include_fields
        return self.wired.pipedrive.list_page(
            self.entity, cursor=cursor, limit=settings().page_limit, sort_by="id", include_fields=include
        )

    def sides_of_page(self, records: list[Any]) -> ThreeSides:
        """Return the other two sides of the records of a page."""
        return self._sides(sorted(set(ids_of(records))), records)

    def sides_of_ids(self, ids: Collection[int]) -> ThreeSides:
        """All three sides, read afresh. 10 tokens for 100 ids."""
        wanted = sorted(ids)
        include = self.plan.incoming.include_fields
        return self._sides(wanted, read_by_ids(self.wired.pipedrive, self.entity, wanted, include))

    def _sides(self, ids: list[int], raw: list[Any]) -> ThreeSides:
        records, refused = self._say(raw)
        found = self._held(ids)
        held, doubles = holders(found, set(ids))
        with transaction() as session:
            mapped = verification.mapped_ids(session, self.wired.key, self.entity, ids)
        return ThreeSides(ids=ids, records=records, refused=refused, held=held, doubles=doubles, mapped=mapped)

    def _say(self, raw: list[Any]) -> tuple[dict[int, IncomingRecord], dict[int, str]]:
        """The records in Hull's words; one that is marked deleted is as good as absent."""
        records: dict[int, IncomingRecord] = {}
        refused: dict[int, str] = {}
        for each in raw:
            try:
                record = self.plan.incoming.read(each)
                records[record.pipedrive_id] = record
            except Skip:
                continue
            except Rejected as rejected:
                pipedrive_id = id_of(each)
                if pipedrive_id is None:
                    self.nameless.append(rejected.reason)
                else:
                    refused[pipedrive_id] = rejected.reason
        return records, refused

    def _held(self, ids: list[int]) -> list[HullRecord]:
        found: dict[str, HullRecord] = {}
        for at in range(0, len(ids), ASKED_AT_ONCE):
            chunk = ids[at : at + ASKED_AT_ONCE]
            names = [anonymous_id(pipedrive_id) for pipedrive_id in chunk]
            either = [{"terms": {"anonymous_ids.raw": names}}, {"terms": {ID_ATTRIBUTE: chunk}}]
            query = {"bool": {"filter": [{"bool": {"should": either}}]}}
            found |= {held.hull_id: held for held in self._search(query)}
        return list(found.values())

    def _search(self, query: Mapping[str, Any]) -> Iterator[HullRecord]:
        page, pages = 1, 1
        while page <= pages:
            answer = self.wired.hull.find_reports(self.entity, query, page=page)
            pages = answer.pages if answer.reports else 0
            for report in answer.reports:
                yield read_hull_record(report, self.plan.incoming.attributes)
            page += 1

    def count_held(self, low: int = 1, high: int = HIGHEST_ID) -> int:
        """How many records of Hull have a `pipedrive/id` from `low` up to, and without, `high`."""
        return self.wired.hull.find_reports(self.entity, _between(low, high), per_page=1).total

    def strangers(self, seen: array[int], windows: list[Window]) -> list[int]:
        """Return the `pipedrive/id`s of the last window of Hull's ids that are not among those `seen`, sorted.

        The window is taken off the list. Hull is not read again: a window that holds as many records as were seen there is left;
        another is halved, and its halves are added to the list, until it is small.
        """
        low, high = windows.pop()
        known = seen[bisect_left(seen, low) : bisect_left(seen, high)]
        count = self.count_held(low, high)
        if count <= len(known):
            return []
        if count > WINDOW and high - low > 1:
            middle = known[len(known) // 2] if known and known[len(known) // 2] > low else (low + high) // 2
            windows += [(low, middle), (middle, high)]
            return []
        there = {pipedrive_id for held in self._search(_between(low, high)) for pipedrive_id in held.pipedrive_ids[:1]}
        return sorted(there.difference(known))

    def highest_id(self) -> int:
        """Return the highest id that Pipedrive lists; 0 if there is none. Costs 10 tokens."""
        page = self.wired.pipedrive.list_page(self.entity, limit=1, sort_by="id", sort_direction="desc")
        return max([0, *ids_of(page.records)])

    def some_held(self, page: int) -> list[int]:
        """Return the Pipedrive ids of one page of Hull, in Hull's order."""
        answer = self.wired.hull.find_reports(self.entity, _between(1, HIGHEST_ID), page=page)
        return [each for report in answer.reports for each in read_hull_record(report, ()).pipedrive_ids[:1]]


def _between(low: int, high: int) -> dict[str, Any]:
    return {"bool": {"filter": [{"range": {ID_ATTRIBUTE: {"gte": low, "lt": high}}}]}}


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
    result, sides = RecheckResult(), reader.sides_of_ids(ids)
    known = _Known.ask(reader, sides)
    for pipedrive_id in sides.ids:
        _settle(result, sides, known, pipedrive_id, list(_found(reader, sides, pipedrive_id)))
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the database knows of the records that differ."""

    in_flight: InFlight
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
            in_flight = verification.find_in_flight(*scope, {*map(str, sides.ids), *hull_ids})
            rows = verification.mapped_ids(*scope, {*sides.ids, *shared})
        return cls(
            in_flight=in_flight,
            in_conflict=frozenset(key for key, row in rows.items() if row.state == CONFLICT),
            on_failed_pages={
                key: reason for reason, staged in in_flight.bodies for key in ids_of(unpack_page(staged)[0])
            },
            told=frozenset(_told(reader, in_flight)),
        )

    def failed(self, pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None) -> str | None:
        """The reason code under which it is known that this record is not what it should be."""
        shared = held.pipedrive_ids if held else ()
        if len(shared) > 1 and self.in_conflict.intersection(shared):
            return "two_records_one_hull_id"
        names = _names(pipedrive_id, held, mapped)
        reason = next((self.in_flight.failed[name] for name in names if name in self.in_flight.failed), None)
        return reason or self.on_failed_pages.get(pipedrive_id)

    def waits(
        self, pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None, version: int | None
    ) -> str | None:
        """What the record waits for, in words."""
        if self.in_flight.waiting & set(_names(pipedrive_id, held, mapped)) or pipedrive_id in self.told:
            return "a pending change"
        if self.in_flight.fetched_from is not None and (version or _EVER) >= self.in_flight.fetched_from:
            return "a fetch in flight"
        if version is not None and version > self.in_flight.now_s - JUST_CHANGED_S:
            return "an edit of the last ten minutes"
        if mapped is not None and mapped.is_fresh:
            return "a delivery of the last minute"
        return None


def _told(reader: Reader, in_flight: InFlight) -> Iterator[int]:
    """Records in webhooks that are not processed yet."""
    for body in in_flight.deliveries:
        try:
            head = decode_head(read_lenient(body))
        except (Rejected, Skip, ValueError):
            continue
        if head.entity == reader.entity:
            yield head.pipedrive_id


def _names(pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None) -> list[str]:
    """The names under which changes and failures know the record: incoming ones by Pipedrive id, outgoing ones by Hull id."""
    hull_ids = [each.hull_id for each in (held, mapped) if each is not None and each.hull_id is not None]
    return [str(pipedrive_id), *hull_ids]


def _settle(
    result: RecheckResult, sides: ThreeSides, known: _Known, pipedrive_id: int, found: list[DriftFinding]
) -> None:
    record, held, mapped = sides.of(pipedrive_id)
    if pipedrive_id in sides.refused:
        result.failed[sides.refused[pipedrive_id]] += 1
    elif not found:
        result.outdated += sides.is_outdated(pipedrive_id)
    elif reason := known.failed(pipedrive_id, held, mapped):
        result.failed[reason] += 1
    elif wait := known.waits(pipedrive_id, held, mapped, record.version if record else None):
        result.pending[wait] += 1
    else:
        result.findings += found


def _found(reader: Reader, sides: ThreeSides, pipedrive_id: int) -> Iterator[DriftFinding]:
    record, held, mapped = sides.of(pipedrive_id)
    if record is not None:
        yield from find_drift(record, held, mapped, link=reader.plan.settings.link_users_in_hull)
    elif extra := drift_of_absent(pipedrive_id, held, mapped, marks=reader.marks):
        yield extra
    for double_id, double in sides.doubles:
        if double_id == pipedrive_id:
            detail = "carries the pipedrive/id of another one"
            yield DriftFinding(
                kind=Drift.EXTRA, pipedrive_id=pipedrive_id, hull_id=double.hull_id, detail=detail, is_ours=False
            )
