"""The arguments of a generated command for a request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.operations.registry import Operation

FROM_FILES: Final = frozenset(
    {"secret", "password", "hull_secret", "pipedrive_token", "document", "payload", "rows", "settings"}
)


def arguments_of(declared: Operation[Any, Any], fields: Mapping[str, Any], folder: Path) -> list[str]:
    """Return what a person would type; secrets and documents are written into files in `folder`."""
    words = declared.command.split()
    named = [word.strip("[]").lower() for word in words if word.strip("[]").isupper()]
    arguments = [_written(name, fields[name], folder) for name in named if name in fields]
    options = [each for name, value in fields.items() if name not in named for each in _option(name, value, folder)]
    return [word for word in words if not word.strip("[]").isupper()] + arguments + options


def _written(name: str, value: Any, folder: Path) -> str:
    """Return the value, or the file that holds it."""
    if name not in FROM_FILES:
        return str(value)
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def _option(name: str, value: Any, folder: Path) -> Iterator[str]:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        yield flag
    elif name in FROM_FILES:
        yield from (f"{flag}-file", _written(name, value, folder))
    elif isinstance(value, Mapping):
        for inner, each in value.items():
            yield from _option(inner, each, folder)
    elif isinstance(value, list):
        for each in value:
            yield from (flag, str(each))
    else:
        yield from (flag, str(value))
