"""A bounded load generator: requests at a steady rate, over a fixed number of kept connections.

It measures from the time when a request was due to the complete answer, so that a slow answer also counts for the requests that
waited for it.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TIMEOUT_S = 10.0


@dataclass(slots=True)
class Outcome:
    """Statuses and waiting times of one load, in seconds."""

    statuses: Counter[str] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)
    took_s: float = 0.0

    def quantile_ms(self, share: float) -> float:
        """Return the time within which this share was answered."""
        ordered = sorted(self.waits_s)
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else 0.0


def post_all(
    url: str, bodies: Sequence[bytes], headers: dict[str, str], *, per_second: float | None, connections: int
) -> Outcome:
    """Post every body once; at `per_second`, or as fast as the connections allow."""
    begin = time.monotonic()
    outcome, turn, lock = Outcome(), iter(enumerate(bodies)), threading.Lock()

    def work() -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
        while True:
            with lock:
                number, body = next(turn, (0, None))
            if body is None:
                connection.close()
                return
            due = begin + number / per_second if per_second else time.monotonic()
            time.sleep(max(0.0, due - time.monotonic()))
            status = _post(connection, parts.path, body, headers)
            with lock:
                outcome.statuses[status] += 1
                outcome.waits_s.append(time.monotonic() - due)

    _run([work] * connections)
    outcome.took_s = time.monotonic() - begin
    return outcome


def _post(connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> str:
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__
    return str(answer.status)


def _run(works: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
