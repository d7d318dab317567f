"""Which failures a command is about: the flags that choose them, the same for every command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import click
from sqlalchemy.orm import Session

from db import connector as connectors
from db.failure import Failure
from db.failure_filter import FailureFilter
from pipeline.cli.fetch import Moment
from pipeline.cli.showing import Failed, find_connector
from pipeline.domain.kinds import Direction, Entity

F = TypeVar("F", bound=Callable[..., Any])


def filter_options(command: F) -> F:
    """Give a command the flags that choose failures; `read_filter` makes a filter of them."""
    for option in (
        click.option(
            "--settings-version", type=int, metavar="N", help="That failed under this version of the settings."
        ),
        click.option("--until", type=Moment(), metavar="TIME", help="Those that last failed before."),
        click.option("--id", "ids", type=int, multiple=True, help="This failure; may be given again."),
        click.option("--since", type=Moment(), metavar="TIME", help="Those that failed since: 2h, 3d, 2026-08-31."),
        click.option("--field", metavar="CODE", help="About this field."),
        click.option("--group", "fingerprint", metavar="FINGERPRINT", help="With this cause: see failures groups."),
        click.option(
            "--kind",
            type=click.Choice(["record", "field", "batch", "control"]),
            help="Of this kind; a field is one that stayed behind while its record was carried over.",
        ),
        click.option("--direction", type=click.Choice([each.value for each in Direction]), help="On this way."),
        click.option(
            "--entity", type=click.Choice([each.value for each in Entity]), help="Of Persons or Organizations."
        ),
        click.option("--reason", metavar="CODE", help="With this reason code."),
        click.option("--connector", metavar="CONNECTOR", help="Of this connector."),
    ):
        command = option(command)
    return command


def is_empty(given: dict[str, Any]) -> bool:
    """Whether no flag was given, which means everything there is."""
    return not any(given.values())


def read_filter(session: Session, given: dict[str, Any], state: str | None = "open") -> FailureFilter:
    """The filter that the flags make. Raises: Failed for a connector or a failure that is not there."""
    chosen = dict(given)
    name = chosen.pop("connector")
    key = find_connector(session, name).key if name else None
    for failure_id in chosen["ids"]:
        get_failure(session, failure_id)
    until: datetime | None = chosen["until"]
    return FailureFilter(connector_key=key, state=state, **{**chosen, "ids": tuple(chosen["ids"]), "until": until})


def by_connector(session: Session, chosen: FailureFilter) -> list[FailureFilter]:
    """The same for each connector by itself."""
    if chosen.connector_key is not None:
        return [chosen]
    return [replace(chosen, connector_key=each.key) for each in connectors.all_connectors(session)]


def get_failure(session: Session, failure_id: int) -> Failure:
    """Raises: Failed with exit code 2."""
    failure = session.get(Failure, failure_id)
    if failure is None:
        raise Failed(f"there is no failure {failure_id}", "see: pipeline failures list", exit_code=2)
    return failure
