"""The look-up before a create: find the records of Pipedrive that have a claim, whether they are loaded here or not.

    staged   records that were listed and are not loaded yet, because Hull is down or their batch failed; matches are read again
    listed   records that changed or were added since the index was last up to date
    indexed  all other records, in the local index
    searched Pipedrive's search, claim by claim, if the index is incomplete or a list was too long

Listed records are loaded like all incoming records, as batches that begin with transform. The next look-up reads their staged
pages and does not list the same records again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
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
from pipeline.domain.kinds import Claim, Direction
from pipeline.domain.records import IncomingRecord
from pipeline.domain.times import version_of
from pipeline.errors import Rejected, Skip
from pipeline.extract import Extent, id_of, read_by_ids, search_claim, walk_added, walk_changed, was_added_since
from pipeline.sync.compiled import CompiledSettings
from pipeline.sync.outgoing.resolve import Pair
from pipeline.sync.staging import pack_page, unpack_page
from pipeline.tasks import canvases
from pipeline.telemetry import logger
from pipeline.wiring import Wired

OVERLAP: Final = timedelta(seconds=60)
"""How far before the last list the next one begins, because clocks differ."""
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

    by_claim   (claim, value) → Pipedrive ids
    records    records that were read, by id: matches, and those created since the oldest intent
    undecided  Hull ids without an answer: Pipedrive may have the record
    changed_is_whole, added_is_whole  whether the lists were read completely
    """

    by_claim: dict[Pair, list[int]] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    undecided: list[str] = field(default_factory=list)
    changed_is_whole: bool = True
    added_is_whole: bool = True


def look_up(
    batch: ClaimedBatch, wired: Wired, plan: CompiledSettings, wanted: LookupQuery, index: IndexFreshness
) -> Answers:
    """Find the records that have the claims. Pipedrive's lists win over staged pages, and these over the index.

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
    """Return whether too many Organizations have this domain for it to identify one."""
    return pair[0] == Claim.DOMAIN and len(ids) >= SEVERAL


class _Collected:
    """Collects the looked-up claims from pages; a later page wins.

    recent_from  records added since then are kept even without a looked-up claim
    """

    def __init__(self, plan: CompiledSettings, wanted: set[Pair], recent_from: datetime | None = None) -> None:
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
        fresh: dict[int, Record] = {}
        for record in page:
            pipedrive_id = id_of(record)
            if pipedrive_id is None:
                continue
            read = _read(self._plan, record)
            version, digest = version_of(record) or 0, read.digest if read is not None else ""
            if (self.versions.get(pipedrive_id), self.digests.get(pipedrive_id)) == (version, digest):
                continue
            fresh[pipedrive_id] = record
            self.versions[pipedrive_id], self.digests[pipedrive_id] = version, digest
            mine = [pair for pair in _pairs_of(read) if pair in self._wanted]
            self.pairs.pop(pipedrive_id, None)
            self.records.pop(pipedrive_id, None)
            if mine:
                self.pairs[pipedrive_id] = mine
            if mine or (self._recent_from is not None and was_added_since(record, self._recent_from)):
                self.records[pipedrive_id] = record
        return fresh


def _read(plan: CompiledSettings, record: Record) -> IncomingRecord | None:
    """Return the converted record; None if it is deleted or cannot be read, so nothing matches it."""
    try:
        return plan.incoming.read(record)
    except (Rejected, Skip):
        return None
    except Exception as defect:  # noqa: BLE001 - a defect of ours: its own batch fails and reports it
        logger().warning("look_up.unreadable", pipedrive_id=id_of(record), error=type(defect).__name__)
        return None


def _pairs_of(read: IncomingRecord | None) -> list[Pair]:
    return [] if read is None else [*read.claims.items(), *read.aliases]


def _staged_pages(batch: ClaimedBatch) -> Iterator[list[Any]]:
    """Yield the listed pages that are not loaded, oldest first, one in memory at a time.

    A page that is loaded at the same time is in the index, which is read after them.
    """
    with transaction() as session:
        ids = batches.unloaded(session, batch.connector_key, batch.entity)
    for batch_id in ids:
        with transaction() as session:
            staged = batches.staged_page(session, batch_id)
        if staged is not None:
            yield unpack_page(staged)[0]


def _read_again(wired: Wired, plan: CompiledSettings, pairs: set[Pair], pipedrive_ids: Iterable[int]) -> _Collected:
    """Read the staged matches again: a failed page may be days old, and its records may have changed since."""
    ids, shown = sorted(pipedrive_ids), _Collected(plan, pairs)
    if ids:
        shown.take(read_by_ids(wired.pipedrive, plan.incoming.entity, ids, plan.incoming.include_fields))
    return shown


def _list(
    batch: ClaimedBatch,
    wired: Wired,
    plan: CompiledSettings,
    listed: _Collected,
    wanted: LookupQuery,
    index: IndexFreshness,
    staged: _Collected,
) -> _Collected:
    """List what the index does not have yet, stage it, and move the index's freshness to the end of the lists."""
    older = [] if wanted.older is None else [wanted.older]
    pipedrive, fields = wired.pipedrive, plan.incoming.include_fields
    changed, added = Extent(), Extent()
    pages = chain(
        walk_changed(pipedrive, batch.entity, min([index.changed_since, *older]) - OVERLAP, fields, changed),
        walk_added(pipedrive, batch.entity, min([index.added_since, *older]) - OVERLAP, fields, added),
    )
    to_stage = [new for page in pages if (new := _pack_new(batch, listed.take(page), listed, staged))]
    listed.changed_is_whole, listed.added_is_whole = changed.is_whole, added.is_whole
    with transaction() as session:
        batches.hold(session, batch)
        for packed, count in to_stage:
            _stage(session, batch, packed, count)
        if (
            added.is_whole
        ):  # the beginning of a list by time proves its time span; the beginning of one by id proves nothing
            until = index.now if changed.is_whole else datetime.fromtimestamp(changed.until_s or 0, UTC)
            watermark.note_listed(session, batch.connector_key, batch.entity, min(until, index.now))
    return listed


