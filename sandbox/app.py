"""What the apps of both systems share: routes that are compiled once, JSON answers, and the controls under /__sandbox__/.

Controls belong to the sandbox, not to the system that it plays: they need no token, and neither limits nor faults apply to
them. A system declares its controls as a list of `Control`, reads their bodies with `read_object`, and answers with
`json_answer`. A control that raises ValueError or TypeError is answered with 400 and the message, one that raises `NotFound`
with 404.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from typing import Any, ClassVar, TypeVar

import orjson
from flask import Flask, Response, request
from werkzeug.routing import Map

JSON = "application/json"
PREFIX = "/__sandbox__/"

View = Callable[..., Response]
Control = tuple[str, str, View]
"""(method, path below the prefix, view)"""
Members = TypeVar("Members")


class NotFound(Exception):
    """The control names something that does not exist."""


class SandboxApp(Flask):
    """A Flask app that compiles only routes which no other app of its class has in this process.

    All apps of a class have the same routes, and compiling them is most of the work of creating an app.
    """

    _compiled: ClassVar[dict[type, tuple[Map, set[object]]]] = {}

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        self.url_map, self._routes = self._compiled.setdefault(type(self), (self.url_map, set()))

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Register a view, and its route if no app had it before."""
        route = (rule, endpoint, *options.get("methods", ()))
        if endpoint and view_func and route in self._routes:
            self.view_functions[endpoint] = view_func
            return
        super().add_url_rule(rule, endpoint, view_func, provide_automatic_options, **options)
        self._routes.add(route)

    def add_controls(self, controls: Iterable[Control]) -> None:
        """Serve controls."""
        for method, path, view in controls:
            self.add_url_rule(f"{PREFIX}{path}", f"sandbox {method} {path}", _guarded(view), methods=[method])


def is_control() -> bool:
    """Return whether the current request is for a control."""
    return request.path.startswith(PREFIX)


def json_answer(value: Any, status: int = 200) -> Response:
    """Answer with any JSON value."""
    return Response(orjson.dumps(value), status, content_type=JSON)


def read_json() -> Any:
    """Return the request's JSON. Raises: ValueError."""
    return orjson.loads(request.get_data())


def read_object(required: Collection[str] = (), optional: Collection[str] | None = None) -> dict[str, Any]:
    """Return the request's JSON object, {} for no body. `optional` None allows any other member.

    Raises: ValueError for no object, and for a member that is missing or unknown.
    """
    body = orjson.loads(request.get_data() or b"{}")
    if not isinstance(body, dict):
        raise ValueError("body: must be an object")  # noqa: TRY004 (one error for all that is wrong)
    for name in required:
        if name not in body:
            raise ValueError(f"{name}: is missing")
    if optional is not None:
        _refuse_unknown(body, {*required, *optional})
    return body


def read_dataclass(kind: type[Members], body: Any) -> Members:
    """Create a dataclass from a JSON object; members that are absent have their defaults.

    Raises: ValueError for an unknown member, or what the dataclass raises.
    """
    if not isinstance(body, dict):
        raise ValueError(f"{kind.__name__}: must be an object")  # noqa: TRY004 (one error for all that is wrong)
    _refuse_unknown(body, _member_names(kind))
    return kind(**body)


def change_members(switches: Any, given: dict[str, Any]) -> None:
    """Set members of a dataclass. Raises: ValueError for an unknown one."""
    _refuse_unknown(given, _member_names(switches))
    for name, value in given.items():
        setattr(switches, name, value)


def require_number(value: Any, name: str) -> float:
    """Return a number. Raises: ValueError that names the member."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: must be a number")  # noqa: TRY004 (one error for all that is wrong)
    return value


def _guarded(view: View) -> View:
    @wraps(view)
    def run(**arguments: Any) -> Response:
        try:
            return view(**arguments)
        except (ValueError, TypeError) as error:
            return json_answer({"success": False, "error": str(error)}, 400)
        except NotFound as error:
            return json_answer({"success": False, "error": str(error)}, 404)

    return run


def _member_names(kind: Any) -> set[str]:
    return {member.name for member in dataclasses.fields(kind)}


def _refuse_unknown(body: dict[str, Any], known: set[str]) -> None:
    for name in body:
        if name not in known:
            raise ValueError(f"{name}: unknown; there are {', '.join(sorted(known))}")
