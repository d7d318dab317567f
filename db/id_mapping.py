"""The id map: which User is which Person, which Account is which Organization, and what Hull last received."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Index, Integer, LargeBinary, SmallInteger, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.base import Base, RowId
from db.statement import Statement, bigints, texts

UNCERTAIN = ""
"""Digest of a record with uncertain values in Hull: the next reading is sent completely."""
CONTRADICTED = "contradicted"
"""Digest of a record with known differences in Hull: only these are sent again."""
NEVER = 2**62
"""The version of a deleted record: no page in flight can restore it."""
MERGES_IN_A_ROW = 50
"""Maximum length of a chain of merges, in case a chain is a circle."""


_OF_ENTITY = ("connector_key", "entity")


class IdMapping(Base):
    """One pair of Hull id and Pipedrive id.

    state      `creating`, `unknown`, `shell`, `full`, `gone`, `deleted`, `merged`, `conflict`
    version    `update_time` of the newest synchronized state, in seconds since the epoch
    digest     of the last delivery to Hull and of the mapping: a record with an equal one need not be delivered again
    delivered  the attributes that Hull last received and that are not null, as JSON
    """

    __tablename__ = "id_mappings"
    __table_args__ = (
        Index(
            "uq_id_mappings_pipedrive",
            *_OF_ENTITY,
            "pipedrive_id",
            unique=True,
            postgresql_where=text("pipedrive_id IS NOT NULL"),
        ),
        Index("uq_id_mappings_hull", *_OF_ENTITY, "hull_id", unique=True, postgresql_where=text("hull_id IS NOT NULL")),
        Index("ix_id_mappings_unresolved", "connector_key", "resolve_at", postgresql_where=text("hull_id IS NULL")),
        Index(
            "ix_id_mappings_merged", "connector_key", "merged_into", postgresql_where=text("merged_into IS NOT NULL")
        ),
        Index("ix_id_mappings_shells", "connector_key", "first_seen_at", postgresql_where=text("state = 'shell'")),
        Index(
            "ix_id_mappings_awaiting",
            "connector_key",
            "awaits_account",
            postgresql_where=text("awaits_account IS NOT NULL"),
        ),
        {"postgresql_with": {"fillfactor": "85"}},
    )

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer)
    entity: Mapped[str]
    pipedrive_id: Mapped[int | None]
    hull_id: Mapped[str | None]
    state: Mapped[str]
    version: Mapped[int] = mapped_column(server_default="0")
    digest: Mapped[str | None]
    delivered: Mapped[bytes | None] = mapped_column(LargeBinary)
    matched_by: Mapped[str]
    """`fetched`, `referenced`, `webhook`, `report`, `created`, or the kind of identifier that matched."""
    merged_into: Mapped[int | None]
    """The record into which this one was merged; that one may be merged too."""
    absences: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Consecutive answers without this id although it was requested; an answer with it resets the number."""
    deleted_at: Mapped[datetime | None]
    requested_at: Mapped[datetime | None]
    """When a shell was last requested by its id."""
    first_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    resolve_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    """When to query Hull again for the Hull id; null if Hull never received the record."""
    resolve_attempts: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Consecutive answers of Hull's search without the record; each doubles the pause before the next query."""
    awaits_account: Mapped[str | None]
    """Hull id of the Account to link the Person to once it has an Organization."""
    intent_at: Mapped[datetime | None]
    """When the create intent was stored."""
    outgoing: Mapped[bytes | None] = mapped_column(LargeBinary)
    """What is remembered of its writes: a `pipeline.domain.records.Memory` as JSON."""


@dataclass(frozen=True, slots=True)
class Known:
    """The stored state of a Pipedrive record, before its newest state is processed."""

    pipedrive_id: int
    state: str
    version: int
    digest: str | None
    delivered: bytes | None
    hull_id: str | None


def known(
    session: Session,
    connector_key: int,
    entity: str,
    pipedrive_ids: Sequence[int],
    *,
    unchanged: Iterable[tuple[str, int]] = (),
) -> dict[int, Known]:
    """Return Pipedrive id → its stored state.

    unchanged  (digest, version) of records as just read: a record with exactly these is returned without `delivered`, which is not
               needed then and is nine tenths of the answer
    """
    scope = {"c": connector_key, "e": entity, "ids": bigints(pipedrive_ids)}
    same = texts(f"{digest}:{version}" for digest, version in unchanged)
    return {row[0]: Known(*row) for row in _KNOWN.rows(session, {**scope, "same": same})}


_KNOWN = Statement("""
    SELECT pipedrive_id, state, version, digest,
           CASE WHEN digest || ':' || version = ANY(CAST(:same AS text[])) THEN NULL ELSE delivered END, hull_id
      FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))""")

COUNTED_EXACTLY = 20_000
_KNOWN_TO_PIPEDRIVE = """FROM id_mappings WHERE connector_key = :c AND entity = :e AND pipedrive_id IS NOT NULL
    AND (CAST(:states AS text[]) IS NULL OR state = ANY(CAST(:states AS text[])))"""
