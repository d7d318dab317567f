"""The comparison of one entity, in bounded memory.

Pipedrive is walked once by pages, and each page is a bucket: Hull and the id map are asked for its ids, each side's words
become a digest, and only where two digests differ are the bucket's records compared one by one. What differs is looked at
again after the walk (`verify_second_look`). What only the id map has shows in the gaps of the pages; what only Hull has is
found by counting, window by window.

In memory stand one bucket of each side, and two 8-byte ids for every record: 1,000,000 records take 16 MB, and 8 bytes more
for each one that seems to differ.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from db import verification
from db.id_mapping import mapping_counts
from db.session import transaction
from pipeline.domain.drift import DriftFinding
from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected
from pipeline.jobs.verify.reading import ASKED_AT_ONCE, HIGHEST_ID, Reader, Sides
from pipeline.jobs.verify.recheck import look_again
from pipeline.transform.comparison import in_step, judge, judge_absent

SECOND_LOOKS = 5_000
"""Records that are looked at again, 500 tokens; beyond this it is clear enough that something is wrong."""


@dataclass(slots=True, kw_only=True)
class EntityReport:
    """What came out for one entity.

    pipedrive, hull     records that Pipedrive listed (None in a sample), and records of Hull with a `pipedrive/id` (None
                        where Hull refused to count them: what only Hull has was then not looked for)
    id_map              state → records; `without_hull_id` of them are to be asked for
    compared            records whose three sides were compared
    buckets, differing  pages, and those whose digests differed
    unconfirmed         ids that seem to differ and were not looked at again
    pending, failed     what records wait for, and the reason codes of those that are known to have failed → how many
    outdated            records that are in Hull as they should be, though something else was remembered as delivered
    """

    entity: Entity
    pipedrive: int | None = None
    hull: int | None = None
    id_map: dict[str, int] = field(default_factory=dict)
    without_hull_id: int = 0
    compared: int = 0
    buckets: int = 0
    differing: int = 0
    findings: list[DriftFinding] = field(default_factory=list)
    unconfirmed: list[int] = field(default_factory=list)
    pending: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    outdated: int = 0

    @property
    def drift(self) -> int:
        return len(self.findings) + len(self.unconfirmed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a comparison is; `expected` is the size of the id map."""

    entity: Entity
    compared: int
    expected: int
    suspects: int
    tokens: int


OnProgress = Callable[[Progress], None]


class Comparison:
    """Compares once; make a new one for the next."""

    def __init__(self, reader: Reader, on_progress: OnProgress) -> None:
        self._reader = reader
        self._on_progress = on_progress
        self._report = EntityReport(entity=reader.entity)
        self._link = reader.entity is Entity.PERSON and reader.plan.settings.link_users_in_hull
        self._listed = array("q")
        self._seen = array("q")
        self._suspects = array("q")
        with transaction() as session:
            counts = [each for each in mapping_counts(session, reader.wired.key) if each.entity == reader.entity]
        self._report.id_map = {each.state: each.records for each in counts}
        self._report.without_hull_id = sum(each.without_hull_id for each in counts)

    def of_all(self) -> EntityReport:
        """Walk every page, then look for what no page had."""
        above = 0
        for records, is_last in self._reader.pages():
            sides = self._reader.sides_of_page(records)
            to = HIGHEST_ID if is_last else max([above, *sides.ids])
            self._compare(sides)
            self._suspects.extend(self._unlisted(above, to, sides))
            self._tell()
            above = to
        self._report.pipedrive = len(self._listed)
        self._find_strangers()
        return self._conclude(SECOND_LOOKS)

    def of_sample(self, count: int) -> EntityReport:
        """Draw ids from the id map, from Hull and from Pipedrive, a third each, and compare those.

        Where one is drawn twice, or a side has too few, the id map gives more.
        """
        with transaction() as session:
            mapped = verification.sample_mapped(session, self._reader.wired.key, self._reader.entity, count)
        third = -(-count // 3)
        drawn = dict.fromkeys([*mapped[:third], *self._drawn_elsewhere(third), *mapped[third:]])
        chosen = sorted(islice(drawn, count))
        self._report.compared = len(chosen)
        self._suspects.extend(chosen)
        return self._conclude(count)

    def _unlisted(self, above: int, to: int, sides: Sides) -> list[int]:
        with transaction() as session:
            scope = (session, self._reader.wired.key, self._reader.entity)
            return verification.unlisted_ids(*scope, above=above, to=to, listed=sides.ids)

    def _compare(self, sides: Sides) -> None:
        """One bucket."""
        report = self._report
        report.buckets += 1
        report.compared += len(sides.ids)
        report.failed.update(sides.refused.values())
        self._listed.extend(sides.ids)
        self._seen.extend(sorted(sides.attributed))
        if not sides.doubles and in_step(sides.records, sides.held, sides.mapped, link=self._link):
            return
        report.differing += 1
        doubted = {double_id for double_id, _ in sides.doubles}
        for pipedrive_id in sides.ids:
            if pipedrive_id in doubted or self._seems_wrong(sides, pipedrive_id):
                self._suspects.append(pipedrive_id)
            elif sides.is_outdated(pipedrive_id):
                report.outdated += 1

    def _seems_wrong(self, sides: Sides, pipedrive_id: int) -> bool:
        record, held, mapped = sides.of(pipedrive_id)
        if record is not None:
            return any(True for _ in judge(record, held, mapped, link=self._link))
        return (
            pipedrive_id not in sides.refused
            and judge_absent(pipedrive_id, held, mapped, marks=self._reader.marks) is not None
        )

    def _find_strangers(self) -> None:
        """What carries a `pipedrive/id` in Hull that Pipedrive does not list."""
        try:
            self._report.hull = self._reader.count_held()
            self._suspects.extend(self._reader.strangers(self._seen))
        except Rejected:
            self._report.hull = None

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

    def _conclude(self, looks: int) -> EntityReport:
        """Look again at what seemed to differ."""
        report = self._report
        ids = sorted(set(self._suspects))
        report.unconfirmed = ids[looks:]
        verdict = look_again(self._reader, ids[:looks])
        report.findings += verdict.findings
        report.pending += verdict.pending
        report.failed += verdict.failed
        report.failed.update(self._reader.nameless)
        report.outdated += verdict.outdated
        self._tell()
        return report

    def _tell(self) -> None:
        self._on_progress(
            Progress(
                entity=self._reader.entity,
                compared=self._report.compared,
                expected=sum(self._report.id_map.values()),
                suspects=len(self._suspects),
                tokens=self._reader.wired.calls.tokens,
            )
        )


def _some_of(highest: int, count: int) -> Iterator[int]:
    """At most `count` different numbers from 1 to `highest`."""
    return iter(random.sample(range(1, highest + 1), min(count, highest)))
