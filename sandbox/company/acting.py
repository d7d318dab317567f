"""Who acts in a company, and how: what an event says besides the change itself.

with acting(user_id=..., bulk=True):     every change made in the block, in this thread, is this user's and part of one bulk edit
    company.edit(...)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One deed in the app. `user_id` None is the company's first user; changes of one `correlation` belong together."""

    user_id: int | None = None
    bulk: bool = False
    correlation: UUID | None = None


_CURRENT: ContextVar[Act] = ContextVar("act", default=Act())  # noqa: B039 (frozen)


@contextmanager
def acting(*, user_id: int | None = None, bulk: bool = False, correlation: UUID | None = None) -> Iterator[None]:
    """Put a name to the changes of a block; what is left out is as in the block around it."""
    outer = _CURRENT.get()
    act = Act(user_id=user_id or outer.user_id, bulk=bulk or outer.bulk, correlation=correlation or outer.correlation)
    token = _CURRENT.set(act)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_act() -> Act:
    """Tell who acts in this thread."""
    return _CURRENT.get()
