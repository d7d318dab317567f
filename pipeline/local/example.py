"""The connector `demo`, which joins the sandbox's Pipedrive to its Hull with realistic settings, and the sandbox's controls.

The sandbox loses everything when it ends, so the connector is created again each time: an id map of lost records
would be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import requests
from sqlalchemy.orm import Session

from db import connector as connectors
from db import field_definition
from db.connector import Connector
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.sync.connectors import settings_change, setup
from pipeline.sync.connectors.webhooks import ensure_webhooks

NAME = "demo"
AUTHOR = "demo"
"""The author of the example's settings."""
FULL_FETCH_CRON = "15 2 * * *"

USER_FIELDS = {
    "first_name": "First name",
    "last_name": "Last name",
    "pipedrive/name": "Name",
    "pipedrive/phone": "Phone",
    "pipedrive/owner": "Owner",
    "pipedrive/labels": "Labels",
    "pipedrive/job_title": "Job title",
    "pipedrive/customer_number": "Customer number",
    "pipedrive/customer_since": "Customer since",
    "pipedrive/lead_score": "Lead score",
    "pipedrive/lead_source": "Lead source",
    "pipedrive/interests": "Interests",
    "pipedrive/credit_limit": "Credit limit",
}
ACCOUNT_FIELDS = {
    "name": "Name",
    "pipedrive/website": "Website",
    "pipedrive/address": "Address",
    "pipedrive/owner": "Owner",
    "pipedrive/labels": "Labels",
    "pipedrive/industry": "Industry",
    "pipedrive/employees": "Number of employees",
    "pipedrive/annual_revenue": "Annual revenue",
    "pipedrive/tier": "Tier",
    "pipedrive/health_score": "Health score",
    "pipedrive/products": "Products in use",
    "pipedrive/contract_value": "Contract value",
    "pipedrive/founded_on": "Founded on",
}
OUTGOING_USER_FIELDS = {"job_title": "Job title", "lead_score": "Lead score"}
OUTGOING_ACCOUNT_FIELDS = {"health_score": "Health score"}
"""Attribute → the field's name in Pipedrive; the settings need its code."""


class ExampleNotAdded(Exception):
    """Another connector has the name or the id of the example. The text names it, with the next step."""


def add(sandbox: dict[str, str], *, arrival_url: str) -> Connector:
    """Add the connector, have Pipedrive send its webhooks here, and Hull its notifications.

    Raises: ExampleNotAdded, and nothing is changed, if a manually added connector has its name or the sandbox's id.
    """
    with transaction() as session:
        for old in _in_the_way(session, sandbox["hull_connector_id"]):
            if not _is_ours(session, old):
                raise ExampleNotAdded(
                    f"the connector {old.name} was added manually with the {_SAME[old.name == NAME]}, so it is kept and the "
                    f"example is not added. Remove it (pipeline connectors remove {old.name}), or run pipeline up --no-example"
                )
            connectors.remove_rows_of(session, old.key)
    added = setup.add_connector(
        NAME,
        hull_organization=sandbox["hull_organization"],
        hull_id=sandbox["hull_connector_id"],
        hull_secret=sandbox["hull_secret"],
        pipedrive_token=sandbox["api_token"],
    )
    settings_change.change_settings(added, settings_for(added.key), AUTHOR)
    ensure_webhooks(added.key)
    Remotes(sandbox).notify(f"{arrival_url}/smart-notifier")
    return added


_SAME = {True: f"name {NAME}", False: "id of the sandbox's connector"}


def _in_the_way(session: Session, hull_id: str) -> list[Connector]:
    found = [connectors.find_connector(session, NAME), connectors.find_connector(session, hull_id)]
    return list({row.key: row for row in found if row is not None}.values())


def _is_ours(session: Session, connector: Connector) -> bool:
    """Return whether it was created here: a connector created by a person does not have these settings."""
    return any(version.author == AUTHOR for version in connectors.settings_history(session, connector.key))


def settings_for(connector_key: int) -> dict[str, Any]:
    """Return the settings, with the codes of this company instead of field names."""
    person, organization = (codes_of(connector_key, entity) for entity in Entity)
    return {
        "incoming_user_attributes": _rows(USER_FIELDS, person),
        "incoming_account_attributes": _rows(ACCOUNT_FIELDS, organization),
        "outgoing_user_attributes": _rows(OUTGOING_USER_FIELDS, person),
        "outgoing_account_attributes": _rows(OUTGOING_ACCOUNT_FIELDS, organization),
        "synchronized_user_segments": ["ALL"],
        "synchronized_account_segments": ["ALL"],
        "link_users_in_hull": True,
        "support_user_deletion": True,
        "support_account_deletion": True,
        "full_fetch_cron": FULL_FETCH_CRON,
    }


def codes_of(connector_key: int, entity: Entity) -> dict[str, str]:
    """Return field name → code, from the field definitions."""
    with transaction() as session:
        fields = field_definition.find_fields(session, connector_key, entity)
    return {row["field_name"]: row["field_code"] for row in (fields.rows if fields else [])}


def _rows(fields: dict[str, str], codes: dict[str, str]) -> list[dict[str, str]]:
    return [{"hull": attribute, "service": codes[name]} for attribute, name in fields.items() if name in codes]


TIMEOUT_S = 30.0
Record = dict[str, Any]


class Remotes:
    """Edit and read the records of the sandbox's Pipedrive and Hull, like their users."""

    def __init__(self, sandbox: Mapping[str, str]) -> None:
        self._pipedrive = f"{sandbox['pipedrive_url']}/__sandbox__"
        self._hull = f"{sandbox['hull_url']}/__sandbox__"

    def records(self, entity: Entity) -> dict[int, Record]:
        """Return Pipedrive id → Person or Organization, in API v2 format."""
        return {row["id"]: row for row in _lines(f"{self._pipedrive}/export?entity={entity.value}")}

    def hull_records(self, entity: Entity) -> list[Record]:
        """Return the Users or Accounts in Hull; a User has its Account in `account_id`."""
        return _lines(f"{self._hull}/export?entity={entity.hull}")

    def edit_record(self, entity: Entity, pipedrive_id: int, fields: Mapping[str, Any]) -> None:
        """Change a record in Pipedrive, like a user of its app; webhooks follow."""
        _post(f"{self._pipedrive}/edit", {"entity": entity.value, "id": pipedrive_id, "fields": dict(fields)})

    def delete_record(self, entity: Entity, pipedrive_id: int) -> None:
        """Delete a record in Pipedrive, like a user of its app; webhooks follow."""
        _post(f"{self._pipedrive}/delete", {"entity": entity.value, "id": pipedrive_id})

    def put_record(self, entity: Entity, record: Mapping[str, Any]) -> None:
        """Store a record unchanged, valid or not, without a webhook."""
        _post(f"{self._pipedrive}/raw?entity={entity.value}", record)

    def edit_hull_record(self, entity: Entity, hull_id: str, attributes: Mapping[str, Any]) -> None:
        """Change attributes in Hull, as a person or another connector would; a notification follows."""
        _post(f"{self._hull}/{entity.hull}s/{hull_id}", attributes)

    def notify(self, url: str) -> None:
        """Make Hull send every change to this address."""
        _post(f"{self._hull}/notify_url", {"url": url})


def _lines(url: str) -> list[Record]:
    answer = requests.get(url, timeout=TIMEOUT_S)
    answer.raise_for_status()
    return [orjson.loads(line) for line in answer.content.splitlines()]


def _post(url: str, body: Mapping[str, Any]) -> None:
    requests.post(url, json=dict(body), timeout=TIMEOUT_S).raise_for_status()
