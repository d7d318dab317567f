"""Pipedrive's daily budget of tokens: one counter per company, and a share of the budget reserved for live work.

    spend   counts a call's price before it is sent, in Redis (`budget.lua`), or raises Retryable("daily_budget_spent")
    a 429   about the budget closes it for every lane until midnight UTC; one call tries again every half an hour

A counter that Redis has lost starts from today's ledger. Without Redis the ledger is read before each call, and each batch
finds out alone that the budget is closed.
Source: https://pipedrive.readme.io/docs/core-api-concepts-rate-limiting
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files

import redis
import structlog

from pipeline.clients.http import DAILY_PAUSE_S, daily_headers, error_for
from pipeline.clients.limiter import REDIS_PAUSE_S
from pipeline.clients.wire import Response
from pipeline.domain.budget import ClosingUnknown
from pipeline.errors import NOTHING_SENT, PipelineError, Retryable

logger = structlog.get_logger(__name__)

_LUA = files("pipeline.clients").joinpath("budget.lua").read_text()
BELIEVED_S = 1.0
_TELLS_NOTHING = frozenset({401, 403, 429})
"""Answers after which the budget may still be closed: they come before Pipedrive checks the budget, or because of it."""


class TokenBudget:
    """The daily budget of one company for one lane.

    company  key of the company
    lane     the spending lane, for the text of a refusal
    ceiling  how many tokens may be spent in total after a call of this lane; None leaves the limit to Pipedrive
    daily_tokens  the total that `ceiling` is a part of; 0 is without limit
    ledger   how many tokens the company has spent today, as far as they are stored
    """

    def __init__(
        self,
        connection: redis.Redis,
        *,
        company: str,
        lane: str,
        ceiling: int | None,
        daily_tokens: int = 0,
        ledger: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
        redis_time: Callable[[], float] | None = None,
    ) -> None:
        self._key = f"pipedrive:budget:{{{company}}}"
        self._lane = lane
        self._ceiling = ceiling
        self._daily_tokens = daily_tokens
        self._ledger = ledger
        self._clock = clock
        self._redis_time = redis_time
        self._script = connection.register_script(_LUA)
        self._redis_back_at = float("-inf")
        self._spent_alone = 0
        self._believed_at = float("-inf")

    def spend(self, tokens: int, call: Callable[[], Response]) -> Response:
        """Send a call of this price, if the budget allows it.

        Raises: Retryable("daily_budget_spent") with the seconds to wait, and then nothing was sent; the errors of `call`.
        """
        is_probe = self._take(tokens)
        try:
            response = call()
        except PipelineError as failure:
            if failure.reason in NOTHING_SENT:
                self._ask("give_back", tokens)
            raise
        if response.status == 429:
            self._ask("give_back", tokens)
            self._close_if_told(response)
            return response
        self._believe(response)
        if is_probe and response.status < 500 and response.status not in _TELLS_NOTHING:
            self._ask("open")
        return response

    def closed_s(self) -> float | None:
        """Return the seconds until Pipedrive is called again after it refused calls for today; None if it has not.

        Raises: ClosingUnknown while Redis, the only store of this, is unavailable.
        """
        found = self._ask("look")
        if found is None:
            raise ClosingUnknown
        word, seconds = found
        return seconds if word == "closed" else None

    def _take(self, tokens: int) -> bool:
        """Count the price; return True if this call is the one that checks whether the budget is still closed."""
        answer = self._ask("take", tokens)
        if answer and answer[0] == "unknown":
            answer = self._ask("take", tokens, ledger=self._ledger())
        word, wait_s = answer or self._take_alone(tokens)
        if word == "kept":
            raise Retryable(
                "daily_budget_spent", f"{self._lane}: the rest of the day is kept for live work", retry_after_s=wait_s
            )
        if word == "closed":
            raise Retryable("daily_budget_spent", "Pipedrive said so", retry_after_s=wait_s)
        return word == "probe"

    def _take_alone(self, tokens: int) -> tuple[str, float]:
        if self._ceiling is not None and self._ledger() + self._spent_alone + tokens > self._ceiling:
            return "kept", DAILY_PAUSE_S
        self._spent_alone += tokens
        return "go", 0.0

    def _believe(self, response: Response) -> None:
        """Pipedrive's own figure of the remaining budget wins over our count; used at most once a second and client."""
        day = daily_headers(response)
        if day is None or self._clock() < self._believed_at + BELIEVED_S:
            return
        self._believed_at = self._clock()
        limit, remaining = day
        self._ask("tell", max(limit, self._daily_tokens) - remaining)

    def _close_if_told(self, response: Response) -> None:
        error = error_for(response)
        if isinstance(error, Retryable) and error.reason == "daily_budget_spent":
            self._ask("close", error.retry_after_s or DAILY_PAUSE_S)
            logger.warning("budget.closed", lane=self._lane, asked_again_s=error.retry_after_s)

    def _ask(self, operation: str, amount: float = 0, *, ledger: int | None = None) -> tuple[str, float] | None:
        """Return (word, seconds) of the script; None while Redis is unavailable."""
        if self._clock() < self._redis_back_at:
            return None
        given: list[str | float] = [
            operation,
            amount,
            "" if self._ceiling is None else self._ceiling,
            "" if ledger is None else ledger,
            self._redis_time() if self._redis_time else "",
        ]
        try:
            word, seconds = self._script(keys=[self._key], args=given)
        except redis.RedisError as error:
            self._redis_back_at = self._clock() + REDIS_PAUSE_S
            logger.warning("budget.alone", error=type(error).__name__)
            return None
        return word.decode(), float(seconds)
