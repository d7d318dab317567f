"""The look-up before a create: which records of Pipedrive answer to a claim, loaded here or not.

    staged   records that were listed and are not loaded yet: Hull may be down, or their batch failed; those that answer are read
             again
    listed   what changed and what was added since the index was last up to date, page by page
    indexed  what the index holds of everybody else
    searched where the index is not complete, or the list was too long: Pipedrive's search, claim by claim

What is listed goes the way of everything that comes in, as batches that begin with transform. Their pages can be looked into as
long as they are not loaded, so the next look-up need not list the same again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.orm import Session

from db import batch as batches
from db import batch_queue, id_mapping, identifier_search, watermark
from db.batch import LISTED, Batch, ClaimedBatch, wakeup_of
from db.id_mapping import CONTRADICTED, UNCERTAIN, Known
from db.identifier import SEVERAL
from db.session import after_commit, transaction
from db.watermark import IndexFreshness
from pipeline.domain.deletions import DELETED_STATES
from pipeline.domain.json_text import write_lenient
from pipeline.domain.kinds import Claim, Direction, Entity
from pipeline.domain.records import IncomingRecord
from pipeline.domain.times import version_of
from pipeline.errors import Rejected, Skip
from pipeline.extract import Extent, id_of, read_by_ids, search_claim, walk_added, walk_changed, was_added_since
from pipeline.sync.compiled import Plan
from pipeline.sync.outgoing.resolve import Pair
from pipeline.sync.staging import pack_page, unpack_page
from pipeline.tasks import canvases
from pipeline.telemetry import logger
from pipeline.wiring import Wired

OVERLAP: Final = timedelta(seconds=60)
"""How far before the last list the next one begins: the clocks of both sides may differ by this much."""
_UNKNOWABLE: Final = (None, UNCERTAIN, CONTRADICTED)
"""Digests that do not reveal a record's content."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupQuery:
    """The input of a look-up.

    claims  record to be created → its claims, the strongest first
    older   time of the oldest intent that may have created its record already; None if all are new
    """

    claims: Mapping[str, Sequence[Pair]]
    older: datetime | None


@dataclass(slots=True, kw_only=True)
class Answers:
    """The result of a look-up.

    by_claim  (claim, value) → Pipedrive ids
    records   records that were read, by id: matches, and those created since the oldest intent
    blind     records to be created of which it is not known yet whether Pipedrive has them
    changed_is_whole, added_is_whole  whether the lists were read completely
    """

    by_claim: dict[Pair, list[int]] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    blind: list[str] = field(default_factory=list)
    changed_is_whole: bool = True
    added_is_whole: bool = True


def look_up(batch: ClaimedBatch, wired: Wired, plan: Plan, wanted: LookupQuery, index: IndexFreshness) -> Answers:
    """Find the records that match the claims. Pipedrive's lists win over staged pages, and these over the index.

    index  how up to date it was before the look-up
    Raises: the client's errors.
    """
    pairs = {pair for claims in wanted.claims.values() for pair in claims}
    staged = _Collected(plan, pairs)
    for page in _staged_pages(batch):
        staged.take(page)
    listed = _list(batch, wired, plan, _Collected(plan, pairs, wanted.older), wanted, index, staged)
    answers = Answers(
        records=listed.records, changed_is_whole=listed.changed_is_whole, added_is_whole=listed.added_is_whole
    )
    with transaction() as session:
        known = id_mapping.known(session, batch.connector_key, batch.entity, list(staged.versions))
        held = identifier_search.find_records(session, batch.connector_key, batch.entity, pairs)
        shared = identifier_search.find_shared(session, batch.connector_key, batch.entity, pairs)
    ahead = {
        each for each in staged.versions if _is_ahead(known.get(each), staged.versions[each], staged.digests[each])
    }
    ahead -= listed.versions.keys()
    shown = _read_again(wired, plan, pairs, [each for each in ahead if each in staged.pairs])
    answers.records |= shown.records
    found: dict[Pair, set[int]] = {
        pair: {each for each in ids if each not in listed.versions and each not in ahead} for pair, ids in held.items()
    }
    for pipedrive_id, its_pairs in (*listed.pairs.items(), *shown.pairs.items()):
        for pair in its_pairs:
            found.setdefault(pair, set()).add(pipedrive_id)
    answers.by_claim = {
        pair: sorted(ids) for pair, ids in found.items() if ids and pair not in shared and not _is_shared(pair, ids)
    }
    if not (index.is_complete and answers.changed_is_whole and answers.added_is_whole):
        _search(wired, plan, wanted, answers)
    return answers


