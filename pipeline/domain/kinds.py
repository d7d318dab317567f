"""Closed lists (entities, directions, outcomes, claims, roles) and ids. Logs, tables and commands show their values."""

from __future__ import annotations

from enum import StrEnum


class Entity(StrEnum):
    """What is synchronized, under its Pipedrive name; `hull` is the name of the same thing in Hull."""

    PERSON = "person"
    ORGANIZATION = "organization"

    @property
    def hull(self) -> str:
        return "user" if self is Entity.PERSON else "account"

    @property
    def plural(self) -> str:
        return f"{self.value}s"

    @classmethod
    def from_hull(cls, name: str) -> Entity:
        return cls.PERSON if name == "user" else cls.ORGANIZATION


class Direction(StrEnum):
    INCOMING = "incoming"
    """Pipedrive to Hull."""
    OUTGOING = "outgoing"
    """Hull to Pipedrive."""


class Outcome(StrEnum):
    SUCCESS = "success"
    SKIP = "skip"
    ERROR = "error"
    RETRY = "retry"
    PARK = "park"


class Claim(StrEnum):
    """A value that identifies a User or an Account in Hull."""

    EMAIL = "email"
    EXTERNAL_ID = "external_id"
    ANONYMOUS_ID = "anonymous_id"
    DOMAIN = "domain"


def event_name(direction: Direction, entity: Entity, outcome: Outcome) -> str:
    """Return the event name as in the customer's guide, for example `incoming.user.success`."""
    return f"{direction}.{entity.hull}.{outcome}"


def anonymous_id(pipedrive_id: int) -> str:
    """Return the claim that every record of Pipedrive has."""
    return f"pipedrive:{pipedrive_id}"


class Role(StrEnum):
    """The roles of operators; each includes the roles before it."""

    VIEWER = "viewer"
    """Sees everything but secrets."""
    OPERATOR = "operator"
    """Fetches, sends, replays, discards, pauses, resumes."""
    ADMIN = "admin"
    """Adds connectors and operators, changes credentials and settings."""

    def may(self, needed: Role) -> bool:
        """Return whether this role includes the needed one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


def parse_record_id(value: object) -> int | None:
    """Return the Pipedrive id in a value of Hull or of a webhook: a positive whole number or its digits; else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    return value if type(value) is int and 0 < value < 2**63 else None
