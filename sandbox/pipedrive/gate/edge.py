"""The gateway in front of the API: shuts out an API token that hammers on after refusals.

In: refusals (429) of a token. Out: whether its next request is met by an HTML page. How many it takes is documented nowhere.
Source: docs page core-api-concepts-rate-limiting.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

CALM_S = 10.0  # so long a token must keep quiet to be let in again


class Edge:
    """Refusals of late, by token. `after` refusals within `CALM_S` shut a token out; None never does."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.after: int | None = None
        self._clock = clock
        self._refused: dict[str, deque[float]] = {}
        self._lock = threading.Lock()

    def refuse(self, token: str) -> None:
        """Note that a request of this token was refused."""
        with self._lock:
            self._refused.setdefault(token, deque()).append(self._clock())

    def shuts_out(self, token: str) -> bool:
        """Tell whether a request of this token is to be turned away, which counts as a refusal in turn."""
        if self.after is None:
            return False
        with self._lock:
            now, refused = self._clock(), self._refused.get(token, deque())
            while refused and refused[0] <= now - CALM_S:
                refused.popleft()
            shut = len(refused) >= self.after
            if shut:
                refused.append(now)
            return shut