def _is_shared(pair: Pair, ids: Collection[int]) -> bool:
    """Return whether so many Organizations have this domain that it identifies none of them."""
    return pair[0] == Claim.DOMAIN and len(ids) >= SEVERAL


class _Collected:
    """Collects the looked-up claims from pages; a later page wins.

    recent_from  records added since then are kept whatever their claims
    """

    def __init__(self, plan: Plan, wanted: set[Pair], recent_from: datetime | None = None) -> None:
        self._plan = plan
        self._wanted = wanted
        self._recent_from = recent_from - OVERLAP if recent_from is not None else None
        self.versions: dict[int, int] = {}
        self.digests: dict[int, str] = {}
        self.pairs: dict[int, list[Pair]] = {}
        self.records: dict[int, Record] = {}
        self.changed_is_whole = self.added_is_whole = True

    def take(self, page: Iterable[Any]) -> dict[int, Record]:
        """Add a page; return its records that differ from what was added before."""
        news: dict[int, Record] = {}
        for record in page:
            pipedrive_id = id_of(record)
            if pipedrive_id is None:
                continue
            read = _read(self._plan, record)
            version, digest = version_of(record) or 0, read.digest if read is not None else ""
            if (self.versions.get(pipedrive_id), self.digests.get(pipedrive_id)) == (version, digest):
                continue
            news[pipedrive_id] = record
            self.versions[pipedrive_id], self.digests[pipedrive_id] = version, digest
            mine = [pair for pair in _pairs_of(read) if pair in self._wanted]
            self.pairs.pop(pipedrive_id, None)
            self.records.pop(pipedrive_id, None)
            if mine:
                self.pairs[pipedrive_id] = mine
            if mine or (self._recent_from is not None and was_added_since(record, self._recent_from)):
                self.records[pipedrive_id] = record
        return news


def _read(plan: Plan, record: Record) -> IncomingRecord | None:
    """The record in our words; None for one that is deleted or cannot be read: nothing is matched with it."""
    try:
        return plan.incoming.read(record)
    except (Rejected, Skip):
        return None
    except Exception as defect:  # noqa: BLE001 - ours: the batch it is in fails and says so, and the others' creates go on
        logger().warning("look_up.unreadable", pipedrive_id=id_of(record), error=type(defect).__name__)
        return None


def _pairs_of(read: IncomingRecord | None) -> list[Pair]:
    return [] if read is None else [*read.claims.items(), *read.aliases]


def _staged_pages(batch: ClaimedBatch) -> Iterator[list[Any]]:
    """Yield pages that were listed and are not loaded, oldest first, one in memory at a time. A page that is loaded at
    the same time is in
    the index, which is read after them.
    """
    with transaction() as session:
        ids = batches.unloaded(session, batch.connector_key, batch.entity)
    for batch_id in ids:
        with transaction() as session:
            staged = batches.staged_page(session, batch_id)
        if staged is not None:
            yield unpack_page(staged)[0]


def _read_again(wired: Wired, plan: Plan, pairs: set[Pair], pipedrive_ids: Iterable[int]) -> _Collected:
    """Read the staged records that answer: a failed page may be days old, and a record may have changed or gone since."""
    ids, shown = sorted(pipedrive_ids), _Collected(plan, pairs)
    if ids:
        shown.take(read_by_ids(wired.pipedrive, plan.incoming.entity, ids, plan.incoming.include_fields))
    return shown


