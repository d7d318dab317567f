"""Settings: the version in force, the versions before, and a new one."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from flask import Response
from pydantic import BaseModel, Field

from db import audit
from db import connector as rows
from db.session import transaction
from pipeline.domain.settings import SettingsRefused
from pipeline.tasks.settings_change import put_in_force
from pipeline.web.api.door import Nay, Operations, answer
from pipeline.web.api.shapes import Asked, OfConnector, Shape, find
from pipeline.web.console.guard import who


class SettingsShape(Shape):
    """A version of the settings, under the names of docs/configuration.md."""

    version: int
    author: str
    created_at: datetime
    document: dict[str, Any]


class HistoryAnswer(BaseModel):
    """Newest first."""

    versions: list[SettingsShape]


class NewSettings(Asked):
    """A whole document; what it does not name has its default."""

    document: dict[str, Any]
    base_version: Annotated[int, Field(ge=1, le=2**31 - 1, description="The version it was made from.")]
    force: Annotated[bool, Field(description="Take over codes that Pipedrive does not know.")] = False


def add(operations: Operations) -> None:
    operations.get("/connectors/<connector>/settings", show_settings, SettingsShape)
    operations.get("/connectors/<connector>/settings/history", list_settings, HistoryAnswer)
    operations.put("/connectors/<connector>/settings", put_settings, SettingsShape)


def show_settings(path: OfConnector) -> Response:
    """Show the settings in force."""
    connector = find(path)
    with transaction() as session:
        return answer(SettingsShape.model_validate(rows.settings_in_force(session, connector.key)))


def list_settings(path: OfConnector) -> Response:
    """List every version that was ever in force, newest first."""
    connector = find(path)
    with transaction() as session:
        found = rows.settings_history(session, connector.key)
    return answer(HistoryAnswer(versions=[SettingsShape.model_validate(each) for each in found]))


def put_settings(path: OfConnector, body: NewSettings) -> Response:
    """Put new settings in force, unless somebody else has meanwhile.

    Every mistake is named with its place. An equal document makes no new version.
    """
    connector = find(path)
    try:
        with transaction() as session:
            rows.lock_connector(session, connector.key)
            now = rows.settings_in_force(session, connector.key).version
            if now != body.base_version:
                raise Nay(
                    HTTPStatus.CONFLICT,
                    "settings_moved",
                    f"Version {now} is in force by now.",
                    "Read it, then put again.",
                )
            version = put_in_force(session, connector.key, body.document, author=who().name, force=body.force)
            audit.note(session, who().name, "settings.save", f"version {version.version}", connector_key=connector.key)
            session.flush()
            return answer(SettingsShape.model_validate(version))
    except SettingsRefused as refused:
        raise Nay(
            HTTPStatus.BAD_REQUEST, "settings_refused", "These settings were refused.", mistakes=refused.mistakes
        ) from None
