"""The answers of `/api/v1`: a model as JSON, or a `Problem` that says why nothing was done."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from flask import Response, g
from flask_openapi3.types import ResponseDict
from pydantic import BaseModel, ValidationError

from pipeline.operations.errors import OperationError
from pipeline.web.console.guard import Refused


class Problem(BaseModel):
    """Why nothing was done."""

    error: str
    """A stable code."""
    message: str
    next_step: str = ""
    mistakes: list[str] = []
    """Each with its place, where there may be several."""
    request_id: str


def answer(shape: BaseModel) -> Response:
    """Return a model as JSON."""
    return Response(shape.model_dump_json(), mimetype="application/json")


def problem_of(error: OperationError) -> Response:
    """Return the answer of an operation that did nothing."""
    return _problem(error.status, error.code, error.message, error.next_step, error.mistakes)


def refused(error: Refused) -> Response:
    """Return the answer where the console's guard refuses."""
    return _problem(error.status, "refused", error.sentence, error.next_step, [])


def malformed(error: ValidationError) -> Response:
    """Return the answer to a request that is not as the description says; every mistake with its place."""
    mistakes = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
    return _problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "malformed", "The request is not as /api/openapi.json says.", "", mistakes
    )


def too_deep(_error: RecursionError) -> Response:
    """Return the answer to a body of thousands of lists within one another, which no parser reads."""
    return _problem(HTTPStatus.BAD_REQUEST, "malformed", "The body is nested too deeply.", "", [])


def describe_errors() -> ResponseDict:
    """Return what every operation may answer instead, for the description."""
    return {str(status): Problem for status in (400, 401, 403, 404, 409, 413, 422, 429, 503)}


def share_errors(description: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI description in which operations refer to the error answers they share, instead of repeating them."""
    shared: dict[str, Any] = {}
    paths = {
        path: {verb: _with_shared(operation, shared) for verb, operation in operations.items()}
        for path, operations in description["paths"].items()
    }
    return description | {"paths": paths, "components": description["components"] | {"responses": shared}}


def _with_shared(operation: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    responses = dict(operation["responses"])
    for status in describe_errors():
        name = HTTPStatus(int(status)).phrase.title().replace(" ", "")
        shared[name] = responses[status]
        responses[status] = {"$ref": f"#/components/responses/{name}"}
    return operation | {"responses": responses}


def _problem(status: HTTPStatus, error: str, message: str, next_step: str, mistakes: list[str]) -> Response:
    problem = Problem(error=error, message=message, next_step=next_step, mistakes=mistakes, request_id=g.request_id)
    response = answer(problem)
    response.status_code = status
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
