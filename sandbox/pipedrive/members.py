"""Read what the sandbox's own controls are told: dataclasses from JSON objects, numbers that are numbers."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

Kind = TypeVar("Kind")


def read(kind: type[Kind], body: Any) -> Kind:
    """Make a dataclass from a JSON object; members that are absent have their defaults.

    Raises: ValueError naming the member it does not have, or what the dataclass itself objects to.
    """
    if not isinstance(body, dict):
        raise ValueError(f"{kind.__name__.lower()}: must be an object")  # noqa: TRY004 (one error for all that is wrong)
    known = {member.name for member in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in body:
        if name not in known:
            raise ValueError(f"{name}: unknown; there are {', '.join(sorted(known))}")
    return kind(**body)


def number(value: Any, name: str) -> float:
    """Accept a number. Raises: ValueError naming the member."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: must be a number")  # noqa: TRY004 (one error for all that is wrong)
    return value
