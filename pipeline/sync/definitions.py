"""Refresh Pipedrive's field definitions, act on their changes, and list the fields that the dashboard offers.

They are read again: before the first record is synchronized; after an hour; at the start of a full fetch; and when a
record has an unknown field, option or label, once for all records of one burst. If Pipedrive does not answer, the work
continues with the old definitions: unknown values become rejected fields.

After a change, rejected fields that are known now are synchronized again, and a renamed option is sent to Hull.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy.orm import Session

from db import change_writer, failure_filter, field_definition, id_mapping
from db import connector as connectors
from db import run as run_rows
from db.batch import ClaimedBatch
from db.session import transaction
from pipeline import wiring
from pipeline.domain.fields import (
    FieldCatalog,
    FieldSource,
    find_source,
    is_listed,
    is_writable,
    read_field_definitions,
    value_at,
)
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.records import IncomingRecord
from pipeline.domain.settings import ConnectorSettings, read_settings
from pipeline.errors import PipelineError, Retryable
from pipeline.extract import id_of
from pipeline.sync.compiled import CompiledSettings, compiled_for
from pipeline.sync.connectors.company import read_currency
from pipeline.sync.runs import backfill
from pipeline.telemetry import logger
from pipeline.wiring import Wired

T = TypeVar("T")
OUTDATED: Final = frozenset({"option_unknown", "field_missing", "currency_unknown"})
"""Reasons that may only mean that the field definitions are outdated, or that the currency was not read yet."""
LIFE: Final = timedelta(hours=1)
"""A renamed field or option is noticed after this time, when a record is synchronized; each reading costs 10 tokens."""
BURST_S: Final = 10.0
"""Pause between two readings because of codes and ids that were not looked up before."""
AGAIN_S: Final = 300.0
"""Longest pause before the same unknown ones are looked up again. The pause begins at BURST_S and doubles."""
RETRY_S: Final = 60.0
"""Pause before expired definitions are requested again, if Pipedrive did not answer."""
CAUSE: Final = "definitions"
READ_AGAIN_AT_MOST: Final = 1_000
"""Up to this number, Persons or Organizations are read again by their ids, 100 per request; more are read from the
snapshots."""
FRESH: Final = timedelta(minutes=1)
"""Life of the definitions for a dashboard: a field that was just created in Pipedrive must appear; 10 tokens each time."""
DEADLINE_S: Final = 8.0
"""Deadline of calls while a person waits."""


def refresh(wired: Wired, entity: Entity) -> CompiledSettings:
    """Read the definitions of one entity again and return the newly compiled settings. Raises: what the client raises."""
    rows = wired.pipedrive.fields(entity)
    currency = _currency(wired, entity, rows)
    with transaction() as session:
        if currency is not None:
            connectors.keep_default_currency(session, wired.key, currency)
        keep(session, wired.key, entity, rows)
    with transaction() as session:
        return compiled_for(session, wired.key, entity)


def _currency(wired: Wired, entity: Entity, rows: list[Any]) -> str | None:
    """Read the account's default currency, once, when an amount is written; None if it is known or not needed."""
    catalog = FieldCatalog.of(entity, read_field_definitions(rows))
    with transaction() as session:
        chosen = read_settings(connectors.settings_in_force(session, wired.key).document)
        if not lacks_currency(session, wired.key, catalog, chosen):
            return None
    try:
        return read_currency(wired.pipedrive.me())
    except PipelineError as unwell:
        logger().warning("company.not_read", reason=unwell.reason, detail=unwell.detail)
        return None


def lacks_currency(session: Session, connector_key: int, catalog: FieldCatalog, chosen: ConnectorSettings) -> bool:
    """Return whether these settings write an amount and the account's default currency was never read."""
    sources = [find_source(row.service, catalog) for row in chosen.outgoing(catalog.entity)]
    is_needed = any(source is not None and source.type == "monetary" for source in sources)
    return is_needed and connectors.default_currency(session, connector_key) is None


