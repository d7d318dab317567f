"""What every command shares: --json or a table, errors with a next step, the connector that an argument names."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy.orm import Session

from db import connector as connectors
from db.connector import Connector

F = TypeVar("F", bound=Callable[..., Any])
JSON = "pipeline.json"
YES = "pipeline.yes"
PIPE_WIDTH = 180
"""Columns of a table that goes to a file or a pipe, where nobody measures the window."""


class Failed(click.ClickException):
    """The work failed, exit code 1. `next_step` is what to do now."""

    def __init__(self, message: str, next_step: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.next_step, self._as_json = next_step, wants_json()  # it is shown when the command's context has gone
        setattr(self, "exit_code", exit_code)  # noqa: B010 - click declares it for the class

    def show(self, file: Any = None) -> None:
        if self._as_json:
            click.echo(json.dumps({"error": self.message, "next": self.next_step or None}), err=True, file=file)
            return
        click.echo(f"Error: {self.message}", err=True, file=file)
        if self.next_step:
            click.echo(f"Next:  {self.next_step}", err=True, file=file)


def json_option(command: F) -> F:
    """Give a command --json; whether it was given is kept with the click context, for `wants_json`."""

    def keep(context: click.Context, _option: click.Parameter, value: bool) -> None:
        context.meta[JSON] = value

    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=keep,
        help="Print JSON, for programs.",
    )(command)


def wants_json() -> bool:
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(JSON))


def yes_option(help_text: str) -> click.Option:
    """Return the option --yes; whether it was given is kept with the click context, for `says_yes`."""

    def keep(context: click.Context, _option: click.Parameter, value: bool) -> None:
        context.meta[YES] = value

    return click.Option(["--yes"], is_flag=True, expose_value=False, callback=keep, help=help_text)


def says_yes() -> bool:
    """Return whether the command was given --yes."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(YES))


def connector_argument(command: F) -> F:
    return click.argument("connector", metavar="CONNECTOR")(command)


def find_connector(session: Session, id_or_name: str) -> Connector:
    """The connector of that id or name.

    Raises: Failed with exit code 2, naming those there are.
    """
    found = connectors.find_connector(session, id_or_name)
    if found is not None:
        return found
    names = [each.name for each in connectors.all_connectors(session)]
    if not names:
        raise Failed("there is no connector yet", "add one: pipeline connectors add --help", exit_code=2)
    raise Failed(f"there is no connector {id_or_name!r}", f"choose one of: {', '.join(names)}", exit_code=2)


def show(document: Any, human: Callable[[], None]) -> None:
    """Print the document with --json, else let `human` print what a person reads."""
    if wants_json():
        click.echo(json.dumps(plain(document), indent=2, ensure_ascii=False))
    else:
        human()


def plain(value: Any) -> Any:
    """As JSON: times in ISO 8601 and UTC, rows as objects."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return value


def columns_of(row: Any, *names: str) -> dict[str, Any]:
    """The named columns of a row, as they are."""
    return {name: getattr(row, name) for name in names}


def console(*, err: bool = False) -> Console:
    """A console for the stream of this very moment, so that a test's or a pipe's replacement is used."""
    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PIPE_WIDTH)


def say(text: str = "") -> None:
    """One line for a person; square brackets stay as they are."""
    click.echo(text)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "") -> None:
    """A table for a person, or the sentence `empty` where there are no rows."""
    lines = [[cell(each) for each in row] for row in rows]
    if not lines and empty:
        say(empty)
        return
    shown = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(columns):
        numeric = bool(lines) and all(_is_number(line[position]) for line in lines)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        shown.add_row(*line)
    console().print(shown)


def typed_number(sentence: str, number: int) -> int:
    """Have a person type how many records are touched. Raises Failed when it is not that."""
    click.echo(f"{sentence}.", err=True)
    try:
        given: str = click.prompt("Type the number to go on", default="", show_default=False, err=True)
    except click.Abort:
        given = ""
    if given.replace(",", "").strip() != str(number):
        raise Failed("that is not the number; nothing was done", "with --yes nobody is asked")
    return number


def own_name() -> str:
    """How this program was called, for commands that are to be typed next: `.venv/bin/pipeline`, mostly `pipeline`."""
    return sys.argv[0] if Path(sys.argv[0]).name == "pipeline" else "pipeline"


def cell(value: Any) -> str:
    """A value as a person reads it; rich's markup is made harmless."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("[", r"\[")


def short(value: Any, longest: int = 30) -> str:
    """A value as JSON, cut."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """12.3 s, 4 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace("-", "").isdigit()
