"""`/api/v1`: the operations as JSON for scripts, generated from their declarations.

`/api/openapi.json` describes it, for a key, a login session, or an internal request. A route is registered with its
role or not at all, so no request can pass without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from flask import Response, g, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from flask_openapi3.types import SecuritySchemesDict
from pydantic import BaseModel, ValidationError, create_model, model_validator

from db import audit
from db.operator import Present
from pipeline.accounts import operators
from pipeline.domain.kinds import Role
from pipeline.errors import PipelineError
from pipeline.operations.call import Call
from pipeline.operations.catalogue import all_operations
from pipeline.operations.errors import REFUSALS, OperationError, as_operation_error, forbidden
from pipeline.operations.models import RequestModel
from pipeline.operations.registry import CHANGING, Download, Operation
from pipeline.telemetry import logger
from pipeline.web import auth
from pipeline.web.answers import download, internal_only
from pipeline.web.auth import Refused

DESCRIPTION: Final = (
    "What the console offers, for scripts. Create a key under your account in the console, and send it as "
    "`Authorization: Bearer KEY`. Times are ISO 8601 in UTC; lists are newest first; use `before` for the next page."
)
SCHEMES: Final[SecuritySchemesDict] = {"key": {"type": "http", "scheme": "bearer"}}
SECURITY: Final[list[dict[str, list[str]]]] = [{"key": []}]
ERRORS: Final = (400, 401, 403, 404, 409, 413, 422, 429, 503)
"""The statuses that every operation may answer with a `Problem`."""


class Problem(BaseModel):
    """The answer of a request that failed."""

    error: str
    """A stable code."""
    message: str
    next_step: str = ""
    mistakes: list[str] = []
    request_id: str


class JsonBody(RequestModel):
    """The body of a request. One that is not sent has no fields; one that is no JSON is refused."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, sent: Any) -> Any:
        return {} if sent is None and not request.get_data() else sent


BASES: Final[Mapping[str, type[BaseModel]]] = {"path": BaseModel, "query": RequestModel, "body": JsonBody}
"""Part of a request → the base of its models."""


def add_to(app: OpenAPI) -> None:
    """Register the routes on an app."""
    app.security_schemes = SCHEMES
    app.register_api(_routes())
    app.add_url_rule(
        "/api/openapi.json", "openapi", internal_only(lambda: describe(app), or_else=lambda: _present() is not None)
    )


def body_limit() -> int:
    """Return how many bytes the sender of a request may send, by key or session."""
    if (key := _bearer_key()) is not None:
        return auth.MAX_FORM_BYTES if operators.holder_of(key) is not None else 0
    return auth.body_limit()


def describe(app: OpenAPI) -> dict[str, Any]:
    """Return the OpenAPI description of everything an app serves under /api/v1.

    Every operation refers to the error answers, which are described once: flask-openapi3 would make the schema of each
    answer again for every operation, which takes a second at the start of a process.
    """
    description = app.api_doc
    names = {str(status): HTTPStatus(status).phrase for status in ERRORS}
    places = {status: name.title().replace(" ", "") for status, name in names.items()}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    references = {status: {"$ref": f"#/components/responses/{place}"} for status, place in places.items()}
    paths = {
        path: {verb: each | {"responses": each["responses"] | references} for verb, each in operations.items()}
        for path, operations in description["paths"].items()
    }
    components = description["components"] | {
        "schemas": description["components"]["schemas"] | {"Problem": Problem.model_json_schema(mode="serialization")},
        "responses": {places[status]: {"description": name, "content": content} for status, name in names.items()},
    }
    return description | {"paths": paths, "components": components}


@cache
def _routes() -> APIBlueprint:
    """Return the same routes for every app of this process: describing all operations takes a quarter of a second."""
    routes = APIBlueprint("api", __name__, url_prefix="/api/v1")
    roles: dict[str, Role] = {}

    def check_request() -> None:
        _authenticate(roles[request.endpoint or ""])
        _require_readable()

    routes.before_request(check_request)
    routes.register_error_handler(ValidationError, malformed)
    routes.register_error_handler(Refused, _refused)
    routes.register_error_handler(RecursionError, _too_deep)
    explained: tuple[type[Exception], ...] = (OperationError, *REFUSALS, PipelineError)
    for error in explained:
        routes.register_error_handler(error, _explain)
    for each in all_operations():
        if each.method:
            roles[f"api.{each.name}"] = each.role
            _add_route(routes, each)
    return routes


