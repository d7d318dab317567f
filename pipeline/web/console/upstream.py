"""Asks one other program of ours over HTTP and hands its answer back: bounded in time, in size and in how many ask at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import urllib3

from pipeline.slow_work import REMOTE

CONNECT_S: Final = 1.0
DEADLINE_S: Final = 8.0
REST_S: Final = 3.0
"""After a request without an answer, further requests fail immediately for so long."""
MAX_BYTES: Final = 16 * 1024 * 1024
AT_ONCE: Final = 2
TURN_S: Final = 2.0


class UpstreamAway(Exception):
    """No answer that could be used; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Upstream:
    """Follows nobody elsewhere, keeps no cookies, uses no proxy, tries once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = urllib3.PoolManager(
            num_pools=2, maxsize=AT_ONCE, retries=False, timeout=urllib3.Timeout(connect=CONNECT_S, read=DEADLINE_S)
        )
        self._clock = clock
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._away_until = 0.0

    def ask(self, url: str, *, method: str, query: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Raises: UpstreamAway."""
        with REMOTE.entered():
            return self._ask_in_turn(f"{url}?{query}" if query else url, method, headers, body)

    def _ask_in_turn(self, url: str, method: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        if self._clock() < self._away_until or not self._turns.acquire(timeout=TURN_S):
            raise UpstreamAway("It did not answer a moment ago.")
        try:
            return self._ask(url, method, headers, body)
        except urllib3.exceptions.HTTPError as error:
            self._away_until = self._clock() + REST_S
            raise UpstreamAway(f"Nothing answers there ({type(error).__name__}).") from None
        finally:
            self._turns.release()

    def _ask(self, url: str, method: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        begun = self._clock()
        answer = self._pool.request(
            method, url, headers=headers, body=body, redirect=False, preload_content=False, decode_content=False
        )
        try:
            pieces, size = [], 0
            for piece in answer.stream(65_536, decode_content=False):
                size += len(piece)
                if size > MAX_BYTES or self._clock() - begun > DEADLINE_S:
                    raise UpstreamAway("Its answer is too long to be passed on.")
                pieces.append(piece)
            return Answer(status=answer.status, headers=dict(answer.headers), body=b"".join(pieces))
        finally:
            answer.close()
