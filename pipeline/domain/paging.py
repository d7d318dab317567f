"""Detects endless walks: a cursor that comes again, or page after page without a record."""

from __future__ import annotations

from typing import Final

MOST_EMPTY: Final = 20
"""Pages without a record in a row, each with a cursor, after which a walk leads nowhere: filters leave gaps, not deserts."""


class Cursors:
    """The cursors of one walk that is done in one go."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._empty = 0

    def trouble_with(self, cursor: str, records: int) -> str | None:
        """Return why the walk must not continue from `cursor`, given with a page of so many records; None while it advances."""
        self._empty = 0 if records else self._empty + 1
        if cursor in self._seen:
            return "a cursor came again"
        self._seen.add(cursor)
        return f"{self._empty} empty pages in a row" if self._empty >= MOST_EMPTY else None
