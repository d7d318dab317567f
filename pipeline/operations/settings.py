"""Settings: the version in force, earlier versions and their differences. Review, save and roll back settings."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from db import connector as rows
from db import id_mapping
from db import run as run_rows
from db.connector import SettingsVersion
from db.run import Run
from db.session import transaction
from pipeline.domain.kinds import Entity, Role
from pipeline.jobs.settings_sync import merged
from pipeline.operations import settings_editing as editing
from pipeline.operations.call import Call
from pipeline.operations.errors import not_found
from pipeline.operations.models import ConnectorRequest, Number, PageRequest, Shape, Why
from pipeline.operations.registry import operation
from pipeline.operations.settings_differences import SettingChangeShape, changed_names, effective, unified
from pipeline.operations.settings_editing import ReviewAnswer
from pipeline.sync.connectors.settings_change import read_unknown_fields
from pipeline.sync.runs import backfill, spending

PATH = "/connectors/<connector>/settings"


class SettingsShape(Shape):
    """A version of the settings, under the names of docs/configuration.md."""

    version: int
    author: str
    created_at: datetime
    document: dict[str, Any]


class VersionShape(SettingsShape):
    """`changed` lists the settings that differ from the previous version."""

    changed: list[str]


class VersionsAnswer(BaseModel):
    """Newest first."""

    versions: list[VersionShape]


class DifferenceAnswer(BaseModel):
    """How version `after` differs from version `before`; `diff` is a unified diff with every default filled in."""

    before: int
    after: int
    changes: list[SettingChangeShape]
    diff: str


class FollowingRunShape(Shape):
    """A run that applies the new settings to known records. A `held` run needs approval."""

    run_id: int
    entity: str
    kind: str
    state: str
    records: int
    tokens: int


class SavedAnswer(SettingsShape):
    """The version in force now; `changed` is false if it was already in force."""

    changed: bool
    changes: list[SettingChangeShape]
    runs: list[FollowingRunShape]


class ShowSettings(ConnectorRequest):
    version: Annotated[Number | None, Field(description="An earlier version.")] = None
    defaults: Annotated[bool, Field(description="Include the defaults of omitted settings.")] = False


class ListVersions(ConnectorRequest, PageRequest):
    """Versions of one connector."""


class Compared(ConnectorRequest):
    before: Annotated[Number | None, Field(description="By default the version before `after`.")] = None
    after: Annotated[Number | None, Field(description="By default the version in force.")] = None


class NewSettings(ConnectorRequest):
    """A complete document; omitted settings get their defaults."""

    document: dict[str, Any]
    base_version: Annotated[Number, Field(description="The version that was edited.")]


class ForcedSettings(NewSettings):
    force: Annotated[bool, Field(description="Accept field codes that Pipedrive does not know (yet).")] = False
    yes: Annotated[
        bool, Field(description="Start the runs that follow without approval, whatever number of records they touch.")
    ] = False
    keep_defaults: Annotated[
        bool, Field(description="Save values that equal a default too: a set-up records its decisions this way.")
    ] = False


class RebasedAnswer(BaseModel):
    """Your edits on top of version `base_version`: review and save them."""

    document: dict[str, Any]
    base_version: int


class RollBack(ConnectorRequest):
    version: Number
    why: Why | None = None


@operation(f"GET {PATH}", role=Role.VIEWER, command="settings show CONNECTOR")
def show_settings(call: Call, request: ShowSettings) -> SettingsShape:
    """Show the settings in force, or an earlier version."""
    with transaction() as session:
        found = _version(session, call, request.version)
    shown = SettingsShape.model_validate(found)
    if request.defaults:
        shown.document = effective(shown.document)
    return shown


@operation(f"GET {PATH}/history", role=Role.VIEWER, command="settings history CONNECTOR")
def list_settings(call: Call, request: ListVersions) -> VersionsAnswer:
    """List all versions, newest first; `before` is a version number."""
    with transaction() as session:
        found = rows.settings_history(session, call.connector.key, before=request.before, limit=request.limit + 1)
    earlier = {each.version: each.document for each in found}
    return VersionsAnswer(
        versions=[
            VersionShape(
                version=each.version,
                author=each.author,
                created_at=each.created_at,
                document=each.document,
                changed=changed_names(earlier.get(each.version - 1, {}), each.document),
            )
            for each in found[: request.limit]
        ]
    )


@operation(
    f"GET {PATH}/difference",
    role=Role.VIEWER,
    command="settings diff CONNECTOR",
    example="acme --before 2 --after 5",
)
def compare_settings(call: Call, request: Compared) -> DifferenceAnswer:
    """Show the differences between two versions; by default the last two."""
    with transaction() as session:
        after = _version(session, call, request.after)
        before = _version(session, call, request.before or max(1, after.version - 1))
        found = editing.between(session, call.connector.key, before.document, after.document)
    return DifferenceAnswer(
        before=before.version,
        after=after.version,
        changes=found,
        diff=unified(
            before.document,
            after.document,
            old_name=f"version {before.version}",
            new_name=f"version {after.version}",
        ),
    )


@operation(
    f"POST {PATH}/review",
    role=Role.ADMIN,
    changes=False,
    command="settings review CONNECTOR DOCUMENT",
    example="acme settings.json",
)
def review_settings(call: Call, request: NewSettings) -> ReviewAnswer:
    """Preview a document: what would change, and which records would be synchronized again; nothing is saved."""
    read_unknown_fields(call.connector.key, request.document)
    with transaction() as session:
        return editing.review(session, call.connector.key, request.document, base=request.base_version)


@operation(
    f"PUT {PATH}",
    role=Role.ADMIN,
    audit_action="settings.save",
    command="settings set CONNECTOR DOCUMENT",
    example="acme settings.json",
)
def put_settings(call: Call, request: ForcedSettings) -> SavedAnswer:
    """Save new settings, unless another version was saved since `base_version`.

    Mistakes are listed with their position; a row that cannot be read may hide others of its table. An identical document
    creates no new version.
    """
    return _save(call, request)


@operation(
    f"POST {PATH}/rebase",
    role=Role.ADMIN,
    changes=False,
    command="settings rebase CONNECTOR DOCUMENT",
    example="acme settings.json --base-version 3",
)
def rebase_settings(call: Call, request: NewSettings) -> RebasedAnswer:
    """Apply your edits on top of the version that another operator saved since; nothing is saved.

    If both edited the same setting, your value is kept.
    """
    with transaction() as session:
        base, now = _version(session, call, request.base_version), _version(session, call, None)
    return RebasedAnswer(document=merged(now.document, base.document, request.document), base_version=now.version)


@operation(
    f"POST {PATH}/roll-back",
    role=Role.ADMIN,
    audit_action="settings.roll_back",
    command="settings roll-back CONNECTOR VERSION",
    example="acme 3",
)
def roll_back_settings(call: Call, request: RollBack) -> SavedAnswer:
    """Put an earlier version in force again, as a new version."""
    with transaction() as session:
        earlier = _version(session, call, request.version)
        now = rows.settings_in_force(session, call.connector.key)
    wanted = ForcedSettings(connector=request.connector, document=earlier.document, base_version=now.version)
    return _save(call, wanted, why=request.why or f"back to version {request.version}")


def _save(call: Call, request: ForcedSettings, why: str | None = None) -> SavedAnswer:
    """Save a document and send it to Hull; unknown fields are first read from Pipedrive."""
    key = call.connector.key
    read_unknown_fields(key, request.document)
    with transaction() as session:
        saved = editing.save(
            session,
            key,
            request.document,
            base=request.base_version,
            author=call.caller.name,
            force=request.force,
            confirmed=request.yes,
            keep_defaults=request.keep_defaults,
        )
        has_changed = saved.version != request.base_version
        if has_changed:
            call.note(session, f"version {saved.version}", why=why)
        else:
            call.found_nothing_to_do()
    with transaction() as session:
        before = _version(session, call, request.base_version).document if has_changed else saved.document
        return SavedAnswer(
            **SettingsShape.model_validate(saved).model_dump(),
            changed=has_changed,
            changes=editing.between(session, key, before, saved.document),
            runs=_runs_after(session, key, saved.version) if has_changed else [],
        )


def _version(session: Session, call: Call, version: int | None) -> SettingsVersion:
    """Return a version of the connector's settings; None means the one in force. Raises OperationError (404)."""
    now = rows.settings_in_force(session, call.connector.key)
    if version is None or version == now.version:
        return now
    found = rows.find_settings(session, call.connector.key, version)
    if found is None:
        raise not_found(f"There is no version {version} of these settings.", f"Versions run from 1 to {now.version}.")
    return found


def _runs_after(session: Session, connector_key: int, version: int) -> list[FollowingRunShape]:
    """Return the runs that a version has started."""
    counts = id_mapping.mapping_counts(session, connector_key)
    return [
        FollowingRunShape(
            run_id=run.id,
            entity=run.entity,
            kind=run.kind,
            state=run.state,
            records=sum(each.records for each in counts if (each.entity, each.state) == (run.entity, "full")),
            tokens=_tokens(session, run),
        )
        for run in run_rows.runs_of_settings(session, connector_key, version, backfill.CAUSE)
    ]


def _tokens(session: Session, run: Run) -> int:
    cost = spending.cost_of(session, run.connector_key, Entity(run.entity)) if run.kind == "full" else None
    return cost.tokens if cost else 0