def current_compiled(
    wired: Wired, entity: Entity, plan: CompiledSettings, *, not_before: datetime | None = None
) -> CompiledSettings:
    """Return compiled settings with definitions that are not expired, nor older than `not_before`.

    Raises: the client's errors, only if the definitions were never read.
    """
    if plan.fields_read_at is None:
        return refresh(wired, entity)
    if not_before is not None and plan.fields_read_at < not_before:
        return _renewed(wired, entity, plan, (), burst_s=BURST_S, again_s=BURST_S) or plan
    if plan.fields_read_at < datetime.now(UTC) - LIFE:
        return _renewed(wired, entity, plan, (), burst_s=RETRY_S, again_s=RETRY_S) or plan
    return plan


def _renewed(
    wired: Wired, entity: Entity, plan: CompiledSettings, unknown: Collection[str], *, burst_s: float, again_s: float
) -> CompiledSettings | None:
    with transaction() as session:
        mine = field_definition.claim_reading(
            session, wired.key, entity, list(unknown), burst_s=burst_s, again_s=again_s
        )
    if not mine:  # another worker reads them, or has just read them
        with transaction() as session:
            now = compiled_for(session, wired.key, entity)
        return now if _is_newer(now, plan) else None
    try:
        return refresh(wired, entity)
    except PipelineError as unwell:
        logger().warning("fields.not_refreshed", reason=unwell.reason, detail=unwell.detail, type=entity.hull)
        return None


def _is_newer(now: CompiledSettings, plan: CompiledSettings) -> bool:
    if now.fields_read_at is None:
        return False
    return plan.fields_read_at is None or now.fields_read_at > plan.fields_read_at


def compiled_up_to_date(batch: ClaimedBatch, plan: CompiledSettings) -> CompiledSettings:
    """Do the same for a stage that makes no other call to Pipedrive."""
    if plan.fields_read_at is not None and plan.fields_read_at >= datetime.now(UTC) - LIFE:
        return plan
    return current_compiled(wiring.connect(batch.connector_key, lane=batch.queue), batch.entity, plan)


def compiled_for_unknown(
    batch: ClaimedBatch, plan: CompiledSettings, unknown: Iterable[str]
) -> CompiledSettings | None:
    """Return settings compiled with newer definitions, because records have unknown values; None without newer ones.

    unknown  from `key_of`
    Raises: the client's errors, only if the definitions were never read.
    """
    entity = batch.entity
    with transaction() as session:
        now = compiled_for(session, batch.connector_key, entity)
        if _is_newer(now, plan):
            return now
        wired = wiring.open_connector(session, batch.connector_key, lane=batch.queue)
    if plan.fields_read_at is None:
        return refresh(wired, entity)
    return _renewed(wired, entity, plan, sorted(set(unknown)), burst_s=BURST_S, again_s=AGAIN_S)


def has_newer(session: Session, connector_key: int, entity: Entity, read_at: datetime | None) -> bool:
    """Return whether newer definitions than those of `read_at` were stored; they are locked until the transaction ends.

    Call this in the transaction that stores a rejection because of missing definitions, before any other lock: the
    writer of newer definitions then either is seen here, or sees the rejection.
    """
    now = field_definition.hold_fields(session, connector_key, entity)
    return now is not None and read_at is not None and now > read_at


def find_outdated(
    session: Session, batch: ClaimedBatch, problems: Mapping[T, Iterable[str]], read_at: datetime | None
) -> list[T]:
    """Return the records with a field that was rejected for a definition that another worker has read since.

    problems  record → the reasons of its rejected fields
    """
    rejected = [record for record, reasons in problems.items() if not OUTDATED.isdisjoint(reasons)]
    return rejected if rejected and has_newer(session, batch.connector_key, batch.entity, read_at) else []


