"""The versions of the settings: author, time and changes; compare two versions, or put one in force again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flask import request
from werkzeug.wrappers import Response

from db import connector as connectors
from db.connector import Connector, SettingsVersion
from db.session import transaction
from pipeline.domain.kinds import Role
from pipeline.insight import settings_editing as editing
from pipeline.insight.settings_words import SettingChange
from pipeline.operations.errors import OperationError
from pipeline.operations.settings import roll_back_settings
from pipeline.web.console import guard
from pipeline.web.console.calls import perform, sentence_of
from pipeline.web.console.frame import before_id, done, page
from pipeline.web.console.guard import Pages
from pipeline.web.console.settings_forms import SECTIONS

VERSIONS = 30
WHERE = "/c/<name>/settings/history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A version, and how it differs from the one before."""

    version: int
    author: str
    at: datetime
    changes: tuple[SettingChange, ...]


def add(pages: Pages) -> None:
    pages.page(WHERE, show_history)
    pages.page(f"{WHERE}/<int:version>", show_version)
    pages.action(f"{WHERE}/<int:version>/roll-back", roll_back, needs=Role.ADMIN)


def show_history(connector: Connector) -> Response:
    """Newest first, by version."""
    before = before_id()
    with transaction() as session:
        found = connectors.settings_page(session, connector.key, before=before, limit=VERSIONS + 1)
        now = connectors.settings_in_force(session, connector.key).version
        entries = [
            Entry(
                version=each.version,
                author=each.author,
                at=each.created_at,
                changes=editing.between(session, connector.key, earlier.document if earlier else {}, each.document),
            )
            for each, earlier in zip(found, [*found[1:], None], strict=True)
        ]
    more = entries[VERSIONS - 1].version if len(entries) > VERSIONS else None
    return page(
        "settings_history.html",
        connector=connector,
        tab="settings",
        sections=SECTIONS,
        entries=entries[:VERSIONS],
        now_in_force=now,
        more=more,
    )


def show_version(connector: Connector, version: int, mistakes: tuple[str, ...] = (), status: int = 200) -> Response:
    """Show one version compared with another one, by default the previous one."""
    against = before_id("against")
    with transaction() as session:
        found = _find(connector, version)
        other = _find(connector, against) if against is not None else None
        if other is None and version > 1:
            other = connectors.find_settings(session, connector.key, version - 1)
        now = connectors.settings_in_force(session, connector.key)
        changes = editing.between(session, connector.key, other.document if other else {}, found.document)
        back = editing.between(session, connector.key, now.document, found.document)
    return page(
        "settings_version.html",
        status=status,
        connector=connector,
        tab="settings",
        sections=SECTIONS,
        version=found,
        other=other,
        now_in_force=now,
        changes=changes,
        back=back,
        mistakes=mistakes,
    )


def roll_back(connector: Connector, version: int) -> Response:
    """The version's number is typed to confirm, and why is kept."""
    _find(connector, version)
    if request.form.get("confirm", "").strip() != str(version):
        return show_version(connector, version, (f"Type {version} to put that version in force again.",), 400)
    why = request.form.get("why", "").strip()[:500] or None
    try:
        made = perform(roll_back_settings, version=version, why=why)
    except OperationError as refused:
        return show_version(connector, version, tuple(refused.mistakes) or (sentence_of(refused),), refused.status)
    where = f"/c/{connector.name}/settings/history"
    return done(where, f"Version {made.version} is in force: it says what version {version} said.")


def _find(connector: Connector, version: int) -> SettingsVersion:
    with transaction() as session:
        found = connectors.find_settings(session, connector.key, version) if version < 2**31 else None
    if found is None:
        raise guard.missing(f"There is no version {version} of these settings.", "Choose one from the history.")
    return found
