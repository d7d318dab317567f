"""Plans: previews of what new settings would do, record by record, before they are put in force.

A plan is computed in slices. The results of a slice and the progress are written in one transaction, so that the plan can be
resumed after a kill. Items have the version of their record: applying the plan leaves out records that changed since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import zstandard
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    any_,
    delete,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from db import change_writer
from db.base import Base, Count, Created, RowId
from db.statement import bigints, texts
from pipeline.domain.json_text import read_lenient, write_lenient

LEVEL: Final = 1
RETENTION_DAYS: Final = 30
WRITTEN: Final = ("create", "update", "link", "resend")
"""Acts that always write something on the other side."""
CARRIED: Final = (*WRITTEN, "match", "lookup")
"""Acts of records that succeed, with or without a write."""
SENT: Final = (*CARRIED, "error", "unknown")
"""Acts of the Users and Accounts that are processed when the plan is applied: a rejected one becomes a Failure, and an unknown
one is resolved."""


class SettingsPlan(Base):
    """One plan.

    parent_id      the plan that left out the records of this one
    base_version   the settings in force when it was created: with any other version it is invalid
    definitions    entity → digest of Pipedrive's field definitions; `fields_read_at` is when the older of them were read
    phase, cursor  where the next slice begins
    counts         `direction.entity.act.…`, `….field.<name>`, `….reason.<act>.<code>` → records
    known          number of records to preview, counted when it was created; `examined` were previewed
    """

    __tablename__ = "plans"
    __table_args__ = (Index("ix_plans_latest", "connector_key", "id"),)

    id: Mapped[RowId]
    connector_key: Mapped[int] = mapped_column(Integer, ForeignKey("connectors.key"))
    parent_id: Mapped[int | None] = mapped_column(BigInteger, ForeignKey("plans.id"))
    base_version: Mapped[int] = mapped_column(Integer)
    document: Mapped[dict[str, Any]]
    definitions: Mapped[dict[str, Any]]
    fields_read_at: Mapped[datetime | None]
    author: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="computing")
    """`computing`, `ready`, `applied`, `refused`, `discarded` or `stopped` (it could not be computed)."""
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    phase: Mapped[int] = mapped_column(Integer, server_default="0")
    cursor: Mapped[str] = mapped_column(server_default="")
    counts: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    known: Mapped[Count]
    examined: Mapped[Count]
    tokens: Mapped[Count]
    takes_s: Mapped[float] = mapped_column(Float, server_default="0")
    created_at: Mapped[Created]
    ready_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    ended_by: Mapped[str | None]
    settings_version: Mapped[int | None] = mapped_column(Integer)
    """The version that was put in force by applying it."""


class PlanItem(Base):
    """The preview of one record in a plan. Unchanged records have one too, with their version.

    record_id        Pipedrive id of an incoming record, Hull id of an outgoing one
    version, digest  of its id mapping at that time; `report_version` is the version of Hull's report
    names            the attributes or fields that would change, or that have a problem
    fields           these with their values before and after, as compressed JSON
    message          of an Account that only its Users mention: the message to send, as compressed JSON
    """

    __tablename__ = "plan_items"
    __table_args__ = (
        Index("ix_plan_items_act", "plan_id", "direction", "entity", "act", "record_id"),
        {"postgresql_with": {"toast_tuple_target": "8160"}},
    )

    plan_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True)
    direction: Mapped[str] = mapped_column(primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    record_id: Mapped[str] = mapped_column(primary_key=True)
    pipedrive_id: Mapped[int | None]
    act: Mapped[str]
    """`create`, `update`, `link`, `resend` (Hull receives the record again although no value differs, because the new
    mapping reads it), `match` (mapped to a record with the same values), `lookup` (created or matched, after a look-up
    in Pipedrive), `same`, `skip`, `error` or `unknown`; `moved` after it was left out.
    """
    reason: Mapped[str | None]
    detail: Mapped[str | None]
    version: Mapped[int | None]
    digest: Mapped[str | None]
    report_version: Mapped[int | None]
    names: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    fields: Mapped[bytes | None] = mapped_column(LargeBinary)
    message: Mapped[bytes | None] = mapped_column(LargeBinary)


class PlanClaim(Base):
    """The first User or Account of a plan with one claim, or with one record of Pipedrive."""

    __tablename__ = "plan_claims"

    plan_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("plans.id", ondelete="CASCADE"), primary_key=True)
    entity: Mapped[str] = mapped_column(primary_key=True)
    claim: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    record_id: Mapped[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """A new `PlanItem`; each of `fields` is {"field", "before", "after"}, with "problem" if there is one."""

    direction: str
    entity: str
    record_id: str
    act: str
    pipedrive_id: int | None = None
    reason: str | None = None
    detail: str | None = None
    version: int | None = None
    digest: str | None = None
    report_version: int | None = None
    fields: tuple[dict[str, Any], ...] = ()
    message: dict[str, Any] | None = None


_ADD = text("""
    INSERT INTO plan_items (plan_id, direction, entity, record_id, pipedrive_id, act, reason, detail, version, digest,
                            report_version, names, fields, message)
    SELECT :plan, t.direction, t.entity, t.record_id, t.pipedrive_id, t.act, t.reason, t.detail, t.version, t.digest,
           t.report_version, CASE WHEN t.names <> '[]' THEN ARRAY(SELECT jsonb_array_elements_text(t.names::jsonb)) END,
           t.fields, t.message
      FROM unnest(CAST(:direction AS text[]), CAST(:entity AS text[]), CAST(:record_id AS text[]),
                  CAST(:pipedrive_id AS bigint[]), CAST(:act AS text[]), CAST(:reason AS text[]), CAST(:detail AS text[]),
                  CAST(:version AS bigint[]), CAST(:digest AS text[]), CAST(:report_version AS bigint[]),
                  CAST(:names AS text[]), CAST(:fields AS bytea[]), CAST(:message AS bytea[]))
           AS t(direction, entity, record_id, pipedrive_id, act, reason, detail, version, digest, report_version, names, fields,
                message)
        ON CONFLICT (plan_id, direction, entity, record_id) DO NOTHING
 RETURNING direction, entity, record_id""")


def add_items(session: Session, plan_id: int, items: Sequence[NewItem]) -> list[NewItem]:
    """Write the items of a slice; a record with an item keeps it. Return the new ones, which must be counted."""
    if not items:
        return []
    pack = zstandard.ZstdCompressor(level=LEVEL).compress
    plain = [each for each in NewItem.__slots__ if each not in ("fields", "message")]
    columns: dict[str, Any] = {name: [getattr(item, name) for item in items] for name in plain}
    columns["names"] = [write_lenient([each["field"] for each in item.fields]).decode() for item in items]
    columns["fields"] = [pack(write_lenient(item.fields)) if item.fields else None for item in items]
    columns["message"] = [pack(write_lenient(item.message)) if item.message is not None else None for item in items]
    added = {tuple(row) for row in session.execute(_ADD, {"plan": plan_id, **columns})}
    return [item for item in items if (item.direction, item.entity, item.record_id) in added]


def unpacked(packed: bytes | None) -> Any:
    """Return `fields` or `message` of an item; None if it is empty."""
    return None if packed is None else read_lenient(zstandard.ZstdDecompressor().decompress(bytes(packed)))


def get_plan(session: Session, plan_id: int) -> SettingsPlan | None:
    return session.get(SettingsPlan, plan_id)


def lock_plan(session: Session, plan_id: int) -> SettingsPlan | None:
    """Return a plan, locked until the transaction ends."""
    return session.get(SettingsPlan, plan_id, with_for_update={"key_share": True}, populate_existing=True)


def latest_plans(
    session: Session, connector_key: int, *, before_id: int | None = None, limit: int = 50
) -> list[SettingsPlan]:
    """Return plans, newest first."""
    query = select(SettingsPlan).filter_by(connector_key=connector_key).order_by(SettingsPlan.id.desc()).limit(limit)
    return list(session.scalars(query if before_id is None else query.where(SettingsPlan.id < before_id)))


def page_of_items(
    session: Session,
    plan_id: int,
    direction: str,
    entity: str,
    *,
    act: str | None = None,
    field: str | None = None,
    after: str = "",
    limit: int = 50,
) -> list[PlanItem]:
    """Return items after the record `after`, ordered by record id as text; without `act` all except unchanged ones."""
    query = (
        select(PlanItem)
        .filter_by(plan_id=plan_id, direction=direction, entity=entity)
        .where(PlanItem.record_id > after, PlanItem.act == act if act else PlanItem.act != "same")
        .order_by(PlanItem.record_id)
        .limit(limit)
    )
    return list(session.scalars(query.where(literal(field) == any_(PlanItem.names)) if field else query))


GIVEN: Final = {
    "create": "the Organization made for {}",
    "lookup": "the Organization found or made for {}",
    "match": "the Organization of {}",
    "update": "the Organization of {}",
    "link": "the Organization of {}",
}
"""Act that gives an Account an Organization → the text for that Organization."""


def given_organizations(session: Session, plan_id: int, account_ids: Sequence[str]) -> dict[str, str]:
    """Return Account → text for its Organization, for Accounts with one that the plan finds or creates."""
    found = items_among(session, plan_id, "outgoing", "organization", account_ids)
    return {record_id: GIVEN[act].format(record_id) for record_id, act in found.items() if act in GIVEN}


_ITEMS_AMONG = text("""
    SELECT w.id, i.act FROM unnest(CAST(:ids AS text[])) AS w(id)
     CROSS JOIN LATERAL (SELECT act FROM plan_items i
                          WHERE i.plan_id = :plan AND i.direction = :d AND i.entity = :e AND i.record_id = w.id LIMIT 1) i""")


def items_among(
    session: Session, plan_id: int, direction: str, entity: str, record_ids: Sequence[str]
) -> dict[str, str]:
    """Return record → its act, for records with an item."""
    if not record_ids:
        return {}
    scope = {"plan": plan_id, "d": direction, "e": entity, "ids": texts(record_ids)}
    return {row.id: row.act for row in session.execute(_ITEMS_AMONG, scope)}


_RESERVED = text("""
    SELECT w.claim, w.value, r.record_id
      FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[])) AS w(claim, value)
     CROSS JOIN LATERAL (SELECT record_id FROM plan_claims r
                          WHERE r.plan_id = :plan AND r.entity = :e AND r.claim = w.claim AND r.value = w.value LIMIT 1) r""")

_RESERVE = text("""
    INSERT INTO plan_claims (plan_id, entity, claim, value, record_id)
    SELECT :plan, :e, w.claim, w.value, w.id
      FROM unnest(CAST(:claims AS text[]), CAST(:vals AS text[]), CAST(:ids AS text[])) AS w(claim, value, id)
     ORDER BY w.claim, w.value
    ON CONFLICT DO NOTHING""")


def reserved(
    session: Session, plan_id: int, entity: str, pairs: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Return (claim, value) → the first User or Account with it in this plan."""
    if not pairs:
        return {}
    scope = {"plan": plan_id, "e": entity, "claims": texts(c for c, _ in pairs), "vals": texts(v for _, v in pairs)}
    return {(row.claim, row.value): row.record_id for row in session.execute(_RESERVED, scope)}


