"""The comparison of one entity, a step at a time and in bounded memory.

    walk       Pipedrive's pages by ascending id; each page is a bucket: Hull and the id map are read for its ids, the digests of
               the sides are compared, and only where they differ the records. What only the id map has shows in the gaps
    strangers  what only Hull has is found by counting, window by window
    recheck    what seems to differ is read again

A step writes what it found and how far it is in one transaction. Each page adds its ids to the items of the job: 1,000,000 records
take 16 MB, and 8 bytes more for each one that seems to differ; they are in memory while strangers are looked for.
"""

from __future__ import annotations

import random
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Final, Literal

from pydantic import BaseModel, Field, TypeAdapter
from sqlalchemy.orm import Session

from db import job_item as items
from db import verification
from db.id_mapping import mapping_counts
from db.session import transaction
from pipeline.domain.drift import DriftFinding
from pipeline.domain.json_text import read_lenient, write_lenient
from pipeline.domain.kinds import Entity
from pipeline.domain.paging import MOST_EMPTY
from pipeline.errors import Rejected
from pipeline.extract import ids_of
from pipeline.jobs.verify.reading import (
    ASKED_AT_ONCE,
    EVERYTHING,
    HIGHEST_ID,
    LOOK_AT_ONCE,
    Reader,
    ThreeSides,
    Window,
    recheck,
)
from pipeline.transform.comparison import drift_of_absent, find_drift, sides_agree

RECHECKED_AT_MOST: Final = 5_000
"""Records that are read again, 500 tokens; beyond this it is clear enough that something is wrong."""
STRANGERS_S: Final = 20.0
"""Seconds of one step that looks for what only Hull has."""
FINDINGS: Final = TypeAdapter(list[DriftFinding])


class EntityReport(BaseModel):
    """The progress of the comparison of one entity, and its result.

    pipedrive, hull     records that Pipedrive listed (None in a sample), and records of Hull with a `pipedrive/id` (None
                        if Hull refused to count them: records that only Hull has were then not searched)
    id_map              state → records; `without_hull_id` of them must be requested
    compared            records whose three sides were compared
    buckets, differing  pages, and those with different digests
    suspects            records that seem to differ
    findings            empty until `findings_of` fills it: they are items of the job
    unconfirmed         ids that seem to differ and were not read again; an item of the job too
    pending, failed     what records wait for, and the reason codes of known failures → how many
    outdated            records that are correct in Hull, although different values were stored as delivered
    cursor, above, empty  of the walk: its next page, the highest id so far, and pages without a record in a row
    windows             ids in Hull that are still to be counted
    rechecked           suspects that were read again
    """

    entity: Entity
    phase: Literal["start", "walk", "strangers", "recheck", "done"] = "start"
    pipedrive: int | None = None
    hull: int | None = None
    id_map: dict[str, int] = {}
    without_hull_id: int = 0
    compared: int = 0
    buckets: int = 0
    differing: int = 0
    suspects: int = 0
    findings: list[DriftFinding] = Field(default=[], exclude=True)
    unconfirmed: list[int] = Field(default=[], exclude=True)
    pending: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    outdated: int = 0
    cursor: str | None = None
    above: int = 0
    empty: int = 0
    windows: list[Window] = []
    rechecked: int = 0

    @property
    def drift(self) -> int:
        return len(self.findings) + len(self.unconfirmed)

    @property
    def expected(self) -> int:
        """Records of the id map: about as many will be compared."""
        return sum(self.id_map.values())


class StepItems(BaseModel):
    """What one step adds to the items of its job."""

    seen: list[int] = []
    suspects: list[int] = []
    to_recheck: list[int] = []
    unconfirmed: list[int] = []
    findings: list[DriftFinding] = []

    def write(self, session: Session, job_id: int, entity: Entity) -> None:
        """Add the items. The job must be locked."""
        for name in ("seen", "suspects", "to_recheck", "unconfirmed"):
            if ids := getattr(self, name):
                items.add_item(session, job_id, f"{entity}.{name}", array("q", ids).tobytes())
        if self.findings:
            dumped = write_lenient(FINDINGS.dump_python(self.findings, mode="json"))
            items.add_item(session, job_id, f"{entity}.findings", dumped)


