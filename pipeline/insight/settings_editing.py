"""Editing the settings of a connector: mistakes, changes, consequences, and concurrent edits.

A person edits a whole document, based on one version. What is reviewed is what is saved; a save based on a version that is no
longer in force is refused with the changes made since.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db import id_mapping
from db import run as run_rows
from db.connector import SettingsVersion
from pipeline.domain.budget import fetch_cost
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import AttributeMapping, ConnectorSettings, SettingsRefused, read_settings
from pipeline.insight.fields import fields_of
from pipeline.insight.settings_words import Catalogs, SettingChange, difference
from pipeline.jobs.settings_sync import merged
from pipeline.settings import settings
from pipeline.sync.connectors.settings_change import (
    enqueue_settings_sync,
    find_mistakes,
    find_unknown,
    put_in_force,
)
from pipeline.sync.runs import backfill

Document = dict[str, Any]

PLACE: Final = re.compile(r"(?P<setting>\w+)(?:\.(?P<position>\d+))?(?:\.(?P<column>\w+))?: (?P<words>.+)", re.DOTALL)
UNWRITTEN: Final = {"service": "choose a Pipedrive field", "hull": "name a Hull attribute"}
"""Column of a row → what to do if it is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A mistake and its place: `position` is that of a row, None for a whole setting; `setting` is empty for the document."""

    setting: str
    position: int | None
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Consequence:
    """Known records that are synchronized again; `kind` as of the run, `tokens` of the daily budget."""

    entity: Entity
    kind: str
    records: int
    tokens: int

    @property
    def sentence(self) -> str:
        what = f"About {self.records:,} {self.entity.plural.capitalize()}"
        if self.kind == "backfill":
            return f"{what} are evaluated again from stored data, for no tokens; changed ones are sent to Hull."
        return f"{what} are fetched again, for about {self.tokens:,} tokens: Pipedrive gives a field of these on request only."


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What saving a document would do. `unknown` are fields that were mapped before and that Pipedrive does not have."""

    base: int
    changes: tuple[SettingChange, ...]
    consequences: tuple[Consequence, ...]
    unknown: tuple[Mistake, ...]


