"""What all commands share: --json or a table, errors with a next step, the connector argument."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

F = TypeVar("F", bound=Callable[..., Any])
PIPE_WIDTH = 180
"""Width of a table that is written to a file or a pipe."""


class Failed(click.ClickException):
    """The work failed, exit code 1. `next_step` is what to do now."""

    def __init__(self, message: str, next_step: str = "", *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.next_step, self._as_json = (
            next_step,
            wants_json(),
        )  # `show` is called after the command's context has ended
        setattr(self, "exit_code", exit_code)  # noqa: B010 - click declares it for the class

    def show(self, file: Any = None) -> None:
        if self._as_json:
            click.echo(json.dumps({"error": self.message, "next": self.next_step or None}), err=True, file=file)
            return
        click.echo(f"Error: {self.message}", err=True, file=file)
        if self.next_step:
            click.echo(f"Next:  {self.next_step}", err=True, file=file)


def json_option(command: F) -> F:
    """Add --json to a command; `wants_json` returns whether it was given."""
    option = click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=_keep, help="Print JSON, for programs."
    )
    return option(command)


def wants_json() -> bool:
    return _is_given("json")


def yes_option(help_text: str) -> click.Option:
    """Return the option --yes; `is_confirmed` returns whether it was given."""
    return click.Option(["--yes"], is_flag=True, expose_value=False, callback=_keep, help=help_text)


def is_confirmed() -> bool:
    return _is_given("yes")


def _keep(context: click.Context, option: click.Parameter, value: bool) -> None:
    context.meta[f"pipeline.{option.name}"] = value


def _is_given(flag: str) -> bool:
    """Return whether the command that runs was given a flag that `_keep` stores."""
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get(f"pipeline.{flag}"))


def connector_argument(command: F) -> F:
    return click.argument("connector", metavar="CONNECTOR")(command)


def show(document: Any, human: Callable[[], None]) -> None:
    """Print the document with --json; otherwise call `human`, which prints text."""
    if wants_json():
        click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=_in_utc))
    else:
        human()


def _in_utc(value: Any) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} cannot be printed as JSON")
    return value.astimezone(UTC).isoformat()


def console(*, err: bool = False) -> Console:
    """Return a console for the current stdout or stderr, which a test or a pipe may have replaced."""
    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PIPE_WIDTH)


def echo(text: str = "") -> None:
    """Print one line of text; square brackets are not interpreted."""
    click.echo(text)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "") -> None:
    """Print a table, or the sentence `empty` if there are no rows."""
    lines = [[text_of(each) for each in row] for row in rows]
    if not lines and empty:
        echo(empty)
        return
    shown = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(columns):
        numeric = bool(lines) and all(_is_number(line[position]) for line in lines)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for line in lines:
        shown.add_row(*map(Text, line))  # not markup: a value may contain square brackets
    console().print(shown)


def typed_number(sentence: str, number: int) -> int:
    """Prompt for the number of records. Raises Failed if another number is typed."""
    click.echo(f"{sentence}.", err=True)
    try:
        given: str = click.prompt("Type the number to continue", default="", show_default=False, err=True)
    except click.Abort:
        given = ""
    if given.replace(",", "").strip() != str(number):
        raise Failed("that is not the number; nothing was done", "use --yes to skip the prompt")
    return number


def own_name() -> str:
    """Return how this program was called, for suggested commands: `pipeline`, or a path such as `.venv/bin/pipeline`."""
    return sys.argv[0] if Path(sys.argv[0]).name == "pipeline" else "pipeline"


def text_of(value: Any) -> str:
    """Return a value as text: `-` for nothing, times in UTC, the parts of a list or mapping separated by commas."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, Mapping):
        value = [f"{name}: {text_of(each)}" for name, each in value.items()]
    if isinstance(value, list):
        return ", ".join(map(text_of, value)) or "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def short(value: Any, longest: int = 30) -> str:
    """Return a value as JSON, cut to `longest` characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """Return a duration as text: 12.3 s, 4 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace("-", "").isdigit()