def _pack_new(
    batch: ClaimedBatch, fresh: dict[int, Record], listed: _Collected, staged: _Collected
) -> tuple[bytes, int] | None:
    """Return the packed records of a page that are neither loaded nor staged in this state, and their number; None for none."""
    with transaction() as session:
        known = id_mapping.known(session, batch.connector_key, batch.entity, list(fresh))
    records = []
    for pipedrive_id, record in fresh.items():
        version, digest = listed.versions[pipedrive_id], listed.digests[pipedrive_id]
        is_staged = (staged.versions.get(pipedrive_id), staged.digests.get(pipedrive_id)) == (version, digest)
        if not is_staged and _is_ahead(known.get(pipedrive_id), version, digest):
            records.append(record)
    return (pack_page(write_lenient({"data": records})), len(records)) if records else None


def _is_ahead(known: Known | None, version: int, digest: str) -> bool:
    """Return whether the id map lacks this state: it has no state, an older one, or another one of the same second."""
    if known is None or known.version < version:
        return True
    if known.state in DELETED_STATES:  # it was restored, and a reading by its id will confirm that
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


def _search(wired: Wired, plan: CompiledSettings, wanted: LookupQuery, answers: Answers) -> None:
    """Use Pipedrive's search for the claims without a match, the strongest claim of each record first.

    If a claim's field cannot be searched, only the complete index can answer.
    """
    entity = plan.incoming.entity
    open_ = {hull_id: list(claims) for hull_id, claims in wanted.claims.items()}
    while open_:
        searched: dict[Pair, list[int]] = {}
        for hull_id, claims in list(open_.items()):
            pair = claims.pop(0) if claims else None
            if pair is None or answers.by_claim.get(pair):
                del open_[hull_id]
                continue
            ids = searched.get(pair)
            if ids is None:
                ids = search_claim(wired.pipedrive, entity, pair[0], plan.claim_field(pair[0]), pair[1])
            if ids is None:
                answers.undecided.append(hull_id)
                del open_[hull_id]
            else:
                searched[pair] = ids
        _confirm_matches(wired, plan, searched, answers)


def _confirm_matches(
    wired: Wired, plan: CompiledSettings, searched: Mapping[Pair, list[int]], answers: Answers
) -> None:
    """Add the search results, if the record itself has the claim: the search may lag, and its comparison is not documented."""
    ids = sorted({each for found in searched.values() for each in found} - answers.records.keys())
    entity = plan.incoming.entity
    read = read_by_ids(wired.pipedrive, entity, ids, plan.incoming.include_fields) if ids else []
    answers.records |= {record_id: record for record in read if (record_id := id_of(record)) is not None}
    for pair, found in searched.items():
        true = [
            each for each in found if each in answers.records and pair in _pairs_of(_read(plan, answers.records[each]))
        ]
        if true:
            answers.by_claim[pair] = true
