"""Run an expensive set-up of a system once, and give the other tests exact copies of its result.

    @pytest.fixture
    @prepared
    def known(system: SyncSystem) -> SyncSystem:
        fill(system, persons=2)
        know_everything(system)
        return system

A copy has the rows and sequences of the database, the keys of Redis, the company, the counters of its API, and all data of
Hull. For a test, the time since the set-up is a pause of KEPT_S at most. A set-up begins with a new system. It may edit the
company, change settings, fetch and work. It adds no listener, fault, subscription or operator: a test adds those itself.
"""

from __future__ import annotations

import io
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache, wraps
from sqlite3 import Connection
from typing import Any, TypeVar, cast

from sqlalchemy import TextClause, text

from db import token_ledger
from db.base import Base
from db.session import engine
from pipeline import connections
from tests.manual_clock import Clock
from tests.system import SyncSystem

T = TypeVar("T")

KEPT_S = 60.0
OF_PEOPLE = ("operators", "operator_sessions", "api_keys", "login_attempts", "audit_log")
"""Tables that fixtures of operators fill before or after the set-up."""
SEQUENCES = """
    SELECT format('%I.%I', schemaname, sequencename) AS name, last_value FROM pg_sequences
     WHERE last_value IS NOT NULL
       AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
                        WHERE d.objid = format('%I.%I', schemaname, sequencename)::regclass AND t.relname = ANY(:of_people))"""
ONE_OF_A_KIND = (type(threading.Lock()), type(threading.RLock()), Connection)
"""Types of objects that are not copied: each system has its own."""

Content = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Copy:
    """The data of a system; `made_at` is in real seconds, `moment` is the time of the manual clock if there is one."""

    made_at: float
    moment: datetime | None
    tables: Content
    sequences: list[tuple[str, int]]
    redis: list[tuple[bytes, int, bytes]]
    calls: tuple[Any, ...]
    records: bytes
    memory: bytes


_copies: dict[str, Copy] = {}


def prepared(set_up: Callable[..., T]) -> Callable[..., T]:
    """Run a set-up only if there is no copy of its result, or the system is not new.

    set_up  a function of a system and of arguments with a distinct repr
    """

    @wraps(set_up)
    def prepare(system: SyncSystem, *given: Any, **named: Any) -> T:
        if not _is_new(system):
            return set_up(system, *given, **named)
        clock = system.company.clock
        start = clock.now if isinstance(clock, Clock) else None
        name = f"{set_up.__module__}.{set_up.__qualname__} {given} {sorted(named.items())} {start}"
        for old in [each for each, copy in _copies.items() if _real_seconds() - copy.made_at > KEPT_S]:
            del _copies[old]
        if name in _copies:
            return cast("T", _restore(system, _copies[name]))
        people = _content(OF_PEOPLE)
        result = set_up(system, *given, **named)
        assert people == _content(OF_PEOPLE), "a set-up must add no operator and no audit entry"
        assert _left_out(system) == [], "a set-up must add no fault and no subscription"
        _copies[name] = _copy(system, result)
        return result

    return prepare


def _is_new(system: SyncSystem) -> bool:
    """Return whether the system is unused: one transaction wrote all rows, and no API was called."""
    company = system.company
    if (
        system.pipedrive.ledger.requests
        or system.hull.received.count
        or len(system.hull.users)
        or len(system.hull.accounts)
    ):
        return False
    if company.count("person") or company.count("organization") or _left_out(system):
        return False
    with engine().connect() as connection:
        return bool(connection.scalar(_only_made()))


@cache
def _only_made() -> TextClause:
    first = ("connectors", "credentials", "settings_versions")
    writers = " UNION ALL ".join(f"SELECT xmin::text AS writer FROM {name}" for name in first)  # noqa: S608
    empty = [f'NOT EXISTS (SELECT FROM "{name}")' for name in _tables() if name not in first]
    one = f"(SELECT count(DISTINCT writer) = 1 FROM ({writers}) AS all_writers)"  # noqa: S608
    return text("SELECT " + " AND ".join([one, *empty]))


def _left_out(system: SyncSystem) -> list[Any]:
    """Return the faults and subscriptions of the sandbox, which a copy does not have."""
    pipedrive, sandbox = system.pipedrive, system.hull_app.extensions
    target = sandbox["hull_notifier"].target
    return [
        *pipedrive.faults.rules,
        *pipedrive.subscriptions.by_id,
        *sandbox["hull_faults"].rules,
        *filter(None, [target]),
    ]


