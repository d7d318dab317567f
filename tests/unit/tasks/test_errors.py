"""Any exception becomes one of ours, and its detail never repeats what it was about."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisGone
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pipeline.domain.reasons import REASONS
from pipeline.error_kinds import classify
from pipeline.errors import ConfigurationError, LostLease, PipelineError, Rejected, Retryable, Skip

CANARY = "canary-value"


@pytest.mark.parametrize(
    "error", [Skip("gone"), Rejected("gone"), Retryable("gone"), ConfigurationError("gone"), LostLease("gone")]
)
def test_our_own_stay_what_they_are(error: PipelineError) -> None:
    assert classify(error) is error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OperationalError("SELECT 1", {"name": CANARY}, Exception(CANARY)), "database_unavailable"),
        (InterfaceError("SELECT 1", {"name": CANARY}, Exception(CANARY)), "database_unavailable"),
        (PoolTimeout(CANARY), "database_unavailable"),
        (RedisGone(CANARY), "redis_unavailable"),
    ],
)
def test_a_server_that_is_away_may_come_back(error: Exception, reason: str) -> None:
    cause = classify(error)

    assert isinstance(cause, Retryable)
    assert cause.reason == reason
    assert reason in REASONS
    assert CANARY not in str(cause)


def test_a_defect_is_named_by_its_place_alone() -> None:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        cause = classify(error)

    assert not isinstance(cause, Retryable)
    assert cause.reason == "internal_error"
    assert "ValueError in test_a_defect_is_named_by_its_place_alone" in cause.detail
    assert CANARY not in str(cause)


def test_a_defect_without_a_place_is_still_named() -> None:
    assert classify(KeyError(CANARY)).detail == "KeyError in an unknown place"
