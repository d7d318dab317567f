"""Every public exception of the libraries under us has a meaning, by one table."""

from __future__ import annotations

from types import ModuleType

import psycopg2
import pytest
import sqlalchemy.exc
import sqlalchemy.orm.exc
from billiard import exceptions as billiard
from kombu import exceptions as kombu
from psycopg2 import errorcodes
from psycopg2 import errors as postgres
from redis import exceptions as redis

from pipeline.domain.reasons import REASONS
from pipeline.error_kinds import BY_CLASS, BY_SQLSTATE, DEFECT, classify
from pipeline.errors import Retryable

LIBRARIES = (sqlalchemy.exc, sqlalchemy.orm.exc, psycopg2, postgres, redis, kombu, billiard)
AWAY = {"database_unavailable", "redis_unavailable", "broker_unavailable"}
BUILTIN = (OSError, Warning)


def public(library: ModuleType) -> list[type[BaseException]]:
    return [
        found
        for name, found in sorted(vars(library).items())
        if isinstance(found, type) and issubclass(found, BaseException) and not name.startswith("_")
    ]


EVERY = {f"{library.__name__}.{found.__name__}": found for library in LIBRARIES for found in public(library)}


def made(family: type[BaseException]) -> BaseException:
    """Return an exception of this class without a message."""
    return family.__new__(family)


def test_every_public_exception_has_a_meaning() -> None:
    found = {name: family for name, family in EVERY.items() if not issubclass(family, Warning)}

    assert {name for name, family in found.items() if not is_known(family)} == set(), "no ancestor is in the table"
    causes = {name: classify(made(family)) for name, family in found.items()}
    assert {name: cause.reason for name, cause in causes.items() if cause.reason not in REASONS} == {}
    wrong = {name for name, cause in causes.items() if isinstance(cause, Retryable) != (cause.reason != DEFECT)}
    assert wrong == set()
    assert len(causes) > 250


def is_known(family: type[BaseException]) -> bool:
    """Return whether the table names an ancestor, or the class is a mixin of SQLAlchemy's that is no error by itself."""
    known = any(each in BY_CLASS for each in family.__mro__) or issubclass(family, psycopg2.Error)
    return known or (
        family.__module__.startswith("sqlalchemy") and not issubclass(family, sqlalchemy.exc.SQLAlchemyError)
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("READ_ONLY_SQL_TRANSACTION", "database_unavailable"),
        ("IDLE_IN_TRANSACTION_SESSION_TIMEOUT", "database_unavailable"),
        ("ADMIN_SHUTDOWN", "database_unavailable"),
        ("CANNOT_CONNECT_NOW", "database_unavailable"),
        ("TOO_MANY_CONNECTIONS", "database_unavailable"),
        ("DISK_FULL", "database_unavailable"),
        ("CONNECTION_FAILURE", "database_unavailable"),
        ("QUERY_CANCELED", "database_busy"),
        ("LOCK_NOT_AVAILABLE", "database_busy"),
        ("DEADLOCK_DETECTED", "database_busy"),
        ("SERIALIZATION_FAILURE", "database_busy"),
        ("OUT_OF_MEMORY", "database_busy"),
        ("UNIQUE_VIOLATION", DEFECT),
        ("UNDEFINED_COLUMN", DEFECT),
        ("PROGRAM_LIMIT_EXCEEDED", DEFECT),
        ("IN_FAILED_SQL_TRANSACTION", DEFECT),
        ("DATA_CORRUPTED", DEFECT),
    ],
)
def test_the_sqlstate_decides(code: str, reason: str) -> None:
    family = postgres.lookup(getattr(errorcodes, code))
    wrapped = sqlalchemy.exc.DBAPIError.instance(
        "SELECT 1", {}, made(family), psycopg2.Error, hide_parameters=True, dialect=None
    )

    assert classify(made(family)).reason == reason
    assert classify(wrapped).reason == reason


def test_every_entry_of_the_table_is_used() -> None:
    codes = [code for name, code in vars(errorcodes).items() if name.isupper() and isinstance(code, str)]

    assert all(any(code.startswith(entry) for code in codes) for entry in BY_SQLSTATE)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (billiard.SoftTimeLimitExceeded(), "interrupted"),
        (billiard.WorkerLostError(), "interrupted"),
        (redis.BusyLoadingError(), "redis_unavailable"),
        (redis.ResponseError("WRONGTYPE"), DEFECT),
        (kombu.OperationalError(), "broker_unavailable"),
        (kombu.EncodeError(), DEFECT),
        (sqlalchemy.exc.InvalidatePoolError(), "database_unavailable"),
        (sqlalchemy.orm.exc.StaleDataError(), "database_busy"),
        (sqlalchemy.exc.NoResultFound(), DEFECT),
    ],
)
def test_some_that_were_seen(error: BaseException, reason: str) -> None:
    assert classify(error).reason == reason
