"""The day of a company in a real Redis: many workers, one counter, a reserve, and a day that Pipedrive has closed.

Time is handed to the script, so no call waits for midnight.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from pipeline.clients.http_transport import Response
from pipeline.clients.limits import TokenBudget
from pipeline.connections import shared_redis
from pipeline.domain.budget import DAY_S
from pipeline.errors import Retryable

MORNING = 20_000 * DAY_S + 6 * 3_600.0
MIDNIGHT = 20_001 * DAY_S
HALF_AN_HOUR = 1_800.0


def answer(status: int = 200, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status=status, headers=named, body=b"{}", duration_s=0.1)


DAY = {"x_daily_ratelimit_token_limit": "30000"}
DAY_IS_SPENT = answer(
    429, x_ratelimit_remaining="40", x_ratelimit_limit="80", x_daily_ratelimit_token_remaining="0", **DAY
)
TOO_FAST = answer(429, x_ratelimit_remaining="0", x_ratelimit_limit="80")


class Company:
    """A company's day: `now` is its time, `sent` counts what reached Pipedrive, `response` is what Pipedrive answers."""

    def __init__(self) -> None:
        self.now = MORNING
        self.sent = 0
        self.response = answer()
        self.ledger = 0
        self._lock = threading.Lock()

    def call(self) -> Response:
        with self._lock:
            self.sent += 1
        return self.response

    def budget(self, lane: str = "bulk", ceiling: int | None = 100, *, company: str = "acme") -> TokenBudget:
        return TokenBudget(
            shared_redis(),
            company=company,
            lane=lane,
            ceiling=ceiling,
            ledger=lambda: self.ledger,
            redis_time=lambda: self.now,
        )

    def spend(
        self, tokens: int, lane: str = "bulk", ceiling: int | None = 100, *, company: str = "acme"
    ) -> float | None:
        """Seconds to wait, or None when the call was sent."""
        try:
            self.budget(lane, ceiling, company=company).spend(tokens, self.call)
        except Retryable as refused:
            return refused.retry_after_s if refused.reason == "daily_budget_spent" else -1.0
        return None


@pytest.fixture
def acme(database: str) -> Company:
    return Company()


def test_a_fetch_stops_before_the_reserve_with_the_time_of_the_next_day(acme: Company) -> None:
    assert [acme.spend(10) for _ in range(11)] == [None] * 10 + [MIDNIGHT - MORNING]
    assert acme.sent == 10


def test_live_work_continues_after_fetches_stop(acme: Company) -> None:
    acme.spend(100)

    assert acme.spend(10) is not None
    assert acme.spend(10, "control", 110) is None
    assert acme.spend(10, "control", 110) is not None
    assert [acme.spend(50, "live", None) for _ in range(5)] == [None] * 5


def test_a_cheap_call_passes_where_a_dear_one_does_not(acme: Company) -> None:
    acme.spend(95)

    assert acme.spend(10) is not None
    assert acme.spend(5) is None


def test_connectors_of_one_company_share_its_day_and_others_have_their_own(acme: Company) -> None:
    acme.spend(100, company="acme")

    assert acme.spend(1, company="acme") is not None
    assert acme.spend(1, company="other") is None


def test_twenty_workers_never_spend_more_than_they_may(acme: Company) -> None:
    with ThreadPoolExecutor(20) as workers:
        waits = list(workers.map(lambda _: acme.spend(3), range(100)))

    assert acme.sent == waits.count(None) == 33


def test_a_counter_that_redis_lost_begins_from_the_ledger(acme: Company) -> None:
    acme.spend(10)
    shared_redis().flushdb()
    acme.ledger = 95

    assert acme.spend(10) is not None
    assert acme.spend(5) is None


def test_the_ledger_is_asked_once_a_day_and_not_for_every_call(acme: Company) -> None:
    asked = []
    budget = acme.budget()
    budget._ledger = lambda: asked.append(1) or 0  # type: ignore[func-returns-value]
    for _ in range(3):
        budget.spend(1, acme.call)

    assert len(asked) == 1


def test_a_new_day_begins_at_nothing(acme: Company) -> None:
    acme.spend(100)
    acme.now = MIDNIGHT + 1

    assert acme.spend(100) is None


@pytest.mark.parametrize("response", [DAY_IS_SPENT, TOO_FAST])
def test_a_call_refused_for_its_rate_costs_nothing(acme: Company, response: Response) -> None:
    acme.response = response
    acme.spend(100)
    acme.response = answer()
    acme.now += HALF_AN_HOUR

    assert acme.spend(100) is None


def test_a_call_that_never_left_costs_nothing(acme: Company) -> None:
    def unreachable() -> Response:
        raise Retryable("remote_unreachable")

    with pytest.raises(Retryable, match="remote_unreachable"):
        acme.budget().spend(100, unreachable)

    assert acme.spend(100) is None


