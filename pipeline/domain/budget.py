"""Who may spend how much of Pipedrive's daily budget: the day belongs to a company, a share of it to live work.

live      to the end, and beyond what we believe the end to be: Pipedrive itself is the judge
control   into half of the reserve
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
"""The day is assumed to begin at midnight UTC: Pipedrive says that it does at midnight of the server, and not where that is."""


class Lane(StrEnum):
    """Who spends of Pipedrive's daily budget; the first three are also the queues."""

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
    """Redis is away: whether Pipedrive has called the day spent is not known."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a connector's settings say of its company's day.

    daily_tokens  tokens a day; 0 is without limit
    live_reserve  the share of them, from 0 to 1, that only live work may use up
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