def reserve(session: Session, plan_id: int, entity: str, first: Mapping[tuple[str, str], str]) -> None:
    """Store (claim, value) → the first record with it."""
    if first:
        pairs = {"claims": texts(claim for claim, _ in first), "vals": texts(value for _, value in first)}
        session.execute(_RESERVE, {"plan": plan_id, "e": entity, **pairs, "ids": texts(first.values())})


_MARK_MOVED = text("""
    UPDATE plan_items i SET act = 'moved'
     WHERE i.plan_id = :plan
       AND (i.pipedrive_id IS NOT NULL
            AND (SELECT true FROM id_mappings m
                  WHERE m.connector_key = :c AND m.entity = i.entity AND m.pipedrive_id = i.pipedrive_id
                    AND m.state NOT IN ('gone', 'deleted', 'merged', 'conflict')
                    AND (m.version, m.digest) IS NOT DISTINCT FROM (i.version, i.digest) LIMIT 1) IS NULL
            OR i.report_version IS NOT NULL AND i.report_version IS DISTINCT FROM
               (SELECT s.version FROM snapshots s
                 WHERE i.direction = 'outgoing' AND s.connector_key = :c AND s.entity = i.entity AND s.side = 'hull'
                   AND s.record_id = i.record_id LIMIT 1))
 RETURNING i.direction, i.entity""")
