"""`/api/v1`: the console's functions as JSON for scripts, described by `/api/openapi.json` (for a key, a login session,
or an internal request).

`routes` generates it from `pipeline.operations`; `auth` authenticates the caller; `problems` are the error answers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.openapi import OpenAPI

from pipeline.operations.catalogue import all_operations
from pipeline.web.answers import internal_only
from pipeline.web.api.auth import SCHEMES, is_authenticated
from pipeline.web.api.problems import Problem as Problem  # what the app answers with
from pipeline.web.api.problems import malformed as malformed
from pipeline.web.api.problems import share_errors
from pipeline.web.api.routes import add_all

DESCRIPTION = (
    "What the console does, for scripts. Create a key under your account in the console, and send it as "
    "`Authorization: Bearer KEY`. Times are ISO 8601 in UTC; lists are newest first; use `before` for the next page."
)


def add_to(app: OpenAPI) -> None:
    """Give an app the interface for scripts."""
    app.security_schemes = SCHEMES
    app.register_api(_routes())
    app.add_url_rule("/api/openapi.json", "openapi", internal_only(lambda: describe(app), or_else=is_authenticated))


def describe(app: OpenAPI) -> dict[str, Any]:
    """Return the OpenAPI description of everything an app serves under /api/v1."""
    return share_errors(app.api_doc)


@cache
def _routes() -> APIBlueprint:
    """The same for every app of this process: the description of all operations takes a quarter of a second to make."""
    routes = APIBlueprint("api", __name__, url_prefix="/api/v1")
    add_all(routes, all_operations())
    return routes
