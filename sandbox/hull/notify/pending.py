"""What a connector has not been told yet about one record: all changes since the last notification, folded into one.

The oldest old value and the newest new one are kept; what came back to where it was is no change.
Source: https://www.hull.io/docs/data_lifecycle/notify/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.hull.records.entity import Entity
from sandbox.hull.web.reports import report_key

Diff = dict[str, list[Any]]


@dataclass(slots=True)
class Moves:
    """Ids of the segments entered and left."""

    entered: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def fold(self, left: list[str], entered: list[str]) -> None:
        for segment_id in entered:
            _move(segment_id, self.left, self.entered)
        for segment_id in left:
            _move(segment_id, self.entered, self.left)


@dataclass(slots=True)
class Pending:
    """One message to be: `user` stays empty for an account:update."""

    entity: Entity
    is_new: bool = False
    user: Diff = field(default_factory=dict)
    account: Diff = field(default_factory=dict)
    segments: Moves = field(default_factory=Moves)
    account_segments: Moves = field(default_factory=Moves)

    def says_something(self) -> bool:
        moves = (self.segments, self.account_segments)
        return bool(self.is_new or self.user or self.account or any(move.entered or move.left for move in moves))

    def fold(self, changes: Mapping[str, Any], *, of_account: bool) -> None:
        """Add changes {name: (old, new)}; `account.x` is the User's Account's x, "segments" is (ids left, ids entered)."""
        for name, (old, new) in changes.items():
            if name == "segments":
                (self.account_segments if of_account else self.segments).fold(old, new)
            elif of_account or name.startswith("account."):
                _fold(self.account, name.removeprefix("account."), old, new)
            else:
                _fold(self.user, report_key("user", name), old, new)


def _fold(diff: Diff, name: str, old: Any, new: Any) -> None:
    first = diff[name][0] if name in diff else old
    diff[name] = [first, new]
    if first == new:
        del diff[name]


def _move(segment_id: str, opposite: list[str], own: list[str]) -> None:
    if segment_id in opposite:
        opposite.remove(segment_id)
    elif segment_id not in own:
        own.append(segment_id)
