"""The comparison of one entity, a step at a time and in bounded memory.

    walk       read Pipedrive's pages by ascending id. Each page is a bucket: Hull and the id map are read for its ids, and only if
               their digests differ the records are compared. Records that only the id map has are found in the gaps
    hull_only  find records that only Hull has by counting, window by window
    recheck    read again what seems to differ

A step stores its results and its progress in one transaction. Each page adds its ids to the items of the job: 1,000,000 records
take 16 MB, and 8 bytes more for each one that seems to differ. They are in memory during `hull_only`.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Iterator
from itertools import islice
from typing import Final

from db import verification
from db.id_mapping import mapping_counts
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import MOST_EMPTY
from pipeline.errors import Rejected
from pipeline.extract import ids_of
from pipeline.jobs.verify.reading import EVERYTHING, HIGHEST_ID, IDS_PER_SEARCH, RECHECKED_AT_ONCE, Reader, ThreeSides
from pipeline.jobs.verify.recheck import recheck
from pipeline.jobs.verify.report import EntityReport, StepItems, ids_found
from pipeline.transform.comparison import drift_of_absent, find_drift, sides_agree

RECHECKED_AT_MOST: Final = 5_000
"""Maximum of records that are read again, for 500 tokens; more are reported as unconfirmed."""
HULL_ONLY_S: Final = 20.0
"""Seconds of one step that searches records that only Hull has."""


class Comparison:
    """Do a step of the comparison of one entity: change `report` and return what was found. Nothing is stored."""

    def __init__(self, job_id: int, reader: Reader, report: EntityReport, sample: int | None) -> None:
        self._job_id = job_id
        self._reader = reader
        self._report = report
        self._sample = sample
        self._link = reader.entity is Entity.PERSON and reader.plan.settings.link_users_in_hull

    def step(self) -> StepItems:
        """Do the next step."""
        if self._report.phase == "start":
            self._count_id_map()
        if self._report.phase == "walk":
            return self._compare_page()
        if self._report.phase == "hull_only":
            return self._find_hull_only()
        if self._report.phase == "recheck":
            return self._recheck()
        return self._draw()

    def _count_id_map(self) -> None:
        with transaction() as session:
            counts = [
                each for each in mapping_counts(session, self._reader.wired.key) if each.entity == self._reader.entity
            ]
        self._report.id_map = {each.state: each.records for each in counts}
        self._report.without_hull_id = sum(each.without_hull_id for each in counts)
        if self._sample is None:
            self._report.phase = "walk"

    def _compare_page(self) -> StepItems:
        """Compare the records of one page. Raises: Rejected("page_repeats") when the walk does not advance."""
        report, page = self._report, self._reader.page(self._report.cursor)
        ids = ids_of(page.records)
        report.empty = 0 if page.ids else report.empty + 1
        if page.next_cursor is not None and (report.empty >= MOST_EMPTY or (ids and max(ids) <= report.above)):
            trouble = f"{report.empty} empty pages in a row" if report.empty else f"no id beyond {report.above}"
            raise Rejected("page_repeats", f"{report.entity.plural}: {trouble}")
        sides = self._reader.sides_of_page(page.records)
        to = HIGHEST_ID if page.next_cursor is None else max([report.above, *sides.ids])
        found = StepItems(
            seen=sorted(sides.attributed), suspects=[*self._differing(sides), *self._only_in_id_map(to, sides)]
        )
        report.pipedrive = (report.pipedrive or 0) + len(sides.ids)
        report.suspects += len(found.suspects)
        report.cursor, report.above = page.next_cursor, to
        if page.next_cursor is None:
            report.phase, report.windows = "hull_only", [EVERYTHING]
        return self._note_nameless(found)

    def _only_in_id_map(self, to: int, sides: ThreeSides) -> list[int]:
        with transaction() as session:
            scope = (session, self._reader.wired.key, self._reader.entity)
            return verification.unlisted_ids(*scope, above=self._report.above, to=to, listed=sides.ids)

    def _differing(self, sides: ThreeSides) -> list[int]:
        """Return the ids of a bucket that seem to differ."""
        report = self._report
        report.buckets += 1
        report.compared += len(sides.ids)
        report.failed.update(sides.refused.values())
        if not sides.doubles and sides_agree(sides.records, sides.held, sides.mapped, link=self._link):
            return []
        report.differing += 1
        doubted = {double_id for double_id, _ in sides.doubles}
        wrong = [each for each in sides.ids if each in doubted or self._seems_wrong(sides, each)]
        report.outdated += sum(sides.is_outdated(each) for each in set(sides.ids).difference(wrong))
        return wrong

    def _seems_wrong(self, sides: ThreeSides, pipedrive_id: int) -> bool:
        record, held, mapped = sides.of(pipedrive_id)
        if record is not None:
            return any(True for _ in find_drift(record, held, mapped, link=self._link))
        return (
            pipedrive_id not in sides.refused
            and drift_of_absent(pipedrive_id, held, mapped, marks=self._reader.marks) is not None
        )

    def _find_hull_only(self) -> StepItems:
        """Find ids in Hull that Pipedrive does not list, until the time of the step is over."""
        report, found = self._report, StepItems()
        with transaction() as session:
            seen = array("q", sorted(ids_found(session, self._job_id, report.entity, "seen")))
        try:
            report.hull = self._reader.count_held() if report.windows == [EVERYTHING] else report.hull
            ends_at = time.monotonic() + HULL_ONLY_S
            while report.windows and time.monotonic() < ends_at:
                found.suspects += self._reader.ids_only_in_hull(seen, report.windows)
        except Rejected:
            report.hull, report.windows = None, []
        report.suspects += len(found.suspects)
        return found if report.windows else self._begin_recheck(found, RECHECKED_AT_MOST)

    def _draw(self) -> StepItems:
        """Draw ids from the id map, from Hull and from Pipedrive, a third each.

        If an id is drawn twice, or a side has too few, more are drawn from the id map.
        """
        count = self._sample or 0
        with transaction() as session:
            mapped = verification.sample_mapped(session, self._reader.wired.key, self._reader.entity, count)
        third = -(-count // 3)
        drawn = dict.fromkeys([*mapped[:third], *self._drawn_elsewhere(third), *mapped[third:]])
        found = StepItems(suspects=sorted(islice(drawn, count)))
        self._report.compared = self._report.suspects = len(found.suspects)
        return self._begin_recheck(found, count)

    def _drawn_elsewhere(self, each: int) -> Iterator[int]:
        """Yield random ids up to Pipedrive's highest, with or without a record; then ids that Hull has."""
        yield from _some_of(self._reader.highest_id(), each)
        try:
            self._report.hull = self._reader.count_held()
        except Rejected:
            return
        pages = _some_of(-(-self._report.hull // IDS_PER_SEARCH), -(-each // IDS_PER_SEARCH))
        held = [pipedrive_id for page in pages for pipedrive_id in self._reader.some_held(page)]
        yield from random.sample(held, min(each, len(held)))

    def _begin_recheck(self, found: StepItems, at_most: int) -> StepItems:
        with transaction() as session:
            earlier = ids_found(session, self._job_id, self._report.entity, "suspects")
        ids = sorted({*earlier, *found.suspects})
        found.to_recheck, found.unconfirmed = ids[:at_most], ids[at_most:]
        self._report.phase = "recheck" if found.to_recheck else "done"
        return found

    def _recheck(self) -> StepItems:
        report = self._report
        with transaction() as session:
            ids = ids_found(session, self._job_id, report.entity, "to_recheck")
        findings = recheck(self._reader, ids[report.rechecked : report.rechecked + RECHECKED_AT_ONCE], report)
        report.rechecked = min(len(ids), report.rechecked + RECHECKED_AT_ONCE)
        if report.rechecked == len(ids):
            report.phase = "done"
        return self._note_nameless(StepItems(findings=findings))

    def _note_nameless(self, found: StepItems) -> StepItems:
        self._report.failed.update(self._reader.nameless)
        return found


def _some_of(highest: int, count: int) -> Iterator[int]:
    """Yield at most `count` different numbers from 1 to `highest`."""
    return iter(random.sample(range(1, highest + 1), min(count, highest)))