def _list(
    batch: ClaimedBatch,
    wired: Wired,
    plan: Plan,
    listed: _Collected,
    wanted: LookupQuery,
    index: IndexFreshness,
    staged: _Collected,
) -> _Collected:
    """List what the index does not have yet, and stage it; the mark moves to the end of the lists."""
    entity = Entity(batch.entity)
    older = [] if wanted.older is None else [wanted.older]
    ask = (wired.pipedrive, entity)
    fields = plan.incoming.include_fields
    changed, added = Extent(), Extent()
    news: list[tuple[bytes, int]] = []
    for page in walk_changed(*ask, min([index.changed_since, *older]) - OVERLAP, fields, changed):
        _keep_news(batch, listed.take(page), listed, staged, news)
    for page in walk_added(*ask, min([index.added_since, *older]) - OVERLAP, fields, added):
        _keep_news(batch, listed.take(page), listed, staged, news)
    listed.changed_is_whole, listed.added_is_whole = changed.is_whole, added.is_whole
    with transaction() as session:
        batches.hold(session, batch)
        for packed, count in news:
            _stage(session, batch, packed, count)
        if added.is_whole:  # of a list by time that was cut, what it showed is proven; of one by id, nothing is
            until = index.now if changed.is_whole else datetime.fromtimestamp(changed.until_s or 0, UTC)
            watermark.note_listed(session, batch.connector_key, batch.entity, min(until, index.now))
    return listed


def _keep_news(
    batch: ClaimedBatch,
    fresh: dict[int, Record],
    listed: _Collected,
    staged: _Collected,
    news: list[tuple[bytes, int]],
) -> None:
    """Pack the records of a page that are neither loaded nor staged in this state."""
    with transaction() as session:
        known = id_mapping.known(session, batch.connector_key, batch.entity, list(fresh))
    records = []
    for pipedrive_id, record in fresh.items():
        version, digest = listed.versions[pipedrive_id], listed.digests[pipedrive_id]
        is_staged = (staged.versions.get(pipedrive_id), staged.digests.get(pipedrive_id)) == (version, digest)
        if not is_staged and _is_ahead(known.get(pipedrive_id), version, digest):
            records.append(record)
    if records:
        news.append((pack_page(write_lenient({"data": records})), len(records)))


def _is_ahead(known: Known | None, version: int, digest: str) -> bool:
    """Whether the id map does not hold this state of a record yet: an older one, another one of the same second, or none."""
    if known is None or known.version < version:
        return True
    if known.state in DELETED_STATES:  # Pipedrive shows it: it was restored, and a reading by its id will confirm it
        return True
    return known.version == version and bool(digest) and known.digest not in (*_UNKNOWABLE, digest)


def _stage(session: Session, batch: ClaimedBatch, packed: bytes, count: int) -> None:
    """Stage a page as a separate batch, which begins with transform."""
    row = Batch(
        connector_key=batch.connector_key,
        direction=Direction.INCOMING,
        entity=batch.entity,
        queue="live",
        stage="transform",
        state="ready",
        cause=LISTED,
        extracted=packed,
        records=count,
    )
    session.add(row)
    session.flush()
    batch_queue.mark_enqueued(session, row.id)
    wakeup = wakeup_of(row)
    after_commit(session, lambda: canvases.wake([wakeup]))


def _search(wired: Wired, plan: Plan, wanted: LookupQuery, answers: Answers) -> None:
    """Use Pipedrive's search for the claims without a match, the strongest claim of each record first. If a claim's
    field cannot be searched, only the complete index can answer.
    """
    entity = plan.incoming.entity
    open_ = {hull_id: list(claims) for hull_id, claims in wanted.claims.items()}
    while open_:
        asked: dict[Pair, list[int]] = {}
        for hull_id, claims in list(open_.items()):
            pair = claims.pop(0) if claims else None
            if pair is None or answers.by_claim.get(pair):
                del open_[hull_id]
                continue
            ids = asked.get(pair)
            if ids is None:
                ids = search_claim(wired.pipedrive, entity, pair[0], plan.claim_field(pair[0]), pair[1])
            if ids is None:
                answers.blind.append(hull_id)
                del open_[hull_id]
            else:
                asked[pair] = ids
        _keep_true(wired, plan, asked, answers)


def _keep_true(wired: Wired, plan: Plan, asked: Mapping[Pair, list[int]], answers: Answers) -> None:
    """The search's index may lag, and its comparison is not documented: only the record itself counts."""
    ids = sorted({each for found in asked.values() for each in found} - answers.records.keys())
    entity = plan.incoming.entity
    read = read_by_ids(wired.pipedrive, entity, ids, plan.incoming.include_fields) if ids else []
    answers.records |= {record_id: record for record in read if (record_id := id_of(record)) is not None}
    for pair, found in asked.items():
        true = [
            each for each in found if each in answers.records and pair in _pairs_of(_read(plan, answers.records[each]))
        ]
        if true:
            answers.by_claim[pair] = true
