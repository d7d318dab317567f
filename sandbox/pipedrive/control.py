"""The sandbox's own controls of Pipedrive: show its state, act like a user of the app, set limits, OAuth, webhooks and the sales
team.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from types import NoneType
from typing import TYPE_CHECKING, Any, cast

from flask import Response, request

from sandbox.app import (
    PREFIX,
    Control,
    NotFound,
    change_members,
    json_answer,
    read_dataclass,
    read_object,
    require_number,
)
from sandbox.company import ENTITIES, Entity, Record
from sandbox.company.records import encode
from sandbox.pipedrive import answers, oauth
from sandbox.pipedrive.answers import milliseconds
from sandbox.pipedrive.delivery import Trouble
from sandbox.pipedrive.sales_team import Weights
from sandbox.pipedrive.webhooks import DeliveryRules

if TYPE_CHECKING:
    from sandbox.pipedrive.app import PipedriveApp

_MUTATIONS = frozenset({"edit", "create", "delete", "raw", "merge", "undelete", "purge"})
_LIMITS: dict[str, set[type]] = {"burst_limit": {int, NoneType}, "retry_after": {bool}, "edge_after": {int, NoneType}}
_WEBHOOK_CHANGES = ("id", "ban_s", "delete", "is_active", "subscription_url")


def controls(app: PipedriveApp) -> list[Control]:
    """List the controls of an app."""
    own = Controls(app)
    return [
        ("GET", "ledger", own.show_ledger),
        ("GET", "stats", own.show_stats),
        ("GET", "export", own.export),
        ("POST", "edit", own.edit),
        ("POST", "create", own.create),
        ("POST", "delete", own.delete),
        ("POST", "raw", own.put_raw),
        ("POST", "merge", own.merge),
        ("POST", "undelete", own.undelete),
        ("POST", "purge", own.purge),
        ("GET", "behaviour", own.show_behaviour),
        ("POST", "behaviour", own.set_behaviour),
        *app.faults.controls(),
        ("POST", "budget", own.set_budget),
        ("POST", "limits", own.set_limits),
        ("GET", "oauth", own.show_oauth),
        ("POST", "oauth", own.set_oauth),
        ("GET", "deliveries", own.show_deliveries),
        ("POST", "deliveries", own.set_deliveries),
        ("POST", "webhooks", own.change_webhooks),
        ("GET", "team", own.show_team),
        ("POST", "team", own.set_team),
    ]


def changes_company() -> bool:
    """Return whether the current request is for a control that changes records, which the ledger lists."""
    return request.path.removeprefix(PREFIX) in _MUTATIONS


class Controls:
    """The controls of one app."""

    def __init__(self, app: PipedriveApp) -> None:
        self.app = app
        self.company = app.company

    def show_ledger(self) -> Response:
        """List the mutations, those after number `after` if given."""
        return json_answer({"mutations": self.app.ledger.entries(request.args.get("after", 0, type=int))})

    def show_stats(self) -> Response:
        """Count requests, tokens of this run and of this day, grants and live records."""
        return json_answer(
            {
                **self.app.ledger.stats(),
                "daily": self.app.budget.described(),
                "oauth": dict(self.app.grants.counts),
                "records": {entity: self.company.count(entity) for entity in ENTITIES},
            }
        )

    def export(self) -> Response:
        """Stream all live records of an entity, one JSON object a line, by id."""
        entity = _entity_of(request.args.to_dict())

        def lines() -> Iterator[bytes]:
            bodies = self.company.export(entity)
            while block := list(islice(bodies, 500)):
                yield b"\n".join(block) + b"\n"

        return Response(lines(), content_type="application/x-ndjson")

    # -- records, changed like by a user of the app ----------------------------------------------------------------

    def create(self) -> Response:
        """Create a record: {entity, fields}."""
        body = read_object(("entity", "fields"), ())
        return _record(self.company.create(_entity_of(body), body["fields"], source="app"))

    def edit(self) -> Response:
        """Change a record: {entity, id, fields}."""
        body = read_object(("entity", "id", "fields"), ())
        return _record(self.company.edit(_entity_of(body), body["id"], body["fields"], source="app"))

    def merge(self) -> Response:
        """Merge two records: {entity, id, merge_with_id}; answers with the survivor."""
        body = read_object(("entity", "id", "merge_with_id"), ())
        return _record(self.company.merge(_entity_of(body), body["id"], body["merge_with_id"], source="app"))

    def delete(self) -> Response:
        """Delete a record: {entity, id}."""
        body = read_object(("entity", "id"), ())
        return _done(found=self.company.delete(_entity_of(body), body["id"], source="app"))

    def undelete(self) -> Response:
        """Restore a deleted record: {entity, id}."""
        body = read_object(("entity", "id"), ())
        return _done(found=self.company.undelete(_entity_of(body), body["id"]))

    def purge(self) -> Response:
        """Remove records that were deleted more than thirty days ago."""
        return json_answer({"success": True, "data": {"purged": self.company.purge()}})

    def put_raw(self) -> Response:
        """Store the body of a record exactly as it is: ?entity=person, then any JSON object."""
        record_id = self.company.put_raw(_entity_of(request.args.to_dict()), request.get_data())
        return json_answer({"success": True, "data": {"id": record_id}})

    # -- how Pipedrive behaves -------------------------------------------------------------------------------------

    def show_behaviour(self) -> Response:
        """Show how the company behaves where the documentation is silent: the members of `Behaviour`."""
        return json_answer(asdict(self.company.behaviour))

    def set_behaviour(self) -> Response:
        """Change members of `Behaviour`; answers with all of them."""
        change_members(self.company.behaviour, read_object())
        return self.show_behaviour()

    def set_budget(self) -> Response:
        """Set the day's tokens ({budget: number or null}) and how many of them are spent ({spent}); answers with both."""
        budget, given = self.app.budget, read_object((), ("budget", "spent"))
        limit, spent = given.get("budget", budget.limit), given.get("spent", budget.spent)
        if type(limit) not in {int, NoneType} or type(spent) is not int:
            raise ValueError("budget: must be a number or null, and spent a number")
        budget.limit, budget.spent = limit, spent
        return json_answer(budget.described())

    def set_limits(self) -> Response:
        """Set `burst_limit` (requests in two seconds), `retry_after` (a header of refusals), `edge_after` (refusals until the
        gateway blocks the token).
        """
        given = read_object((), _LIMITS)
        for name, value in given.items():
            if type(value) not in _LIMITS[name]:
                raise ValueError(f"{name}: is of a wrong type")
        self.app.limiter.limit = given.get("burst_limit", self.app.limiter.limit)
        self.app.retry_after_header = given.get("retry_after", self.app.retry_after_header)
        self.app.gateway.after = given.get("edge_after", self.app.gateway.after)
        return _done()

    def show_oauth(self) -> Response:
        """Show the switches of the OAuth server, who could authorise, and who has the app installed; no tokens."""
        users = [{"id": user.id, "admin": user.admin} for user in self.company.users]
        grants = self.app.grants
        return json_answer({"switches": asdict(grants.switches), "users": users, "installations": grants.described()})

    def set_oauth(self) -> Response:
        """Change switches of the OAuth server, then perform the action in `now`: expire, revoke or uninstall."""
        given, grants = read_object(), self.app.grants
        action = given.pop("now", None)
        if action not in {None, "expire", "revoke", "uninstall"}:
            raise ValueError("now: must be one of expire, revoke, uninstall")
        change_members(grants.switches, given)
        if action == "expire":
            grants.expire_access_tokens()
        elif action == "revoke":
            grants.revoke_all()
        elif action == "uninstall":
            statuses = oauth.uninstall(grants, self.app.session, self.company.clock())
            return json_answer({"success": True, "data": {"callback_statuses": statuses}})
        return _done()

    # -- webhooks --------------------------------------------------------------------------------------------------

    def show_deliveries(self) -> Response:
        """Show the outcomes of all deliveries, and the health of each webhook."""
        delivery = self.app.delivery
        body = {
            "counts": dict(delivery.counts),
            "waiting": delivery.waiting,
            "trouble": asdict(delivery.trouble),
            "rules": asdict(delivery.rules),
            "webhooks": [self._webhook(subscription) for subscription in list(self.app.subscriptions.by_id.values())],
        }
        return json_answer({"success": True, "data": body})

    def set_deliveries(self) -> Response:
        """Set {trouble?: the members of `Trouble`, rules?: those of `DeliveryRules`}; {} changes nothing."""
        body, delivery = read_object((), ("trouble", "rules")), self.app.delivery
        trouble = read_dataclass(Trouble, body["trouble"]) if "trouble" in body else None
        if "rules" in body:
            delivery.rules = read_dataclass(DeliveryRules, body["rules"])
        if trouble is not None:
            delivery.trouble = trouble
        data = {"trouble": asdict(delivery.trouble), "rules": asdict(delivery.rules)}
        return json_answer({"success": True, "data": data})

    def change_webhooks(self) -> Response:
        """Ban, delete, switch or redirect a webhook: {id?, ban_s?, delete?, is_active?, subscription_url?}; without an id, all.

        `ban_s` null bans as long as Pipedrive does, 0 ends a ban.
        """
        body, by_id = read_object((), _WEBHOOK_CHANGES), self.app.subscriptions.by_id
        if "id" in body and body["id"] not in list(by_id):
            raise NotFound(f"webhook {body['id']} does not exist")
        ban_s = None if body.get("ban_s") is None else require_number(body["ban_s"], "ban_s")
        ids: list[int] = [body["id"]] if "id" in body else list(by_id)
        for webhook_id in ids:
            if "ban_s" in body:
                self.app.delivery.ban(webhook_id, ban_s)
            if body.get("delete"):
                by_id.pop(webhook_id, None)
            if "is_active" in body:
                by_id.get(webhook_id, {})["is_active"] = int(bool(body["is_active"]))
            if "subscription_url" in body:
                by_id.get(webhook_id, {})["subscription_url"] = str(body["subscription_url"])
        return json_answer({"success": True, "data": {"ids": ids}})

    def _webhook(self, subscription: dict[str, Any]) -> dict[str, Any]:
        health = self.app.delivery.health(subscription["id"])
        shown = {name: subscription[name] for name in ("id", "name", "is_active")}
        return {
            **shown,
            "failures": health.failures,
            "banned_until": _moment(health.banned_until),
            "failing_since": _moment(health.failing_since),
            "last_http_status": subscription["last_http_status"],
            "last_delivery_time": subscription["last_delivery_time"],
        }

    # -- the sales team --------------------------------------------------------------------------------------------

    def show_team(self) -> Response:
        """Show the rate, the weights, and how often each action was done."""
        team = self.app.team
        body = {"rate": team.rate_per_s, "weights": asdict(team.weights), "counts": dict(team.counts)}
        return json_answer({"success": True, "data": body})

    def set_team(self) -> Response:
        """Have the team act {rate} times a second, 0 to stop; {weights?, seed?} change what it does."""
        body, team = read_object(("rate",), ("weights", "seed")), self.app.team
        rate = require_number(body["rate"], "rate")
        if rate < 0:
            raise ValueError("rate: must not be negative")
        if "weights" in body:
            team.weights = read_dataclass(Weights, body["weights"])
        if "seed" in body:
            team.reseed(str(body["seed"]))
        if rate > 0:
            team.start(rate)
        else:
            team.stop()
        return self.show_team()


def _entity_of(given: dict[str, Any]) -> Entity:
    if given.get("entity") not in ENTITIES:
        raise ValueError(f"entity: must be one of {', '.join(ENTITIES)}")
    return cast("Entity", given["entity"])


def _record(record: Record | None) -> Response:
    if record is None:
        raise NotFound("the record does not exist")
    return answers.item(encode(record))


def _done(*, found: bool = True) -> Response:
    if not found:
        raise NotFound("the record does not exist")
    return json_answer({"success": True})


def _moment(moment: float | None) -> str | None:
    return None if moment is None else milliseconds(moment)
