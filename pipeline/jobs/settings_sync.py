"""Keep the settings equal here and in Hull: import what was changed there, and send what was edited here.

A notification only reports that they may have changed, so Hull is queried. Hull's settings are compared with those last seen there:
an edit made here since is kept, unless the same setting was changed in Hull as well. Invalid settings are refused completely. Then
the earlier ones stay in force, and nothing is sent to Hull until an operator has corrected them there.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from db import connector as connectors
from db import job as jobs
from db.connector import SettingsVersion
from db.job import ClaimedJob
from db.session import after_commit, transaction
from pipeline import wiring
from pipeline.domain.settings import ConnectorSettings, SettingsRefused, read_settings
from pipeline.errors import Rejected, Retryable
from pipeline.sync.connectors.settings_change import find_unknown, known_settings, put_in_force, read_unknown_fields
from pipeline.sync.job_queue import DONE, JobStep
from pipeline.telemetry import logger
from pipeline.wiring import Wired

AUTHOR = "hull"
Document = dict[str, Any]


def step(job: ClaimedJob) -> JobStep:
    """Read Hull's settings, and put in force what was changed there.

    Raises: Rejected("settings_refused") with every mistake.
    """
    connector_key = job.connector_key or 0
    with transaction() as session:
        wired = wiring.open_connector(session, connector_key)
    given = wired.hull.app().get("private_settings")
    if not isinstance(given, dict):
        raise Retryable("page_malformed", "Hull's answer holds no settings")
    in_hull = known_settings(given)
    read_unknown_fields(connector_key, in_hull)
    in_force, refused = {}, None
    with transaction() as session:
        jobs.hold(session, job)
        try:
            in_force = _take(session, job, in_hull)
        except SettingsRefused as mistakes:
            refused = mistakes.mistakes
    if refused is not None:
        raise Rejected("settings_refused", "; ".join(refused))
    if known_settings(in_force) != in_hull:
        in_hull = _push(wired, given, in_force)
    with transaction() as session:
        jobs.hold(session, job)
        connectors.lock_connector(session, connector_key).hull_settings = in_hull
    return DONE


def merged(in_force: Document, seen: Document | None, in_hull: Document) -> Document:
    """Return the settings in force with the changes that were made in Hull since `seen`: settings set or removed there."""
    before = seen or {}
    changed = {name: value for name, value in in_hull.items() if name not in before or before[name] != value}
    gone = before.keys() - in_hull.keys()
    return {name: value for name, value in in_force.items() if name not in gone} | changed


def with_rules(document: Document, in_force: Document) -> Document:
    """Return a document of Hull with the rules of its rows: Hull's tables have no columns for them, so those in force are kept."""
    return {name: _rows_with_rules(value, in_force.get(name)) for name, value in document.items()}


def _rows_with_rules(rows: Any, in_force: Any) -> Any:
    if not (isinstance(rows, list) and isinstance(in_force, list)):
        return rows
    known = {(row.get("hull"), row.get("service")): row for row in in_force if isinstance(row, dict)}
    return [known.get((row.get("hull"), row.get("service")), row) if isinstance(row, dict) else row for row in rows]


def _push(wired: Wired, given: Document, in_force: Document) -> Document:
    """Replace the settings of this connector in Hull, keep all others, and return Hull's settings afterwards."""
    others = {name: value for name, value in given.items() if name not in ConnectorSettings.model_fields}
    answer = wired.hull.put_settings(others | in_force).get("private_settings")
    logger().info("connector.settings.pushed", connector_id=wired.id)
    return known_settings(answer)


def _take(session: Session, job: ClaimedJob, in_hull: Document) -> Document:
    """Put in force what was changed in Hull; return the document in force afterwards."""
    connector = connectors.lock_connector(session, job.connector_key or 0)
    before = version = connectors.settings_in_force(session, connector.key)
    if connector.hull_settings != in_hull:
        document = with_rules(merged(before.document, connector.hull_settings, in_hull), before.document)
        version = _change(session, before, document)
        connector.hull_settings = in_hull
        if version.version != before.version:
            after_commit(
                session, lambda: logger().info("connector.settings.changed", version=version.version, by=AUTHOR)
            )
    return version.document


def _change(session: Session, before: SettingsVersion, document: Document) -> SettingsVersion:
    """Ignore mapped fields that were deleted since; reject newly mapped fields that do not exist.

    Raises: SettingsRefused.
    """
    known = {
        (setting, code)
        for setting, code, _ in find_unknown(session, before.connector_key, read_settings(before.document))
    }
    unknown = find_unknown(session, before.connector_key, read_settings(document))
    if new := [words for setting, code, words in unknown if (setting, code) not in known]:
        raise SettingsRefused(new)
    return put_in_force(session, before.connector_key, document, author=AUTHOR, force=True)
