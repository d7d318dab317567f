"""Read the three sides of a comparison: Pipedrive by pages or ids, Hull by search, and the id map by ids."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from db import verification
from db.session import transaction
from pipeline.clients.pipedrive import Page
from pipeline.domain.drift import HullRecord, MappedRecord
from pipeline.domain.kinds import Entity, anonymous_id, parse_record_id
from pipeline.domain.records import IncomingRecord
from pipeline.errors import Rejected, Skip
from pipeline.extract import id_of, ids_of, read_by_ids
from pipeline.settings import settings
from pipeline.sync.compiled import CompiledSettings
from pipeline.transform.comparison import holders, read_hull_record
from pipeline.transform.hull_reports import ID_ATTRIBUTE
from pipeline.wiring import Wired

IDS_PER_SEARCH = 50
"""Hull returns at most so many records on a page."""
HIGHEST_ID = 2**53
"""Larger numbers in JSON are not exact ids."""
WINDOW = 4 * IDS_PER_SEARCH
"""Maximum of records in a window that is read page by page; a larger window is halved first."""

Window = tuple[int, int]
"""Ids from the first, up to and without the second."""
EVERYTHING: Final[Window] = (1, HIGHEST_ID)
RECHECKED_AT_ONCE = 100
"""Ids to one request of Pipedrive."""


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
        """Return the three sides of one id."""
        return self.records.get(pipedrive_id), self.held.get(pipedrive_id), self.mapped.get(pipedrive_id)

    def is_outdated(self, pipedrive_id: int) -> bool:
        """Return whether the id map remembers other delivered values than Pipedrive's."""
        record, _, mapped = self.of(pipedrive_id)
        return record is not None and mapped is not None and mapped.digest != record.digest

    @property
    def attributed(self) -> list[int]:
        """Return the `pipedrive/id` of every record of Hull that has one of these ids."""
        found = {each.hull_id: each for each in (*self.held.values(), *(double for _, double in self.doubles))}
        ids = (parse_record_id(held.attributes.get(ID_ATTRIBUTE)) for held in found.values())
        wanted = set(self.ids)
        return [pipedrive_id for pipedrive_id in ids if pipedrive_id is not None and pipedrive_id in wanted]


@dataclass(slots=True, kw_only=True)
class Reader:
    """One entity of one connector.

    nameless  reason codes of Pipedrive records without an id: they cannot be compared
    """

    wired: Wired
    entity: Entity
    plan: CompiledSettings
    nameless: list[str] = field(default_factory=list)

    @property
    def marks(self) -> bool:
        """Return whether deleted records are marked in Hull."""
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
        """Read all three sides. 10 tokens for 100 ids."""
        wanted = sorted(ids)
        include = self.plan.incoming.include_fields
        return self._sides(wanted, read_by_ids(self.wired.pipedrive, self.entity, wanted, include))

    def _sides(self, ids: list[int], raw: list[Any]) -> ThreeSides:
        records, refused = self._transform(raw)
        found = self._held(ids)
        held, doubles = holders(found, set(ids))
        with transaction() as session:
            mapped = verification.mapped_ids(session, self.wired.key, self.entity, ids)
        return ThreeSides(ids=ids, records=records, refused=refused, held=held, doubles=doubles, mapped=mapped)

    def _transform(self, raw: list[Any]) -> tuple[dict[int, IncomingRecord], dict[int, str]]:
        """Return the records as attributes of Hull; deleted ones count as absent."""
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
        for at in range(0, len(ids), IDS_PER_SEARCH):
            chunk = ids[at : at + IDS_PER_SEARCH]
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
        """Return the number of records in Hull with a `pipedrive/id` from `low` up to and without `high`."""
        return self.wired.hull.find_reports(self.entity, _between(low, high), per_page=1).total

    def ids_only_in_hull(self, seen: array[int], windows: list[Window]) -> list[int]:
        """Return the ids of the last window in Hull that are not in `seen`, which is sorted, and remove the window.

        A window with as many records as `seen` has there is not read. A window with too many records is replaced by its halves.
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
        """Return the highest id that Pipedrive lists, 0 without records. Costs 10 tokens."""
        page = self.wired.pipedrive.list_page(self.entity, limit=1, sort_by="id", sort_direction="desc")
        return max([0, *ids_of(page.records)])

    def some_held(self, page: int) -> list[int]:
        """Return the Pipedrive ids of one page of Hull, in Hull's order."""
        answer = self.wired.hull.find_reports(self.entity, _between(1, HIGHEST_ID), page=page)
        return [each for report in answer.reports for each in read_hull_record(report, ()).pipedrive_ids[:1]]


def _between(low: int, high: int) -> dict[str, Any]:
    return {"bool": {"filter": [{"range": {ID_ATTRIBUTE: {"gte": low, "lt": high}}}]}}
