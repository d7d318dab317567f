"""What was asked of the server: every mutation in order, and counters by kind of call with what they cost.

Read in process from `Ledger`, or as GET /__sandbox__/ledger and /__sandbox__/stats.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One request that changed something. `moment` is epoch seconds; the body is kept as it came."""

    number: int
    moment: float
    method: str
    path: str
    status: int
    entity_id: int | str | None
    body: str
    body_sha256: str


class Ledger:
    """Mutations and counters of one server."""

    def __init__(self) -> None:
        self.mutations: list[Mutation] = []
        self.requests: Counter[str] = Counter()
        self.tokens: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self._lock = threading.Lock()

    def count(self, call: str, cost: int, status: int) -> None:
        """Count one answered request; one refused for its rate costs no tokens."""
        with self._lock:
            self.requests[call] += 1
            self.tokens[call] += 0 if status == 429 else cost
            self.statuses[status] += 1

    def note(
        self, *, moment: float, method: str, path: str, status: int, entity_id: int | str | None, body: bytes
    ) -> None:
        """Write down one mutation that was carried out."""
        with self._lock:
            mutation = Mutation(
                number=len(self.mutations) + 1,
                moment=moment,
                method=method,
                path=path,
                status=status,
                entity_id=entity_id,
                body=body.decode(errors="replace"),
                body_sha256=hashlib.sha256(body).hexdigest(),
            )
            self.mutations.append(mutation)

    def stats(self) -> dict[str, Any]:
        """Sum up."""
        with self._lock:
            return {
                "requests": dict(self.requests),
                "tokens": dict(self.tokens),
                "statuses": {str(status): number for status, number in self.statuses.items()},
                "requests_total": self.requests.total(),
                "tokens_total": self.tokens.total(),
                "mutations_total": len(self.mutations),
            }

    def entries(self, after: int = 0) -> list[dict[str, Any]]:
        """List mutations with a number above `after`."""
        with self._lock:
            return [asdict(mutation) for mutation in self.mutations[after:]]
