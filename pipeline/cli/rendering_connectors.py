"""Text output of the commands about connectors, and the confirmation of a removal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click
from pydantic import BaseModel

from pipeline.cli.calling import Caller
from pipeline.cli.presentation import Presentation
from pipeline.cli.showing import say, says_yes, table
from pipeline.domain.reasons import REASONS
from pipeline.operations import connectors
from pipeline.operations.connectors import (
    BY_HAND,
    ConnectorAdded,
    ConnectorAnswer,
    ConnectorsAnswer,
    NewName,
    Removal,
    Removed,
)
from pipeline.operations.models import ConnectorRequest, Done
from pipeline.operations.registry import Operation


def _list(_request: BaseModel, answer: ConnectorsAnswer) -> None:
    found = [each.connector for each in answer.connectors]
    table(
        "",
        ("name", "id", "Hull", "Pipedrive", "state"),
        [(c.name, c.id, c.hull_organization, c.pipedrive_company, state_of(c.state, c.pause_reason)) for c in found],
        empty="No connector yet. Add one: pipeline connectors add --help",
    )


def state_of(state: str, reason: str | None) -> str:
    """Return the state of a connector, with the reason for which it paused itself, if it did."""
    if not reason or reason == BY_HAND:
        return state
    return f"{state}: {REASONS[reason].meaning if reason in REASONS else reason}"


def _status(_request: BaseModel, answer: ConnectorAnswer) -> None:
    found = answer.connector
    say(f"{found.name} ({found.id}), {state_of(found.state, found.pause_reason)}: {answer.status.status}")
    for message in answer.status.messages:
        say(f"  - {message}")
    say(f"  {answer.status.open_failures:,} failures are open")


def _added(_request: BaseModel, answer: ConnectorAdded) -> None:
    made = answer.connector
    if made.pipedrive_company is None:
        say(
            f"Connector {made.name} of {made.hull_organization} was added; its work waits until it is connected to Pipedrive."
        )
        say(f"Next: pipeline connectors authorize {made.name}")
        return
    say(f"Connector {made.name} joins {made.hull_organization} to {made.pipedrive_company}.")
    if answer.webhooks != "ok":
        say(f"Pipedrive does not send its changes here yet: {answer.webhooks}")
        say(f"Once it can reach PUBLIC_URL: pipeline connectors webhooks {made.name}")
    say(f"Next: pipeline settings show {made.name}, then pipeline fetch all {made.name} --wait")


def _paused(request: ConnectorRequest, _answer: Done) -> None:
    say(f"Connector {request.connector} is paused; its work waits.")


def _resumed(request: ConnectorRequest, _answer: Done) -> None:
    say(f"Connector {request.connector} is active.")


def _renamed(request: NewName, _answer: Done) -> None:
    say(f"{request.connector} was renamed to {request.name}.")


def _confirm_removal(caller: Caller, fields: dict[str, Any]) -> None:
    if "name" in fields:
        return
    found = caller.call(connectors.show_connector, ConnectorRequest(connector=fields["connector"])).connector
    if not says_yes():
        click.confirm(f"Remove {found.name} ({found.hull_organization}) with its id map and its history?", abort=True)
    fields["name"] = found.name


def _removed(request: Removal, answer: Removed) -> None:
    say(f"Connector {request.name} was removed.")
    if answer.left:
        say(f"Its webhooks could not be deleted in Pipedrive: {answer.left}")
        say(
            "Their deliveries are refused from now on. Delete them in Pipedrive, or Pipedrive deletes them after three days."
        )


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    connectors.add_connector: Presentation(show=_added),
    connectors.list_connectors: Presentation(show=_list),
    connectors.pause_connector: Presentation(show=_paused),
    connectors.remove_connector: Presentation(
        show=_removed, ask=_confirm_removal, asks=frozenset({"name"}), yes="Do not ask."
    ),
    connectors.rename_connector: Presentation(show=_renamed),
    connectors.resume_connector: Presentation(show=_resumed),
    connectors.show_connector: Presentation(show=_status),
}
