"""What fetches and schedules will cost of Pipedrive's daily budget, and when they will be done. Pure arithmetic.

A fetch by two walks reads the ids in ⌈records / page⌉ pages, one more because the walks meet inside a page, and one to catch up.
Calls of live work cannot be foreseen; the reserve of `pipeline.domain.budget` is for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

from pipeline.domain.budget import DAY_S

LIST_TOKENS: Final = 10
"""A page of any list, of either entity, and the field definitions: https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting."""
ROUND_TOKENS: Final = 20
"""One incremental fetch of Persons and Organizations while little changes: a page each."""
INCREMENTAL_SHARE: Final = 0.5
"""How much of what fetches may still spend today goes to incremental ones; the rest is for full fetches."""
PAGE_S: Final = 0.2
"""Seconds a page takes while nothing is known of this connector: 500 records at half the speed seen in docs/performance.md."""
SLOWEST_PAGE_S: Final = 5.0
"""A run whose pages took longer each has been waiting, for the day or for a worker: that is no pace."""


WRITE_TOKENS: Final = 5
"""A record of either entity that is made or changed: the same page."""
WRITES_PER_S: Final = 20.0
"""Records a second that are written to Pipedrive, one worker with its usual number side by side."""
READ_AT_ONCE: Final = 100
"""Records by their ids to one list."""
SENT_AT_ONCE: Final = 500
"""Records to one outgoing batch."""


@dataclass(frozen=True, slots=True)
class FetchCost:
    """What a full fetch of one entity takes, from beginning to end."""

    pages: int
    tokens: int


def fetch_cost(records: int, page_limit: int) -> FetchCost:
    """A full fetch of so many records, which reads the field definitions first."""
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
    """Writes, the lists that come before them, and the fetches that are called for; telling Hull costs no token.

    read_before  records that are read once more before they are written
    fetched      records of each entity that is fetched again
    told         records that Hull is told of, out of what is stored
    """
    lists = ceil(read_before / READ_AT_ONCE) + ceil(creates / SENT_AT_ONCE)
    fetches = [fetch_cost(records, page_limit) for records in fetched]
    tokens = WRITE_TOKENS * (updates + creates) + LIST_TOKENS * lists + sum(each.tokens for each in fetches)
    pages = sum(each.pages for each in fetches) + ceil(told / page_limit)
    return PlanCost(tokens, (updates + creates) / WRITES_PER_S + PAGE_S * (pages + lists))


def pages_left(low: int | None, high: int | None, page_limit: int, *, catching_up: bool) -> int | None:
    """Pages a running full fetch still has to read, at most: ids may have gaps. None while nothing tells.

    low, high  the last ids that the ascending and the descending walk have read
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
    """Seconds until a fetch that has so many pages left is done; None when its day is too small for a single page.

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
    """What incremental fetches of both entities at this interval take in so many seconds."""
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
    """Tokens that what cannot be planned will take until the day is over, if it goes on as it went so far today."""
    return round(lately / seconds_gone * seconds_left) if seconds_gone > 0 else 0