def _add_route(routes: APIBlueprint, declared: Operation[Any, Any]) -> None:
    shape: Any = declared.answer
    if declared.answer is Download:
        shape = {"content": {declared.content_type: {"schema": {"type": "string"}}}}
    register = getattr(routes, declared.method.lower())(
        declared.path,
        summary=declared.documentation.partition("\n")[0],
        description=f"{declared.documentation}\n\nNeeds the role {declared.role}.",
        operation_id=declared.name,
        responses={"200": shape},
        security=SECURITY,
        tags=[Tag(name=declared.run.__module__.rpartition(".")[2].replace("_", " "), description=declared.subject)],
    )
    register(_view_of(declared))


def _view_of(declared: Operation[Any, Any]) -> Callable[..., Response]:
    """Return the view of an operation; its annotations are the models of the parts of the request."""

    def view(**parts: BaseModel) -> Response:
        given = {name: getattr(part, name) for part in parts.values() for name in part.model_fields_set}
        call = Call(caller=auth.who(), require_proof=auth.require_proof)
        if "connector" in given:
            call.known = call.find_connector(given["connector"])  # first: a connector of others must answer 404
        found = declared(call, declared.request.model_validate(given))
        return download(found) if isinstance(found, Download) else _json(found)

    view.__name__ = view.__qualname__ = declared.name
    view.__doc__ = declared.documentation
    view.__annotations__ = _parts_of(declared)
    return view


def _parts_of(declared: Operation[Any, Any]) -> dict[str, type[BaseModel]]:
    """Return the model of each part of a request: `path`, `query`, `body`."""
    whole: Any = declared.request
    fields = {part: tuple(name for name in whole.model_fields if declared.part_of(name) == part) for part in BASES}
    return {part: _part(whole, names, BASES[part]) for part, names in fields.items() if names}


@cache
def _part(whole: type[BaseModel], fields: tuple[str, ...], base: type[BaseModel]) -> type[BaseModel]:
    """Return the model of some fields of a request. Rules about several fields are checked with the whole request."""
    chosen: dict[str, Any] = {name: (whole.model_fields[name].annotation, whole.model_fields[name]) for name in fields}
    return create_model(whole.__name__, __base__=base, __doc__=whole.__doc__, **chosen)


def _authenticate(needed: Role) -> None:
    """Store the sender of the request, and refuse a role below `needed`. Raises OperationError."""
    present = _present()
    if present is None:
        if request.authorization is not None:
            logger().warning("api.refused", why="credentials", operation=request.endpoint)
        message = "The request has no valid API key."
        next_step = "Create a key under your account in the console."
        raise OperationError(HTTPStatus.UNAUTHORIZED, "unauthorized", message, next_step)
    g.operator = present
    if present.key:
        audit.begin(f"{request.remote_addr}, key {present.key}")
    if not Role(present.role).may(needed):
        logger().warning("api.refused", why="role", operation=request.endpoint, operator_id=present.id)
        raise forbidden("role", f"This needs the role {needed}; you are {present.role}.")
    request.max_content_length = auth.MAX_FORM_BYTES


def _present() -> Present | None:
    """Return the owner of the request's key, else of its session; a change by a session needs its form's token."""
    if (key := _bearer_key()) is not None:
        return operators.holder_of(key)
    if not auth.token():
        return None
    present = auth.present()
    if present is not None and request.method in CHANGING:
        auth.require_own_form()
    return present


def _bearer_key() -> str | None:
    given = request.authorization
    return (given.token or "") if given is not None and given.type == "bearer" else None


def _require_readable() -> None:
    """Refuse JSON that is nested too deeply for the parser, before a model validates it. Raises OperationError."""
    try:
        request.get_json(silent=True)
    except RecursionError:
        raise OperationError(HTTPStatus.BAD_REQUEST, "malformed", "The body is nested too deeply.") from None


def malformed(error: ValidationError) -> Response:
    """Return the answer to an invalid request, with every mistake and its position."""
    mistakes = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
    status, message = HTTPStatus.UNPROCESSABLE_ENTITY, "The request does not match /api/openapi.json."
    return _problem(status, "malformed", message, mistakes=mistakes)


def _explain(error: Exception) -> Response:
    shown = as_operation_error(error)
    if shown is None:
        raise error
    return _problem(shown.status, shown.code, shown.message, shown.next_step, shown.mistakes)


def _refused(error: Refused) -> Response:
    return _problem(error.status, "refused", error.sentence, error.next_step)


def _too_deep(_error: RecursionError) -> Response:
    return _problem(HTTPStatus.BAD_REQUEST, "malformed", "The body is nested too deeply.")


def _problem(
    status: HTTPStatus, error: str, message: str, next_step: str = "", mistakes: list[str] | None = None
) -> Response:
    problem = Problem(
        error=error, message=message, next_step=next_step, mistakes=mistakes or [], request_id=g.request_id
    )
    response = _json(problem)
    response.status_code = status
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _json(shape: BaseModel) -> Response:
    return Response(shape.model_dump_json(), mimetype="application/json")