class SettingsMistaken(Exception):
    """The document makes no sense; every mistake with its place."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(each.words for each in mistakes))
        self.mistakes = tuple(mistakes)


class SettingsMoved(Exception):
    """Another operator saved a version since: its number, time, author and changes."""

    def __init__(self, version: int, author: str, at: datetime, changes: tuple[SettingChange, ...]) -> None:
        super().__init__(f"version {version} was saved by {author} meanwhile")
        self.version, self.author, self.at, self.changes = version, author, at, changes


def review(session: Session, connector_key: int, document: Document, *, base: int) -> Review:
    """Review a document before it is saved.

    Raises: SettingsMistaken; SettingsMoved.
    """
    chosen, unknown = check(session, connector_key, document)
    in_force = _require_base(session, connector_key, base)
    before = read_settings(in_force.document)
    return Review(
        base=base,
        changes=difference(before, chosen, catalogs_of(session, connector_key)),
        consequences=consequences(session, connector_key, before, chosen),
        unknown=unknown,
    )


def check(
    session: Session, connector_key: int, document: Document, *, force: bool = False
) -> tuple[ConnectorSettings, tuple[Mistake, ...]]:
    """Return the settings in a document, and mistakes that existed before: a deleted field affects only itself.

    force  accept fields that Pipedrive does not know

    Raises: SettingsMistaken.
    """
    try:
        chosen = read_settings(document)
    except SettingsRefused as refused:
        raise SettingsMistaken([placed(each) for each in refused.mistakes]) from None
    mistakes = [placed(each) for each in find_mistakes(session, connector_key, chosen)[0]]
    in_force = read_settings(connectors.settings_in_force(session, connector_key).document)
    known = {(setting, code) for setting, code, _ in find_unknown(session, connector_key, in_force)}
    stale: list[Mistake] = []
    for setting, code, words in find_unknown(session, connector_key, chosen):
        (stale if force or (setting, code) in known else mistakes).append(placed(words))
    if mistakes:
        raise SettingsMistaken(mistakes)
    return chosen, tuple(stale)


def save(
    session: Session,
    connector_key: int,
    document: Document,
    *,
    base: int,
    author: str,
    force: bool = False,
    confirmed: bool = False,
    keep_defaults: bool = False,
) -> SettingsVersion:
    """Put a reviewed document in force, and have it pushed to Hull. One that means the same makes no version: what is shown has
    every default filled in.

    force      accept fields that Pipedrive does not know
    keep_defaults  make a version also where only values that equal a default are new: the set-up records its decisions so
    confirmed  begin what follows however many records it touches; else its runs may wait for approval
    Raises SettingsMistaken, SettingsMoved.
    """
    connectors.lock_connector(session, connector_key)
    in_force = _require_base(session, connector_key, base)
    chosen, _ = check(session, connector_key, document, force=force)
    if not keep_defaults and chosen.model_dump() == read_settings(in_force.document).model_dump():
        return in_force
    version = put_in_force(session, connector_key, document, author=author, force=True, confirmed=confirmed)
    if version.version != base:
        enqueue_settings_sync(session, connector_key)
    return version


def rebased(session: Session, connector_key: int, document: Document, *, base: Document) -> tuple[Document, int]:
    """Return the edits of `base` on top of what is in force now, and its version. Of a setting that both edited ours stays."""
    now = connectors.settings_in_force(session, connector_key)
    return merged(now.document, base, document), now.version


def between(session: Session, connector_key: int, before: Document, after: Document) -> tuple[SettingChange, ...]:
    """Return the differences between two versions as text; empty for a version that is no longer valid."""
    try:
        return difference(read_settings(before), read_settings(after), catalogs_of(session, connector_key))
    except SettingsRefused:
        return ()


def consequences(
    session: Session, connector_key: int, before: ConnectorSettings, after: ConnectorSettings
) -> tuple[Consequence, ...]:
    """Return the runs that would apply the new settings to known records, with their cost."""
    return tuple(
        Consequence(
            entity=each.entity,
            kind=each.kind,
            records=records,
            tokens=fetch_cost(records, settings().page_limit).tokens if each.kind == "full" else 0,
        )
        for each in backfill.called_for(session, connector_key, before, after)
        for records in [_about(session, connector_key, each.entity)]
    )


def catalogs_of(session: Session, connector_key: int) -> Catalogs:
    """The fields of both entities, as they are stored."""
    return {entity: fields_of(session, connector_key, entity).catalog for entity in Entity}


def short_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what is default: documents stay as people would write them."""
    usual = {name: field.default for name, field in AttributeMapping.model_fields.items() if not field.is_required()}
    return {
        name: value
        for name, value in row.items()
        if name not in usual or (tuple(value) if isinstance(value, list) else value) != usual[name]
    }


def placed(words: str) -> Mistake:
    """A mistake as the settings name it, `setting.row.column: words`, with its place read off it."""
    found = PLACE.fullmatch(words)
    if found is None or found["setting"] not in ConnectorSettings.model_fields:
        return Mistake(setting="", position=None, words=words)
    position = int(found["position"]) if found["position"] else None
    if "at least 1 character" in found["words"]:
        return Mistake(
            setting=found["setting"], position=position, words=UNWRITTEN.get(found["column"], found["words"])
        )
    column = f"{found['column']}: " if found["column"] not in (None, "service") else ""
    return Mistake(setting=found["setting"], position=position, words=f"{column}{found['words']}")


def _require_base(session: Session, connector_key: int, base: int) -> SettingsVersion:
    now = connectors.settings_in_force(session, connector_key)
    if now.version != base:
        ground = connectors.find_settings(session, connector_key, base)
        changes = between(session, connector_key, ground.document, now.document) if ground else ()
        raise SettingsMoved(now.version, now.author, now.created_at, changes)
    return now


def _about(session: Session, connector_key: int, entity: Entity) -> int:
    """About how many records there are: as many as the last full fetch found, which costs less than counting millions."""
    run = run_rows.latest_full_run(session, connector_key, entity, state="done")
    if run is None:
        return id_mapping.count_known(session, connector_key, entity)
    return run.new + run.changed + run.same + run.skipped
