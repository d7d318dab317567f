"""Audit entries of commands that change something."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

import click

from db import audit
from db import connector as connectors
from db.session import transaction

F = TypeVar("F", bound=Callable[..., Any])
ACTION: Final = "audited_action"


def operator_name() -> str:
    """Return how the audit log names who uses the command line."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # KeyError up to Python 3.12: a container's user may have a number only
        user = f"user {os.getuid()}"
    return f"{user} (command line)"


def audited(action: str) -> Callable[[F], F]:
    """Write `action` to the audit log after a command, unless the functions it called have written an entry.

    A command that exits with a code has done its work; one with `--dry-run` has done nothing. The subject consists of the
    command's arguments; files and secrets are not part of it.
    """

    def decorate(command: F) -> F:
        @wraps(command)
        def run(*given: Any, **named: Any) -> Any:
            audit.begin(f"command line on {socket.gethostname()}")
            try:
                done = command(*given, **named)
            except click.exceptions.Exit:
                _note(action, named)
                raise
            _note(action, named)
            return done

        setattr(run, ACTION, action)
        return run  # type: ignore[return-value]  # the same signature

    return decorate


def _note(action: str, named: dict[str, Any]) -> None:
    if audit.is_noted() or named.get("dry_run"):
        return
    name = named.get("connector")
    things = [str(value) for value in named.values() if isinstance(value, str | int) and not isinstance(value, bool)]
    with transaction() as session:
        found = connectors.find_connector(session, name) if isinstance(name, str) else None
        key = found.key if found else None
        audit.note(session, operator_name(), action, " ".join(things)[:200], connector_key=key)
