"""`pipeline operators`: who may come into the console."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from db import operator as rows
from db.session import transaction
from pipeline import operators
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, columns_of, json_option, say, show, table
from pipeline.domain.roles import Role
from pipeline.settings import settings

PASSWORD_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ROLE = click.Choice([each.value for each in Role])


@click.group(name="operators")
def group() -> None:
    """Operators: the people who may come into the console.

    \b
    Example:
      pipeline operators first
      pipeline operators add ana@acme.example --role operator --password-file ana.password
    """


@group.command()
@json_option
def first() -> None:
    """Print the link by which the first operator comes in. It opens as long as there is none.

    \b
    Example:
      pipeline operators first
    """
    open_database()
    with transaction() as session:
        is_taken = rows.any_operator(session)
    if is_taken:
        raise Failed("there is an operator already", "add others: pipeline operators add NAME --role ROLE")
    link = f"{settings().public_url}/setup?code={operators.first_code()}"
    show({"link": link}, lambda: say(link))


@group.command(name="list")
@json_option
def list_operators() -> None:
    """List who may come in.

    \b
    Example:
      pipeline operators list
    """
    open_database()
    with transaction() as session:
        found = [columns_of(each, "name", "role", "state", "created_at") for each in rows.all_operators(session)]
    show(
        found,
        lambda: table(
            "",
            ("name", "role", "state", "since (UTC)"),
            [tuple(each.values()) for each in found],
            empty="No operator yet. The first one comes in by: pipeline operators first",
        ),
    )


@group.command()
@click.argument("name")
@click.option(
    "--role", type=ROLE, required=True, help="viewer looks, operator acts, admin changes settings and people."
)
@click.option("--password-file", type=PASSWORD_FILE, help="File that holds the password; without it you are asked.")
@json_option
def add(name: str, role: str, password_file: Path | None) -> None:
    """Let somebody in.

    \b
    Example:
      pipeline operators add ana@acme.example --role operator --password-file ana.password
    """
    open_database()
    try:
        added = operators.add(name, _password(password_file), Role(role), by=_me())
    except operators.OperatorRefused as refused:
        raise Failed(str(refused)) from None
    show({"name": added.name, "role": added.role}, lambda: say(f"{added.name} may come in as {added.role}."))


@group.command()
@click.argument("name")
@click.option("--role", type=ROLE, help="Their new role.")
@click.option("--password-file", type=PASSWORD_FILE, help="File that holds their new password.")
@click.option("--disable", "state", flag_value="disabled", help="They do not come in any more.")
@click.option("--enable", "state", flag_value="active", help="They come in again.")
@json_option
def change(name: str, role: str | None, password_file: Path | None, state: str | None) -> None:
    """Change somebody's role, password or state; they have to log in again.

    \b
    Example:
      pipeline operators change ana@acme.example --role admin
    """
    if not (role or password_file or state):
        raise click.UsageError("say what: --role, --password-file, --disable or --enable")
    open_database()
    password = _password(password_file) if password_file else None
    try:
        operators.change(name, by=_me(), role=Role(role) if role else None, password=password, state=state)
    except operators.OperatorRefused as refused:
        raise Failed(str(refused)) from None
    show({"name": name}, lambda: say(f"{name} is changed, and has to log in again."))


COMMANDS: tuple[click.Command, ...] = (group,)


def _password(file: Path | None) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _me() -> str:
    return f"{getpass.getuser()} (command line)"
