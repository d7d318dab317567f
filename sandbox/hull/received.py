"""What the firehose received, as `[type, {asUser, asAccount, subjectType}, body]`: the newest messages, and the number
of all.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

Triple = list[Any]


class Received:
    """A ring of JSON bytes: a fifth of the objects' memory, and nothing for the garbage collector to walk."""

    def __init__(self, limit: int) -> None:
        self.totals: Counter[str] = Counter()
        self.count = 0
        self._lines: deque[bytes] = deque(maxlen=limit)

    def add(self, message_type: str, claims: dict[str, Any], body: Any) -> None:
        self.count += 1
        self.totals[message_type] += 1
        # joined, because the copy is exact: what orjson hands out holds on to a buffer of 8 KB (3.13)
        self._lines.append(b"".join((orjson.dumps((message_type, claims, body)), b"\n")))

    def lines(self, since: int = 0) -> Iterator[bytes]:
        """A JSON line for every kept message from number `since` (the first ever is 0) on."""
        kept_from = self.count - len(self._lines)
        return islice(list(self._lines), max(0, since - kept_from), None)

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Triple]:
        return (orjson.loads(line) for line in self.lines())
