"""How a generated command prints its answer, prompts for missing fields, and waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from pipeline.cli.calling import Caller
from pipeline.cli.output import cell, say, table


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How one command looks.

    show   prints the answer to this request
    check  raises Failed if the answer means that the work failed; called after `show`
    ask    completes the fields of the request, by other operations or by a prompt
    asks   fields that `ask` completes, so that their options are not required
    yes    what the option `--yes` does, which `says_yes` of `output` tells `ask`; empty: there is no such option
    stream prints what is there and what is new, until Ctrl-C; gives the command `--follow`
    follow returns the answer after more was done, with `wait` once the work has ended; gives the command `--wait`
    """

    show: Callable[[Any, Any], None]
    check: Callable[[Any], None] = lambda _answer: None
    ask: Callable[[Caller, dict[str, Any]], None] = lambda _caller, _fields: None
    asks: frozenset[str] = frozenset()
    yes: str = ""
    stream: Callable[[Caller, Any], None] | None = None
    follow: Callable[..., Any] | None = None


def show_plainly(_request: BaseModel, answer: BaseModel) -> None:
    """Print the values of an answer, one per line, and its lists as tables."""
    for name in type(answer).model_fields:
        value, title = getattr(answer, name), name.replace("_", " ").capitalize()
        if isinstance(value, list) and value and isinstance(value[0], BaseModel):
            columns = list(type(value[0]).model_fields)
            table(
                title,
                [each.replace("_", " ") for each in columns],
                [[getattr(row, each) for each in columns] for row in value],
            )
        elif isinstance(value, BaseModel):
            say(title)
            for each in type(value).model_fields:
                say(f"  {each.replace('_', ' '):<20} {cell(getattr(value, each))}")
        else:
            shown = ", ".join(map(str, value)) or "-" if isinstance(value, list | dict) else cell(value)
            say(f"{title:<22} {shown}")


PLAIN: Final = Presentation(show=show_plainly)
