"""Any exception as one of `pipeline.errors`: ours as it is, those of the libraries by one table.

The nearest entry in the class's ancestry decides; for errors of PostgreSQL the SQLSTATE decides before the class does.
SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import psycopg2  # type: ignore[import-untyped]  # it has no stubs
from billiard import exceptions as billiard  # type: ignore[import-untyped]  # it has no stubs
from kombu import exceptions as kombu
from psycopg2 import errorcodes
from psycopg2 import errors as postgres
from redis import exceptions as redis
from sqlalchemy import exc as sqlalchemy
from sqlalchemy.orm import exc as orm

from pipeline.errors import PipelineError, Retryable

DEFECT: Final = "internal_error"

BY_CLASS: Final[Mapping[type[BaseException], str]] = {
    # SQLAlchemy's own; an error of PostgreSQL that it wraps is judged by what it wraps
    sqlalchemy.SQLAlchemyError: DEFECT,
    sqlalchemy.OperationalError: "database_unavailable",
    sqlalchemy.InterfaceError: "database_unavailable",
    sqlalchemy.TimeoutError: "database_unavailable",  # no connection of the pool became free
    sqlalchemy.DisconnectionError: "database_unavailable",
    sqlalchemy.PendingRollbackError: "database_busy",  # what follows a statement that failed
    sqlalchemy.ResourceClosedError: "database_busy",
    orm.StaleDataError: "database_busy",  # another transaction changed the row
    # psycopg2's, where PostgreSQL gave no SQLSTATE
    psycopg2.Error: DEFECT,
    psycopg2.Warning: DEFECT,
    psycopg2.OperationalError: "database_unavailable",
    psycopg2.InterfaceError: "database_unavailable",
    # redis'
    redis.RedisError: "redis_unavailable",
    redis.ResponseError: DEFECT,  # the command itself was wrong
    redis.DataError: DEFECT,
    redis.PubSubError: DEFECT,
    redis.InvalidPipelineStack: DEFECT,
    redis.IncorrectPolicyType: DEFECT,
    redis.ChildDeadlockedError: DEFECT,
    redis.CrossSlotTransactionError: DEFECT,
    redis.RedisClusterException: DEFECT,
    redis.SlotNotCoveredError: "redis_unavailable",
    redis.ReadOnlyError: "redis_unavailable",
    redis.OutOfMemoryError: "redis_unavailable",
    redis.AuthenticationError: "redis_unavailable",
    redis.AuthenticationWrongNumberOfArgsError: "redis_unavailable",
    redis.NoPermissionError: "redis_unavailable",
    redis.ClusterDownError: "redis_unavailable",
    redis.AskError: "redis_unavailable",
    redis.TryAgainError: "redis_unavailable",
    redis.MovedError: "redis_unavailable",
    redis.MasterDownError: "redis_unavailable",
    # kombu's and, by other names, amqp's
    kombu.KombuError: DEFECT,
    kombu.OperationalError: "broker_unavailable",
    kombu.LimitExceeded: "broker_unavailable",
    kombu.InconsistencyError: "broker_unavailable",
    kombu.ConnectionError: "broker_unavailable",
    kombu.ChannelError: "broker_unavailable",
    kombu.ResourceError: "broker_unavailable",
    kombu.TimeoutError: "broker_unavailable",
    kombu.HttpError: "broker_unavailable",
    # billiard's: the process that works on a task
    billiard.SoftTimeLimitExceeded: "interrupted",
    billiard.TimeLimitExceeded: "interrupted",
    billiard.WorkerLostError: "interrupted",
    billiard.Terminated: "interrupted",
    billiard.RestartFreqExceeded: "interrupted",
    billiard.TimeoutError: "interrupted",
    billiard.CoroStop: "interrupted",
    billiard.ProcessError: DEFECT,
}
"""Class → the reason of a Retryable, or DEFECT. Other classes get the value of their nearest ancestor."""

BY_SQLSTATE: Final[Mapping[str, str]] = {
    "08": "database_unavailable",  # the connection
    "25006": "database_unavailable",  # read only: demoted, or not promoted yet
    "25P03": "database_unavailable",  # idle in a transaction for too long: the connection is closed
    "25P04": "database_busy",  # the transaction took too long
    "40": "database_busy",  # serialization, deadlock
    "53": "database_unavailable",  # disk, connections
    "53200": "database_busy",  # memory: perhaps by this very statement
    "53400": "database_busy",
    "55006": "database_busy",
    "55P03": "database_busy",  # a lock was not free in time
    "57014": "database_busy",  # the statement took too long
    "57P": "database_unavailable",  # shutting down, starting up
    "58": "database_unavailable",  # the server's operating system
}
"""SQLSTATE, or how it begins, → reason; the longest entry decides. One of PostgreSQL's that is not here is a DEFECT."""


def _sqlstates() -> dict[type[BaseException], str]:
    """Return psycopg2's classes of errors with the SQLSTATE of each; success and warnings have no class."""
    found: dict[type[BaseException], str] = {}
    for code in vars(errorcodes).values():
        if isinstance(code, str) and re.fullmatch("[0-9A-Z]{5}", code):
            with suppress(KeyError):
                found[postgres.lookup(code)] = code
    return found


_SQLSTATES: Final = _sqlstates()


def classify(error: BaseException) -> PipelineError:
    """Return the error as one of ours. Its detail has classes and places, never values."""
    if isinstance(error, PipelineError):
        return error
    reason = reason_of(error)
    if reason == DEFECT:
        return PipelineError(DEFECT, f"{type(error).__name__} in {_place(error)}")
    return Retryable(reason, _name(error))


def reason_of(error: BaseException) -> str:
    """Return the reason that the table gives for an exception of a library; DEFECT for any other exception."""
    if isinstance(error, sqlalchemy.DBAPIError):
        if isinstance(error.orig, psycopg2.Error):
            return "database_unavailable" if error.connection_invalidated else reason_of(error.orig)
    elif isinstance(error, psycopg2.Error) and (code := error.pgcode or _SQLSTATES.get(type(error))):
        return _by_sqlstate(code)
    return next((BY_CLASS[each] for each in type(error).__mro__ if each in BY_CLASS), DEFECT)


def may_come_back(error: BaseException) -> bool:
    """Return whether the same work may succeed later, so that it must not be refused permanently."""
    return isinstance(classify(error), Retryable)


def _by_sqlstate(code: str) -> str:
    return next((BY_SQLSTATE[code[:length]] for length in (5, 3, 2) if code[:length] in BY_SQLSTATE), DEFECT)


def _name(error: BaseException) -> str:
    inner = error.orig if isinstance(error, sqlalchemy.DBAPIError) and error.orig is not None else error
    return type(inner).__name__


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].name}, line {frames[-1].lineno}" if frames else "an unknown place"