def test_a_call_without_an_answer_counts(acme: Company) -> None:
    def lost() -> Response:
        raise Retryable("remote_unavailable")

    with pytest.raises(Retryable, match="remote_unavailable"):
        acme.budget().spend(100, lost)

    assert acme.spend(1) is not None


@pytest.mark.parametrize(("lane", "ceiling"), [("live", None), ("control", 110), ("bulk", 100), ("verify", 100)])
def test_a_day_that_pipedrive_calls_spent_is_closed_for_every_lane(
    acme: Company, lane: str, ceiling: int | None
) -> None:
    acme.response = DAY_IS_SPENT
    acme.spend(10)

    assert acme.spend(1, lane, ceiling) == HALF_AN_HOUR
    assert acme.sent == 1


def test_a_burst_closes_nothing(acme: Company) -> None:
    acme.response = TOO_FAST
    acme.spend(10)

    assert acme.budget().closed_s() is None


def test_one_worker_asks_again_after_half_an_hour_and_the_others_wait_for_its_answer(acme: Company) -> None:
    acme.response = DAY_IS_SPENT
    acme.spend(10)
    acme.now += HALF_AN_HOUR

    def while_it_asks() -> Response:
        assert acme.spend(1, "live", None) == 60
        return acme.call()

    acme.budget("live", None).spend(1, while_it_asks)

    assert acme.sent == 2
    assert acme.spend(1, "live", None) == HALF_AN_HOUR


def test_a_good_answer_opens_the_day_for_everybody(acme: Company) -> None:
    acme.response = DAY_IS_SPENT
    acme.spend(10)
    acme.response, acme.now = answer(404), acme.now + HALF_AN_HOUR
    acme.spend(1, "live", None)

    assert [acme.spend(1), acme.spend(1, "live", None)] == [None, None]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_an_answer_without_budget_headers_does_not_reopen_the_budget(acme: Company, status: int) -> None:
    acme.response = DAY_IS_SPENT
    acme.spend(10)
    acme.response, acme.now = answer(status), acme.now + HALF_AN_HOUR
    acme.spend(1)

    assert acme.spend(1) == 60


def test_a_closed_day_ends_at_midnight(acme: Company) -> None:
    acme.now = MIDNIGHT - 100
    acme.response = DAY_IS_SPENT
    acme.spend(10)
    acme.response = answer()

    assert acme.spend(1) == 100
    acme.now = MIDNIGHT + 1
    assert acme.spend(1) is None


def test_the_pause_that_pipedrive_asks_for_is_kept(acme: Company) -> None:
    acme.response = answer(429, x_daily_ratelimit_token_remaining="0", retry_after="3000", **DAY)
    acme.spend(10)

    assert acme.budget().closed_s() == 3_000


@pytest.fixture
def without_redis(acme: Company, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TokenBudget]:
    def make(ceiling: int | None = 100) -> TokenBudget:
        away = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.1, retry=None)
        return TokenBudget(away, company="acme", lane="bulk", ceiling=ceiling, ledger=lambda: acme.ledger)

    return make


def test_without_redis_the_ledger_is_asked(acme: Company, without_redis: Callable[..., TokenBudget]) -> None:
    acme.ledger = 80
    budget = without_redis()
    budget.spend(10, acme.call)
    budget.spend(10, acme.call)

    with pytest.raises(Retryable, match="daily_budget_spent"):
        budget.spend(10, acme.call)
    assert acme.sent == 2


def test_without_redis_live_work_continues(acme: Company, without_redis: Callable[..., TokenBudget]) -> None:
    acme.ledger = 1_000

    assert without_redis(None).spend(10, acme.call).status == 200


def test_pipedrives_remaining_tokens_replace_our_count(acme: Company) -> None:
    acme.response = answer(x_daily_ratelimit_token_remaining="29930", **DAY)
    bulk = acme.budget(ceiling=80)
    bulk.spend(10, acme.call)
    acme.response = answer()
    bulk.spend(10, acme.call)

    with pytest.raises(Retryable, match="daily_budget_spent"):
        acme.budget(ceiling=80).spend(10, acme.call)


def test_a_larger_budget_than_in_the_settings_is_counted_by_the_spent_tokens(acme: Company) -> None:
    acme.response = answer(x_daily_ratelimit_token_remaining="29990", **DAY)
    budget = acme.budget(ceiling=100)
    budget.spend(10, acme.call)
    acme.response = answer()

    for _ in range(9):
        budget.spend(10, acme.call)
    with pytest.raises(Retryable, match="daily_budget_spent"):
        budget.spend(10, acme.call)