def ids_found(session: Session, job_id: int, entity: Entity, name: str) -> array[int]:
    """Return the ids that the steps of a job added under this name, in their order."""
    found = array("q")
    for piece in items.items_of(session, job_id, f"{entity}.{name}"):
        found.frombytes(piece)
    return found


def with_findings(session: Session, job_id: int, report: EntityReport) -> EntityReport:
    """Return the report with its findings and unconfirmed ids."""
    pieces = items.items_of(session, job_id, f"{report.entity}.findings")
    findings = [each for piece in pieces for each in FINDINGS.validate_python(read_lenient(piece))]
    unconfirmed = list(ids_found(session, job_id, report.entity, "unconfirmed"))
    return report.model_copy(update={"findings": findings, "unconfirmed": unconfirmed})


class Comparison:
    """Does one step of one entity: `report` is changed, what was found is returned, and nothing is written."""

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
        if self._report.phase == "strangers":
            return self._find_strangers()
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
        found = StepItems(seen=sorted(sides.attributed), suspects=[*self._differing(sides), *self._unlisted(to, sides)])
        report.pipedrive = (report.pipedrive or 0) + len(sides.ids)
        report.suspects += len(found.suspects)
        report.cursor, report.above = page.next_cursor, to
        if page.next_cursor is None:
            report.phase, report.windows = "strangers", [EVERYTHING]
        return self._note_nameless(found)

    def _unlisted(self, to: int, sides: ThreeSides) -> list[int]:
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

    def _find_strangers(self) -> StepItems:
        """Find what has a `pipedrive/id` in Hull that Pipedrive does not list, as far as there is time."""
        report, found = self._report, StepItems()
        with transaction() as session:
            seen = array("q", sorted(ids_found(session, self._job_id, report.entity, "seen")))
        try:
            report.hull = self._reader.count_held() if report.windows == [EVERYTHING] else report.hull
            ends_at = time.monotonic() + STRANGERS_S
            while report.windows and time.monotonic() < ends_at:
                found.suspects += self._reader.strangers(seen, report.windows)
        except Rejected:
            report.hull, report.windows = None, []
        report.suspects += len(found.suspects)
        return found if report.windows else self._begin_recheck(found, RECHECKED_AT_MOST)

    def _draw(self) -> StepItems:
        """Draw ids from the id map, from Hull and from Pipedrive, a third each.

        Where one is drawn twice, or a side has too few, the id map gives more.
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
        """Ids up to the highest of Pipedrive, whether or not a record has them; then ids that Hull has."""
        yield from _some_of(self._reader.highest_id(), each)
        try:
            self._report.hull = self._reader.count_held()
        except Rejected:
            return
        pages = _some_of(-(-self._report.hull // ASKED_AT_ONCE), -(-each // ASKED_AT_ONCE))
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
        result = recheck(self._reader, ids[report.rechecked : report.rechecked + LOOK_AT_ONCE])
        report.rechecked = min(len(ids), report.rechecked + LOOK_AT_ONCE)
        report.pending += result.pending
        report.failed += result.failed
        report.outdated += result.outdated
        if report.rechecked == len(ids):
            report.phase = "done"
        return self._note_nameless(StepItems(findings=result.findings))

    def _note_nameless(self, found: StepItems) -> StepItems:
        self._report.failed.update(self._reader.nameless)
        return found


def _some_of(highest: int, count: int) -> Iterator[int]:
    """At most `count` different numbers from 1 to `highest`."""
    return iter(random.sample(range(1, highest + 1), min(count, highest)))
