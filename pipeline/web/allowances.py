"""How many bytes the sender of a request may send, by path and headers: the sender is known before the body is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from flask import Flask, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ANYBODY_BYTES: Final = 64 * 1024
"""Limit of a body from an unknown sender. `pipeline.web.server` reads this much before it checks the sender."""


class Allowances:
    """Finds the limit in the blueprint of a path.

    of  name of a blueprint → function that returns the bytes, in a request context without a body: 0 for a sender
        that the view refuses
    """

    def __init__(self, app: Flask, of: Mapping[str, Callable[[], int]]) -> None:
        self._app, self._of = app, dict(of)

    def add(self, of: Mapping[str, Callable[[], int]]) -> None:
        """Add limits of more blueprints."""
        self._of.update(of)

    def __call__(self, environ: WSGIEnvironment) -> int:
        """Return the bytes; 0 if the sender is not known yet; the view then answers with its own error."""
        with self._app.request_context(environ):
            allowance = self._of.get(request.blueprint or "")
            try:
                return ANYBODY_BYTES if allowance is None else allowance()
            except (PipelineError, SQLAlchemyError, HTTPException):
                return 0