"""Look-ups with a limit, here and below, as in `db.identifier`: the planner has no statistics of new items."""


def mark_moved(session: Session, plan: SettingsPlan) -> int:
    """Mark the items of records that changed since their preview, so that they are left out; return how many."""
    return len(session.execute(_MARK_MOVED, {"plan": plan.id, "c": plan.connector_key}).all())


def count_items(session: Session, plan_id: int) -> int:
    return session.scalar(select(func.count()).select_from(PlanItem).filter_by(plan_id=plan_id)) or 0


_UNPLANNED = text("""
    SELECT EXISTS (SELECT 1 FROM plan_items WHERE plan_id = :plan AND act = 'moved')
        OR EXISTS (SELECT 1 FROM snapshots s
                    WHERE s.connector_key = :c AND s.entity = ANY(CAST(:incoming AS text[])) AND s.side = 'pipedrive'
                      AND (SELECT true FROM plan_items i
                            WHERE i.plan_id = ANY(CAST(:line AS bigint[])) AND i.direction = 'incoming'
                              AND i.entity = s.entity AND i.record_id = s.record_id AND i.act <> 'moved' LIMIT 1) IS NULL
                      AND (SELECT true FROM id_mappings m
                            WHERE m.connector_key = :c AND m.entity = s.entity AND m.state = 'full'
                              AND m.pipedrive_id = s.record_id::bigint LIMIT 1))
        OR EXISTS (SELECT 1 FROM snapshots s
                    WHERE s.connector_key = :c AND s.entity = ANY(CAST(:outgoing AS text[])) AND s.side = 'hull'
                      AND (SELECT true FROM plan_items i
                            WHERE i.plan_id = ANY(CAST(:line AS bigint[])) AND i.direction = 'outgoing'
                              AND i.entity = s.entity AND i.record_id = s.record_id AND i.act <> 'moved' LIMIT 1) IS NULL)""")


