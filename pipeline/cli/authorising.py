"""`pipeline connectors authorize`, and how a connector is connected in one line."""

from __future__ import annotations

from dataclasses import asdict

import click

from db.authorisation import Connection
from db.session import transaction
from pipeline.cli.audited import audited
from pipeline.cli.opening import open_database
from pipeline.cli.showing import connector_argument, find_connector, json_option, moment, say, show
from pipeline.settings import settings
from pipeline.sync.connectors import authorisation


@click.command()
@connector_argument
@json_option
@audited("connector.invite")
def authorize(connector: str) -> None:
    """Print a link to connect a connector to Pipedrive by OAuth: good for ten minutes, in one browser.

    The person who opens it presses a button, signs in to Pipedrive as an administrator and agrees. Connecting again,
    to the same company, resets no settings and ends a pause that lost access had caused. Hull's dashboard does the
    same under Credentials.

    \b
    Example:
      pipeline connectors authorize acme
    """
    open_database()
    with transaction() as session:
        found = find_connector(session, connector)
    link = authorisation.invite(found)
    facts = {
        "id": found.id,
        "name": found.name,
        "url": link,
        "expires_in_s": authorisation.INVITATION_S,
        "callback_url": f"{settings().public_url}/auth/callback",
        "scopes": list(authorisation.SCOPES),
    }

    def human() -> None:
        say(link)
        say()
        say(f"Open it within ten minutes, signed in to Pipedrive as an administrator, to connect {found.name}.")
        say("It works in one browser: the first in which its button is pressed.")
        say(f"The app's settings at Pipedrive must name the callback URL {facts['callback_url']}")
        say(f"and the scopes {', '.join(authorisation.SCOPES)}.")

    show(facts, human)


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
