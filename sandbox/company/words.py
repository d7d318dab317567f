"""What is said about a company: its users, what happens in it, and how it behaves where the documentation is silent."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

from sandbox.company.acting import Act, current_act
from sandbox.company.bodies import Record
from sandbox.company.fields import Entity

Action = Literal["create", "change", "delete"]
Source = Literal["api", "app"]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A seat in the company."""

    id: int
    name: str
    email: str
    admin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of one record: what it was, what it is, when (epoch seconds, with a fraction) and by whom.

    A merge is two: `delete` of the one that goes, with `merged_to`, and `change` of the one that stays, with `merged_from`.
    """

    action: Action
    entity: Entity
    id: int
    before: Record | None
    after: Record | None
    moment: float
    source: Source
    act: Act = field(default_factory=current_act)
    merged_to: int | None = None
    merged_from: int | None = None


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """Answers the documentation leaves open; each is a switch, so that a client can be tried against either."""

    list_deleted: bool = False  # deleted records appear in lists and answer to GET with is_deleted true
    unlink_persons: bool = True  # deleting an Organization sets its Persons' org_id to null and bumps them
    move_persons_aloud: bool = True  # merging an Organization bumps its Persons as they move, and tells of each
    undelete_event: Action | None = "change"  # what webhooks are told of a record that came back; None: nothing
    gone_status: int = 404  # or 410: how a record that was deleted or merged answers
    idle_update_bumps: bool = False  # a PATCH that changes nothing sets update_time and raises an event
    null_until_changed: bool = (
        True  # a record that was never changed shows no update_time, as seen in answers of the live API
    )
    unchanged_unlisted: bool = False  # and lists filtered or sorted by update_time leave it out
    created_status: int = 200
    search_delay_s: float = 0.0  # how long a change stays unseen by search


def make_users(seed: int) -> list[User]:
    """Seat the same four users for the same seed; tokens belong to the first."""
    base = 12_400_000 + int(hashlib.sha1(str(seed).encode(), usedforsecurity=False).hexdigest()[:4], 16)
    people = (("Ada Lindqvist", "ada"), ("Bo Okafor", "bo"), ("Cyd Moreau", "cyd"), ("Дарья Орлова", "darya"))
    return [
        User(id=base + 7 * n, name=name, email=f"{slug}@harborlight.example", admin=n < 2)
        for n, (name, slug) in enumerate(people)
    ]
