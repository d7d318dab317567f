"""Fixtures of all tests: a clean environment, servers that start when first needed, and a system to synchronize.

TEST_DATABASE_URL and TEST_REDIS_URL name PostgreSQL and Redis. Without them, embedded servers run until the tests end. Each
pytest-xdist worker has its own database and its own Redis number.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import hypothesis
import pytest

SCRUBBED = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "PIPEDRIVE_API_URL", "HULL_FIREHOSE_URL", "SECRET_KEYS")
for name in [name for name in os.environ if name.removesuffix("_FILE") in SCRUBBED]:
    del os.environ[name]

MADE_HERE = "TEST_DATA_DIR" not in os.environ
DATA_DIR = Path(os.environ.setdefault("TEST_DATA_DIR", tempfile.mkdtemp(prefix="pipeline-tests-")))
os.environ["DATA_DIR"] = str(DATA_DIR)
os.environ.setdefault("TEST_SESSION_PID", str(os.getpid()))
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")

from sqlalchemy import TextClause, create_engine, text  # noqa: E402 - the environment is clean from here on
from sqlalchemy.engine import make_url  # noqa: E402

from pipeline import settings as settings_module  # noqa: E402
from pipeline import telemetry  # noqa: E402
from pipeline.local import servers as local_servers  # noqa: E402
from pipeline.settings import Settings  # noqa: E402
from tests import outside_reads  # noqa: E402
from tests.open_transactions import none_during_http  # noqa: E402

if TYPE_CHECKING:
    from tests.manual_clock import Clock
    from tests.system import SyncSystem

outside_reads.watch()
gc.disable()  # until all tests are collected, because they are all kept
telemetry.configure("error")
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

COUNT_FROM_ONE = """
    SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false)
      FROM pg_sequences WHERE last_value IS NOT NULL"""
CHEAP_HASH = {"time_cost": 1, "memory_cost": 8, "parallelism": 1}
"""Argon2 with its real parameters takes 0.1 s of CPU; `test_login` checks that the console uses them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in a random order")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (seed := config.getoption("shuffle")) is not None:
        Random(seed).shuffle(items)


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collection: they live until the end."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish() -> None:
    if MADE_HERE and "PYTEST_XDIST_WORKER" not in os.environ:
        local_servers.remove(_embedded_settings())
        shutil.rmtree(DATA_DIR, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_ALL=1, count a skipped test as failed."""
    report = yield
    if os.environ.get("REQUIRE_ALL") == "1":
        fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport) -> None:
    """Turn a skipped test into a failed one, unless it needs root, a base image or RabbitMQ, or is an expected failure."""
    reason = str(report.longrepr)
    is_excused = "needs root" in reason or "needs a base image" in reason or "needs RabbitMQ" in reason
    if report.skipped and not is_excused and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped although REQUIRE_ALL=1: {reason}"


def _embedded_environment() -> dict[str, str]:
    given = {"DATA_DIR": str(DATA_DIR), "SECRET_KEYS": "cGlwZWxpbmUtdGVzdHMtb25seS0wMTIzNDU2Nzg5QUI="}
    for name in ("DATABASE_URL", "REDIS_URL"):
        if f"TEST_{name}" in os.environ:
            given[name] = os.environ[f"TEST_{name}"]
    return given


@cache
def _embedded_settings() -> Settings:
    return Settings.from_env(_embedded_environment())


@pytest.fixture(scope="session")
def servers() -> Settings:
    """The settings of the servers of this test run. One process holds the servers for all pytest-xdist workers until the run ends.

    An embedded PostgreSQL does not wait for the disk.
    """
    settings = _embedded_settings()
    holder = subprocess.Popen(
        [sys.executable, "-m", "pipeline.local", "hold", os.environ["TEST_SESSION_PID"]],
        env=os.environ | _embedded_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the error if another worker was faster
        start_new_session=True,
    )
    assert holder.stdout is not None
    with holder.stdout as lines:
        if not lines.readline():  # not started: another one runs, or the next call raises the error
            holder.wait()
    holder.returncode = 0  # it outlives this process, which must not wait for it
    found = local_servers.complete(settings)
    if "TEST_DATABASE_URL" not in os.environ:
        _write_without_waiting(found.database_url or "")
    return found


def _write_without_waiting(database_url: str) -> None:
    """Switch off protection against a crash of the machine. The server needs no restart."""
    admin = create_engine(database_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {name} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    admin.dispose()


@pytest.fixture(scope="session")
def new_database(servers: Settings) -> Iterator[Callable[..., str]]:
    """Create a database for this worker as a copy of `template` and drop it at the end. Returns its URL."""
    admin = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    names: set[str] = set()

    def make(purpose: str, template: str = "template1") -> str:
        name = f"test_{purpose}_{WORKER}"
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        names.add(name)
        return make_url(servers.database_url).set(database=name).render_as_string(hide_password=False)

    yield make
    with admin.connect() as connection:
        for name in names:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="session")
def template(new_database: Callable[..., str]) -> str:
    """The name of a migrated, empty database without connections."""
    from db.migrate import migrate  # noqa: PLC0415 - unit tests need none of this
    from db.session import make_engine  # noqa: PLC0415

    engine = make_engine(new_database("template"))
    migrate(engine)
    engine.dispose()
    assert engine.url.database
    return engine.url.database


@pytest.fixture(scope="session")
def database_url(new_database: Callable[..., str], template: str) -> Iterator[str]:
    """The URL of a migrated database for this worker."""
    from db.session import engine, use_database  # noqa: PLC0415

    url = new_database("main", template)
    yield url
    use_database(url)  # other tests may have used another one since
    engine().dispose()


@pytest.fixture(scope="session")
def _cheap_hashes() -> None:
    from argon2 import PasswordHasher  # noqa: PLC0415

    from pipeline.accounts import passwords  # noqa: PLC0415

    passwords.PasswordHasher = partial(PasswordHasher, **CHEAP_HASH)  # type: ignore[misc,assignment]
    passwords._hasher.cache_clear()
    passwords._dummy_hash.cache_clear()


@pytest.fixture(autouse=True)
def _no_transaction_during_http() -> Iterator[None]:
    with none_during_http():
        yield


@pytest.fixture(autouse=True)
def _no_outside_reads() -> Iterator[None]:
    yield
    assert not outside_reads.refused, f"read outside the checkout: {outside_reads.refused}"


@pytest.fixture(scope="session")
def worker_settings(database_url: str, servers: Settings) -> Settings:
    """The settings of all tests with a database, validated once: each validation takes 5 ms."""
    number = int(WORKER.removeprefix("gw"))
    return _embedded_settings().replace(
        database_url=database_url,
        redis_url=_numbered(servers.redis_url, 1 + number),
        broker_url=_numbered_broker(servers.broker_url, 8 + number),
        pipedrive_api_url="http://pipedrive.test",
        hull_protocol="http",
        hull_firehose_url="http://hull.test/api/v1/firehose",
        pipedrive_burst_limit=0,
        lease_s=30.0,
        page_limit=50,
        writes_at_once=1,
    )


@pytest.fixture
def database(database_url: str, worker_settings: Settings, _cheap_hashes: None) -> Iterator[str]:
    """An empty database, and settings that use it."""
    from db import token_ledger  # noqa: PLC0415
    from db.session import use_database  # noqa: PLC0415
    from pipeline.connections import shared_redis  # noqa: PLC0415

    settings_module.use(worker_settings)
    use_database(database_url)
    _use_broker(worker_settings)
    yield database_url
    empty_database()
    token_ledger.pending.clear()
    shared_redis().flushdb()  # each test starts with an unspent daily budget
    settings_module.use(None)


def _use_broker(chosen: Settings) -> None:
    """Let the Celery app of this process send to the tests' broker.

    A test without settings may have imported it, and then it would send to any broker on this machine.
    """
    tasks = sys.modules.get("pipeline.tasks.app")
    if tasks is not None and tasks.app.conf.broker_url != chosen.broker_url:
        tasks.app.conf.broker_url = chosen.broker_url
        tasks.app._pool = tasks.app.amqp._producer_pool = None


def empty_database() -> None:
    """Delete all rows of the database in use and restart its sequences at 1, in one round trip."""
    from db.session import engine  # noqa: PLC0415

    with engine().begin() as connection:
        connection.execute(_delete_everything())


@cache
def _delete_everything() -> TextClause:
    from db.base import Base  # noqa: PLC0415

    # TRUNCATE takes ten times as long on small tables
    deletes = [f'DELETE FROM "{table.name}"' for table in reversed(Base.metadata.sorted_tables)]  # noqa: S608
    return text(";".join([*deletes, COUNT_FROM_ONE]))


def _numbered(redis_url: str, number: int) -> str:
    return (
        redis_url.split("?", maxsplit=1)[0] + f"?db={number}"
        if redis_url.startswith("unix")
        else f"{redis_url.rstrip('/0')}/{number}"
    )


def _numbered_broker(broker_url: str, number: int) -> str:
    """Separate the workers: they must not take each other's messages."""
    if "virtual_host=" in broker_url:
        return re.sub(r"virtual_host=\d+", f"virtual_host={number}", broker_url)
    return f"{broker_url.rstrip('/0')}/{number}" if broker_url.startswith("redis") else broker_url


@pytest.fixture
def noon(database: str) -> Iterator[Clock]:
    """A clock that stops at noon. The day changes only when the test moves the clock."""
    from tests.manual_clock import NOON, manual_clock  # noqa: PLC0415

    with manual_clock(NOON) as clock:
        yield clock


@pytest.fixture
def system(request: pytest.FixtureRequest, database: str) -> Iterator[SyncSystem]:
    """A small Pipedrive company, a Hull organization and a connector between them, all in this process."""
    from tests.system import make_system  # noqa: PLC0415

    with make_system(clock=request.getfixturevalue("noon") if "noon" in request.fixturenames else time.time) as made:
        yield made
