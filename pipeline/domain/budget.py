"""Pipedrive's daily budget: how much each lane may spend, and what fetches, plans and schedules will cost. No clock, no I/O.

The budget belongs to a company, and a share of it to live work:

    live      all of it, and more than our own count: Pipedrive itself decides
    control   up to half of the reserve
    bulk      up to the reserve
    verify    up to the reserve

A fetch by two walks reads the ids in ⌈records / page⌉ pages, one more because the walks meet inside a page, and one to
catch up. Calls of live work cannot be foreseen; the reserve is for them.
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


LIST_TOKENS: Final = TOKEN_COSTS["list"]
"""A page of any list, of either entity, and the field definitions."""
ROUND_TOKENS: Final = 2 * LIST_TOKENS
"""One incremental fetch of Persons and Organizations while little changes: a page each."""
INCREMENTAL_SHARE: Final = 0.5
"""How much of what fetches may still spend today goes to incremental ones; the rest is for full fetches."""
PAGE_S: Final = 0.2
"""Seconds a page takes while nothing is known of this connector: 500 records at half the speed seen in docs/performance.md."""
SLOWEST_PAGE_S: Final = 5.0
"""A run with slower pages has been waiting, for the budget or for a worker: that is not a pace."""


WRITE_TOKENS: Final = TOKEN_COSTS["update"]
"""A record of either entity that is created or changed."""
WRITES_PER_S: Final = 20.0
"""Records a second that are written to Pipedrive, one worker with its usual number side by side."""
SENT_AT_ONCE: Final = 500
"""Records to one outgoing batch."""


@dataclass(frozen=True, slots=True)
class FetchCost:
    """What a full fetch of one entity takes, from beginning to end."""

    pages: int
    tokens: int


def fetch_cost(records: int, page_limit: int) -> FetchCost:
    """Cost of a full fetch of so many records, including the field definitions."""
    pages = max(1, ceil(records / page_limit)) + 2
    return FetchCost(pages, LIST_TOKENS * (pages + 1))


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What it takes to carry a plan out."""

    tokens: int
    takes_s: float


def plan_cost(
    *, updates: int, creates: int, read_before: int, fetched: tuple[int, ...], told: int, page_limit: int
) -> PlanCost:
    """Cost of writes, the lists before them, and the resulting fetches; messages to Hull cost no tokens.

    read_before  records that are read again before they are written
    fetched      records of each entity that are fetched again
    told         records that are sent to Hull, from snapshots
    """
    lists = ceil(read_before / MAX_IDS) + ceil(creates / SENT_AT_ONCE)
    fetches = [fetch_cost(records, page_limit) for records in fetched]
    tokens = WRITE_TOKENS * (updates + creates) + LIST_TOKENS * lists + sum(each.tokens for each in fetches)
    pages = sum(each.pages for each in fetches) + ceil(told / page_limit)
    return PlanCost(tokens, (updates + creates) / WRITES_PER_S + PAGE_S * (pages + lists))


def pages_left(low: int | None, high: int | None, page_limit: int, *, catching_up: bool) -> int | None:
    """Return the maximum of pages that a running full fetch still has to read: ids may have gaps. None if it is not known.

    low, high  the last ids of the ascending and the descending walk
    """
    if catching_up:
        return 1
    if low is None or high is None:
        return None
    return ceil(max(0, high - low - 1) / page_limit) + 1


def page_pace_s(took_s: float, pages: int) -> float:
    """Seconds a page, from what a run has done so far."""
    return min(took_s / pages, SLOWEST_PAGE_S) if pages and took_s > 0 else PAGE_S


def ends_in_s(pages: int, page_s: float, *, left: int | None, a_day: int, reset_s: float) -> float | None:
    """Return the seconds until a fetch with so many pages left is done; None if a day's budget is too small for a
    single page.

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
    """Return the cost of incremental fetches of both entities at this interval, in so many seconds."""
    return ROUND_TOKENS * int(seconds // interval_s)


def stretched_interval_s(
    interval_s: float, *, left: int | None, seconds_left: float, share: float = INCREMENTAL_SHARE
) -> float:
    """The interval at which incremental fetches last until the day is over; never shorter than the one that is wanted.

    left          tokens that fetches may still spend today; None is without limit
    seconds_left  of this day; also the answer when not even one more round fits
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
