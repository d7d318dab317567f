"""Users and Accounts as Hull shows them: flat reports, with everything a connector may read.

Ungrouped custom attributes of a User carry the prefix `traits_`; grouped and built-in ones, and all of an
Account's, do not. Source: https://github.com/hull/hull-connectors
(packages/hull/src/utils/trim-traits-prefix-from-user-message.js)
"""

from __future__ import annotations

from typing import Any

from sandbox.hull.records.domains import registrable_domain
from sandbox.hull.records.entity import NATURAL_CLAIM, Entity, Kind
from sandbox.hull.records.segments import Segment
from sandbox.hull.state import HullState, iso

Report = dict[str, Any]

BUILT_IN = frozenset(
    {
        "name",
        "first_name",
        "last_name",
        "created_at",
        "domain",
        "phone",
        "address",
        "description",
        "image",
        "picture",
        "accepts_marketing",
        "approved",
        "last_known_ip",
        "last_seen_at",
        "last_contacted_at",
        "first_seen_at",
    }
)


def user_report(state: HullState, user: Entity) -> Report:
    """With the Account embedded under `account`, {} when there is none."""
    attributes = {report_key("user", name): value for name, value in user.attributes.items()}
    account = state.account_of(user)
    embedded = {} if account is None else account_report(state, account)
    return {**_identity(state, user), "domain": _user_domain(user), **attributes, "account": embedded}


def account_report(state: HullState, account: Entity) -> Report:
    return {**_identity(state, account), **account.attributes}


def report_of(state: HullState, entity: Entity) -> Report:
    return user_report(state, entity) if entity.kind == "user" else account_report(state, entity)


def plain_record(state: HullState, entity: Entity) -> Report:
    """The complete record without prefixes, the Account as `account_id`: for comparing, not for connectors."""
    record = {**_identity(state, entity), **entity.attributes}
    return {**record, "account_id": entity.account_id} if entity.kind == "user" else record


def report_key(kind: Kind, name: str) -> str:
    custom = kind == "user" and "/" not in name and name not in BUILT_IN
    return f"traits_{name}" if custom else name


def segment_object(segment: Segment) -> dict[str, Any]:
    return {
        "id": segment.id,
        "name": segment.name,
        "type": f"{segment.kind}s_segment",
        "created_at": iso(segment.created_at),
        "updated_at": iso(segment.updated_at),
        "stats": {f"{segment.kind}s": len(segment.members)},
    }


def _identity(state: HullState, entity: Entity) -> Report:
    return {
        "id": entity.id,
        NATURAL_CLAIM[entity.kind]: entity.natural,
        "external_id": entity.external_id,
        "anonymous_ids": list(entity.anonymous_ids),
        "segment_ids": [segment.id for segment in state.segments.holding(entity.kind, entity.id)],
        "created_at": iso(entity.created_at),
        "updated_at": iso(entity.updated_at),
        "indexed_at": iso(entity.updated_at),
    }


def _user_domain(user: Entity) -> str | None:
    """Filled from the e-mail; an attribute of that name, if written, stands instead."""
    return registrable_domain(user.natural.rpartition("@")[2]) if user.natural else None
