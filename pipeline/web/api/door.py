"""The one door of `/api/v1`: a key for scripts, or the session of somebody's browser; the role each operation needs; errors.

An operation is registered with its role or not at all, so none can forget to ask.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from flask import Response, g, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from flask_openapi3.types import ResponseDict, SecuritySchemesDict
from pydantic import BaseModel, ValidationError

from db import audit
from db.operator import Present
from pipeline.accounts import api_keys
from pipeline.domain.reasons import REASONS
from pipeline.domain.roles import Role
from pipeline.errors import PipelineError
from pipeline.telemetry import logger
from pipeline.web.console import guard
from pipeline.web.console.guard import Refused

SCHEMES: Final[SecuritySchemesDict] = {"key": {"type": "http", "scheme": "bearer"}}
SECURITY: Final[list[dict[str, list[str]]]] = [{"key": []}]
CHANGING: Final = {"POST", "PUT", "PATCH", "DELETE"}


class Problem(BaseModel):
    """Why nothing was done."""

    error: str
    """A stable code."""
    message: str
    next_step: str = ""
    mistakes: list[str] = []
    """Each with its place, where there may be several."""
    request_id: str


class Nay(Exception):
    """What was asked for cannot be done; see `Problem`."""

    def __init__(
        self, status: HTTPStatus, error: str, message: str, next_step: str = "", mistakes: list[str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.problem = status, (error, message, next_step, mistakes or [])


class Operations:
    """Registers operations of one blueprint behind the door.

    refusals  what the rooms below raise → how it is answered
    """

    def __init__(self, routes: APIBlueprint, refusals: Mapping[type[Exception], Callable[[Any], Nay]]) -> None:
        self._routes = routes
        self._needs: dict[str, Role] = {}
        self._changing: set[str] = set()
        routes.before_request(self._let_in)
        routes.after_request(self._audit)
        routes.register_error_handler(Nay, _no)
        routes.register_error_handler(Refused, _refused)
        routes.register_error_handler(PipelineError, _failed)
        routes.register_error_handler(RecursionError, _too_deep)
        for refusal, nay in refusals.items():
            routes.register_error_handler(refusal, lambda no, nay=nay: _no(nay(no)))

    def get(self, rule: str, view: Callable[..., Any], shape: type[BaseModel], *, needs: Role = Role.VIEWER) -> None:
        """Something to look at."""
        self._add("get", rule, view, shape, needs)

    def file(self, rule: str, view: Callable[..., Any], kind: str, *, needs: Role = Role.VIEWER) -> None:
        """Something to take away, of this content type."""
        self._add("get", rule, view, {"content": {kind: {"schema": {"type": "string"}}}}, needs)

    def post(
        self,
        rule: str,
        view: Callable[..., Any],
        shape: type[BaseModel],
        *,
        needs: Role = Role.OPERATOR,
        changes: bool = True,
    ) -> None:
        """Something that is done: it leaves an entry in the audit log.

        changes  False for one that only computes or shows what would be
        """
        self._add("post", rule, view, shape, needs)
        if changes:
            self._changing.add(f"api.{view.__name__}")

    def put(self, rule: str, view: Callable[..., Any], shape: type[BaseModel], *, needs: Role = Role.ADMIN) -> None:
        """Something that takes the place of what was there; it leaves an entry in the audit log."""
        self._add("put", rule, view, shape, needs)
        self._changing.add(f"api.{view.__name__}")

    def _add(
        self, verb: str, rule: str, view: Callable[..., Any], shape: type[BaseModel] | dict[str, Any], needs: Role
    ) -> None:
        self._needs[f"api.{view.__name__}"] = needs
        words = (view.__doc__ or "").strip()
        register = getattr(self._routes, verb)(
            rule,
            summary=words.partition("\n")[0],
            description=f"{words}\n\nNeeds the role {needs}.",
            operation_id=view.__name__,
            responses={"200": shape},
            security=SECURITY,
            tags=[_subject_of(view.__module__)],
        )
        register(view)

    def _audit(self, answered: Response) -> Response:
        if request.endpoint in self._changing and "operator" in g:
            guard.note_act(answered)
        return answered

    def _let_in(self) -> None:
        present = _present()
        if present is None:
            if request.authorization is not None:
                logger().warning("api.refused", why="credentials", operation=request.endpoint)
            message = "No key, or one that opens nothing."
            raise Nay(HTTPStatus.UNAUTHORIZED, "unauthorized", message, "Make a key under your account in the console.")
        g.operator = present
        if present.key:
            audit.begin(f"{request.remote_addr}, key {present.key}")
        needed = self._needs[request.endpoint or ""]
        if not Role(present.role).may(needed):
            logger().warning("api.refused", why="role", path=request.path, operator_id=present.id)
            raise Nay(HTTPStatus.FORBIDDEN, "role", f"This needs the role {needed}; you are {present.role}.")
        request.max_content_length = guard.MAX_FORM_BYTES
        _require_readable()


def answer(shape: BaseModel) -> Response:
    """A shape as JSON."""
    return Response(shape.model_dump_json(), mimetype="application/json")


def missing(what: str, next_step: str = "") -> Nay:
    """It is not there, or belongs to another connector, which is to say the same."""
    return Nay(HTTPStatus.NOT_FOUND, "not_found", what, next_step)


def malformed(error: ValidationError) -> Response:
    """What was sent does not have the shape that the description gives; every mistake with its place."""
    mistakes = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
    return _problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "malformed", "The request is not as /api/openapi.json says.", "", mistakes
    )


def describe_errors() -> ResponseDict:
    """What every operation may answer instead."""
    return {str(status): Problem for status in (400, 401, 403, 404, 409, 413, 422, 503)}


def _subject_of(module: str) -> Tag:
    """What an operation is about, for those who read the description: the name of its room."""
    words = (sys.modules[module].__doc__ or "").strip()
    return Tag(name=module.rpartition(".")[2].replace("_", " "), description=words)


def _present() -> Present | None:
    """A key goes before a session; a session's changes carry the token that its pages know."""
    given = request.authorization
    if given is not None and given.type == "bearer":
        return api_keys.holder_of(given.token or "")
    token = guard.token()
    if not token:
        return None
    present = guard.present()
    if present is not None and request.method in CHANGING:
        guard.require_own_form()
    return present


