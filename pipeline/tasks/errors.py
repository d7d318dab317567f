"""Any exception as one of `pipeline.errors`: what the rooms raise as it is, what libraries raise by what it means for us."""

from __future__ import annotations

import traceback

from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pipeline.errors import PipelineError, Retryable


def classify(error: Exception) -> PipelineError:
    """An error as one of ours: the database and Redis being away is the world being unwell."""
    if isinstance(error, PipelineError):
        return error
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return Retryable("database_unavailable", type(error).__name__)
    if isinstance(error, RedisError):
        return Retryable("redis_unavailable", type(error).__name__)
    return PipelineError("internal_error", f"{type(error).__name__} in {_place(error)}")


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name}, line {frames[-1].lineno}" if frames else "an unknown place"
