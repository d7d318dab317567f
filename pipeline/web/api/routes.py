"""The routes of `/api/v1`: one for each operation, generated from its declaration.

A route is registered with its role or not at all, so no request can pass without one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from flask import Response, request
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.tag import Tag
from pydantic import BaseModel, ValidationError, create_model, model_validator

from pipeline.domain.kinds import Role
from pipeline.errors import PipelineError
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError
from pipeline.operations.models import Asked
from pipeline.operations.refusals import REFUSALS, as_operation_error
from pipeline.operations.registry import CHANGING, Download, Operation
from pipeline.web.api.auth import SECURITY, authenticate
from pipeline.web.api.problems import answer, malformed, problem_of, refused, too_deep
from pipeline.web.console import guard
from pipeline.web.console.calls import download
from pipeline.web.console.guard import Refused


class JsonBody(Asked):
    """The body of a request. One that is not sent has no fields; one that is no JSON is refused."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, sent: Any) -> Any:
        return {} if sent is None and not request.get_data() else sent


BASES: Final[Mapping[str, type[BaseModel]]] = {"path": BaseModel, "query": Asked, "body": JsonBody}
"""Part of a request → the base of its models."""


def add_all(routes: APIBlueprint, declared: Iterable[Operation[Any, Any]]) -> None:
    """Register the operations that have a route on a blueprint, each with its role."""
    needs: dict[str, Role] = {}

    def let_in() -> None:
        authenticate(needs[request.endpoint or ""])
        _require_readable()

    routes.before_request(let_in)
    routes.register_error_handler(OperationError, problem_of)
    routes.register_error_handler(ValidationError, malformed)
    routes.register_error_handler(Refused, refused)
    routes.register_error_handler(RecursionError, too_deep)
    for refusal in (*REFUSALS, PipelineError):
        routes.register_error_handler(refusal, _explain)
    for each in declared:
        if each.method:
            needs[f"api.{each.name}"] = each.role
            _add(routes, each)


def _add(routes: APIBlueprint, declared: Operation[Any, Any]) -> None:
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
        tags=[_subject_of(declared.run.__module__)],
    )
    register(view_of(declared))


def view_of(declared: Operation[Any, Any]) -> Callable[..., Response]:
    """Return the view of an operation; its annotations say which part of the request has each field."""

    def view(**parts: BaseModel) -> Response:
        given = {name: getattr(part, name) for part in parts.values() for name in part.model_fields_set}
        call = Call(caller=guard.who(), require_proof=guard.require_proof)
        if "connector" in given:
            call.known = call.find_connector(given["connector"])  # before the rest is judged: another's is not there
        found = declared(call, declared.request.model_validate(given))
        return download(found) if isinstance(found, Download) else answer(found)

    view.__name__ = view.__qualname__ = declared.name
    view.__doc__ = declared.documentation
    view.__annotations__ = parts_of(declared)
    return view


def parts_of(declared: Operation[Any, Any]) -> dict[str, type[BaseModel]]:
    """Return the model of each part of a request: `path`, `query`, `body`."""
    names = list(declared.request.model_fields)
    path = tuple(name for name in names if name in declared.path_fields)
    rest = [name for name in names if name not in path]
    in_query = tuple(name for name in rest if declared.method not in CHANGING or name in declared.query)
    in_body = tuple(name for name in rest if name not in in_query)
    chosen = zip(BASES, (path, in_query, in_body), strict=True)
    request: Any = declared.request
    return {part: _part(request, fields, BASES[part]) for part, fields in chosen if fields}


@cache
def _part(whole: type[BaseModel], fields: tuple[str, ...], base: type[BaseModel]) -> type[BaseModel]:
    """The model of some fields of a request. What the whole requires of several is checked with the whole."""
    chosen: dict[str, Any] = {name: (whole.model_fields[name].annotation, whole.model_fields[name]) for name in fields}
    return create_model(whole.__name__, __base__=base, __doc__=whole.__doc__, **chosen)


def _explain(error: Exception) -> Response:
    shown = as_operation_error(error)
    if shown is None:
        raise error
    return problem_of(shown)


def _require_readable() -> None:
    """Refuse JSON that is nested too deeply for the parser, before a model validates it. Raises OperationError."""
    try:
        request.get_json(silent=True)
    except RecursionError:
        raise OperationError(HTTPStatus.BAD_REQUEST, "malformed", "The body is nested too deeply.") from None


def _subject_of(module: str) -> Tag:
    """Return the tag of an operation in the description: the name of its module."""
    words = (sys.modules[module].__doc__ or "").strip()
    return Tag(name=module.rpartition(".")[2].replace("_", " "), description=words)