def is_authenticated() -> bool:
    """Return whether the request brings a key or a session."""
    return _present() is not None


def allowance() -> int:
    """Return how many bytes the sender of a request may send, by key or session."""
    given = request.authorization
    if given is not None and given.type == "bearer":
        return guard.MAX_FORM_BYTES if api_keys.holder_of(given.token or "") is not None else 0
    return guard.allowance()


def _require_readable() -> None:
    """What is nested beyond measure breaks the parser itself, before any shape is asked. Raises: Nay."""
    try:
        request.get_json(silent=True)
    except RecursionError:
        raise Nay(HTTPStatus.BAD_REQUEST, "malformed", "The body is nested too deeply.") from None


def _no(nay: Nay) -> Response:
    return _problem(nay.status, *nay.problem)


def _refused(refused: Refused) -> Response:
    return _problem(refused.status, "refused", refused.sentence, refused.next_step, [])


def _too_deep(_error: RecursionError) -> Response:
    """A body of thousands of lists within one another is read by nobody."""
    return _problem(HTTPStatus.BAD_REQUEST, "malformed", "The body is nested too deeply.", "", [])


def _failed(error: PipelineError) -> Response:
    reason = REASONS.get(error.reason)
    return _problem(HTTPStatus.CONFLICT, error.reason, str(error), reason.advice if reason else "", [])


def _problem(status: HTTPStatus, error: str, message: str, next_step: str, mistakes: list[str]) -> Response:
    problem = Problem(error=error, message=message, next_step=next_step, mistakes=mistakes, request_id=g.request_id)
    told = answer(problem)
    told.status_code = status
    if status is HTTPStatus.UNAUTHORIZED:
        told.headers["WWW-Authenticate"] = "Bearer"
    return told