def find_unknown_values(records: list[Any], done: list[IncomingRecord], plan: CompiledSettings) -> set[str]:
    """Return the keys of the fields and options that these records name and the definitions do not know."""
    found = [
        (each.pipedrive_id, problem.field) for each in done for problem in each.problems if problem.reason in OUTDATED
    ]
    if not found:
        return set()
    by_id = {id_of(record): record for record in records}
    return {key_of(field, value_at(by_id.get(pipedrive_id), field, plan.catalog)) for pipedrive_id, field in found}


def key_of(field: str, value: Any) -> str:
    """Return the key of one unknown code or id, to recognise a repeated look-up; it does not reveal the value."""
    return hashlib.blake2b(f"{field}={value!r}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def keep(session: Session, connector_key: int, entity: Entity, rows: list[Any]) -> None:
    """Store definitions that were just read, and start the work that their change requires.

    Raises: Retryable("page_malformed") for an answer without a single field, which no company can have.
    """
    if not read_field_definitions(rows):
        raise Retryable("page_malformed", f"no fields of {entity.plural}")
    before = field_definition.keep_fields(session, connector_key, entity, rows)
    if before is None or before == rows:
        return
    changed = _changed(session, connector_key, entity, before, rows)
    if changed is None:
        return
    field_definition.forget_unknown(session, connector_key, entity)
    logger().info(
        "fields.changed", type=entity.hull, incoming=sorted(changed.incoming), outgoing=sorted(changed.outgoing)
    )
    _carry_over(session, connector_key, entity, changed)


def _changed(
    session: Session, connector_key: int, entity: Entity, before: list[Any], after: list[Any]
) -> _Changed | None:
    """Return what changed for the settings in force; None if no definition changed its meaning."""
    old, new = (FieldCatalog.of(entity, read_field_definitions(each)) for each in (before, after))
    if {code: _meaning(each) for code, each in old.by_code.items()} == {
        code: _meaning(each) for code, each in new.by_code.items()
    }:
        return None
    chosen = read_settings(connectors.settings_in_force(session, connector_key).document)
    incoming = {row.service for row in chosen.incoming(entity)} | {rule.service for rule in chosen.claims(entity)}
    outgoing = {row.service for row in chosen.outgoing(entity)} | {rule.service for rule in chosen.claims(entity)}
    places = {code: (_place(code, old), _place(code, new)) for code in incoming | outgoing}
    moved = {code for code, (was, now) in places.items() if was != now}
    return _Changed(
        incoming=frozenset(moved & incoming),
        outgoing=frozenset(moved & outgoing),
        renamed=any(_is_renamed(*places[code]) for code in moved & incoming),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changed:
    """Codes of the settings with a changed meaning.

    renamed  whether synchronized values changed their meaning: an option has another label, or a field another type
    """

    incoming: frozenset[str]
    outgoing: frozenset[str]
    renamed: bool


def _meaning(definition: Any) -> tuple[Any, ...]:
    return definition.type, definition.is_custom, dict(definition.options)


def _place(code: str, catalog: FieldCatalog) -> FieldSource | None:
    source = find_source(code, catalog)
    return source if source is not None and is_listed(source, catalog) else None


def _is_renamed(was: FieldSource | None, now: FieldSource | None) -> bool:
    """Return whether existing values are converted differently now; a deleted field or option has no values."""
    if now is None:
        return False
    if was is None or was.type != now.type:
        return True
    return any(now.options.get(option, label) != label for option, label in was.options.items())


def _carry_over(session: Session, connector_key: int, entity: Entity, changed: _Changed) -> None:
    """Synchronize again the fields that were rejected or converted with the old definitions."""
    scope = (session, connector_key)
    change_writer.write_rejected_fields(*scope, Direction.OUTGOING, entity, changed.outgoing, cause=CAUSE)
    refused = failure_filter.count_fields(*scope, Direction.INCOMING, entity, changed.incoming)
    if (changed.renamed and id_mapping.any_read(*scope, entity)) or refused > READ_AGAIN_AT_MOST:
        _start_backfill(session, connector_key, entity)
    elif refused:
        change_writer.write_rejected_fields(*scope, Direction.INCOMING, entity, changed.incoming, cause=CAUSE)


def _start_backfill(session: Session, connector_key: int, entity: Entity) -> None:
    """Start a backfill without approval: a full fetch would have the same result.

    Do nothing if a backfill waits for approval or applies a plan: it must not update more than was approved.
    """
    runs = [
        run
        for run in run_rows.runs_in_state(session, connector_key, "held")
        if (run.entity, run.kind) == (entity, "backfill")
    ]
    running = run_rows.running_run(session, connector_key, entity, "backfill")
    if running is not None and running.plan_id is not None:
        runs.append(running)
    if runs:
        logger().warning("fields.not_carried_over", type=entity.hull, run_id=runs[0].id)
        return
    backfill.begin(session, connector_key, entity, "backfill", resend=False, cause=CAUSE)


def list_offered(connector_key: int, entity: Entity, *, writable: bool) -> list[dict[str, str]]:
    """Return value and label of each field, in Pipedrive's order; the last known ones if Pipedrive does not answer.

    Raises: PipelineError if no fields are known and Pipedrive does not answer.
    """
    catalog = FieldCatalog.of(entity, read_field_definitions(_rows(connector_key, entity)))
    return [
        {"value": definition.code, "label": definition.name}
        for definition in catalog.by_code.values()
        if (source := find_source(definition.code, catalog)) is not None
        and is_listed(source, catalog)
        and (not writable or is_writable(source, entity))
    ]


def _rows(connector_key: int, entity: Entity) -> list[Any]:
    with transaction() as session:
        known = field_definition.find_fields(session, connector_key, entity)
    if known is not None and datetime.now(UTC) - known.fetched_at < FRESH:
        return known.rows
    try:
        return reread_fields(connector_key, entity)
    except PipelineError as unwell:
        if known is None:
            raise
        logger().warning("fields.not_refreshed", reason=unwell.reason, detail=unwell.detail, type=entity.hull)
        return known.rows


def reread_fields(connector_key: int, entity: Entity) -> list[Any]:
    """Read and store the fields of one entity; Pipedrive is called outside of any transaction. Raises: PipelineError."""
    rows = wiring.connect(connector_key, deadline_s=DEADLINE_S).pipedrive.fields(entity)
    with transaction() as session:
        keep(session, connector_key, entity, rows)
    return rows


def fetch_fields(connector_key: int) -> dict[Entity, list[Any]]:
    """Read the fields of both entities from Pipedrive, 10 tokens each, outside of any transaction. Raises: PipelineError."""
    pipedrive = wiring.connect(connector_key, deadline_s=DEADLINE_S).pipedrive
    return {entity: pipedrive.fields(entity) for entity in Entity}


def keep_fields(session: Session, connector_key: int, found: Mapping[Entity, list[Any]]) -> None:
    """Store the fields that Pipedrive has returned."""
    for entity, rows in found.items():
        keep(session, connector_key, entity, rows)


def read_default_currency(connector_key: int) -> None:
    """Read the account's default currency from Pipedrive. Raises: PipelineError."""
    currency = read_currency(wiring.connect(connector_key, deadline_s=DEADLINE_S).pipedrive.me())
    if currency is not None:
        with transaction() as session:
            connectors.keep_default_currency(session, connector_key, currency)


def ensure_fields_known(connector_key: int) -> str:
    """Read fields that were never read; return why Pipedrive did not return them, or an empty text."""
    with transaction() as session:
        unknown = [entity for entity in Entity if field_definition.find_fields(session, connector_key, entity) is None]
    try:
        for entity in unknown:
            reread_fields(connector_key, entity)
    except PipelineError as unwell:
        logger().warning("fields.not_refreshed", reason=unwell.reason, detail=unwell.detail)
        return str(unwell)
    return ""
