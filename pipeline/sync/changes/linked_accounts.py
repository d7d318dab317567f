"""Accounts travel before the Users that link to them: a message about a User may call for a change of its Account as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from sqlalchemy.orm import Session

from db import change_writer, id_mapping, joining
from db.departure import find_living
from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import ConnectorSettings, SettingsRefused
from pipeline.sync.changes.hull_messages import HullMessage, read_message
from pipeline.sync.compiled import plan_for
from pipeline.transform.hull_reports import pipedrive_id_of
from pipeline.transform.outgoing_filter import account_to_send

LINKED_USER: Final = "linked_user"
"""The cause of a change of an Account that a User called for."""


def linked_accounts(session: Session, messages: Iterable[HullMessage]) -> list[HullMessage]:
    """Make the messages about Accounts that these Users are linked to and that are not in Pipedrive yet.

    A handful of questions for each connector, however many messages there are.
    """
    of_users = sorted((each for each in messages if each.entity is Entity.PERSON), key=_connector_key)
    found: list[HullMessage] = []
    for connector_key, mine in groupby(of_users, _connector_key):
        try:
            settings = plan_for(session, connector_key, Entity.PERSON).settings
        except SettingsRefused:  # these were valid once; the next stages report what is wrong and keep the work
            continue
        found += accounts_of(session, connector_key, list(mine), settings)
    return found


def accounts_of(
    session: Session, connector_key: int, users: Iterable[HullMessage], settings: ConnectorSettings
) -> list[HullMessage]:
    """The same for Users of one connector, under settings that may not be in force."""
    if not settings.link_users_in_service:
        return []
    return _unknown(session, connector_key, list(_accounts(users, settings)))


def _connector_key(message: HullMessage) -> int:
    return message.connector_key


def _accounts(users: Iterable[HullMessage], settings: ConnectorSettings) -> Iterator[HullMessage]:
    for user in users:
        body = account_to_send(user.body, settings)
        if body is not None:
            yield read_message(user.connector_key, Entity.ORGANIZATION, body, cause=LINKED_USER, rank=user.rank)


def _unknown(session: Session, connector_key: int, accounts: list[HullMessage]) -> list[HullMessage]:
    """Return Users whose existing Organization is neither in the id map nor in their reports."""
    if not accounts:
        return []
    hull_ids = sorted({each.hull_id for each in accounts})
    joined = id_mapping.find_by_hull_ids(session, connector_key, Entity.ORGANIZATION, hull_ids)
    said = {each.hull_id: pipedrive_id_of(each.body["account"]) for each in accounts if each.hull_id not in joined}
    named = {pipedrive_id for pipedrive_id in said.values() if pipedrive_id is not None}
    living = find_living(session, connector_key, Entity.ORGANIZATION, named) if named else {}
    unknown = {hull_id for hull_id, pipedrive_id in said.items() if living.get(pipedrive_id or 0) is None}
    return [each for each in accounts if each.hull_id in unknown]


def organization_found(session: Session, connector_key: int, account_ids: Iterable[str]) -> None:
    """These Accounts have an Organization now: their Users are sent again, as they were last reported."""
    users = joining.take_awaiting(session, connector_key, account_ids)
    scope = (connector_key, Direction.OUTGOING, Entity.PERSON)
    change_writer.write_changes(session, *scope, users, cause="account_mapped")
