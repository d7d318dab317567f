"""For whom Hull's dashboard speaks: the credentials that it gives along, in the query or in a form."""

from __future__ import annotations

from flask import request

from pipeline.web.doors import Doors


def vouched_for(doors: Doors) -> int | None:
    """The key of the connector that `ship` (or `id`), `organization` and `secret` name and prove; else None."""
    given = request.values
    return doors.admit_hull(
        given.get("ship") or given.get("id") or "", given.get("organization", ""), given.get("secret", "")
    )
