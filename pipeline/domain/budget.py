"""How much of Pipedrive's daily budget each lane may spend: it belongs to a company, and a share of it to live work.

live      all of it, and more than our own count: Pipedrive itself decides
control   up to half of the reserve
bulk      up to the reserve
verify    up to the reserve
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEFAULT_DAILY_TOKENS: Final = 30_000
"""One seat of the smallest plan: https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting."""
DEFAULT_LIVE_RESERVE: Final = 0.2
DAY_S: Final = 86_400
"""The budget is assumed to reset at midnight UTC: Pipedrive documents midnight of the server, and not its time zone."""


class Lane(StrEnum):
    """The lanes of Pipedrive's daily budget; the first three are also the queues."""

    LIVE = "live"
    """Webhooks, notifications, replays."""
    BULK = "bulk"
    """Fetches."""
    CONTROL = "control"
    """Ticks, look-ups of ids, webhook checks, setup."""
    VERIFY = "verify"
    """Comparing both sides whole."""


_SHARE_OF_RESERVE = {Lane.CONTROL: 0.5, Lane.BULK: 0.0, Lane.VERIFY: 0.0}


class ClosingUnknown(Exception):
    """Redis is unavailable: it is not known whether Pipedrive refuses calls for today."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """A connector's settings for its company's daily budget.

    daily_tokens  tokens per day; 0 is without limit
    live_reserve  the share of them, from 0 to 1, reserved for live work
    """

    daily_tokens: int = DEFAULT_DAILY_TOKENS
    live_reserve: float = DEFAULT_LIVE_RESERVE

    def ceiling(self, lane: Lane) -> int | None:
        """Up to how many tokens the company may have spent today after a call of this lane; None where nothing ends it."""
        if not self.daily_tokens or lane is Lane.LIVE:
            return None
        return self.daily_tokens - round(self.reserve * (1 - _SHARE_OF_RESERVE[lane]))

    @property
    def reserve(self) -> int:
        """Tokens that fetches leave to live work."""
        return round(self.daily_tokens * self.live_reserve)
