"""The parts of a company: its users, its clock, an event with its cause, and switches for undocumented behaviour of Pipedrive."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from sandbox.company.fields import Entity

Record = dict[str, Any]
Action = Literal["create", "change", "delete"]
Source = Literal["api", "app"]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of the company."""

    id: int
    name: str
    email: str
    admin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EditContext:
    """Who changes records in this thread. `user_id` None is the company's first user; changes of one `correlation` belong
    together.
    """

    user_id: int | None = None
    bulk: bool = False
    correlation: UUID | None = None


_CURRENT: ContextVar[EditContext] = ContextVar("edit_context", default=EditContext())  # noqa: B039 (frozen)


@contextmanager
def editing_as(*, user_id: int | None = None, bulk: bool = False, correlation: UUID | None = None) -> Iterator[None]:
    """Set the context of all changes in a block; other members are those of the outer block."""
    outer = _CURRENT.get()
    context = EditContext(
        user_id=user_id or outer.user_id, bulk=bulk or outer.bulk, correlation=correlation or outer.correlation
    )
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_context() -> EditContext:
    """Return the context of changes in this thread."""
    return _CURRENT.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of one record: what it was, what it is, when (epoch seconds, with a fraction) and by whom.

    A merge is two events: `delete` of the loser, with `merged_to`, and `change` of the survivor, with `merged_from`.
    """

    action: Action
    entity: Entity
    id: int
    before: Record | None
    after: Record | None
    moment: float
    source: Source
    context: EditContext = field(default_factory=current_context)
    merged_to: int | None = None
    merged_from: int | None = None


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """Switches for behaviour that is not documented, so that a client can be tested with each."""

    list_deleted: bool = False  # deleted records appear in lists and answer to GET with is_deleted true
    unlink_persons: bool = True  # deleting an Organization sets its Persons' org_id to null and bumps them
    move_persons_aloud: bool = True  # merging an Organization bumps its Persons as they move, with an event for each
    undelete_event: Action | None = "change"  # the action of a restored record's event; None: no event
    gone_status: int = 404  # or 410: how a record that was deleted or merged answers
    idle_update_bumps: bool = False  # a PATCH that changes nothing sets update_time and raises an event
    null_until_changed: bool = True  # a record that was never changed has no update_time, as seen in the live API
    unchanged_unlisted: bool = False  # and lists filtered or sorted by update_time leave it out
    search_delay_s: float = 0.0  # how long a change stays unseen by search


def make_users(seed: int) -> list[User]:
    """Make the same four users for the same seed; tokens belong to the first."""
    base = 12_400_000 + int(hashlib.sha1(str(seed).encode(), usedforsecurity=False).hexdigest()[:4], 16)
    people = (("Ada Lindqvist", "ada"), ("Bo Okafor", "bo"), ("Cyd Moreau", "cyd"), ("Дарья Орлова", "darya"))
    return [
        User(id=base + 7 * n, name=name, email=f"{slug}@harborlight.example", admin=n < 2)
        for n, (name, slug) in enumerate(people)
    ]


class RunningClock:
    """Epoch seconds that pass `factor` times as fast from now on, beginning `behind_s` before the present.

    So an hour of company time fits into minutes. With a factor above 1 and nothing behind, records soon carry times of the
    future; behind by (factor - 1) times the length of a run, they reach the present at its end. Raises: ValueError for a
    factor of 0 or less.
    """

    def __init__(self, *, factor: float = 1.0, behind_s: float = 0.0, wall: Callable[[], float] = time.time) -> None:
        if factor <= 0:
            raise ValueError("clock_factor must be above 0")
        self._factor = factor
        self._wall = wall
        self._began = wall()
        self._start = self._began - behind_s

    def __call__(self) -> float:
        return self._start + (self._wall() - self._began) * self._factor
