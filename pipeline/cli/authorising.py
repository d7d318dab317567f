"""How a connector is connected, for `pipeline connectors show`."""

from __future__ import annotations

from dataclasses import asdict

from db.authorisation import Connection
from pipeline.cli.showing import moment


def as_facts(connection: Connection) -> dict[str, object]:
    """For `--json`: ids and times, never a secret."""
    return asdict(connection)


def as_line(connection: Connection) -> str:
    """For a person."""
    if connection.how == "oauth":
        until = moment(connection.expires_at) if connection.expires_at else "-"
        return (
            f"OAuth, as user {connection.user_id or '-'} of company {connection.company_id or '-'}; "
            f"access token until {until} UTC, renewed by itself"
        )
    if connection.how == "api_token":
        return f"API token of company {connection.company_id or '-'}"
    return "not yet: pipeline connectors authorize"
