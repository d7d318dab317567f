"""Segments that list their members by id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sandbox.hull.records.entity import Kind


@dataclass(slots=True)
class Segment:
    id: str
    name: str
    kind: Kind
    created_at: float
    updated_at: float
    members: set[str] = field(default_factory=set)


class Segments:
    """All segments of both kinds, and who is in them."""

    def __init__(self) -> None:
        self._by_id: dict[str, Segment] = {}

    def of_kind(self, kind: Kind) -> list[Segment]:
        return [segment for segment in self._by_id.values() if segment.kind == kind]

    def holding(self, kind: Kind, hull_id: str) -> list[Segment]:
        return [segment for segment in self._by_id.values() if segment.kind == kind and hull_id in segment.members]

    def get_or_define(self, kind: Kind, name: str, now: float) -> Segment:
        """Within one kind a name means one segment."""
        for segment in self.of_kind(kind):
            if segment.name == name:
                return segment
        segment = Segment(f"5ee30000{len(self._by_id) + 1:016x}", name, kind, now, now)
        self._by_id[segment.id] = segment
        return segment

    def set_members(self, segment: Segment, hull_ids: Iterable[str], now: float) -> tuple[set[str], set[str]]:
        """Replace the list. Gives (ids that entered, ids that left)."""
        members = set(hull_ids)
        entered, left = members - segment.members, segment.members - members
        segment.members, segment.updated_at = members, now
        return entered, left

    def replace_member(self, loser: str, winner: str | None) -> None:
        """After a merge the winner stands where the loser stood; a deleted record (no winner) stands nowhere."""
        for segment in self._by_id.values():
            if loser in segment.members:
                segment.members.discard(loser)
                segment.members |= {winner} if winner else set()
