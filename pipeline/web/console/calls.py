"""Pages call operations: forms are validated by their request models, and what is refused is a sentence for the page."""

from __future__ import annotations

from typing import Any, TypeVar

from flask import Response, g
from pydantic import BaseModel, ValidationError

from pipeline.domain.reasons import REASONS
from pipeline.operations.call import Call
from pipeline.operations.errors import OperationError, invalid
from pipeline.operations.registry import Download, Operation
from pipeline.web.console.guard import require_proof, who

A = TypeVar("A")


def perform(declared: Operation[Any, A], **fields: Any) -> A:
    """Run an operation for the operator of this page, about the page's connector. Raises OperationError."""
    connector = g.get("connector")
    if connector is not None and "connector" in declared.request.model_fields:
        fields["connector"] = connector.name
    try:
        request: BaseModel = declared.request.model_validate(fields)
    except ValidationError as error:
        raise invalid("malformed", "; ".join(mistakes_of(error))) from None
    return declared(Call(caller=who(), known=connector, require_proof=require_proof), request)


def download(found: Download) -> Response:
    """Return a file for a browser to store."""
    headers = {"Content-Disposition": f'attachment; filename="{found.name}"', "X-Content-Type-Options": "nosniff"}
    return Response(found.chunks, mimetype=found.content_type, headers=headers)


def refusal_of(declared: Operation[Any, Any], *, malformed: str = "", **fields: Any) -> str:
    """Run an operation; return the error and the next step, or None.

    malformed  the message for a form that is not filled in correctly
    """
    try:
        perform(declared, **fields)
    except OperationError as error:
        return malformed if malformed and error.code == "malformed" else sentence_of(error)
    return ""


def sentence_of(error: OperationError) -> str:
    """Return what happened and what to do, for a person."""
    reason = REASONS.get(error.code)
    return f"{reason.meaning} {reason.advice}" if reason else f"{error.message} {error.next_step}".rstrip()


def mistakes_of(error: ValidationError) -> list[str]:
    """Return each mistake with the name of its field in front; never the value, which may be a secret."""
    return [f"{' '.join(str(part) for part in each['loc'])}: {each['msg']}".strip(": ") for each in error.errors()]
