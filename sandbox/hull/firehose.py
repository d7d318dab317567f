"""The firehose: a batch of messages, taken one by one and in order; a bad one is logged and the others go on.

Message: {"type": traits|track|alias|unalias|incinerate, "body": {…}, "headers": {"Hull-Access-Token": <token>},
"timestamp"} Source: npm hull-client (lib/client.js, lib/lib/firehose.js);
https://www.hull.io/docs/data_lifecycle/ingest/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from sandbox.hull.records.attributes import Changes
from sandbox.hull.records.entity import Entity, Kind
from sandbox.hull.records.identity import Claims, read_claims
from sandbox.hull.state import HullState, iso
from sandbox.hull.web.token import Mandate, TokenRefused, TokenVerifier


class MessageRefused(ValueError):
    """This message changes nothing."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(slots=True)
class Intake:
    """One message on its way in: for whom it speaks, and what was wrong with parts of it."""

    state: HullState
    mandate: Mandate
    now: float
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Subject:
    """The record a message acts on. `linked` is the User a link was made for, with what changed of it."""

    entity: Entity
    is_new: bool
    changes: Changes
    linked: tuple[Entity, Changes] | None = None


def take_batch(state: HullState, verifier: TokenVerifier, items: Iterable[Any]) -> None:
    with state.lock:
        state.counts["batches"] += 1
        now = state.clock()
        for item in items:
            state.counts["messages"] += 1
            try:
                _take(state, verifier, item, now)
            except MessageRefused as refusal:
                state.report_error(refusal.kind, str(refusal), message=item)
            except TokenRefused as refusal:
                state.report_error("user", str(refusal), message=item)


def _take(state: HullState, verifier: TokenVerifier, item: Any, now: float) -> None:
    if not isinstance(item, dict):
        raise MessageRefused("user", "a message is an object")
    headers = item.get("headers")
    mandate = verifier.read(headers.get("Hull-Access-Token") if isinstance(headers, dict) else None, now)
    message_type, body = item.get("type"), item.get("body")
    apply = _APPLY.get(message_type) if isinstance(message_type, str) else None
    if apply is None:
        raise MessageRefused(mandate.subject_type, f"unknown message type {message_type!r}")
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise MessageRefused(mandate.subject_type, "the body is no object")
    state.received.add(str(message_type), mandate.described(), body)
    intake = Intake(state, mandate, now)
    subject = _subject(intake)
    subject.changes |= apply(intake, subject.entity, body)
    for problem in intake.problems:
        state.report_error(subject.entity.kind, problem, id=subject.entity.id)
    if state.notify_on_firehose:
        _announce(state, subject)


def _subject(intake: Intake) -> Subject:
    """Find, create or merge the record the message acts on; with both claims, link the User to the Account."""
    mandate, problems = intake.mandate, intake.problems
    user_claims = read_claims("user", mandate.as_user, problems) if mandate.as_user else None
    account_claims = read_claims("account", mandate.as_account, problems) if mandate.as_account else None
    if mandate.subject_type == "user":
        return _identify(intake, "user", user_claims)
    if user_claims is None:
        return _identify(intake, "account", account_claims)
    if account_claims is not None and not any(account_claims):
        raise MessageRefused("account", _no_identifier(problems))
    user = _identify(intake, "user", user_claims).entity
    if account_claims is None:
        return _linked_account(intake, user)
    subject = _identify(intake, "account", account_claims)
    subject.linked = (user, intake.state.link(user, subject.entity, intake.now))
    return subject


def _identify(intake: Intake, kind: Kind, claims: Claims | None) -> Subject:
    if claims is None or not any(claims):
        raise MessageRefused(kind, _no_identifier(intake.problems))
    found = intake.state.identify(kind, claims, create=intake.mandate.create, now=intake.now)
    if found is None:
        raise MessageRefused(kind, f"no such {kind}, and none is to be created")
    return Subject(found.entity, found.created, found.changes)


def _linked_account(intake: Intake, user: Entity) -> Subject:
    account = intake.state.account_of(user)
    if account is None:
        raise MessageRefused("account", "the user is linked to no account")
    return Subject(account, is_new=False, changes={})


def _no_identifier(problems: list[str]) -> str:
    return "; ".join(["no identifier", *problems])


def _announce(state: HullState, subject: Subject) -> None:
    state.announce(subject.entity, subject.changes, is_new=subject.is_new)
    if subject.linked is not None:
        user, link = subject.linked
        state.announce(user, {f"account.{name}": pair for name, pair in link.items()})


def _traits(intake: Intake, entity: Entity, body: dict[str, Any]) -> Changes:
    return intake.state.write(entity, body, now=intake.now, problems=intake.problems)


def _track(intake: Intake, entity: Entity, body: dict[str, Any]) -> Changes:
    """Keep an event; one with the same event_id takes the place of the first."""
    if entity.kind == "account":
        intake.problems.append("accounts have no events")
    elif not body.get("event"):
        intake.problems.append("an event needs a name")
    else:
        event_id = str(body.get("event_id") or uuid4())
        kept = {"created_at": iso(intake.now), **body, "event_id": event_id, "user_id": entity.id}
        entity.events = {**(entity.events or {}), event_id: kept}
        intake.state.counts["events"] += 1
    return {}


def _alias(intake: Intake, entity: Entity, body: dict[str, Any]) -> Changes:
    """Give the record one more anonymous_id; whoever had it is merged into this one."""
    anonymous_id = _anonymous_id(intake, entity, body)
    if anonymous_id is None:
        return {}
    claims = Claims(entity.id, None, None, anonymous_id)
    found = intake.state.identify(entity.kind, claims, create=False, now=intake.now)
    return {} if found is None else found.changes


def _unalias(intake: Intake, entity: Entity, body: dict[str, Any]) -> Changes:
    anonymous_id = _anonymous_id(intake, entity, body)
    if anonymous_id is None or anonymous_id not in entity.anonymous_ids:
        return {}
    before = list(entity.anonymous_ids)
    intake.state.directory(entity.kind).remove_anonymous(entity, anonymous_id)
    entity.updated_at = intake.now
    return {"anonymous_ids": (before, list(entity.anonymous_ids))}


def _anonymous_id(intake: Intake, entity: Entity, body: dict[str, Any]) -> str | None:
    given = read_claims(entity.kind, {"anonymous_id": body.get("anonymous_id")}, intake.problems).anonymous_id
    if given is None:
        intake.problems.append("no anonymous_id in the body")
    return given


def _incinerate(intake: Intake, entity: Entity, _body: dict[str, Any]) -> Changes:
    intake.state.incinerate(entity)
    return {}


_APPLY: dict[str, Callable[[Intake, Entity, dict[str, Any]], Changes]] = {
    "traits": _traits,
    "track": _track,
    "alias": _alias,
    "unalias": _unalias,
    "incinerate": _incinerate,
}
