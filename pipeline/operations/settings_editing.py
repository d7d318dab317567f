"""Check, review and save the settings of a connector, and handle concurrent edits.

An operator edits a whole document, based on one version. If another version is in force when it is saved, the save is refused, with
the changes made since.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from sqlalchemy.orm import Session

from db import connector as connectors
from db import id_mapping
from db import run as run_rows
from db.connector import SettingsVersion
from pipeline.domain.budget import fetch_cost
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import ConnectorSettings, SettingsRefused, read_settings
from pipeline.operations.errors import OperationError, settings_refused
from pipeline.operations.fields import fields_of
from pipeline.operations.models import Shape
from pipeline.operations.settings_differences import Catalogs, SettingChangeShape, difference, unified
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
EMPTY: Final = {"service": "choose a Pipedrive field", "hull": "name a Hull attribute"}
"""Empty column of a row → what to do."""


class ConsequenceShape(Shape):
    """A run that would synchronize known records again, and its cost in tokens."""

    entity: str
    kind: str
    records: int
    tokens: int
    sentence: str


class MistakeShape(Shape):
    setting: str
    position: int | None
    words: str

    @property
    def text(self) -> str:
        """Return the mistake, with its place in front."""
        place = self.setting if self.position is None else f"{self.setting}, row {self.position + 1}"
        return f"{place}: {self.words}" if place else self.words


class ReviewAnswer(Shape):
    """The preview of saving; `unknown` lists fields that are already mapped and that Pipedrive does not have."""

    base: int
    changes: list[SettingChangeShape]
    consequences: list[ConsequenceShape]
    unknown: list[MistakeShape]
    diff: str


class SettingsMistaken(OperationError):
    """The settings are not valid; `placed` are the mistakes with their places."""

    def __init__(self, placed: Sequence[MistakeShape]) -> None:
        error = settings_refused([each.text for each in placed])
        super().__init__(error.status, error.code, error.message, error.next_step, error.mistakes)
        self.placed = tuple(placed)


class SettingsMoved(OperationError):
    """Another operator saved a version since: its number, author, time and changes."""

    def __init__(self, version: int, author: str, at: datetime, changes: Sequence[SettingChangeShape]) -> None:
        message = f"Version {version}, saved by {author}, is in force now."
        sentences = [each.sentence for each in changes]
        super().__init__(HTTPStatus.CONFLICT, "settings_moved", message, "Review it, then save again.", sentences)
        self.version, self.author, self.at, self.changes = version, author, at, changes


def review(session: Session, connector_key: int, document: Document, *, base: int) -> ReviewAnswer:
    """Review a document before it is saved.

    Raises SettingsMistaken, SettingsMoved.
    """
    chosen, unknown = check(session, connector_key, document)
    in_force = _require_base(session, connector_key, base)
    before = read_settings(in_force.document)
    return ReviewAnswer(
        base=base,
        changes=difference(before, chosen, catalogs_of(session, connector_key)),
        consequences=consequences(session, connector_key, before, chosen),
        unknown=list(unknown),
        diff=unified(in_force.document, document, old_name=f"version {base}", new_name="new"),
    )


def check(
    session: Session, connector_key: int, document: Document, *, force: bool = False
) -> tuple[ConnectorSettings, tuple[MistakeShape, ...]]:
    """Return the settings in a document, and its unknown fields that were mapped before: a deleted field blocks no other change.

    force  accept fields that Pipedrive does not know

    Raises SettingsMistaken.
    """
    mistakes: list[MistakeShape] = []
    try:
        chosen = read_settings(document)
    except SettingsRefused as refused:
        mistakes = [placed(each) for each in refused.mistakes]
        if refused.rest is None:
            raise SettingsMistaken(mistakes) from None
        chosen = refused.rest
    mistakes += [placed(each) for each in find_mistakes(session, connector_key, chosen)[0]]
    in_force = read_settings(connectors.settings_in_force(session, connector_key).document)
    known = {(setting, code) for setting, code, _ in find_unknown(session, connector_key, in_force)}
    stale: list[MistakeShape] = []
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
    """Put a document in force, and send it to Hull. A document with the same settings makes no version.

    force          accept fields that Pipedrive does not know
    keep_defaults  make a version also if only values that equal a default are new: the set-up records its decisions this way
    confirmed      start the runs that follow without approval, whatever number of records they touch
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


def between(session: Session, connector_key: int, before: Document, after: Document) -> list[SettingChangeShape]:
    """Return the differences between two versions; none if one is not valid any more."""
    try:
        return difference(read_settings(before), read_settings(after), catalogs_of(session, connector_key))
    except SettingsRefused:
        return []


def consequences(
    session: Session, connector_key: int, before: ConnectorSettings, after: ConnectorSettings
) -> list[ConsequenceShape]:
    """Return the runs that would apply the new settings to known records, with their cost."""
    found = []
    for each in backfill.required_runs(session, connector_key, before, after):
        records = _estimate_records(session, connector_key, each.entity)
        about, tokens = f"About {records:,} {each.entity.plural.capitalize()}", 0
        sentence = f"{about} are evaluated again from stored data, without tokens; changed ones are sent to Hull."
        if each.kind == "full":
            tokens = fetch_cost(records, settings().page_limit).tokens
            sentence = f"{about} are fetched again, for about {tokens:,} tokens: Pipedrive returns a new field on request only."
        found.append(
            ConsequenceShape(entity=each.entity, kind=each.kind, records=records, tokens=tokens, sentence=sentence)
        )
    return found


def catalogs_of(session: Session, connector_key: int) -> Catalogs:
    """Return the stored fields of both entities."""
    return {entity: fields_of(session, connector_key, entity).catalog for entity in Entity}


def placed(words: str) -> MistakeShape:
    """Return a mistake like `setting.row.column: words` with its place."""
    found = PLACE.fullmatch(words)
    if found is None or found["setting"] not in ConnectorSettings.model_fields:
        return MistakeShape(setting="", position=None, words=words)
    position = int(found["position"]) if found["position"] else None
    text = found["words"] if found["column"] in (None, "service") else f"{found['column']}: {found['words']}"
    if "at least 1 character" in found["words"]:
        text = EMPTY.get(found["column"], found["words"])
    return MistakeShape(setting=found["setting"], position=position, words=text)


def _require_base(session: Session, connector_key: int, base: int) -> SettingsVersion:
    now = connectors.settings_in_force(session, connector_key)
    if now.version != base:
        edited = connectors.find_settings(session, connector_key, base)
        changes = between(session, connector_key, edited.document, now.document) if edited else []
        raise SettingsMoved(now.version, now.author, now.created_at, changes)
    return now


def _estimate_records(session: Session, connector_key: int, entity: Entity) -> int:
    """Return the number of records in the last full fetch, because counting millions of records is slow."""
    run = run_rows.latest_full_run(session, connector_key, entity, state="done")
    if run is None:
        return id_mapping.count_known(session, connector_key, entity)
    return run.new + run.changed + run.same + run.skipped
