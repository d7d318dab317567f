"""The access token of one connector as headers, renewed in time and after a 401. How it is renewed is told by whoever made it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.errors import Retryable

RENEW_BEFORE_S = 300.0
SHARE_OF_LIFE: Final = 0.2
"""A token that lives less than 25 minutes is renewed in the last fifth of its life."""
TRY_AGAIN_S = 30.0
"""After a renewal that failed while the token is still good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An access token as it stands in the database.

    left_s  seconds until it expires, by the database's clock when it was read
    life_s  seconds it was given
    """

    text: str = field(repr=False)
    left_s: float
    life_s: float

    @property
    def due_in_s(self) -> float:
        """Seconds until it should be renewed; below 0 when it is time."""
        return self.left_s - min(RENEW_BEFORE_S, SHARE_OF_LIFE * self.life_s)


Renew = Callable[[str | None], Token]
"""Given the token that was refused, or None when it is merely due: the token in force now, which another worker may have got."""


class BearerAuth:
    """What `pipeline.clients.pipedrive.PipedriveClient` takes as `auth` and `renew`."""

    def __init__(self, token: Token, renew: Renew, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._renew = renew
        self._clock = clock
        self._expires_at = 0.0
        self._take(token)

    def headers(self) -> Mapping[str, str]:
        """Raises: what renewing raises, if the token is past its time."""
        if self._clock() >= self._renew_at:
            self._renew_early()
        return self._headers

    def after_refusal(self, refused: Mapping[str, str]) -> Mapping[str, str]:
        """Headers worth one more try after a 401. Raises: what renewing raises."""
        self._take(self._renew(refused["Authorization"].removeprefix("Bearer ")))
        return self._headers

    def _renew_early(self) -> None:
        try:
            self._take(self._renew(None))
        except Retryable:
            if self._clock() >= self._expires_at:
                raise
            self._renew_at = self._clock() + TRY_AGAIN_S

    def _take(self, token: Token) -> None:
        self._headers = {"Authorization": f"Bearer {token.text}"}
        self._renew_at = self._clock() + token.due_in_s
        self._expires_at = self._clock() + token.left_s
