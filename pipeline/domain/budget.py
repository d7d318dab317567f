"""Pipedrive's daily budget: how much each lane may spend, and what fetches, plans and schedules will cost. No clock, no I/O.

The budget belongs to a company. A part of it is reserved for live work:

    live      all of it: Pipedrive decides when it is spent, not our own count
    control   up to half of the reserve
    bulk      up to the reserve
    verify    up to the reserve

A fetch reads the ids in ⌈records / page⌉ pages, and one more to catch up. If that is more than one page, two walks read them, and
one page more: each walk has a page in flight when they meet. Calls of live work cannot be predicted; the reserve is for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Final

from pipeline.domain.paging import MAX_IDS

DEFAULT_DAILY_TOKENS: Final = 30_000
"""One seat of the smallest plan: https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting."""
DEFAULT_LIVE_RESERVE: Final = 0.2


TOKEN_COSTS: Final[Mapping[str, int]] = {
    "list": 10,
    "get": 1,
    "create": 5,
    "update": 5,
    "delete": 3,
    "search": 20,
    "fields": 10,
    "me": 2,
    "webhooks": 10,
    "create_webhook": 10,
    "delete_webhook": 6,
}
"""Tokens of the daily budget per call, whatever `limit` is: `x-token-cost` of Pipedrive's OpenAPI files, and
https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting.
"""


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
    """Comparisons of both sides."""


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
        """Return how many tokens the company may have spent today after a call of this lane; None for no limit."""
        if not self.daily_tokens or lane is Lane.LIVE:
            return None
        return self.daily_tokens - round(self.reserve * (1 - _SHARE_OF_RESERVE[lane]))

    @property
    def reserve(self) -> int:
        """Tokens that fetches leave to live work."""
        return round(self.daily_tokens * self.live_reserve)


LIST_TOKENS: Final = TOKEN_COSTS["list"]
"""A page of any list, and the field definitions."""
ROUND_TOKENS: Final = 2 * LIST_TOKENS
"""One incremental fetch of Persons and Organizations while little changes: a page each."""
INCREMENTAL_SHARE: Final = 0.5
"""Share of the tokens left for fetches today that incremental fetches may spend; the rest is for full fetches."""
PAGE_S: Final = 0.2
"""Seconds per page before a connector's own pace is known: 500 records at half the speed in docs/performance.md."""
SLOWEST_PAGE_S: Final = 5.0
"""A run with slower pages was waiting for the budget or for a worker, so its time is no measure of the pace."""


WRITE_TOKENS: Final = TOKEN_COSTS["update"]
"""A record of either entity that is created or changed."""
WRITES_PER_S: Final = 20.0
"""Records per second that one worker writes to Pipedrive with its usual number of parallel requests."""
SENT_AT_ONCE: Final = 500
"""Records in one outgoing batch."""


@dataclass(frozen=True, slots=True)
class FetchCost:
    """The cost of a full fetch of one entity."""

    pages: int
    tokens: int


def fetch_cost(records: int, page_limit: int) -> FetchCost:
    """Return the cost of a full fetch of this many records, including the field definitions."""
    pages = 2 if records <= page_limit else ceil(records / page_limit) + 2
    return FetchCost(pages, LIST_TOKENS * (pages + 1))


@dataclass(frozen=True, slots=True)
class PlanCost:
    """The cost of applying a plan."""

    tokens: int
    takes_s: float


def plan_cost(
    *, updates: int, creates: int, read_before: int, fetched: tuple[int, ...], sent: int, page_limit: int
) -> PlanCost:
    """Return the cost of writes, the lists before them, and the resulting fetches; messages to Hull cost no tokens.

    read_before  records that are read again before they are written
    fetched      records of each entity that are fetched again
    sent         records that are sent to Hull, from snapshots
    """
    lists = ceil(read_before / MAX_IDS) + ceil(creates / SENT_AT_ONCE)
    fetches = [fetch_cost(records, page_limit) for records in fetched]
    tokens = WRITE_TOKENS * (updates + creates) + LIST_TOKENS * lists + sum(each.tokens for each in fetches)
    pages = sum(each.pages for each in fetches) + ceil(sent / page_limit)
    return PlanCost(tokens, (updates + creates) / WRITES_PER_S + PAGE_S * (pages + lists))


def pages_left(low: int | None, high: int | None, page_limit: int, *, catching_up: bool) -> int | None:
    """Return how many pages a running full fetch still has to read at most, because ids may have gaps; None if unknown.

    low, high  the last ids of the ascending and the descending walk
    """
    if catching_up:
        return 1
    if low is None or high is None:
        return None
    return ceil(max(0, high - low - 1) / page_limit) + 1


def page_pace_s(took_s: float, pages: int) -> float:
    """Return the seconds per page of a run so far."""
    return min(took_s / pages, SLOWEST_PAGE_S) if pages and took_s > 0 else PAGE_S


def ends_in_s(pages: int, page_s: float, *, left: int | None, a_day: int, reset_s: float) -> float | None:
    """Return the seconds until a fetch with this many pages left is done; None if a day's budget is too small for one page.

    left     tokens that fetches may still spend today; None is without limit
    a_day    tokens that fetches may spend on any other day
    reset_s  seconds until the next day begins
    """
    affordable = pages if left is None else left // LIST_TOKENS
    if pages <= affordable:
        return pages * page_s
    a_day_pages = a_day // LIST_TOKENS
    if a_day_pages <= 0:
        return None
    rest = pages - max(0, affordable)
    whole_days = (rest - 1) // a_day_pages
    return reset_s + whole_days * DAY_S + (rest - whole_days * a_day_pages) * page_s


def schedule_tokens(interval_s: float, seconds: float = DAY_S) -> int:
    """Return the cost of incremental fetches of both entities at this interval, within `seconds`."""
    return ROUND_TOKENS * int(seconds // interval_s)


def stretched_interval_s(
    interval_s: float, *, left: int | None, seconds_left: float, share: float = INCREMENTAL_SHARE
) -> float:
    """Return the interval at which the tokens suffice for incremental fetches until the end of the day, at least `interval_s`.

    left          tokens that fetches may still spend today; None is without limit
    seconds_left  of this day; returned if the tokens do not suffice for one more round
    """
    if left is None:
        return interval_s
    rounds = int(max(0, left) * share) // ROUND_TOKENS
    if rounds == 0:
        return max(interval_s, seconds_left)
    return max(interval_s, seconds_left / rounds)


def rest_of_day(lately: int, seconds_gone: float, seconds_left: float) -> int:
    """Return the expected tokens of unplanned work until the end of the day, at today's pace."""
    return round(lately / seconds_gone * seconds_left) if seconds_gone > 0 else 0
