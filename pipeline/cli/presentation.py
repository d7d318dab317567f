"""How a generated command prints its answer, prompts for missing fields, and waits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from pydantic import BaseModel

from pipeline.cli.calling import Caller
from pipeline.cli.output import echo, table, text_of

Show = Callable[[Any, Any], None]
"""Prints an answer; called with the request and the answer."""


def lines(*templates: str) -> Show:
    """Return a `Show` that prints lines such as `Run {request.id} was cancelled.`"""

    def show(request: Any, answer: Any) -> None:
        for template in templates:
            echo(template.format(request=request, answer=answer).rstrip())

    return show


def rows(name: str, columns: str, *, empty: str, **values: Any) -> Show:
    """Return a `Show` that prints the list `name` of the answer as a table; see `print_rows`."""
    return lambda _request, answer: print_rows(getattr(answer, name), columns, empty=empty, **values)


def print_rows(found: Iterable[Any], columns: str, *, empty: str = "", title: str = "", **values: Any) -> None:
    """Print entries as a table, or the sentence `empty` if there is no entry. Headings are the names of the columns.

    columns  separated by spaces: attributes of an entry, or names in `values`
    values   name of a column → function of an entry
    """
    names = columns.split()
    cells = [[_cell(name, values.get(name, attrgetter(name))(each)) for name in names] for each in found]
    headings = [re.sub("_at$", " (UTC)", name).replace("_", " ") for name in names]
    table(title, headings, cells, empty=empty)


def _cell(column: str, value: Any) -> Any:
    """Return a value for a table: an id is text, because the operator copies it, other numbers have separators."""
    is_id = column == "id" or column.endswith("_id")
    return str(value) if is_id and value is not None else value


def show_plainly(_request: Any, answer: BaseModel) -> None:
    """Print the values of an answer, one per line, and its lists as tables."""
    for name in _shown_fields(answer):
        value, title = getattr(answer, name), name.replace("_", " ").capitalize()
        if isinstance(value, list) and value and isinstance(value[0], BaseModel):
            print_rows(value, " ".join(_shown_fields(value[0])), title=title)
        elif isinstance(value, BaseModel):
            echo(title)
            for each in _shown_fields(value):
                echo(f"  {each.replace('_', ' '):<20} {text_of(getattr(value, each))}")
        else:
            echo(f"{title:<22} {text_of(value)}")


def _shown_fields(model: BaseModel) -> list[str]:
    return [name for name, field in type(model).model_fields.items() if not field.exclude]


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How one command looks.

    show    prints the answer to a request
    failed  returns whether the answer means that the work failed, or raises Failed; called after `show`
    ask     completes the fields of the request, by other operations or by a prompt
    asks    fields that `ask` completes, so that their options are not required
    yes     what the option `--yes` does, for `is_confirmed` of `output`; empty: there is no such option
    stream  prints present and new entries until Ctrl-C; gives the command `--follow`
    follow  returns the answer after more was done, with `wait` once the work has ended; gives the command `--wait`
    """

    show: Show = show_plainly
    failed: Callable[[Any], bool] = lambda _answer: False
    ask: Callable[[Caller, dict[str, Any]], None] = lambda _caller, _fields: None
    asks: frozenset[str] = frozenset()
    yes: str = ""
    stream: Callable[[Caller, Any], None] | None = None
    follow: Callable[..., Any] | None = None


PLAIN: Final = Presentation()
