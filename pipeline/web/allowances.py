"""How many bytes the sender of a request may send, by its path and headers: who asks is known before a body is read."""

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
"""Of a body from an unknown sender. `pipeline.web.server` reads as much before it asks."""


class Allowances:
    """Asks the blueprint that a path belongs to.

    of  name of a blueprint → what returns the bytes, inside a request context without a body: 0 for a sender whom the view refuses
    """

    def __init__(self, app: Flask, of: Mapping[str, Callable[[], int]]) -> None:
        self._app, self._of = app, dict(of)

    def add(self, of: Mapping[str, Callable[[], int]]) -> None:
        """Ask more blueprints."""
        self._of.update(of)

    def __call__(self, environ: WSGIEnvironment) -> int:
        """Return the bytes; 0 when the sender cannot be known now, which the view then says in its own words."""
        with self._app.request_context(environ):
            allowance = self._of.get(request.blueprint or "")
            try:
                return ANYBODY_BYTES if allowance is None else allowance()
            except (PipelineError, SQLAlchemyError, HTTPException):
                return 0