def line_of(session: Session, plan: SettingsPlan | None) -> list[int]:
    """Return the ids of a plan and its parents, newest first."""
    line: list[int] = []
    while plan is not None:
        line.append(plan.id)
        plan = session.get(SettingsPlan, plan.parent_id) if plan.parent_id is not None else None
    return line


def leaves_any_out(session: Session, plan: SettingsPlan, incoming: Sequence[str], outgoing: Sequence[str]) -> bool:
    """Return whether a record changed since the preview of the plan or of its parents, or is new.

    incoming, outgoing  the previewed entities
    """
    scope = {"plan": plan.id, "line": bigints(line_of(session, plan)), "c": plan.connector_key}
    scope |= {"incoming": texts(incoming), "outgoing": texts(outgoing)}
    return bool(session.scalar(_UNPLANNED, scope))


def send_items(session: Session, plan: SettingsPlan) -> int:
    """Write changes of the Users and Accounts that the plan processes; each is sent by its last report.

    Return how many succeed by the preview; the others fail or are unknown.
    """
    sent = change_writer.write_planned(session, plan.connector_key, plan.id, CARRIED)
    change_writer.write_planned(session, plan.connector_key, plan.id, [act for act in SENT if act not in CARRIED])
    return sent


def messages_to_send(session: Session, plan_id: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (entity, act, message) of Accounts that Hull never reported by themselves."""
    mine = select(PlanItem).filter_by(plan_id=plan_id, direction="outgoing", entity="organization")
    found = session.scalars(mine.where(PlanItem.message.is_not(None), PlanItem.act.in_(SENT)))
    return [(item.entity, item.act, unpacked(item.message)) for item in found]


def drop_items(session: Session, plan_id: int) -> None:
    """Delete the items of a plan that will not be applied."""
    for table in (PlanItem, PlanClaim):
        session.execute(delete(table).where(table.plan_id == plan_id))


_DROP_OLD = [
    text(f"""
    DELETE FROM {table} WHERE plan_id IN (
        SELECT id FROM plans WHERE coalesce(ended_at, ready_at, created_at) < now() - make_interval(days => :days)
           AND state <> 'computing')""")  # noqa: S608 - the names stand here
    for table in ("plan_items", "plan_claims")
]


def drop_old_items(session: Session) -> None:
    """Delete the items of old plans; the plans and their authors stay."""
    for statement in _DROP_OLD:
        session.execute(statement, {"days": RETENTION_DAYS})