_COUNT_SOME = text(f"SELECT count(*) FROM (SELECT {_KNOWN_TO_PIPEDRIVE} LIMIT :most) found")  # noqa: S608 - a constant of ours
_GUESS = text(f"EXPLAIN (FORMAT JSON) SELECT {_KNOWN_TO_PIPEDRIVE}")


def count_known(session: Session, connector_key: int, entity: str, states: Iterable[str] | None = None) -> int:
    """Return the number of records with a Pipedrive id, of all states including shells or of these.

    Above `COUNTED_EXACTLY` it is an estimate of PostgreSQL's statistics in thousands: counting a million takes half a second.
    """
    scope = {"c": connector_key, "e": entity, "states": None if states is None else texts(states)}
    some = int(session.execute(_COUNT_SOME, {**scope, "most": COUNTED_EXACTLY}).scalar_one())
    if some < COUNTED_EXACTLY:
        return some
    (plan,) = session.execute(_GUESS, scope).scalar_one()
    return max(some, round(int(plan["Plan"]["Plan Rows"]), -3))


def find_by_hull_ids(session: Session, connector_key: int, entity: str, hull_ids: Sequence[str]) -> dict[str, int]:
    """Return Hull id → Pipedrive id of its record; of a merged record, the one into which it was merged."""
    scope = {"c": connector_key, "e": entity}
    rows = session.execute(_BY_HULL, {**scope, "ids": texts(hull_ids)}).all()
    joined = {row.hull_id: row.pipedrive_id for row in rows if row.state != "merged"}
    merged = {row.hull_id: row.pipedrive_id for row in rows if row.state == "merged"}
    if not merged:
        return joined
    became = follow_merges(session, connector_key, entity, merged.values())
    living = known(session, connector_key, entity, list(became.values()))
    return joined | {
        hull_id: became[pipedrive_id]
        for hull_id, pipedrive_id in merged.items()
        if became[pipedrive_id] in living and living[became[pipedrive_id]].state in ("shell", "full")
    }


_BY_HULL = text("""
    SELECT hull_id, pipedrive_id, state FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND hull_id = ANY(CAST(:ids AS text[])) AND coalesce(pipedrive_id, 0) <> 0
       AND state IN ('shell', 'full', 'merged')""")
"""Not `IS NOT NULL`: the index by Pipedrive id would fit it too, and read every mapping of the entity."""

_MERGED_INTO = text("""
    SELECT pipedrive_id, merged_into FROM id_mappings
     WHERE connector_key = :c AND entity = :e AND pipedrive_id = ANY(CAST(:ids AS bigint[]))
       AND state = 'merged' AND merged_into IS NOT NULL""")


def follow_merges(session: Session, connector_key: int, entity: str, pipedrive_ids: Iterable[int]) -> dict[int, int]:
    """Return Pipedrive id → the record into which it was merged, over any number of merges; itself without a merge."""
    became = {pipedrive_id: pipedrive_id for pipedrive_id in pipedrive_ids}
    for _ in range(MERGES_IN_A_ROW):
        scope = {"c": connector_key, "e": entity, "ids": bigints(set(became.values()))}
        step = {row.pipedrive_id: row.merged_into for row in session.execute(_MERGED_INTO, scope)}
        if not step:
            break
        became = {first: step.get(last, last) for first, last in became.items()}
    return became


@dataclass(frozen=True, slots=True)
class MappingCount:
    """The number of id mappings of one entity in one state, and how many of them have a Hull id."""

    entity: str
    state: str
    records: int
    with_hull_id: int

    @property
    def without_hull_id(self) -> int:
        return self.records - self.with_hull_id


def mapping_counts(session: Session, connector_key: int) -> list[MappingCount]:
    """Return the numbers of id mappings by entity and state."""
    query = (
        select(IdMapping.entity, IdMapping.state, func.count(), func.count(IdMapping.hull_id))
        .where(IdMapping.connector_key == connector_key)
        .group_by(IdMapping.entity, IdMapping.state)
        .order_by(IdMapping.entity, IdMapping.state)
    )
    return [MappingCount(*row) for row in session.execute(query)]


def any_read(session: Session, connector_key: int, entity: str) -> bool:
    """Return whether a record of the entity was ever read and delivered."""
    read = select(IdMapping.id).filter_by(connector_key=connector_key, entity=entity, state="full").limit(1)
    return session.scalar(read) is not None


def oldest_shell(session: Session, connector_key: int) -> datetime | None:
    """Return since when the oldest shell waits."""
    return session.scalar(
        select(func.min(IdMapping.first_seen_at)).filter_by(connector_key=connector_key, state="shell")
    )


def find_mapping(session: Session, connector_key: int, record: str) -> list[IdMapping]:
    """Return the mappings of a Pipedrive id or a Hull id."""
    query = select(IdMapping).filter_by(connector_key=connector_key)
    where = IdMapping.pipedrive_id == int(record) if record.isdigit() else IdMapping.hull_id == record
    return list(session.scalars(query.where(where).limit(10)))
