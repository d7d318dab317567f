"""`pipeline operators first`, and the prompts and output of the other commands about operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click
from pydantic import BaseModel

from db import operator as rows
from db.session import transaction
from pipeline.accounts import operators
from pipeline.cli.calling import Caller
from pipeline.cli.output import Failed, json_option, say, show, table
from pipeline.cli.presentation import Presentation
from pipeline.cli.startup import open_database
from pipeline.operations import operators as operations
from pipeline.operations.models import Done
from pipeline.operations.operators import OfAnyKey, OfOperator, OperatorsAnswer, OperatorShape, OwnedKeysAnswer
from pipeline.operations.registry import Operation
from pipeline.settings import settings


@click.group(name="operators")
def group() -> None:
    """Operators: the people who can log in to the console.

    \b
    Example:
      pipeline operators first
      pipeline operators add ana@acme.example --role operator --password-file ana.password
    """


@group.command()
@json_option
def first() -> None:
    """Print the link with which the first operator is added. It works until there is an operator.

    \b
    Example:
      pipeline operators first
    """
    open_database()
    with transaction() as session:
        is_taken = rows.any_operator(session)
    if is_taken:
        raise Failed("an operator already exists", "add others: pipeline operators add NAME --role ROLE")
    link = f"{settings().public_url}/setup?code={operators.first_code()}"
    show({"link": link}, lambda: say(link))


def ask_password(caller: Caller, fields: dict[str, Any]) -> None:
    """Prompt for the password of a new operator, unless a file was given; an empty one means no password."""
    if "password" not in fields:
        prompt = "Password (empty: single sign-on only)"
        fields["password"] = click.prompt(
            prompt, default="", show_default=False, hide_input=True, confirmation_prompt=True, err=True
        )
    fields["password"] = fields["password"] or None
    read_connectors(caller, fields)


def read_connectors(_caller: Caller, fields: dict[str, Any]) -> None:
    """Read `--connectors all` as every connector, not as a connector with this name."""
    if fields.get("connectors") == ["all"]:
        fields["connectors"] = "all"


def show_operators(_request: BaseModel, answer: OperatorsAnswer) -> None:
    """Print the operators."""
    columns = ("id", "name", "role", "state", "has_second_factor", "created_at")
    table(
        "",
        ("id", "name", "role", "state", "second factor", "since (UTC)"),
        [[getattr(each, name) for name in columns] for each in answer.operators],
        empty="No operator yet. Add the first one: pipeline operators first",
    )


def show_keys(_request: BaseModel, answer: OwnedKeysAnswer) -> None:
    """Print the API keys with their owners and expiry."""
    columns = ("owner", "id", "name", "role", "created_at", "expires_at", "used_at")
    table(
        "",
        ("owner", "id", "name", "role", "created (UTC)", "expires", "last used"),
        [[getattr(each, name) for name in columns] for each in answer.keys],
        empty="No operator has a key. Owners create keys in the console, under their account.",
    )


def show_added(_request: BaseModel, answer: OperatorShape) -> None:
    """Print the added operator."""
    say(f"{answer.name} can log in as {answer.role}.")


def show_changed(request: OfOperator, answer: Done) -> None:
    """Print what was done with an operator."""
    say(f"{request.id}: {answer.done}.")


def show_revoked(request: OfAnyKey, _answer: Done) -> None:
    """Print the revoked key."""
    say(f"The key {request.id} is revoked.")


PRESENTATIONS: Final[Mapping[Operation[Any, Any], Presentation]] = {
    operations.add_operator: Presentation(show=show_added, ask=ask_password),
    operations.change_operator: Presentation(show=show_changed, ask=read_connectors),
    operations.list_all_keys: Presentation(show=show_keys),
    operations.list_operators: Presentation(show=show_operators),
    operations.log_operator_out: Presentation(show=show_changed),
    operations.revoke_any_key: Presentation(show=show_revoked),
    operations.turn_off_second_factor: Presentation(show=show_changed),
    operations.unlock_operator: Presentation(show=show_changed),
}
COMMANDS: tuple[click.Command, ...] = (group,)
