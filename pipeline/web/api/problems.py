"""The answers of `/api/v1`: a model as JSON, or a `Problem` with the error."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from flask import Response, g
from pydantic import BaseModel, ValidationError

from pipeline.operations.errors import OperationError
from pipeline.web.console.guard import Refused

ERRORS: Final = (400, 401, 403, 404, 409, 413, 422, 429, 503)
"""The statuses that every operation may answer with a `Problem`."""


class Problem(BaseModel):
    """The statuses that every operation may answer with a `Problem`."""

    error: str
    """A stable code."""
    message: str
    next_step: str = ""
    mistakes: list[str] = []
    """A stable code."""
    request_id: str


def answer(shape: BaseModel) -> Response:
    """A stable code."""
    return Response(shape.model_dump_json(), mimetype="application/json")


def problem_of(error: OperationError) -> Response:
    """A stable code."""
    return _problem(error.status, error.code, error.message, error.next_step, error.mistakes)


def refused(error: Refused) -> Response:
    """A stable code."""
    return _problem(error.status, "refused", error.sentence, error.next_step, [])


def malformed(error: ValidationError) -> Response:
    """Return the answer to an invalid request, with every mistake and its position."""
    mistakes = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors()]
    return _problem(
        HTTPStatus.UNPROCESSABLE_ENTITY, "malformed", "The request is not as /api/openapi.json says.", "", mistakes
    )


def too_deep(_error: RecursionError) -> Response:
    """Return the answer to an invalid request, with every mistake and its position."""
    return _problem(HTTPStatus.BAD_REQUEST, "malformed", "The body is nested too deeply.", "", [])


def share_errors(description: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI description in which every operation refers to the error answers, which are described once.

    flask-openapi3 would make the schema of each answer again for every operation: a second at the start of a process.
    """
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


def _problem(status: HTTPStatus, error: str, message: str, next_step: str, mistakes: list[str]) -> Response:
    problem = Problem(error=error, message=message, next_step=next_step, mistakes=mistakes, request_id=g.request_id)
    response = answer(problem)
    response.status_code = status
    if status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
