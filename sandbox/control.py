"""The sandbox's own controls, under /__sandbox__/ of both systems: no token, no limits, no faults.

What is common to both is here: the table that controls are declared in, how they read and answer JSON, and the control of
faults. A control that raises ValueError or TypeError is answered with 400 and its words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

import orjson
from flask import Flask, Response, request

from sandbox.faults import JSON, Faults

PREFIX = "/__sandbox__/"

View = Callable[..., Response]
Control = tuple[str, str, View]
"""(method, path below the prefix, view)"""
Members = TypeVar("Members")


def add(app: Flask, controls: list[Control]) -> None:
    """Serve controls."""
    for method, path, view in controls:
        app.add_url_rule(f"{PREFIX}{path}", f"sandbox {method} {path}", guarded(view), methods=[method])


def guarded(view: View) -> View:
    """Return a view that answers 400 to what it cannot use."""

    @wraps(view)
    def run(**arguments: Any) -> Response:
        try:
            return view(**arguments)
        except (ValueError, TypeError) as error:
            return plain({"success": False, "error": str(error)}, 400)

    return run


def plain(value: Any, status: int = 200) -> Response:
    """Answer with any JSON value."""
    return Response(orjson.dumps(value), status, content_type=JSON)


def sent() -> Any:
    """Return the request's JSON. Raises: ValueError."""
    return orjson.loads(request.get_data())


def sent_object() -> dict[str, Any]:
    """Return the request's JSON object, {} for no body. Raises: ValueError."""
    body = orjson.loads(request.get_data() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("body: must be an object")  # noqa: TRY004 (one error for all that is wrong)
    return body


def read(kind: type[Members], body: Any) -> Members:
    """Make a dataclass from a JSON object; members that are absent have their defaults.

    Raises: ValueError naming the member it does not have, or what the dataclass itself objects to.
    """
    if not isinstance(body, dict):
        raise ValueError(f"{kind.__name__.lower()}: must be an object")  # noqa: TRY004 (one error for all that is wrong)
    _allow(body, kind)
    return kind(**body)


def turn(switches: Any, given: dict[str, Any]) -> None:
    """Set members of a dataclass of switches. Raises: ValueError for one it does not have."""
    _allow(given, switches)
    for name, value in given.items():
        setattr(switches, name, value)


def number(value: Any, name: str) -> float:
    """Return a number. Raises: ValueError naming the member."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: must be a number")  # noqa: TRY004 (one error for all that is wrong)
    return value


def fault_controls(faults: Faults) -> list[Control]:
    """Return the controls of faults: GET lists the rules; POST takes a list of others, [] for good behaviour."""
    return [("GET", "faults", partial(_show_faults, faults)), ("POST", "faults", partial(_set_faults, faults))]


def _show_faults(faults: Faults) -> Response:
    return plain(faults.listed())


def _set_faults(faults: Faults) -> Response:
    faults.replace(sent())
    return plain(faults.listed())


def _allow(body: dict[str, Any], kind: Any) -> None:
    known = {member.name for member in dataclasses.fields(kind)}
    for name in body:
        if name not in known:
            raise ValueError(f"{name}: unknown; there are {', '.join(sorted(known))}")
