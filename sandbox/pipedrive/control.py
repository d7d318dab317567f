"""The sandbox's own controls of Pipedrive: look inside, act as somebody in the app would, set limits, OAuth and the sales team.

`sandbox.control` says how controls work; those of deliveries and webhooks are in `sending.control`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

from flask import Response, request

from sandbox.company import ENTITIES, Company, Entity
from sandbox.company.records import encode
from sandbox.control import number, plain, read, sent_object, turn
from sandbox.pipedrive import answers, oauth
from sandbox.pipedrive.gate.ledger import Ledger
from sandbox.pipedrive.team import SalesTeam, Weights

if TYPE_CHECKING:
    from sandbox.pipedrive.app import PipedriveApp

MUTATIONS = frozenset(
    {"edit", "create", "delete", "raw", "merge", "undelete", "purge"}
)  # of the company: these stand in the ledger
_LIMITS: dict[str, set[type]] = {"burst_limit": {int, NoneType}, "retry_after": {bool}, "edge_after": {int, NoneType}}


def ledger(kept: Ledger) -> Response:
    """List the mutations, those after number `after` if given."""
    return plain({"mutations": kept.entries(request.args.get("after", 0, type=int))})


def stats(app: PipedriveApp) -> Response:
    """Count requests, tokens of this run and of this day, grants and live records."""
    records = {entity: app.company.count(entity) for entity in ENTITIES}
    return plain(
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
    body = sent_object()
    record = company.edit(entity_of(body), body["id"], body["fields"], source="app")
    if record is None:
        raise answers.not_found()
    return answers.item(encode(record))


def create(company: Company) -> Response:
    """Create a record as somebody in the app would: {entity, fields}."""
    body = sent_object()
    return answers.item(encode(company.create(entity_of(body), body["fields"], source="app")))


def delete(company: Company) -> Response:
    """Delete a record as somebody in the app would: {entity, id}."""
    body = sent_object()
    if not company.delete(entity_of(body), body["id"], source="app"):
        raise answers.not_found()
    return plain({"success": True})


def merge(company: Company) -> Response:
    """Merge as somebody in the app would: {entity, id, merge_with_id}; the record that stayed."""
    body = sent_object()
    record = company.merge(entity_of(body), body["id"], body["merge_with_id"], source="app")
    if record is None:
        raise answers.not_found()
    return answers.item(encode(record))


def undelete(company: Company) -> Response:
    """Bring a deleted record back: {entity, id}."""
    body = sent_object()
    if not company.undelete(entity_of(body), body["id"]):
        raise answers.not_found()
    return plain({"success": True})


def purge(company: Company) -> Response:
    """Forget what was deleted more than thirty days ago."""
    return plain({"success": True, "data": {"purged": company.purge()}})


def behaviour(company: Company) -> Response:
    """Choose how the company behaves where the documentation is silent: members of `Behaviour`; answers with all of them."""
    if request.method == "POST":
        turn(company.behaviour, sent_object())
    return plain(dataclasses.asdict(company.behaviour))


def raw(company: Company) -> Response:
    """Store the body of a record as it comes: ?entity=person, then any JSON object."""
    record_id = company.put_raw(entity_of(request.args.to_dict()), request.get_data())
    return plain({"success": True, "data": {"id": record_id}})


def budget(app: PipedriveApp) -> Response:
    """Set the day's tokens ({budget: number or null}) and what is spent of them ({spent}); tells both."""
    given = sent_object()
    limit, spent = given.get("budget", app.budget.limit), given.get("spent", app.budget.spent)
    if type(limit) not in {int, NoneType} or type(spent) is not int or not set(given) <= {"budget", "spent"}:
        raise ValueError("budget: must be a number or null, and spent a number")
    app.budget.limit, app.budget.spent = limit, spent
    return plain(app.budget.described())


def limits(app: PipedriveApp) -> Response:
    """Set `burst_limit` (requests in two seconds), `retry_after` (say it on refusals), `edge_after` (refusals to the page)."""
    given = sent_object()
    wrong = [name for name, value in given.items() if type(value) not in _LIMITS.get(name, set())]
    if wrong:
        raise ValueError(f"{wrong[0]}: must be one of {', '.join(_LIMITS)} and of its type")
    app.limiter.limit = given.get("burst_limit", app.limiter.limit)
    app.retry_after_header = given.get("retry_after", app.retry_after_header)
    app.edge.after = given.get("edge_after", app.edge.after)
    return plain({"success": True})


def show_oauth(app: PipedriveApp) -> Response:
    """Show the switches of the OAuth server, who could authorise, and who has the app installed; no tokens."""
    users = [{"id": user.id, "admin": user.admin} for user in app.company.users]
    switches = dataclasses.asdict(app.grants.switches)
    return plain({"switches": switches, "users": users, "installations": app.grants.described()})


def set_oauth(app: PipedriveApp) -> Response:
    """Turn switches of the OAuth server, then do at once what `now` says: expire, revoke or uninstall."""
    given = sent_object()
    deed = given.pop("now", None)
    if deed not in {None, "expire", "revoke", "uninstall"}:
        raise ValueError("now: must be one of expire, revoke, uninstall")
    turn(app.grants.switches, given)
    if deed == "expire":
        app.grants.expire_access_tokens()
    elif deed == "revoke":
        app.grants.revoke_all()
    elif deed == "uninstall":
        told = oauth.uninstall(app.grants, app.session, app.company.clock())
        return plain({"success": True, "data": {"told": told}})
    return plain({"success": True})


def show_team(team: SalesTeam) -> Response:
    """Tell the pace, the weights, and how often each deed was done."""
    body = {"rate": team.rate_per_s, "weights": dataclasses.asdict(team.weights), "counts": dict(team.counts)}
    return plain({"success": True, "data": body})


def set_team_to_work(team: SalesTeam) -> Response:
    """Have the team act {rate} times a second, 0 to stop; {weights?, seed?} change what it does."""
    body = sent_object()
    rate = number(body.get("rate"), "rate")
    if rate < 0:
        raise ValueError("rate: must not be negative")
    weights = read(Weights, body["weights"]) if "weights" in body else team.weights
    team.weights = weights
    if "seed" in body:
        team.reseed(str(body["seed"]))
    if rate > 0:
        team.start(rate)
    else:
        team.stop()
    return show_team(team)


def entity_of(given: dict[str, Any]) -> Entity:
    """Return the entity that is named. Raises: ValueError."""
    if given.get("entity") not in ENTITIES:
        raise ValueError(f"entity: must be one of {', '.join(ENTITIES)}")
    return cast("Entity", given["entity"])
