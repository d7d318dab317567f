"""Authentication of Hull's dashboard: the credentials that it sends, in the query or in a form."""

from __future__ import annotations

from collections.abc import Mapping

from flask import request

from pipeline.web.doors import Doors


def proven_by_query(doors: Doors) -> int | None:
    """Return the key of the connector with the credentials in the query; no body is read."""
    return _proven(doors, request.args)


def vouched_for(doors: Doors) -> int | None:
    """The key of the connector that `ship` (or `id`), `organization` and `secret` name and prove; else None."""
    return _proven(doors, request.values)


def _proven(doors: Doors, given: Mapping[str, str]) -> int | None:
    return doors.admit_hull(
        given.get("ship") or given.get("id") or "", given.get("organization", ""), given.get("secret", "")
    )
