"""The closed lists: entities, directions, outcomes, claims. Their values are what logs, tables and commands show."""

from __future__ import annotations

from enum import StrEnum


class Entity(StrEnum):
    """What is synchronised, under its Pipedrive name; `hull` is the name of the same thing in Hull."""

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
    """The event name in the customer's guide, for example `incoming.user.success`."""
    return f"{direction}.{entity.hull}.{outcome}"


def anonymous_id(pipedrive_id: int) -> str:
    """The claim that every record of Pipedrive has."""
    return f"pipedrive:{pipedrive_id}"
