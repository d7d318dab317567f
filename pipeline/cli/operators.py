"""`pipeline operators`: who may come into the console."""

from __future__ import annotations

from pathlib import Path

import click

from db import api_key
from db import operator as rows
from db.session import transaction
from pipeline.accounts import api_keys, logins, operators, second_factor
from pipeline.cli.audited import audited, operator_name
from pipeline.cli.opening import open_database
from pipeline.cli.showing import Failed, columns_of, find_connector, json_option, say, show, table
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
        found = [
            columns_of(each, "name", "role", "state", "has_second_factor", "created_at")
            for each in rows.all_operators(session)
        ]
    show(
        found,
        lambda: table(
            "",
            ("name", "role", "state", "second factor", "since (UTC)"),
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
@click.option("--no-password", is_flag=True, help="They log in by single sign-on only (SSO_HEADER).")
@click.option(
    "--connector", "connectors", multiple=True, help="They see and act on this connector only; may be repeated."
)
@json_option
@audited("operator.add")
def add(name: str, role: str, password_file: Path | None, no_password: bool, connectors: tuple[str, ...]) -> None:
    """Add an operator.

    \b
    Example:
      pipeline operators add ana@acme.example --role operator --password-file ana.password
    """
    open_database()
    try:
        password = None if no_password else _password(password_file)
        keys = _keys(connectors) if connectors else None
        added = operators.add(name, password, Role(role), by=operator_name(), connector_keys=keys)
    except operators.OperatorRefused as refused:
        raise Failed(str(refused)) from None
    show({"name": added.name, "role": added.role}, lambda: say(f"{added.name} can log in as {added.role}."))


@group.command()
@click.argument("name")
@click.option("--role", type=ROLE, help="Their new role.")
@click.option("--password-file", type=PASSWORD_FILE, help="File that holds their new password.")
@click.option("--disable", "state", flag_value="disabled", help="They cannot log in any more.")
@click.option("--enable", "state", flag_value="active", help="They can log in again.")
@json_option
@audited("operator.change")
def change(name: str, role: str | None, password_file: Path | None, state: str | None) -> None:
    """Change an operator's role, password or state; they have to log in again.

    A new password and --disable revoke the operator's keys.

    \b
    Example:
      pipeline operators change ana@acme.example --role admin
    """
    if not (role or password_file or state):
        raise click.UsageError("say what: --role, --password-file, --disable or --enable")
    open_database()
    password = _password(password_file) if password_file else None
    try:
        operators.change(name, by=operator_name(), role=Role(role) if role else None, password=password, state=state)
    except operators.OperatorRefused as refused:
        raise Failed(str(refused)) from None
    show({"name": name}, lambda: say(f"{name} is changed, and has to log in again."))


@group.command()
@click.argument("name")
@json_option
@audited("operator.unlock")
def unlock(name: str) -> None:
    """Forget an operator's failed logins, so that the next login does not have to wait.

    \b
    Example:
      pipeline operators unlock ana@acme.example
    """
    open_database()
    _require(name)
    logins.unlock(name, by=operator_name())
    show({"name": name}, lambda: say(f"The next login of {name} does not have to wait."))


@group.command(name="log-out")
@click.argument("name")
@json_option
@audited("operator.logout")
def log_out(name: str) -> None:
    """End all sessions of an operator.

    \b
    Example:
      pipeline operators log-out ana@acme.example
    """
    open_database()
    _require(name)
    ended = operators.log_out_everywhere(name, by=operator_name())
    show({"name": name, "ended": ended}, lambda: say(f"{ended} sessions of {name} have ended."))


@group.command(name="turn-off-second-factor")
@click.argument("name")
@json_option
@audited("second_factor.off")
def turn_off_second_factor(name: str) -> None:
    """Let an operator log in without a code, for a lost phone without recovery codes.

    \b
    Example:
      pipeline operators turn-off-second-factor ana@acme.example
    """
    open_database()
    _require(name)
    was_on = second_factor.turn_off(name, by=operator_name())
    show(
        {"name": name, "was_on": was_on},
        lambda: say(f"{name} logs in without a code." if was_on else f"{name} had no second factor."),
    )


@group.command()
@json_option
def keys() -> None:
    """List the keys of all operators: who has which, until when.

    \b
    Example:
      pipeline operators keys
    """
    open_database()
    columns = ("id", "name", "role", "created_at", "expires_at", "used_at")
    with transaction() as session:
        found = [{"owner": owner.name} | columns_of(key, *columns) for owner, key in api_key.all_keys(session)]
    show(
        found,
        lambda: table(
            "",
            ("owner", "id", "name", "role", "made (UTC)", "expires", "last used"),
            [tuple(each.values()) for each in found],
            empty="No operator has a key. Owners make them in the console, under their account.",
        ),
    )


@group.command(name="revoke-key")
@click.argument("key_id", type=click.IntRange(min=1))
@json_option
@audited("key.revoke")
def revoke_key(key_id: int) -> None:
    """Revoke a key by its id, as `pipeline operators keys` lists it.

    \b
    Example:
      pipeline operators revoke-key 3
    """
    open_database()
    if not api_keys.revoke_any_key(key_id, by=operator_name()):
        raise Failed(f"there is no key {key_id}", "list them: pipeline operators keys")
    show({"revoked": key_id}, lambda: say(f"The key {key_id} is revoked."))


@group.command()
@click.argument("name")
@click.argument("connectors", nargs=-1)
@click.option("--all", "every", is_flag=True, help="They see and act on every connector again.")
@json_option
@audited("operator.limit")
def limit(name: str, connectors: tuple[str, ...], every: bool) -> None:
    """Limit an operator, and their keys, to some connectors.

    \b
    Example:
      pipeline operators limit ana@acme.example acme acme-emea
      pipeline operators limit ana@acme.example --all
    """
    if bool(connectors) == every:
        raise click.UsageError("name connectors, or give --all")
    open_database()
    try:
        operators.limit(name, None if every else _keys(connectors), by=operator_name())
    except operators.OperatorRefused as refused:
        raise Failed(str(refused)) from None
    seen = "every connector" if every else ", ".join(connectors)
    show({"name": name, "connectors": list(connectors) or "all"}, lambda: say(f"{name} sees {seen}."))


COMMANDS: tuple[click.Command, ...] = (group,)


def _keys(connectors: tuple[str, ...]) -> list[int]:
    with transaction() as session:
        return [find_connector(session, each).key for each in connectors]


def _require(name: str) -> None:
    with transaction() as session:
        if rows.find_operator(session, name) is None:
            raise Failed(f"there is no operator {name!r}", "list them: pipeline operators list")


def _password(file: Path | None) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