def _real_seconds() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)  # not changed by a manual clock


@cache
def _tables() -> list[str]:
    return [table.name for table in Base.metadata.sorted_tables if table.name not in OF_PEOPLE]


def _content(tables: tuple[str, ...] | list[str]) -> Content:
    """Return (table, its rows in the format of COPY) for each table with rows."""
    connection = engine().raw_connection()
    try:
        cursor, found = connection.cursor(), []
        for table in tables:
            rows = io.BytesIO()
            cursor.copy_expert(f'COPY (SELECT * FROM "{table}") TO STDOUT', rows)  # noqa: S608
            if rows.getvalue():
                found.append((table, rows.getvalue()))
        return found
    finally:
        connection.close()


def _copy(system: SyncSystem, result: Any) -> Copy:
    clock = system.company.clock
    redis = connections.shared_redis()
    with engine().connect() as connection:
        sequences = [(row[0], row[1]) for row in connection.execute(text(SEQUENCES), {"of_people": list(OF_PEOPLE)})]
    return Copy(
        made_at=_real_seconds(),
        moment=clock.now if isinstance(clock, Clock) else None,
        tables=_content(_tables()),
        sequences=sequences,
        redis=[(key, max(redis.pttl(key), 0), redis.dump(key)) for key in redis.scan_iter()],
        calls=tuple(token_ledger.pending),
        records=system.company.store.connection.serialize(),
        memory=_dumped(system, (result, [_state(part) for part in _parts(system)])),
    )


def _restore(system: SyncSystem, copy: Copy) -> Any:
    from pipeline.sync import compiled  # noqa: PLC0415 - Celery reads its settings when it is imported

    clock = system.company.clock
    if copy.moment is not None:
        clock.move((copy.moment - clock.now).total_seconds())  # type: ignore[attr-defined]
    _restore_rows(copy)
    redis = connections.shared_redis()
    with redis.pipeline(transaction=False) as pipe:
        for key, ttl, value in copy.redis:
            pipe.restore(key, ttl, value, replace=True)
        pipe.execute()
    token_ledger.pending.extend(copy.calls)
    compiled._compiled.clear()
    system.company.store.connection.deserialize(copy.records)
    result, states = _loaded(system, copy.memory)
    for part, state in zip(_parts(system), states, strict=True):
        vars(part).update(state)
    return result


def _restore_rows(copy: Copy) -> None:
    deletes = [f'DELETE FROM "{name}"' for name in reversed(_tables())]  # noqa: S608
    counts = [f"SELECT setval('{name}', {value})" for name, value in copy.sequences]
    connection = engine().raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(";".join([*deletes, *counts]))
        for table, rows in copy.tables:
            cursor.copy_expert(f'COPY "{table}" FROM STDIN', io.BytesIO(rows))
        connection.commit()
    finally:
        connection.close()


def _parts(system: SyncSystem) -> tuple[Any, ...]:
    """Return the objects with attributes that a set-up changes."""
    company, pipedrive = system.company, system.pipedrive
    return (
        company,
        company.store,
        company.search_index,
        pipedrive.ledger,
        pipedrive.budget,
        pipedrive.limiter,
        system.hull,
    )


def _state(part: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if not _is_own(value) and name != "listeners"}


def _is_own(value: Any) -> bool:
    return callable(value) or isinstance(value, ONE_OF_A_KIND)


def _own(system: SyncSystem) -> dict[str, Any]:
    """Return name → object, for objects that a copy refers to by name, because each system has its own."""
    parts = {f"{number}": part for number, part in enumerate(_parts(system))} | {"system": system}
    inner = {
        f"{n}.{name}": value
        for n, part in enumerate(_parts(system))
        for name, value in vars(part).items()
        if _is_own(value)
    }
    return parts | inner


def _dumped(system: SyncSystem, value: Any) -> bytes:
    names = {id(each): name for name, each in _own(system).items()}
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.persistent_id = lambda each: names.get(id(each))  # type: ignore[method-assign]
    pickler.dump(value)
    return buffer.getvalue()


def _loaded(system: SyncSystem, dumped: bytes) -> Any:
    unpickler = pickle.Unpickler(io.BytesIO(dumped))  # noqa: S301 - we wrote it
    unpickler.persistent_load = _own(system).__getitem__  # type: ignore[method-assign]
    return unpickler.load()
