"""The sandbox's own controls, under /__sandbox__/: not part of Pipedrive, no token, no limits.

GET ledger, stats, export, oauth; POST edit, create, delete, raw, faults, oauth. Those for webhooks are in `sending.control`,
for the sales team in `team_control`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

import orjson
from flask import Response, request

from sandbox.company import ENTITIES, Company, Entity, Invalid
from sandbox.company.bodies import encode
from sandbox.pipedrive import answers, oauth
from sandbox.pipedrive.gate.faults import Faults
from sandbox.pipedrive.gate.ledger import Ledger
from sandbox.pipedrive.records import json_object

if TYPE_CHECKING:
    from sandbox.pipedrive.app import PipedriveApp

PREFIX = "/__sandbox__/"
MUTATIONS = frozenset(
    {"edit", "create", "delete", "raw", "merge", "undelete", "purge"}
)  # of the company: these stand in the ledger
_LIMITS: dict[str, set[type]] = {"burst_limit": {int, NoneType}, "retry_after": {bool}, "edge_after": {int, NoneType}}


def ledger(kept: Ledger) -> Response:
    """List the mutations, those after number `after` if given."""
    return answers.plain({"mutations": kept.entries(request.args.get("after", 0, type=int))})


def stats(app: PipedriveApp) -> Response:
    """Count requests, tokens of this run and of this day, grants and live records."""
    records = {entity: app.company.count(entity) for entity in ENTITIES}
    return answers.plain(
        {**app.ledger.stats(), "daily": app.budget.described(), "oauth": dict(app.grants.counts), "records": records}
    )


def export(company: Company) -> Response:
    """Stream all live records of an entity, one JSON object a line, by id."""
    entity = entity_of(request.args.to_dict())

    def lines() -> Iterator[bytes]:
        block: list[bytes] = []
        for body in company.export(entity):
            block.append(body)
            if len(block) == 500:
                yield b"\n".join(block) + b"\n"
                block = []
        if block:
            yield b"\n".join(block) + b"\n"

    return Response(lines(), content_type="application/x-ndjson")


def edit(company: Company) -> Response:
    """Change a record as somebody in the app would: {entity, id, fields}."""
    body = json_object()
    try:
        record = company.edit(entity_of(body), body["id"], body["fields"], source="app")
    except Invalid as error:
        raise answers.invalid(str(error)) from error
    if record is None:
        raise answers.not_found()
    return answers.item(encode(record))


def create(company: Company) -> Response:
    """Create a record as somebody in the app would: {entity, fields}."""
    body = json_object()
    try:
        return answers.item(encode(company.create(entity_of(body), body["fields"], source="app")))
    except Invalid as error:
        raise answers.invalid(str(error)) from error


def delete(company: Company) -> Response:
    """Delete a record as somebody in the app would: {entity, id}."""
    body = json_object()
    if not company.delete(entity_of(body), body["id"], source="app"):
        raise answers.not_found()
    return answers.plain({"success": True})


def raw(company: Company) -> Response:
    """Store the body of a record as it comes: ?entity=person, then any JSON object."""
    record_id = company.put_raw(entity_of(request.args.to_dict()), request.get_data())
    return answers.plain({"success": True, "data": {"id": record_id}})


def faults(rules: Faults) -> Response:
    """Put other rules in force: a list of objects, or [] for good behaviour."""
    try:
        rules.replace(orjson.loads(request.get_data()))
    except (ValueError, TypeError) as error:
        raise answers.invalid(str(error)) from error
    return answers.plain({"success": True, "data": {"rules": len(rules.rules)}})


def budget(app: PipedriveApp) -> Response:
    """Set the day's tokens ({budget: number or null}) and what is spent of them ({spent}); tells both."""
    given = json_object()
    limit, spent = given.get("budget", app.budget.limit), given.get("spent", app.budget.spent)
    if type(limit) not in {int, NoneType} or type(spent) is not int or not set(given) <= {"budget", "spent"}:
        raise answers.invalid("budget: must be a number or null, and spent a number")
    app.budget.limit, app.budget.spent = limit, spent
    return answers.plain(app.budget.described())


def limits(app: PipedriveApp) -> Response:
    """Set `burst_limit` (requests in two seconds), `retry_after` (say it on refusals), `edge_after` (refusals to the page)."""
    given = json_object()
    wrong = [name for name, value in given.items() if type(value) not in _LIMITS.get(name, set())]
    if wrong:
        raise answers.invalid(f"{wrong[0]}: must be one of {', '.join(_LIMITS)} and of its type")
    app.limiter.limit = given.get("burst_limit", app.limiter.limit)
    app.retry_after_header = given.get("retry_after", app.retry_after_header)
    app.edge.after = given.get("edge_after", app.edge.after)
    return answers.plain({"success": True})


def show_oauth(app: PipedriveApp) -> Response:
    """Show the switches of the OAuth server, who could authorise, and who has the app installed; no tokens."""
    users = [{"id": user.id, "admin": user.admin} for user in app.company.users]
    switches = dataclasses.asdict(app.grants.switches)
    return answers.plain({"switches": switches, "users": users, "installations": app.grants.described()})


def set_oauth(app: PipedriveApp) -> Response:
    """Turn switches of the OAuth server, then do at once what `now` says: expire, revoke or uninstall."""
    given = json_object()
    deed = given.pop("now", None)
    if deed not in {None, "expire", "revoke", "uninstall"}:
        raise answers.invalid("now: must be one of expire, revoke, uninstall")
    turn(app.grants.switches, given)
    if deed == "expire":
        app.grants.expire_access_tokens()
    elif deed == "revoke":
        app.grants.revoke_all()
    elif deed == "uninstall":
        told = oauth.uninstall(app.grants, app.session, app.company.clock())
        return answers.plain({"success": True, "data": {"told": told}})
    return answers.plain({"success": True})


def turn(switches: Any, given: dict[str, Any]) -> None:
    """Set members of a dataclass of switches. Raises: ApiError 400 for one it does not have."""
    known = {member.name for member in dataclasses.fields(switches)}
    for name in given:
        if name not in known:
            raise answers.invalid(f"{name}: unknown switch; there are {', '.join(sorted(known))}")
    for name, value in given.items():
        setattr(switches, name, value)


def entity_of(given: dict[str, Any]) -> Entity:
    """Read which entity is meant. Raises: ApiError 400."""
    if given.get("entity") not in ENTITIES:
        raise answers.invalid(f"entity: must be one of {', '.join(ENTITIES)}")
    return cast("Entity", given["entity"])
