"""Apply new settings to records that were synchronized before: a mapping is not only for future changes.

Snapshots are complete, so most new mappings need no call to Pipedrive: a backfill synchronizes the snapshots again. A field
that Pipedrive returns on request only is not in them; then everything is fetched again.

Work that would touch too many existing records needs an operator's approval before it begins: a backfill after new settings, and
applying a plan. Live changes and sends do not need approval, nor does anything before the first full fetch of an entity has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from db import field_definition, id_mapping, watermark
from db import run as run_rows
from db.run import Run
from pipeline.domain.fields import FieldCatalog, read_field_definitions
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.sync.runs import runs
from pipeline.transform.incoming import compile_incoming

ALWAYS: Final = 100
"""This many records may be updated without approval, whatever their share is."""
CAUSE = "settings"


def start_required_runs(
    session: Session,
    connector_key: int,
    before: ConnectorSettings,
    after: ConnectorSettings,
    *,
    plan_id: int | None = None,
    confirmed: bool = False,
) -> None:
    """Start the runs that a settings change needs, in the transaction that puts the settings in force.

    plan_id    the plan that is being applied: records outside of it are left alone
    confirmed  the operator knows that every record is touched; otherwise more than `change_stop_share` of them need approval
    """
    may_begin = confirmed or plan_id is not None
    for called in required_runs(session, connector_key, before, after):
        everything = reach(session, connector_key, called.entity)
        begin(
            session,
            connector_key,
            called.entity,
            called.kind,
            resend=called.resend,
            plan_id=plan_id if called.kind == "backfill" else None,
            reindexes=called.reindexes,
            held=called.changes_hull
            and not may_begin
            and needs_approval(session, connector_key, everything, before.change_stop_share),
        )


def required_runs(
    session: Session, connector_key: int, before: ConnectorSettings, after: ConnectorSettings
) -> list[RequiredRun]:
    """Return the runs that would apply the new settings to known records."""
    kinds = {entity: required_kind(session, connector_key, entity, before, after) for entity in Entity}
    resend = needs_relink(before, after)
    return [
        RequiredRun(
            entity=entity,
            kind=kind,
            resend=resend,
            reindexes=changes_identifiers(entity, before, after),
            changes_hull=not _has_same_effect(entity, before, after),
        )
        for entity, kind in kinds.items()
        if kind is not None
    ]


def _has_same_effect(entity: Entity, before: ConnectorSettings, after: ConnectorSettings) -> bool:
    """Return whether Hull receives the same of a record of this entity as before."""
    relinks = entity is Entity.PERSON and needs_relink(before, after)
    return (before.incoming(entity), before.claims(entity)) == (
        after.incoming(entity),
        after.claims(entity),
    ) and not relinks


def begin(  # noqa: PLR0913 - a run is these facts
    session: Session,
    connector_key: int,
    entity: Entity,
    kind: str,
    *,
    resend: bool,
    plan_id: int | None = None,
    held: bool = False,
    reindexes: bool = False,
    cause: str = CAUSE,
) -> None:
    """Begin a run, and cancel a running or unapproved one of its kind: it belongs to superseded settings.

    If the cancelled run was reindexing, the new one does so.
    """
    waiting = [
        run
        for run in run_rows.runs_in_state(session, connector_key, "held")
        if (run.entity, run.kind) == (entity, kind)
    ]
    running = run_rows.running_run(session, connector_key, entity, kind)
    for run in [*waiting, *([running] if running else [])]:
        reindexes = reindexes or run.reindexes
        runs.cancel(session, run.id)
        session.flush()
    runs.begin(
        session,
        connector_key,
        entity,
        kind,
        cause=cause,
        changed_only=not resend,
        plan_id=plan_id,
        held=held,
        reindexes=reindexes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How many of the known records of one entity are updated.

    perhaps  further records that may be updated, depending on a look-up in Pipedrive or Hull
    """

    entity: Entity
    touched: int
    known: int
    perhaps: int = 0

    @property
    def number(self) -> int:
        """Return the number that the operator must confirm."""
        return self.touched + self.perhaps

    @property
    def words(self) -> str:
        known = f"{self.touched:,} of {self.known:,} known {self.entity.plural.capitalize()}"
        return f"{known} and perhaps {self.perhaps:,} more, which have to be looked up first" if self.perhaps else known


class AskFirst(Exception):
    """Nothing was done: the operator must confirm the number of records."""

    def __init__(self, reaches: list[Reach]) -> None:
        self.number = sum(each.number for each in reaches)
        self.reaches = reaches
        super().__init__(f"this would change {' and '.join(each.words for each in reaches)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequiredRun:
    """A run that a settings change needs: `backfill` from snapshots, or a `full` fetch; `resend` sends all records to Hull.

    reindexes     it reads with other identifiers than before
    changes_hull  values in Hull may change; otherwise only the index changes
    """

    entity: Entity
    kind: str
    resend: bool
    reindexes: bool
    changes_hull: bool


def reach(session: Session, connector_key: int, entity: Entity, touched: int | None = None) -> Reach:
    """Return the reach of `touched` records; None means every known record."""
    known = sum(
        each.records
        for each in id_mapping.mapping_counts(session, connector_key)
        if (each.entity, each.state) == (entity, "full")
    )
    return Reach(entity=entity, touched=known if touched is None else touched, known=known)


def needs_approval(session: Session, connector_key: int, reach: Reach, share: float) -> bool:
    """Return whether approval is needed. `share` is `change_stop_share` of the settings in force before."""
    if reach.number <= max(ALWAYS, share * reach.known):
        return False
    mark = watermark.find_watermark(session, connector_key, reach.entity)
    return mark is not None and mark.complete_since is not None


def approval_sentence(run: Run, touched: int) -> str:
    """Return the sentence about a run that needs approval."""
    what = Entity(run.entity).plural.capitalize()
    return f"{run.kind.capitalize()} of {what} needs approval: it would update all {touched:,} known {what}."


def required_kind(
    session: Session, connector_key: int, entity: Entity, before: ConnectorSettings, after: ConnectorSettings
) -> str | None:
    """Return the kind of run that the change requires; None if nothing changes for Hull or the index, or no record was read."""
    is_same = _has_same_effect(entity, before, after) and not changes_identifiers(entity, before, after)
    if is_same or not id_mapping.any_read(session, connector_key, entity):
        return None
    fields = field_definition.find_fields(session, connector_key, entity)
    catalog = FieldCatalog.of(entity, read_field_definitions(fields.rows if fields else []))
    known = set(compile_incoming(entity, before, catalog).include_fields)
    wanted = set(compile_incoming(entity, after, catalog).include_fields)
    return "backfill" if wanted <= known else "full"


def changes_identifiers(entity: Entity, before: ConnectorSettings, after: ConnectorSettings) -> bool:
    """Return whether records are looked up by other identifiers than before, which the index does not have yet."""
    return (before.claims(entity), before.sync_key(entity)) != (after.claims(entity), after.sync_key(entity))


def needs_relink(before: ConnectorSettings, after: ConnectorSettings) -> bool:
    """Return whether links must be sent now: no digest shows whether they were sent."""
    return after.link_users_in_hull and not before.link_users_in_hull
