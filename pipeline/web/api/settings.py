"""Settings: the version in force, the versions before and how they differ, and a new one, looked at before it is saved."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from flask import Response
from pydantic import BaseModel, Field

from db import connector as rows
from db.connector import Connector, SettingsVersion
from db.session import transaction
from pipeline.domain.roles import Role
from pipeline.insight import settings_editing as editing
from pipeline.insight.settings_text import effective
from pipeline.operations.errors import not_found
from pipeline.operations.models import Asked, Listed, OfConnector, Shape
from pipeline.operations.values import Number, Why
from pipeline.sync.connectors.settings_change import read_unknown_fields
from pipeline.web.api.problems import answer
from pipeline.web.api.routes import Operations
from pipeline.web.api.shapes import find
from pipeline.web.console.guard import who


class SettingsShape(Shape):
    """A version of the settings, under the names of docs/configuration.md."""

    version: int
    author: str
    created_at: datetime
    document: dict[str, Any]


class VersionsAnswer(BaseModel):
    """Newest first."""

    versions: list[SettingsShape]


class SettingChangeShape(Shape):
    """One thing that differs, in words: `added`, `removed` or `changed`."""

    setting: str
    title: str
    kind: str
    what: str
    before: str
    after: str
    sentence: str


class DifferenceAnswer(BaseModel):
    """How version `after` differs from version `before`."""

    before: int
    after: int
    changes: list[SettingChangeShape]


class ConsequenceShape(Shape):
    """Records of before that are carried over anew, and for how many tokens."""

    entity: str
    kind: str
    records: int
    tokens: int
    sentence: str


class MistakeShape(Shape):
    setting: str
    position: int | None
    words: str


class ReviewAnswer(Shape):
    """What saving would do; `unknown` are fields that were mapped before and that Pipedrive does not have."""

    base: int
    changes: list[SettingChangeShape]
    consequences: list[ConsequenceShape]
    unknown: list[MistakeShape]


class NewSettings(Asked):
    """A whole document; what it does not name has its default."""

    document: dict[str, Any]
    base_version: Annotated[Number, Field(description="The version it was made from.")]


class ForcedSettings(NewSettings):
    force: Annotated[bool, Field(description="Take over codes that Pipedrive does not know.")] = False


class SettingsAsked(Asked):
    defaults: Annotated[bool, Field(description="With the default of whatever the document does not name.")] = False


class RebasedAnswer(BaseModel):
    """The edits on top of version `base_version`, to be looked at and put."""

    document: dict[str, Any]
    base_version: int


class RollBack(Asked):
    version: Number
    why: Why | None = None


class Compared(Asked):
    before: Number
    after: Number


def add(operations: Operations) -> None:
    base = "/connectors/<connector>/settings"
    operations.get(base, show_settings, SettingsShape)
    operations.get(f"{base}/history", list_settings, VersionsAnswer)
    operations.get(f"{base}/difference", compare_settings, DifferenceAnswer)
    operations.post(f"{base}/review", review_settings, ReviewAnswer, needs=Role.ADMIN, changes=False)
    operations.put(base, put_settings, SettingsShape)
    operations.post(f"{base}/rebase", rebase_settings, RebasedAnswer, needs=Role.ADMIN, changes=False)
    operations.post(f"{base}/roll-back", roll_back_settings, SettingsShape, needs=Role.ADMIN)


def show_settings(path: OfConnector, query: SettingsAsked) -> Response:
    """Show the settings in force."""
    connector = find(path)
    with transaction() as session:
        shown = SettingsShape.model_validate(rows.settings_in_force(session, connector.key))
    if query.defaults:
        shown.document = effective(shown.document)
    return answer(shown)


def list_settings(path: OfConnector, query: Listed) -> Response:
    """List the versions that were ever in force, newest first; `before` is a version's number."""
    connector = find(path)
    with transaction() as session:
        found = rows.settings_page(session, connector.key, before=query.before, limit=query.limit)
    return answer(VersionsAnswer(versions=[SettingsShape.model_validate(each) for each in found]))


def compare_settings(path: OfConnector, query: Compared) -> Response:
    """Say in words how two versions differ."""
    connector = find(path)
    before, after = _version(connector, query.before), _version(connector, query.after)
    with transaction() as session:
        found = editing.between(session, connector.key, before.document, after.document)
    changes = [SettingChangeShape.model_validate(each) for each in found]
    return answer(DifferenceAnswer(before=query.before, after=query.after, changes=changes))


def review_settings(path: OfConnector, body: NewSettings) -> Response:
    """Say what putting a document in force would change, and what would follow; nothing is saved."""
    connector = find(path)
    read_unknown_fields(connector.key, body.document)
    with transaction() as session:
        found = editing.review(session, connector.key, body.document, base=body.base_version)
    return answer(ReviewAnswer.model_validate(found))


def put_settings(path: OfConnector, body: ForcedSettings) -> Response:
    """Put new settings in force, unless somebody else has meanwhile.

    Every mistake is named with its place. An equal document makes no new version.
    """
    connector = find(path)
    version = editing.save(connector, body.document, base=body.base_version, author=who().name, force=body.force)
    return answer(SettingsShape.model_validate(version))


def rebase_settings(path: OfConnector, body: NewSettings) -> Response:
    """Put your edits on top of what somebody else has saved meanwhile; nothing is saved.

    Of a setting that both edited yours stays.
    """
    connector = find(path)
    _version(connector, body.base_version)
    document, base = editing.rebased(connector.key, body.document, base=body.base_version)
    return answer(RebasedAnswer(document=document, base_version=base))


def roll_back_settings(path: OfConnector, body: RollBack) -> Response:
    """Put an earlier version in force again, as a new one."""
    connector = find(path)
    _version(connector, body.version)
    made = editing.roll_back(connector, body.version, author=who().name, why=body.why)
    return answer(SettingsShape.model_validate(made))


def _version(connector: Connector, version: int) -> SettingsVersion:
    with transaction() as session:
        found = rows.find_settings(session, connector.key, version)
    if found is None:
        raise not_found(f"There is no version {version} of these settings.")
    return found
